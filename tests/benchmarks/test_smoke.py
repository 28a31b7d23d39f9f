"""Each benchmark runs at its smallest, in a process of its own as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks"
LOOP = """\
model: tiny
data: {{train: {data}/train.jsonl, eval: {data}/eval.jsonl}}
lora: {{r: 4, lora_alpha: 8}}
training: {{learning_rate: 1.0e-3, max_steps: 3, per_device_train_batch_size: 4}}
scoring: {{scorer: loss, threshold: 1.0}}
loop: {{patience: 9, policy: [{{training.learning_rate: 2.0e-3}}]}}
"""


def benchmark(script: str, *arguments: str, folder: Path = ROOT) -> str:
    """What a benchmark printed on standard output; it ended with exit code 0."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("GIT")},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize(
    "script",
    [
        *("architectures.py", "bench.py", "changes.py", "faults.py", "guards.py", "instruct.py"),
        *("labelled.py", "parallel.py", "policy.py", "real_gate.py", "same_losses.py", "slices.py"),
    ],
)
def test_benchmark_that_trains_starts(script: str) -> None:
    """It can be imported, and explains its options."""
    assert "usage:" in benchmark(script, "--help")


def test_gate_is_simulated() -> None:
    """Ten trials per cell hold the bounds, which allow for their own error."""
    assert "All 194 bounds hold" in benchmark("gate.py", "--trials", "10")


def test_long_log_is_judged() -> None:
    """A made-up log is judged by every command, each of which exits 0 without a heavy library."""
    printed = benchmark("replay.py", "--smoke")
    for command in ("pytest --ftloop-replay", "ftloop gate", "ftloop diff"):
        assert command in printed


def test_long_log_is_diagnosed() -> None:
    """A made-up log is diagnosed within the limit, and something is found."""
    assert "never-passed" in benchmark("diagnosis.py", "--smoke").partition("found: ")[2]


def test_logs_are_replayed(tmp_path: Path) -> None:
    """Logs that are made up, recorded and stored are judged by what came after each point."""
    state = ROOT / "tests" / "diagnose" / "trainer_states" / "plain_trainer.json"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trainer_state.json").write_bytes(state.read_bytes())
    printed = benchmark("refute.py", "--logs", "6", "--states", str(tmp_path))
    for logs in ("| made up | 6 |", "| recorded |", f"| states in {tmp_path.name} | 1 |"):
        assert logs in printed


@pytest.mark.slow
def test_costs_are_compared() -> None:
    """Both sides of each comparison run, and the two sides of the loop train as many steps."""
    printed = benchmark("bench.py", "--pairs", "1", "--steps", "2")
    assert printed.count("ratio") == 5


@pytest.mark.slow
def test_losses_are_the_same_as_in_a_plain_script(tmp_path: Path) -> None:
    """Each step's loss of the first and of the last iteration is that of a plain script."""
    file = tmp_path / "small.ftloop.yaml"
    file.write_text(LOOP.format(data=ROOT / "examples" / "quickstart" / "data"))
    printed = benchmark("same_losses.py", str(file))
    assert printed.count("3 of 3 steps identical") == 2


@pytest.mark.slow
def test_architectures_are_measured_by_hand() -> None:
    """A model of another architecture gives the same losses, figures and answers by hand."""
    forms = ("prompt/completion", "tokens")
    printed = benchmark("architectures.py", "--only", "qwen3_moe", "--forms", *forms)
    assert "| qwen3_moe      | 4 of 4       | 16 of 16          |" in printed
    assert "| 24 of 24        |" in printed


@pytest.mark.slow
def test_chats_are_measured_by_hand() -> None:
    """Forms of chat rows on the embedded model give the same losses and answers by hand."""
    from pytest_ftloop.core.progress import Silent
    from pytest_ftloop.train.tiny import tiny_folder

    forms = ("system", "answers-only", "no-thinking")
    printed = benchmark("instruct.py", str(tiny_folder(Silent())), "--steps", "2", "--only", *forms)
    assert printed.count("| 2 of 2            |") == len(forms)
    assert printed.count("| 16 of 16        |") == len(forms)


@pytest.mark.slow
def test_guards_are_judged(tmp_path: Path) -> None:
    """A few questions on the embedded model: no guard is forgotten at a rate that does nothing."""
    from pytest_ftloop.core.progress import Silent
    from pytest_ftloop.train.tiny import tiny_folder

    file = tmp_path / "questions.csv"
    rows = (f"Where is card {i}?,card_arrival" for i in range(12))
    file.write_text("\n".join(("text,category", *rows)), encoding="utf-8")
    arguments = (str(tiny_folder(Silent())), "--train", str(file), "--test", str(file), "--mixed")
    printed = benchmark("guards.py", *arguments, "--rates", "1e-7")
    assert "FAILED  lift +0.0 points" in printed
    for gate in ("forgetting", "forgetting[general]", "forgetting[order]"):
        assert f"{gate}: unchanged: no guard got worse" in printed


@pytest.mark.slow
def test_planted_faults_are_trained_once(tmp_path: Path) -> None:
    """A second run reads what the first one trained, and prints the same tables."""
    arguments = ("faults.py", "--smoke", "--kept", str(tmp_path))
    first = benchmark(*arguments)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pickle")}
    # Three versions that are accepted, the planted one (an epoch more), then a healthy case.
    assert len(kept) == 5
    assert first == benchmark(*arguments)
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pickle")}


@pytest.mark.slow
def test_planted_slices_are_looked_for() -> None:
    """All three tables are printed."""
    printed = benchmark("slices.py", "--smoke")
    for head in ("planted groups", "nothing planted", "wrong labels"):
        assert head in printed


@pytest.mark.slow
def test_many_wrong_labels_are_looked_for() -> None:
    """The table of a task that no rule was mended on is printed."""
    assert "of these named" in benchmark("slices.py", "--smoke", "--only", "many")


def test_wrong_labels_are_looked_for_by_words() -> None:
    """Each task's table is printed, and 20% wrong labels of the held-out one are named."""
    printed = benchmark("slices.py", "--only", "words", "--blocks", "1")
    library = printed.partition("library, by words")[2].splitlines()
    (line,) = (line.split() for line in library if line.startswith("20% wrong"))
    assert ["4", "4"] == line[2:4]


@pytest.mark.slow
def test_held_out_faults_are_logged_as_by_others(tmp_path: Path) -> None:
    """Faults of the held-out task are trained, and each form of their logs is diagnosed."""
    arguments = ("--smoke", "--held-out", "tiny", "--foreign", "--kept", str(tmp_path))
    printed = benchmark("faults.py", *arguments)
    assert "`mislabelled`" in printed
    for form in ("every step", "coarse", "no eval", "coarse, no eval", "word error rate"):
        assert f"| {form} |" in printed


@pytest.mark.slow
def test_policies_are_compared(tmp_path: Path) -> None:
    """The rules, random search and halving are played from one start."""
    printed = benchmark("policy.py", "--smoke", "--kept", str(tmp_path))
    assert "| random | halving |" in printed
    assert "hotel-16" in printed


@pytest.mark.slow
def test_guesses_are_counted(tmp_path: Path) -> None:
    """From one start it is counted which guesses at the rules' next settings are right."""
    printed = benchmark("ahead.py", "--smoke", "--kept", str(tmp_path))
    assert "of 1.\n" in printed.partition("Guesses right: ")[2]
    assert "At equal wall time" in printed


@pytest.mark.slow
def test_real_runs_are_judged_pairwise(tmp_path: Path) -> None:
    """Sixteen trainings are judged by the real command, which never errs."""
    printed = benchmark("real_gate.py", "--smoke", "--runs", str(tmp_path))
    assert "16 runs trained" in printed
    assert ", 0 errors." in printed


@pytest.mark.slow
def test_report_is_opened() -> None:
    """The HTML report is written and opened, where there is a Chromium."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from playwright.sync_api import sync_playwright

    from tests.report.chromium import find_chromium

    with sync_playwright() as playwright:
        if find_chromium(playwright.chromium.executable_path) is None:
            pytest.skip("no Chromium: install one, or name it by FTLOOP_CHROMIUM")
    assert "100 x 3" in benchmark("report.py", "--smoke")
