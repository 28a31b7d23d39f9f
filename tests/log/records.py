"""Records for the tests of the log: whatever one may hold, and a plain one of each kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pytest_ftloop.core.records import (
    Adjustment,
    Cost,
    Decision,
    EvalPoint,
    ExampleResult,
    Finding,
    HoldoutUse,
    Iteration,
    Judgement,
    SeedRun,
    Settings,
    StepLog,
)
from pytest_ftloop.log import ImprovementLog
from tests.fakes import fake_example, fake_finding, fake_iteration, fake_judgement

SCHEMA_1 = Path(__file__).parent / "logs/schema-1"

HOSTILE = "a\\n\n\r\n\t\x00\x1b[31m\x7f\x85\u2028\u2029\ufeff\ud83d 🌊 \"',;: #- {}[]&*!|>%@`"

# Surrogates too: a tokenizer's output may hold half a character.
any_text = st.text(st.characters(categories=None), max_size=12) | st.sampled_from(
    [HOSTILE, "yes", "null", "1e3", "0x1f", "2024-01-01", "- a", "~", "=", "<<", " a ", "'", "a: b"]
)
text = st.text(max_size=12) | st.sampled_from(["1", "1.0", "no", "a: b", "#", "\x85", "\u2028"])
figure = st.floats(width=32) | st.just(-0.0)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
names = st.text(min_size=1, max_size=8).filter(lambda name: name != "r")  # whose values are numbers
values = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | figure | text
settings_values = values | st.lists(values, max_size=3) | st.dictionaries(names, values, max_size=2)
mapping = st.dictionaries(names, settings_values, max_size=3)
loop_names = st.text("ab1_\u00e9\u4e2d", min_size=1, max_size=8)
digits = "0123456789abcdef"
short_ids = st.text(digits, min_size=8, max_size=8)
fingerprints = st.text(digits, min_size=64, max_size=64)
metrics = st.dictionaries(names, figure, max_size=4)
adjustments = st.lists(
    st.builds(Adjustment, setting=text, before=values, after=values, because=text), max_size=2
).map(tuple)
examples = st.lists(
    st.builds(
        ExampleResult,
        id=any_text,
        content=st.text(digits, min_size=12, max_size=12),
        tags=st.lists(any_text.map(lambda t: t.replace(";", ",")).filter(bool), max_size=2).map(
            tuple
        ),
        loss=figure,
        tokens=st.integers(0, 10**6),
        correct=st.integers(0, 10**6),
        passed=st.none() | st.booleans(),
        expected=any_text,
        output=any_text,
    ),
    max_size=4,
    unique_by=lambda e: e.id,
).map(tuple)
environments = st.dictionaries(names, text, max_size=3)
costs = st.builds(
    Cost,
    seconds=finite,
    steps=st.integers(0, 10**6),
    tokens=st.integers(0, 10**9),
    device_memory_mib=finite,
)
iterations = st.builds(
    Iteration,
    loop=loop_names,
    number=st.integers(1, 5000),
    id=short_ids,
    fingerprint=fingerprints,
    parent=st.none() | short_ids,
    adjustments=adjustments,
    model=text,
    settings=st.builds(Settings, lora=mapping, training=mapping),
    scoring=mapping,
    data=st.dictionaries(names, mapping, max_size=2),
    metrics=metrics,
    final=metrics,
    base=metrics,
    facts=mapping,
    steps=st.lists(
        st.builds(StepLog, st.integers(1, 10**6), figure, st.none() | figure, learning_rate=finite),
        max_size=3,
    ).map(tuple),
    evals=st.lists(
        st.builds(EvalPoint, st.integers(1, 10**6), finite, figure, figure), max_size=3
    ).map(tuple),
    findings=st.lists(
        st.builds(
            Finding,
            kind=text,
            severity=st.sampled_from(["error", "warning", "info"]),
            message=text,
            evidence=st.dictionaries(names, st.integers() | figure | text, max_size=3),
            remedy=text,
            tunable=st.booleans(),
        ),
        max_size=2,
    ).map(tuple),
    failing=st.lists(text, max_size=3).map(tuple),
    decision=st.builds(
        Decision,
        action=st.sampled_from(["adjust", "stop"]),
        kind=text,
        because=text,
        next=adjustments,
    ),
    environment=environments,
    cost=costs,
    examples=examples,
    group=fingerprints,
).map(lambda iteration: replace(iteration, id=iteration.fingerprint[:8]))
seed_runs = st.builds(
    SeedRun,
    loop=loop_names,
    iteration=short_ids,
    seed=st.integers(0, 2**32 - 1),
    role=st.sampled_from(["gate", "calibration", "baseline"]),
    fingerprint=fingerprints,
    group=fingerprints,
    scoring=mapping,
    data=st.dictionaries(names, mapping, max_size=2),
    metrics=metrics,
    environment=environments,
    cost=costs,
    examples=examples,
)
judgements = st.builds(
    Judgement,
    loop=loop_names,
    candidate=short_ids,
    baseline=st.none() | short_ids,
    by=st.sampled_from(["gate", "hand"]),
    kind=text,
    passed=st.booleans(),
    because=text,
    over=st.lists(text, max_size=3).map(tuple),
    verdict=mapping,
)
holdout_uses = st.builds(
    HoldoutUse,
    loop=loop_names,
    iteration=short_ids,
    fingerprint=fingerprints,
    scoring=mapping,
    data=mapping,
    metrics=metrics,
    environment=environments,
    examples=examples,
)


def rounded(value: Any) -> Any:
    """A value as the log keeps it, comparable: NaN as text, numbers to six significant digits."""
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [rounded(inner) for inner in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return round(value, 6) if abs(value) >= 1e-2 else float(f"{value:.6g}")
    if hasattr(value, "__dataclass_fields__"):
        kept = [f.name for f in fields(value) if f.name not in {"examples", "tag"}]
        return {name: rounded(getattr(value, name)) for name in kept}
    return value


def kept_rows(rows: Sequence[ExampleResult]) -> list[Any]:
    """Rows as the table keeps them: by id, the loss to six decimals."""
    return [
        [str(value) if isinstance(value, float) else value for value in vars(row).values()]
        for row in sorted(
            (replace(row, loss=float(f"{row.loss:.6f}")) for row in rows), key=lambda r: r.id
        )
    ]


def one(**fields: Any) -> Iteration:
    examples = [fake_example("b", passed=False, tags=("x", "y z")), fake_example("a")]
    return fake_iteration(**{"examples": examples, "findings": [fake_finding()], **fields})


def a_seed_run(seed: int = 7, **fields: Any) -> SeedRun:
    defaults: dict[str, Any] = {
        "role": "gate",
        "group": "9" * 64,
        "examples": [fake_example("a"), fake_example("b", passed=False)],
        "cost": Cost(seconds=10.0, steps=100, tokens=20_000),
    }
    return SeedRun(seed=seed, **(common_fields() | defaults | fields))


def a_holdout_use(**fields: Any) -> HoldoutUse:
    rows = [fake_example("a"), fake_example("b", passed=False)]
    data = {"source": "data/holdout.jsonl", "rows": 2, "sha256": "b" * 16}
    return HoldoutUse(**(common_fields() | {"data": data, "examples": rows} | fields))


def common_fields() -> dict[str, Any]:
    own = ("loop", "fingerprint", "scoring", "data", "metrics", "environment")
    return {name: getattr(one(), name) for name in own} | {"iteration": one().id}


def a_judgement(**fields: Any) -> Judgement:
    passing = fake_judgement("00000001")
    verdict = {"kind": "improved", "alpha": 0.01, "changes": [{"metric": "eval_loss", "p": 0.2}]}
    return replace(passing, **({"verdict": verdict} | fields))


def written_record(log: ImprovementLog, **fields: Any) -> Path:
    """The path of the record of an iteration written now."""
    record, _ = log.files(log.append(one(**fields)))
    return record
