"""`ftloop calibrate`: more seeds of the best iteration, once, and what they say of the noise."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main
from tests.loops import BETTER, IN_DOUBT, Loops
from tests.processes import LONG_S, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def calibrate(
    loops: Loops, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run the command; its exit code, output and errors. Seeds move the loss by up to 1%."""
    monkeypatch.setenv("FAKE_NOISE", "0.01")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["calibrate", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_four_more_seeds(loops: Loops, calibrate: Any) -> None:
    """Four more seeds are trained and logged, and the seed noise is told."""
    loops.version()
    code, out, err = calibrate()
    assert 0 == code
    assert [f"iteration 1, seed {seed}" for seed in (43, 44, 45, 46)] == re.findall(
        r"^ftloop x: (.+) begins$", err, re.MULTILINE
    )
    assert [f"x 0.001 seed {seed}" for seed in (43, 44, 45, 46)] == loops.trained()[1:]
    assert ["calibration"] * 4 == [run.role for run in loops.log().seed_runs()]
    assert re.fullmatch(
        r"x: iteration 001-[0-9a-f]{8}\n"
        r"  5 runs, seeds 42, 43, 44, 45, 46\n"
        r"  eval_loss: mean 1\.6800, from 1\.6640 to 1\.6960, seed noise 0\.0126\n"
        r"  pass_rate: mean 60\.0%, from 60\.0% to 60\.0%, seed noise 0\.0 points\n"
        r"  overfit_gap: mean 0\.1300, .*\n",
        out,
    )


def test_second_time(loops: Loops, calibrate: Any) -> None:
    """What is logged already is not trained again; more seeds go on from there."""
    loops.version()
    first = calibrate()
    before = loops.files()
    assert first[:2] == calibrate()[:2]
    assert (5, before) == (len(loops.trained()), loops.files())
    calibrate("--seeds", "6")
    assert "x 0.001 seed 47" == loops.trained()[-1]
    assert 6 == len(loops.trained())


def test_loop_that_is_not_trained_yet(loops: Loops, calibrate: Any) -> None:
    """The loop itself is trained first, where its log is out of date."""
    loops.write()
    assert 0 == calibrate("--seeds", "2")[0]
    assert ["x 0.001", "x 0.001 seed 43"] == loops.trained()


def test_seeds_of_a_comparison_count(loops: Loops, calibrate: Any) -> None:
    """Seeds that the gate trained are among the five."""
    loops.version()
    loops.write(rate=IN_DOUBT)
    loops.train()
    assert 4 == len(loops.trained())
    calibrate()
    assert 6 == len(loops.trained())


def test_gate_is_sharper(loops: Loops, calibrate: Any, capsys: Capture) -> None:
    """Calibrated, the gate finds what it could not tell before."""
    gates = "{regression: {metrics: [eval_loss]}}"
    loops.version(gates=gates)
    loops.write(rate="9.0e-4", gates=gates)
    loops.train()
    capsys.readouterr()
    assert 0 == main(["gate"])
    said = " ".join(capsys.readouterr().out.split())
    assert "too few seeds to measure the seed noise (how far trainings that differ in their" in said
    assert "), so it is assumed to be 0." in said
    calibrate()
    main(["gate"])
    assert "too few seeds" not in capsys.readouterr().out


def test_several_loops(loops: Loops, calibrate: Any) -> None:
    """Each loop is calibrated; one in error does not keep the others from it."""
    loops.put("a.ftloop.yaml", "data: 3\n")
    loops.write("x")
    loops.write("y", "deep/")
    code, out, err = calibrate("--seeds", "2")
    assert 2 == code
    assert err.startswith("a.ftloop.yaml:1: ")
    assert ["x: iteration 001", "y: iteration 001"] == re.findall(
        r"^\w: iteration 001", out, re.MULTILINE
    )


def test_log_folder(loops: Loops, calibrate: Any) -> None:
    """--log DIR holds the runs."""
    loops.write()
    assert 0 == calibrate("--seeds", "2", "--log", "kept")[0]
    assert 2 == len(list((loops.root / "kept/x/seeds").iterdir()))
    assert not (loops.root / "improvement_log").exists()


def test_best_iteration(loops: Loops, calibrate: Any) -> None:
    """Of a chain the best iteration is calibrated."""
    loops.write(rate="2.0e-4", loop="{iterations: 2}", gates="{eval_loss: '<= 1'}")
    loops.train()
    _, out, _ = calibrate("--seeds", "2")
    assert out.startswith("x: iteration 002-")


@pytest.mark.parametrize("seeds", ["0", "x", "-1"])
def test_usage(loops: Loops, capsys: Capture, seeds: str) -> None:
    """A number of seeds that can't be meant is 2."""
    with pytest.raises(SystemExit) as exited:
        main(["calibrate", "--seeds", seeds])
    assert 2 == exited.value.code
    assert "wanted a whole number, 1 or more" in capsys.readouterr().err


def test_hook_scorer(loops: Loops, calibrate: Any) -> None:
    """A loop that only pytest can score is refused, with what to do."""
    loops.write(more="scoring: {scorer: hook}\n")
    code, _, err = calibrate()
    assert 2 == code
    assert "scorer 'hook' needs pytest" in err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupted(loops: Loops, capsys: Capture) -> None:
    """Ctrl-C keeps the seeds that were trained; the next run goes on from there."""
    loops.version()
    code = """
import sys
from pytest_ftloop.cli import main
from pytest_ftloop.loop import backend
from tests.plugin.fake_runner import FakeBackend
backend.local = FakeBackend
sys.exit(main(["calibrate"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=loops.root,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FAKE_HANG": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    hangs = loops.trained_file.with_name(f"{loops.trained_file.name}.hangs")
    try:
        wait_for(hangs, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
    assert (130, "") == (process.returncode, out)
    assert "\ninterrupted: finished iterations are in the log" in err
    assert [43] == [run.seed for run in loops.log().seed_runs()]
    assert 0 == main(["calibrate"])
    assert [43, 44, 45, 46] == [run.seed for run in loops.log().seed_runs()]
    assert ["x 0.001 seed 44"] * 2 == [line for line in loops.trained() if "44" in line]


def test_calibration_is_no_baseline(loops: Loops, calibrate: Any) -> None:
    """A lucky seed of a calibration changes neither the candidate nor what it is compared with."""
    loops.version()
    calibrate()
    loops.commit()
    assert 0 == main(["gate"])
    assert 1 == len(loops.log().iterations())
    loops.version(BETTER)
    assert 0 == main(["gate"])
