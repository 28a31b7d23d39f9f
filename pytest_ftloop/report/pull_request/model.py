"""The report as plain data: `ftloop ci` writes it, `ftloop comment` reads it without trusting it.

The file may come from a fork, so every text, number and list has a bound, and unknown keys are
refused. Texts are not escaped: whoever shows them has to make them inert.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from pytest_ftloop.core.bounds import read_json
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.records import Severity
from pytest_ftloop.gate.verdict import Kind, MetricKind
from pytest_ftloop.report.escape import one_line

SCHEMA_VERSION = 5
"""Version of the report's format. A newer version is refused, an older one is read."""

MOST_BYTES = 32 * 1024 * 1024
"""Most bytes of a report; a larger file is not read."""

NAME, TEXT, LONG = 200, 600, 4_000
"""Most characters of a name, a text and a message."""

MOST_LOOPS, MOST_ITERATIONS, MOST_EXAMPLES, MOST_POINTS, MOST_ROWS = 200, 100, 50, 60, 200
"""Most entries of each kind in a report."""

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
"""The outcomes of a loop, the worst first. `failed`: a threshold does not hold."""

Name = Annotated[str, StringConstraints(max_length=NAME)]
Text = Annotated[str, StringConstraints(max_length=TEXT)]
Long = Annotated[str, StringConstraints(max_length=LONG)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Line = Annotated[int, Field(ge=1, le=10**7)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Number = Finite | Literal["nan", "inf", "-inf"]
"""A figure. JSON has neither NaN nor infinity, so they are texts."""

Point = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Points = Annotated[tuple[Point, ...], Field(min_length=2, max_length=MOST_POINTS)]
State = Literal["", "new", "gone"]
Metrics = Annotated[dict[Name, Number], Field(max_length=MOST_ROWS)]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Threshold(_Row):
    """One gate on a figure. `message` contains the figure and its bound.

    `loosened` is what a tick does not say: that it holds because the change loosened it.
    """

    condition: Name
    message: Text
    passed: bool
    line: Line | None
    loosened: Text = ""


class ChangeRow(_Row):
    """One metric beside the baseline's. `detectable` is the smallest detectable drop."""

    metric: Name
    kind: MetricKind
    baseline: Number
    candidate: Number
    p: Number
    detectable: Number


class VerdictRow(_Row):
    """The verdict of one regression gate. `ok` is False where it fails the gate.

    `seeds` says that the figures are means over seeds, if they are. `common` of `total` examples
    were compared. `loosened` is as of a threshold.
    """

    gate: Name
    kind: Kind
    ok: bool
    because: Text
    against: Name
    baseline: Name | None
    line: Line | None
    changes: Annotated[tuple[ChangeRow, ...], Field(max_length=MOST_ROWS)]
    seeds: Name = ""
    common: Count = 0
    total: Count = 0
    loosened: Text = ""
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
    """One finding. `state`: `new` if the baseline lacks it, `gone` if only the baseline has it."""

    severity: Severity
    kind: Name
    message: Long
    evidence: Text
    remedy: Long
    state: State


class ExampleRow(_Row):
    """An example that passes on one side only."""

    id: Name
    tags: Annotated[tuple[Name, ...], Field(max_length=20)]
    prompt: Text | None
    expected: Text
    before: Text
    after: Text


class Flips(_Row):
    """The examples that were fixed, or broken: their number, and the first of them.

    Of broken ones also how many the baseline `passed`, and how many now answer the same `output`.
    """

    total: Count
    examples: Annotated[tuple[ExampleRow, ...], Field(max_length=MOST_EXAMPLES)]
    passed: Count = 0
    alike: Count = 0
    output: Text = ""


class SettingRow(_Row):
    """A setting that differs from the baseline's, formatted for people."""

    name: Name
    before: Text
    after: Text


class DataRow(_Row):
    """What changed in the rows of a data set; `edits` are a few of the rows, in a line each."""

    role: Name
    text: Text
    edits: Annotated[tuple[Text, ...], Field(max_length=20)] = ()


class GateChangeRow(_Row):
    """Something that decides what passes, and differs from the baseline's commit.

    `held`: whether the `figure` holds by the old bound; None where that is not known.
    """

    name: Name
    before: Text
    after: Text
    loosened: bool
    held: bool | None = None
    figure: Name = ""


class GateChangesRow(_Row):
    """The changes in a loop's gates. `unknown` is the reason why the loop file isn't compared."""

    against: Name = ""
    changes: Annotated[tuple[GateChangeRow, ...], Field(max_length=MOST_ROWS)] = ()
    unknown: Text = ""

    @property
    def loosened(self) -> bool:
        """Whether something can pass now that failed before, or may."""
        return bool(self.unknown) or any(change.loosened for change in self.changes)


class CostRow(_Row):
    """The cost of an iteration."""

    seconds: Number
    steps: Count
    tokens: Count
    device_memory_mib: Number


class Curve(_Row):
    """The losses at the best iteration's evaluation points, evenly spaced from `start` to `end`."""

    start: Count
    end: Count
    train: Points
    evals: Points


class LoopSection(_Row):
    """One loop and its best iteration.

    `error` is the reason why it could not be judged, or empty; `stale`: training would cure it.
    `trained`: this job trained or restored the iteration. `to_do`: what to do about what failed,
    sentences, and commands that begin with two spaces.
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
    gate_changes: GateChangesRow = GateChangesRow()
    data: Annotated[tuple[DataRow, ...], Field(max_length=20)] = ()
    to_do: Annotated[tuple[Text, ...], Field(max_length=20)] = ()

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of its verdicts and thresholds."""
        if self.error:
            return "stale" if self.stale else "error"
        said: set[Outcome] = {verdict.kind for verdict in self.verdicts}
        if not all(threshold.passed for threshold in self.thresholds):
            said.add("failed")
        return min(said, key=OUTCOMES.index, default="incomplete")

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        rows = (*(t.passed for t in self.thresholds), *(v.ok for v in self.verdicts))
        return not self.error and all(rows)


class PullRequestReport(_Row):
    """The loops of a run. `left_out` is the number of further loops, none of them worse.

    `key` tells the run from others on the same pull request, each of which has its own comment.
    """

    schema_version: Literal[1, 2, 3, 4, 5] = 5
    key: Name = ""
    loops: Annotated[tuple[LoopSection, ...], Field(max_length=MOST_LOOPS)]
    left_out: Count = 0

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of all loops."""
        return min((loop.outcome for loop in self.loops), key=OUTCOMES.index, default="error")


def number(value: float) -> Number:
    """A figure for the report."""
    if math.isfinite(value):
        return float(value)
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def to_json(report: PullRequestReport) -> str:
    """The report as the text of a file."""
    return report.model_dump_json(indent=1) + "\n"


def from_json(content: bytes) -> PullRequestReport:
    """The report in a file of unknown origin. Raises `ConfigError` with the first mistake."""
    if len(content) > MOST_BYTES:
        raise ConfigError(f"the report is larger than {MOST_BYTES // 1024**2} MiB")
    version = _version(content)
    if version is not None and version > SCHEMA_VERSION:
        raise ConfigError(
            f"the report has schema {one_line(str(version), 20)}; this version reads "
            f"schema {SCHEMA_VERSION}",
            cure="Update pytest-ftloop in the job that writes the comment.",
        )
    try:
        return PullRequestReport.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = one_line(".".join(map(str, first["loc"])), 80) or "the file"
        count = error.error_count()
        more = f", and {count - 1} more mistakes" if count > 1 else ""
        raise ConfigError(
            f"not a report of ftloop ci: {where}: {one_line(first['msg'], 120)}{more}",
            cure="Pass the report.json that ftloop ci writes.",
        ) from None


def _version(content: bytes) -> int | None:
    """The schema version in the file, whatever else it contains; None if there is none."""
    try:
        stated = read_json(content)["schema_version"]
    except (ValueError, LookupError, TypeError):
        return None
    return stated if type(stated) is int else None
