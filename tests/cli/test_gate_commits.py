"""`ftloop gate`: which commits are compared, other places and other settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_ftloop.cli import main
from tests.cli.gate_cases import Capture, Gate
from tests.gitfakes import GitRepo
from tests.loops import BETTER, SAME, WORSE, Loops

# which commits


@pytest.fixture
def history(loops: Loops) -> Loops:
    """Tags one (same), two (better), three (worse), each a version; three is checked out."""
    for name, rate in (("one", SAME), ("two", BETTER), ("three", WORSE)):
        loops.version(rate)
        loops.repo.tag(name)
    return loops


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        ("one", 1, "regressed against one ("),
        ("one..", 1, "regressed against one ("),
        ("two..three", 1, "eval_loss 1.4400 -> 2.0000"),
        ("one..two", 0, "improved against "),
        ("two..one", 1, "eval_loss 1.4400 -> 1.6800"),
        ("..two", 0, "unchanged against "),
        ("one...two", 0, "improved against "),
        ("HEAD~2..HEAD~1", 0, "improved against "),
    ],
)
def test_range(history: Loops, gate: Gate, where: str, code: int, said: str) -> None:
    """BASE and BASE.. judge the files as they are; A..B the log of B, whatever is checked out."""
    found, out, err = gate(where)
    assert (code, "") == (found, err)
    assert said in out


@pytest.mark.parametrize("where", ["main...", "main...HEAD", "main...feature"])
def test_range_of_a_merge_base(loops: Loops, gate: Gate, where: str) -> None:
    """A...B and A... compare with where the branches parted, not with what A became since."""
    loops.version()
    loops.repo.branch("feature")
    loops.repo.commit({"other.txt": "work"})
    loops.repo.switch("main")
    loops.version(BETTER)
    loops.repo.switch("feature")
    code, out, _ = gate(where)
    assert 0 == code
    assert "regression: unchanged against " in out
    assert 1 == gate("main")[0]


@pytest.mark.parametrize("option", ["one", "two"])
def test_baseline_option(history: Loops, gate: Gate, option: str) -> None:
    """--baseline REF is BASE."""
    code, out, _ = gate("--baseline", option)
    assert 1 == code
    assert f"against {option} (" in out


def test_default_is_head(history: Loops, gate: Gate) -> None:
    """Without a commit the last one is the standard: what failed there fails against what passed.

    The worse version is committed, and its judgement with it: it is no baseline.
    """
    code, out, _ = gate()
    assert 1 == code
    assert "regressed against HEAD (" in out


def test_pull_request(loops: Loops, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pull request the default is the merge base with its target branch."""
    loops.version()
    loops.repo.branch("feature")
    loops.version(WORSE)
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    code, out, _ = gate()
    assert 1 == code
    assert "regressed against main (" in out
    assert ", merge base): " in out


def test_shallow_clone(
    loops: Loops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """In a pull request's shallow clone it is 2, and said how to fetch the history."""
    loops.version()
    loops.repo.branch("feature")
    loops.version(BETTER)
    clone = loops.repo.clone(tmp_path / "ci", "--branch", "feature", depth=1)
    monkeypatch.chdir(clone.root)
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    assert 2 == main(["gate"])
    err = capsys.readouterr().err
    assert "found a shallow clone" in err
    assert "fetch-depth: 0" in err


def test_path_named_like_a_branch(loops: Loops, gate: Gate) -> None:
    """What exists as a file or folder is a path, whatever branches there are."""
    loops.write("y", "topic/")
    loops.version()
    loops.repo.branch("topic")
    code, out, _ = gate("topic")
    assert 0 == code
    assert out.startswith("y: iteration 001-")


def test_head_leaves_nothing_behind(
    history: Loops, gate: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A commit is judged from a temporary folder: the user's work, staged or not, stays as it is.

    That the folder is as before is what the fixture `gate` checks in every test.
    """
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    history.put("new.txt", "new")
    history.put("staged.txt", "staged")
    history.repo.git("add", "staged.txt")
    history.put("x.ftloop.yaml", "data: broken\n")
    assert 0 == gate("one..two")[0]
    assert 2 == gate("one..two", "--gate", "pass_rate[no] >= 0.5")[0]
    assert [] == list(temporary.iterdir())
    assert history.root == Path.cwd()


def test_paths_of_a_commit(history: Loops, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are those of the commit, shown as the user would type them, from a subfolder too."""
    history.write("deep", "deep/")
    history.train("deep")
    history.commit()
    code, out, _ = gate("HEAD~1..HEAD", "x.ftloop.yaml", "--json")
    assert 1 == code
    assert ["x.ftloop.yaml"] == [item["source"] for item in json.loads(out)]
    monkeypatch.chdir(history.root / "deep")
    code, out, err = gate("HEAD~1..HEAD", "--json")
    assert (0, "") == (code, err)
    assert ["deep.ftloop.yaml"] == [item["source"] for item in json.loads(out)]
    code, _, err = gate("one..two")
    assert 2 == code
    assert "/tmp" not in err


def test_data_that_git_does_not_keep(loops: Loops, gate: Gate) -> None:
    """Where a commit is judged, data that git does not keep is what the folder has now."""
    loops.put(".gitignore", "*.jsonl\n")
    loops.version()
    loops.version(BETTER)
    code, out, err = gate("HEAD~1..HEAD")
    assert (0, "") == (code, err)
    assert "regression: improved against" in out
    loops.put("train.jsonl", '{"prompt": "p", "completion": "c"}\n')
    assert 3 == gate("HEAD~1..HEAD")[0]


def test_from_a_subfolder(loops: Loops, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run below the repository's root, or on a path above, the log is found all the same."""
    loops.write("y", "deep/er/")
    loops.train()
    loops.commit()
    monkeypatch.chdir(loops.root / "deep" / "er")
    code, out, _ = gate()
    assert 0 == code
    assert "y: iteration 001-" in out
    (loops.root / "other").mkdir()
    monkeypatch.chdir(loops.root / "other")
    assert 0 == gate("../deep")[0]


def test_linked_worktree(loops: Loops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A linked worktree is a repository too."""
    loops.version()
    linked = loops.repo.worktree(tmp_path / "linked")
    monkeypatch.chdir(linked.root)
    assert 0 == main(["gate"])
    assert 0 == main(["gate", "HEAD..HEAD"])


def test_renamed_loop(loops: Loops, gate: Gate) -> None:
    """A loop that was renamed is compared with the log it had before."""
    loops.version()
    (loops.root / "x.ftloop.yaml").rename(loops.root / "y.ftloop.yaml")
    (loops.root / "improvement_log/x").rename(loops.root / "improvement_log/y")
    code, out, _ = gate()
    assert 0 == code
    assert "y: iteration 001-" in out
    assert "regression: unchanged against HEAD (" in out


# other places and other settings


def test_hook_scorer(loops: Loops, gate: Gate) -> None:
    """A loop that pytest's hook scores is judged: nothing is scored in a replay."""
    scored = "scoring: {scorer: hook}\n"
    from pytest_ftloop.config.loop_config import read_loop_file
    from pytest_ftloop.loop.loop import Loop

    file = loops.write(more=scored)
    Loop(read_loop_file(file), hook=lambda example, output: True).run()
    loops.commit()
    assert 0 == gate()[0]


def test_log_folder(loops: Loops, gate: Gate, tmp_path: Path) -> None:
    """--log DIR holds the log, of the commit where one is named."""
    for rate in (SAME, BETTER):
        loops.write(rate=rate)
        loops.train("--log", "kept")
        loops.commit()
    for arguments in (["HEAD~1"], ["HEAD~1.."], ["HEAD~1..HEAD"]):
        code, out, err = gate(*arguments, "--log", "kept")
        assert (0, "") == (code, err)
        assert "regression: improved against " in out
    code, out, _ = gate("HEAD~1..HEAD~1", "--log", str(loops.root / "kept"))
    assert 0 == code
    assert "x: iteration 001-" in out
    assert 3 == gate("HEAD~1..HEAD")[0]


def test_log_outside_the_repository(loops: Loops, gate: Gate, tmp_path: Path) -> None:
    """A log that was written elsewhere is compared with the committed one beside the loop."""
    loops.version()
    loops.write(rate=WORSE)
    loops.train("--log", str(tmp_path / "kept"))
    for arguments in ([], ["HEAD"]):
        code, out, _ = gate(*arguments, "--log", "../kept")
        assert 1 == code
        assert "regression: regressed against HEAD (" in out


def test_in_ci(loops: Loops, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that CI did not explore is up to date, in CI and elsewhere."""
    monkeypatch.setenv("CI", "true")
    loops.version(loop="{iterations: 3}")
    assert 1 == len(loops.trained())
    assert 0 == gate()[0]
    monkeypatch.delenv("CI")
    assert 0 == gate()[0]


def test_accepted_by_hand(loops: Loops, gate: Gate) -> None:
    """What was accepted by hand passes, against a commit before that too."""
    loops.version()
    loops.repo.tag("base")
    loops.version(WORSE)
    assert 1 == gate("base")[0]
    assert 0 == main(["accept", "last", "--baseline"])
    assert 0 == gate("base")[0]
    loops.commit()
    for arguments in ([], ["base"], ["base..HEAD"]):
        assert 0 == gate(*arguments)[0]


@pytest.mark.parametrize("command", ["gate", "diff"])
@pytest.mark.parametrize("arguments", ["", "HEAD~1..HEAD"])
def test_imports_nothing_heavy(
    history: Loops, tmp_path: Path, command: str, arguments: str
) -> None:
    """To judge needs no torch, and nothing that it brings."""
    code = f"""
import sys
from pytest_ftloop.cli import main
main([{command!r}, *{arguments.split()!r}])
heavy = {{"torch", "transformers", "datasets", "pandas", "numpy", "scipy", "trl", "peft"}}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=history.root,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert "HEAVY []" == done.stdout.splitlines()[-1], done.stderr
    assert "regress" in done.stdout


def test_bare_repository_and_no_git(
    loops: Loops, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Without the git program nothing is compared, and said why; a named commit is an error."""
    loops.version()
    monkeypatch.setenv("PATH", "")
    assert 0 == main(["gate"])
    assert "the git program can't be run" in " ".join(capsys.readouterr().out.split())
    assert 2 == main(["gate", "HEAD"])
    assert "Install git, or put it on PATH." in capsys.readouterr().err


def test_merge_commit(loops: Loops, gate: Gate) -> None:
    """Where two branches each had a version accepted, the better one is the standard."""
    loops.version()
    loops.repo.branch("feature")
    loops.version(BETTER)
    loops.repo.switch("main")
    loops.repo.commit({"other.txt": "work"})
    loops.repo.merge("feature")
    assert 0 == gate()[0]
    loops.write(rate=SAME)
    code, out, _ = gate()
    assert 1 == code
    assert "eval_loss 1.4400 -> 1.6800" in out
    assert isinstance(loops.repo, GitRepo)
