"""Rows become examples: loading, ids, tags, content hashes, splitting off an eval set.

jsonl, json and csv are read without any library, so that a log can be judged where neither torch
nor pandas is installed; parquet and hub ids go through `datasets`.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.errors import DataError, FtloopError, Location, did_you_mean, shown_path
from pytest_ftloop.records import DataSet, Example

if TYPE_CHECKING:
    from types import ModuleType

TRL_COLUMNS = ("prompt", "completion", "messages", "text", "tools", "chat_template_kwargs")
"""The columns that trl trains on; all others are ours or nobody's."""

FILE_KINDS = {".jsonl", ".ndjson", ".json", ".csv", ".parquet"}

SPLITS = {"eval": ("eval", "validation", "test"), "holdout": ("holdout", "test")}
"""Splits that may serve as a role where none is named, the first found; else the role's name."""

ONE_A_LINE = "One JSON object a line? Then name the file .jsonl."

Row = tuple[Mapping[str, Any], Location | None]

_sorted_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode


@dataclass(frozen=True)
class Columns:
    """Which columns carry what. `id` None: a column `id` if there is one, else the content."""

    id: str | None = None
    tags: tuple[str, ...] = ("tags",)
    text: str = "text"


def load(
    source: Any, role: str, folder: Path, columns: Columns, where: Location | None = None
) -> DataSet:
    """The examples of one source.

    `source` is a path (relative to `folder`), a hub id, `module:function`, a mapping with the keys
    `hub`, `split`, `name`, `revision`, or an iterable of rows (a `datasets.Dataset`, say).
    Raises `DataError` with file and line for the first row that is no example.
    """
    rows = _rows(source, role, folder, where)
    return data_set(rows, role, describe(source, folder), columns, where)


def data_set(
    rows: Iterable[Row], role: str, source: str, columns: Columns, where: Location | None = None
) -> DataSet:
    """Rows checked, identified and hashed."""
    examples: list[Example] = []
    seen: dict[str, Example] = {}
    copies: Counter[str] = Counter()
    for number, (row, place) in enumerate(rows, start=1):
        at = place or Location(f"{source}, row {number}")
        example = _example(row, at, columns)
        if columns.id is None and row.get("id") is None and example.id in seen:
            # Content ids: the second of two equal rows gets a suffix, so both count.
            copies[example.content] += 1
            example = replace(example, id=f"{example.id}-{copies[example.content] + 1}")
        if example.id in seen:
            raise DataError(
                f"two {role} examples have the id {example.id!r}",
                where=at,
                cure=f"The first is at {seen[example.id].where}. Ids must be unique.",
            )
        seen[example.id] = example
        examples.append(example)
    if not examples:
        raise DataError(f"the {role} set {source} has no rows", where=where)
    forms = {_form(example.row) for example in examples}
    if len(forms) > 1:
        odd = next(e for e in examples if _form(e.row) != _form(examples[0].row))
        raise DataError(
            f"the {role} set mixes forms: the first row is {_form(examples[0].row)}, this one is "
            f"{_form(odd.row)}",
            where=odd.where,
            cure="Bring all rows into one form.",
        )
    return DataSet(role, source, tuple(examples), content_hash(examples))


def content_hash(examples: Iterable[Example]) -> str:
    """A hash of what the rows say, in order, with ids and tags; not of how the file is written."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.id, example.content, example.tags]).encode() + b"\n")
    return digest.hexdigest()


def split_off(train: DataSet, fraction: float, seed: int) -> tuple[DataSet, DataSet]:
    """The train set without, and the eval set of, a seeded share of its examples (at least one)."""
    total = len(train.examples)
    count = max(1, round(total * fraction))
    if count >= total:
        raise DataError(
            f"splitting {count} of {total} train examples off leaves none to train on",
            cure="Use more train rows or a smaller fraction.",
        )
    chosen = set(random.Random(seed).sample(range(total), count))
    kept = tuple(e for i, e in enumerate(train.examples) if i not in chosen)
    held = tuple(e for i, e in enumerate(train.examples) if i in chosen)
    source = f"{fraction:g} of {train.source}, seed {seed}"
    return (
        DataSet(
            "train", f"{train.source} without {fraction:g}, seed {seed}", kept, content_hash(kept)
        ),
        DataSet("eval", source, held, content_hash(held)),
    )


def describe(source: Any, folder: Path) -> str:
    """A source in a few words, without any path of this machine."""
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_absolute():
            return str(source)
        return path.relative_to(folder).as_posix() if folder in path.parents else path.name
    if isinstance(source, Mapping):
        parts = {**source, "hub": describe(source["hub"], folder)}
        return " ".join(f"{key}={value}" for key, value in parts.items())
    return type(source).__name__


def _rows(source: Any, role: str, folder: Path, where: Location | None) -> Iterator[Row]:
    if isinstance(source, Mapping):
        return _hub_rows(source, role, folder, where)
    if not isinstance(source, str | Path):
        return _given_rows(source, role, where)
    text = str(source)
    if not text.strip():
        raise DataError(f"{role} data names nothing", where=where, cure="Name a file or a hub id.")
    path = folder / text
    if path.suffix.lower() in FILE_KINDS or path.is_file():
        return _file_rows(path, where)
    function = re.fullmatch(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)", text)
    if function:
        return _function_rows(function[1], function[2], folder, where)
    if path.is_dir():
        return _hub_rows({"hub": text}, role, folder, where)
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?", text):
        name, _, revision = text.partition("@")
        return _hub_rows({"hub": name, "revision": revision or None}, role, folder, where)
    raise DataError(
        f"{role} data {text!r} is no file, hub id or module:function",
        where=where,
        cure=f"Looked for {path}. Files end in {', '.join(sorted(FILE_KINDS))}.",
    )


def _given_rows(source: Any, role: str, where: Location | None) -> Iterator[Row]:
    if not isinstance(source, Iterable):
        raise DataError(
            f"wanted {role} rows or their source, found {type(source).__name__}", where=where
        )
    name = describe(source, Path())
    for number, row in enumerate(source, start=1):
        at = Location(f"{name}, row {number}")
        yield _named_columns(row, at), at


def _file_rows(path: Path, where: Location | None) -> Iterator[Row]:
    shown = shown_path(path)
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise DataError(
            f"data file {shown} does not exist",
            where=where,
            cure=did_you_mean(path.name, near) if near else f"Looked for {path}.",
        )
    kind = path.suffix.lower()
    if kind == ".parquet":
        yield from _parquet_rows(path, shown)
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
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
    # Not splitlines(): a JSON string may hold U+2028 and the like unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = Location(shown, number)
            yield _named_columns(_parse_json(line, where), where), where


def _json_rows(text: str, shown: str) -> Iterator[Row]:
    rows = _parse_json(text, Location(shown), cure=ONE_A_LINE)
    if not isinstance(rows, list):
        raise DataError(
            f"wanted a list of rows, found {type(rows).__name__}",
            where=Location(shown),
            cure=ONE_A_LINE,
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
            # Where the row begins: a quoted cell may go on over many lines.
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
                    cure="Quote cells that hold commas or line ends.",
                )
            yield dict(zip(names, cells, strict=True)), where
    except csv.Error as error:
        raise DataError(f"not CSV: {error}", where=Location(shown, end + 1)) from None


def allow_long_cells() -> None:
    """Let the csv module read cells of any length: a cell may hold a whole document."""
    csv.field_size_limit(2**31 - 1)


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
        yield row, Location(f"{shown}, row {number}")


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
    except Exception as error:  # datasets raises many kinds; each is the user's
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
        yield row, Location(f"{shown}[{split}], row {number}")


def _function_rows(
    module: str, function: str, folder: Path, where: Location | None
) -> Iterator[Row]:
    name = f"{module}:{function}"
    sys.path.insert(0, str(folder.resolve()))
    importlib.invalidate_caches()
    try:
        imported = importlib.import_module(module)
        _refuse_namesake(imported, name, module, folder, where)
        if not hasattr(imported, function):
            raise DataError(
                f"data function {name}: {module} has no function {function!r}",
                where=where,
                cure=did_you_mean(function, (n for n, v in vars(imported).items() if callable(v))),
            )
        rows = list(getattr(imported, function)())
    except FtloopError:
        raise
    except Exception as error:
        raise DataError(
            f"data function {name} failed: {type(error).__name__}: {error}",
            where=where,
            cure="It is called without arguments and returns rows.",
        ) from error
    finally:
        sys.path.remove(str(folder.resolve()))
    for number, row in enumerate(rows, start=1):
        at = Location(f"{name}, row {number}")
        yield _named_columns(row, at), at


def _refuse_namesake(
    imported: ModuleType, name: str, module: str, folder: Path, where: Location | None
) -> None:
    """Two loops' folders may each hold a `rows.py`: the second must not be given the first's."""
    wanted = folder / f"{module.replace('.', '/')}.py"
    if wanted.is_file() and Path(imported.__file__ or "").resolve() != wanted.resolve():
        raise DataError(
            f"data function {name}: wanted {wanted}, found that another module {module!r} is "
            f"already imported ({imported.__file__})",
            where=where,
            cure="Give the file a name of its own.",
        )


def _parse_json(text: str, where: Location, cure: str = "") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = where.line if where.line is not None else error.lineno
        raise DataError(
            f"not JSON: {error.msg} at column {error.colno}",
            where=Location(where.file, line),
            cure=cure if error.msg == "Extra data" else "",
        ) from None
    except (ValueError, RecursionError) as error:  # a number of 5000 digits, 5000 brackets
        raise DataError(f"not JSON that can be read: {error}", where=where) from None


def _named_columns(value: Any, where: Location) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise DataError(
        f"wanted a row with named columns, found {type(value).__name__}",
        where=where,
        cure='For example {"prompt": "...", "completion": "..."}.',
    )


def _example(row: Mapping[str, Any], where: Location, columns: Columns) -> Example:
    kept = _trl_row(row, where, columns)
    choices = _choices(row.get("choices"), where)
    said = {**kept, "choices": choices} if choices else kept
    id_, tags = _id(row, where, columns), _tags(row, where, columns)
    try:
        bytes_ = _sorted_json(said).encode()
        "".join((id_ or "", *tags)).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"half of a character: the surrogate {error.object[error.start]!a} stands alone",
            where=where,
            cure="No tokenizer takes it. Mend the text where it was cut.",
        ) from None
    content = hashlib.sha256(bytes_).hexdigest()[:12]
    prompt, expected = _texts(kept)
    return Example(
        id=content if id_ is None else id_,
        content=content,
        row=kept,
        tags=tags,
        prompt=prompt,
        expected=expected,
        choices=choices,
        where=where,
    )


def _trl_row(row: Mapping[str, Any], where: Location, columns: Columns) -> dict[str, Any]:
    """The columns trl reads, checked. The order of forms is trl's own."""
    names = {*TRL_COLUMNS, columns.text}
    kept = {name: value for name, value in row.items() if name in names and value is not None}
    if "prompt" in kept or "completion" in kept:
        for name in ("prompt", "completion"):
            if name not in kept:
                raise DataError(
                    f"wanted a column {name!r} beside the other, found none", where=where
                )
            _check_text_or_messages(kept[name], name, where)
        if isinstance(kept["prompt"], str) != isinstance(kept["completion"], str):
            raise DataError("prompt and completion must both be text or both messages", where=where)
        if not kept["completion"]:
            raise DataError("the completion is empty: there is nothing to learn", where=where)
    elif "messages" in kept:
        _check_text_or_messages(kept["messages"], "messages", where, text=False)
    elif columns.text in kept:
        if not isinstance(kept[columns.text], str):
            found = type(kept[columns.text]).__name__
            raise DataError(f"wanted text in {columns.text}, found {found}", where=where)
        if not kept[columns.text].strip():
            raise DataError("the text is empty: there is nothing to learn", where=where)
    else:
        raise DataError(
            f"wanted the columns prompt and completion, messages, or {columns.text}; found "
            f"{', '.join(str(name) for name in row) or 'none'}",
            where=where,
            cure="Rename the columns, or write a function module:function that returns such rows.",
        )
    return {name: _without_nulls(value) for name, value in kept.items()}


def _without_nulls(value: Any) -> Any:
    """Messages without the null keys that parquet adds to each; a null `content` says something."""
    if not (isinstance(value, list) and value and isinstance(value[0], Mapping)):
        return value
    if not all("role" in message for message in value):
        return value
    return [{k: v for k, v in m.items() if v is not None or k == "content"} for m in value]


def _check_text_or_messages(value: Any, name: str, where: Location, *, text: bool = True) -> None:
    if text and isinstance(value, str):
        return
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not value:
            raise DataError(f"{name} is an empty list", where=where)
        for message in value:
            if not (isinstance(message, Mapping) and {"role", "content"} <= set(message)):
                raise DataError(
                    f'wanted messages {{"role", "content"}} in {name}, found {message!r:.80}',
                    where=where,
                )
        return
    wanted = "text or a list of messages" if text else "a list of messages"
    raise DataError(f"wanted {wanted} in {name}, found {type(value).__name__}", where=where)


def _texts(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Prompt and expected output as text; None, None for the `text` form."""
    if "prompt" in row:
        return _flat(row["prompt"]), _flat(row["completion"], only_content=True)
    if "messages" in row:
        messages = row["messages"]
        return _flat(messages[:-1]), _flat(messages[-1:], only_content=True)
    return None, None


def _flat(value: Any, *, only_content: bool = False) -> str:
    if isinstance(value, str):
        return value
    lines = [str(m["content"]) if only_content else f"{m['role']}: {m['content']}" for m in value]
    return "\n".join(lines)


def _id(row: Mapping[str, Any], where: Location, columns: Columns) -> str | None:
    """The stated id; None where the content is to stand for it."""
    name = columns.id or "id"
    value = row.get(name)
    if value is None and columns.id is None:
        return None
    if value in (None, ""):
        raise DataError(
            f"the id column {name!r} is empty or missing",
            where=where,
            cure="" if name in row else did_you_mean(name, (str(n) for n in row)),
        )
    return str(value)


def _tags(row: Mapping[str, Any], where: Location, columns: Columns) -> tuple[str, ...]:
    tags: dict[str, None] = {}
    for column in columns.tags:
        if column not in row and column != "tags":
            raise DataError(
                f"the tag column {column!r} is missing",
                where=where,
                cure=did_you_mean(column, (str(n) for n in row)),
            )
        tags |= dict.fromkeys(_parts(row.get(column)))
    return tuple(tags)


def _parts(value: Any) -> tuple[str, ...]:
    """A list gives its items, a text the parts between semicolons, anything else itself."""
    parts = value.split(";") if isinstance(value, str) else value
    listed = parts if isinstance(parts, list | tuple) else [parts]
    texts = (" ".join(str(p).replace(";", ",").split()) for p in listed if p is not None)
    return tuple(text for text in texts if text)


def _choices(value: Any, where: Location) -> tuple[str, ...]:
    """A list's items or the parts between semicolons, as they stand: a leading space is theirs."""
    parts = value.split(";") if isinstance(value, str) else value
    if parts is None:
        return ()
    if not isinstance(parts, list | tuple):
        raise DataError(
            f"wanted a list of candidates in choices, found {type(value).__name__}", where=where
        )
    return tuple(str(part) for part in parts if part not in (None, ""))


def _form(row: Mapping[str, Any]) -> str:
    if "prompt" in row:
        return "prompt/completion" + ("" if isinstance(row["prompt"], str) else " as messages")
    return "messages" if "messages" in row else "text"


def _needs_extra(what: str) -> DataError:
    return DataError(f"{what} needs the training extra", cure='pip install "pytest-ftloop[train]"')
