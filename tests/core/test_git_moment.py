"""What git is asked where many loops of one repository are judged at one moment."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core import git_memory
from pytest_ftloop.core.git import Repository, at_one_moment
from tests.core.git_cases import watched
from tests.gitfakes import GitRepo

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("isolated")

LOOPS = 24


def unchanged(repo: GitRepo, folder: str) -> None:
    """The loop as it was committed."""


def edited(repo: GitRepo, folder: str) -> None:
    repo.write({f"{folder}/log/1.yaml": "edited\n"})


def staged(repo: GitRepo, folder: str) -> None:
    edited(repo, folder)
    repo.git("add", folder)


def restored(repo: GitRepo, folder: str) -> None:
    """Staged, and then as it was again."""
    staged(repo, folder)
    repo.write({f"{folder}/log/1.yaml": "1\n"})


def deleted(repo: GitRepo, folder: str) -> None:
    repo.write({f"{folder}/log/1.yaml": None})


def added(repo: GitRepo, folder: str) -> None:
    repo.write({f"{folder}/log/2 ä.yaml": "2\n"})


def renamed(repo: GitRepo, folder: str) -> None:
    repo.git("mv", f"{folder}/data.csv", f"{folder}/other.csv")


def moved(repo: GitRepo, folder: str) -> None:
    repo.git("mv", f"{folder}/log", f"{folder}/elsewhere")


def ignored(repo: GitRepo, folder: str) -> None:
    repo.write({f"{folder}/log/x.tmp": "", f"{folder}/.gitignore": "*.tmp\n"})


def all_ignored(repo: GitRepo, folder: str) -> None:
    repo.write({f"{folder}/log/2.yaml": "", f"{folder}/.gitignore": "/log/\n"})


def own_repository(repo: GitRepo, folder: str) -> None:
    GitRepo.init(repo.root / folder / "log/inner").commit({"a.txt": ""})


def linked(repo: GitRepo, folder: str) -> None:
    repo.write({f"{folder}/data.csv": None})
    (repo.root / folder / "data.csv").symlink_to("log/1.yaml")


def data_of_own_repository(repo: GitRepo, folder: str) -> None:
    """The data is checked out of another repository, as a workflow may do."""
    repo.write({f"{folder}/data.csv": None})
    GitRepo.init(repo.root / folder / "data.csv").commit({"a.txt": ""})


STATES = (
    unchanged, edited, staged, restored, deleted, added, renamed, moved, ignored, all_ignored,
    own_repository, linked, data_of_own_repository,
)  # fmt: skip


@pytest.fixture
def names(repo: GitRepo) -> list[str]:
    """The folders of many loops, all committed."""
    names = [f"loop {number:02}" for number in range(LOOPS)]
    repo.commit(
        {f"{name}/{file}": text for name in names
         for file, text in (("log/1.yaml", "1\n"), ("data.csv", f"{name}\n"))}
    )  # fmt: skip
    return names


def questions(
    repo: GitRepo, repository: Repository, names: list[str]
) -> list[Callable[[], object]]:
    """Per loop, which of its files differ from HEAD, and whether its data does from two commits."""
    first = repo.git("rev-list", "--max-parents=0", "HEAD")
    head = repo.head

    def asked(name: str) -> object:
        asked = ("log", "log/1.yaml", "log/inner/a.txt", "log/2.yaml", "data.csv", "data.csv/a.txt")
        files = [repo.root / name / file for file in asked]
        data = [PurePosixPath(name) / "data.csv"]
        return (
            repository.untracked_or_changed(files),
            repository.differs(head, data),
            repository.differs(first, data),
        )

    return [lambda name=name: asked(name) for name in names]  # type: ignore[misc]


def test_many_loops_are_answered_as_each_alone(
    repo: GitRepo, repository: Repository, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the ninth loop on all files are listed once; the answers are those for each alone.

    Two more have files in another repository, about which git is asked apart.
    """
    for number, name in enumerate(names):
        STATES[number % len(STATES)](repo, name)
    each = questions(repo, repository, names)
    alone = [ask() for ask in each]
    asked = watched(monkeypatch, git_memory)
    with at_one_moment():
        together = [ask() for ask in each]
    assert alone == together
    assert {"status": 9 + 2, "diff": 18} == Counter(command for command, *_ in asked)


def test_files_may_change_between_moments(
    repo: GitRepo, repository: Repository, names: list[str]
) -> None:
    """Outside of a moment, and in the next one, the files are those that are there then."""
    folders = [repo.root / name for name in names]

    def changed() -> list[Path]:
        return [path for folder in folders for path in repository.untracked_or_changed([folder])]

    with at_one_moment():
        assert [] == changed()
    edited(repo, names[-1])
    assert [folders[-1]] == changed()
    with at_one_moment():
        assert [folders[-1]] == changed()
    repo.commit()
    with at_one_moment():
        assert [] == changed()


def test_a_file_that_git_fails_on(
    repo: GitRepo, repository: Repository, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where git can't list all files, because a filter of one fails, each loop is asked for."""
    repo.commit({"large.bin": "one\n"})
    repo.commit({".gitattributes": "large.bin filter=lost\n"})
    repo.git("config", "filter.lost.clean", "false")
    repo.git("config", "filter.lost.required", "true")
    repo.write({"large.bin": "two\n"})
    edited(repo, names[-1])
    asked = watched(monkeypatch, git_memory)
    with at_one_moment():
        found = [repository.untracked_or_changed([repo.root / name]) for name in names]
    assert [(repo.root / names[-1],)] == [answer for answer in found if answer]
    assert LOOPS + 1 == len(asked)


def test_a_long_list(
    repo: GitRepo, repository: Repository, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository full of untracked files is not searched for each loop."""
    repo.write({f"strange/{'x' * 200}{number}": "" for number in range(400)})
    asked = watched(monkeypatch, git_memory)
    with at_one_moment():
        found = [repository.untracked_or_changed([repo.root / name]) for name in names]
    assert [()] * LOOPS == found
    assert LOOPS + 1 == len(asked)


def test_files_that_are_the_same_now(
    repo: GitRepo, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Files of a commit are read from those there now where these are the same, else from git."""
    old = {
        "same": b"\0\xff\r\n",
        "edited": b"a\n",
        "windows": b"a\nb\n",
        "gone": b"",
        "folder": b"f",
    }
    commit = repo.commit(old)
    repo.write({"edited": "b\n", "windows": "a\r\nb\r\n", "gone": None, "folder": None})
    (repo.root / "folder").mkdir()
    asked = watched(monkeypatch, git_memory)
    blobs = {path: blob for path, blob in repository.files(commit).items() if path.name in old}
    found = repository.contents(blobs)
    assert list(blobs) == list(found)
    assert old == {path.name: content for path, content in found.items()}
    assert 1 == sum(command == "cat-file" for command, *_ in asked)
    asked.clear()
    same = {path: blob for path, blob in blobs.items() if path.name == "same"}
    assert {PurePosixPath("same"): b"\0\xff\r\n"} == repository.contents(same)
    assert [] == asked


def test_files_that_are_the_same_in_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a repository of the newer object format."""
    repo = GitRepo.init(tmp_path / "new", "--object-format=sha256")
    commit = repo.commit({"a.txt": "one"})
    repository = Repository.containing(repo.root)
    blobs = repository.files(commit)
    asked = watched(monkeypatch, git_memory)
    assert {PurePosixPath("a.txt"): b"one"} == repository.contents(blobs)
    assert [] == asked
