"""Fixtures that several files of this room use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main
from tests.loops import WORSE, Loops

if TYPE_CHECKING:
    from collections.abc import Callable
from collections.abc import Callable
from dataclasses import replace

from pytest_ftloop.log import ImprovementLog
from tests.cli.cli_cases import EVAL, LOOP, TRAIN, Capture, Write
from tests.fakes import fake_example, fake_iteration, fake_metrics


@pytest.fixture
def make_loop(write: Write) -> Callable[..., Path]:
    """Write a loop file with its data; its path."""

    def make(name: str = "sentiment", text: str = LOOP, folder: str = "") -> Path:
        write(f"{folder}train.jsonl", TRAIN)
        write(f"{folder}eval.jsonl", EVAL)
        return write(f"{folder}{name}.ftloop.yaml", text)

    return make


@pytest.fixture
def fill(tmp_path: Path) -> Callable[..., ImprovementLog]:
    """Put fake iterations into the log of a loop below `tmp_path`."""

    def filled(*losses: float, loop: str = "sentiment", folder: str = "", **fields: Any) -> Any:
        log = ImprovementLog(tmp_path / folder / "improvement_log" / loop)
        for number, loss in enumerate(losses, start=1):
            examples = [fake_example("e1", passed=loss < 0.5)]
            iteration = fake_iteration(
                number, loop=loop, metrics=fake_metrics(loss), examples=examples
            )
            log.append(replace(iteration, **fields))
        return log

    return filled


@pytest.fixture
def gate(loops: Loops, capsys: Capture) -> Callable[..., tuple[int, str, str]]:
    """Run the command; its exit code, output and errors. It never writes or trains."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        trained, before = loops.trained(), loops.state()
        code = main(["gate", *map(str, arguments)])
        assert (trained, before) == (loops.trained(), loops.state())
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def judged(loops: Loops, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the verdict of this kind."""

    def make(kind: str) -> None:
        loops.version()
        if kind == "not-comparable":
            monkeypatch.setenv("FAKE_DEVICE", "gpu")
        loops.write(rate={"inconclusive": "9.9e-4"}.get(kind, WORSE))
        loops.train()

    return make
