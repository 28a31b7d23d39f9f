"""What the tests of `data` share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.sources import Columns
from pytest_ftloop.core.errors import DataError
from pytest_ftloop.data.examples import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ftloop.core.records import DataSet

    Write = Callable[[str, str | bytes], Path]

ROWS = [
    {"id": "a", "prompt": "2+2?", "completion": "4", "tags": ["maths", "easy"]},
    {"id": "b", "prompt": "Sky, today?", "completion": 'It is "blue".\nMostly.', "tags": ["look"]},
    {"id": "c", "prompt": "Ünïcode 🌊?", "completion": "ja", "tags": []},
]


CSV = (
    "id,prompt,completion,tags\n"
    "a,2+2?,4,maths;easy\n"
    'b,"Sky, today?","It is ""blue"".\nMostly.",look\n'
    "c,Ünïcode 🌊?,ja,\n"
)


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def rows_of(source: Any, folder: Path = Path(), role: str = "train", **columns: Any) -> DataSet:
    return load(source, role, folder, Columns(**columns))


def refused(source: Any, folder: Path = Path(), **columns: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        rows_of(source, folder, **columns)
    return caught.value


def at(error: DataError) -> str:
    return f"{Path(error.where.file).name}:{error.where.line}" if error.where else ""


# kinds of source


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import datasets

    datasets.Dataset.from_list(rows).to_parquet(path)
