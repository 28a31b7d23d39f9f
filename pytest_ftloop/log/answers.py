"""The judge's answers in a log: `<loop>/judge/<tag>.jsonl`, an answer a line.

As of every file of a log, the name holds a hash of the content, and none is changed: branches that
ask the judge add files, and merge without a conflict.

Answers that the log can't take, such as on a full disk, wait in the cache for the next run.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_ftloop.core.bounds import MOST_BYTES, read_bytes, read_json
from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.files import real, write_atomically
from pytest_ftloop.log.files import Files, FolderFiles, damaged, unwritable

_NAME = re.compile(r"judge/([0-9a-f]{16})\.jsonl")


def read_answers(files: Files) -> list[dict[str, Any]]:
    """All answers, in the order of the files' names. A `LogError` names a damaged file."""
    found: list[dict[str, Any]] = []
    for name in sorted(files.names()):
        if match := _NAME.fullmatch(name):
            text = files.read(name)
            if _tag(text) != match[1]:
                raise damaged(
                    files.shown(name),
                    f"the hash {match[1]} in its name is of other answers",
                )
            found += [
                _answer(line, files.shown(name), number)
                for number, line in enumerate(text.splitlines(), start=1)
            ]
    return found


def _answer(line: str, shown: str, number: int) -> dict[str, Any]:
    """The answer in a line. A `LogError` for anything else: its hash does not say who wrote it."""
    said: Any = None
    with suppress(ValueError):
        said = read_json(line)
    keys, words, numbers = {"key", "grade", "text"}, ("key", "text"), (int, float)
    if (
        not isinstance(said, dict)
        or said.keys() != keys
        or not all(isinstance(said[name], str) for name in words)
        or type(said["grade"]) not in numbers
        or not math.isfinite(said["grade"])
    ):
        raise damaged(shown, "wanted an answer with key, grade and text", number)
    return said


def answer_files(folder: Path) -> tuple[Path, ...]:
    """The files of answers in a log's folder, in the order of their names."""
    return tuple(sorted((folder / "judge").glob("*.jsonl")))


def copy_answers(source: Path, folder: Path) -> int:
    """Copy the files of answers in one log's folder that another one lacks; how many these were.

    Raises `LogError` where they can't be written.
    """
    copied = 0
    try:
        for file in answer_files(source):
            path = folder / "judge" / file.name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, read_bytes(file, MOST_BYTES))
                copied += 1
    except OSError as error:
        raise unwritable(folder, error) from None
    return copied


def write_answers(folder: Path, answers: Sequence[dict[str, Any]]) -> Path:
    """Write answers to a file of their own in the log's folder. Raises `LogError`."""
    text = "".join(json.dumps(answer, sort_keys=True) + "\n" for answer in answers)
    path = folder / "judge" / f"{_tag(text)}.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise unwritable(folder, error) from None
    return path


def keep_waiting(folder: Path, answers: Sequence[dict[str, Any]]) -> Path:
    """Write answers for a log's folder to the cache. Raises `LogError` if it takes them neither."""
    return write_answers(_waiting_place(folder), answers)


def waiting_answers(folder: Path) -> list[dict[str, Any]]:
    """The answers that wait for a log's folder. What is damaged there is asked for again."""
    with suppress(LogError, OSError):
        return read_answers(FolderFiles(_waiting_place(folder)))
    return []


def forget_waiting(folder: Path, keys: Collection[str]) -> None:
    """Remove the waiting files whose answers, by their keys, are all in the log by now."""
    place = _waiting_place(folder)
    for file in answer_files(place):
        with suppress(LogError, OSError):
            text = read_bytes(file, MOST_BYTES).decode()
            lines = enumerate(text.splitlines(), start=1)
            if all(_answer(line, file.name, number)["key"] in keys for number, line in lines):
                file.unlink()


def _waiting_place(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(real(folder))).hexdigest()
    return cache_folder() / "waiting" / name[:32]


def _tag(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
