"""The records of a log as YAML text: keys in a fixed order, floats rounded."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from itertools import pairwise
from typing import Any

import yaml

from pytest_ftloop.core.metrics import DECIMALS
from pytest_ftloop.core.records import (
    SCHEMA_VERSION,
    Decision,
    EvalPoint,
    HoldoutUse,
    Iteration,
    Judgement,
    SeedRun,
    StepLog,
)

CURVE_STEPS = 60
"""Steps a record keeps of the train curve; longer runs are averaged over equal windows."""

STEP_COLUMNS = tuple(field.name for field in fields(StepLog))
EVAL_COLUMNS = tuple(field.name for field in fields(EvalPoint))
"""The first row of each curve, which names what is below."""

_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_BaseDumper):  # type: ignore[misc]
    """Writes short lists of plain values on one line, so that a curve reads as a table."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _represent_list(dumper: Any, data: list[Any]) -> Any:
    flow = all(not isinstance(item, dict | list) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_Dumper.add_representer(list, _represent_list)


def tag_of(text: str, length: int = 4) -> str:
    """The start of a hash of a record's text, for its file's name.

    Two branches may train the same settings under the same number, with other figures for the
    cost at least: by the tag they write two files, and merge without a conflict.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:length]


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
        "environment": _sorted(iteration.environment),
        "cost": _plain(asdict(iteration.cost)),
    }
    return _dump(record)


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


def _dump(record: Mapping[str, Any]) -> str:
    text: str = yaml.dump(record, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


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
    return str(value).encode("utf-8", "backslashreplace").decode()
