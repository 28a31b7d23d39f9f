"""The records of a log as YAML text: keys in a fixed order, floats rounded.

The text depends on a record's values alone, so that it can be written again from a file that a
formatter has rewritten; see `as_written`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from itertools import pairwise
from typing import Any

import yaml

from pytest_ftloop.core.credentials import hidden, parted
from pytest_ftloop.core.metrics import DECIMALS, METRICS, split_name
from pytest_ftloop.core.records import (
    SCHEMA_VERSION,
    Cost,
    Decision,
    EvalPoint,
    HoldoutUse,
    Iteration,
    Judgement,
    SeedRun,
    Settings,
    StepLog,
    Untrained,
)
from pytest_ftloop.log.table import Table
from pytest_ftloop.log.text import TextError, is_number_elsewhere, readings

Tables = Mapping[str, Table]
"""The tables of a record's guards, by guard."""

NO_TABLES: Tables = {}

CURVE_STEPS = 60
"""Steps a record keeps of the train curve; longer runs are averaged over equal windows."""

STEP_COLUMNS = tuple(field.name for field in fields(StepLog))
EVAL_COLUMNS = tuple(field.name for field in fields(EvalPoint))
"""The first row of each curve, which names what is below."""

_CHANGE = (
    *("metric", "kind", "baseline", "candidate", "change", "p", "se", "df", "tau", "nu"),
    *("upper", "detectable", "examples", "seeds"),
)
_KEYS: Mapping[str, Sequence[str]] = {
    "": (
        *("schema", "loop", "iteration", "number", "id", "seed", "role"),
        *("candidate", "baseline", "by", "kind", "passed", "because", "over", "verdict"),
        *("parent", "fingerprint", "group", "weights", "adapter"),
        *("adjustments", "model", "settings", "scoring"),
        *("data", "metrics", "final", "base", "facts", "curve", "findings", "failing"),
        *("decision", "examples", "guards", "environment", "cost"),
    ),
    **dict.fromkeys(("adjustments", "next"), ("setting", "before", "after", "because")),
    "settings": ("lora", "training", "scoring"),
    "data": ("train", "eval", "source", "rows", "sha256"),
    **dict.fromkeys(("train", "eval"), ("source", "rows", "sha256")),
    "facts": (
        *("steps", "planned_steps", "best_step", "steps_per_epoch", "trainable_parameters"),
        *("labelled_tokens", "vocabulary", "width", "dropped_examples", "ended_early"),
        "recoveries",
    ),
    "curve": ("train", "eval"),
    "findings": ("kind", "severity", "message", "evidence", "remedy", "tunable"),
    "decision": ("action", "kind", "because", "next", "parent", "rests_on"),
    "examples": ("rows", "sha256", "common", "of"),
    "cost": ("seconds", "steps", "tokens", "device_memory_mib", "resumed_at"),
    "verdict": (
        *("anchor", "alpha", "examples", "changes", "tags", "runs", "slide", "fixed", "broken"),
        "notes",
    ),
    **dict.fromkeys(("changes", "tags", "runs", "slide"), _CHANGE),
}
"""The order of the keys by the key that holds them; others follow, sorted."""

_FIGURES = frozenset({"metrics", "final", "base"})
"""The keys that hold figures: each metric in the order of `METRICS`, then by tag."""

_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_BaseDumper):  # type: ignore[misc]
    """Writes short lists of plain values on one line, so that a curve reads as a table."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _represent_list(dumper: Any, data: list[Any]) -> Any:
    flow = all(not isinstance(item, dict | list) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_Dumper.add_representer(list, _represent_list)


class _SafeDumper(_Dumper):
    """Quotes what YAML 1.2 takes for a number and YAML 1.1 for a text, such as an id `12345e67`."""


def _represent_str(dumper: Any, data: str) -> Any:
    style = "'" if is_number_elsewhere(data) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_SafeDumper.add_representer(str, _represent_str)


def tag_of(text: str, length: int = 4) -> str:
    """The start of a hash of a record's text, for its file's name.

    Two branches may train the same settings under the same number, with other figures for the
    cost at least: by the tag they write two files, and merge without a conflict.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@lru_cache(maxsize=2048)
def as_written(text: str, tag: str) -> str | None:
    """The text that was written under this tag, where this text says the same; None if it doesn't.

    Nearly always that is the text itself. Formatters and other YAML writers may have changed its
    line breaks, its quotes and the order of its keys, but no value.
    """
    if tag_of(text, len(tag)) == tag:
        return text
    try:
        candidates = (own for said in readings(text) for own in _texts_of(said))
        return next((own for own in candidates if tag_of(own, len(tag)) == tag), None)
    except TextError:
        return None


def _texts_of(said: Mapping[str, Any]) -> Iterator[str]:
    """What we may have written for these values."""
    yield _dump(said)
    # Until the first release evidence was not sorted, and `12345e67` not quoted.
    yield yaml.dump(said, Dumper=_Dumper, **_STYLE)


def to_yaml(iteration: Iteration, examples_sha256: str, guards: Tables = NO_TABLES) -> str:
    """An iteration's record as text; `guards` are the tables of its guards."""
    record = {
        "schema": SCHEMA_VERSION,
        "loop": iteration.loop,
        "number": iteration.number,
        "id": iteration.id,
        "parent": iteration.parent,
        "fingerprint": iteration.fingerprint,
        "group": iteration.group,
        "weights": iteration.weights,
        "adapter": iteration.adapter,
        "adjustments": [_plain(asdict(a)) for a in iteration.adjustments],
        "model": hidden(iteration.model),
        "settings": {
            "lora": _sorted(parted(iteration.settings.lora)[0]),
            "training": _sorted(parted(iteration.settings.training)[0]),
            "scoring": _sorted(iteration.scoring),
        },
        "data": {role: _plain(facts) for role, facts in iteration.data.items()},
        "metrics": _plain(iteration.metrics),
        "final": _plain(iteration.final),
        "base": _plain(iteration.base),
        "facts": _plain(iteration.facts),
        "curve": {
            "train": [
                list(STEP_COLUMNS),
                *(_plain(list(asdict(s).values())) for s in thinned(iteration.steps)),
            ],
            "eval": [
                list(EVAL_COLUMNS),
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
        **_of_guards(guards),
        "environment": _sorted(iteration.environment),
        "cost": _cost(iteration.cost),
    }
    return _dump(record)


def seed_run_yaml(run: SeedRun, examples_sha256: str, guards: Tables = NO_TABLES) -> str:
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
            "weights": run.weights,
            "adapter": run.adapter,
            "scoring": _sorted(run.scoring),
            "data": {role: _plain(facts) for role, facts in run.data.items()},
            "metrics": _plain(run.metrics),
            "examples": {"rows": len(run.examples), "sha256": examples_sha256},
            **_of_guards(guards),
            "environment": _sorted(run.environment),
            "cost": _cost(run.cost),
        }
    )


def untrained_yaml(untrained: Untrained, examples_sha256: str, guards: Tables = NO_TABLES) -> str:
    """A measurement of the base as text."""
    return _dump(
        {
            "schema": SCHEMA_VERSION,
            "loop": untrained.loop,
            "fingerprint": untrained.fingerprint,
            "model": untrained.model,
            "scoring": _sorted(untrained.scoring),
            "data": {role: _plain(facts) for role, facts in untrained.data.items()},
            "metrics": _plain(untrained.metrics),
            "facts": _plain(untrained.facts),
            "examples": {"rows": len(untrained.examples), "sha256": examples_sha256},
            **_of_guards(guards),
            "environment": _sorted(untrained.environment),
        }
    )


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


def _of_guards(tables: Tables) -> dict[str, Any]:
    """What a record says of its guards' tables; nothing where it has none."""
    found = {name: {"rows": of.rows, "sha256": of.sha256} for name, of in tables.items()}
    return {"guards": found} if found else {}


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


_STYLE: Mapping[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 100}


def _dump(record: Mapping[str, Any]) -> str:
    text: str = yaml.dump(_in_order(record), Dumper=_SafeDumper, **_STYLE)
    return text


def _in_order(value: Any, holder: str = "") -> Any:
    """The value below the key `holder` with every key in its place."""
    if isinstance(value, list):
        return [_in_order(item, holder) for item in value]
    if not isinstance(value, Mapping):
        return value
    known = _KEYS.get(holder, ())

    def place(key: str) -> tuple[Any, ...]:
        if holder in _FIGURES:
            name, tag = split_name(key)
            return (tag or "", list(METRICS).index(name) if name in METRICS else len(METRICS), key)
        return (known.index(key) if key in known else len(known), key)

    return {key: _in_order(value[key], key) for key in sorted(value, key=place)}


def _cost(cost: Cost) -> dict[str, Any]:
    """A cost's record; that no training was resumed is left out."""
    said: dict[str, Any] = _plain(asdict(cost))
    if not said["resumed_at"]:
        del said["resumed_at"]
    return said


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


def rounded(values: Any) -> Any:
    """Settings, or other plain values, as a record keeps them."""
    if isinstance(values, Settings):
        return Settings(lora=_plain(values.lora), training=_plain(values.training))
    return _plain(values)


def _plain(value: Any) -> Any:
    """A value as YAML keeps it: plain containers, floats rounded to significant digits."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool):
        return value
    # As float and int themselves: the YAML library knows no subclasses, such as NumPy's.
    if isinstance(value, float):
        value = float(value)
        if not math.isfinite(value):
            return value
        # Large figures to fixed decimals; small ones (learning rates) keep their digits.
        return round(value, DECIMALS) if abs(value) >= 1e-2 else float(f"{value:.{DECIMALS}g}")
    if isinstance(value, int):
        return int(value)
    # Subclasses of str too: the YAML library knows exact types only, and no lone surrogates.
    return hidden(str(value).encode("utf-8", "backslashreplace").decode())
