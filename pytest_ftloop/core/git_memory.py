"""Git's answers, kept: starting git takes longer than all that one command asks of it."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_ftloop.core.git_program import run_git

OBJECT_NAME = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
"""A full name of a commit or blob: SHA-1 or SHA-256."""

Answer = subprocess.CompletedProcess[bytes]

Question = tuple[Path, tuple[str, ...]]
"""A repository's root, and the arguments of git."""

_LASTING: dict[Question, Answer] = {}
"""Answers that follow from the full name of a commit: they are the same whenever they are asked."""


@dataclass(frozen=True)
class _Moment:
    """What git answered since a moment began, and how often it was asked about single files."""

    answers: dict[Question, Answer] = field(default_factory=dict)
    asked: Counter[Question] = field(default_factory=Counter)


_MOMENT: _Moment | None = None
"""That of `at_one_moment`; None outside of it."""

_OF_REFS = frozenset({"merge-base", "remote", "rev-parse", "symbolic-ref"})
"""The questions about HEAD, branches and remotes, whose answers `at_one_moment` keeps."""

ASKED_APART = 8
"""Questions about the files of single loops that are asked one by one; then all files are listed.

A large repository takes longer to list than the few files of one loop, but not than those of many.
"""

_BLOBS: dict[str, bytes] = {}
"""Small blobs by their names, such as loop files, which several questions are about."""

_MOST_KEPT, _LARGEST_KEPT = 512, 65_536
"""Answers kept of each kind, and the bytes up to which one is kept: 32 MiB of each at most."""


def answered(root: Path, *arguments: str, given: bytes = b"") -> Answer:
    """Git's answer in a repository, from memory where it can't be another one."""
    key = root, arguments
    if key in _LASTING:
        return _LASTING[key]
    if _MOMENT is not None and not given and arguments[0] in _OF_REFS:
        if key not in _MOMENT.answers:
            _MOMENT.answers[key] = run_git(root, *arguments)
        return _MOMENT.answers[key]
    done = run_git(root, *arguments, given=given)
    is_short = len(done.stdout) <= _LARGEST_KEPT
    if done.returncode == 0 and not given and is_short and _is_lasting(arguments):
        _forget_first(_LASTING)
        _LASTING[key] = done
    return done


@contextmanager
def at_one_moment() -> Iterator[None]:
    """Judge many loops by the commits that HEAD and the branches name at first.

    A commit that someone makes meanwhile is not seen in half of them; and git is asked once. Which
    files were changed is kept too (`whole_if_often_asked`), so nothing in the block may write them.
    """
    global _MOMENT
    before, _MOMENT = _MOMENT, _Moment()
    try:
        yield
    finally:
        _MOMENT = before


def whole_if_often_asked(root: Path, *arguments: str) -> bytes | None:
    """What git lists of the whole repository, where it was often asked the same of single files.

    None before that, and outside of `at_one_moment`; and where git fails on some file, or lists so
    many that looking through them for each loop takes longer than to ask again.
    """
    if _MOMENT is None:
        return None
    key = root, arguments
    _MOMENT.asked[key] += 1
    if _MOMENT.asked[key] <= ASKED_APART:
        return None
    if key not in _MOMENT.answers:
        _MOMENT.answers[key] = run_git(root, *arguments)
    done = _MOMENT.answers[key]
    return done.stdout if done.returncode == 0 and len(done.stdout) <= _LARGEST_KEPT else None


def blobs_at_hand(blobs: Sequence[str]) -> list[bytes] | None:
    """The contents of blobs; None unless all of them are kept."""
    return [_BLOBS[blob] for blob in blobs] if all(blob in _BLOBS for blob in blobs) else None


def keep_blobs(blobs: Sequence[str], contents: Iterator[bytes]) -> Iterator[bytes]:
    """The contents of blobs, of which the small ones are kept."""
    for blob, content in zip(blobs, contents, strict=True):
        if len(content) <= _LARGEST_KEPT:
            _forget_first(_BLOBS)
            _BLOBS[blob] = content
        yield content


def _is_lasting(arguments: Sequence[str]) -> bool:
    """Whether a question is about one commit, by its full name, and not about refs or files."""
    command, *others = arguments
    named = [text for text in others if OBJECT_NAME.match(text)]
    return command in {"ls-tree", "rev-parse", "rev-list"} and len(named) == 1


def _forget_first(kept: dict[Any, Any]) -> None:
    """Make room for one more."""
    while len(kept) >= _MOST_KEPT:
        del kept[next(iter(kept))]
