"""The `ftloop` fixture: makes a loop from a loop file or from Python objects."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import LoopConfig, read_loop_file
from pytest_ftloop.core.errors import FtloopError, did_you_mean, shown_path

if TYPE_CHECKING:
    import pytest

    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.loop.result import LoopResult
    from pytest_ftloop.plugin.session import FtloopSession

LoopFactory = Callable[..., "BoundLoop"]


class BoundLoop:
    """A loop in a test. The fixture's factory returns one."""

    def __init__(self, session: FtloopSession, config: LoopConfig) -> None:
        self._session = session
        self.config = config

    def run(self) -> LoopResult:
        """Train what the log lacks, and return the result, with the best iteration's figures.

        If the loop has a `regression` gate, the result also has a `verdict`.
        """
        __tracebackhide__ = True
        return self._session.run_in_test(self.config)

    def judge(self) -> Verdict:
        """Compare the loop with the last committed version; run it first if it has not run yet.

        Uses the loop's `regression` gate, or one with the default settings if it has none.
        """
        __tracebackhide__ = True
        return self._session.judge_in_test(self.config)


def factory(session: FtloopSession, request: pytest.FixtureRequest) -> LoopFactory:
    """The value of the `ftloop` fixture for one test."""
    here = Path(request.path).parent

    def make(file: str | os.PathLike[str] | None = None, /, **settings: Any) -> BoundLoop:
        __tracebackhide__ = True
        if file is not None and settings:
            raise FtloopError(
                f"ftloop() takes a loop file or settings, found both: {file} and "
                f"{', '.join(settings)}",
                cure="Write the settings into the loop file, or leave the file out.",
            )
        if not isinstance(file, str | os.PathLike | None):
            raise FtloopError(
                f"ftloop() takes a loop file's path, found {type(file).__name__}",
                cure="Give Python objects by name: ftloop(model=..., train=..., eval=...).",
            )
        if file is not None:
            path = Path(file)
            found = next((p for p in (here / path, path) if p.is_file()), here / path)
            return BoundLoop(session, read_loop_file(found))
        known = set(from_python.__kwdefaults__ or {}) | {"name"}
        if unknown := sorted(set(settings) - known):
            raise FtloopError(
                f"ftloop() has no argument {unknown[0]!r}",
                cure=did_you_mean(unknown[0], known),
            )
        settings.setdefault("name", _loop_name(request.node.name))
        where = {"folder": here, "source": f"{shown_path(Path(request.path))}"}
        return BoundLoop(session, from_python(**{**where, **settings}))

    return make


def _loop_name(test: str) -> str:
    """The loop's name, which is also a folder's, from a test's: `test_x[small]` -> `x-small`."""
    kept = "".join(c if c.isalnum() or c in "_.-" else "-" for c in test.removeprefix("test_"))
    return kept.strip("-.") or "loop"
