"""A loop file as pytest sees it: a collector with one test item per gate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_ftloop.config.gates import DEFAULT_REGRESSION, Gate, Regression
from pytest_ftloop.config.loop_config import LoopConfig, read_loop_file
from pytest_ftloop.core.errors import FtloopError, wants_traceback
from pytest_ftloop.core.printable import printable, printable_line
from pytest_ftloop.plugin.news import Key, key_of
from pytest_ftloop.plugin.session import session_of
from pytest_ftloop.report.properties import Properties, loop_properties, verdict_properties

if TYPE_CHECKING:
    from pytest_ftloop.loop.result import LoopResult


class LoopFileCollector(pytest.File):
    """Reads a loop file, but not its data, and yields one item per gate."""

    def __init__(self, *, path: Path, parent: pytest.Collector, **kwargs: Any) -> None:
        root = parent.config.rootpath
        place = path.relative_to(root) if path.is_relative_to(root) else path
        if not place.as_posix().isprintable():  # pytest prints the id as it is
            kwargs["nodeid"] = printable_line(place.as_posix())
        super().__init__(path=path, parent=parent, **kwargs)

    def collect(self) -> Iterator[pytest.Item]:
        """One item per gate in the order of the file; without gates, one called `completes`.

        In a replay a loop without a regression gate is judged by the default one (as ftloop gate).
        A loop with guards is always judged by a forgetting gate.
        """
        try:
            config = read_loop_file(self.path)
        except FtloopError as error:
            session_of(self.config).note_unreadable(self.path)
            raise self.CollectError(str(error)) from None
        gates: tuple[Gate | Regression, ...] = (*config.gates, *config.comparisons)
        found: list[Gate | Regression | None] = [*sorted(gates, key=lambda gate: gate.line or 0)]
        found = found or [None]
        if session_of(self.config).options.replay and not config.regressions:
            found.append(DEFAULT_REGRESSION)
        for gate in found:
            name = printable_line(gate.name) if gate else "completes"
            kind = RegressionItem if isinstance(gate, Regression) else GateItem
            # pytest 9.2 parses an id given as text like the list of --lf, `[tag]` apart from the
            # name. Otherwise --lf would not recognise the item.
            nodeid = f"{self.nodeid}::{name}"
            yield kind.from_parent(self, name=name, nodeid=nodeid, loop=config, gate=gate)


class GateFailedError(Exception):
    """A gate does not hold: the whole explanation, and the key of the loop in the news."""

    def __init__(self, text: str, loop: Key) -> None:
        super().__init__(text)
        self.failed_loop = loop


class LoopItem(pytest.Item):
    """A test of a loop file. The first item that runs trains the loop for all of them."""

    def __init__(self, *, loop: LoopConfig, gate: Gate | Regression | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loop, self.line = loop, gate.line if gate else None
        self.add_marker("ftloop")

    def record(self, properties: Properties) -> None:
        """Set the item's JUnit properties, in place of those of an earlier run of the same item."""
        names = {name for name, _ in properties}
        others = [pair for pair in self.user_properties if pair[0] not in names]
        self.user_properties[:] = [*others, *properties]

    def fail(self, result: LoopResult, text: str) -> NoReturn:
        """Fail with the whole explanation; the terminal prints it once, in the loop's section."""
        raise GateFailedError(text, key_of(result))

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Show a failed gate or a user's mistake as text; only our bugs show a traceback."""
        if isinstance(excinfo.value, GateFailedError | FtloopError) and not wants_traceback():
            return printable(str(excinfo.value))
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str], int | None, str]:
        """The gate's line in the loop file."""
        return Path(self.path), None if self.line is None else self.line - 1, self.name


class RegressionItem(LoopItem):
    """A regression gate. The comparison with the baseline is made only if this item runs."""

    def __init__(self, *, gate: Regression, **kwargs: Any) -> None:
        super().__init__(gate=gate, **kwargs)
        self.gate = gate

    def runtest(self) -> None:
        """Run the loop unless it has run, and compare its best iteration with the baseline."""
        session = session_of(self.config)
        verdict = session.judge_once(self.loop, self.gate, self.name)
        result = session.run_once(self.loop, self.name)
        self.record([*loop_properties(result), *verdict_properties(verdict, self.gate)])
        if not verdict.ok:
            from pytest_ftloop.report.verdict import explain_verdict

            self.fail(result, explain_verdict(result, verdict, self.gate))


class GateItem(LoopItem):
    """A threshold on one metric. Without a gate it only checks that the loop completes."""

    def __init__(self, *, gate: Gate | None, **kwargs: Any) -> None:
        super().__init__(gate=gate, **kwargs)
        self.gate = gate

    def runtest(self) -> None:
        """Run the loop unless it has run, and check this gate."""
        result = session_of(self.config).run_once(self.loop, self.name)
        checked = None
        if self.gate is not None:
            checked = next(r for r in result.gates if r.gate == self.gate)
        self.record(loop_properties(result, checked))
        if checked is not None and not checked.passed:
            from pytest_ftloop.report.explain import explain_gate

            self.fail(result, explain_gate(result, checked))
