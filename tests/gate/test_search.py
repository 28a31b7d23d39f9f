"""Where nothing states the base, the baseline is never the candidate itself."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.git import GitError
from pytest_ftloop.gate.baseline import Baseline, Sought
from pytest_ftloop.gate.search import find_baseline
from pytest_ftloop.log import ImprovementLog
from tests.fakes import fake_iteration, fake_judgement, fake_metrics, fake_seed_run, fake_table
from tests.gate.committed_logs import LOG, log_in
from tests.gitfakes import GitRepo

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_ftloop.core.records import Iteration

pytestmark = pytest.mark.usefixtures("isolated")

CI = {"CI": "true"}


def it(number: int, loss: float) -> Iteration:
    return fake_iteration(
        number, loop="s", metrics=fake_metrics(loss), examples=fake_table([loss, loss])
    )


GOOD, WORSE, WORST = it(1, 1.0), it(2, 2.0), it(3, 3.0)


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    """Main has GOOD."""
    repo = GitRepo.init(tmp_path / "project")
    repo.commit({"a.txt": "one"})
    log_in(repo.root, GOOD)
    repo.commit()
    return repo


def anew(repo: GitRepo, *iterations: Iteration) -> str:
    """Commit another log in the place of the one there is, as if it had been tidied away."""
    shutil.rmtree(repo.root / LOG)
    log_in(repo.root, *iterations)
    return repo.commit()


def find(
    repo: GitRepo,
    candidate: Iteration,
    env: Mapping[str, str] | None = None,
    log: ImprovementLog | None = None,
    stated: str | None = None,
) -> Baseline:
    log = log or ImprovementLog(repo.root / LOG)
    logged = next((i for i in log.read() if i.id == candidate.id), candidate)
    seeds = log.view.seed_runs()
    sought = Sought(log.folder, repo.root, log.read(), "eval_loss", logged, seeds)
    return find_baseline(sought, stated, env or {})


def found(baseline: Baseline) -> tuple[str | None, str]:
    return baseline.iteration and baseline.iteration.id, baseline.commit


@pytest.mark.parametrize("env", [{}, CI])
def test_log_tidied_and_trained_worse_on_main(repo: GitRepo, env: dict[str, str]) -> None:
    """HEAD's log knows the candidate alone; the commit before it knows what it is worse than."""
    good = repo.head
    anew(repo, WORSE)
    baseline = find(repo, WORSE, env)
    assert (GOOD.id, good) == found(baseline)
    assert baseline.is_review
    assert f"HEAD^ ({good[:7]})" == baseline.shown
    (note,) = baseline.context
    assert note.startswith("nothing states where this change starts")
    assert baseline.shown in note


def test_worse_and_docs_pushed_together(repo: GitRepo) -> None:
    """The last commit that had another version, however many others follow it."""
    good = repo.head
    anew(repo, WORSE)
    log = ImprovementLog(repo.root / LOG)
    for number in range(3):
        repo.commit({"docs.md": str(number)})
    log.append_seed_run(fake_seed_run(WORSE, 43))  # a change of the log, but no other version
    repo.commit()
    repo.commit({"docs.md": "last"})
    baseline = find(repo, WORSE)
    assert (GOOD.id, good) == found(baseline)
    assert good[:7] == baseline.shown


def test_log_deleted_in_a_commit_of_its_own(repo: GitRepo) -> None:
    """The last version that there was, also if the log was away for a while."""
    good = repo.head
    repo.git("rm", "--quiet", "-r", LOG)
    repo.commit()
    repo.commit({"docs.md": "1"})
    log_in(repo.root, WORSE)
    repo.commit()
    assert (GOOD.id, good) == found(find(repo, WORSE))


def test_log_at_head_with_another_version(repo: GitRepo) -> None:
    """HEAD itself, where its log stands for another version: a rejected one was committed."""
    log = ImprovementLog(repo.root / LOG)
    first = log.append_judgement(fake_judgement(GOOD, kind="first"))
    log.append(WORSE)
    log.append_judgement(fake_judgement(WORSE, first, kind="regressed", passed=False))
    head = repo.commit()
    baseline = find(repo, WORSE)
    assert (GOOD.id, head, False) == (*found(baseline), baseline.is_review)


def test_revert_to_an_older_version(repo: GitRepo) -> None:
    """The candidate has been in the log for long, but is not what the log stands for."""
    log = ImprovementLog(repo.root / LOG)
    first = log.append_judgement(fake_judgement(WORST, kind="first"))
    log.append(WORST)
    log.append_judgement(fake_judgement(GOOD, first, kind="improved"))
    head = repo.commit()
    assert (GOOD.id, head) == found(find(repo, WORST))


@pytest.mark.parametrize("env", [{}, CI])
def test_branch(repo: GitRepo, env: dict[str, str]) -> None:
    """A branch is compared with where it starts, through all its own commits."""
    good = repo.head
    repo.branch("feature")
    anew(repo, WORSE)
    anew(repo, WORST)
    baseline = find(repo, WORST, env)
    assert (GOOD.id, good) == found(baseline)
    assert f"main ({good[:7]}, merge base)" == baseline.shown


def test_candidate_that_is_not_committed(repo: GitRepo) -> None:
    """The local workflow: compared with the last commit, on a branch too."""
    repo.branch("feature")
    log_in(repo.root, WORSE)
    head = repo.commit()
    log = log_in(repo.root, WORST)
    log.append_judgement(fake_judgement(WORSE, kind="first"))
    baseline = find(repo, WORST)
    assert (GOOD.id, head) == found(baseline)  # the best, since nothing was judged there
    assert (True, False, ()) == (baseline.is_working, baseline.is_review, baseline.context)


def test_trained_in_a_ci_job(repo: GitRepo) -> None:
    """A job that trains what the log lacks judges it against the branch's start, and logs it."""
    good = repo.head
    repo.branch("feature")
    anew(repo, WORSE)
    log_in(repo.root, WORST)
    baseline = find(repo, WORST, CI)
    assert (GOOD.id, good, False) == (*found(baseline), baseline.is_review)


@pytest.mark.parametrize("env", [{}, CI])
def test_only_version(repo: GitRepo, env: dict[str, str]) -> None:
    """A log that held no other version is unchanged, and that it is the only one is said."""
    repo.commit({"docs.md": "1"})
    baseline = find(repo, GOOD, env)
    assert GOOD.id == found(baseline)[0]
    assert baseline.is_review
    assert "the log has held no other version" in baseline.context[0]


def test_shallow_clone(repo: GitRepo, tmp_path: Path) -> None:
    """Without the history an error in CI, with the cure; elsewhere it is said."""
    anew(repo, WORSE)
    clone = repo.clone(tmp_path / "ci", depth=1)
    with pytest.raises(GitError, match="shallow clone") as caught:
        find(clone, WORSE, CI)
    assert "fetch-depth: 0" in caught.value.cure
    baseline = find(clone, WORSE)
    assert None is baseline.iteration
    assert "shallow clone" in baseline.why_none
    assert not baseline.is_first


def test_damaged_log_in_the_history(repo: GitRepo) -> None:
    """An old log that can't be read is passed over, not an error for ever."""
    good = repo.head
    record = next((repo.root / LOG).glob("*.yaml"))
    record.write_text("no: [yaml")
    repo.commit()
    anew(repo, WORSE)
    assert (GOOD.id, good) == found(find(repo, WORSE))


def test_range_of_log_in_a_submodule(repo: GitRepo, tmp_path: Path) -> None:
    """A log in a submodule is judged by the commit that the base names, or by its own history."""
    good = repo.head
    anew(repo, WORSE)
    around = GitRepo.init(tmp_path / "around")
    around.commit({"s.ftloop.yaml": "data: {train: t.jsonl, eval: e.jsonl}\n"})
    around.git("submodule", "--quiet", "add", repo.root.as_uri(), "logs")
    inner = GitRepo(around.root / "logs")
    inner.switch(good)
    around.commit()
    around.branch("feature")
    inner.switch("origin/main")
    around.commit()
    log = ImprovementLog(inner.root / LOG)
    for stated, env in (("main", {}), (None, {"GITHUB_BASE_REF": "main"}), (None, {}), (None, CI)):
        baseline = find(around, WORSE, env, log, stated)
        assert (GOOD.id, good) == found(baseline), (stated, env)


def test_log_outside_every_repository(repo: GitRepo, tmp_path: Path) -> None:
    """What such a log accepted before the candidate is the baseline."""
    repo.git("rm", "--quiet", "-r", LOG)
    repo.commit()
    log = ImprovementLog(tmp_path / "out" / "s")
    log.append(WORST)
    log.append(GOOD)
    first = log.append_judgement(fake_judgement(WORST, kind="first"))
    second = log.append_judgement(fake_judgement(GOOD, first, kind="improved"))
    assert GOOD.id == found(find(repo, WORSE, log=log))[0]
    log.append(WORSE)
    log.append_judgement(fake_judgement(WORSE, second, kind="unchanged"))
    baseline = find(repo, WORSE, log=log)
    assert (GOOD.id, "") == found(baseline)
    assert "is in no repository" in baseline.context[0]


@pytest.mark.parametrize("env", [{}, CI])
def test_stated_commit_that_is_the_candidate_itself(repo: GitRepo, env: dict[str, str]) -> None:
    """Whoever names HEAD compares nothing once the candidate is committed, and is told."""
    anew(repo, WORSE)
    baseline = find(repo, WORSE, env, stated="HEAD")
    note = f"HEAD ({repo.head[:7]}) is the commit under test itself, so this compares nothing"
    assert (note,) == baseline.context
    repo.commit({"docs.md": "later"})
    assert not find(repo, WORSE, env, stated="HEAD^").context
