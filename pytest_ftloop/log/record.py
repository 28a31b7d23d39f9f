"""The records of a log as YAML text, and back: keys in a fixed order, floats rounded."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar, overload

import yaml

from pytest_ftloop.core.errors import Location, LogError
from pytest_ftloop.core.metrics import DECIMALS, METRICS
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
)
from pytest_ftloop.log.files import damaged

CURVE_STEPS = 60
"""Steps a record keeps of the train curve; longer runs are averaged over equal windows."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NEXT_SECTION = re.compile(r"\n(?=[a-z_]+:)")
_LATER = {
    "curve": re.compile(r"curve:\n(?:[ -].*\n)+"),
    "findings": re.compile(r"findings:\n(?:[ -].*\n)+"),
    "failing": re.compile(r"failing: \[\w[\w.-]*(?:,(?: |\n +)\w[\w.-]*)*\]\n", re.ASCII),
    "verdict": re.compile(r"verdict:\n(?:  .*\n)+"),
}
"""The longest sections, parsed when looked at; what was edited into another shape is at once."""

_SHARED = frozenset({"schema", "loop", "model", "data", "base", "facts", "environment"})
"""Sections that are mostly the same in all records of a log."""

_FIGURE = rf"  (?:{'|'.join(METRICS)})(?:\[[\w .-]+\])?: -?[0-9]+\.[0-9]+(?:e[-+][0-9]+)?\n"
_FIGURES = re.compile(rf"(?:metrics|final):\n(?:{_FIGURE})+")
"""A section of figures as it is written, which needs no YAML library to be read."""

_TOO_DEEP = re.compile(r"(?:[\[{][^\[\]{}]*){200}|(?:[-?:] ){200}")
"""Nested as no record is written; the YAML library's C loader would overflow the stack on more."""

Row = TypeVar("Row")

Shown = Callable[[], str]
"""What to call a record in messages, asked when there is one."""

_Later = Mapping[str, tuple[str, int]]
"""Sections by name: the text, and the number of lines above it."""


class _Dumper(_BaseDumper):  # type: ignore[misc]
    """Writes short lists of plain values on one line, so that a curve reads as a table."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _represent_list(dumper: Any, data: list[Any]) -> Any:
    flow = all(not isinstance(item, dict | list) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_Dumper.add_representer(list, _represent_list)


class Rows(Sequence[Row]):
    """Rows that are made when first looked at. Equal to a tuple of the same rows."""

    def __init__(self, make: Callable[[], tuple[Row, ...]]) -> None:
        self._make = make
        self._made: tuple[Row, ...] | None = None

    def _rows(self) -> tuple[Row, ...]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __len__(self) -> int:
        return len(self._rows())

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        return self._rows()[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._rows() == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._rows())


def tag_of(text: str, length: int = 4) -> str:
    """The start of a hash of a record's text, for its file's name.

    Two branches may train the same settings under the same number, with other figures for the
    cost at least: by the tag they write two files, and merge without a conflict.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def parse(text: str, shown: Shown) -> dict[str, Any]:
    """A record's keys and values; its longest sections are parsed when they are looked at.

    A `LogError` for text that is no record, or one of a newer schema; `shown` says where.
    """
    try:
        if _TOO_DEEP.search(text):
            raise ValueError("nested too deep")
        known, later = _record(text)
    except (TypeError, ValueError):
        raise damaged(shown(), "no keys and values") from None
    except yaml.YAMLError as error:
        raise _not_yaml(error, shown()) from None
    record = dict(known)
    schema = record.get("schema")
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise LogError(
            f"written by a newer pytest-ftloop: schema {schema}, this one reads up to "
            f"{SCHEMA_VERSION}",
            where=Location(shown()),
            cure="pip install --upgrade pytest-ftloop",
        )
    for name, (section, lines_above) in later.items():
        lazy = _LazyList if name in {"failing", "findings"} else _LazyMapping
        record[name] = lazy(section, shown, lines_above)
    return record


class _LazyMapping(Mapping[str, Any]):
    """A section of a record, parsed when one of its keys is asked for."""

    def __init__(self, text: str, shown: Shown, lines_above: int) -> None:
        self._text, self._shown, self._above = text, shown, lines_above
        self._parsed: Mapping[str, Any] | None = None

    def _mapping(self) -> Mapping[str, Any]:
        if self._parsed is None:
            self._parsed = _section(self._text, self._shown, self._above)
        if not isinstance(self._parsed, dict):
            raise damaged(self._shown(), "no keys and values", self._above + 1)
        return self._parsed

    def __getitem__(self, key: str) -> Any:
        return self._mapping()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping())

    def __len__(self) -> int:
        return len(self._mapping())

    def __repr__(self) -> str:
        return repr(self._mapping())

    def rows(self, name: str, kind: Callable[..., Row]) -> tuple[Row, ...]:
        """The rows of one of its lists; a `LogError` for rows that are none."""
        try:
            return tuple(kind(*row) for row in self[name][1:])
        except (KeyError, TypeError) as error:
            raise damaged(self._shown(), f"{type(error).__name__}: {error}") from None


class _LazyList(Rows[Any]):
    """A section of a record that is a list, parsed when it is looked at."""

    def __init__(self, text: str, shown: Shown, lines_above: int) -> None:
        super().__init__(lambda: tuple(_section(text, shown, lines_above)))
        self._shown = shown

    def of(self, kind: Callable[..., Row]) -> Rows[Row]:
        """Its items as records; a `LogError` for items that are none."""

        def make() -> tuple[Row, ...]:
            try:
                return tuple(kind(**item) for item in self)
            except TypeError as error:
                raise damaged(self._shown(), f"TypeError: {error}") from None

        return Rows(make)


def _section(text: str, shown: Shown, lines_above: int) -> Any:
    return _load(text, shown, lines_above)[text.partition(":")[0]]


@lru_cache(maxsize=2048)
def _record(text: str) -> tuple[Mapping[str, Any], _Later]:
    """A record's keys and values but for the sections of `_LATER`, which are given as text.

    Parsed once: most records of a log are the same in the commit it is compared with.
    """
    try:
        return _by_section(text)
    except (TypeError, ValueError, yaml.YAMLError):  # as a whole it may do; else its line is known
        return dict(yaml.load(text, Loader=_Loader)), {}


def _by_section(text: str) -> tuple[Mapping[str, Any], _Later]:
    sections = [f"{section}\n" for section in _NEXT_SECTION.split(text.removesuffix("\n"))]
    named = {section.partition(":")[0]: section for section in sections}
    if not (text.startswith("schema:") and text.endswith("\n") and len(named) == len(sections)):
        raise ValueError("not as it is written")
    record: dict[str, Any] = {}
    later: dict[str, tuple[str, int]] = {}
    rest: list[str] = []
    lines = 0
    for name, section in named.items():
        if name in _LATER and _LATER[name].fullmatch(section):
            later[name] = section, lines
        elif name in _SHARED:
            record |= _shared(section)
        elif _FIGURES.fullmatch(section):
            rows = (line[2:].split(": ") for line in section.splitlines()[1:])
            record[name] = {key: float(value) for key, value in rows}
        else:
            rest.append(section)
        lines += section.count("\n")
    return record | yaml.load("".join(rest), Loader=_Loader), later


@lru_cache(maxsize=2048)
def _shared(section: str) -> Any:
    return yaml.load(section, Loader=_Loader)


def _load(text: str, shown: Shown, lines_above: int = 0) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _not_yaml(error, shown(), lines_above) from None
    except ValueError as error:  # what looks like a date and is none
        raise damaged(shown(), f"ValueError: {error}") from None


def _not_yaml(error: yaml.YAMLError, shown: str, lines_above: int = 0) -> LogError:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 + lines_above if mark else None
    return damaged(shown, getattr(error, "problem", None) or str(error), line)


def to_yaml(iteration: Iteration, examples_sha256: str) -> str:
    """An iteration's record as text."""
    record = {
        "schema": SCHEMA_VERSION,
        "loop": iteration.loop,
        "number": iteration.number,
        "id": iteration.id,
        "parent": iteration.parent,
        "fingerprint": iteration.fingerprint,
        "group": iteration.group,
        "adjustments": [_plain(asdict(a)) for a in iteration.adjustments],
        "model": iteration.model,
        "settings": {
            "lora": _sorted(iteration.settings.lora),
            "training": _sorted(iteration.settings.training),
            "scoring": _sorted(iteration.scoring),
        },
        "data": {role: _plain(facts) for role, facts in iteration.data.items()},
        "metrics": _plain(iteration.metrics),
        "final": _plain(iteration.final),
        "base": _plain(iteration.base),
        "facts": _plain(iteration.facts),
        "curve": {
            "train": [
                ["step", "loss", "grad_norm", "learning_rate"],
                *(_plain(list(asdict(s).values())) for s in thinned(iteration.steps)),
            ],
            "eval": [
                ["step", "epoch", "eval_loss", "token_accuracy"],
                *(_plain(list(asdict(e).values())) for e in iteration.evals),
            ],
        },
        "findings": [_plain(asdict(f)) for f in iteration.findings],
        "failing": list(iteration.failing),
        "decision": _decided(iteration.decision),
        "examples": {
            "rows": len(iteration.examples),
            "sha256": examples_sha256,
        },
        "environment": _sorted(iteration.environment),
        "cost": _plain(asdict(iteration.cost)),
    }
    return _dump(record)


def as_logged(iteration: Iteration) -> Iteration:
    """The iteration as it would read back: its figures rounded, its curve thinned."""
    read, _ = from_record(_load(to_yaml(iteration, ""), lambda: iteration.name))
    return replace(read, examples=iteration.examples)


def from_record(record: Mapping[str, Any]) -> tuple[Iteration, str]:
    """An iteration from its parsed record, and the hash its table must have.

    Raises KeyError, TypeError or ValueError for a record that is not whole.
    """
    settings, failing, findings = record["settings"], record["failing"], record["findings"]
    iteration = Iteration(
        loop=record["loop"],
        number=int(record["number"]),
        id=record["id"],
        fingerprint=record["fingerprint"],
        parent=record["parent"],
        adjustments=tuple(Adjustment(**a) for a in record["adjustments"]),
        model=record["model"],
        settings=Settings(lora=settings["lora"], training=settings["training"]),
        scoring=settings["scoring"],
        data=record["data"],
        metrics=_figures(record["metrics"]),
        final=_figures(record["final"]),
        base=_figures(record["base"]),
        facts=dict(record["facts"]),
        steps=_curve_rows(record["curve"], "train", StepLog),
        evals=_curve_rows(record["curve"], "eval", EvalPoint),
        findings=findings.of(Finding)
        if isinstance(findings, _LazyList)
        else tuple(Finding(**f) for f in findings),
        failing=failing if isinstance(failing, _LazyList) else tuple(failing),
        decision=_decision(record["decision"]),
        environment=record["environment"],
        cost=Cost(**record["cost"]),
        group=record.get("group", ""),
        schema=int(record["schema"]),
    )
    return iteration, record["examples"]["sha256"]


def seed_run_yaml(run: SeedRun, examples_sha256: str) -> str:
    """A seed run's record as text."""
    return _dump(
        {
            "schema": SCHEMA_VERSION,
            "loop": run.loop,
            "iteration": run.iteration,
            "seed": run.seed,
            "role": run.role,
            "fingerprint": run.fingerprint,
            "group": run.group,
            "scoring": _sorted(run.scoring),
            "data": {role: _plain(facts) for role, facts in run.data.items()},
            "metrics": _plain(run.metrics),
            "examples": {"rows": len(run.examples), "sha256": examples_sha256},
            "environment": _sorted(run.environment),
            "cost": _plain(asdict(run.cost)),
        }
    )


def seed_run_from(record: Mapping[str, Any]) -> tuple[SeedRun, str]:
    """A seed run from its parsed record, and the hash its table must have."""
    run = SeedRun(
        loop=record["loop"],
        iteration=record["iteration"],
        seed=int(record["seed"]),
        role=record["role"],
        fingerprint=record["fingerprint"],
        group=record["group"],
        scoring=record["scoring"],
        data=record["data"],
        metrics=_figures(record["metrics"]),
        environment=record["environment"],
        cost=Cost(**record["cost"]),
        schema=int(record["schema"]),
    )
    return run, record["examples"]["sha256"]


def judgement_yaml(judgement: Judgement) -> str:
    """A judgement's record as text."""
    return _dump(
        {
            "schema": SCHEMA_VERSION,
            "loop": judgement.loop,
            "candidate": judgement.candidate,
            "baseline": judgement.baseline,
            "by": judgement.by,
            "kind": judgement.kind,
            "passed": judgement.passed,
            "because": judgement.because,
            "over": list(judgement.over),
            "verdict": _plain(judgement.verdict),
        }
    )


def judgement_from(record: Mapping[str, Any]) -> Judgement:
    """A judgement from its parsed record."""
    verdict = record["verdict"]
    return Judgement(
        loop=record["loop"],
        candidate=record["candidate"],
        baseline=record["baseline"],
        by=record["by"],
        kind=record["kind"],
        passed=_flag(record["passed"]),
        because=record["because"],
        over=tuple(record["over"]),
        verdict=verdict if isinstance(verdict, _LazyMapping) else dict(verdict),
        schema=int(record["schema"]),
    )


def holdout_yaml(use: HoldoutUse, examples_sha256: str) -> str:
    """A use of the holdout as text."""
    return _dump(
        {
            "schema": SCHEMA_VERSION,
            "loop": use.loop,
            "iteration": use.iteration,
            "fingerprint": use.fingerprint,
            "scoring": _sorted(use.scoring),
            "data": _plain(use.data),
            "metrics": _plain(use.metrics),
            "examples": {"rows": len(use.examples), "sha256": examples_sha256},
            "environment": _sorted(use.environment),
        }
    )


def holdout_from(record: Mapping[str, Any]) -> tuple[HoldoutUse, str]:
    """A use of the holdout from its parsed record, and the hash its table must have."""
    use = HoldoutUse(
        loop=record["loop"],
        iteration=record["iteration"],
        fingerprint=record["fingerprint"],
        scoring=record["scoring"],
        data=record["data"],
        metrics=_figures(record["metrics"]),
        environment=record["environment"],
        schema=int(record["schema"]),
    )
    return use, record["examples"]["sha256"]


def thinned(steps: Sequence[StepLog], most: int = CURVE_STEPS) -> tuple[StepLog, ...]:
    """At most `most` steps: each stands for a window, with its mean loss and highest norm."""
    if len(steps) <= most:
        return tuple(steps)
    edges = [round(i * len(steps) / most) for i in range(most + 1)]
    kept = []
    for start, end in pairwise(edges):
        window = steps[start:end]
        norms = [s.grad_norm for s in window if s.grad_norm is not None]
        kept.append(
            StepLog(
                step=window[-1].step,
                loss=sum(s.loss for s in window) / len(window),
                grad_norm=max(norms, default=None),
                learning_rate=window[-1].learning_rate,
            )
        )
    return tuple(kept)


def _curve_rows(curve: Mapping[str, Any], name: str, kind: Callable[..., Row]) -> Sequence[Row]:
    if isinstance(curve, _LazyMapping):
        return Rows(lambda: curve.rows(name, kind))
    return tuple(kind(*row) for row in curve[name][1:])


def _dump(record: Mapping[str, Any]) -> str:
    text: str = yaml.dump(record, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"wanted true or false, found {value!r}")
    return value


def _figures(record: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in record.items()}


def _decision(record: Mapping[str, Any]) -> Decision:
    return Decision(
        action=record["action"],
        kind=record["kind"],
        because=record["because"],
        next=tuple(Adjustment(**a) for a in record["next"]),
        parent=record.get("parent", ""),
        rests_on=record.get("rests_on", ""),
    )


def _decided(decision: Decision) -> dict[str, Any]:
    """A decision's record; the best as parent and the defaults to rest on are left out."""
    record = asdict(decision)
    for usual in ("parent", "rests_on"):
        if not record[usual]:
            del record[usual]
    plain: dict[str, Any] = _plain(record)
    return plain


def _sorted(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(values[key]) for key in sorted(values)}


def _plain(value: Any) -> Any:
    """A value as YAML keeps it: plain containers, floats rounded to significant digits."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and math.isfinite(value):
        # Large figures to fixed decimals; small ones (learning rates) keep their digits.
        return round(value, DECIMALS) if abs(value) >= 1e-2 else float(f"{value:.{DECIMALS}g}")
    if value is None or isinstance(value, bool | int | float):
        return value
    # Subclasses of str too: the YAML library knows exact types only, and no lone surrogates.
    return str(value).encode("utf-8", "backslashreplace").decode()
