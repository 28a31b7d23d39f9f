"""How a log is read: in which order, what counts, what is damaged, and that it says so."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.metrics import best_metrics
from pytest_ftloop.core.records import SCHEMA_VERSION, Cost, Evaluation, StepLog
from pytest_ftloop.log import FolderFiles, ImprovementLog, LogView, as_logged, verify
from tests.fakes import fake_example
from tests.log.records import (
    HOSTILE,
    SCHEMA_1,
    a_holdout_use,
    a_seed_run,
    one,
    written_record,
)


def test_git_may_convert_line_ends(tmp_path: Path) -> None:
    """Files that git checked out with CRLF (autocrlf) read as before."""
    log = ImprovementLog(tmp_path)
    written = log.append(one(examples=[fake_example("a", output=HOSTILE, expected="x\r\ny")]))
    before = list(written.examples)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    (read,) = log.read()
    assert written == read
    assert before == list(read.examples)


# reading


def test_no_log(tmp_path: Path) -> None:
    """A folder that is not there, or holds other files, is an empty log."""
    assert () == ImprovementLog(tmp_path / "none").read()
    (tmp_path / "seeds/below").mkdir(parents=True)
    names = (
        "README.md", ".001-00000001.yaml.7.tmp", "001-00000001.yaml.orig", "1-0.yaml",
        "001-00000001-12.yaml", "seeds/001-00000001.yaml", "seeds/below/00000001-7-abcd.yaml",
        "00000001-abcd.yaml", "seeds/00000001-7.yaml",
    )  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    view = ImprovementLog(tmp_path).view
    assert view.is_empty()
    assert () == view.iterations() == view.seed_runs() == view.judgements() == view.holdout_uses()


def test_iterations_by_number(tmp_path: Path) -> None:
    """Iterations are in order of number, beyond 999 too."""
    log = ImprovementLog(tmp_path)
    for number in (1000, 2, 10):
        log.append(one(number=number))
    assert [2, 10, 1000] == [i.number for i in log.read()]


def test_seed_runs_by_seed(tmp_path: Path) -> None:
    """Seed runs are in order of the seed as a number."""
    log = ImprovementLog(tmp_path)
    for seed in (10, 9, 100):
        log.append_seed_run(a_seed_run(seed))
    assert [9, 10, 100] == [run.seed for run in log.view.seed_runs()]


@pytest.mark.parametrize("turned", [False, True])
def test_two_trainings_of_the_same_settings(tmp_path: Path, turned: bool) -> None:
    """Two branches write two pairs of files, of which one counts, in whatever order they are."""

    class Listed(FolderFiles):
        def names(self) -> Any:
            return sorted(super().names(), reverse=turned)

    log = ImprovementLog(tmp_path)
    costs = [Cost(seconds=seconds, steps=100, tokens=20_000) for seconds in (10.0, 11.0)]
    written = [log.append(one(cost=cost)) for cost in (costs[::-1] if turned else costs)]
    assert 4 == len(list(tmp_path.iterdir()))
    assert written[0].name == written[1].name
    (counts,) = LogView(Listed(tmp_path)).iterations()
    assert min(written, key=lambda i: i.tag) == counts
    assert set(log.files(counts)) < set(tmp_path.iterdir())


def test_same_settings_under_two_numbers(tmp_path: Path) -> None:
    """Where two branches trained the same settings as different numbers, the lower one counts."""
    log = ImprovementLog(tmp_path)
    same = {"id": one().id, "fingerprint": one().fingerprint}
    for number in (12, 3, 4):
        log.append(one(number=number, **same))
    assert ["003-00000001"] == [i.name for i in log.read()]


def test_log_of_schema_1(tmp_path: Path) -> None:
    """A log that pytest-ftloop 0.1 wrote reads as it did, and goes on with the new files."""
    log = ImprovementLog(tmp_path / "sentiment")
    shutil.copytree(SCHEMA_1, log.folder)
    (old,) = log.read()
    assert ("001-18da4217", 1, "", "") == (old.name, old.schema, old.group, old.tag)
    assert (120, 60, 6) == (len(old.examples), len(old.steps), len(old.evals))
    assert (StepLog(7, 4.025205, 5.196897, 0.000492857), 420) == (old.steps[0], old.steps[-1].step)
    log.verify(old)
    new = log.append(one(number=2, parent=old.id, group="9" * 64))
    assert (old, new) == log.read()
    assert (3, "9" * 64) == (new.schema, new.group)
    log.remove(old)
    assert (new,) == log.read()
    assert set(log.files(new)) == set(log.folder.iterdir())


def conflict(text: str, line: str = "model: tiny") -> str:
    """Two branches' versions of one line, as git leaves them."""
    assert 1 == text.count(f"\n{line}\n")
    return text.replace(f"\n{line}\n", f"\n<<<<<<< HEAD\n{line}\n=======\n{line} \n>>>>>>> b\n")


DAMAGES = {
    "cut off": (lambda text: text[: len(text) // 2], "damaged log file: "),
    "empty": (lambda text: "", "damaged log file: "),
    "a list": (lambda text: "- a\n", "damaged log file: "),
    "merge conflict": (conflict, "damaged log file: "),
    "a key missing": (lambda text: text.replace("decision:", "decsion:"), "decision: missing"),
    "metrics empty": (
        lambda text: text.replace("metrics:\n", "metrics:\nx_metrics:\n"),
        "metrics: wanted keys and values, found nothing",
    ),
    "metric in words": (
        lambda text: text.replace("  eval_loss: 1.0", "  eval_loss: one"),
        "metrics.eval_loss: wanted a number, found 'one'",
    ),
    "another id": (
        lambda text: text.replace("id: '00000001'", "id: '00000002'"),
        "it is not what was written: the hash ",
    ),
    "another number": (
        lambda text: text.replace("number: 1\n", "number: 7\n"),
        "it is not what was written",
    ),
    "a tag": (lambda text: "!!python/object:os.system {}\n" + text, "damaged log file: "),
    "no date": (
        lambda text: text.replace("model: tiny", "model: 2024-13-01"),
        "damaged log file: ",
    ),
    "not UTF-8": (lambda text: text.encode("utf-16"), "damaged log file: "),
    "control characters": (lambda text: text + "\x00", "damaged log file: "),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A damaged record is named, with what is wrong and how it is restored."""
    damage, message = DAMAGES[what]
    monkeypatch.chdir(tmp_path)
    log = ImprovementLog(tmp_path / "improvement_log/s")
    path = written_record(log)
    damaged = damage(path.read_text(encoding="utf-8"))
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(LogError) as caught:
        log.read()
    assert message in caught.value.message
    assert f"improvement_log/s/{path.name}" == caught.value.where.file
    assert f"git checkout -- improvement_log/s/{path.name}" in caught.value.cure


EVAL_ROW = "  - [50, 1.0, 1.5, 0.5]"


@pytest.mark.parametrize("line", ["model: tiny", "curve:", EVAL_ROW, "findings:", "  action: stop"])
def test_damaged_yaml_has_its_line(tmp_path: Path, line: str) -> None:
    """A merge conflict above, in or below the curve is found at its line."""
    log = ImprovementLog(tmp_path)
    path = written_record(log)
    text = conflict(path.read_text(encoding="utf-8"), line)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LogError, match="damaged log file") as caught:
        log.read()
    start = text.splitlines().index("<<<<<<< HEAD") + 1
    assert start <= caught.value.where.line <= start + 2
    assert path == Path(caught.value.where.file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("  - [50, 1.0, 1.5, 0.5", "did not find expected ',' or ']'"),
        ("  - {: 1}}", "did not find expected node content"),
        ("  - !!python/name:os.system", "curve.eval[2]: wanted no tags, which no record has, "),
        ("  - [2024-13-01, 1.0, 1.5, 0.5]", "curve.eval[2][0]: wanted a text, a number, "),
        ("  - [50, 1.0]", "curve.eval[2]: wanted one figure per column, found 2"),
        ("  - [50, 1.0, 1.5, 0.5, 2]", "curve.eval[2]: wanted one figure per column, found 5"),
        ("  - [50, 1.0, 1.5, half]", "curve.eval[2][3]: wanted a number, found 'half'"),
        ("  - [50, 1.0, 1.5, true]", "curve.eval[2][3]: wanted a number, found true"),
        ("  - [5.0, 1.0, 1.5, 0.5]", "curve.eval[2][0]: wanted a whole number, found 5.0"),
        ("  - 50", "curve.eval[2]: wanted a list, found 50"),
        ("  - halfway", "curve.eval[2]: wanted a list, found 'halfway'"),
    ],
)
def test_damaged_curve(tmp_path: Path, damage: str, message: str) -> None:
    """A damaged curve is one error, with the file, the line and the place in the curve."""
    log = ImprovementLog(tmp_path)
    path = written_record(log)
    text = path.read_text(encoding="utf-8").replace(EVAL_ROW, damage)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LogError) as caught:
        log.read()
    assert caught.value.message.startswith(f"damaged log file: {message}")
    assert path == Path(caught.value.where.file)
    assert "git checkout -- " in caught.value.cure
    line = text.splitlines().index(damage) + 1
    assert line <= caught.value.where.line <= line + 1


def test_half_a_curve(tmp_path: Path) -> None:
    """A curve of which one half is missing is an error."""
    log = ImprovementLog(tmp_path)
    path = written_record(log)
    text = path.read_text(encoding="utf-8").replace("\n  eval:\n  - [step", "\n  evil:\n  - [step")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LogError, match=r"damaged log file: curve\.eval: missing"):
        log.read()


@pytest.mark.parametrize("line", ["", "# by hand", "  # by hand"])
def test_commented_curve(tmp_path: Path, line: str) -> None:
    """A curve with a blank line or a comment in it is the same curve."""
    log = ImprovementLog(tmp_path)
    path = written_record(log)
    text = path.read_text(encoding="utf-8").replace(EVAL_ROW, f"{line}\n{EVAL_ROW}")
    path.write_text(text, encoding="utf-8")
    (read,) = log.read()
    assert as_logged(one()) == read


@pytest.mark.parametrize(
    "name",
    [
        "001-00000001.yaml",
        "001-00000001-abcd.yaml",
        "seeds/00000001-7-abcd.yaml",
        "verdicts/00000001-abcdabcd.yaml",
        "holdout/00000001-abcd.yaml",
    ],
)
def test_newer_schema(tmp_path: Path, name: str) -> None:
    """A record of a newer version of the tool asks for an upgrade, whatever else it holds."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("schema: 99\nnew: true\n", encoding="utf-8")
    view = ImprovementLog(tmp_path).view
    read = {
        "seeds": view.seed_runs, "verdicts": view.judgements, "holdout": view.holdout_uses
    }.get(path.parent.name, view.iterations)  # fmt: skip
    with pytest.raises(LogError) as caught:
        read()
    assert (
        f"written by a newer pytest-ftloop: schema 99, this one reads up to {SCHEMA_VERSION}"
        == caught.value.message
    )
    assert "Upgrade pytest-ftloop." == caught.value.cure
    assert path == Path(caught.value.where.file)


def test_missing_table(tmp_path: Path) -> None:
    """A record without its table is damaged."""
    log = ImprovementLog(tmp_path)
    _, table = log.files(log.append(one()))
    table.unlink()
    with pytest.raises(LogError, match=rf"its table {table.name} is missing"):
        log.read()


@pytest.mark.parametrize(
    "edit",
    [
        lambda table: table.replace(b",no,", b",yes,"),
        lambda table: table[: len(table) // 2],
        lambda table: b"",
        lambda table: b"\xff" + table,
    ],
    ids=["edited", "cut off", "empty", "not UTF-8"],
)
def test_damaged_table(tmp_path: Path, edit: Any) -> None:
    """A table that differs from what its record was made with is not trusted."""
    log = ImprovementLog(tmp_path)
    _, path = log.files(log.append(one()))
    path.write_bytes(edit(path.read_bytes()))
    (read,) = log.read()
    with pytest.raises(LogError) as caught:
        len(read.examples)
    assert path == Path(caught.value.where.file)
    assert "git checkout" in caught.value.cure


def test_reading_opens_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 records are read without their tables: each is read when first looked at, once."""
    log = ImprovementLog(tmp_path)
    with monkeypatch.context() as quick:
        quick.setattr(os, "fsync", lambda _: None)
        for number in range(1, 201):
            log.append(one(number=number))
    tables: list[str] = []
    read = FolderFiles.read

    def reading(files: FolderFiles, name: str) -> str:
        tables.extend([name] if name.endswith(".csv") else [])
        return read(files, name)

    monkeypatch.setattr(FolderFiles, "read", reading)
    iterations = log.read()
    assert (200, []) == (len(iterations), tables)
    for _ in range(2):
        assert 2 == len(iterations[6].examples)
        assert 1 == len(tables)


# seed runs, judgements and the holdout


def test_holdout_table_holds_no_text(tmp_path: Path) -> None:
    """Neither what was expected nor what the model said is in any file of a holdout's opening."""
    log = ImprovementLog(tmp_path)
    rows = [
        fake_example("a", expected="a SECRET answer", output="a SECRET output", tags=("x",)),
        fake_example("b", passed=False, expected="SECRET\ntoo", output="no SECRET"),
    ]
    read = log.append_holdout_use(a_holdout_use(examples=rows))
    assert 2 == len(list((tmp_path / "holdout").iterdir()))
    assert not any(b"SECRET" in p.read_bytes() for p in tmp_path.rglob("*.*"))
    assert [("a", "", "", True), ("b", "", "", False)] == [
        (row.id, row.expected, row.output, row.passed) for row in read.examples
    ]


@pytest.mark.parametrize(
    "kept", [one(), a_seed_run(), a_holdout_use()], ids=lambda k: type(k).__name__
)
def test_figures_are_those_of_the_table(kept: Any) -> None:
    """Figures that a record's own table does not give are refused, in every kind of record."""
    metrics = best_metrics(Evaluation(tuple(kept.examples), (), (), math.nan))
    verify(replace(kept, metrics=metrics), "x.yaml")
    for name in ("eval_loss", "pass_rate", "token_accuracy"):
        better = metrics | {name: metrics[name] + 0.01}
        with pytest.raises(LogError, match=f"it says {name} .*, its table of examples ") as caught:
            verify(replace(kept, metrics=better), "x.yaml")
        assert "x.yaml" == caught.value.where.file


def test_rows_of_a_record_that_was_replaced(tmp_path: Path) -> None:
    """Whoever read a record before a retraining replaced it still has its rows."""
    log = ImprovementLog(tmp_path)
    rows = [fake_example("a", loss=1.5)]
    log.append(one(examples=rows))
    (before,) = log.read()
    log.put(replace(before, examples=(fake_example("a", loss=2.5),)))
    assert [2.5] == [row.loss for row in log.read()[0].examples]
    assert [1.5] == [row.loss for row in before.examples]
