"""The files of a trainer: where its state is, and that it is one."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from pytest_ftloop.core.bounds import MOST_BYTES, read_bytes, read_json
from pytest_ftloop.core.errors import DataError, Location, shown_path
from pytest_ftloop.core.runs import LARGEST
from pytest_ftloop.log.files import POINTER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STATE = "trainer_state.json"
CHECKPOINT = re.compile(r"checkpoint-(\d{1,15})")

MOST_STEPS = 10**15
"""Maximum number of steps that is accepted: a larger one is damage, and as a float loses digits."""

CURE = "Name a trainer_state.json, a checkpoint, or the trainer's output_dir."


def states_in(folder: Path) -> Iterator[Path]:
    """The states of a folder and of its checkpoints, newest first; of equal ones its own first."""
    own = folder / STATE
    at_own = steps_of(own) if own.is_file() else -1
    for step, checkpoint in checkpoints(folder):
        if step <= at_own:
            yield own
            at_own = -1
        if (state := checkpoint / STATE).is_file():
            yield state
    if at_own >= 0:
        yield own


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder, newest first, with their steps."""
    try:
        names = [child.name for child in folder.iterdir()]
    except OSError as error:
        raise DataError(
            f"can't be read: {error.strerror}", where=Location(shown_path(folder)), cure=CURE
        ) from None
    found = [(int(match[1]), name) for name in names if (match := CHECKPOINT.fullmatch(name))]
    return [(step, folder / name) for step, name in sorted(found, reverse=True)]


def pointer(path: Path) -> DataError:
    """The error of a file that git left as a pointer of Git LFS."""
    return DataError(
        "it is a Git LFS pointer, not the file itself",
        where=Location(shown_path(path)),
        cure="Fetch it: git lfs pull (git lfs install first, if git does not know lfs).",
    )


def load_state(path: Path) -> dict[str, Any]:
    """The state in a file: an object with a `log_history`. DataError for anything else."""
    where = Location(shown_path(path))
    try:
        content = read_bytes(path, MOST_BYTES)
        if content.startswith(POINTER):
            raise pointer(path)
        # -sig: some editors add a byte order mark.
        state = read_json(content.decode("utf-8-sig"))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DataError(f"can't be read: {why}", where=where, cure=CURE) from None
    except json.JSONDecodeError as error:
        at = Location(shown_path(path), error.lineno)
        what = f"wanted JSON, found invalid or incomplete text: {error.msg}"
        cure = f"{CURE} If the file is truncated, name an older one."
        raise DataError(what, where=at, cure=cure) from None
    except UnicodeDecodeError:
        what = "wanted JSON, found text that is not UTF-8"
        raise DataError(what, where=where, cure=CURE) from None
    except ValueError as error:
        what = f"wanted a trainer's state, found JSON that can't be read: {error}"
        raise DataError(what, where=where, cure=CURE) from None
    if not isinstance(state, dict) or "log_history" not in state:
        found = "none" if isinstance(state, dict) else kind_of(state)
        raise DataError(
            f"wanted a trainer's state with log_history, found {found}", where=where, cure=CURE
        )
    return state


def number(value: object, name: str, path: Path) -> float:
    """A figure as a float, infinite if it is beyond any. DataError for what is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong(path, name, "a number", value)
    if isinstance(value, float) and math.isnan(value):
        return value
    if abs(value) < LARGEST:
        return float(value)
    return math.inf if value > 0 else -math.inf


def count(of: Mapping[str, Any], key: str, path: Path, name: str) -> int:
    """The number of steps at `key`. DataError for what is none."""
    value = of.get(key)
    if not is_count(value):
        raise wrong(path, name, "a number of steps", value)
    return int(value)


def stated_steps(state: Mapping[str, Any], key: str) -> int:
    """A number of steps; 0 if none is stated (-1 means none): then the log's last step counts."""
    value = state.get(key)
    return int(value) if is_count(value) else 0


def stated_epochs(state: Mapping[str, Any]) -> float:
    """The epochs done; 0 if none are stated, or not with the steps: then the log's last count."""
    value = state.get("epoch")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    is_done = 0 < value < MOST_STEPS and stated_steps(state, "global_step") > 0
    return float(value) if is_done else 0.0


def is_count(value: object) -> TypeGuard[int | float]:
    """Whether a value is a whole number of steps, up to `MOST_STEPS`."""
    is_whole = type(value) is int or (isinstance(value, float) and value.is_integer())
    return is_whole and 0 <= value <= MOST_STEPS  # type: ignore[operator]


def steps_of(path: Path) -> int:
    """The steps that a state states as taken. A damaged one counts as newest, to be reported."""
    try:
        return stated_steps(load_state(path), "global_step")
    except DataError:
        return MOST_STEPS


def wrong(path: Path, name: str, wanted: str, found: object) -> DataError:
    """The error of a value that is not what was wanted."""
    return DataError(
        f"{name}: wanted {wanted}, found {kind_of(found)}",
        where=Location(shown_path(path)),
        cure=CURE,
    )


def kind_of(value: object) -> str:
    """A value for an error: short, or what kind it is."""
    if value is None:
        return "none"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    return ascii(value)[:60]
