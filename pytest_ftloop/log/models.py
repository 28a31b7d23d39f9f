"""The records of a log as pydantic models: each key that a file must have, and its type.

Types are strict: true is no number, '3' no whole number, 3.0 none either. An unknown key is a
mistake, but in the settings, the data and the facts, which hold whatever there is to say; there the
keys that are computed with have a type.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic_core import PydanticCustomError

from pytest_ftloop.core.records import (
    DEFAULT_SEED,
    ID_LENGTH,
    LOOP_NAME,
    SeedRole,
    Severity,
)
from pytest_ftloop.log.writing import EVAL_COLUMNS, STEP_COLUMNS

OURS = "ftloop"
"""The type of the errors raised here, whose message says what was wanted."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Figures = dict[str, float]
"""Metrics by name. A figure of a run that diverged is NaN or infinite."""


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)


class _Open(_Row):
    model_config = ConfigDict(extra="allow")


def _amount(value: Any) -> Any:
    """A number, quoted as trl and peft take it too, or null."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    try:
        return float(value) if isinstance(value, str) else _not("a number")
    except ValueError:
        return _not("a number")


def _seed(value: Any) -> Any:
    try:
        return (
            int(value) if isinstance(value, str) or type(value) is int else _not("a whole number")
        )
    except ValueError:
        return _not("a whole number")


def _not(wanted: str) -> Any:
    raise PydanticCustomError(OURS, "{wanted}", {"wanted": wanted})


def _below(columns: tuple[str, ...]) -> BeforeValidator:
    """The rows of a curve, without the first, which names the columns."""

    def rows(value: Any) -> Any:
        if isinstance(value, list) and value[:1] != [list(columns)]:
            return _not(f"[{', '.join(columns)}] as the first row")
        return value[1:] if isinstance(value, list) else value

    return BeforeValidator(rows)


def _digits(length: int) -> AfterValidator:
    """That many hexadecimal digits: an id is the name of a file or folder, and leads nowhere."""

    def check(value: str) -> str:
        is_one = re.fullmatch(f"[0-9a-f]{{{length}}}", value)
        return value if is_one else _not(f"{length} hexadecimal digits")

    return AfterValidator(check)


def _name(value: str) -> str:
    """The name of a loop, which is that of its folder; never a path."""
    return value if re.fullmatch(LOOP_NAME, value) else _not("the name of a loop")


Id = Annotated[str, _digits(ID_LENGTH)]
Fingerprint = Annotated[str, _digits(64)]
LoopName = Annotated[str, AfterValidator(_name)]
Amount = Annotated[Any, AfterValidator(_amount)]
Seed = Annotated[Any, AfterValidator(_seed)]
StepRow = Annotated[tuple[int, float, float | None, Finite], Strict(False)]
EvalRow = Annotated[tuple[int, Finite, float, float], Strict(False)]


class AdjustmentRow(_Row):
    """One change of a setting."""

    setting: str
    before: Any
    after: Any
    because: str


class _Lora(_Open):
    r: Amount = None
    lora_alpha: Amount = None
    lora_dropout: Amount = None


class _Training(_Open):
    learning_rate: Amount = None
    max_steps: Amount = None
    num_train_epochs: Amount = None
    seed: Seed = DEFAULT_SEED
    warmup_steps: Amount = None
    weight_decay: Amount = None


class _Settings(_Row):
    lora: _Lora
    training: _Training
    scoring: dict[str, Any]


class _Data(_Open):
    source: str = ""
    rows: int = 0
    sha256: str = ""


class _Facts(_Open):
    steps: int = 0
    planned_steps: int = 0
    best_step: int = 0
    steps_per_epoch: int = 0
    trainable_parameters: int = 0
    labelled_tokens: int = 0
    vocabulary: int = 0
    width: int = 0
    dropped_examples: int = 0
    ended_early: str = ""
    recoveries: list[str] = []


class _Curve(_Row):
    train: Annotated[list[StepRow], _below(STEP_COLUMNS)]
    eval: Annotated[list[EvalRow], _below(EVAL_COLUMNS)]


class FindingRow(_Row):
    """One finding of the diagnosis."""

    kind: str
    severity: Severity
    message: str
    evidence: dict[str, bool | float | int | str]
    remedy: str
    tunable: bool


class _Decision(_Row):
    action: Literal["adjust", "stop"]
    kind: str
    because: str
    next: list[AdjustmentRow]
    parent: str = ""
    rests_on: str = ""


class _Table(_Row):
    rows: int
    sha256: str
    file: str = ""  # of schema 1


Guards = dict[LoopName, _Table]
"""The tables of the guards' rows, by guard."""


class _Cost(_Row):
    seconds: Finite
    steps: int
    tokens: int
    device_memory_mib: Finite
    resumed_at: int = 0


class _Record(_Row):
    version: int = Field(alias="schema", ge=1)
    loop: LoopName


class IterationRecord(_Record):
    """`<number>-<id>-<tag>.yaml`. Schema 1 has no group, schema 2 no weights."""

    number: int
    id: Id
    parent: Id | None
    fingerprint: Fingerprint
    group: str = ""
    weights: str = ""
    adapter: str = ""
    adjustments: list[AdjustmentRow]
    model: str
    settings: _Settings
    data: dict[str, _Data]
    metrics: Figures
    final: Figures
    base: Figures
    facts: _Facts
    curve: _Curve
    findings: list[FindingRow]
    failing: list[str]
    decision: _Decision
    examples: _Table
    guards: Guards = {}
    environment: dict[str, str]
    cost: _Cost


class SeedRunRecord(_Record):
    """`seeds/<id>-<seed>-<tag>.yaml`."""

    iteration: Id
    seed: int
    role: SeedRole
    fingerprint: Fingerprint
    group: str
    weights: str = ""
    adapter: str = ""
    scoring: dict[str, Any]
    data: dict[str, _Data]
    metrics: Figures
    examples: _Table
    guards: Guards = {}
    environment: dict[str, str]
    cost: _Cost


class UntrainedRecord(_Record):
    """`base/<id>-<tag>.yaml`."""

    fingerprint: Fingerprint
    model: str
    scoring: dict[str, Any]
    data: dict[str, _Data]
    metrics: Figures
    facts: dict[str, Any]
    examples: _Table
    guards: Guards = {}
    environment: dict[str, str]


class JudgementRecord(_Record):
    """`verdicts/<id>-<tag>.yaml`."""

    candidate: Id
    baseline: Id | None
    by: Literal["gate", "hand"]
    kind: str
    passed: bool
    because: str
    over: list[str]
    verdict: dict[str, Any]


class HoldoutRecord(_Record):
    """`holdout/<id>-<tag>.yaml`."""

    iteration: Id
    fingerprint: Fingerprint
    scoring: dict[str, Any]
    data: _Data
    metrics: Figures
    examples: _Table
    environment: dict[str, str]
