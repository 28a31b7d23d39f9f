"""`ftloop accept`: an iteration's settings into the loop file, or the iteration as the baseline."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.gate.judgements import current_judgements
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop import hold
from pytest_ftloop.loop.workspace import Logged
from tests.gitfakes import GitRepo
from tests.loops import BETTER, SAME, WORSE, Loops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def accept(loops: Loops, capsys: Capture) -> Callable[..., tuple[int, str, str]]:
    """Run the command; its exit code, output and errors. It never trains."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        trained = loops.trained()
        code = main(["accept", *arguments])
        assert trained == loops.trained()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def adjusted(loops: Loops) -> Loops:
    """A loop of three iterations, the best of which was adjusted."""
    loops.write(rate=WORSE, loop="{iterations: 3, patience: 9}", gates="{eval_loss: '<= 0.1'}")
    loops.train()
    return loops


def judgements(loops: Loops) -> list[tuple[str, str]]:
    return [(j.by, j.kind) for j in loops.log().judgements()]


# the settings


def test_writes_the_best_settings(adjusted: Loops, accept: Any) -> None:
    """What was adjusted is written, each with what it was; comments and all else stay."""
    before = (adjusted.root / "x.ftloop.yaml").read_text()
    code, out, err = accept()
    assert (0, "") == (code, err)
    best = adjusted.log().iterations()[-1].settings
    rate = best.get("training.learning_rate")
    assert "training.learning_rate: 2e-4 -> " in out
    assert "wrote x.ftloop.yaml; the iteration is in the log, so it is not trained again\n" in out
    after = (adjusted.root / "x.ftloop.yaml").read_text()
    changed = [
        (old, new)
        for old, new in zip(before.splitlines(), after.splitlines(), strict=True)
        if old != new
    ]
    assert 1 == len(changed)
    old, new = changed[0]
    assert old == f"  learning_rate: {WORSE}  # found by hand"
    assert float(new.split()[1]) == rate
    assert new.endswith("  # found by hand")


def test_second_time(adjusted: Loops, accept: Any) -> None:
    """Settings that stand in the file already are said to, and nothing is written."""
    accept()
    before = adjusted.files()
    code, out, _ = accept()
    assert 0 == code
    assert out.startswith("x.ftloop.yaml has the settings of iteration ")
    assert before == adjusted.files()


def test_log_is_up_to_date(
    adjusted: Loops, accept: Any, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it a replay in CI finds the log up to date, under pytest and outside."""
    monkeypatch.chdir(adjusted.root)
    monkeypatch.setenv("CI", "true")
    accept()
    for arguments in (["gate"], ["run", "--replay", "-q"], ["run", "-q"]):
        assert 1 == main(arguments)  # the threshold that no iteration reaches, and no 3
    result = pytester.runpytest_inprocess("-p", "no:hypothesispytest", "--ftloop-replay")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["x: * (up to date), *"])
    assert 3 == len(adjusted.trained())


@pytest.mark.parametrize("wanted", ["2", "3", "best"])
def test_loop_stays_finished(adjusted: Loops, accept: Any, capsys: Any, wanted: str) -> None:
    """Nothing is trained after an accepted iteration, until a number of iterations is given."""
    out = accept(wanted)[1]
    assert "\nthe loop is finished; --ftloop-iterations N continues it from there\n" in out
    assert (wanted == "2") == ("\nthe gate judges iteration 003-" in out)
    capsys.readouterr()
    adjusted.train()
    assert 3 == len(adjusted.trained())
    assert 1 == main(["gate"])  # the threshold that no iteration reaches, and no 3
    assert "\nx: iteration 003-" in f"\n{capsys.readouterr().out}"
    main(["run"])
    assert "  note: the loop is finished: its file has the settings of" in capsys.readouterr().out
    adjusted.train("--iterations", "3")
    assert 3 < len(adjusted.trained()) == len(set(adjusted.trained()))


def test_retrained_loop_stays_finished(adjusted: Loops, accept: Any) -> None:
    """Training the accepted iteration again leaves it the one that the loop found."""
    accept()
    adjusted.train("--retrain")
    assert 4 == len(adjusted.trained())
    adjusted.train()
    assert 4 == len(adjusted.trained())


@pytest.mark.parametrize("wanted", ["2", "002", "best", "last"])
def test_which_iteration(adjusted: Loops, accept: Any, wanted: str) -> None:
    """A number, a name, best and last mean an iteration, as for ftloop show."""
    assert 0 == accept(wanted)[0]
    text = (adjusted.root / "x.ftloop.yaml").read_text()
    assert WORSE not in text


def test_unknown_iteration(adjusted: Loops, accept: Any) -> None:
    """An iteration that is not there is 2, with those that are."""
    before = adjusted.files()
    code, out, err = accept("004")
    assert (2, "") == (code, out)
    assert "iteration '004' is not in the log" in err
    assert before == adjusted.files()


def test_two_loops(adjusted: Loops, accept: Any) -> None:
    """Where two loops are meant, it is asked which; a PATH tells."""
    adjusted.write("y")
    adjusted.train("y.ftloop.yaml")
    assert 2 == accept()[0]
    assert 0 == accept("best", "x.ftloop.yaml")[0]


def test_folder_alone(loops: Loops, accept: Any) -> None:
    """`ftloop accept FOLDER` accepts the best there."""
    loops.write(folder="deep/", rate=WORSE, loop="{iterations: 2}", gates="{eval_loss: '<= 1'}")
    loops.train()
    code, out, _ = accept("deep")
    assert 0 == code
    assert "wrote deep/x.ftloop.yaml" in out


def test_no_log(loops: Loops, accept: Any) -> None:
    """A loop that was never trained is 2, with what trains it."""
    loops.write()
    code, out, err = accept()
    assert (2, "") == (code, out)
    assert "the improvement log is still empty" in err


def test_loop_made_in_python(adjusted: Loops, accept: Any) -> None:
    """Without a loop file there is nothing to write into; the baseline can be accepted yet."""
    (adjusted.root / "x.ftloop.yaml").unlink()
    code, _, err = accept()
    assert 2 == code
    assert "the loop x has no loop file, or a broken one" in err
    assert 0 == accept("best", "--baseline")[0]
    assert [("hand", "accepted")] == judgements(adjusted)


def test_crlf(adjusted: Loops, accept: Any) -> None:
    """A file with CRLF line ends keeps them."""
    file = adjusted.root / "x.ftloop.yaml"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert 0 == accept()[0]
    assert file.read_bytes().count(b"\n") == file.read_bytes().count(b"\r\n")


@pytest.mark.parametrize("baseline", [[], ["--baseline"]])
def test_by_hand(adjusted: Loops, accept: Any, baseline: list[str]) -> None:
    """What can't be edited is 2 with its line, and what to write there; no file changes."""
    file = adjusted.root / "x.ftloop.yaml"
    file.write_text(file.read_text().replace("learning_rate: ", "learning_rate: &rate "))
    before = adjusted.files()
    code, out, err = accept("2", *baseline)
    assert (2, "") == (code, out)
    place = "x.ftloop.yaml:5: training.learning_rate"
    assert err.startswith(f"{place} is 2.0e-4 and should be 1.0e-3: change it by hand\n")
    assert before == adjusted.files()


# the baseline


def test_failing_gate_passes(loops: Loops, accept: Any) -> None:
    """A version that the gate refuses is the standard once it is accepted and committed."""
    loops.version()
    loops.version(WORSE)
    assert 1 == main(["gate"])
    code, out, _ = accept("last", "--baseline")
    assert 0 == code
    (file,) = [
        name for name, text in loops.files().items() if b"by: hand" in text and "/verdicts/" in name
    ]
    assert f"commit {file}\n" in out
    (given,) = [j for j in loops.log().judgements() if j.by == "hand"]
    assert re.fullmatch(r"accepted by hand: regression fails \(p (< )?0\.00\d+\)", given.because)
    assert given.because.removeprefix("accepted by hand") in out
    loops.commit()
    assert 0 == main(["gate"])
    loops.write(rate=SAME)
    assert 0 == main(["gate"])  # better than what stands


def test_each_failing_gate_is_named(loops: Loops, accept: Any) -> None:
    """Thresholds too, though an acceptance does not make them pass; gates that hold are not."""
    gates = "{eval_loss: '<= 1.8', perplexity: '<= 99', regression: {}}"
    loops.version(gates=gates)
    loops.version(WORSE, gates=gates)
    assert 0 == accept("last", "--baseline")[0]
    (given,) = [j for j in loops.log().judgements() if j.by == "hand"]
    threshold, regression = given.because.removeprefix("accepted by hand: ").split("; ")
    assert "eval_loss 2.0000, wanted <= 1.8 fails" == threshold
    assert regression.startswith("regression fails (p ")
    loops.commit()
    assert 1 == main(["gate"])


def test_no_gate_fails(loops: Loops, accept: Any) -> None:
    """Where all gates hold, nothing more is said."""
    loops.version()
    out = accept("best", "--baseline")[1]
    (given,) = [j for j in loops.log().judgements() if j.by == "hand"]
    assert "accepted by hand" == given.because
    assert re.search(r"accepted iteration 001-\w+; commit ", out)


def test_gates_that_can_not_be_judged(loops: Loops, accept: Any) -> None:
    """What is accepted by hand needs no gate: that none could be judged is said, and why."""
    loops.version()
    (loops.root / "eval.jsonl").unlink()
    code, out, _ = accept("best", "--baseline")
    assert 0 == code
    (given,) = [j for j in loops.log().judgements() if j.by == "hand"]
    why = "whose gates can't be judged: the loop file, or its data, can't be read"
    assert f"accepted by hand, {why}" == given.because
    assert why in out


def test_second_acceptance(loops: Loops, accept: Any) -> None:
    """What is accepted already is said to be, and no second file is written."""
    loops.version()
    accept("best", "--baseline")
    before = loops.files()
    code, out, _ = accept("best", "--baseline")
    assert 0 == code
    assert "is accepted already" in out
    assert before == loops.files()


def test_two_acceptances_at_once(
    loops: Loops, accept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second takes the place of what the first wrote while it waited."""
    loops.version()
    loops.version(BETTER)
    held = hold.held

    @contextmanager
    def held_after_another(log: ImprovementLog, waiting: Any) -> Iterator[Path]:
        monkeypatch.setattr(hold, "held", held)
        assert 0 == main(["accept", "1", "--baseline"])
        with held(log, waiting) as lock:
            yield lock

    monkeypatch.setattr(hold, "held", held_after_another)
    assert 0 == accept("2", "--baseline")[0]
    first, second = loops.log().iterations()
    by_hand = {j.candidate: j for j in loops.log().judgements() if j.by == "hand"}
    assert by_hand[first.id].name in by_hand[second.id].over
    assert (by_hand[second.id],) == current_judgements(loops.log().judgements())


def test_new_anchor(loops: Loops, accept: Any) -> None:
    """What was accepted by hand is the anchor: what was better before it does not fail later."""
    loops.version()
    loops.version(BETTER)
    loops.version(WORSE)
    accept("last", "--baseline")
    loops.commit()
    loops.write(rate="2.1e-4")
    loops.train()
    assert 0 == main(["gate"])


def test_slide_without_it(loops: Loops, accept: Any) -> None:
    """Without an acceptance the best ever accepted stays the anchor of a slow slide."""
    gates = "{regression: {metrics: [eval_loss]}}"
    loops.version(gates=gates)
    loops.version(BETTER, gates=gates)
    loops.version("1.55e-3", gates=gates)
    loops.write(rate=SAME, gates=gates)
    assert 1 == main(["gate"])


def test_settings_and_baseline(adjusted: Loops, accept: Any) -> None:
    """--baseline writes the settings too."""
    code, out, _ = accept("2", "--baseline")
    assert 0 == code
    assert "accepted iteration 002-" in out
    assert "wrote x.ftloop.yaml" in out


@pytest.mark.parametrize("args", [["--log", "kept"]])
def test_log_folder(loops: Loops, accept: Any, args: list[str]) -> None:
    """--log DIR is where the iterations are, and where the acceptance is written."""
    loops.write(rate=WORSE, loop="{iterations: 2}", gates="{eval_loss: '<= 1'}")
    loops.train("--log", "kept")
    code, out, _ = accept("best", "x.ftloop.yaml", "--baseline", *args)
    assert 0 == code
    assert "commit kept/x/verdicts/" in out
    assert "wrote x.ftloop.yaml" in out


def test_pull_request(loops: Loops, accept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pull request, whose standard stays the merge base, an accepted version passes."""
    loops.version()
    loops.repo.branch("feature")
    loops.version(WORSE)
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    assert 1 == main(["gate"])
    accept("last", "--baseline")
    loops.commit()
    assert 0 == main(["gate"])
    loops.write(rate="1.0e-4")
    loops.train()
    assert 1 == main(["gate"])
    assert isinstance(loops.repo, GitRepo)


def test_an_iteration_that_was_ended_early(adjusted: Loops, accept: Any) -> None:
    """What was ended as hopeless is trained whole as a start, and that is said."""
    log = ImprovementLog(adjusted.root / "improvement_log" / "x")
    last = log.read()[-1]
    early = {**last.facts, "ended_early": "hopeless: the eval loss was too high"}
    log.put(replace(last, facts=early))
    code, out, _ = accept(str(last.number))
    assert (0, True) == (code, "was ended early, so pytest --ftloop trains it to its end" in out)


def test_data_that_changed_since(adjusted: Loops, accept: Any) -> None:
    """Where the data is not the iteration's any more it is not promised that nothing is trained."""
    rows = adjusted.root / "train.jsonl"
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0].replace("a", "b") + "\n")
    code, out, _ = accept()
    assert (0, True) == (code, "pytest --ftloop trains it again" in out)
    assert "not trained again" not in out


def test_a_loop_file_that_can_not_be_read(adjusted: Loops, accept: Any) -> None:
    """A broken loop file is told as broken, not as missing."""
    (adjusted.root / "x.ftloop.yaml").write_text("data: [\n")
    code, _, err = accept()
    assert (2, True) == (code, "no loop file, or a broken one" in err)


def test_damaged_data_of_the_loop(
    adjusted: Loops, accept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither verdict nor loop file is written where the loop's data can't be read."""
    file = adjusted.root / "x.ftloop.yaml"
    before = file.read_bytes()

    def unreadable(_: Logged) -> None:
        raise OSError(5, "Input/output error", "eval.jsonl")

    monkeypatch.setattr(Logged, "inputs", property(unreadable))
    code, out, err = accept("2", "--baseline")
    assert (2, True) == (code, "eval.jsonl: Input/output error" in out + err)
    assert ([], before) == (judgements(adjusted), file.read_bytes())
