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
    from ruamel.yaml.events import AliasEvent, ScalarEvent

    class Bounded(Composer):
        """Counts values and levels, those that aliases repeat included."""

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.open: list[list[int]] = []  # of each holder being read: its values, levels
            self.whole: dict[int, tuple[int, int]] = {}  # the same of those that were, by id

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.parser.peek_event()
            line = event.start_mark.line + 1
            if isinstance(event, AliasEvent):
                node = super().compose_node(parent, index)
                if id(node) not in self.whole:
                    raise _refused("a value contains itself", shown, line)
                values, levels = self.whole[id(node)]
            else:
                if event.anchor in self.anchors:
                    raise _refused(f"the anchor &{event.anchor} is defined twice", shown, line)
                is_scalar = isinstance(event, ScalarEvent)
                node, values, levels = self._counted(parent, index, line, is_scalar=is_scalar)
                self.whole[id(node)] = values, levels
            if self.open:
                above = self.open[-1]
                above[0], above[1] = above[0] + values, max(above[1], levels)
                _check(above[0], len(self.open) + levels, shown, line)
            return node

        def _counted(
            self, parent: Any, index: Any, line: int, *, is_scalar: bool
        ) -> tuple[Any, int, int]:
            """A node, its values and its levels."""
            if is_scalar:
                return super().compose_node(parent, index), 1, 0
            self.open.append([1, 0])
            _check(0, len(self.open), shown, line)
            node = super().compose_node(parent, index)
            values, below = self.open.pop()
            return node, values, below + 1

    return Bounded


def _check(values: int, levels: int, shown: str, line: int) -> None:
    if levels > MOST_LEVELS:
        why = f"wanted at most {MOST_LEVELS} levels of lists and keys, found more"
        raise _refused(why, shown, line)
    if values > MOST_VALUES_OF_LOOP_FILE:
        why = f"wanted at most {MOST_VALUES_OF_LOOP_FILE} values, found more"
        raise _refused(f"{why} (what an alias repeats counts)", shown, line)


def _refused(why: str, shown: str, line: int) -> ConfigError:
    return ConfigError(why, where=Location(shown, line))
