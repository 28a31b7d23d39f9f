"""`--ftloop-retrain-baseline`: the baseline's commit trained here, for a fair comparison."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.log import ImprovementLog
from tests.gitfakes import GitRepo, isolate
from tests.loop.loop_cases import forge
from tests.plugin.conftest import BETTER, EVAL, GATED, ROOT, TRAIN, WORSE
from tests.processes import LONG_S, wait_for

if TYPE_CHECKING:
    from pytest_ftloop.core.records import SeedRun
    from tests.plugin.conftest import Project

OPTION = "--ftloop-retrain-baseline"
FAKE = """\
import pytest_ftloop.loop.backend
from tests.plugin.fake_runner import FakeBackend

pytest_ftloop.loop.backend.local = FakeBackend
"""


@pytest.fixture(autouse=True)
def _fake(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """The process that trains the baseline finds the fake runner in the place of the real one."""
    if request.function is test_real_training:
        return
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(FAKE)
    request.getfixturevalue("project")  # sets PYTHONPATH
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")


@pytest.fixture
def moved(gated: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A loop whose committed version was trained on another device."""
    monkeypatch.setenv("FAKE_DEVICE", "gpu")
    return gated


def runs_of(project: Project) -> tuple[SeedRun, ...]:
    return ImprovementLog(project.path / "improvement_log/x").view.seed_runs()


def check_clean(project: Project) -> None:
    """No worktree is left, neither known to git nor on disk."""
    assert [f"worktree {project.repo.root}"] == [
        line
        for line in project.repo.git("worktree", "list", "--porcelain").splitlines()
        if line.startswith("worktree ")
    ]


def test_baseline_is_trained_here(moved: Project) -> None:
    """The baseline is trained once from its own commit, logged as such, and compared with."""
    moved.rate(WORSE)
    result = moved.run(OPTION)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["regression: regressed against HEAD (*): eval_loss 1.6800 -> 2.0000 *"]
    )
    (run,) = [run for run in runs_of(moved) if run.role == "baseline"]
    (baseline, _) = ImprovementLog(moved.path / "improvement_log/x").read()
    assert (baseline.id, baseline.group, baseline.fingerprint, "gpu") == (
        run.iteration,
        run.group,
        run.fingerprint,
        run.environment["device"],
    )
    assert baseline.data == run.data
    assert 1 == moved.trained().count("x 0.001")
    check_clean(moved)


def test_second_run_trains_nothing(moved: Project) -> None:
    """What was trained for the comparison is in the log, for the next run and for a replay."""
    moved.rate(BETTER)
    first = moved.run(OPTION)
    first.assert_outcomes(passed=1)
    trained, before = moved.trained(), moved.files()
    for option in (OPTION, "--ftloop-replay", "--ftloop"):
        result = moved.run(option, "-v")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["regression: improved against HEAD (*"])
    assert (trained, before) == (moved.trained(), moved.files())


def test_nothing_is_trained_in_the_same_environment(gated: Project) -> None:
    """Where the baseline's figures are from here already, its commit is not trained."""
    gated.rate(WORSE)
    gated.run(OPTION).assert_outcomes(failed=1)
    assert "x 0.001" not in gated.trained()
    assert [] == [run for run in runs_of(gated) if run.role == "baseline"]


def test_nothing_is_trained_without_a_baseline(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first version passes as ever."""
    isolate(monkeypatch)
    project.write("x.ftloop.yaml", GATED)
    GitRepo.init(project.path).commit()
    project.run(OPTION).assert_outcomes(passed=1)
    assert ["x 0.001"] == project.trained()


def test_the_commits_own_settings_and_data(moved: Project) -> None:
    """The commit's loop file and data are trained, not what the working folder has by now."""
    moved.write_rows("train.jsonl", TRAIN[:2])
    moved.write_rows("eval.jsonl", EVAL[:4])
    moved.rate(BETTER)
    moved.run(OPTION)
    (run,) = [run for run in runs_of(moved) if run.role == "baseline"]
    assert (6, 5) == (run.data["train"]["rows"], run.data["eval"]["rows"])
    assert 5 == len(run.examples)


def test_code_of_the_commit(moved: Project) -> None:
    """A scorer and what it imports are the commit's own, not those of the working folder."""
    moved.write("deep/words.py", "GOOD = 'answer 0'\n")
    moved.write(
        "judge.py",
        "import sys, pathlib\n"
        "from deep.words import GOOD\n\n"
        "def score(output, expected, example):\n    return expected == GOOD\n",
    )
    moved.edit("x.ftloop.yaml", "gates:", "scoring: {scorer: 'judge:score'}\ngates:")
    moved.run("--ftloop")
    moved.commit()
    for name in ("judge", "deep.words", "deep"):
        sys.modules.pop(name, None)
    moved.write("deep/words.py", "GOOD = 'answer 1'\n")
    os.environ["FAKE_DEVICE"] = "tpu"  # restored by the fixture's monkeypatch
    moved.rate(BETTER)
    moved.run(OPTION)
    for name in ("judge", "deep.words", "deep"):
        sys.modules.pop(name, None)
    (run,) = [run for run in runs_of(moved) if run.role == "baseline"]
    assert ["e0"] == [row.id for row in run.examples if row.passed]


def test_data_that_git_does_not_keep(moved: Project) -> None:
    """Data and model that are not under version control are found where they are now."""
    moved.write(".gitignore", "*.jsonl\nbase/\n")
    moved.write("base/config.json", "{}")
    moved.edit("x.ftloop.yaml", "lora:", "model: base\nlora:")
    moved.repo.git("rm", "--quiet", "--cached", "train.jsonl", "eval.jsonl")
    moved.run("--ftloop-retrain")
    moved.commit()
    os.environ["FAKE_DEVICE"] = "tpu"
    moved.rate(BETTER)
    result = moved.run(OPTION)
    result.assert_outcomes(passed=1)
    (run,) = [run for run in runs_of(moved) if run.role == "baseline"]
    baseline = ImprovementLog(moved.path / "improvement_log/x").read()[-2]
    assert (baseline.fingerprint, baseline.data) == (run.fingerprint, run.data)


def test_data_that_changed_since(moved: Project) -> None:
    """Data that git does not keep, and that changed since, can't stand for the baseline's."""
    moved.write(".gitignore", "train.jsonl\n")
    moved.repo.git("rm", "--quiet", "--cached", "train.jsonl")
    moved.commit()
    moved.write_rows("train.jsonl", TRAIN[:3])
    result = moved.run(OPTION)
    result.assert_outcomes(failed=1)
    text = " ".join(result.stdout.str().split())
    assert (
        "train train.jsonl is not under version control, and has changed since iteration 001-"
        in text
    )
    assert [] == list(runs_of(moved))
    check_clean(moved)


def test_neighbour_that_is_broken(moved: Project) -> None:
    """Another loop file of the commit that can't be read is not in the way."""
    moved.write("a.ftloop.yaml", "data: 3\n")
    moved.commit()
    (moved.path / "a.ftloop.yaml").unlink()
    moved.rate(BETTER)
    moved.run(OPTION).assert_outcomes(passed=1)


def test_log_in_another_folder(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With --ftloop-log the loop file is looked for where the loop is."""
    isolate(monkeypatch)
    for name in ("train.jsonl", "eval.jsonl"):
        project.write(f"loops/{name}", (project.path / name).read_bytes())
    (project.path / "x.ftloop.yaml").unlink()
    project.write("loops/x.ftloop.yaml", GATED)
    GitRepo.init(project.path)
    project.run("--ftloop", "--ftloop-log", "kept/logs")
    project.commit()
    monkeypatch.setenv("FAKE_DEVICE", "gpu")
    project.edit("loops/x.ftloop.yaml", "1.0e-3", BETTER)
    result = project.run(OPTION, "--ftloop-log", "kept/logs", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["regression: improved against HEAD (*"])


def test_commit_without_the_loop_file(moved: Project) -> None:
    """A commit that has the log but no loop file is an error that says so."""
    text = (moved.path / "x.ftloop.yaml").read_text()
    (moved.path / "x.ftloop.yaml").unlink()
    moved.commit()
    moved.write("x.ftloop.yaml", text)
    moved.rate(BETTER)
    result = moved.run(OPTION)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "x.ftloop.yaml*: the baseline can't be trained: HEAD (*) has no loop file of x",
            "  Name a commit that has one with --ftloop-baseline.",
        ]
    )
    check_clean(moved)


def test_scorer_that_only_pytest_knows(moved: Project) -> None:
    """A baseline scored by a pytest hook is refused with the way out."""
    moved.edit("x.ftloop.yaml", "gates:", "scoring: {scorer: hook}\ngates:")
    hook = "\ndef pytest_ftloop_score(output, expected, example):\n    return True\n"
    moved.write("conftest.py", (moved.path / "conftest.py").read_text() + hook)
    moved.run("--ftloop").assert_outcomes(passed=1)
    moved.commit()
    os.environ["FAKE_DEVICE"] = "tpu"
    moved.rate(BETTER)
    result = moved.run(OPTION)
    result.assert_outcomes(failed=1)
    text = " ".join(result.stdout.str().split())
    assert re.search(r"its scorer at HEAD \(\w+\) is 'hook', which needs pytest", text)


def test_candidate_from_elsewhere_too(moved: Project) -> None:
    """A candidate whose figures are from a third environment is told how to be trained here."""
    moved.rate(BETTER)
    moved.run("--ftloop")
    os.environ["FAKE_DEVICE"] = "tpu"
    result = moved.run(OPTION)
    result.assert_outcomes(failed=1)
    text = " ".join(result.stdout.str().split())
    assert "the candidate in the log is from another environment (device tpu -> gpu)" in text
    assert "Add --ftloop-retrain, which trains the candidate here too." in text
    moved.run(OPTION, "--ftloop-retrain").assert_outcomes(passed=1)


def test_failure_of_the_process(moved: Project) -> None:
    """What ends the process that trains is told with its reason, and the worktree is gone."""
    moved.write(".gitignore", "eval.jsonl\n")
    moved.repo.git("rm", "--quiet", "--cached", "eval.jsonl")
    moved.commit()
    (moved.path / "eval.jsonl").rename(moved.path / "eval2.jsonl")
    moved.edit("x.ftloop.yaml", "eval.jsonl", "eval2.jsonl")
    moved.rate(BETTER)
    result = moved.run(OPTION)
    result.assert_outcomes(failed=1)
    text = " ".join(result.stdout.str().split())
    assert "the baseline could not be trained here: x.ftloop.yaml:1: data file eval.jsonl" in text
    check_clean(moved)


@pytest.mark.slow
def test_workers_train_it_once(moved: Project) -> None:
    """Two gates in two processes train the baseline once."""
    pytest.importorskip("xdist")
    moved.edit("x.ftloop.yaml", "regression: {}", "regression: {}\n  regression[negation]: {}")
    moved.rate(BETTER)
    done = moved.run_alone("-n", "2", OPTION)
    assert 0 == done.returncode, done.stdout
    assert 1 == moved.trained().count("x 0.001")
    check_clean(moved)


def test_not_in_a_replay(gated: Project) -> None:
    """Together with --ftloop-replay it is a usage error."""
    result = gated.run(OPTION, "--ftloop-replay")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(
        ["*--ftloop-retrain-baseline and --ftloop-replay can't be combined*"]
    )


def test_loop_made_in_python(moved: Project) -> None:
    """A loop without a loop file can't be trained from a commit, and says so."""
    settings = "train='train.jsonl', eval='eval.jsonl', loop={'iterations': 1}, "
    settings += "gates={'regression': {}}, name='y'"
    moved.write(
        "test_y.py",
        f"def test_y(ftloop):\n    best = ftloop({settings}).run()\n    assert best.verdict.ok\n",
    )
    os.environ["FAKE_DEVICE"] = "cpu"
    moved.run("--ftloop", "test_y.py").assert_outcomes(passed=1)
    moved.commit()
    moved.edit("test_y.py", "name='y'", "name='y', training={'learning_rate': 1.6e-3}")
    os.environ["FAKE_DEVICE"] = "gpu"
    result = moved.run(OPTION, "test_y.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the loop is made in Python*"])


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "process"])
def test_interrupted(
    moved: Project, tmp_path_factory: pytest.TempPathFactory, whole_group: bool
) -> None:
    """Ctrl-C ends the training, and leaves no worktree and no half of a record."""
    moved.rate(BETTER)
    temporary = tmp_path_factory.mktemp("tmp")
    process = subprocess.Popen(
        moved.command(OPTION),
        cwd=moved.path,
        env=os.environ | {"FAKE_HANG": "2", "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    hangs = moved.trained_file.with_name(f"{moved.trained_file.name}.hangs")
    try:
        wait_for(hangs, process)
        if whole_group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
    assert pytest.ExitCode.INTERRUPTED == process.returncode, out
    assert ["x 0.0016", "x 0.001"] == moved.trained()
    assert [] == list(runs_of(moved))
    assert [] == [path for path in temporary.iterdir() if path.name.startswith("ftloop-")]
    check_clean(moved)


@pytest.mark.slow
def test_real_training(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """With the embedded model: a baseline logged elsewhere is trained here, and gives its figures
    again."""
    from tests.plugin.conftest import Project
    from tests.small_base import rows

    isolate(monkeypatch)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    project = Project(pytester)
    project.write("conftest.py", "")
    project.write_rows("train.jsonl", rows(24, 1))
    project.write_rows("eval.jsonl", rows(10, 2))
    project.write(
        "x.ftloop.yaml",
        "data: {train: train.jsonl, eval: eval.jsonl}\n"
        "training: {learning_rate: 5.0e-3, num_train_epochs: 1}\n"
        "scoring: {scorer: loss, threshold: 2.0}\n"
        "gates: {regression: {metrics: [eval_loss]}}\n"
        "loop: {iterations: 1}\n",
    )
    GitRepo.init(project.path)
    done = project.run_alone("--ftloop")
    assert 0 == done.returncode, done.stdout
    for record in (project.path / "improvement_log/x").glob("*.yaml"):
        forge(record, ("  torch: ", "  torch: 1."))
    project.commit()
    project.rate("2.0e-3")
    done = project.run_alone(OPTION)
    assert "not comparable" not in done.stdout, done.stdout
    (run,) = [run for run in runs_of(project) if run.role == "baseline"]
    baseline = ImprovementLog(project.path / "improvement_log/x").read()[0]
    assert baseline.metrics == run.metrics
    assert baseline.environment["torch"] == f"1.{run.environment['torch']}"
    check_clean(project)
