"""Two loops, each with a package `rows/` of its own, in one run: each trains on its own rows."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.data.examples import Columns, load
from pytest_ftloop.log import ImprovementLog
from tests.loops import Loops
from tests.plugin.conftest import Project

SIZES = {"one": 2, "two": 3}
RATES = {"one": 4e-4, "two": 8e-4}

ROWS = """\
data: {train: "rows:train", eval: "rows:evaluation"}
gates: {eval_loss: "<= 0.1"}
loop: {iterations: 1}
"""
LOOP = """\
data: {train: "rows:train", eval: "rows.sets:evaluation"}
training: {learning_rate: 2.0e-4}
scoring: {scorer: "rows.scoring:passes"}
gates: {eval_loss: "<= 0.1"}
loop: {iterations: 2, policy: "rows.policy:next_settings"}
"""
PACKAGE = {
    "__init__.py": "from rows.sets import evaluation, train\n",
    "sets.py": """\
def made(kind):
    from . import words  # late, as it is called
    return [{"id": f"{words.NAME}-{n}", "prompt": f"{words.NAME} {kind} {n}", "completion": " a"}
            for n in range(words.SIZE)]

def train():
    return made("train")

def evaluation():
    yield from made("eval")
""",
    "scoring.py": """\
def passes(output, expected, example):
    import rows.words
    return rows.words.NAME == "two"
""",
    "policy.py": """\
def next_settings(chain):
    from rows.words import RATE
    return {"training.learning_rate": RATE} if len(chain) == 1 else {}
""",
}


def write_loops(write: Callable[[str, str], Any], text: str = LOOP) -> None:
    for name, size in SIZES.items():
        write(f"{name}/{name}.ftloop.yaml", text)
        words = f"NAME, SIZE, RATE = {name!r}, {size}, {RATES[name]}\n"
        for file, code in {**PACKAGE, "words.py": words}.items():
            write(f"{name}/rows/{file}", code)


def check_rows(root: Path) -> None:
    """Each loop's data is that of its own package."""
    for name, size in SIZES.items():
        log = ImprovementLog(root / name / "improvement_log" / name)
        first = log.read()[0]
        rows = [
            {"id": f"{name}-{n}", "prompt": f"{name} train {n}", "completion": " a"}
            for n in range(size)
        ]
        expected = load(rows, "train", root, Columns())
        assert expected.sha256.startswith(first.data["train"]["sha256"])
        table = log.files(first)[1].read_text(encoding="utf-8").splitlines()
        assert [f"{name}-{n}" for n in range(size)] == [r["id"] for r in csv.DictReader(table)]


def check_functions(root: Path) -> None:
    """Each loop's scores and settings are those of its own package."""
    for name in SIZES:
        iterations = ImprovementLog(root / name / "improvement_log" / name).read()
        assert [float(name == "two")] * 2 == [i.metrics["pass_rate"] for i in iterations]
        rates = [i.settings.get("training.learning_rate") for i in iterations]
        assert [2e-4, RATES[name]] == rates


@pytest.mark.parametrize("order", [["one", "two"], ["two", "one"]])
def test_rows_in_pytest(project: Project, order: list[str]) -> None:
    """In one pytest run, whichever loop is first."""
    (project.path / "x.ftloop.yaml").unlink()
    write_loops(project.write, ROWS)
    project.run("--ftloop", *order).assert_outcomes(failed=2)
    check_rows(project.path)


def test_rows_in_a_command(loops: Loops) -> None:
    """In one process of `ftloop run`."""
    write_loops(loops.put, ROWS)
    assert 1 == main(["run", "-q"])
    check_rows(loops.root)


@pytest.mark.parametrize("order", [["one", "two"], ["two", "one"]])
def test_functions_in_pytest(project: Project, order: list[str]) -> None:
    """A scorer and a policy are the loop's own, too; a replay finds both loops up to date."""
    (project.path / "x.ftloop.yaml").unlink()
    write_loops(project.write)
    project.run("--ftloop", *order).assert_outcomes(failed=2)
    check_rows(project.path)
    check_functions(project.path)
    project.run("--ftloop-replay", *reversed(order)).stdout.fnmatch_lines(["*(up to date)*"] * 2)
    assert 4 == len(project.trained())


def test_functions_in_a_command(loops: Loops) -> None:
    """Likewise in one process of `ftloop run`."""
    write_loops(loops.put)
    assert 1 == main(["run", "-q"])
    check_rows(loops.root)
    check_functions(loops.root)
    assert 4 == len(loops.trained())
    assert 1 == main(["run", "-q", "--replay", "two", "one"])
