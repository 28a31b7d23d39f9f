"""Break a run at each of its writes: kill the process there, or let the disk refuse.

    for n in count(1):                            # every place there is
        if killed_at(n, lambda: run(folder)) is None:
            break                                 # the run came to its end before
        ...                                       # what is on disk now, what does the next run do

    with refusing(n, errno.ENOSPC) as disk:       # the n-th write fails, in this process
        run(folder)
    assert disk.broken                            # else there are less than n

A write is whatever changes a disk: to create, write, synchronise, rename or remove a file, to make
or remove a folder. Of what is killed in writing half is on disk. What native code writes (torch,
safetensors) is not seen. Locks and what is outside the stated folders do not count.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

CREATES = frozenset({"create", "write", "sync", "mkdir", "link"})
"""What needs room on a disk: a full one still renames and removes."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_AUDITED = {
    "os.rename": "rename",
    "os.remove": "remove",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
    "os.link": "link",
    "os.symlink": "link",
    "os.truncate": "write",
}
"""The events of Python's audit hooks that change a disk; `open` is looked at by itself."""


@dataclass(frozen=True)
class Write:
    """One write: what it does, and to which file."""

    what: str
    path: str

    def __str__(self) -> str:
        return f"{self.what} {self.path}"


@dataclass
class Disk:
    """Sees the writes below `roots` (everywhere, if there are none), and breaks the n-th.

    `break_` is called with it: it kills, or raises. `lasts`: it breaks all later ones, too.
    `only` are the kinds that it breaks; others are not counted. `writes` are those so far.
    """

    n: int
    break_: Callable[[Write], None]
    roots: tuple[str, ...] = ()
    lasts: bool = False
    only: frozenset[str] | None = None
    writes: list[Write] = field(default_factory=list)
    broken: list[Write] = field(default_factory=list)

    def see(self, what: str, path: object) -> bool:
        """Note a write, and break it if it is time; whether half of it is to be written before."""
        if not (shown := self._counts(what, path)):
            return False
        self.writes.append(Write(what, shown))
        number = len(self.writes)
        if number == self.n or (self.lasts and number > self.n):
            self.broken.append(self.writes[-1])
            if what == "write":
                return True  # `_Raw` breaks it, once half is written
            self.break_(self.writes[-1])
        return False

    def _counts(self, what: str, path: object) -> str:
        """The path of what counts, else nothing."""
        if self.only is not None and what not in self.only:
            return ""
        shown = _path_of(path) if isinstance(path, int) else _absolute(path)
        is_device = shown.startswith(("/dev/", "/proc/")) and not shown.startswith("/dev/shm/")
        if is_device or shown.endswith((".lock", ".pyc")):
            return ""
        return shown if not self.roots or shown.startswith(self.roots) else ""


_disk: Disk | None = None
"""The disk that is watched now. Audit hooks can't be removed, so the only one looks here."""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _disk is None:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITING and not isinstance(path, int):
            _disk.see("create", path)
    elif what := _AUDITED.get(event):
        if what == "link":  # what is made, not what it leads to
            arguments = arguments[1:]
        path, *_, of = arguments if event != "os.rename" else arguments[::2]
        # shutil removes what is in a folder by name and the folder's descriptor.
        within = isinstance(of, int) and of >= 0 and event != "os.truncate"
        _disk.see(what, os.path.join(_path_of(of), path) if within else path)  # noqa: PTH118


class _Raw(io.FileIO):
    """A file whose writes are seen, each call of the system by itself."""

    def write(self, data: Any, /) -> int:
        disk = _disk
        if disk is not None and disk.see("write", self.name):
            whole = memoryview(data).cast("B")
            done = super().write(whole[: len(whole) // 2])
            disk.break_(disk.broken[-1])
            return done + super().write(whole[done:])
        return super().write(data)


def _open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Any = None,
) -> Any:
    """`open`, but that the writes of files which are opened to be written are seen."""
    writes = set(mode) & set("wax+") and not isinstance(file, int) and _disk is not None
    if not writes or buffering == 0:
        return _real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    raw = _Raw(os.fspath(file), mode.replace("b", "").replace("t", ""), closefd, opener)
    buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    if "b" in mode:
        return buffered
    text = io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
    text.mode = mode  # type: ignore[misc]
    return text


_real_open, _real_fsync = builtins.open, os.fsync


def _fsync(descriptor: Any) -> None:
    if _disk is not None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        _disk.see("sync", _path_of(number))
    _real_fsync(descriptor)


def _path_of(descriptor: int) -> str:
    """The path of an open file; /dev/null, which does not count, where the system does not say."""
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return os.devnull


@contextmanager
def watching(disk: Disk) -> Iterator[Disk]:
    """Let a disk see all writes of this process within the block."""
    global _disk
    _watch_once()
    with ExitStack() as stack:
        for where in (builtins, io):
            stack.enter_context(patch.object(where, "open", _open))
        stack.enter_context(patch.object(os, "fsync", _fsync))
        # Copies in Python's own code, since the kernel's go past the files' writes.
        for name in ("_USE_CP_SENDFILE", "_USE_CP_COPY_FILE_RANGE"):
            if hasattr(sys.modules.get("shutil"), name):
                stack.enter_context(patch(f"shutil.{name}", False))
        _disk = disk
        try:
            yield disk
        finally:
            _disk = None


_is_watching: list[bool] = []


def _watch_once() -> None:
    if not _is_watching:
        sys.addaudithook(_audit)
        _is_watching.append(True)


# a process that is killed


def killed_at(n: int, do: Callable[[], object], *roots: Path) -> Write | None:
    """Run `do` in a process of its own, killed by SIGKILL at its n-th write; the write.

    None if it ended by itself, with fewer writes. Raises `AssertionError` with its traceback if it
    failed. It is forked, so that what is imported and patched here is so there.
    """
    with tempfile.TemporaryFile("w+") as told:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads, from 3.12
            child = os.fork()
        if child == 0:
            _child(n, do, roots, told.fileno())
        _, status = os.waitpid(child, 0)
        told.seek(0)
        said = told.read()
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, said
        what, _, path = said.partition(" ")
        return Write(what, path)
    assert os.WEXITSTATUS(status) == 0, said
    return None


def _child(n: int, do: Callable[[], object], roots: tuple[Path, ...], told: int) -> None:
    """The life of the forked process. It never returns: pytest is the parent's."""

    def kill(write: Write) -> None:
        os.write(told, str(write).encode())
        os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        with watching(Disk(n, kill, _texts(roots))):
            do()
        code = 0
    except BaseException:  # noqa: BLE001 - all of it is told to the parent, which raises
        import traceback

        os.write(told, traceback.format_exc().encode())
    finally:
        os._exit(code)


# a disk that refuses


@contextmanager
def refusing(
    n: int, number: int, *roots: Path, lasts: bool = False, only: frozenset[str] | None = None
) -> Iterator[Disk]:
    """Let the n-th write in the block raise the `OSError` of an errno; with `lasts` all later too.

    Of a full disk (ENOSPC) and a quota only what needs room is counted, unless `only` says more.
    """
    if only is None and number in (errno.ENOSPC, errno.EDQUOT):
        only = CREATES

    def refuse(write: Write) -> None:
        raise OSError(number, os.strerror(number), write.path)

    with watching(Disk(n, refuse, _texts(roots), lasts, only)) as disk:
        yield disk


def writes_of(do: Callable[[], object], *roots: Path) -> list[Write]:
    """The writes of `do`, which is run as it is."""
    with watching(Disk(0, lambda _: None, _texts(roots))) as disk:
        do()
    return disk.writes


def _texts(roots: tuple[Path, ...]) -> tuple[str, ...]:
    return tuple(map(_absolute, roots))


def _absolute(path: Any) -> str:
    """Without following links: what is renamed or removed is the link."""
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100


# a torn file


def torn(content: bytes, parts: int = 16) -> Iterator[bytes]:
    """A file as a crash may leave it on a disk that lost its end: cut, or zeros from there on."""
    for part in range(parts):
        end = len(content) * part // parts
        yield content[:end]
        yield content[:end] + bytes(len(content) - end)


def flipped(content: bytes, bits: int = 16) -> Iterator[bytes]:
    """A file with one wrong bit, at places spread over it."""
    for number in range(bits):
        place = len(content) * number // bits
        changed = bytearray(content)
        changed[place] ^= 1 << number % 8
        yield bytes(changed)
