"""A loop file as pytest sees it: a collector, and one test item for each gate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.config import LoopConfig, read_loop_file
from pytest_ftloop.errors import FtloopError
from pytest_ftloop.gates import Gate, GateResult
from pytest_ftloop.session import session_of


class LoopFileCollector(pytest.File):
    """Reads the loop file (not its data) and yields its gates."""

    def collect(self) -> Iterator[pytest.Item]:
        """One item a gate; a loop without gates has one that says that it completes."""
        try:
            config = read_loop_file(self.path)
        except FtloopError as error:
            raise self.CollectError(str(error)) from None
        for gate in config.gates or (None,):
            name = gate.name if gate else "completes"
            # As text, which pytest 9.2 reads as it reads --lf's list: `[tag]` apart from the name.
            nodeid = f"{self.nodeid}::{name}"
            yield GateItem.from_parent(self, name=name, nodeid=nodeid, loop=config, gate=gate)


class GateFailedError(Exception):
    """A gate does not hold; carries the explanation."""


class GateItem(pytest.Item):
    """One gate. The first item of a loop that runs trains it; the others judge what it gave."""

    def __init__(self, *, loop: LoopConfig, gate: Gate | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loop, self.gate = loop, gate
        self.add_marker("ftloop")

    def runtest(self) -> None:
        """Run the loop if need be, then judge this gate."""
        result = session_of(self.config).run_once(self.loop)
        self.user_properties.append(("ftloop_iteration", result.best.name))
        if self.gate is None:
            return
        judged = next(r for r in result.gates if r.gate == self.gate)
        self.user_properties.append((judged.gate.name, _property(judged)))
        if not judged.passed:
            from pytest_ftloop.report.explain import explain_gate

            raise GateFailedError(explain_gate(result, judged))

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """A failed gate and a user's mistake are texts; only our bugs show a traceback."""
        if isinstance(excinfo.value, GateFailedError | FtloopError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str], int | None, str]:
        """The gate's line in the loop file."""
        line = self.gate.line if self.gate else None
        return Path(self.path), None if line is None else line - 1, self.name


def _property(judged: GateResult) -> str:
    return "missing" if judged.value is None else repr(judged.value)
