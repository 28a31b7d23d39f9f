"""What is read of files from elsewhere: files only, up to a size; JSON up to a depth and digits."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

import pytest

import pytest_ftloop
from pytest_ftloop.core.bounds import (
    MOST_BYTES_OF_RECORD,
    MOST_DIGITS,
    MOST_LEVELS,
    BoundError,
    read_bytes,
    read_json,
)

PACKAGE = Path(pytest_ftloop.__file__).parent


def sparse(path: Path) -> None:
    """Two gigabytes of nothing, which take no place on the disk."""
    with path.open("wb") as file:
        file.truncate(2**31)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.symlink_to("/dev/zero"), "it is a device or a pipe, not a file"),
        (os.mkfifo, "it is a device or a pipe, not a file"),
        (Path.mkdir, "Is a directory"),
        (sparse, "it is larger than 16 MiB"),
        (lambda _: None, "No such file or directory"),
    ],
    ids=["device", "pipe", "folder", "large", "missing"],
)
def test_only_a_file_of_the_size_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, why: str
) -> None:
    """A device without end, a pipe that waits, a folder and 2 GB are refused unopened."""
    make(path := tmp_path / "x")

    def opened(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(OSError, match=re.escape(why)):
        read_bytes(path)


def test_a_file_of_proc_is_bounded_too(tmp_path: Path) -> None:
    """A file that says it is empty, and is not, is not read beyond the limit."""
    with pytest.raises(OSError, match="larger than 0 KiB"):
        read_bytes(Path("/proc/self/status"), 10)
    (tmp_path / "x").write_bytes(b"0123456789")
    assert b"0123456789" == read_bytes(tmp_path / "x", 10)


def nested(depth: int) -> str:
    """Lists in objects in lists."""
    opened = ["[" if n % 2 else '{"a":' for n in range(depth)]
    closed = ["]" if n % 2 else "}" for n in reversed(range(depth))]
    return "".join([*opened, "1", *closed])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (nested(MOST_LEVELS), ""),
        (nested(MOST_LEVELS + 1), f"wanted at most {MOST_LEVELS} levels"),
        (nested(900), f"wanted at most {MOST_LEVELS} levels"),
        (nested(200_000), f"wanted at most {MOST_LEVELS} levels"),
        ("9" * MOST_DIGITS, ""),
        ("9" * (MOST_DIGITS + 1), f"wanted a number of at most {MOST_DIGITS} digits, found 301"),
        (f'{{"a": -{"9" * 5000}}}', f"wanted a number of at most {MOST_DIGITS} digits"),
        (f'"{"[" * 100}"', ""),
    ],
)
@pytest.mark.parametrize("as_given", [str, str.encode], ids=["text", "bytes"])
def test_json_has_a_depth_and_digits(text: str, why: str, as_given: Any) -> None:
    """JSON beyond them is a `ValueError`; up to them it reads, and a number has a float."""
    if why:
        with pytest.raises(BoundError, match=why):
            read_json(as_given(text))
    elif isinstance(found := read_json(as_given(text)), int):
        assert float(found) > 1e299


def test_a_large_honest_file_reads(tmp_path: Path) -> None:
    """A record of 100,000 failing examples and a state of 100,000 log lines are within limits."""
    failing = "".join(f"- order-{n:06}\n" for n in range(100_000))
    assert len(failing) < MOST_BYTES_OF_RECORD / 10
    state = ",".join('{"loss": 1.5, "step": 3, "epoch": 0.1}' for _ in range(100_000))
    assert 100_000 == len(read_json(f"[{state}]"))


READS = {"read_text", "read_bytes", "loads", "load"}
OURS = {
    # What the package itself brings, makes or just made.
    "core/recipe.py", "report/html/page.py", "cli/init.py", "cli/installed.py", "core/bounds.py",
    "adjust/function.py", "loop/retrain_process.py", "train/rows.py", "loop/loop.py", "log/kept.py",
    "data/identity.py",
    # Files that were packed by their content, and what a worker has just made of them.
    "loop/on_ray.py", "loop/shipped.py",
    # Rows of numbers that a pattern has checked.
    "log/text.py",
}  # fmt: skip


def test_every_reader_is_bounded() -> None:
    """Files and JSON from elsewhere are read by the functions of `core.bounds` alone."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(of := node.func, ast.Attribute):
                on_module = getattr(of.value, "id", "") in ("json", "yaml", "tomllib")
                if of.attr in READS and (on_module or of.attr.startswith("read_")):
                    found.add(file.relative_to(PACKAGE).as_posix())
    assert set() == found - OURS
