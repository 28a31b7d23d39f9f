"""No output of any command has a text of the holdout: screens, JSON, pages, cards, the log."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.cli.main import COMMANDS
from pytest_ftloop.core.records import ExampleResult
from pytest_ftloop.loop import backend
from tests.cli.cli_cases import Capture
from tests.fake_backend import fake_adapter
from tests.loops import BETTER, WORSE, Loops
from tests.plugin.fake_runner import FakeBackend

if TYPE_CHECKING:
    from pytest_ftloop.core.records import DataSet, Run, Settings

PLANT = "xyzzy"
"""A word that each text of the holdout has, and each answer to it."""

LINES: dict[str, tuple[str, ...]] = {
    "init": ("init made --agents",),
    "run": ("run --replay -v", "run --replay -q", "run --replay", "run --json", "run -v"),
    "gate": ("gate", "gate --json", "gate HEAD~1..HEAD"),
    "diff": ("diff --all", "diff --format markdown --all", "diff --json"),
    "report": ("report -o page.html",),
    "log": ("log", "log --format markdown", "log --format json", "log --format csv"),
    "show": ("show best", "show last", "show 1", "show best --json"),
    "suggest": ("suggest", "suggest --json"),
    "diagnose": ("diagnose x.ftloop.yaml", "diagnose --format json x.ftloop.yaml"),
    "ci": ("ci --out out",),
    "comment": ("comment out --dry-run",),
    "export": ("export best -o exported",),
    "calibrate": ("calibrate --seeds 2",),
    "accept": ("accept best", "accept best --baseline"),
    "schema": ("schema",),
}
"""Each command in its forms, those that change the log last. `worker` is told what to train by a
file, in which there is no holdout."""


class Backend(FakeBackend):
    """A backend whose adapters are kept, so that the holdout is measured."""

    def train(self, settings: Settings, *, adapter: Path | None = None, **more: Any) -> Run:
        run = super().train(settings, **more)
        return run if adapter is None else replace(run, adapter=fake_adapter(adapter))

    def measure(self, settings: Any, adapter: Path, examples: DataSet) -> tuple[ExampleResult, ...]:
        return tuple(
            ExampleResult(e.id, e.content, e.tags, 8.0, 4, 2, False, e.expected or "", PLANT)
            for e in examples.examples
        )


def write(loops: Loops, rate: str, gates: str) -> None:
    """The loop x with a holdout in which every text has the planted word."""
    file = loops.write(rate=rate, gates=gates)
    text = (loops.root / file).read_text()
    loops.put(str(file), text.replace("eval.jsonl}", "eval.jsonl, holdout: holdout.jsonl}"))
    rows = [
        {"id": f"h{n}", "prompt": f"{PLANT}? {n}", "completion": f" {PLANT}! {n}", "note": PLANT}
        for n in range(4)
    ]
    loops.put("holdout.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))


def test_every_command_is_tried() -> None:
    """A new command has to be added to the table."""
    assert {command.name for command in COMMANDS} == {*LINES, "worker"}


@pytest.mark.parametrize(("rate", "kind"), [(BETTER, "improved"), (WORSE, "regressed")])
def test_no_output_has_a_text_of_the_holdout(
    loops: Loops, capsys: Capture, monkeypatch: pytest.MonkeyPatch, rate: str, kind: str
) -> None:
    """The holdout is opened, by its figures known to all, and its texts to none."""
    monkeypatch.setattr(backend, "local", Backend)
    monkeypatch.setenv("FTLOOP_CACHE", str(loops.root.parent / "cache"))
    monkeypatch.delenv("CI", raising=False)
    write(loops, "1.0e-3", "{eval_loss: '<= 9', regression: {}}")
    loops.train()
    loops.commit()
    write(loops, rate, "{eval_loss: '<= 0.1', 'pass_rate[negation]': '>= 100%', regression: {}}")
    loops.train()
    opened = len(loops.log().holdout_uses())
    assert (2 if kind == "improved" else 1) == opened
    capsys.readouterr()
    said = ""
    for lines in LINES.values():
        for line in lines:
            main(line.split())
            out, err = capsys.readouterr()
            assert "Traceback" not in err, line
            assert PLANT not in out + err, line
            said += out + err
    assert kind in said
    assert ("opened 2 times" in said) == (kind == "improved")
    own = {"holdout.jsonl"}
    for name, content in loops.files().items():
        assert name in own or PLANT.encode() not in content, name
    assert {"page.html", "out/report.json", "out/summary.md"} <= {*loops.files()}


def test_pytest_prints_none(loops: Loops, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """Nor does pytest, in any verbosity, where gates fail and the holdout was opened."""
    monkeypatch.setattr(backend, "local", Backend)
    monkeypatch.setenv("FTLOOP_CACHE", str(loops.root.parent / "cache"))
    write(loops, BETTER, "{eval_loss: '<= 0.1', regression: {}}")
    for line in ("--ftloop -vv -rA --ftloop-report page.html", "--ftloop-replay", "--ftloop -q"):
        code = pytest.main(
            ["-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir=.", *line.split()]
        )
        assert 1 == code
        out, err = capfd.readouterr()
        assert "eval_loss" in out
        assert PLANT not in out + err
    assert loops.log().holdout_uses()
    assert PLANT not in (loops.root / "page.html").read_text()
