"""The machine that a parcel comes to: place its files, have a worker do what it asks, give back.

    <cache>/shipped/<hash>/files/...       the loop's files, by their absolute paths elsewhere
                           cache/...       the worker's cache, with the embedded base

The folder has the name of its content, so that all specs of a loop share it, and another version of
the loop is another folder. What comes back names the files as they are called where they came from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock

from pytest_ftloop.core.bounds import read_bytes, read_json
from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.core.files import plain_files, replacing, write_atomically
from pytest_ftloop.loop.executor import Ended
from pytest_ftloop.loop.parcel import Parcel
from pytest_ftloop.loop.processes import Processes
from pytest_ftloop.loop.spec import (
    ERROR,
    FOUND,
    KEPT_S,
    PROGRESS,
    RUN,
    SPEC,
    UNSCORED,
    read_spec,
)

LOOKS_EVERY_S = 0.2
"""Seconds between two looks at the worker."""

NOTES = (PROGRESS, FOUND)
"""What is passed on while a worker is at work."""

RESULTS = (RUN, ERROR, FOUND, UNSCORED)

ADAPTER = "adapter"


@dataclass(frozen=True)
class Outcome:
    """What came of a parcel: files beside the spec, by name, and how its worker ended."""

    files: Mapping[str, bytes]
    ended: Ended


Note = Callable[[Mapping[str, bytes]], object]
"""Called with the notes of a worker that have changed."""


def work(text: str, contents: Mapping[str, bytes], note: Note = lambda _: None) -> Outcome:
    """Do what a parcel asks for, in a process of this machine. `contents` are its files by hash."""
    parcel = Parcel.of_text(text)
    tree = _placed(parcel, contents)
    spec = _spec_placed(parcel, tree, contents)
    handle = _processes(parcel, tree).submit(spec)
    sent: dict[str, bytes] = {}
    try:
        while (ended := handle.ended()) is None:
            found = _read(spec.parent, NOTES, tree)
            if changed := {name: text for name, text in found.items() if sent.get(name) != text}:
                note(changed)
                sent |= changed
            time.sleep(LOOKS_EVERY_S)
        files = _read(spec.parent, RESULTS, tree)
        if RUN in files or UNSCORED in files:
            files |= _adapter(spec.parent / ADAPTER)
        return Outcome(files, ended)
    finally:
        handle.cancel()
        shutil.rmtree(spec.parent, ignore_errors=True)


def take_back(outcome: Outcome, spec: Path) -> None:
    """Write what came of a parcel beside the spec that it was of, and the adapter to its place.

    The run comes last: where it is, all else is.
    """
    stated, files = read_spec(spec), dict(outcome.files)
    weights = {name: files.pop(name) for name in list(files) if name.startswith(f"{ADAPTER}/")}
    if weights and stated.adapter and stated.asks == "train":
        folder = Path(stated.adapter)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as making:
            for name, content in weights.items():
                _write(making, str(PurePosixPath(name).relative_to(ADAPTER)), content)
    for name in sorted(files, key=lambda name: name == RUN):
        if name in RESULTS:
            write_atomically(spec.parent / name, files[name])


def write_notes(notes: Mapping[str, bytes], spec: Path) -> None:
    """Write a worker's notes beside its spec."""
    for name in NOTES:
        if name in notes:
            with replacing(spec.parent / name) as making:
                making.write_bytes(notes[name])


def _placed(parcel: Parcel, contents: Mapping[str, bytes]) -> Path:
    """The folder with a loop's files, which is made if it is not there."""
    tree = cache_folder().absolute() / "shipped" / parcel.tree
    tree.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{tree}.lock"):
        if not tree.is_dir():
            _sweep(tree.parent)
            with replacing(tree) as making:
                making.mkdir(mode=0o700)  # the loop file may hold credentials
                for below, files in (("files", parcel.files), ("cache", parcel.cache)):
                    for name, digest in files.items():
                        _write(making / below, name, _content(contents, digest))
                # Modules of the loop are looked for up to here, and not in the folders above.
                for place in {parcel.repository, "."}:
                    (making / "files" / place / ".git").mkdir(parents=True, exist_ok=True)
                (making / "files" / parcel.working).mkdir(parents=True, exist_ok=True)
        os.utime(tree)
    return tree


def _sweep(folder: Path) -> None:
    """Remove the files of loops that nobody has sent in `KEPT_S`."""
    oldest = time.time() - KEPT_S
    with suppress(OSError):  # what can't be listed or removed stays
        for tree in folder.iterdir():
            if tree.is_dir() and tree.stat().st_mtime < oldest:
                shutil.rmtree(tree, ignore_errors=True)


def _spec_placed(parcel: Parcel, tree: Path, contents: Mapping[str, bytes]) -> Path:
    """The file of the spec, whose paths are those of this machine."""
    folder = tree / "cache" / "workers" / parcel.spec
    shutil.rmtree(folder, ignore_errors=True)  # of a worker that was killed
    for name, digest in parcel.beside.items():
        _write(folder, name, _content(contents, digest))
    stated = read_json(read_bytes(folder / SPEC))
    stated["loop_file"] = str(tree / "files" / parcel.loop_file)
    stated["adapter"] = str(folder / ADAPTER) if stated["adapter"] else ""
    if stated["start"].get("folder"):
        stated["start"]["folder"] = str(folder / "start")
    write_atomically(folder / SPEC, json.dumps(stated))
    return folder / SPEC


def _content(contents: Mapping[str, bytes], digest: str) -> bytes:
    content = contents[digest]
    if hashlib.sha256(content).hexdigest() != digest:
        raise FtloopError(f"a file came with other content than was sent: {digest[:8]}")
    return content


def _write(folder: Path, name: str, content: bytes) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise FtloopError(f"wanted the path of a file in a folder, found {name!r}")
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


_open: dict[Path, Processes] = {}
"""The worker of this process, by the folder of its loop's files: it keeps torch and the base."""


def _processes(parcel: Parcel, tree: Path) -> Processes:
    for other in [place for place in _open if place != tree]:
        _open.pop(other).close()
    if tree not in _open:
        files = tree / "files"
        _open[tree] = Processes(
            1,
            folder=files / parcel.working,
            cache=tree / "cache",
            modules=[files / name for name in parcel.modules],
            all_devices=True,
        )
    return _open[tree]


def _read(folder: Path, names: tuple[str, ...], tree: Path) -> dict[str, bytes]:
    """The files of these names that are there, with paths as they are where the loop came from."""
    here = str(tree / "files").encode()
    found = {}
    for name in names:
        with suppress(FileNotFoundError):
            found[name] = (folder / name).read_bytes().replace(here, b"")
    return found


def _adapter(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        return {}
    files = plain_files(folder)
    return {f"{ADAPTER}/{p.relative_to(folder).as_posix()}": p.read_bytes() for p in files}
