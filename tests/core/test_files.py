"""What is written is there whole, or what was there before is."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pytest_ftloop
from pytest_ftloop.core.files import leads_out, real, replacing, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("a\n", b"a\n"),
        ("a\r\n", b"a\r\n"),
        ("\u00e9", "\u00e9".encode()),
        (b"\x80\n", b"\x80\n"),
        ("", b""),
    ],
)
def test_file_holds_what_was_written(tmp_path: Path, content: str | bytes, wanted: bytes) -> None:
    """Line ends stay as they are; nothing else is left beside the file."""
    (tmp_path / "file").write_text("before")
    write_atomically(tmp_path / "file", content)
    assert {"file": wanted} == tree(tmp_path)


def folder_of(text: str) -> Callable[[Path], None]:
    """Makes a folder with one file of this text."""

    def make(path: Path) -> None:
        path.mkdir()
        (path / text).write_text(text)

    return make


MADE: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("new"),
    "folder": folder_of("new"),
}
BEFORE: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "file": lambda path: path.write_text("old"),
    "folder": folder_of("old"),
}


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("before", BEFORE)
def test_takes_the_place(tmp_path: Path, before: str, made: str) -> None:
    """A file takes the place of a file, a folder that of whatever is there."""
    path = tmp_path / "x"
    BEFORE[before](path)
    if (before, made) == ("folder", "file"):
        with pytest.raises(OSError, match="x"), replacing(path) as making:
            MADE[made](making)
        assert {"x/old": b"old"} == tree(tmp_path)
        return
    with replacing(path) as making:
        MADE[made](making)
    assert {"x" if made == "file" else "x/new": b"new"} == tree(tmp_path)
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt(), ValueError()])
@pytest.mark.parametrize("where", ["in the block", "when it takes the place"])
@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("before", BEFORE)
def test_what_was_there_stays(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    made: str,
    where: str,
    error: BaseException,
) -> None:
    """However it ends early: nothing has changed, and nothing is left over."""
    path = tmp_path / "x"
    BEFORE[before](path)
    found = tree(tmp_path)

    def ended(*_: object) -> Path:
        raise error

    def make() -> None:
        with replacing(path) as making:
            MADE[made](making)
            if where == "in the block":
                ended()

    if where != "in the block":
        monkeypatch.setattr(Path, "replace", ended)
    with pytest.raises(type(error)):
        make()
    assert found == tree(tmp_path)
    assert ([path] if before != "nothing" else []) == list(tmp_path.iterdir())


def test_links_in_a_circle_have_a_path(tmp_path: Path) -> None:
    """One that no file is behind, where `Path.resolve` raises up to Python 3.12."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    found = real(tmp_path / "a" / "file")
    assert found.is_absolute()
    assert not found.exists()
    assert leads_out(tmp_path / "a")


def test_no_path_is_resolved_otherwise() -> None:
    """A stranger's links in a circle would be a traceback."""
    package = Path(pytest_ftloop.__file__).parent
    calls = {
        (file.name, node.lineno)
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and not node.args
        if isinstance(node.func, ast.Attribute) and node.func.attr == "resolve"
    }
    assert set() == calls


def test_file_that_cannot_be_synchronised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk may show only when the file is synchronised: the old one stays."""
    (tmp_path / "file").write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "file", "new")
    assert {"file": b"old"} == tree(tmp_path)


def test_many_writers_of_one_file(tmp_path: Path) -> None:
    """Threads and processes that write one file at once leave one of their texts, whole."""
    texts = [str(n) * 100_000 for n in range(4)]
    code = (
        "import sys; from pathlib import Path; from pytest_ftloop.core.files import *\n"
        "for _ in range(10): write_atomically(Path(sys.argv[1]), sys.argv[2] * 100_000)"
    )
    path = tmp_path / "file"
    others = [subprocess.Popen([sys.executable, "-c", code, str(path), n]) for n in "56"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda text: write_atomically(path, text), texts * 10))
    assert [0, 0] == [other.wait() for other in others]
    ((name, content),) = tree(tmp_path).items()
    assert ("file", 1, 100_000) == (name, len(set(content)), len(content))
