"""A loop file as pytest sees it: a collector, and one test item for each gate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.config.gates import Gate, Regression
from pytest_ftloop.config.loop_config import LoopConfig, read_loop_file
from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.plugin.session import session_of
from pytest_ftloop.report.properties import loop_properties, verdict_properties


class LoopFileCollector(pytest.File):
    """Reads the loop file (not its data) and yields its gates."""

    def collect(self) -> Iterator[pytest.Item]:
        """One item a gate; a loop without gates has one that says that it completes."""
        try:
            config = read_loop_file(self.path)
        except FtloopError as error:
            raise self.CollectError(str(error)) from None
        gates: tuple[Gate | Regression, ...] = (*config.gates, *config.regressions)
        for gate in sorted(gates, key=lambda gate: gate.line or 0) or (None,):
            name = gate.name if gate else "completes"
            kind = RegressionItem if isinstance(gate, Regression) else GateItem
            # As text, which pytest 9.2 reads as it reads --lf's list: `[tag]` apart from the name.
            nodeid = f"{self.nodeid}::{name}"
            yield kind.from_parent(self, name=name, nodeid=nodeid, loop=config, gate=gate)


class GateFailedError(Exception):
    """A gate does not hold; carries the explanation."""


class LoopItem(pytest.Item):
    """A test of a loop file. The first that runs trains the loop; the others find it trained."""

    def __init__(self, *, loop: LoopConfig, gate: Gate | Regression | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loop, self.line = loop, gate.line if gate else None
        self.add_marker("ftloop")

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """A failed gate and a user's mistake are texts; only our bugs show a traceback."""
        if isinstance(excinfo.value, GateFailedError | FtloopError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str], int | None, str]:
        """The gate's line in the loop file."""
        return Path(self.path), None if self.line is None else self.line - 1, self.name


class RegressionItem(LoopItem):
    """The gate against the last committed version: nothing is compared unless it runs."""

    def __init__(self, *, gate: Regression, **kwargs: Any) -> None:
        super().__init__(gate=gate, **kwargs)
        self.gate = gate

    def runtest(self) -> None:
        """Run the loop if need be, then judge its best iteration."""
        session = session_of(self.config)
        verdict = session.judge_once(self.loop, self.gate)
        result = session.run_once(self.loop)
        self.user_properties += loop_properties(result)
        self.user_properties += verdict_properties(verdict, self.gate)
        if not verdict.ok:
            from pytest_ftloop.report.verdict import explain_verdict

            raise GateFailedError(explain_verdict(result, verdict, self.gate))


class GateItem(LoopItem):
    """A threshold on one metric; without a gate, whether the loop completes."""

    def __init__(self, *, gate: Gate | None, **kwargs: Any) -> None:
        super().__init__(gate=gate, **kwargs)
        self.gate = gate

    def runtest(self) -> None:
        """Run the loop if need be, then judge this gate."""
        result = session_of(self.config).run_once(self.loop)
        judged = None
        if self.gate is not None:
            judged = next(r for r in result.gates if r.gate == self.gate)
        self.user_properties += loop_properties(result, judged)
        if judged is not None and not judged.passed:
            from pytest_ftloop.report.explain import explain_gate

            raise GateFailedError(explain_gate(result, judged))
