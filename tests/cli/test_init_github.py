"""`ftloop init --github`: the workflows it writes, where, and that the examples are the same."""

from __future__ import annotations

from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pytest_ftloop.cli import main
from pytest_ftloop.cli.init import WORKFLOWS, workflow
from tests.gitfakes import GitRepo, isolate

if TYPE_CHECKING:
    Capture = pytest.CaptureFixture[str]

ROOT = Path(__file__).parents[2]
NAMES = sorted({name for names in WORKFLOWS.values() for name in names})
REPLAY, GPU = (sorted(WORKFLOWS[gpu]) for gpu in (False, True))


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitRepo:
    """A repository without a commit, the working folder."""
    isolate(monkeypatch)
    made = GitRepo.init(tmp_path / "project")
    monkeypatch.chdir(made.root)
    return made


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / ".github" / "workflows").iterdir())


def read(name: str) -> dict[str, Any]:
    """A workflow as data. YAML 1.1, which this parser reads, takes the key `on` for true."""
    read: dict[Any, Any] = yaml.safe_load(workflow(name))
    return {"on" if key is True else key: value for key, value in read.items()}


@pytest.mark.parametrize(("arguments", "names"), [([], REPLAY), (["--gpu"], GPU)])
def test_writes_workflows(
    repo: GitRepo, capsys: Capture, arguments: list[str], names: list[str]
) -> None:
    """The gate asked for and the comment are written, and nothing else; the next steps are told."""
    assert 0 == main(["init", "--github", *arguments])
    assert names == written(repo.root)
    assert [".git", ".github"] == sorted(path.name for path in repo.root.iterdir())
    out = capsys.readouterr().out
    assert f"wrote .github/workflows/{names[0]}" in out
    assert "git add .github/workflows and commit" in out


def test_top_of_the_repository(
    repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder below, and with one named from outside, they go where GitHub looks."""
    (repo.root / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(repo.root / "deep" / "er")
    assert 0 == main(["init", "--github"])
    assert REPLAY == written(repo.root)
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["init", "--github", "--gpu", "--force", "project/deep"])
    assert NAMES == written(repo.root)


def test_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a repository they go to the folder that is named."""
    isolate(monkeypatch)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert 0 == main(["init", "--github", str(tmp_path / "new")])
    assert REPLAY == written(tmp_path / "new")


def test_refuses_to_replace(repo: GitRepo, capsys: Capture) -> None:
    """One that was changed is named, and nothing is written; with --force it is replaced."""
    path = repo.root / ".github/workflows/ftloop-comment.yml"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert 2 == main(["init", "--github"])
    assert ("mine", ["ftloop-comment.yml"]) == (path.read_text(), written(repo.root))
    assert "ftloop-comment.yml exists already" in capsys.readouterr().err
    assert 0 == main(["init", "--github", "--force"])
    assert workflow(path.name) == path.read_text(encoding="utf-8")
    assert "replaced .github/workflows/ftloop-comment.yml" in capsys.readouterr().out


def test_gpu_alone(repo: GitRepo, capsys: Capture) -> None:
    """--gpu says nothing of a loop to start from."""
    assert 2 == main(["init", "--gpu"])
    assert "--gpu works only with --github" in capsys.readouterr().err


def test_examples_are_what_is_written() -> None:
    """examples/github holds each workflow as it is written, and no other; so they are linted."""
    shown = {path.name: path.read_text("utf-8") for path in (ROOT / "examples/github").iterdir()}
    assert {name: workflow(name) for name in NAMES} == shown


@pytest.mark.parametrize("name", NAMES)
def test_pinned(name: str) -> None:
    """Actions are pinned by commit, the same ones everywhere; the tool by its version."""
    text = workflow(name)
    assert text.count("uses:") == len(pins(text)) > 1
    assert text.count("pytest-ftloop[") + text.count('"pytest-ftloop==') == text.count(
        f"=={version('pytest-ftloop')}"
    )
    action = (ROOT / ".github/actions/ftloop/action.yml").read_text(encoding="utf-8")
    known = dict(pins(action)) | dict(pins("".join(map(workflow, NAMES))))
    assert set() == set(pins(text + action)) - set(known.items())


def pins(text: str) -> list[tuple[str, str]]:
    """Each action with its commit and version."""
    import re

    found = re.findall(r"uses: (\S+)@([0-9a-f]{40} # v[\d.]+)$", text, re.MULTILINE)
    return [(name, pin) for name, pin in found]


@pytest.mark.parametrize("name", NAMES)
def test_least_permissions(name: str) -> None:
    """A gate may read and no more; only the comment writes, and it checks nothing out."""
    read_ = read(name)
    jobs = read_["jobs"].values()
    assert all("timeout-minutes" in job for job in jobs)
    if name != "ftloop-comment.yml":
        assert {"contents": "read"} == read_["permissions"]
        assert not [job for job in jobs if "permissions" in job]
        assert "pull_request_target" not in read_["on"]
        return
    assert {} == read_["permissions"]
    assert ["workflow_run"] == list(read_["on"])
    (job,) = jobs
    assert {"actions": "read", "pull-requests": "write"} == job["permissions"]
    assert "actions/checkout" not in workflow(name)


def test_merge_queue() -> None:
    """What is required before a merge runs in a merge queue too, and may train there."""
    for name in NAMES:
        is_comment = name == "ftloop-comment.yml"
        assert is_comment == ("merge_group" not in read(name)["on"])
    assert 2 == workflow("ftloop-gpu.yml").count("github.event_name != 'pull_request'")
    for name in ("gate.yml", "ci.yml"):
        assert "\n  merge_group:\n" in (ROOT / ".github/workflows" / name).read_text("utf-8")


def test_comment_finds_the_report() -> None:
    """Every gate uploads, under the name that the comment downloads, a folder with report.json."""
    (comment,) = read("ftloop-comment.yml")["jobs"].values()
    wanted = comment["steps"][0]["with"]["pattern"]
    gates = [name for name in NAMES if name != "ftloop-comment.yml"]
    assert read("ftloop-comment.yml")["on"]["workflow_run"]["workflows"] == [
        read(name)["name"] for name in ("ftloop-replay.yml", "ftloop-gpu.yml")
    ]
    for name in gates:
        for job in read(name)["jobs"].values():
            (out,) = {
                step["run"].split("--out ")[1].split()[0]
                for step in job["steps"]
                if step.get("run", "").startswith("ftloop ci")
            }
            uploads = [step["with"] for step in job["steps"] if "upload-artifact" in str(step)]
            assert [out] == [
                upload["path"]
                for upload in uploads
                if fnmatch(upload["name"], wanted) and "log" not in upload["name"]
            ]
