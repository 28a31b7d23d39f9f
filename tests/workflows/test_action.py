"""The action: its `run` steps are run by bash in checkouts such as GitHub's jobs have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.gitfakes import GitRepo
from tests.github_fakes import commands
from tests.loops import BETTER, SAME, WORSE, Loops
from tests.workflows.runner import ACTION, ROOT, PullRequest, checkout, propose, run_action

CONFTEST = 'pytest_plugins = ["tests.plugin.fake_runner"]\n'
HOSTILE = (
    '"; touch pwned; "',
    "'; touch pwned; '",
    "$(touch pwned)",
    "`touch pwned`",
    "x\ntouch pwned\n",
    "&& touch pwned #",
    "${{ github.token }}; touch pwned",
)


@pytest.fixture
def remote(loops: Loops, tmp_path: Path) -> GitRepo:
    """A bare repository: main has a loop with its log, and a commit after it."""
    loops.write(rate=SAME)
    loops.put("conftest.py", CONFTEST)
    loops.put(".gitignore", "__pycache__/\nftloop-ci/\n")
    loops.commit()
    loops.train()
    loops.commit()
    bare = GitRepo.init(tmp_path / "remote.git", "--bare")
    loops.repo.git("push", "--quiet", str(bare.root), "main")
    return bare


def feature(loops: Loops, rate: str, *, train: bool = True) -> None:
    """A branch with another learning rate, with its log or without."""
    loops.repo.branch("feature")
    loops.write(rate=rate)
    if train:
        loops.train()
    loops.commit()
    loops.trained_file.unlink(missing_ok=True)


def test_push(remote: GitRepo, tmp_path: Path) -> None:
    """After a push to main its log is judged; the report and the outputs are there."""
    job = checkout(remote, tmp_path / "job")
    done = run_action(job)
    assert (0, "unchanged", "false", "0", "ftloop-ci") == (
        done.code,
        *(done.outputs[name] for name in ("verdict", "stale", "exit-code", "report")),
    )
    assert {"x"} == set(json.loads(done.outputs["metrics"]))
    assert done.summary.startswith("## ")
    assert {"report.json", "summary.md"} <= {
        p.name for p in (job.repo.root / "ftloop-ci").iterdir()
    }
    assert [
        ("actions/setup-python", {"python-version": "3.12"}),
        (
            "actions/upload-artifact",
            {
                "name": "ftloop",
                "path": "ftloop-ci",
                "if-no-files-found": "ignore",
                "overwrite": "True",
            },
        ),
    ] == done.used


@pytest.mark.parametrize(
    ("rate", "code", "verdict"), [(BETTER, 0, "improved"), (WORSE, 1, "regressed")]
)
def test_pull_request(
    loops: Loops, remote: GitRepo, tmp_path: Path, rate: str, code: int, verdict: str
) -> None:
    """A pull request is judged against where it starts, though main went on meanwhile."""
    feature(loops, rate)
    loops.repo.switch("main")
    loops.put("README.md", "more")
    loops.commit()
    loops.repo.git("push", "--quiet", str(remote.root), "main")
    propose(loops.repo, remote, PullRequest())
    done = run_action(checkout(remote, tmp_path / "job", PullRequest()))
    assert (code, verdict) == (done.code, done.outputs["verdict"])
    told = [(one.name, one.properties["file"]) for one in commands(done.printed)]
    assert ([("error", "x.ftloop.yaml")] if code else []) == told
    assert ["actions/setup-python", "actions/upload-artifact"] == [name for name, _ in done.used]


def test_fork_without_the_base(loops: Loops, remote: GitRepo, tmp_path: Path) -> None:
    """Where no branch was fetched, the base commit that the event names is judged against."""
    feature(loops, WORSE)
    propose(loops.repo, remote, PullRequest(fork=True))
    job = checkout(remote, tmp_path / "job", PullRequest(fork=True), branches=False)
    assert "refs/remotes/pull/1/merge" == job.repo.git("for-each-ref", "--format=%(refname)")
    done = run_action(job)
    assert (1, "regressed") == (done.code, done.outputs["verdict"])


@pytest.mark.parametrize("fork", [False, True])
def test_shallow_clone(loops: Loops, remote: GitRepo, tmp_path: Path, fork: bool) -> None:
    """With the last commit alone there is nothing to compare with: an error with its cure."""
    feature(loops, BETTER)
    propose(loops.repo, remote, PullRequest(fork=fork))
    done = run_action(checkout(remote, tmp_path / "job", PullRequest(fork=fork), depth=1))
    assert (2, "error", "2") == (done.code, done.outputs["verdict"], done.outputs["exit-code"])
    assert "fetch-depth: 0" in done.printed
    assert "actions/upload-artifact" in [name for name, _ in done.used]


def test_two_commits_are_enough(loops: Loops, remote: GitRepo, tmp_path: Path) -> None:
    """A checkout of the merge commit and its parents is compared with the base."""
    feature(loops, BETTER)
    propose(loops.repo, remote, PullRequest())
    done = run_action(checkout(remote, tmp_path / "job", PullRequest(), depth=2))
    assert (0, "improved") == (done.code, done.outputs["verdict"])


def test_stale(loops: Loops, remote: GitRepo, tmp_path: Path) -> None:
    """A log that is out of date fails, or does not where a later job trains; nothing is trained."""
    feature(loops, BETTER, train=False)
    propose(loops.repo, remote, PullRequest())
    for stated, code in (({}, 3), ({"stale-ok": "true"}, 0)):
        done = run_action(checkout(remote, tmp_path / f"job{code}", PullRequest()), stated)
        assert (code, "stale", "true", str(code)) == (
            done.code,
            *(done.outputs[name] for name in ("verdict", "stale", "exit-code")),
        )
    assert [] == loops.trained()


def test_train(loops: Loops, remote: GitRepo, tmp_path: Path) -> None:
    """What is out of date is trained and judged; caches and log go where they are kept."""
    feature(loops, BETTER, train=False)
    propose(loops.repo, remote, PullRequest())
    job = checkout(remote, tmp_path / "job", PullRequest())
    job.env["FAKE_TRAINED"] = str(loops.trained_file)
    done = run_action(job, {"train": "true", "out": "deep/out put", "artifact": "mine"})
    assert (0, "improved", "false") == (done.code, done.outputs["verdict"], done.outputs["stale"])
    assert f"x {float(BETTER):g}" in loops.trained()[0]
    assert (job.repo.root / "deep/out put/junit.xml").is_file()
    assert [
        ("actions/setup-python", None),
        ("actions/cache", None),
        ("actions/cache/restore", None),
        ("actions/cache/save", None),
        ("actions/upload-artifact", "mine"),
        ("actions/upload-artifact", "mine-log"),
    ] == [(name, used.get("name")) for name, used in done.used]


@pytest.mark.parametrize(
    ("rate", "code", "seeds"),
    [(BETTER, 0, []), pytest.param(WORSE, 1, ["43", "44"], marks=pytest.mark.slow)],
)
def test_trained_once(
    loops: Loops, remote: GitRepo, tmp_path: Path, rate: str, code: int, seeds: list[str]
) -> None:
    """A push that changes no input of the training is judged by what was trained before it.

    Also where that failed the gate, which is when the next push comes; with the same seeds.
    """
    feature(loops, rate, train=False)
    cache = tmp_path / "cache"
    cache.mkdir()
    logs = {}
    for push in ("one", "two"):
        loops.put("README.md", push)
        loops.commit()
        propose(loops.repo, remote, PullRequest())
        job = checkout(remote, tmp_path / push, PullRequest())
        job.env["FAKE_TRAINED"] = str(tmp_path / f"trained-{push}")
        job.env["PYTEST_ADDOPTS"] = "-v"  # which seeds were restored is a detail
        done = run_action(job, {"train": "true"}, cache=cache)
        assert (code, "false") == (done.code, done.outputs["stale"]), done.printed
        files = Loops(job.repo, tmp_path).files()
        logs[push] = {name: text for name, text in files.items() if "improvement_log" in name}
    assert ["trained-one"] == [path.name for path in tmp_path.glob("trained-*")]
    assert 4 + 2 + 2 * len(seeds) == len(logs["one"])  # iterations, verdicts, seed runs
    assert logs["one"] == logs["two"]
    assert re.search(r"x: 1 iteration \(1 restored\), best 002-\w+", done.printed)
    told = re.findall(r"note: seed (\d+) of 002-\w+ was restored, not trained", done.printed)
    assert seeds == told
    assert "Trained or restored in this job: commit the log" in done.summary
    assert [f"ftloop-trained-Linux-{push}-1-train" for push in ("one", "two")] == sorted(
        entry.name for entry in cache.iterdir()
    )


@pytest.mark.slow
def test_cache_input(loops: Loops, remote: GitRepo, tmp_path: Path) -> None:
    """With cache: false nothing is restored and nothing kept; without training neither."""
    feature(loops, BETTER, train=False)
    propose(loops.repo, remote, PullRequest())
    for stated in ({"train": "true", "cache": "false"}, {"stale-ok": "true"}):
        done = run_action(checkout(remote, tmp_path / f"{len(stated)}", PullRequest()), stated)
        assert not [name for name, _ in done.used if "cache" in name]


def test_cached_paths() -> None:
    """What is restored is what is kept, with the folder that the judgement keeps records in."""
    steps = {step["name"]: step for step in described()["runs"]["steps"]}
    restored, kept = (steps[f"{verb} what was trained"]["with"] for verb in ("Restore", "Keep"))
    assert (restored["path"], restored["key"]) == (kept["path"], kept["key"])
    assert steps["Judge"]["env"]["FTLOOP_RECORDS"] in kept["path"].splitlines()


@pytest.mark.slow
def test_options(loops: Loops, remote: GitRepo, tmp_path: Path) -> None:
    """Paths, baseline and verdicts that fail arrive at the command; so does nothing at all."""
    feature(loops, WORSE)
    propose(loops.repo, remote, PullRequest())
    job = checkout(remote, tmp_path / "job", PullRequest())
    assert 1 == run_action(job, {"baseline": "origin/main", "path": "x.ftloop.yaml ."}).code
    assert 1 == run_action(job, {"fail-on": "not-comparable,inconclusive"}).code
    assert "nowhere" in run_action(job, {"baseline": "nowhere"}).printed
    assert 2 == run_action(job, {"path": "nowhere"}).code
    assert 2 == run_action(job, {"fail-on": "improved"}).code
    done = run_action(job, {"python-version": "", "artifact": "", "install": "false"})
    assert (1, []) == (done.code, done.used)


HERE = f"{ACTION.parent}/../../.."
LOCKED = f"--require-hashes -r {HERE}/pytest_ftloop/templates/github/requirements-"


@pytest.mark.parametrize(
    ("stated", "installed"),
    [
        ({}, [f"{LOCKED}judge.txt", f"--no-deps --no-build-isolation {HERE}"]),
        ({"train": "true"}, [f"{LOCKED}train.txt", f"--no-deps --no-build-isolation {HERE}"]),
        (
            {"requirement": "pytest-ftloop[report]==0.1.0", "packages": "a b -c c.txt"},
            ["pytest-ftloop[report]==0.1.0", "a b -c c.txt"],
        ),
    ],
)
def test_install(
    remote: GitRepo, tmp_path: Path, stated: dict[str, str], installed: list[str]
) -> None:
    """pip gets pinned packages and this action's own version, or what is stated."""
    done = run_action(checkout(remote, tmp_path / "job"), {**stated, "path": "nowhere"})
    called = " ".join(done.installed).split("-m pip install --disable-pip-version-check ")
    assert ["", *installed] == [call.strip() for call in called]
    assert (ROOT / "pyproject.toml").samefile(f"{HERE}/pyproject.toml")
    for kind in ("judge", "train"):
        assert Path(f"{LOCKED.split()[-1]}{kind}.txt").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_inputs(remote: GitRepo, tmp_path: Path, text: str) -> None:
    """Whatever an input holds, none of it is run, and no output is forged."""
    names = ("path", "baseline", "fail-on", "key", "out", "requirement", "packages", "artifact")
    job = checkout(remote, tmp_path / "job")
    for name in names:
        done = run_action(job, {name: text})
        assert ["verdict", "stale", "exit-code", "metrics", "report"] == list(done.outputs)
    assert [] == list((tmp_path / "job").rglob("pwned"))


def test_inputs_reach_scripts_through_env_only() -> None:
    """No script is made of an expression; what it reads, its step sets."""
    for step in described()["runs"]["steps"]:
        if "run" in step:
            assert "${{" not in step["run"]
            given = {*step["env"], "GITHUB_ACTION_PATH"}
            assert set() == set(re.findall(r"\$\{?(\w+)", step["run"])) - given
            assert 1 == len(step["run"].strip().splitlines())


def test_described() -> None:
    """Every input is used, has a default, and says what it is; every output has a value."""
    text = ACTION.read_text(encoding="utf-8")
    for name, stated in described()["inputs"].items():
        assert {"description", "default"} == set(stated)
        assert f"inputs.{name}" in text
    assert all({"description", "value"} == set(o) for o in described()["outputs"].values())


def test_documented() -> None:
    """docs/github.md has each input with its default and each output, in order, and no other."""
    text = (ROOT / "docs" / "github.md").read_text(encoding="utf-8")
    inputs, outputs = [
        [
            [cell.strip().strip("`") for cell in row.strip("|").split("|")]
            for row in rows.split("\n")
        ]
        for rows in re.findall(
            r"^\| (?:in|out)put \|.*\n\|[-|]+\n((?:\|.*\n)+?)\n", text, re.MULTILINE
        )
        for rows in [rows.strip()]
    ]
    stated = described()["inputs"]
    assert [(name, at["default"]) for name, at in stated.items()] == [(r[0], r[1]) for r in inputs]
    assert list(described()["outputs"]) == [row[0] for row in outputs]


def described() -> Any:
    return yaml.safe_load(ACTION.read_text(encoding="utf-8"))
