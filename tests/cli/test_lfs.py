"""A log that Git LFS keeps is read through its filter; without one, LFS is named, and the cure."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from pytest_ftloop.cli import main
from tests.loops import BETTER, SAME, WORSE, Loops

Capture = pytest.CaptureFixture[str]
LFS = """
import hashlib, pathlib, sys
store = pathlib.Path(sys.argv[2])
given = sys.stdin.buffer.read()
if sys.argv[1] == "clean":
    name = hashlib.sha256(given).hexdigest()
    (store / name).write_bytes(given)
    head = "version https://git-lfs.github.com/spec/v1"
    print(head, f"oid sha256:{name}", f"size {len(given)}", sep="\\n")
else:
    name = given.decode().split("sha256:")[1].split()[0]
    sys.stdout.buffer.write((store / name).read_bytes())
"""
"""A filter that does what Git LFS does, with a folder in place of a server."""


@pytest.fixture
def lfs(loops: Loops, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Loops:
    """A repository whose last commit has its log in LFS, records and tables."""
    monkeypatch.chdir(loops.root)
    store, script = tmp_path / "store", tmp_path / "lfs.py"
    store.mkdir()
    script.write_text(LFS)
    for what in ("clean", "smudge"):
        command = shlex.join([sys.executable, str(script), what, str(store)])
        loops.repo.git("config", f"filter.lfs.{what}", command)
    loops.put(".gitattributes", "improvement_log/** filter=lfs -text\n")
    loops.version()
    assert "git-lfs" in loops.repo.git("show", "HEAD:" + table(loops).as_posix())
    return loops


def table(loops: Loops) -> Path:
    (found,) = (loops.root / "improvement_log/x").glob("001-*.csv")
    return found.relative_to(loops.root)


def smudge_no_more(loops: Loops) -> None:
    loops.repo.git("config", "--remove-section", "filter.lfs")


@pytest.mark.parametrize(
    ("rate", "code"), [(SAME, 0), pytest.param(BETTER, 0, marks=pytest.mark.slow), (WORSE, 1)]
)
@pytest.mark.parametrize("attributes", [True, False], ids=["attributes", "none left"])
def test_read_through_the_filter(
    lfs: Loops, capsys: Capture, rate: str, code: int, attributes: bool
) -> None:
    """The committed log is compared with, also by a change that takes it out of LFS."""
    if not attributes:
        Path(".gitattributes").unlink()
    lfs.write(rate=rate)
    lfs.train()
    capsys.readouterr()
    assert code == main(["gate"])
    assert "damaged" not in capsys.readouterr().out


def test_checkout_of_pointers(lfs: Loops, capsys: Capture) -> None:
    """Files that git-lfs has not fetched are named, with what fetches them."""
    smudge_no_more(lfs)
    shutil.rmtree("improvement_log")
    lfs.repo.git("checkout", "--", ".")
    assert 3 == main(["gate"])
    said = capsys.readouterr().err
    assert "improvement_log/x/" in said
    assert "it is a pointer of Git LFS, not the file itself" in said
    assert "git lfs pull" in said


def test_commit_of_pointers(lfs: Loops, capsys: Capture) -> None:
    """Where only the commit's files can't be fetched, LFS is named in the note."""
    smudge_no_more(lfs)
    Path(".gitattributes").unlink()
    assert 0 == main(["gate"])
    said = " ".join(capsys.readouterr().out.split())
    assert "it is a pointer of Git LFS, not the file itself" in said
    assert "judged with the repaired files of this change" in said
