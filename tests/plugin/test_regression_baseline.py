"""The regression gate: which commit is the baseline, other environments, acceptance by hand."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.gitfakes import GitRepo
from tests.plugin.conftest import BETTER, WORSE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Project
from tests.plugin.regression_cases import FAILED, gates, log_of

# which commit


def better_commit(project: Project) -> None:
    """Another commit, whose version is better."""
    project.rate(BETTER)
    project.run("--ftloop").assert_outcomes(passed=1)
    project.commit()


def test_baseline_option(gated: Project) -> None:
    """--ftloop-baseline names the commit, and comes before the ini setting."""
    better_commit(gated)
    gated.write("pytest.ini", "[pytest]\nftloop_baseline = HEAD\n")
    result = gated.run("--ftloop", "-v", "--ftloop-baseline", "HEAD~1")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["regression: improved against HEAD~1 (*): eval_loss 1.6800 *"])


def test_baseline_setting(gated: Project) -> None:
    """The ini setting ftloop_baseline names the commit where the option does not."""
    better_commit(gated)
    gated.write("pytest.ini", "[pytest]\nftloop_baseline = HEAD~1\n")
    result = gated.run("--ftloop", "-v")
    result.stdout.fnmatch_lines(["regression: improved against HEAD~1 (*): eval_loss 1.6800 *"])


@pytest.mark.parametrize("ref", ["no-such", "HEAD~9", "HEAD..HEAD", "--all", " "])
def test_unknown_baseline(gated: Project, ref: str) -> None:
    """A ref that is not there fails the gate with its name and a cure, and writes nothing."""
    before = gated.files()
    result = gated.run("--ftloop", f"--ftloop-baseline={ref}")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert repr(ref) in text
    assert "Traceback" not in text
    assert before == gated.files()


def pull_request(gated: Project, tmp_path: Path, depth: int | None = None) -> GitRepo:
    """A clone as CI has it: main went on meanwhile, the request's branch is checked out."""
    better_commit(gated)
    gated.repo.branch("feature", "HEAD~1")
    gated.repo.commit({"other.txt": "work"})
    return gated.repo.clone(tmp_path / "ci", "--branch", "feature", depth=depth)


@pytest.fixture
def in_clone(gated: Project, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run pytest in a clone."""

    def run(depth: int | None, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        clone = pull_request(gated, tmp_path_factory.mktemp("clone"), depth)
        here, gated.path = gated.path, clone.root
        try:
            return gated.run_alone(*args, **env)
        finally:
            gated.path = here

    return run


def test_pull_request(in_clone: Any) -> None:
    """In a pull request the merge base is the standard, not what its target became since."""
    done = in_clone(None, "--ftloop-replay", "-v", GITHUB_BASE_REF="main", GITHUB_ACTIONS="true")
    assert 0 == done.returncode, done.stdout
    assert re.search(
        r"^regression: unchanged against origin/main \([0-9a-f]{7}, merge base\): ",
        done.stdout,
        re.MULTILINE,
    )


def test_pull_request_in_a_shallow_clone(in_clone: Any) -> None:
    """A clone without the history fails the gate, and says how to fetch it."""
    done = in_clone(1, "--ftloop-replay", GITHUB_BASE_REF="main", GITHUB_ACTIONS="true")
    assert FAILED == done.returncode, done.stdout
    assert "found a shallow clone" in done.stdout
    assert "Set fetch-depth: 0 in actions/checkout" in done.stdout
    assert "Traceback" not in done.stdout


# the environment


def retrained_elsewhere(gated: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DEVICE", "gpu")
    monkeypatch.setenv("FAKE_NOISE", "0.3")


@pytest.mark.parametrize(("rule", "passes"), [("{}", True), ("{fail_on: [not-comparable]}", False)])
def test_environment_changed(
    gated: Project, monkeypatch: pytest.MonkeyPatch, rule: str, passes: bool
) -> None:
    """Figures from another device are not compared; that fails only when asked to."""
    gates(gated, f"  regression: {rule}\n")
    monkeypatch.setenv("FAKE_DEVICE", "gpu")
    gated.rate(WORSE)
    result = gated.run("--ftloop", "-v")
    result.assert_outcomes(**{"passed" if passes else "failed": 1})
    result.stdout.fnmatch_lines(
        ["regression: not comparable against HEAD (*): environment changed (device cpu -> gpu)"]
    )
    if not passes:
        result.stdout.fnmatch_lines(["  pytest --ftloop --ftloop-retrain-baseline x.ftloop.yaml"])
    assert ["x 0.0002"] == gated.trained()


@pytest.mark.parametrize("seeds", [1, 3])
def test_same_settings_in_another_environment(
    gated: Project, monkeypatch: pytest.MonkeyPatch, seeds: int
) -> None:
    """The same settings retrained elsewhere are not compared with themselves."""
    gates(gated, "  regression: {fail_on: [not-comparable]}\n")
    gated.edit("x.ftloop.yaml", "iterations: 1", f"iterations: 1, seeds: {seeds}")
    monkeypatch.setenv("FAKE_DEVICE", "gpu")
    result = gated.run("--ftloop-retrain")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*environment changed (device cpu -> gpu)"])


def test_same_settings_with_another_seed(gated: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another seed is a comparison of two runs, of which none stands on both sides."""
    monkeypatch.setenv("FAKE_NOISE", "0.2")
    gated.edit("x.ftloop.yaml", "num_train_epochs: 2", "num_train_epochs: 2, seed: 43")
    result = gated.run("--ftloop", "-v")
    assert [42, 44, 45] == sorted({42, *(run.seed for run in log_of(gated).seed_runs())})
    result.stdout.fnmatch_lines(["  *  eval_loss *1.6800 *1.7333 *+0.0533 *"])


# accepted by hand


def test_accepted_by_hand(gated: Project) -> None:
    """A candidate that was accepted by hand passes, against the merge base too, and says so."""
    from pytest_ftloop.cli import main

    gated.repo.tag("base")
    gated.rate(WORSE)
    gated.run("--ftloop").assert_outcomes(failed=1)
    assert 0 == main(["accept", "last", str(gated.path), "--baseline"])
    gated.commit()
    for args in ((), ("--ftloop-replay",), ("--ftloop-baseline", "base")):
        gated.run("--ftloop", *args).assert_outcomes(passed=1)
    before = gated.files()
    result = gated.run("--ftloop", "--ftloop-baseline", "base")
    result.stdout.fnmatch_lines(["regression: regressed against base (*): accepted by hand; *"])
    assert before == gated.files()


def test_accepting_one_does_not_accept_the_next(gated: Project) -> None:
    """After an acceptance by hand another candidate is judged as ever."""
    from pytest_ftloop.cli import main

    gated.rate(BETTER)
    gated.run("--ftloop")
    assert 0 == main(["accept", "last", str(gated.path), "--baseline"])
    gated.rate(WORSE)
    gated.run("--ftloop").assert_outcomes(failed=1)
