"""`ftloop show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.log import ImprovementLog
from tests.cli.cli_cases import LOOP, Capture
from tests.fakes import fake_iteration, fake_metrics

# show


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ("1", "001-00000001"),
        ("002", "002-00000002"),
        ("00000002", "002-00000002"),
        ("003-00000003", "003-00000003"),
        ("003-0", "003-00000003"),
        ("last", "003-00000003"),
        ("best", "002-00000002"),
    ],
)
def test_show_by_any_name(
    wanted: str, shown: str, make_loop: Any, fill: Any, capsys: Capture
) -> None:
    """A number, an id, a name, the start of a name, best and last mean an iteration."""
    fill(0.9, 0.4, 0.6)
    assert 0 == main(["show", wanted, str(make_loop())])
    assert capsys.readouterr().out.startswith(f"iteration {shown} of loop sentiment")


def test_show_by_the_start_of_an_id(
    tmp_path: Path, make_loop: Any, fill: Any, capsys: Capture
) -> None:
    """An unique start of an id is enough; one that is not lists the candidates."""
    fill(0.9)
    for number, id_ in ((2, "3fa9c1d2"), (3, "3fb00000")):
        fingerprint = id_ + "0" * 56
        iteration = fake_iteration(number, id=id_, fingerprint=fingerprint)
        ImprovementLog(tmp_path / "improvement_log" / "sentiment").append(iteration)
    file = str(make_loop())
    assert 0 == main(["show", "3fA", file])
    assert capsys.readouterr().out.startswith("iteration 002-3fa9c1d2")
    assert 2 == main(["show", "3f", file])
    assert "matches 2: 002-3fa9c1d2, 003-3fb00000" in capsys.readouterr().err


def test_show_unknown(make_loop: Any, fill: Any, capsys: Capture) -> None:
    """An unknown iteration is an error that lists what there is."""
    fill(0.9, 0.4)
    assert 2 == main(["show", "7", str(make_loop())])
    expected = (
        "iteration '7' is not in the log\n  Choose 001-00000001, 002-00000002, best or last.\n"
    )
    assert ("", expected) == capsys.readouterr()


def test_show_number_of_two(tmp_path: Path, fill: Any, capsys: Capture) -> None:
    """A number that two branches, or two loops, gave is ambiguous; candidates name the loop."""
    fill(0.9)
    fill(0.9, loop="other")
    for wanted in ("1", "best"):
        assert 2 == main(["show", wanted, str(tmp_path)])
        expected = "matches 2: other/001-00000001, sentiment/001-00000001"
        assert expected in capsys.readouterr().err
    assert 0 == main(["show", "best", str(tmp_path / "improvement_log" / "other")])


def test_show_best_is_by_the_loops_metric(make_loop: Any, fill: Any, capsys: Capture) -> None:
    """Best is by the metric that the loop file names."""
    file = make_loop(text=LOOP.replace("iterations: 2", "metric: pass_rate"))
    fill(0.9, 0.4)
    log = ImprovementLog(file.parent / "improvement_log" / "sentiment")
    log.append(fake_iteration(3, metrics=fake_metrics(0.8, pass_rate=0.9)))
    assert 0 == main(["show", "best", str(file)])
    assert capsys.readouterr().out.startswith("iteration 003-00000003")


@pytest.mark.parametrize("path", ["", "sentiment.ftloop.yaml", "improvement_log/sentiment"])
def test_show_has_prompts(
    path: str, tmp_path: Path, make_loop: Any, fill: Any, capsys: Capture
) -> None:
    """Prompts come from the loop's eval data, also when the log's folder is named."""
    fill(0.9)
    make_loop()
    assert 0 == main(["show", "1", str(tmp_path / path)])
    assert 'prompt    "is it so?"' in capsys.readouterr().out


def test_show_without_the_data(make_loop: Any, fill: Any, capsys: Capture) -> None:
    """Data that is gone costs the prompts, nothing else."""
    fill(0.9)
    file = make_loop()
    (file.parent / "eval.jsonl").unlink()
    for wanted in ("1", "best"):
        assert 0 == main(["show", wanted, str(file)])
        out = capsys.readouterr().out
        assert 'actual    "no"' in out
        assert "prompt" not in out
