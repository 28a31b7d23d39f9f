"""`ftloop run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.core.records import Cost, Evaluation, Run
from pytest_ftloop.loop import backend as backends
from tests.cli.cli_cases import LOOP, Capture
from tests.fakes import fake_example, fake_training
from tests.loops import BETTER, WORSE, Loops
from tests.plugin.fake_runner import FakeBackend


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace training by a fake that gives eval_loss 0.5 and passes; notes the loops trained."""
    names: list[str] = []

    def train(self: Any, settings: Any, **_: Any) -> Run:
        names.append(self.config.name)
        self.progress.step(1, 1, 0.5)
        content = self.inputs.eval.examples[0].content
        result = fake_example("e1", content=content, loss=2.0, tokens=4)
        evaluation = Evaluation((result,), (result,), (result,), base_eval_loss=4.0)
        return Run(fake_training(), evaluation, Cost(1.0, 100, 1000), environment={})

    monkeypatch.setattr(FakeBackend, "train", train)
    monkeypatch.setattr(backends, "local", FakeBackend)
    monkeypatch.delenv("CI", raising=False)
    return names


# run


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines as wide as in a pipe, also in a worker of pytest-xdist, which states its own width."""
    monkeypatch.setenv("COLUMNS", "100")


def test_run_trains_then_is_up_to_date(make_loop: Any, trained: list[str], capsys: Capture) -> None:
    """Gates that hold are exit code 0; the second run trains nothing."""
    file = make_loop()
    assert 0 == main(["run", str(file)])
    out, err = capsys.readouterr()
    assert ": 2 gates hold, eval_loss 0.5000\n" in out
    assert err.startswith("ftloop sentiment: warning small-eval-set: ")  # one example
    times = len(trained)
    assert times > 0
    assert 0 == main(["run", str(file)])
    assert times == len(trained)
    assert "up to date" in capsys.readouterr().out


def test_run_with_a_failed_gate(make_loop: Any, trained: list[str], capsys: Capture) -> None:
    """One failed gate is exit code 1; -q prints a line per gate."""
    file = make_loop(text=LOOP.replace("<= 1.0", "<= 0.4"))
    assert 1 == main(["run", str(file), "-q"])
    lines = capsys.readouterr().out.splitlines()
    assert [
        "FAILED sentiment: eval_loss 0.5000, wanted <= 0.4",
        "ok     sentiment: pass_rate 100.0%, wanted >= 50%",
    ] == sorted(lines)
    assert 1 == main(["run", str(file)])
    assert ": 1 of 2 gates failed\n" in capsys.readouterr().out


def test_run_without_gates(make_loop: Any, trained: list[str], capsys: Capture) -> None:
    """A loop without gates completes, and says that nothing was judged."""
    assert 0 == main(["run", str(make_loop(text=LOOP.splitlines()[0]))])
    assert "no gates, so nothing was judged" in capsys.readouterr().out


def test_run_all_loops_of_a_folder(
    tmp_path: Path, make_loop: Any, trained: list[str], capsys: Capture
) -> None:
    """A broken loop does not keep the others from running; the exit code is the highest."""
    make_loop("good")
    make_loop("broken", text="data: 3\n", folder="a/")
    make_loop("strict", text=LOOP.replace("<= 1.0", "<= 0.4"), folder="b/")
    for skipped in (".hidden/", "node_modules/", "env/"):
        make_loop("skipped", folder=skipped)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert 2 == main(["run", str(tmp_path)])
    out, err = capsys.readouterr()
    assert {"good", "strict"} == set(trained)
    assert "3 loops: 1 passed, 1 with a failed gate, 1 with an error" in out
    assert "broken.ftloop.yaml:1: " in err
    assert "skipped" not in out + err


def test_run_takes_each_file_once(
    tmp_path: Path, make_loop: Any, trained: list[str], capsys: Capture
) -> None:
    """A file that two PATHs mean is run once."""
    file = make_loop()
    assert 0 == main(["run", str(file), str(tmp_path), "-q"])
    assert 2 == len(capsys.readouterr().out.splitlines())
    assert 1 == len(set(trained))


def test_run_replay(make_loop: Any, trained: list[str], capsys: Capture) -> None:
    """--replay never trains: an outdated log is an error that says what to do."""
    file = make_loop()
    assert 2 == main(["run", str(file), "--replay"])
    assert "Run pytest --ftloop and commit improvement_log/." in capsys.readouterr().err
    assert [] == trained


def test_run_judges_the_regression_gate(loops: Loops, capsys: Capture) -> None:
    """A regression is exit code 1, told once; -q says it in one line. A tag's gate has its name."""
    gates = "{regression: {}, 'regression[negation]': {metrics: [eval_loss]}}"
    loops.version(gates=gates)
    loops.write(rate=WORSE, gates=gates)
    assert 1 == main(["run"])
    out = capsys.readouterr().out
    assert ": 2 of 2 gates failed\nwhat this change did, against HEAD (" in out
    assert "\nregression: regressed against HEAD (" in out
    assert "\nregression[negation]: regressed against HEAD (" in out
    said = '3 of 3 examples that passed now fail; all of them answer "wrong"; 2 of them:\n'
    assert 1 == out.count(said)
    assert 1 == out.count("what to do: ")
    assert 1 == main(["run", "-q"])
    lines = capsys.readouterr().out.splitlines()
    assert 2 == len(lines)
    assert lines[0].startswith("FAILED x: regression: regressed: eval_loss 1.6800 -> 2.0000 (+0.32")
    assert lines[1].startswith(
        "FAILED x: regression[negation]: regressed: eval_loss[negation] 1.80"
    )


def test_run_prints_everything_with_v(loops: Loops, capsys: Capture) -> None:
    """-v prints figures, each broken example that a test would show, and what to do about it."""
    gates = "{eval_loss: <= 9, regression: {}}"
    loops.version(gates=gates)
    loops.write(rate=WORSE, gates=gates)
    capsys.readouterr()
    assert 1 == main(["run", "-v"])
    out = capsys.readouterr().out
    assert "\nthresholds:\n  holds   eval_loss 2.0000, wanted <= 9\n" in out
    assert "\n  !  eval_loss " in out
    assert "\nbroken: 3 of 3 examples that passed now fail; all of them answer " in out
    assert 1 == out.count("what to do: set training.learning_rate back to 1e-3.\n")


def test_run_with_another_baseline(loops: Loops, capsys: Capture) -> None:
    """--baseline REF is the commit to compare with; one that is not there is 2."""
    loops.version()
    loops.version(BETTER)
    capsys.readouterr()
    assert 0 == main(["run", "-v", "--baseline", "HEAD~1"])
    assert "regression: improved against HEAD~1 (" in capsys.readouterr().out
    assert 2 == main(["run", "--baseline", "no-such"])
    assert "no commit 'no-such'" in capsys.readouterr().err


def test_run_never_retrains_the_baseline_in_a_replay(loops: Loops, capsys: Capture) -> None:
    """--replay trains nothing: together with --retrain-baseline it is 2."""
    loops.version()
    assert 2 == main(["run", "--replay", "--retrain-baseline"])
    assert "--retrain-baseline and --replay can't be combined" in capsys.readouterr().err


def test_run_retrain(make_loop: Any, trained: list[str]) -> None:
    """--retrain trains what is logged already."""
    file = make_loop()
    main(["run", str(file)])
    times = len(trained)
    assert 0 == main(["run", str(file), "--retrain"])
    assert 2 * times == len(trained)


def test_run_log_folder(tmp_path: Path, make_loop: Any, trained: list[str]) -> None:
    """--log DIR keeps the log there; `ftloop log` finds it by the same option."""
    file = make_loop(folder="loops/")
    assert 0 == main(["run", str(file), "--log", str(tmp_path / "kept")])
    assert [] != list((tmp_path / "kept" / "sentiment").glob("001-*.yaml"))
    assert not (tmp_path / "loops" / "improvement_log").exists()
    for path in (file, file.parent):
        assert 0 == main(["log", str(path), "--log", str(tmp_path / "kept")])


@pytest.mark.parametrize(("options", "trains"), [([], 1), (["--iterations", "3"], 3)])
def test_run_in_ci(
    options: list[str],
    trains: int,
    make_loop: Any,
    trained: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In CI only the loop file's own settings are trained, unless a number is given."""
    file = make_loop(text=LOOP.replace("<= 1.0", "<= 0.1"))
    monkeypatch.setenv("CI", "true")
    assert 1 == main(["run", str(file), *options])
    assert trains == len(trained)


def test_run_with_pytests_hook(make_loop: Any, trained: list[str], capsys: Capture) -> None:
    """A scorer that only pytest knows is refused with the command that runs it."""
    file = make_loop(text=LOOP + "scoring: {scorer: hook}\n")
    assert 2 == main(["run", str(file)])
    err = capsys.readouterr().err
    assert err.startswith(f"{file}:4: scorer 'hook' needs pytest")
    assert f"Run pytest --ftloop {file}" in err
    assert [] == trained


def test_run_draws_a_line_on_a_terminal(
    make_loop: Any, trained: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The live line is on stderr, only where that is a terminal, and is gone at the end."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert 0 == main(["run", str(make_loop())])
    out, err = capsys.readouterr()
    assert "step 1/1" in err
    assert err.endswith("\r\x1b[2K")
    assert "\x1b" not in out
