"""TORCH: rows as a data set that trl maps over, each cell as it was written.

Arrow gives all cells of a column one type: it merges the keys of objects over all rows, fills them
up with nulls and turns integers beside floats into floats. The template would then render arguments
and schemas that no row has. So nested cells are stored as JSON text, a row at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets
import pyarrow as pa
from datasets.table import InMemoryTable

from pytest_ftloop.core.records import Example
from pytest_ftloop.evaluate.evaluator import ID_COLUMN

_ABSENT: Mapping[str, Any] = {"chat_template_kwargs": {}}
"""What a row without a column gets if another row has it, where trl does not take null."""


class AsWritten(datasets.Json):  # type: ignore[misc] # it has no types
    """A column whose cells are any JSON, with the keys, types and numbers that each row has.

    Unlike its parent, it keeps text that looks like JSON as text, and integers beyond 64 bits.
    """

    def encode_example(self, example_data: Any) -> str:
        """The cell as it is stored."""
        return json.dumps(example_data, default=str)

    def decode_example(self, example_data: str | None, *_: Any, **__: Any) -> Any:
        """The cell as it was written."""
        return None if example_data is None else json.loads(example_data)


def examples_dataset(examples: Iterable[Example]) -> datasets.Dataset:
    """The rows of examples, with their ids in the column `ID_COLUMN`."""
    return dataset_of([{**example.row, ID_COLUMN: example.id} for example in examples])


def dataset_of(rows: Iterable[Mapping[str, Any]]) -> datasets.Dataset:
    """The rows as a data set in memory. A row without a column that others have gets a null."""
    listed = list(rows)
    columns = {
        name: [row.get(name, _ABSENT.get(name)) for row in listed]
        for name in dict.fromkeys(name for row in listed for name in row)
    }
    nested = {name for name, cells in columns.items() if _is_nested(cells)}
    plain = datasets.Dataset.from_dict({n: c for n, c in columns.items() if n not in nested})
    features = datasets.Features(
        {name: AsWritten() if name in nested else plain.features[name] for name in columns}
    )
    arrays = [
        _stored(cells) if name in nested else plain.data.column(name)
        for name, cells in columns.items()
    ]
    table = InMemoryTable(pa.Table.from_arrays(arrays, schema=features.arrow_schema))
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features))


def _is_nested(cells: Sequence[Any]) -> bool:
    """Whether cells hold objects, or lists other than of plain numbers (tokens)."""
    return any(isinstance(cell, Mapping | list | tuple) for cell in cells) and not all(
        isinstance(cell, list) and all(type(item) is int for item in cell) for cell in cells
    )


def _stored(cells: Sequence[Any]) -> pa.Array:
    encoded = [None if cell is None else AsWritten().encode_example(cell) for cell in cells]
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(encoded, pa.string()))
