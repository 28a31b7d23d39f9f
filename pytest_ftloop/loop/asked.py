"""What a spec asks of a backend besides a training: stated by the loop, answered by a worker.

Rows travel as their ids, since the worker has the loop's data too: the fingerprint says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.errors import FtloopError, Location
from pytest_ftloop.core.records import BaseMeasured, ExampleResult, Run
from pytest_ftloop.data import examples as data
from pytest_ftloop.train.task import EVAL, FoundAll, Missing, ToMeasure

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import DataSet, Example
    from pytest_ftloop.loop.backend import Backend
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.loop.spec import Asks, Spec

HOLDOUT = "holdout"

ANSWERS: Mapping[Asks, Any] = {
    "train": Run,
    "measure": tuple[ExampleResult, ...],
    "measure_missing": FoundAll,
    "measure_base": BaseMeasured,
    "environment": dict[str, str],
}
"""The type of each answer."""


def holdout_rows(rows: DataSet) -> dict[str, Any]:
    """The rows of `Spec.rows` for `measure`, which is asked of the holdout only."""
    if rows.role != HOLDOUT:
        raise ValueError(f"wanted the holdout, found {rows.role}")
    return {"sha256": rows.sha256}


def missing_rows(missing: ToMeasure) -> dict[str, Any]:
    """The rows of `Spec.rows` for `measure_missing`."""

    def ids(rows: Sequence[Example]) -> list[str]:
        return [row.id for row in rows]

    def of(sets: Mapping[str, Missing]) -> dict[str, Any]:
        return {
            role: {
                "losses": ids(part.losses),
                "answers": ids(part.answers),
                "max_new_tokens": part.max_new_tokens,
            }
            for role, part in sets.items()
        }

    return {"trained": of(missing.trained), "base": of(missing.base)}


def answered(spec: Spec, config: LoopConfig, inputs: Inputs, backend: Backend) -> object:
    """The backend's answer to a spec that asks for no training."""
    adapter = Path(spec.adapter)
    if spec.asks == "environment":
        return dict(backend.environment(spec.settings))
    if spec.asks == "measure_base":
        return backend.measure_base(spec.settings)
    if spec.asks == "measure_missing":
        return backend.measure_missing(spec.settings, adapter, _to_measure(spec.rows, inputs))
    return backend.measure(spec.settings, adapter, _holdout(spec.rows, config))


def _holdout(stated: Mapping[str, Any], config: LoopConfig) -> DataSet:
    where = config.locate("data.holdout")
    rows = data.load(config.holdout, HOLDOUT, config.folder, config.columns, where)
    if rows.sha256 != stated["sha256"]:
        raise FtloopError(
            f"wanted the holdout {stated['sha256'][:8]}, found {rows.sha256[:8]}: its rows have "
            "changed since the run began",
            where=where or Location(config.source),
            cure="Run pytest --ftloop again.",
        )
    return rows


def _to_measure(stated: Mapping[str, Any], inputs: Inputs) -> ToMeasure:
    sets = {EVAL: inputs.eval, **{guard.role: guard.rows for guard in inputs.guards}}
    by_id = {role: {e.id: e for e in rows.examples} for role, rows in sets.items()}

    def of(parts: Mapping[str, Any]) -> dict[str, Missing]:
        return {
            role: Missing(
                tuple(by_id[role][name] for name in part["losses"]),
                tuple(by_id[role][name] for name in part["answers"]),
                part["max_new_tokens"],
            )
            for role, part in parts.items()
        }

    return ToMeasure(of(stated["trained"]), of(stated["base"]))
