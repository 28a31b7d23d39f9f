"""The frozen records that pass from one stage to the next; an `Iteration` is one log record.

Data flows one way: examples -> `Training` -> `Evaluation` -> `Finding`s -> `Decision`, together an
`Iteration`. Only numbers, strings and tuples of them: no tensor leaves the torch modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pytest_ftloop.core.errors import Location

SCHEMA_VERSION = 2
"""Version of the files of the improvement log. Readers accept this version and older ones."""

DEFAULT_SEED = 42
"""`TrainingArguments.seed` where none is stated."""

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Example:
    """One row of a data set, in one of the three forms that trl accepts.

    `row` holds the columns trl reads: one text, in the column `text_column`; `prompt` and
    `completion`; or `messages`. `prompt` and `expected` are the texts of the latter two forms, and
    `None` for the first. `content` is a hash of `row`, so the same id with other content is another
    example. `choices` are the example's own candidates for the `choice` scorer.
    """

    id: str
    content: str
    row: Mapping[str, Any]
    tags: tuple[str, ...] = ()
    prompt: str | None = None
    expected: str | None = None
    choices: tuple[str, ...] = ()
    where: Location | None = None
    text_column: str = "text"

    @property
    def prompt_text(self) -> str:
        """What reports show of the example and rules compare: the prompt, or the one text."""
        text = self.row.get(self.text_column) if self.prompt is None else self.prompt
        return text if isinstance(text, str) else ""


@dataclass(frozen=True)
class DataSet:
    """Examples of one role (train, eval, holdout), where they came from, and their content hash."""

    role: str
    source: str
    examples: tuple[Example, ...]
    sha256: str

    @property
    def tags(self) -> frozenset[str]:
        """All tags that occur."""
        return frozenset(tag for example in self.examples for tag in example.tags)


@dataclass(frozen=True)
class Settings:
    """What one iteration trains with: the stated arguments of LoraConfig and SFTConfig.

    Only what the user, the tool's own defaults or an adjustment stated; all else is trl's and
    peft's default. Values are JSON values.
    """

    lora: Mapping[str, Any]
    training: Mapping[str, Any]

    def get(self, setting: str, default: Any = None) -> Any:
        """The value of a dotted setting (`lora.r`, `training.learning_rate`)."""
        group, _, name = setting.partition(".")
        return getattr(self, group).get(name, default)

    def adjusted(self, adjustments: Sequence[Adjustment]) -> Settings:
        """These settings with the adjustments made."""
        groups = {"lora": dict(self.lora), "training": dict(self.training)}
        for adjustment in adjustments:
            group, _, name = adjustment.setting.partition(".")
            groups[group][name] = adjustment.after
        return Settings(lora=groups["lora"], training=groups["training"])


@dataclass(frozen=True)
class StepLog:
    """One optimiser step as the trainer logged it: the loss in train mode (dropout on)."""

    step: int
    loss: float
    grad_norm: float | None
    learning_rate: float


@dataclass(frozen=True)
class EvalPoint:
    """One evaluation point: the exact token-mean loss over the eval set after `step` steps."""

    step: int
    epoch: float
    eval_loss: float
    token_accuracy: float


@dataclass(frozen=True)
class ExampleResult:
    """What one example showed: `loss` is summed over its `tokens`, `correct` of them were top-1.

    `passed` is `None` where nothing was scored (the sample of the train set).
    """

    id: str
    content: str
    tags: tuple[str, ...]
    loss: float
    tokens: int
    correct: int
    passed: bool | None = None
    expected: str = ""
    output: str = ""

    @property
    def mean_loss(self) -> float:
        """Loss per token."""
        return self.loss / self.tokens if self.tokens else float("nan")


@dataclass(frozen=True)
class Training:
    """One LoRA run, whole or ended early.

    `best_step` is the evaluation point with the lowest eval loss (0 when none was finite).
    `vocabulary` is the model's vocabulary size, `width` that of its hidden states (0: unknown);
    `adapter_moved` says whether any trained weight differs from its start; `labelled_tokens` is how
    many the train set offers in one epoch. `ended_early` is empty, or why the run was stopped
    before `planned_steps`. `recoveries` names each out-of-memory recovery.
    """

    steps: tuple[StepLog, ...]
    evals: tuple[EvalPoint, ...]
    planned_steps: int
    best_step: int
    steps_per_epoch: int
    trainable_parameters: int
    labelled_tokens: int
    vocabulary: int
    adapter_moved: bool
    dropped_examples: int = 0
    ended_early: str = ""
    recoveries: tuple[str, ...] = ()
    width: int = 0
    wiring: Wiring | None = None
    trained: tuple[TrainedExample, ...] = ()


@dataclass(frozen=True)
class Wiring:
    """How the libraries wired a run: what trl made of the train rows.

    Of `examples` train examples trl dropped `dropped`. `sampled` of them were looked at in full:
    `ended` have a labelled token that ends generation, `masked_ends` have one that the collator
    took the label of; `cut` were cut to `max_length`, which took the end of `lost_ends`.
    `split_prompts` have a prompt whose tokens are others once the completion follows. `labels` is
    how many labelled tokens they have uncut, `lost_labels` of them were cut off, `prompt_labels`
    belong to prompts. `generates` says whether the scorer reads generated text.
    """

    examples: int
    dropped: int
    sampled: int
    generates: bool
    ended: int
    masked_ends: int
    cut: int
    lost_ends: int
    labels: int
    lost_labels: int
    prompt_labels: int
    split_prompts: int
    max_length: int | None


@dataclass(frozen=True)
class TrainedExample:
    """A train example's course: its mean loss per token each time it was trained on, in order."""

    id: str
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """What the best evaluation point's adapter does.

    `examples`: every eval example, scored. `train_examples`: a seeded sample of the train set, in
    eval mode. `final_train_examples`: the same sample with the last weights (the same tuple when
    the last point is the best). `base_eval_loss`: the untrained base on the same eval set.
    """

    examples: tuple[ExampleResult, ...]
    train_examples: tuple[ExampleResult, ...]
    final_train_examples: tuple[ExampleResult, ...]
    base_eval_loss: float


@dataclass(frozen=True)
class Finding:
    """One thing the diagnosis says.

    `evidence` holds the numbers it rests on; `remedy` what to do; `tunable` whether a change of
    settings can cure it (a data or wiring fault can't be tuned away).
    """

    kind: str
    severity: Severity
    message: str
    evidence: Mapping[str, float | int | str]
    remedy: str
    tunable: bool = True


@dataclass(frozen=True)
class Adjustment:
    """One setting changed for the next iteration (`lora.r`, `training.learning_rate`)."""

    setting: str
    before: Any
    after: Any
    because: str


@dataclass(frozen=True)
class Decision:
    """What follows an iteration.

    `action` adjust: the next iteration trains with `next`. `action` stop: `kind` is gates,
    plateau, iterations, time, fault or exhausted; `next` is what would be tried if the loop went
    on, and may be empty. `because` is one sentence. `parent` is the id of the iteration that
    `next` is relative to, where that is not the best one so far. `rests_on` is what of the loop
    file a stop rests on (policy and patience), where that is not the default: with another it is
    decided again.
    """

    action: Literal["adjust", "stop"]
    kind: str
    because: str
    next: tuple[Adjustment, ...] = ()
    parent: str = ""
    rests_on: str = ""


@dataclass(frozen=True)
class Cost:
    """What an iteration cost. `device_memory_mib` is the peak on the accelerator, 0 on CPU."""

    seconds: float
    steps: int
    tokens: int
    device_memory_mib: float = 0.0


@dataclass(frozen=True)
class Iteration:
    """One train, evaluate, diagnose, adjust: one record of the improvement log.

    `metrics` are the figures of the best evaluation point, by name and by `name[tag]`; `final`
    those of the last one; `base` those of the untrained base model. `facts` are the plain numbers
    of the training (steps, best_step, trainable_parameters, ...). `failing` are the ids of the eval
    examples that did not pass. `examples`, `failing`, `findings` and the curves `steps` and
    `evals` may be read from their file only when first looked at. `group` is the fingerprint of its
    settings whatever the seed: iterations and seed runs of one group differ by chance only (empty
    in records of schema 1). `tag` tells its files from another training of the same settings (see
    `log`).
    """

    loop: str
    number: int
    id: str
    fingerprint: str
    parent: str | None
    adjustments: tuple[Adjustment, ...]
    model: str
    settings: Settings
    scoring: Mapping[str, Any]
    data: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, float]
    final: Mapping[str, float]
    base: Mapping[str, float]
    facts: Mapping[str, Any]
    steps: Sequence[StepLog]
    evals: Sequence[EvalPoint]
    findings: Sequence[Finding]
    failing: Sequence[str]
    decision: Decision
    environment: Mapping[str, str]
    cost: Cost
    examples: Sequence[ExampleResult] = field(default=(), compare=False, repr=False)
    group: str = ""
    schema: int = SCHEMA_VERSION
    tag: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """What people call it, `001-3fa9c1d2`."""
        return name_of(self.number, self.id)

    @property
    def seed(self) -> int:
        """The seed it was trained with."""
        return seed_of(self.settings)


SeedRole = Literal["gate", "calibration", "baseline"]


@dataclass(frozen=True)
class SeedRun:
    """An iteration's settings trained once more, with another seed or in another environment.

    `iteration` is the id of the iteration that it repeats. `role` says what for: `gate` to judge it
    against the baseline, `calibration` to learn how much the seed alone moves the figures,
    `baseline` to have the baseline in the candidate's environment. `group`, `scoring`, `data`,
    `metrics` and `examples` are as in `Iteration`.
    """

    loop: str
    iteration: str
    seed: int
    role: SeedRole
    fingerprint: str
    group: str
    scoring: Mapping[str, Any]
    data: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, float]
    environment: Mapping[str, str]
    cost: Cost
    examples: Sequence[ExampleResult] = field(default=(), compare=False, repr=False)
    schema: int = SCHEMA_VERSION
    tag: str = field(default="", compare=False)


@dataclass(frozen=True)
class Judgement:
    """A verdict as the log keeps it.

    `candidate` and `baseline` are ids of iterations; no baseline where there was none yet. `over`
    names the judgements that this one takes the place of: an iteration whose passing judgement no
    other one takes the place of is what the next candidate is compared with. `by` is `gate`, or
    `hand` for an iteration that the user accepted whatever the gate says. `verdict` holds the
    figures as plain values.
    """

    loop: str
    candidate: str
    baseline: str | None
    by: Literal["gate", "hand"]
    kind: str
    passed: bool
    because: str
    over: tuple[str, ...]
    verdict: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION
    tag: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """The stem of its file, which `over` refers to."""
        return f"{self.candidate}-{self.tag}"


@dataclass(frozen=True)
class HoldoutUse:
    """One opening of the holdout, for an accepted iteration.

    `metrics` are the figures on the holdout, `examples` its rows without any text: nobody should
    learn from the log what the holdout says. `data` is the holdout's source, rows and hash.
    """

    loop: str
    iteration: str
    fingerprint: str
    scoring: Mapping[str, Any]
    data: Mapping[str, Any]
    metrics: Mapping[str, float]
    environment: Mapping[str, str]
    examples: Sequence[ExampleResult] = field(default=(), compare=False, repr=False)
    schema: int = SCHEMA_VERSION
    tag: str = field(default="", compare=False)


def name_of(number: int, id_: str) -> str:
    """What people call an iteration, `001-3fa9c1d2`."""
    return f"{number:03d}-{id_}"


def seed_of(settings: Settings) -> int:
    """The seed that settings train with; 42 is that of the transformers library."""
    return int(settings.training.get("seed", DEFAULT_SEED))


def facts_of(training: Training) -> dict[str, Any]:
    """A training's counts and events, for `Iteration.facts`."""
    return {
        "steps": len(training.steps),
        "planned_steps": training.planned_steps,
        "best_step": training.best_step,
        "steps_per_epoch": training.steps_per_epoch,
        "trainable_parameters": training.trainable_parameters,
        "labelled_tokens": training.labelled_tokens,
        "vocabulary": training.vocabulary,
        "width": training.width,
        "dropped_examples": training.dropped_examples,
        "ended_early": training.ended_early,
        "recoveries": list(training.recoveries),
    }


@dataclass(frozen=True)
class Run:
    """What one run gave."""

    training: Training
    evaluation: Evaluation
    cost: Cost
    environment: Mapping[str, str]


HOPELESS = "hopeless"
"""How the reason of a run ended for this begins."""


def ended_as_hopeless(iteration: Iteration) -> bool:
    """Whether an iteration was ended because it could not be of use."""
    return str(iteration.facts.get("ended_early", "")).startswith(HOPELESS)


ID_LENGTH = 8

SEVERITIES = ("error", "warning", "info")
