"""`ftloop suggest`: the next adjustment and why; nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.core.records import Adjustment, Decision
from pytest_ftloop.log import ImprovementLog
from tests.fakes import fake_finding, fake_iteration
from tests.loops import BETTER, Loops

Capture = pytest.CaptureFixture[str]
Suggest = Callable[..., tuple[int, str, str]]

HIGHER = Adjustment("training.learning_rate", 2e-4, 4e-4, "iteration 1: it learned too little.")


@pytest.fixture
def suggest(loops: Loops, capsys: Capture) -> Suggest:
    """Run the command; its exit code, output and errors. It never writes or trains."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        trained, before = loops.trained(), loops.state()
        code = main(["suggest", *arguments])
        assert (trained, before) == (loops.trained(), loops.state())
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def test_after_a_stop(loops: Loops, suggest: Suggest) -> None:
    """A loop that used up its iterations says what it would try, from where, and why."""
    loops.write(loop="{iterations: 2}", gates="{}")
    loops.train()
    code, out, err = suggest()
    assert (0, "") == (code, err)
    lines = out.splitlines()
    assert lines[0].startswith("x: iteration 002-")
    assert "  stop: iterations used up: The loop is limited to 2 iterations." == lines[1]
    assert lines[2].startswith("would be tried next if the loop continued, from iteration 002-")
    assert lines[3].startswith("  learning_rate 5e-3 -> 0.025: iteration 2: The run ended while")


def test_what_the_next_run_trains(loops: Loops, suggest: Suggest) -> None:
    """Where the loop goes on, it is what the next run trains indeed."""
    loops.write(loop="{iterations: 1}", gates="{}")
    loops.train()
    loops.write(loop="{iterations: 2}", gates="{}")
    _, out, _ = suggest("--json")
    (told,) = json.loads(out)
    assert told["planned"]
    assert "the next run of pytest --ftloop trains, from iteration 001-" in suggest()[1]
    loops.train()
    last = loops.log().iterations()[-1]
    assert [vars(adjustment) for adjustment in last.adjustments] == told["next"]


def test_json(loops: Loops, suggest: Suggest) -> None:
    """One list, a loop an item, with all that the text says."""
    loops.version(loop="{iterations: 1}")
    code, out, _ = suggest("x.ftloop.yaml", "--json")
    (told,) = json.loads(out)
    assert 0 == code
    assert ("x", False, []) == (told["loop"], told["planned"], told["faults"])
    assert told["iteration"] == told["parent"] == loops.log().iterations()[0].name
    assert {"setting", "before", "after", "because"} == set(told["next"][0])
    assert "iterations" == told["decision"]["kind"]


def test_a_fault(loops: Loops, suggest: Suggest) -> None:
    """Where a fault stands nothing is to be tuned: it says what to mend, and fails."""
    loops.version(loop="{iterations: 1}")
    (iteration,) = loops.log().iterations()
    fault = fake_finding("no-signal", "error", message="Nothing can be learned.", remedy="Mend it.")
    because = "Fix this first, since no setting can cure it: Nothing can be learned."
    decision = Decision("stop", "fault", because)
    log = ImprovementLog(loops.root / "improvement_log" / "x")
    log.append(replace(iteration, findings=(fault,), decision=decision))
    log.files(iteration)[0].unlink()
    code, out, _ = suggest()
    assert 1 == code
    assert "\nnothing to tune: fix this first\n" in out
    assert "remedy: by hand: Mend it." in out
    assert "learning_rate" not in out
    assert "no-signal" == json.loads(suggest("--json")[1])[0]["faults"][0]["kind"]


def test_nothing_is_left(loops: Loops, suggest: Suggest) -> None:
    """A list of settings that was gone through has nothing more, and says why."""
    policy = "{iterations: 2, policy: [{training.learning_rate: 1.6e-3}]}"
    loops.write(loop=policy, gates="{}")
    loops.train()
    code, out, _ = suggest()
    assert 0 == code
    assert "\nnothing left to try: " in out
    assert "ftloop show best" in out


def test_an_empty_log(loops: Loops, suggest: Suggest) -> None:
    """A loop that was never trained is an error that says what trains it."""
    loops.write()
    code, out, err = suggest()
    assert (2, "") == (code, out)
    assert "the log improvement_log/x is still empty" in err
    assert "pytest --ftloop trains the first iteration." in err


def test_an_outdated_log(loops: Loops, suggest: Suggest) -> None:
    """A loop file that was changed since is an error that says how to bring the log up to date."""
    loops.version()
    loops.write(rate=BETTER)
    code, out, err = suggest()
    assert (2, "") == (code, out)
    assert "is out of date: settings changed since iteration 001-" in err
    assert "Run pytest --ftloop" in err


def test_a_loop_without_a_file(loops: Loops, suggest: Suggest) -> None:
    """Of a loop made in Python it is what the log's last iteration says."""
    decision = Decision("adjust", "adjust", "It is underfit.", (HIGHER,))
    log = ImprovementLog(loops.root / "improvement_log" / "mine")
    log.append(fake_iteration(1, loop="mine", decision=decision))
    code, out, _ = suggest("improvement_log")
    assert 0 == code
    assert "mine: iteration 001-00000001 is the last\n" in out
    assert "  learning_rate 2e-4 -> 4e-4: iteration 1: it learned too little.\n" in out


def test_in_ci(loops: Loops, suggest: Suggest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CI is set nothing is explored, and what would be is said all the same."""
    loops.write(loop="{iterations: 3}", gates="{}")
    loops.train("--iterations", "1")
    monkeypatch.setenv("CI", "true")
    assert "\n  learning_rate 1e-3 -> 5e-3: iteration 1: " in suggest()[1]


def test_one_loop_in_error_keeps_no_other(loops: Loops, suggest: Suggest) -> None:
    """The others are said, and the exit code is that of the error."""
    loops.version()
    loops.write(name="y")
    code, out, err = suggest()
    assert 2 == code
    assert out.startswith("x: ")
    assert "improvement_log/y" in err
