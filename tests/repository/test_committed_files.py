"""The check in `make lint` of what is committed."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.gitfakes import GitRepo

ROOT = Path(__file__).parents[2]
WHEEL = "tool-1.0-py3-none-any.whl"


check = SimpleNamespace(**runpy.run_path(str(ROOT / ".ci/committed_files.py")))


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    made = GitRepo.init(tmp_path / "project")
    made.commit({"LICENSE": "free", "a/b.py": "x = 1\n", "docs/small.png": b"\x89PNG\0" * 1000})
    return made


def test_known_kinds_pass(repo: GitRepo, capsys: pytest.CaptureFixture[str]) -> None:
    """Known suffixes and names and a small picture pass, and nothing is printed."""
    assert 0 == check.main(repo.root)
    assert ("", "") == capsys.readouterr()


@pytest.mark.parametrize("name", [WHEEL, "a/model.safetensors", "a/run", "a/.ci/run", "x.PY"])
def test_an_unknown_kind_fails(
    repo: GitRepo, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A committed wheel, weights, or a file without a known name fails, whatever its size."""
    repo.commit({name: b"PK\3\4"})
    assert 1 == check.main(repo.root)
    assert capsys.readouterr().err.startswith(f"{name}: wanted a known kind of file, found ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\0" * 100_000, []),
        (b"\0" * 100_001, ["docs/x.png: a binary file of 100,001 bytes"]),
        (b"text\n" * 100_000, []),
    ],
)
def test_a_large_binary_fails(repo: GitRepo, content: bytes, expected: list[str]) -> None:
    """A binary file over 100 kB fails; a long text does not, since it can be reviewed."""
    repo.commit({"docs/x.png": content})
    found = check.faults(repo.root, ["docs/x.png"])
    assert expected == [line.partition(";")[0] for line in found]


def test_what_is_not_committed_is_left_alone(repo: GitRepo) -> None:
    """An untracked wheel, and a committed file that is deleted on disk, are no fault."""
    repo.write({WHEEL: b"\0" * 200_000, "docs/small.png": None})
    assert 0 == check.main(repo.root)


def test_a_symbolic_link_fails(repo: GitRepo) -> None:
    """A link is named, also one that leads nowhere."""
    (repo.root / "link.md").symlink_to("nowhere.md")
    repo.commit()
    assert ["link.md: a symbolic link"] == [
        line.partition(",")[0] for line in check.faults(repo.root, ["link.md"])
    ]


def test_outside_a_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where git can't list the files, its reason is printed, and nothing counts as checked."""
    assert 2 == check.main(tmp_path)
    assert "not a git repository" in capsys.readouterr().err
