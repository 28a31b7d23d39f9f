"""The records of a log from their text: read whole, and refused where a key is not what it must be.

A `LogError` names the file, the line and the key. Reading one takes about a millisecond, and a text
that was read before none: most records of a log are the same in the commit it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_ftloop.core.credentials import cleaned, may_have_form
from pytest_ftloop.core.errors import Location, LogError
from pytest_ftloop.core.records import (
    SCHEMA_VERSION,
    Adjustment,
    Cost,
    Decision,
    EvalPoint,
    Finding,
    HoldoutUse,
    Iteration,
    Judgement,
    SeedRun,
    Settings,
    StepLog,
    Untrained,
)
from pytest_ftloop.log.files import damaged
from pytest_ftloop.log.table import Table
from pytest_ftloop.log.text import KeyPath, TextError, kind, line_of, read
from pytest_ftloop.log.writing import to_yaml

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    from pytest_ftloop.log import models

Kept = TypeVar("Kept")
Model = TypeVar("Model", bound="BaseModel")

Shown = Callable[[], str]
"""What to call a record in messages, asked when there is one."""

_KNOWN = 2048
"""Texts that are remembered with what they say."""

_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
}
"""pydantic's kinds of mistake in the words of messages."""


class _NewerSchemaError(Exception):
    """A record is of a schema that is not known yet."""


def from_text(make: Callable[[str], Kept], text: str, shown: Shown) -> Kept:
    """What one of the functions below makes of a text; a `LogError` names the file."""
    try:
        return make(text)
    except TextError as mistake:
        raise damaged(shown(), mistake.why, mistake.line) from None
    except _NewerSchemaError as newer:
        raise LogError(
            f"written by a newer pytest-ftloop: schema {newer}, this one reads up to "
            f"{SCHEMA_VERSION}",
            where=Location(shown()),
            cure="Upgrade pytest-ftloop.",
        ) from None


@lru_cache(maxsize=_KNOWN)
def iteration_of(text: str) -> tuple[Iteration, Table]:
    """An iteration, without its examples, and what their table must be."""
    from pytest_ftloop.log import models

    said, record = _checked(text, models.IterationRecord)
    settings = said["settings"]
    iteration = Iteration(
        loop=record.loop,
        number=record.number,
        id=record.id,
        fingerprint=record.fingerprint,
        parent=record.parent,
        adjustments=_adjustments(record.adjustments),
        model=record.model,
        settings=Settings(lora=settings["lora"], training=settings["training"]),
        scoring=settings["scoring"],
        data=said["data"],
        metrics=record.metrics,
        final=record.final,
        base=record.base,
        facts=said["facts"],
        steps=tuple(StepLog(*row) for row in record.curve.train),
        evals=tuple(EvalPoint(*row) for row in record.curve.eval),
        findings=tuple(Finding(**vars(finding)) for finding in record.findings),
        failing=tuple(record.failing),
        decision=Decision(
            action=record.decision.action,
            kind=record.decision.kind,
            because=record.decision.because,
            next=_adjustments(record.decision.next),
            parent=record.decision.parent,
            rests_on=record.decision.rests_on,
        ),
        environment=record.environment,
        cost=Cost(**vars(record.cost)),
        group=record.group,
        weights=record.weights,
        adapter=record.adapter,
        schema=record.version,
        exposed=_exposed(said),
    )
    return iteration, _table(record)


@lru_cache(maxsize=_KNOWN)
def seed_run_of(text: str) -> tuple[SeedRun, Table]:
    """A seed run, without its examples, and what their table must be."""
    from pytest_ftloop.log import models

    said, record = _checked(text, models.SeedRunRecord)
    run = SeedRun(
        loop=record.loop,
        iteration=record.iteration,
        seed=record.seed,
        role=record.role,
        fingerprint=record.fingerprint,
        group=record.group,
        scoring=record.scoring,
        data=said["data"],
        metrics=record.metrics,
        environment=record.environment,
        cost=Cost(**vars(record.cost)),
        weights=record.weights,
        adapter=record.adapter,
        schema=record.version,
        exposed=_exposed(said),
    )
    return run, _table(record)


@lru_cache(maxsize=_KNOWN)
def untrained_of(text: str) -> tuple[Untrained, Table]:
    """A measurement of the base, without its examples, and what their table must be."""
    from pytest_ftloop.log import models

    said, record = _checked(text, models.UntrainedRecord)
    untrained = Untrained(
        loop=record.loop,
        fingerprint=record.fingerprint,
        model=record.model,
        scoring=record.scoring,
        data=said["data"],
        metrics=record.metrics,
        facts=record.facts,
        environment=record.environment,
        schema=record.version,
        exposed=_exposed(said),
    )
    return untrained, _table(record)


@lru_cache(maxsize=_KNOWN)
def judgement_of(text: str) -> Judgement:
    """A judgement, without its tag."""
    from pytest_ftloop.log import models

    said, record = _checked(text, models.JudgementRecord)
    return Judgement(
        loop=record.loop,
        candidate=record.candidate,
        baseline=record.baseline,
        by=record.by,
        kind=record.kind,
        passed=record.passed,
        because=record.because,
        over=tuple(record.over),
        verdict=record.verdict,
        schema=record.version,
        exposed=_exposed(said),
    )


@lru_cache(maxsize=_KNOWN)
def holdout_of(text: str) -> tuple[HoldoutUse, Table]:
    """A use of the holdout, without its examples, and what their table must be."""
    from pytest_ftloop.log import models

    said, record = _checked(text, models.HoldoutRecord)
    use = HoldoutUse(
        loop=record.loop,
        iteration=record.iteration,
        fingerprint=record.fingerprint,
        scoring=record.scoring,
        data=said["data"],
        metrics=record.metrics,
        environment=record.environment,
        schema=record.version,
        exposed=_exposed(said),
    )
    return use, Table(record.examples.rows, record.examples.sha256)


def as_logged(iteration: Iteration) -> Iteration:
    """The iteration as it would read back: its figures rounded, its curve thinned."""
    read_back, _ = from_text(iteration_of, to_yaml(iteration, ""), lambda: iteration.name)
    return replace(read_back, examples=iteration.examples, guards=iteration.guards)


def _table(
    record: models.IterationRecord | models.SeedRunRecord | models.UntrainedRecord,
) -> Table:
    """What a record says of its table, and of those of its guards."""
    guards = {name: Table(of.rows, of.sha256) for name, of in record.guards.items()}
    return Table(record.examples.rows, record.examples.sha256, guards)


def _adjustments(rows: list[models.AdjustmentRow]) -> tuple[Adjustment, ...]:
    return tuple(Adjustment(**vars(row)) for row in rows)


def _checked(text: str, model: type[Model]) -> tuple[Mapping[str, Any], Model]:
    """A record's text as plain data, and as a model of it. A `TextError` names the key."""
    from pydantic import ValidationError

    said = _without_credentials(read(text), text)
    schema = said.get("schema")
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise _NewerSchemaError(schema)
    try:
        return said, model.model_validate({k: v for k, v in said.items() if k != _EXPOSED})
    except ValidationError as error:
        raise _mistake(error.errors(include_url=False), said, text) from None


_EXPOSED = "(credentials)"
"""Beside the keys of a record: the paths of the credentials that were left out of it."""

_WITH_SETTINGS = ("settings", "adjustments", "decision")
"""The keys of a record in which a credential may stand by its name."""


def _without_credentials(said: dict[str, Any], text: str) -> dict[str, Any]:
    """A record's values without the credentials in them, which older versions wrote."""
    exposed: list[str] = []
    for key in said if may_have_form(text) else _WITH_SETTINGS:
        if key in said and key != "failing":  # ids of examples, which are data
            said[key] = cleaned(said[key], exposed, key)
    return {**said, _EXPOSED: exposed} if exposed else said


def _exposed(said: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths of the credentials that a record held."""
    return tuple(said.get(_EXPOSED, ()))


def _mistake(errors: list[ErrorDetails], said: Mapping[str, Any], text: str) -> TextError:
    """The first mistake; where several types would have done, with all of them."""
    path, why = _path(errors[0], said), ""
    match errors[0]["type"]:
        case "missing" if isinstance(path[-1], int):
            path, why = path[:-1], f"wanted one figure per column, found {path[-1]}"
        case "too_long":
            found = errors[0]["ctx"]["actual_length"]
            why = f"wanted one figure per column, found {found}"
        case "missing":
            why = "missing"
        case "extra_forbidden":
            why = "unknown key"
        case _:
            wanted = list(dict.fromkeys(_wanted(e) for e in errors if _path(e, said) == path))
            if "a number" in wanted and "a whole number" in wanted:
                wanted.remove("a whole number")
            *others, last = wanted
            either = f"{', '.join(others)} or {last}" if others else last
            why = f"wanted {either}, found {kind(errors[0]['input'])}"
    return TextError(why, line_of(text, path), path)


def _path(error: ErrorDetails, said: Mapping[str, Any]) -> KeyPath:
    """Where the mistake is in the record: pydantic's place without the branches of a union."""
    path = list(error["loc"])
    if path[0] == "curve" and len(path) > 2 and isinstance(path[2], int):
        path[2] += 1  # below the row that names the columns
    here: Any = said
    for depth, step in enumerate(path):
        try:
            here = here[step]
        except (LookupError, TypeError):  # what is missing, or a branch of a union
            return tuple(path[: depth + (error["type"] == "missing")])
    return tuple(path)


def _wanted(error: ErrorDetails) -> str:
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"])
    if error["type"] == "greater_than_equal":
        return f"a whole number, at least {error['ctx']['ge']}"
    return _WANTED.get(error["type"]) or error["msg"]
