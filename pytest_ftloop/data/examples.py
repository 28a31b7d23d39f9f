"""Turn rows into examples with ids, tags and content hashes; split off an eval set.

jsonl, json and csv are read without further libraries, so that a log can be judged without torch
and pandas. parquet needs pyarrow, the hub needs `datasets`.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_ftloop.config.loop_config import Columns
from pytest_ftloop.core.errors import DataError, Location, did_you_mean
from pytest_ftloop.core.records import DataSet, Example
from pytest_ftloop.data.sources import Row, describe, read_rows

TRL_COLUMNS = ("prompt", "completion", "messages", "text", "tools", "chat_template_kwargs")
"""The columns that trl reads. Of the others, only ids, tags and choices are used."""

_sorted_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode


def load(
    source: Any, role: str, folder: Path, columns: Columns, where: Location | None = None
) -> DataSet:
    """The examples of one source.

    `source` is a path (relative to `folder`), a hub id, `module:function`, a mapping with the keys
    `hub`, `split`, `name`, `revision`, or an iterable of rows (such as a `datasets.Dataset`).
    Raises `DataError` with file and line for the first row that is not an example.
    """
    rows = read_rows(source, role, folder, where)
    return data_set(rows, role, describe(source, folder), columns, where)


def load_content(content: bytes, name: str, role: str, columns: Columns) -> DataSet:
    """The examples of a file with this name and content, such as an old version from git."""
    with tempfile.TemporaryDirectory(prefix="ftloop-") as made:
        Path(made, name).write_bytes(content)
        return load(name, role, Path(made), columns)


def data_set(
    rows: Iterable[Row], role: str, source: str, columns: Columns, where: Location | None = None
) -> DataSet:
    """The rows as a data set: checked, with ids and content hashes."""
    examples: list[Example] = []
    seen: dict[str, Example] = {}
    copies: Counter[str] = Counter()
    for number, (row, place) in enumerate(rows, start=1):
        at = place or Location(f"{source}, row {number}")
        example = _example(row, at, columns)
        if columns.id is None and row.get("id") is None and example.id in seen:
            # The id is the content's hash: the second of two equal rows gets a suffix.
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
            cure="Give all rows the same form.",
        )
    return DataSet(role, source, tuple(examples), content_hash(examples))


def content_hash(examples: Iterable[Example]) -> str:
    """A hash of the rows in order, with ids and tags, whatever the format of their file."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.id, example.content, example.tags]).encode() + b"\n")
    return digest.hexdigest()


def split_off(train: DataSet, fraction: float, seed: int) -> tuple[DataSet, DataSet]:
    """The rest of the train set, and a random fraction of it (at least one example) as eval set."""
    total = len(train.examples)
    count = max(1, round(total * fraction))
    if count >= total:
        raise DataError(
            f"splitting off {count} of {total} train examples leaves none to train on",
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
            f"half a character: the surrogate {error.object[error.start]!a} is unpaired",
            where=where,
            cure="Tokenizers reject it. Repair the text where it was cut off.",
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
        text_column=columns.text,
    )


def _trl_row(row: Mapping[str, Any], where: Location, columns: Columns) -> dict[str, Any]:
    """The columns that trl reads, checked. The order of the forms is that of trl."""
    names = {*TRL_COLUMNS, columns.text}
    kept = {name: value for name, value in row.items() if name in names and value is not None}
    if "prompt" in kept or "completion" in kept:
        for name in ("prompt", "completion"):
            if name not in kept:
                raise DataError(
                    f"wanted the columns prompt and completion, found no {name}", where=where
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
    """Messages without the null keys that parquet adds; a null `content` is kept."""
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
    """The prompt and the expected output as text; None, None for the `text` form."""
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
    """The stated id; None if the id is to be the content's hash."""
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
    """The items of a list, the parts of a text between semicolons, or the value itself."""
    parts = value.split(";") if isinstance(value, str) else value
    listed = parts if isinstance(parts, list | tuple) else [parts]
    texts = (" ".join(str(p).replace(";", ",").split()) for p in listed if p is not None)
    return tuple(text for text in texts if text)


def _choices(value: Any, where: Location) -> tuple[str, ...]:
    """The items of a list or the parts between semicolons, with leading spaces kept."""
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
