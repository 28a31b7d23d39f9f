"""A command reads each file of a log once, and compares once, however many parts ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.core.git import Repository
from pytest_ftloop.gate import comparison
from pytest_ftloop.log import FolderFiles, ImprovementLog
from pytest_ftloop.log import record as record_module
from tests.log.records import one
from tests.loops import BETTER, Loops


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter[str]]:
    """How often each file of a log, text of a record and blob is read, and each pair compared."""
    counted: dict[str, Counter[str]] = {
        what: Counter() for what in ("file", "text", "blob", "comparison")
    }
    of_file, of_text, of_blobs = FolderFiles.read, record_module.read, Repository.contents
    compare = comparison.compare

    def read_file(files: FolderFiles, name: str) -> str:
        counted["file"][str((files.folder / name).resolve())] += 1
        return of_file(files, name)

    def read_text(text: str) -> Any:
        counted["text"][text] += 1
        return of_text(text)

    def read_blobs(
        repository: Repository, blobs: Mapping[PurePosixPath, str]
    ) -> dict[PurePosixPath, bytes]:
        counted["blob"].update(blobs.values())
        return of_blobs(repository, blobs)

    def compared(new: Any, old: Any, past: Any, groups: Any, rule: Any, *more: Any) -> Any:
        counted["comparison"][f"{new.iteration.id} {old.iteration.id} {rule}"] += 1
        return compare(new, old, past, groups, rule, *more)

    monkeypatch.setattr(FolderFiles, "read", read_file)
    monkeypatch.setattr(record_module, "read", read_text)
    monkeypatch.setattr(Repository, "contents", read_blobs)
    monkeypatch.setattr(comparison, "compare", compared)
    return counted


@pytest.fixture
def judged(loops: Loops) -> Loops:
    """Two versions, each judged and with seeds; the second is not committed."""
    more = {"loop": "{iterations: 2, seeds: 2}", "gates": "{regression: {}, pass_rate: '>= 0%'}"}
    loops.version(**more)
    loops.write(rate=BETTER, **more)
    loops.train()
    return loops


def forget() -> None:
    for make in ("iteration_of", "seed_run_of", "judgement_of", "holdout_of"):
        getattr(record_module, make).cache_clear()


def check(read: dict[str, Counter[str]], *, least: int) -> None:
    for what, counts in read.items():
        again = {Path(name).name: count for name, count in counts.items() if count > 1}
        assert not again, f"{what}: read more than once"
    records = [name for name in read["file"] if name.endswith(".yaml")]
    assert least <= len(records) == len(set(records))


@pytest.mark.parametrize(
    "command",
    [
        ["gate"],
        ["gate", "--json"],
        ["diff"],
        ["ci"],
        ["ci", "--fail-on", "inconclusive"],
        ["report"],
        ["run", "-q"],
        ["show", "best"],
        ["log"],
        ["suggest"],
    ],
    ids=" ".join,
)
def test_command_reads_the_log_once(
    judged: Loops, command: list[str], read: dict[str, Counter[str]]
) -> None:
    """The files of the folder and of the commit, their texts; and each comparison is made once."""
    forget()
    for counts in read.values():
        counts.clear()
    assert main(command) in (0, 1)
    check(read, least=4)
    if command[0] in ("gate", "diff", "ci", "report"):
        assert read["blob"]
        assert 1 == read["comparison"].total()


def test_report_of_a_log_that_is_out_of_date_reads_it_once(
    judged: Loops, read: dict[str, Counter[str]]
) -> None:
    """The page says what the log has, which was read to know that it is out of date."""
    judged.write(rate="7.0e-4")
    for counts in read.values():
        counts.clear()
    assert main(["report"]) in (0, 1, 3)
    check(read, least=4)


def test_replay_reads_the_log_once(
    judged: Loops, read: dict[str, Counter[str]], pytester: pytest.Pytester
) -> None:
    """All items of a loop, and the page that is written at the end."""
    forget()
    for counts in read.values():
        counts.clear()
    result = pytester.inline_run("--ftloop-replay", "--ftloop-report", "page.html", judged.root)
    assert 0 == result.ret
    check(read, least=4)
    assert 1 == read["comparison"].total()


def test_what_is_written_meanwhile_is_seen(tmp_path: Path) -> None:
    """By this process or another one: the files that are there are listed each time."""
    log, other = ImprovementLog(tmp_path), ImprovementLog(tmp_path)
    first, second = log.append(one()), one(number=2)
    assert [first] == list(log.read())
    other.append(second)
    assert [1, 2] == [iteration.number for iteration in log.read()]
    assert log.read()[0] is log.read()[0]
    other.remove(first)
    assert [2] == [iteration.number for iteration in log.read()]
    log.append(one())
    assert [1, 2] == [iteration.number for iteration in log.read()]
