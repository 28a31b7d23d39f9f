"""The shapes of the items that `--json` prints, and their JSON schema (`ftloop schema --output`).

A key is always there; what is not known or not finite is null. A key that is added leaves `schema`
as it is; one that is removed, or means something else, raises it.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from typing_extensions import TypedDict

SCHEMA = 1
"""The version of these shapes."""

Number: TypeAlias = "float | None"
Figures: TypeAlias = "dict[str, float | None]"
CommandName = Literal["run", "gate", "diff", "show", "suggest"]


class Item(TypedDict):
    """What every item has. `source` is the loop file, or the log of a loop without one."""

    schema: Literal[1]
    loop: str | None
    source: str
    exit_code: int


class Failure(Item):
    """A loop that the command can't answer for: `error` says why, as stderr does."""

    command: CommandName
    error: str


class Answer(Item):
    """A loop that the command answers for."""

    error: None


class AdjustmentShape(TypedDict):
    """One setting to change."""

    setting: str
    before: Any
    after: Any
    because: str


class FindingShape(TypedDict):
    """A finding, and what to do about it: by the loop, as `next` has it, or by hand."""

    kind: str
    severity: Literal["error", "warning", "info"]
    message: str
    evidence: dict[str, Any]
    remedy: str
    tunable: bool


class DecisionShape(TypedDict):
    """What follows an iteration: the loop adjusts, or it stopped."""

    action: Literal["adjust", "stop"]
    kind: str
    because: str


class GateShape(TypedDict):
    """A threshold, the figure found, and whether it holds."""

    gate: str
    figure: Number
    passed: bool


class ChangeShape(TypedDict):
    """One metric, tested against the baseline. `change` above 0 is worse, whatever the metric."""

    metric: str
    kind: str
    baseline: Number
    candidate: Number
    change: Number
    p: Number
    se: Number
    df: Number
    tau: Number
    nu: Number
    upper: Number
    detectable: Number
    examples: int
    seeds: list[int]
    against: str


class Common(TypedDict):
    """How many examples were compared, of how many."""

    common: int
    of: int


class ComparisonShape(TypedDict):
    """A verdict against the baseline. `fixed` and `broken` are ids of examples."""

    kind: str
    ok: bool
    because: str
    candidate: str
    baseline: str | None
    anchor: str | None
    alpha: float
    examples: Common
    changes: list[ChangeShape]
    tags: list[ChangeShape]
    runs: list[ChangeShape]
    slide: list[ChangeShape]
    fixed: list[str]
    broken: list[str]
    notes: list[str]
    context: list[str]


class VerdictShape(ComparisonShape):
    """The verdict of one gate."""

    gate: str


class GateChangeShape(TypedDict):
    """One change of a gate, or of the rows that it is measured by.

    `held`, of a threshold that was loosened or removed: whether the figure holds by the old bound.
    """

    name: str
    before: str
    after: str
    loosened: bool
    held: bool | None


class GateChangesShape(TypedDict):
    """How the gates differ from those of the commit `against`; `unknown` is why that is unknown."""

    against: str
    changes: list[GateChangeShape]
    unknown: str


class Judged(Answer):
    """A loop, judged: its thresholds, its verdicts, and what the change did to its gates."""

    iteration: str
    against: str | None
    gates: list[GateShape]
    verdicts: list[VerdictShape]
    gate_changes: GateChangesShape
    holdout: list[str]


class GateItem(Judged):
    """A logged loop, judged."""

    command: Literal["gate"]


class Row(TypedDict):
    """One iteration of a run: how it differs from the one before, and its figures."""

    iteration: str
    adjustments: list[AdjustmentShape]
    metrics: Figures
    trained: bool
    decision: DecisionShape


class RunItem(Judged):
    """A loop that ran: also its iterations, and of the best one findings and failing examples."""

    command: Literal["run"]

    iterations: list[Row]
    findings: list[FindingShape]
    failing: list[str]
    next: list[AdjustmentShape]
    files: list[str]
    notes: list[str]


class SettingShape(TypedDict):
    """A setting, or a fact of model, scoring or data, before and after; null: not set."""

    name: str
    before: Any
    after: Any


class EditShape(TypedDict):
    """One row of a data set that changed."""

    kind: Literal["relabelled", "edited", "removed", "added"]
    id: str
    prompt: str
    before: str
    after: str


class DataShape(TypedDict):
    """What changed in the train or the eval set: in counts, and up to three rows.

    `file` is the set's file, if the baseline's commit has the version from before; else empty.
    """

    role: str
    text: str
    edits: list[EditShape]
    file: str


class FlipShape(TypedDict):
    """An example that passes on one side only."""

    id: str
    tags: list[str]
    expected: str
    before: str
    after: str
    prompt: str | None


class BeforeAfter(TypedDict):
    """A figure that was not tested."""

    before: Number
    after: Number


class CostShape(TypedDict):
    """What a training cost."""

    seconds: float
    steps: int
    tokens: int
    device_memory_mib: float
    resumed_at: int


class Costs(TypedDict):
    """The cost of the baseline and of the candidate."""

    before: CostShape
    after: CostShape


class DiffItem(Answer):
    """What a candidate changed since its baseline."""

    command: Literal["diff"]
    before: str
    after: str
    against: str
    verdict: ComparisonShape
    gate_changes: GateChangesShape
    not_tested: dict[str, BeforeAfter]
    settings: list[SettingShape]
    data: list[DataShape]
    fixed: list[FlipShape]
    broken: list[FlipShape]
    came: list[str]
    went: list[str]
    cost: Costs


class SettingsShape(TypedDict):
    """The arguments of LoraConfig and SFTConfig that are not their defaults."""

    lora: dict[str, Any]
    training: dict[str, Any]


class StepShape(TypedDict):
    """One optimiser step."""

    step: int
    loss: Number
    grad_norm: Number
    learning_rate: Number


class PointShape(TypedDict):
    """One evaluation point."""

    step: int
    epoch: Number
    eval_loss: Number
    token_accuracy: Number


class FailingShape(TypedDict):
    """An example that did not pass; `prompt` is null without the loop's file."""

    id: str
    tags: list[str]
    loss: Number
    prompt: str | None
    expected: str
    outputs: list[str]
    scores: Figures


class ShowItem(Answer):
    """One record of the improvement log."""

    command: Literal["show"]
    iteration: str
    number: int
    id: str
    parent: str | None
    adjustments: list[AdjustmentShape]
    model: str
    settings: SettingsShape
    scoring: dict[str, Any]
    data: dict[str, dict[str, Any]]
    metrics: Figures
    final: Figures
    untrained: Figures
    facts: dict[str, Any]
    steps: list[StepShape]
    evals: list[PointShape]
    findings: list[FindingShape]
    failing: list[FailingShape]
    decision: DecisionShape
    next: list[AdjustmentShape]
    environment: dict[str, str]
    cost: CostShape


class SuggestItem(Answer):
    """What to change next. `planned`: the next run trains it; else it would if the loop went on."""

    command: Literal["suggest"]
    iteration: str
    decision: DecisionShape
    parent: str | None
    planned: bool
    next: list[AdjustmentShape]
    because: str
    faults: list[FindingShape]


Output: TypeAlias = "list[GateItem | RunItem | DiffItem | ShowItem | SuggestItem | Failure]"


def output_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of what `--json` prints."""
    from pydantic import ConfigDict, TypeAdapter

    schema = TypeAdapter(Output, config=ConfigDict(extra="forbid")).json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What --json prints: ftloop run, gate, diff, show and suggest",
        **schema,
    }
