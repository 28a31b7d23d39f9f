"""Read rows from a file, the hub, a function or live objects."""

from __future__ import annotations

import csv
import importlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pytest_ftloop.config.sources import Mixture, sources_in
from pytest_ftloop.core.bounds import MOST_BYTES, check_file, read_bytes, read_json
from pytest_ftloop.core.csv_cells import allow_long_cells
from pytest_ftloop.core.errors import DataError, FtloopError, Location, did_you_mean, shown_path
from pytest_ftloop.core.functions import described, load_function, raised_at
from pytest_ftloop.core.modules import own_modules
from pytest_ftloop.data.messages import without_nulls

FILE_KINDS = {".jsonl", ".ndjson", ".json", ".csv", ".parquet"}
"""The suffixes of data files."""

SPLITS = {"eval": ("eval", "validation", "test"), "holdout": ("holdout", "test")}
"""The splits to look for if none is named, by role; other roles take the split of their name."""

ONE_PER_LINE = "If it has one JSON object per line, name the file .jsonl."
"""The cure for a JSON file that is not a list of rows."""

_FUNCTION = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
"""How a source names a user's function, if there is no file of this name."""

Row = tuple[Mapping[str, Any], Location | None]


def describe(source: Any, folder: Path) -> str:
    """A short description of a source, without absolute paths."""
    if isinstance(source, Mixture):
        parts = [(describe(part, folder), weight) for part, weight in source.parts]
        return " + ".join(name if weight == 1 else f"{weight:g} * {name}" for name, weight in parts)
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_absolute():
            return str(source)
        return path.relative_to(folder).as_posix() if folder in path.parents else path.name
    if isinstance(source, Mapping):
        stated = {**source, "hub": describe(source["hub"], folder)}
        return " ".join(f"{key}={value}" for key, value in stated.items())
    return type(source).__name__


def functions_in(source: Any, folder: Path) -> list[str]:
    """The user's functions among the sources of a mixture, or the one source."""
    return [
        part
        for part in sources_in(source)
        if isinstance(part, str)
        and re.fullmatch(_FUNCTION, part)
        and Path(part).suffix.lower() not in FILE_KINDS
        and not (folder / part).is_file()
    ]


def read_rows(source: Any, role: str, folder: Path, where: Location | None) -> Iterator[Row]:
    """The rows of a source as mappings. Raises `DataError` with file and line for a bad row."""
    if isinstance(source, Mapping):
        return _hub_rows(source, role, folder, where)
    if not isinstance(source, str | Path):
        return _given_rows(source, role, where)
    text = str(source)
    if not text.strip():
        raise DataError(
            f"{role} data is an empty text", where=where, cure="Name a file or a hub id."
        )
    path = folder / text
    if path.suffix.lower() in FILE_KINDS or path.is_file():
        return _file_rows(path, where)
    if re.fullmatch(_FUNCTION, text):
        return _function_rows(text, folder, where)
    if path.is_dir():
        return _hub_rows({"hub": text}, role, folder, where)
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?", text):
        name, _, revision = text.partition("@")
        return _hub_rows({"hub": name, "revision": revision or None}, role, folder, where)
    raise DataError(
        f"{role} data {text!r} is not a file, hub id or module:function",
        where=where,
        cure=f"Looked for {path}. Files end in {', '.join(sorted(FILE_KINDS))}.",
    )


def _given_rows(source: Any, role: str, where: Location | None) -> Iterator[Row]:
    if not isinstance(source, Iterable):
        raise DataError(
            f"wanted {role} rows or their source, found {type(source).__name__}", where=where
        )
    name = describe(source, Path())
    for number, row in enumerate(_from_arrow(source), start=1):
        at = Location(f"{name}, row {number}")
        yield _named_columns(row, at), at


def _from_arrow(rows: Iterable[Any]) -> Iterable[Any]:
    """The rows, of a `datasets.Dataset` without the null keys that Arrow added to messages."""
    is_arrow = type(rows).__module__.partition(".")[0] == "datasets"
    return map(_of_arrow, rows) if is_arrow else rows


def _of_arrow(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: without_nulls(value) for name, value in row.items()}


def missing_file(path: Path, where: Location | None) -> DataError:
    """The error for a data file that does not exist, with the nearest name beside it."""
    beside = path.parent.glob("*") if path.parent.is_dir() else ()
    near = [p.name for p in beside if p.suffix.lower() in FILE_KINDS]
    cure = did_you_mean(path.name, near).replace("Valid names", "Data files there")
    return DataError(
        f"data file {shown_path(path)} does not exist",
        where=where,
        cure=cure if near else f"Looked for {path}.",
    )


def _file_rows(path: Path, where: Location | None) -> Iterator[Row]:
    shown = shown_path(path)
    if not path.exists():
        raise missing_file(path, where)
    kind = path.suffix.lower()
    try:
        check_file(path, MOST_BYTES)
        if kind == ".parquet":
            yield from _parquet_rows(path, shown)
            return
        text = read_bytes(path, MOST_BYTES).decode("utf-8-sig")
        # A cell with a line break is the same cell in a file of Windows.
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        raise DataError(
            f"not UTF-8: byte {error.start} is {error.object[error.start]:#04x}",
            where=Location(shown, before.count(b"\n") + 1),
            cure="Save the file as UTF-8.",
        ) from None
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror}", where=Location(shown)) from None
    reader = {".csv": _csv_rows, ".json": _json_rows}.get(kind, _jsonl_rows)
    yield from reader(text, shown)


def _jsonl_rows(text: str, shown: str) -> Iterator[Row]:
    # Not splitlines(): a JSON string may contain U+2028 and similar characters unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = Location(shown, number)
            yield _named_columns(_parse_json(line, where), where), where


def _json_rows(text: str, shown: str) -> Iterator[Row]:
    rows = _parse_json(text, Location(shown), cure=ONE_PER_LINE)
    if not isinstance(rows, list):
        raise DataError(
            f"wanted a list of rows, found {type(rows).__name__}",
            where=Location(shown),
            cure=ONE_PER_LINE,
        )
    for number, row in enumerate(rows, start=1):
        where = Location(f"{shown}, row {number}")
        yield _named_columns(row, where), where


def _csv_rows(text: str, shown: str) -> Iterator[Row]:
    allow_long_cells()
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] = []
    end = 0
    try:
        for cells in reader:
            # Where the row begins, since a quoted cell may span many lines.
            where, end = Location(shown, end + 1), reader.line_num
            if not cells:
                continue
            if not names:
                names = _column_names(cells, where)
                continue
            if len(cells) != len(names):
                raise DataError(
                    f"wanted {len(names)} cells, found {len(cells)}",
                    where=where,
                    cure="Quote cells that contain commas or line breaks.",
                )
            yield dict(zip(names, cells, strict=True)), where
    except csv.Error as error:
        raise DataError(f"not CSV: {error}", where=Location(shown, end + 1)) from None


def _column_names(cells: list[str], where: Location) -> list[str]:
    names = [cell.strip() for cell in cells]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"two columns are named {twice[0]!r}", where=where)
    return names


def _parquet_rows(path: Path, shown: str) -> Iterator[Row]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise _needs_extra(f"reading {shown}") from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"not parquet: {error}", where=Location(shown)) from None
    for number, row in enumerate(rows, start=1):
        yield _of_arrow(row), Location(f"{shown}, row {number}")


def _hub_rows(
    source: Mapping[str, Any], role: str, folder: Path, where: Location | None
) -> Iterator[Row]:
    shown = str(source["hub"])
    local = folder / shown
    name = str(local) if local.is_dir() else shown
    stated = source.get("split")
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise _needs_extra(f"loading {shown}") from None
    about = {"name": source.get("name"), "revision": source.get("revision")}
    try:
        split = stated
        if not stated:
            splits = datasets.get_dataset_split_names(
                name, about["name"], revision=about["revision"]
            )
            split = next((s for s in SPLITS.get(role, ()) if s in splits), role)
        loaded = datasets.load_dataset(name, split=split, **about)
    except Exception as error:  # datasets raises many kinds, all for the user to solve
        reason = str(error).strip().splitlines() or [type(error).__name__]
        files = [p.name for p in local.parent.iterdir()] if local.parent.is_dir() else []
        near = get_close_matches(local.name, files, n=1)
        raise DataError(
            f"data {shown!r} (split {stated or role}) could not be loaded: {reason[0]}",
            where=where,
            cure=(
                f"Did you mean the file {shown_path(local.with_name(near[0]))!r}? " if near else ""
            )
            + "Name a file, a hub id (network needed once), or {hub: owner/name, split: ...}.",
        ) from error
    for number, row in enumerate(loaded, start=1):
        yield _of_arrow(row), Location(f"{shown}[{split}], row {number}")


def _function_rows(name: str, folder: Path, where: Location | None) -> Iterator[Row]:
    function = load_function("data function", name, (), folder, where)
    try:
        with own_modules(folder).in_use():  # a generator may import modules as it runs
            rows = function()
            rows = list(_from_arrow(rows)) if isinstance(rows, Iterable) else rows
    except FtloopError:
        raise
    except Exception as error:
        raise DataError(
            f"data function {name!r} raised {described(error)}",
            where=where,
            cure=f"It was raised at {raised_at(error)}.",
        ) from error
    if not isinstance(rows, list):
        raise DataError(
            f"data function {name!r}: wanted rows, found {type(rows).__name__}", where=where
        )
    for number, row in enumerate(rows, start=1):
        at = Location(f"{name}, row {number}")
        yield _named_columns(row, at), at


def _parse_json(text: str, where: Location, cure: str = "") -> Any:
    try:
        return read_json(text)
    except json.JSONDecodeError as error:
        line = where.line if where.line is not None else error.lineno
        raise DataError(
            f"not JSON: {error.msg} at column {error.colno}",
            where=Location(where.file, line),
            cure=cure if error.msg == "Extra data" else "",
        ) from None
    except ValueError as error:  # a number of 500 digits, 500 brackets
        raise DataError(f"JSON that can't be read: {error}", where=where) from None


def _named_columns(value: Any, where: Location) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise DataError(
        f"wanted a row with named columns, found {type(value).__name__}",
        where=where,
        cure='For example {"prompt": "...", "completion": "..."}.',
    )


def _needs_extra(what: str) -> DataError:
    return DataError(f"{what} needs the training extra", cure='pip install "pytest-ftloop[train]"')
