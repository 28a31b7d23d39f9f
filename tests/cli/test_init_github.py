"""`ftloop init --github`: the workflows it writes, where, and that the examples are the same."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pytest_ftloop.cli import installed, main
from pytest_ftloop.cli.init import LOCKS, WORKFLOWS, lock
from pytest_ftloop.cli.init import workflow as workflow_of
from pytest_ftloop.core.errors import ConfigError
from tests.gitfakes import GitRepo, isolate

if TYPE_CHECKING:
    Capture = pytest.CaptureFixture[str]

ROOT = Path(__file__).parents[2]
NAMES = sorted({name for names in WORKFLOWS.values() for name in names})
SHOWN = "pytest-ftloop @ git+https://github.com/OWNER/pytest-ftloop@COMMIT"
"""What the examples install: they name no owner."""

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PINNED = f"pytest-ftloop @ git+https://github.com/owner/pytest-ftloop@{COMMIT}"
REPLAY, GPU = (sorted(WORKFLOWS[gpu]) for gpu in (False, True))


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitRepo:
    """A repository without a commit, the working folder."""
    isolate(monkeypatch)
    monkeypatch.setattr(installed, "requirement", lambda: SHOWN)
    made = GitRepo.init(tmp_path / "project")
    monkeypatch.chdir(made.root)
    return made


def workflow(name: str) -> str:
    """A workflow as the examples show it."""
    return workflow_of(name, SHOWN)


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
    assert "git add .github and commit" in out


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
    monkeypatch.setattr(installed, "requirement", lambda: SHOWN)
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
    """Actions are pinned by commit, the same ones everywhere; packages by their files' hashes."""
    text = workflow(name)
    assert text.count("uses:") == len(pins(text)) > 1
    installs = [line.partition("pip install ")[2] for line in text.splitlines() if "pip" in line]
    assert {True} == {
        line.startswith("--require-hashes -r .github/ftloop/requirements-")
        or line == f'--no-deps --no-build-isolation "{SHOWN}"'
        for line in installs
    }
    assert 2 * text.count("--require-hashes") == len(installs) > 0
    action = (ROOT / ".github/actions/ftloop/action.yml").read_text(encoding="utf-8")
    known = dict(pins(action)) | dict(pins("".join(map(workflow, NAMES))))
    assert set() == set(pins(text + action)) - set(known.items())


@pytest.mark.parametrize(
    "file",
    [*(ROOT / ".github").glob("workflows/*.yml"), *(ROOT / ".github").glob("actions/*/action.yml")],
    ids=lambda file: f"{file.parent.name}/{file.name}",
)
def test_our_own_actions_are_pinned(file: Path) -> None:
    """By commit, in this project's workflows and its action; its own ones are beside them."""
    used = re.findall(r"uses: (?!\./)", file.read_text(encoding="utf-8"))
    assert len(used) == len(pins(file.read_text(encoding="utf-8"))) > 0


@pytest.mark.parametrize("name", sorted({name for names in LOCKS.values() for name in names}))
def test_lists_of_packages(name: str) -> None:
    """Each package has one version for a Python, and the hashes of its files; ours is not there."""
    entries = re.findall(
        r"^([\w.-]+)==[\w.+]+(?: ; [^\\\n]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
        lock(name),
        re.MULTILINE,
    )
    rest = re.sub(
        r"^(?:#.*|[\w.-]+==.*|    --hash=sha256:[0-9a-f]{64}(?: \\)?)\n", "", lock(name), flags=re.M
    )
    assert "" == rest
    names = {name for name, _ in entries}
    assert lock(name).count("==") - lock(name).count("== '") == len(entries)
    assert {"pytest", "pydantic", "setuptools", "jinja2"} <= names
    assert ("train" in name) == ("torch" in names)
    assert "pytest-ftloop" not in names


def test_every_lock_has_the_dependencies() -> None:
    """What pyproject.toml needs is in the lists: they were made again when it changed."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    sections = {
        name: re.findall(r'"([\w.]+)[>=<]', listed)
        for name, listed in re.findall(r"^(dependencies|train|report) = \[([^\]]+)\]", text, re.M)
    }
    for name in LOCKS[True]:
        wanted = sections["dependencies"] + sections["report"]
        wanted += sections["train"] if "train" in name else []
        missing = [w for w in wanted if f"\n{w.replace('.', '-')}==" not in lock(name)]
        assert [] == missing


@pytest.mark.parametrize(
    ("direct", "wanted"),
    [
        (None, "pytest-ftloop==0.1.0"),
        (
            {
                "url": "https://h/o/pytest-ftloop.git",
                "vcs_info": {"vcs": "git", "commit_id": COMMIT},
            },
            f"pytest-ftloop @ git+https://h/o/pytest-ftloop.git@{COMMIT}",
        ),
        (
            {"url": "https://h/a.whl", "archive_info": {"hashes": {"sha256": "0a" * 32}}},
            f"pytest-ftloop @ https://h/a.whl#sha256={'0a' * 32}",
        ),
        ({"url": "file:///a.whl", "archive_info": {"hashes": {"sha256": "0a" * 32}}}, None),
        ({"url": "https://h/a.whl", "archive_info": {}}, None),
        ({"url": "https://me:word@h/o", "vcs_info": {"commit_id": COMMIT}}, None),
        ({"url": "ssh://git@h/o", "vcs_info": {"commit_id": COMMIT}}, None),
        ({"url": "https://h/o", "vcs_info": {"commit_id": "main"}}, None),
        ({"url": 'https://h/o"; x', "vcs_info": {"commit_id": COMMIT}}, None),
        ({"url": "file:///nowhere", "dir_info": {"editable": True}}, None),
    ],
)
def test_the_tool_is_installed_as_it_is_here(
    monkeypatch: pytest.MonkeyPatch, direct: Any, wanted: str | None
) -> None:
    """By the index only if it came from there; by a URL only if it can't come to be another."""

    class Found:
        version = "0.1.0"

        def read_text(self, name: str) -> str | None:
            assert "direct_url.json" == name
            return None if direct is None else json.dumps(direct)

    monkeypatch.setattr("importlib.metadata.distribution", lambda _: Found())
    if wanted is not None:
        assert wanted == installed.requirement() == installed.checked(wanted)
        return
    with pytest.raises(ConfigError, match="from a place that a workflow can't install it from"):
        installed.requirement()


def test_a_clone_is_installed_by_its_commit(repo: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit that is checked out, at the first remote."""
    repo.write({"a": "b"})
    commit = repo.commit()
    assert not re.fullmatch(r".*https.*", installed._by_folder(repo.root))
    repo.git("remote", "add", "origin", "https://h/o/pytest-ftloop")
    assert f"pytest-ftloop @ git+https://h/o/pytest-ftloop@{commit}" == installed._by_folder(
        repo.root
    )


def test_stated_requirement(repo: GitRepo, capsys: Capture) -> None:
    """It is written into each workflow; one that may come to be another is refused."""
    assert 0 == main(["init", "--github", "--requirement", PINNED])
    for name in REPLAY:
        text = (repo.root / ".github" / "workflows" / name).read_text(encoding="utf-8")
        assert text == workflow_of(name, PINNED)
    capsys.readouterr()
    for stated in (
        "pytest-ftloop",
        PINNED[:-1],
        PINNED.replace("https", "http"),
        "x==1",
        f"{PINNED} ",
    ):
        assert 2 == main(["init", "--github", "--force", "--requirement", stated])
        assert "wanted pytest-ftloop at a full commit" in capsys.readouterr().err
    assert 2 == main(["init", "--requirement", PINNED])
    assert "--requirement works only with --github" in capsys.readouterr().err


def pins(text: str) -> list[tuple[str, str]]:
    """Each action with its commit and version."""
    found = re.findall(r"uses: (\S+)@([0-9a-f]{40} # v[\d.]+)$", text, re.MULTILINE)
    return [(name, pin) for name, pin in found]


@pytest.mark.parametrize("name", NAMES)
def test_least_permissions(name: str) -> None:
    """A gate may read and no more; only the comment writes, and it checks out a list alone."""
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
    wanted = {"actions": "read", "contents": "read", "pull-requests": "write"}
    assert wanted == job["permissions"]
    (checkout,) = [s["with"] for s in job["steps"] if "checkout" in s.get("uses", "")]
    assert {
        "ref": "${{ github.event.repository.default_branch }}",
        "sparse-checkout": ".github/ftloop",
        "persist-credentials": False,
    } == checkout


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
    (wanted,) = [s["with"]["pattern"] for s in comment["steps"] if "pattern" in s.get("with", {})]
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
