"""Turn rows into examples with ids, tags and content hashes; split off an eval set.

jsonl, json and csv are read without further libraries, so that a log can be judged without torch
and pandas. parquet needs pyarrow, the hub needs `datasets`.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from pytest_ftloop.config.sources import Columns, Mixture
from pytest_ftloop.core.errors import DataError, Location, did_you_mean
from pytest_ftloop.core.records import DataSet, Example, scored_content
from pytest_ftloop.core.temporary import temporary_folder
from pytest_ftloop.data.forms import content_of, form, hashed, texts, trl_row
from pytest_ftloop.data.mixture import mixed_rows
from pytest_ftloop.data.sources import Row, describe, read_rows

_Values = Mapping[str, Any]
"""Values by column."""


def load(
    source: Any, role: str, folder: Path, columns: Columns, where: Location | None = None
) -> DataSet:
    """The examples of one source.

    `source` is a path (relative to `folder`), a hub id, `module:function`, a mapping with the keys
    `hub`, `split`, `name`, `revision`, an iterable of rows (such as a `datasets.Dataset`), or a
    mixture of these.
    Raises `DataError` with file and line for the first row that is not an example.
    """
    if isinstance(source, Mixture):
        rows = mixed_rows(source, role, folder, where)
        return data_set(rows, role, describe(source, folder), columns, where, mixed=True)
    rows = read_rows(source, role, folder, where)
    return data_set(rows, role, describe(source, folder), columns, where)


def load_content(content: bytes, name: str, role: str, columns: Columns) -> DataSet:
    """The examples of a file with this name and content, such as an old version from git."""
    with temporary_folder() as made:
        (made / name).write_bytes(content)
        return load(name, role, made, columns)


def data_set(
    rows: Iterable[Row],
    role: str,
    source: str,
    columns: Columns,
    where: Location | None = None,
    *,
    mixed: bool = False,
) -> DataSet:
    """The rows as a data set: checked, with ids and content hashes.

    In a `mixed` one, sources may share ids: the second example of an id gets a suffix.
    """
    examples: list[Example] = []
    seen: dict[str, Example] = {}
    copies: Counter[str] = Counter()
    found: dict[str, None] = {}
    for number, (row, place) in enumerate(rows, start=1):
        at = place or Location(f"{source}, row {number}")
        example = _example(row, at, columns)
        found |= dict.fromkeys(map(str, row))
        if example.id in seen and (mixed or example.id == example.content):
            # The id is the content's hash, or another source's: the second gets a suffix.
            copies[example.id] += 1
            example = replace(example, id=f"{example.id}-{copies[example.id] + 1}")
        if example.id in seen:
            raise DataError(
                f"two {role} examples have the id {example.id!r}",
                where=at,
                cure=f"The first is at {seen[example.id].where}. Ids must be unique.",
            )
        if role != "train":
            example = scored_content(example)
        seen[example.id] = example
        examples.append(example)
    if not examples:
        raise DataError(f"the {role} set {source} has no rows", where=where)
    if role != "train":
        _check_kept(examples, role, columns)
    forms = {form(example.row) for example in examples}
    if len(forms) > 1:
        odd = next(e for e in examples if form(e.row) != form(examples[0].row))
        raise DataError(
            f"the {role} set mixes forms: the first row is {form(examples[0].row)}, this one is "
            f"{form(odd.row)}",
            where=odd.where,
            cure="Give all rows the same form.",
        )
    return DataSet(role, source, tuple(examples), content_hash(examples), tuple(found))


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
    held = tuple(scored_content(e) for i, e in enumerate(train.examples) if i in chosen)
    source = f"{fraction:g} of {train.source}, seed {seed}"
    return (
        DataSet(
            "train",
            f"{train.source} without {fraction:g}, seed {seed}",
            kept,
            content_hash(kept),
            train.columns,
        ),
        DataSet("eval", source, held, content_hash(held), train.columns),
    )


def _example(row: Mapping[str, Any], where: Location, columns: Columns) -> Example:
    kept = trl_row(row, where, columns)
    choices = _choices(row.get("choices"), where)
    id_, tags = _id(row, where, columns), _tags(row, where, columns)
    answers, read = _answers(row, where, columns), _read(row, kept, columns)
    try:
        content = content_of(hashed(kept))
        "".join((id_ or "", *tags)).encode()
    except UnicodeEncodeError as error:
        raise _half_a_character(error, where) from None
    prompt, expected = texts(kept)
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
        kept=read,
        answers=answers,
        scored_by=_scored_by(answers, read, choices, where),
    )


def _read(row: _Values, kept: _Values, columns: Columns) -> dict[str, Any]:
    """The columns that only the user's scorer reads: not those that have an own place.

    Those of `data.keep` are stated, whatever place they have.
    """
    others: set[str | None] = {*kept, "id", "tags", "choices"}
    if columns.read is None:
        others |= {columns.id, "conversations"}
    return {
        name: value
        for name, value in row.items()
        if name in columns.keep
        or (name not in others and (columns.read is None or name in columns.read))
    }


def _scored_by(
    answers: Sequence[str], read: _Values, choices: Sequence[str], where: Location
) -> str:
    """A hash of what only the scoring of an example reads; empty if that is nothing."""
    if not answers and not read and not choices:
        return ""
    try:
        bytes_ = _plain_json([answers, read, *([choices] if choices else [])]).encode()
    except UnicodeEncodeError as error:
        raise _half_a_character(error, where) from None
    return hashlib.sha256(bytes_).hexdigest()[:8]


def _named_by_type(value: object) -> str:
    """How a value that is not JSON counts: a picture's text would have its place in memory."""
    is_plain = isinstance(value, datetime.date | datetime.time | Decimal)
    return str(value) if is_plain else type(value).__name__


_plain_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=_named_by_type).encode


def _answers(row: _Values, where: Location, columns: Columns) -> tuple[str, ...]:
    """The acceptable answers in a row: a list of texts, a text, or SQuAD's `{"text": [...]}`."""
    if columns.answers is None:
        return ()
    value = row.get(columns.answers)
    if isinstance(value, Mapping):
        value = value.get("text")
    if value is None:
        return ()
    found = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(v, str) or type(v) in (int, float) for v in found):
        raise DataError(
            f"the column {columns.answers!r} of data.answers: wanted a list of texts",
            where=where,
            cure='Write the acceptable answers as ["Paris", "the city of Paris"].',
        )
    return tuple(map(str, found))


def _half_a_character(error: UnicodeEncodeError, where: Location) -> DataError:
    return DataError(
        f"half a character: the surrogate {error.object[error.start]!a} is unpaired",
        where=where,
        cure="Tokenizers reject it. Repair the text where it was cut off.",
    )


def _check_kept(examples: Sequence[Example], role: str, columns: Columns) -> None:
    """Raise `DataError` for a stated column that no row has: a scorer would miss it."""
    if columns.another_task:
        return
    if columns.answers and not any(example.answers for example in examples):
        raise DataError(
            f"the column {columns.answers!r} of data.answers is in no {role} row, or always empty",
            where=examples[0].where,
        )
    for name in columns.keep:
        if not any(name in example.kept for example in examples):
            raise DataError(
                f"the column {name!r} of data.keep is in no {role} row", where=examples[0].where
            )


def _id(row: Mapping[str, Any], where: Location, columns: Columns) -> str | None:
    """The stated id; None if the id is to be the content's hash."""
    name = columns.id or "id"
    value = row.get(name)
    if columns.another_task and value is None:
        value = row.get("id")
    if value is None and (columns.id is None or columns.another_task):
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
        if column not in row and column != "tags" and not columns.another_task:
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
