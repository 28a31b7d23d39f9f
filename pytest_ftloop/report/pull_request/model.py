"""The report as plain data: what `ftloop ci` writes, and `ftloop comment` reads without trust.

Every text, number and list has a bound, and nothing unknown is let in: the file may come from a
fork. Texts are as users and models wrote them; who shows them makes them inert.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.records import Severity
from pytest_ftloop.gate.verdict import Kind, MetricKind
from pytest_ftloop.report.escape import one_line

SCHEMA_VERSION = 1
"""Version of the report. A newer one is refused."""

MOST_BYTES = 32 * 1024 * 1024
"""A larger file is not read."""

NAME, TEXT, LONG = 200, 600, 4_000
"""Characters that a name, a text and a message may have."""

MOST_LOOPS, MOST_ITERATIONS, MOST_EXAMPLES, MOST_POINTS, MOST_ROWS = 200, 100, 50, 60, 200
"""How many of each a report may hold."""

Outcome = Literal[
    "error",
    "regressed",
    "incomplete",
    "stale",
    "failed",
    "inconclusive",
    "not comparable",
    "unchanged",
    "improved",
]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""What can be said of a loop, the worst first. `failed`: a threshold does not hold."""

Name = Annotated[str, StringConstraints(max_length=NAME)]
Text = Annotated[str, StringConstraints(max_length=TEXT)]
Long = Annotated[str, StringConstraints(max_length=LONG)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Line = Annotated[int, Field(ge=1, le=10**7)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Number = Finite | Literal["nan", "inf", "-inf"]
"""A figure: JSON has no NaN and no infinity."""

Point = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Points = Annotated[tuple[Point, ...], Field(min_length=2, max_length=MOST_POINTS)]
State = Literal["", "new", "gone"]
Metrics = Annotated[dict[Name, Number], Field(max_length=MOST_ROWS)]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Threshold(_Row):
    """One gate on a figure. `message` states the figure and what was wanted."""

    condition: Name
    message: Text
    passed: bool
    line: Line | None


class ChangeRow(_Row):
    """One metric beside the baseline's. `detectable` is the smallest drop that would be found."""

    metric: Name
    kind: MetricKind
    baseline: Number
    candidate: Number
    p: Number
    detectable: Number


class VerdictRow(_Row):
    """What one regression gate says. `ok` is False where that fails the gate."""

    gate: Name
    kind: Kind
    ok: bool
    because: Text
    against: Name
    baseline: Name | None
    line: Line | None
    changes: Annotated[tuple[ChangeRow, ...], Field(max_length=MOST_ROWS)]
    notes: Annotated[tuple[Text, ...], Field(max_length=MOST_ROWS)]


class IterationRow(_Row):
    """One iteration of the chain."""

    number: Count
    id: Name
    change: Text
    decision: Name
    metrics: Metrics
    is_best: bool


class FindingRow(_Row):
    """One finding of the best iteration; `state` says whether the baseline has it too."""

    severity: Severity
    kind: Name
    message: Long
    evidence: Text
    remedy: Long
    state: State


class ExampleRow(_Row):
    """An example that one side passes and the other fails."""

    id: Name
    tags: Annotated[tuple[Name, ...], Field(max_length=20)]
    prompt: Text | None
    expected: Text
    before: Text
    after: Text


class Flips(_Row):
    """The examples that were fixed, or broken: how many in all, and the first of them."""

    total: Count
    examples: Annotated[tuple[ExampleRow, ...], Field(max_length=MOST_EXAMPLES)]


class SettingRow(_Row):
    """A setting that differs from the baseline's, as people write it."""

    name: Name
    before: Text
    after: Text


class CostRow(_Row):
    """What an iteration cost."""

    seconds: Number
    steps: Count
    tokens: Count
    device_memory_mib: Number


class Curve(_Row):
    """The losses of the best iteration, each list evenly spaced from step `start` to `end`."""

    start: Count
    end: Count
    train: Points
    evals: Points


class LoopSection(_Row):
    """One loop: what is said of its best iteration.

    `error` is why it could not be judged, empty where it was; `stale` says that training would
    cure that, `trained` that this very job trained or restored it. `against` is the baseline's
    commit.
    """

    loop: Name
    source: Text
    error: Long = ""
    stale: bool = False
    trained: bool = False
    iteration: Name = ""
    metrics: Metrics = Field(default_factory=dict)
    thresholds: Annotated[tuple[Threshold, ...], Field(max_length=MOST_ROWS)] = ()
    verdicts: Annotated[tuple[VerdictRow, ...], Field(max_length=MOST_ROWS)] = ()
    iterations: Annotated[tuple[IterationRow, ...], Field(max_length=MOST_ITERATIONS)] = ()
    findings: Annotated[tuple[FindingRow, ...], Field(max_length=MOST_ROWS)] = ()
    broken: Flips = Flips(total=0, examples=())
    fixed: Flips = Flips(total=0, examples=())
    settings: Annotated[tuple[SettingRow, ...], Field(max_length=MOST_ROWS)] = ()
    holdout: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    curve: Curve | None = None
    cost: CostRow | None = None
    cost_before: CostRow | None = None

    @property
    def outcome(self) -> Outcome:
        """The worst that is said of it."""
        if self.error:
            return "stale" if self.stale else "error"
        said: set[Outcome] = {verdict.kind for verdict in self.verdicts}
        if not all(threshold.passed for threshold in self.thresholds):
            said.add("failed")
        return min(said, key=OUTCOMES.index, default="incomplete")

    @property
    def ok(self) -> bool:
        """Whether nothing fails."""
        rows = (*(t.passed for t in self.thresholds), *(v.ok for v in self.verdicts))
        return not self.error and all(rows)


class PullRequestReport(_Row):
    """All loops of a run. `left_out` counts those that there was no room for, none of them worse
    than those that are here.
    """

    schema_version: Literal[1] = 1
    loops: Annotated[tuple[LoopSection, ...], Field(max_length=MOST_LOOPS)]
    left_out: Count = 0

    @property
    def outcome(self) -> Outcome:
        """The worst of all loops."""
        return min((loop.outcome for loop in self.loops), key=OUTCOMES.index, default="error")


def number(value: float) -> Number:
    """A figure as the report keeps it."""
    if math.isfinite(value):
        return float(value)
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def to_json(report: PullRequestReport) -> str:
    """The report for a file."""
    return report.model_dump_json(indent=1) + "\n"


def from_json(content: bytes) -> PullRequestReport:
    """The report in a file that anybody may have written. A `ConfigError` says what is wrong."""
    if len(content) > MOST_BYTES:
        raise ConfigError(f"the report is larger than {MOST_BYTES // 1024**2} MiB")
    version = _version(content)
    if version is not None and version > SCHEMA_VERSION:
        raise ConfigError(
            f"the report is of schema {one_line(str(version), 20)}, this version reads "
            f"schema {SCHEMA_VERSION}",
            cure="Update pytest-ftloop where the comment is written.",
        )
    try:
        return PullRequestReport.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = one_line(".".join(map(str, first["loc"])), 80) or "the file"
        count = error.error_count()
        more = f", and {count - 1} more mistakes" if count > 1 else ""
        raise ConfigError(
            f"this is no report of ftloop ci: {where}: {one_line(first['msg'], 120)}{more}",
            cure="It wants the report.json that ftloop ci writes.",
        ) from None


def _version(content: bytes) -> int | None:
    """The schema version that is stated, whatever else the file says."""
    try:
        stated = json.loads(content)["schema_version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return stated if type(stated) is int else None
