"""The log as the last committed version has it, in real repositories."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.git import GitError
from pytest_ftloop.gate.baseline import Baseline, Sought
from pytest_ftloop.gate.search import find_baseline
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.mended import MendedView
from tests.fakes import fake_iteration, fake_judgement, fake_metrics, fake_seed_run, fake_table
from tests.gate.committed_logs import LOG, log_in
from tests.gitfakes import GitRepo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_ftloop.core.records import Iteration

pytestmark = pytest.mark.usefixtures("isolated")

PULL = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_BASE_REF": "main"}


def it(number: int, loss: float = 1.0) -> Iteration:
    return fake_iteration(
        number, loop="s", metrics=fake_metrics(loss), examples=fake_table([1.0, 1.0])
    )


GOOD, BETTER = it(1), it(2, 0.9)


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    """One commit without a log."""
    repo = GitRepo.init(tmp_path / "project")
    repo.commit({"a.txt": "one"})
    return repo


def find(
    log: ImprovementLog,
    loop_folder: Path,
    stated: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Baseline:
    sought = Sought(log.folder, loop_folder, log.read(), "eval_loss")
    return find_baseline(sought, stated, env or {})


def found(baseline: Baseline) -> tuple[str | None, str, str]:
    iteration = baseline.iteration
    return (iteration.id if iteration else None, str(baseline.folder), baseline.why_none)


def stands(baseline: Baseline) -> tuple[str | None, ...]:
    return tuple(it and it.id for it in (baseline.iteration, baseline.anchor))


def loop_file(name: str = "s") -> dict[str, str]:
    return {f"{name}.ftloop.yaml": "data: {train: t.jsonl, eval: e.jsonl}\n"}


def test_last_commit(repo: GitRepo) -> None:
    """What HEAD has is the standard, not what lies in the folder since."""
    log = log_in(repo.root, GOOD)
    commit = repo.commit()
    log.append(BETTER)
    baseline = find(log, repo.root)
    assert (GOOD.id, LOG, "") == found(baseline)
    assert (f"HEAD ({commit[:7]})", commit) == (baseline.shown, baseline.commit)
    assert not baseline.is_first
    assert baseline.view is not None
    assert [GOOD.id] == [iteration.id for iteration in baseline.view.iterations()]


def test_stated_commit(repo: GitRepo) -> None:
    """A branch, a tag or a commit before the last."""
    log = log_in(repo.root, GOOD)
    first = repo.commit()
    log.append(BETTER)
    repo.commit()
    assert BETTER.id == found(find(log, repo.root))[0]
    for stated in (first, first[:10], "HEAD~1"):
        baseline = find(log, repo.root, stated)
        assert (GOOD.id, first) == (found(baseline)[0], baseline.commit)


def test_unknown_commit(repo: GitRepo) -> None:
    """A ref that was named and is not there is an error, and so it is without a repository."""
    log = log_in(repo.root, GOOD)
    with pytest.raises(GitError, match="no commit 'v9'"):
        find(log, repo.root, "v9")


def test_head_and_anchor(repo: GitRepo) -> None:
    """What was judged in the commit says which iteration stands, and which is the best ever."""
    log = log_in(repo.root, GOOD, BETTER)
    first = log.append_judgement(fake_judgement(BETTER, kind="first"))
    log.append_judgement(fake_judgement(GOOD, first, kind="unchanged"))
    repo.commit()
    assert (GOOD.id, BETTER.id) == stands(find(log, repo.root))
    log.append_judgement(fake_judgement(BETTER, *log.view.judgements(), kind="improved"))
    assert (GOOD.id, BETTER.id) == stands(find(log, repo.root))
    repo.commit()
    assert (BETTER.id, None) == stands(find(log, repo.root))


def test_tables_and_seed_runs_are_read_from_the_commit(repo: GitRepo) -> None:
    """Examples and other seeds come from git's objects, whatever the folder holds now."""
    log = log_in(repo.root, GOOD)
    log.append_seed_run(fake_seed_run(GOOD, 43))
    repo.commit()
    shutil.rmtree(log.folder)
    baseline = find(ImprovementLog(log.folder), repo.root)
    assert baseline.iteration is not None
    assert baseline.view is not None
    assert list(GOOD.examples) == list(baseline.iteration.examples)
    assert [43] == [run.seed for run in baseline.view.seed_runs()]


def test_symlink_in_place_of_the_log(repo: GitRepo) -> None:
    """A log that was moved away with a symlink left in its place is compared all the same."""
    log = log_in(repo.root, GOOD)
    repo.commit(loop_file())
    (repo.root / "improvement_log").rename(repo.root / "moved")
    (repo.root / "improvement_log").symlink_to("moved")
    assert (GOOD.id, LOG, "") == found(find(log, repo.root))


# none


def test_no_repository(tmp_path: Path) -> None:
    """Nothing to compare with, and said so; where a ref was stated that is an error."""
    log = log_in(tmp_path, GOOD)
    baseline = find(log, tmp_path)
    assert (None, f"{tmp_path} is not in a git repository") == (
        baseline.iteration,
        baseline.why_none,
    )
    assert not baseline.is_first
    with pytest.raises(GitError, match="is not in a git repository"):
        find(log, tmp_path, "HEAD")


def test_no_git(tmp_path: Path, repo: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the git program there is no committed version."""
    log = log_in(repo.root, GOOD)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    baseline = find(log, repo.root)
    assert "the git program can't be run" in baseline.why_none
    assert not baseline.is_first


@pytest.mark.parametrize(
    "env", [{"GITHUB_BASE_REF": "main"}, {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}]
)
def test_request_without_git(
    tmp_path: Path, repo: GitRepo, monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> None:
    """What is to be merged is not let through for want of git, as in a bare container image."""
    with pytest.raises(GitError, match="is not in a git repository"):
        find(log_in(tmp_path, GOOD), tmp_path, env=env)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(GitError, match="the git program can't be run"):
        find(log_in(repo.root, GOOD), repo.root, env=env)


def test_no_commit(tmp_path: Path) -> None:
    """Before the first commit everything is a first version."""
    repo = GitRepo.init(tmp_path / "empty")
    baseline = find(log_in(repo.root, GOOD), repo.root)
    assert (None, "the git repository has no commit yet") == (
        baseline.iteration,
        baseline.why_none,
    )
    assert baseline.is_first


def test_log_not_committed(repo: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit has no log, and the one in the folder is not committed: both are said."""
    monkeypatch.chdir(repo.root)
    baseline = find(log_in(repo.root, GOOD), repo.root)
    shown = f"HEAD ({repo.head[:7]})"
    assert f"no log of s at {shown}; {LOG} is not committed" == baseline.why_none
    assert baseline.is_first


def test_log_that_is_gone(repo: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that begins anew under another name passes, and the log that it left is named."""
    monkeypatch.chdir(repo.root)
    log = log_in(repo.root, GOOD)
    repo.commit(loop_file())
    shutil.rmtree(log.folder)
    anew = ImprovementLog(log.folder.with_name("anew"))
    anew.append(BETTER)
    baseline = find(anew, repo.root)
    assert baseline.is_first
    assert baseline.why_none.endswith(f"; deleted since then: {LOG}")


def test_ignored_log(repo: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that git ignores is not committed either."""
    monkeypatch.chdir(repo.root)
    repo.commit({".gitignore": "improvement_log/\n"})
    assert find(log_in(repo.root, GOOD), repo.root).why_none.endswith(f"{LOG} is not committed")


def test_no_log_at_that_commit(repo: GitRepo) -> None:
    """A commit before the log was: only that is said, for the log is committed since."""
    before = repo.head
    log = log_in(repo.root, GOOD)
    repo.commit()
    baseline = find(log, repo.root, before)
    assert (None, f"no log of s at {before[:7]}") == (baseline.iteration, baseline.why_none)


# where it is


def test_subfolder(repo: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop below the root, from whatever working folder; its neighbours' logs are not read."""
    folder = repo.root / "deep" / "er"
    log = log_in(folder, GOOD)
    log_in(repo.root, BETTER)
    repo.commit()
    for working in (repo.root, folder, repo.root.parent):
        monkeypatch.chdir(working)
        assert (GOOD.id, f"deep/er/{LOG}", "") == found(find(log, folder))


def test_linked_worktree(repo: GitRepo, tmp_path: Path) -> None:
    """A linked worktree has its own HEAD."""
    log_in(repo.root, GOOD)
    first = repo.commit()
    log_in(repo.root, BETTER)
    repo.commit()
    linked = repo.worktree(tmp_path / "linked", first)
    assert (GOOD.id, LOG, "") == found(find(log_in(linked.root), linked.root))


def test_renamed_loop(repo: GitRepo) -> None:
    """Its log moved along: the committed one is known by the iterations it shares."""
    log_in(repo.root, GOOD)
    repo.commit(loop_file())
    (repo.root / LOG).rename(repo.root / "improvement_log/topic")
    repo.write({"s.ftloop.yaml": None, **loop_file("topic")})
    moved = ImprovementLog(repo.root / "improvement_log/topic")
    moved.append(BETTER)
    assert (GOOD.id, LOG, "") == found(find(moved, repo.root))


def test_renamed_loop_trained_again(repo: GitRepo) -> None:
    """Its log stayed behind, and nobody's it is: the same iteration trained again finds it."""
    log_in(repo.root, GOOD, BETTER)
    repo.commit(loop_file())
    repo.write({"s.ftloop.yaml": None, **loop_file("topic")})
    again = ImprovementLog(repo.root / "improvement_log/topic")
    again.append(GOOD)
    assert (BETTER.id, LOG, "") == found(find(again, repo.root))


def test_copied_loop(repo: GitRepo) -> None:
    """Another loop that started from the same settings is not the one before it."""
    log_in(repo.root, GOOD, BETTER)
    repo.commit(loop_file())
    repo.write(loop_file("copy"))
    copy = ImprovementLog(repo.root / "improvement_log/copy")
    copy.append(GOOD)
    baseline = find(copy, repo.root)
    assert (None, True) == (baseline.iteration, baseline.is_first)
    assert baseline.why_none.startswith("no log of copy at HEAD")


def test_moved_loop_folder(repo: GitRepo) -> None:
    """The whole folder moved in the tree."""
    log_in(repo.root / "old", GOOD)
    repo.commit({"old/s.ftloop.yaml": loop_file()["s.ftloop.yaml"]})
    (repo.root / "old").rename(repo.root / "new")
    log = ImprovementLog(repo.root / "new" / LOG)
    assert (GOOD.id, f"old/{LOG}", "") == found(find(log, repo.root / "new"))


def test_most_shared_iterations(repo: GitRepo) -> None:
    """Of several logs that could have been moved, the one with the most in common."""
    log_in(repo.root / "a", GOOD)
    log_in(repo.root / "b", GOOD, BETTER)
    log_in(repo.root / "c", it(7))
    repo.commit()
    for name in "abc":
        shutil.rmtree(repo.root / name)
    log = log_in(repo.root / "new", GOOD, BETTER, it(3))
    assert f"b/{LOG}" == found(find(log, repo.root / "new"))[1]


def test_log_written_elsewhere(repo: GitRepo, tmp_path: Path) -> None:
    """With --ftloop-log, in the repository or out of it: compared with the one beside the loop."""
    log_in(repo.root, GOOD)
    repo.commit()
    for place in (tmp_path / "out", repo.root / "out"):
        log = ImprovementLog(place / "s")
        log.append(BETTER)
        assert (GOOD.id, LOG, "") == found(find(log, repo.root))


def test_log_committed_elsewhere(repo: GitRepo) -> None:
    """Where --ftloop-log's folder is committed itself, that is the log."""
    log_in(repo.root, GOOD)
    log = ImprovementLog(repo.root / "logs" / "s")
    log.append(BETTER)
    repo.commit()
    assert (BETTER.id, "logs/s", "") == found(find(log, repo.root))


# CI


def test_pull_request(repo: GitRepo) -> None:
    """Compared with where the branch starts, not with its own commits."""
    log = log_in(repo.root, GOOD)
    start = repo.commit()
    repo.branch("feature")
    log.append(BETTER)
    repo.commit()
    baseline = find(log, repo.root, env=PULL)
    assert (GOOD.id, f"main ({start[:7]}, merge base)") == (found(baseline)[0], baseline.shown)


def test_shallow_clone_in_a_pull_request(repo: GitRepo, tmp_path: Path) -> None:
    """History that is cut off is an error with the cure, never a first version."""
    log_in(repo.root, GOOD)
    repo.commit()
    repo.branch("feature")
    log_in(repo.root, BETTER)
    repo.commit()
    clone = repo.clone(tmp_path / "ci", "--branch=feature", depth=1)
    with pytest.raises(GitError, match="found a shallow clone") as caught:
        find(ImprovementLog(clone.root / LOG), clone.root, env=PULL)
    assert "shallow" == caught.value.kind
    assert "fetch-depth: 0" in caught.value.cure


# damage


def test_record_of_a_newer_version(repo: GitRepo) -> None:
    """It names the commit and the file: nothing is damaged, nothing is to be restored."""
    log = log_in(repo.root, GOOD)
    record, _ = log.files(log.read()[0])
    whole = record.read_bytes()
    record.write_text("schema: 9\n")
    commit = repo.commit()
    record.write_bytes(whole)
    with pytest.raises(LogError, match="newer pytest-ftloop") as caught:
        find(log, repo.root)
    assert f"{commit[:7]}:{LOG}/{record.name}" in str(caught.value)
    assert "git checkout" not in str(caught.value)


def damages(baseline: Baseline) -> tuple[str, ...]:
    assert isinstance(baseline.view, MendedView)
    return baseline.view.notes("main")


@pytest.mark.parametrize("text", ["no: [yaml", "", "schema: 3\n"])
def test_damaged_record(repo: GitRepo, text: str) -> None:
    """The sound file that is there now takes its place; without one the record is absent."""
    log = log_in(repo.root, GOOD, BETTER)
    record, table = log.files(log.read()[1])
    whole = record.read_bytes()
    record.write_text(text)
    repo.commit()
    record.write_bytes(whole)
    baseline = find(log, repo.root)
    assert BETTER.id == found(baseline)[0]
    (note,) = damages(baseline)
    assert note.startswith(f"the log at main is damaged: {LOG}/{record.name}: ")
    assert note.endswith("; judged with the repaired files of this change")
    for path in (record, table):
        path.unlink()
    baseline = find(log, repo.root)
    assert GOOD.id == found(baseline)[0]
    assert damages(baseline)[0].endswith("; judged without it")


def test_all_records_damaged(repo: GitRepo) -> None:
    """Nothing can be read, and nothing takes its place."""
    log = log_in(repo.root, GOOD)
    for path in log.files(log.read()[0]):
        path.write_text("x")
    repo.commit()
    shutil.rmtree(log.folder)
    baseline = find(log_in(repo.root, BETTER), repo.root)
    assert found(baseline)[0] is None
    assert not baseline.is_first
    assert damages(baseline)[0].endswith("; nothing of it can be read")


def test_still_damaged(repo: GitRepo) -> None:
    """What is damaged in both is an error at the file that is there now."""
    log = log_in(repo.root, GOOD)
    iterations = log.read()
    record, _ = log.files(iterations[0])
    record.write_text("x")
    repo.commit()
    with pytest.raises(LogError, match=f"{LOG}/{record.name}: damaged") as caught:
        find_baseline(Sought(log.folder, repo.root, iterations, "eval_loss"), None, {})
    assert "git checkout -- " in caught.value.cure


@pytest.mark.parametrize("damage", ["edited", "missing"])
def test_damaged_table(repo: GitRepo, damage: str) -> None:
    """A table gives way like a record, at the latest when it is looked at."""
    log = log_in(repo.root, GOOD, BETTER)
    record, table = log.files(log.read()[1])
    whole = table.read_bytes()
    table.write_bytes(whole.replace(b"yes", b"no"))
    if damage == "missing":
        table.unlink()
    repo.commit()
    table.write_bytes(whole)
    baseline = find(log, repo.root)
    assert baseline.iteration is not None
    assert list(BETTER.examples) == list(baseline.iteration.examples)
    assert damages(baseline)[0].endswith("; judged with the repaired files of this change")
    for path in (record, table):
        path.unlink()
    assert GOOD.id == found(find(log, repo.root))[0]


def test_line_ends_of_a_checkout(repo: GitRepo) -> None:
    """A commit made on Windows, with CRLF in its blobs, reads the same."""
    log = log_in(repo.root, GOOD)
    for path in log.files(log.read()[0]):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    repo.commit()
    baseline = find(log, repo.root)
    assert baseline.iteration is not None
    assert PurePosixPath(LOG) == baseline.folder
    assert list(GOOD.examples) == list(baseline.iteration.examples)
