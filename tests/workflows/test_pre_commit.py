"""The pre-commit hook: its entry in a real git hook, and what `--staged` judges."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from pytest_ftloop.cli import main
from tests.loops import BETTER, SAME, WORSE

if TYPE_CHECKING:
    from tests.loops import Loops

    Capture = pytest.CaptureFixture[str]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hooked(loops: Loops) -> Loops:
    """A repository with a judged loop, and the hook."""
    loops.write(rate=SAME)
    loops.commit()
    loops.version()
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert ("python", False, True) == tuple(
        hook[key] for key in ("language", "pass_filenames", "always_run")
    )
    command, *arguments = shlex.split(hook["entry"])
    program = [str(Path(sys.executable).with_name(command)), *arguments]
    path = loops.root / ".git" / "hooks" / "pre-commit"
    path.write_text(f"#!/bin/sh\nexport PYTHONPATH={ROOT}\nexec {shlex.join(program)}\n")
    path.chmod(0o755)
    return loops


def refused(loops: Loops, *arguments: str) -> str:
    """What a commit that is refused says."""
    before = loops.repo.head
    with pytest.raises(AssertionError) as told:
        loops.repo.git("commit", "--quiet", "--message", "work", *arguments)
    assert before == loops.repo.head
    return str(told.value)


def test_stale_log_is_refused(hooked: Loops) -> None:
    """Settings without their log are refused with the cure; with it they are committed."""
    hooked.write(rate=BETTER)
    hooked.repo.git("add", "--all")
    assert "pytest --ftloop and commit improvement_log/" in refused(hooked)
    hooked.train()
    assert "out of date" in refused(hooked)  # it is there, but not part of the commit
    hooked.repo.git("add", "--all")
    hooked.repo.git("commit", "--quiet", "--message", "work")
    assert "" == hooked.repo.git("status", "--porcelain")
    assert 1 == len(hooked.repo.git("worktree", "list").splitlines())


def test_what_is_not_staged_is_not_judged(hooked: Loops) -> None:
    """Work in progress in the folder keeps no other commit from being made."""
    hooked.put("README.md", "words")
    hooked.repo.git("add", "README.md")
    hooked.write(rate=BETTER)
    hooked.repo.git("commit", "--quiet", "--message", "words")
    assert "M x.ftloop.yaml" in hooked.repo.git("status", "--porcelain")


def test_commit_of_all_and_of_one_file(hooked: Loops) -> None:
    """git commit -a and git commit FILE are judged by what they would commit."""
    hooked.write(rate=BETTER)
    assert "out of date" in refused(hooked, "--all")
    hooked.put("README.md", "words")
    hooked.repo.git("add", "README.md")
    assert "out of date" in refused(hooked, "x.ftloop.yaml")
    hooked.repo.git("commit", "--quiet", "--message", "words", "README.md")


def test_regression_is_not_refused(hooked: Loops) -> None:
    """A log that is up to date may be committed whatever it says: the merge is where it counts."""
    hooked.write(rate=WORSE)
    hooked.train()
    hooked.commit()
    assert 1 == main(["gate", "HEAD~1.."])


def test_interrupted_loop_is_not_refused(loops: Loops) -> None:
    """A loop that would go on here is up to date for a commit."""
    loops.version(loop="{iterations: 1}")
    loops.write(loop="{iterations: 3, patience: 9}")
    loops.repo.git("add", "--all")
    assert 0 == main(["gate"])
    assert 0 == main(["gate", "--staged"])


def test_first_commit(loops: Loops, capsys: Capture) -> None:
    """Where there is no commit yet there is nothing to compare with, and a stale log is told."""
    loops.write()
    loops.repo.git("add", "--all")
    assert 3 == main(["gate", "--staged"])
    assert "pytest --ftloop" in capsys.readouterr().err
    loops.train()
    loops.repo.git("add", "--all")
    assert 0 == main(["gate", "--staged", "--stale-only"])


def test_staged_and_a_range(hooked: Loops, capsys: Capture) -> None:
    """A base may be named too, another candidate may not; the folder stays as it is."""
    hooked.write(rate=WORSE)
    hooked.train()
    hooked.repo.git("add", "--all")
    state = hooked.state()
    assert 1 == main(["gate", "--staged", "HEAD.."])
    assert 0 == main(["gate", "--staged", "--stale-only"])
    assert 0 == main(["diff", "--staged"])
    assert state == hooked.state()
    assert 2 == main(["gate", "--staged", "HEAD~1..HEAD"])
    assert "the candidate is named twice: --staged and HEAD" in capsys.readouterr().err


def test_index_of_another_repository(
    hooked: Loops, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a hook of another repository its index is not taken for this one's."""
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other" / "index"))
    assert 0 == main(["gate", "--staged"])
