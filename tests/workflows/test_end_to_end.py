"""A repository with the quickstart, and what becomes of branches: from action to comment."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.cli.github import MARKER
from pytest_ftloop.core.metrics import format_figure
from pytest_ftloop.log import ImprovementLog
from tests.gitfakes import GitRepo, isolate
from tests.github_fakes import FakeGitHub, commands, serving
from tests.workflows.runner import PullRequest, checkout, propose, run_action

if TYPE_CHECKING:
    from tests.workflows.runner import Done, Job

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
LOG = "improvement_log/sentiment"
FIRST = "001-18da4217"
LABELS = {" negative": " positive", " positive": " negative"}


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitRepo:
    """A clone with the quickstart and its log on main, the working folder."""
    isolate(monkeypatch)
    made = GitRepo.init(tmp_path / "project")
    shutil.copytree(QUICKSTART, made.root, dirs_exist_ok=True)
    made.write({".gitignore": "ftloop-ci/\n__pycache__/\n"})
    made.commit()
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture
def remote(tmp_path: Path) -> GitRepo:
    return GitRepo.init(tmp_path / "remote.git", "--bare")


def judge(
    repo: GitRepo, remote: GitRepo, folder: Path, cache: Path | None = None, **stated: str
) -> tuple[Job, Done]:
    """Push main and the branch, and run the action on the pull request."""
    repo.git("push", "--quiet", str(remote.root), "main")
    propose(repo, remote, PullRequest())
    job = checkout(remote, folder / "job", PullRequest())
    return job, run_action(job, stated, cache=cache)


def comment(job: Job, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `ftloop comment` makes of the report, in a workflow_run; written twice, there once."""
    pulled = job.event["pull_request"]
    head = pulled["head"]
    owner, _, _ = head["repo"]["full_name"].partition("/")
    run = {
        "head_branch": head["ref"],
        "head_sha": head["sha"],
        "head_repository": {"owner": {"login": owner}},
    }
    event = job.temp / "workflow_run.json"
    event.write_text(json.dumps({"workflow_run": run}))
    with serving(FakeGitHub()) as github:
        github.pull(pulled["number"], f"{owner}:{head['ref']}", head["sha"])
        for name, value in {**github.env, "GITHUB_EVENT_PATH": str(event)}.items():
            monkeypatch.setenv(name, value)
        for _ in range(2):
            assert 0 == main(["comment", str(job.repo.root / "ftloop-ci" / "report.json")])
    (written,) = github.comments
    body: str = written["body"]
    return body


def test_a_branch_that_improves(
    repo: GitRepo, remote: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Main has the first iteration alone; a branch with the log of the whole loop passes."""
    later = {
        f"{LOG}/{path.name}": path.read_bytes()
        for path in (repo.root / LOG).iterdir()
        if path.is_file() and not path.name.startswith(FIRST)
    }
    repo.commit(dict.fromkeys(later))
    repo.branch("feature")
    repo.commit(later)
    job, done = judge(repo, remote, tmp_path)
    assert (0, "improved", "false", "0") == (
        done.code,
        *(done.outputs[name] for name in ("verdict", "stale", "exit-code")),
    )
    figures = json.loads(done.outputs["metrics"])["sentiment"]
    first, *_, best = ImprovementLog(repo.root / LOG).read()
    for name in ("eval_loss", "pass_rate"):
        assert best.metrics[name] == figures[name]
    assert [] == commands(done.printed)
    body = comment(job, monkeypatch)
    assert body.startswith(f"{MARKER}\n## \u2705 ftloop: improved")
    assert body.removeprefix(f"{MARKER}\n").splitlines()[0] == done.summary.splitlines()[0]
    shown = [
        format_figure(n, i.metrics[n]) for i in (first, best) for n in ("eval_loss", "pass_rate")
    ]
    for text in (*shown, "negation", "mermaid"):
        assert text in body
        assert text in done.summary


def test_a_branch_that_changes_nothing(
    repo: GitRepo, remote: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is judged without training, though training is allowed."""
    repo.branch("feature")
    repo.commit({"README.md": "Words."})
    job, done = judge(repo, remote, tmp_path, train="true")
    assert (0, "unchanged", "false") == (done.code, done.outputs["verdict"], done.outputs["stale"])
    assert not (job.repo.root / "ftloop-ci" / "junit.xml").exists()
    assert "" == job.repo.git("status", "--porcelain")
    assert [] == commands(done.printed)
    assert comment(job, monkeypatch).startswith(f"{MARKER}\n## \u2705 ftloop: unchanged")


def break_labels(repo: GitRepo) -> None:
    """A branch whose train labels are turned round, one in two."""
    repo.branch("feature")
    train = repo.root / "data" / "train.jsonl"
    rows = [json.loads(line) for line in train.read_text(encoding="utf-8").splitlines()]
    for row in rows[::2]:
        row["completion"] = LABELS[row["completion"]]
    repo.commit({"data/train.jsonl": "".join(f"{json.dumps(row)}\n" for row in rows)})


def test_broken_labels_without_training(
    repo: GitRepo, remote: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch that breaks labels and leaves the log as it was is out of date, and fails."""
    break_labels(repo)
    job, done = judge(repo, remote, tmp_path)
    assert (3, "stale", "true", "3", "{}") == (
        done.code,
        *(done.outputs[name] for name in ("verdict", "stale", "exit-code", "metrics")),
    )
    (told,) = commands(done.printed)
    assert ("error", "sentiment.ftloop.yaml") == (told.name, told.properties["file"])
    assert "pytest --ftloop" in told.message
    body = comment(job, monkeypatch)
    assert body.startswith(f"{MARKER}\n## \u274c ftloop: log out of date")
    assert body.removeprefix(f"{MARKER}\n").splitlines()[0] == done.summary.splitlines()[0]


@pytest.mark.slow
def test_broken_labels_trained(
    repo: GitRepo, remote: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained by the action with the settings of main, it regresses: each failed gate is told.

    At the next push, which changes nothing that is trained on, that is restored.
    """
    assert 0 == main(["accept"])
    repo.commit()
    break_labels(repo)
    cache = tmp_path / "cache"
    cache.mkdir()
    job, done = judge(repo, remote, tmp_path, cache, train="true")
    assert (1, "regressed", "false", "1") == (
        done.code,
        *(done.outputs[name] for name in ("verdict", "stale", "exit-code")),
    ), done.printed
    assert (job.repo.root / "ftloop-ci" / "junit.xml").is_file()
    told = [one for one in commands(done.printed) if one.name == "error"]
    assert "sentiment: regressed" in [one.properties["title"] for one in told]
    assert "sentiment: threshold failed" in [one.properties["title"] for one in told]
    lines = (job.repo.root / "sentiment.ftloop.yaml").read_text(encoding="utf-8").splitlines()
    # The regression gate is not in this loop's file, so it has no line.
    for one in [one for one in told if one.properties["title"] != "sentiment: regressed"]:
        assert re.search("eval_loss|pass_rate|overfit_gap", lines[_line(one) - 1])
    body = comment(job, monkeypatch)
    assert body.startswith(f"{MARKER}\n## \u274c ftloop: regressed")
    assert "<summary>" in body
    run_again = run_action(job, {"train": "true"})
    assert (1, "regressed") == (run_again.code, run_again.outputs["verdict"])
    repo.commit({"README.md": "Words, which train nothing."})
    next_job, next_push = judge(repo, remote, tmp_path / "next", cache, train="true")
    assert (1, "regressed") == (next_push.code, next_push.outputs["verdict"])
    assert re.search(r"sentiment: \d iterations? \(1 restored\)", next_push.printed)
    assert log_of(job) == log_of(next_job)


def log_of(job: Job) -> dict[str, bytes]:
    """Every file of the log in a checkout."""
    log = job.repo.root / LOG
    return {str(p.relative_to(log)): p.read_bytes() for p in log.rglob("*") if p.is_file()}


def _line(command: object) -> int:
    properties: dict[str, str] = command.properties  # type: ignore[attr-defined]
    return int(properties["line"])
