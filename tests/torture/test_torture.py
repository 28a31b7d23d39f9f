"""The campaign itself, in small: it attempts, it sees what it is there to see, it repeats."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.processes import LONG_S
from tests.torture import calls, mutants, workers
from tests.torture.__main__ import _conclude, main
from tests.torture.calls import called, faults_of
from tests.torture.frame import COLUMNS, HANG, LEFT, OTHER, RAW, TRACEBACK, Attempt, Fault, Kind
from tests.torture.hostile import outputs
from tests.torture.workers import Row, Time, attempted, tortured


def planted(what: str) -> Any:
    """A `main` of ftloop that does wrong."""

    def wrong(_: Any) -> int:
        if what == "hang":
            while True:
                time.sleep(0.01)
        if what == "traceback":
            print("Traceback (most recent call last):\n  x")
        if what == "raw":
            print("x\x1b[31m")
        if what == "command":
            print(" ::error::x")
        return 17 if what == "code" else 0

    return wrong


@pytest.mark.parametrize(
    ("what", "column"),
    [
        *(("hang", HANG), ("traceback", TRACEBACK), ("raw", RAW), ("command", RAW)),
        *(("code", OTHER), ("nothing", None)),
    ],
)
def test_what_may_not_happen_is_seen(
    monkeypatch: pytest.MonkeyPatch, what: str, column: str | None
) -> None:
    """In its column, and nothing where all is well."""
    monkeypatch.setattr("pytest_ftloop.cli.main", planted(what))
    monkeypatch.setattr(calls, "WAIT_S", 0.3)
    assert ([column] if column else []) == [fault.column for fault in faults_of(called(["x"]))]


@pytest.fixture(scope="module")
def attempt(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What makes an attempt with a mutated file; the world takes seconds to make."""
    return mutants.KIND.prepare(tmp_path_factory.mktemp("torture"))


def test_some_mutated_files(attempt: Any) -> None:
    """A few of each kind of file: nothing is found, and another time they are the same."""
    made = [attempted(mutants.KIND, attempt, 5, number) for number in range(8)]
    assert [] == [fault for each in made for fault in each.faults]
    assert made[3] == attempted(mutants.KIND, attempt, 5, 3)
    assert made[3] != attempted(mutants.KIND, attempt, 6, 3)


def test_what_a_refused_command_writes_is_seen(
    attempt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was not there, though the exit code says that the input was refused."""

    def writes(_: Any) -> int:
        Path("leftover").touch()
        return 2

    monkeypatch.setattr("pytest_ftloop.cli.main", writes)
    faults = attempted(mutants.KIND, attempt, 5, 0).faults
    assert [LEFT] == [fault.column for fault in faults]
    assert "project/leftover was written" in faults[0].what


def test_an_attempt_that_fails_is_a_fault() -> None:
    """It is counted, not lost."""

    def broken(number: int, random: Random) -> Attempt:
        raise ValueError(number)

    made = attempted(Kind("x", 1, 1, lambda _: broken), broken, 0, 7)
    assert "ValueError: 7" in made.faults[0].what


def test_a_row_counts_and_says_how_to_repeat(capsys: pytest.CaptureFixture[str]) -> None:
    """The command has kind, seed and number."""
    row = Row(Kind("kills", 9, 1, lambda _: broken_kind))
    row.add(3, 4, Attempt("run", (Fault(RAW, "a"), Fault(RAW, "b"))))
    row.add(3, 5, Attempt("run"))
    assert (2, 2, 2) == (row.attempts, row.faults, row.counts[RAW])
    assert '--kind "kills" --seed 3 --attempt 4' in capsys.readouterr().out


def test_ctrl_c_ends_the_workers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have sessions of their own, so that nothing else would."""
    both, ended = threading.Barrier(3), list[int]()

    def said(_: Kind, __: int, first: int, ___: int, ends: Time) -> Iterator[dict[str, Any]]:
        both.wait(LONG_S)
        while ends.left:
            time.sleep(0.01)
        ended.append(first)
        yield from ()

    monkeypatch.setattr(workers, "_said", said)
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def press() -> None:
        both.wait(LONG_S)
        time.sleep(0.1)  # the main thread waits by then
        signal.pthread_kill(main_thread, signal.SIGINT)

    interrupt = threading.Thread(target=press)
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        tortured(Row(Kind("x", 9, 1, lambda _: broken_kind)), 1, 2, time.monotonic() + LONG_S)
    interrupt.join()
    assert [0, 1] == sorted(ended)


def test_how_far_it_is_and_how_much_is_left_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Now and then while it goes on, and what there was no time for at the end."""
    row = Row(Kind("kills", 9, 1, lambda _: broken_kind))
    row.add(3, 4, Attempt("run"))
    assert "" == capsys.readouterr().out
    row.told -= 31
    row.add(3, 5, Attempt("run"))
    _conclude([row], 3, 60)
    out = capsys.readouterr().out
    assert "torture: kills: 2 of 9, no faults, 0 s" in out
    assert "torture: there was no time for 7 more" in out


def broken_kind(number: int, random: Random) -> Attempt:
    """Never called."""
    raise AssertionError


def test_the_outputs_of_a_workflow_are_read_as_its_runner_does() -> None:
    """Within a delimiter nothing is a name."""
    assert {"a", "b", "c"} == outputs("a=1\nb<<X\nevil=2\nX\nc=3\n")


@pytest.mark.parametrize("arguments", [["--attempt", "3"], ["--kind", "no"], ["--seconds", "x"]])
def test_an_error_in_usage(arguments: list[str]) -> None:
    """Exit code 2, before anything is made."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert 2 == ended.value.code


@pytest.mark.slow
def test_a_campaign(capfd: pytest.CaptureFixture[str]) -> None:
    """By worker processes, until the time is up: attempts without a fault, a table, a seed."""
    code = main(["--kind", "hostile texts", "--seconds", "120", "--seed", "1"])
    out = capfd.readouterr().out
    (row,) = re.findall(r"^hostile texts +(\d+) +1200 +(.*)$", out, re.MULTILINE)
    assert [0] * len(COLUMNS) == [int(count) for count in row[1].split()], out
    assert int(row[0]) > 0
    assert f"torture: no faults in {row[0]} attempts, seed 1, " in out
    assert 0 == code
