"""The nodes of a loop file's YAML, as many and as deep as a loop file needs."""

from __future__ import annotations

from typing import Any

from pytest_ftloop.core.bounds import MOST_LEVELS, MOST_VALUES_OF_LOOP_FILE
from pytest_ftloop.core.errors import ConfigError, Location


def bounded_composer(shown: str) -> Any:
    """A composer of the YAML library that stops at the limits of `core.bounds`.

    What an alias (`*name`) repeats counts each time: twelve lines may stand for a billion values.
    """
    from ruamel.yaml.composer import Composer
    from ruamel.yaml.events import AliasEvent

    class Bounded(Composer):
        """Counts values and levels, those that aliases repeat included."""

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.open: list[list[int]] = []  # of each node that is being read: its values, levels
            self.whole: dict[int, tuple[int, int]] = {}  # the same of those that were, by id

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.parser.peek_event()
            line = event.start_mark.line + 1
            if self.parser.check_event(AliasEvent):
                node = super().compose_node(parent, index)
                if id(node) not in self.whole:
                    raise _refused("a value contains itself", shown, line)
                values, levels = self.whole[id(node)]
            else:
                if event.anchor in self.anchors:
                    raise _refused(f"the anchor &{event.anchor} is defined twice", shown, line)
                self.open.append([1, 1])
                self._check(0, 0, line)
                node = super().compose_node(parent, index)
                values, levels = self.open.pop()
                self.whole[id(node)] = values, levels
            if self.open:
                self._check(values, levels, line)
                above = self.open[-1]
                above[0], above[1] = above[0] + values, max(above[1], levels + 1)
            return node

        def _check(self, values: int, levels: int, line: int) -> None:
            # Keys and values have no level of their own.
            if len(self.open) + levels > MOST_LEVELS + 1:
                why = f"wanted at most {MOST_LEVELS} levels of lists and keys, found more"
                raise _refused(why, shown, line)
            if self.open[-1][0] + values > MOST_VALUES_OF_LOOP_FILE:
                why = f"wanted at most {MOST_VALUES_OF_LOOP_FILE} values, found more"
                raise _refused(f"{why} (what an alias repeats counts)", shown, line)

    return Bounded


def _refused(why: str, shown: str, line: int) -> ConfigError:
    return ConfigError(why, where=Location(shown, line))
