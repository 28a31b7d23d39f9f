"""The records that each stage passes to the next; an `Iteration` is one record of the log.

Data flows one way: examples -> `Training` -> `Evaluation` -> `Finding`s -> `Decision`, together an
`Iteration`. Records contain numbers, strings and tuples; tensors never leave the torch modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pytest_ftloop.core.errors import Location

SCHEMA_VERSION = 3
"""Version of the files of the improvement log. Readers accept this version and older ones."""

GUARD_NAME = r"[A-Za-z0-9_-]+"
"""The name of a guard: a part of metrics, and of the names of files."""

MOST_BYTES_OF_NAME = 150
"""Maximum length of the name of a loop or guard: the names of files, 255 bytes, are made of it."""

LOOP_NAME = r"\w([\w.-]*\w)?"
"""The name of a loop, which is a valid name of a folder on every system, and no path."""

DEFAULT_SEED = 42
"""The seed of transformers' TrainingArguments, which a run has if none is stated."""

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Example:
    """One row of a data set, in one of the four forms that trl accepts.

    `row` has the columns that trl reads: one text, in the column `text_column`; `prompt` and
    `completion`; `messages`; or `input_ids`. `prompt` and `expected` are the texts of the second
    and third form, before any chat template, and None for the others. `content` is a hash of `row`:
    the same id with other content is another example. `choices` are the example's own candidates
    for the `choice` scorer, `answers` those that are acceptable besides the expected text, `kept`
    the columns that scorers read besides those of `row`. `scored_by` is a hash of the answers and
    columns that only the scoring reads, empty without any; it is a part of an eval example's
    content (`scored_content`).
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
    kept: Mapping[str, Any] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    scored_by: str = ""

    @property
    def prompt_text(self) -> str:
        """What reports show of the example and rules compare: prompt, text, or token numbers."""
        if "input_ids" in self.row:
            return " ".join(map(str, self.row["input_ids"]))
        text = self.row.get(self.text_column) if self.prompt is None else self.prompt
        return text if isinstance(text, str) else ""


def scored_content(example: Example) -> Example:
    """The example of an eval set, whose content also covers what only its scoring reads."""
    if not example.scored_by:
        return example
    return replace(example, content=f"{example.content}+{example.scored_by}")


def measured_content(content: str) -> str:
    """The part of an example's content that the model sees, which its loss and output are of."""
    return content.partition("+")[0]


@dataclass(frozen=True)
class DataSet:
    """The examples of one role (train, eval, holdout), their source, and their content hash.

    `columns` are those of the source's rows, empty if they are not known.
    """

    role: str
    source: str
    examples: tuple[Example, ...]
    sha256: str
    columns: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def tags(self) -> frozenset[str]:
        """The tags of all examples."""
        return frozenset(tag for example in self.examples for tag in example.tags)


@dataclass(frozen=True)
class Settings:
    """The stated arguments of LoraConfig and SFTConfig that an iteration trains with.

    They come from the user, the tool's own defaults or an adjustment; other arguments have the
    defaults of peft and trl. Values are JSON values.
    """

    lora: Mapping[str, Any]
    training: Mapping[str, Any]

    def get(self, setting: str, default: Any = None) -> Any:
        """The value of a dotted setting (`lora.r`, `training.learning_rate`)."""
        group, _, name = setting.partition(".")
        return getattr(self, group).get(name, default)

    def adjusted(self, adjustments: Sequence[Adjustment]) -> Settings:
        """These settings after the adjustments."""
        groups = {"lora": dict(self.lora), "training": dict(self.training)}
        for adjustment in adjustments:
            group, _, name = adjustment.setting.partition(".")
            groups[group][name] = adjustment.after
        return Settings(lora=groups["lora"], training=groups["training"])


@dataclass(frozen=True)
class StepLog:
    """One optimiser step as the trainer logs it; the loss is measured with dropout."""

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
    """The result of one example: `loss` is the sum over its `tokens`, `correct` of which are top-1.

    `passed` is None for examples that are not scored (the sample of the train set). `scores` are
    from 0 to 1, by the metric that is their mean over examples: `score`, or `score.<name>` for each
    that the scorer names; a scorer that says only yes or no gives none. `outputs` are all sampled
    outputs, `output` the first of them; it is empty where there is one output only.
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
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)
    outputs: tuple[str, ...] = ()

    @property
    def mean_loss(self) -> float:
        """Loss per token."""
        return self.loss / self.tokens if self.tokens else float("nan")


Guarded = Mapping[str, Sequence[ExampleResult]]
"""The results of each guard's rows, by the guard's name; without scoring they did not pass or fail.
"""


@dataclass(frozen=True)
class BaseMeasured:
    """A measurement of the untrained base, and the environment that it was made in."""

    results: BaseResults
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Training:
    """One LoRA run, complete or ended early.

    `best_step` is the step of the best point, by the eval loss unless it was chosen by another
    metric (0 if no loss is finite). `vocabulary` is the
    model's vocabulary size, `width` the size of its hidden states (0: unknown). `adapter_moved` is
    whether any trained weight differs from its initial value. `labelled_tokens` counts those of
    the train set in one epoch. `ended_early` is empty, or why the run stopped before
    `planned_steps`. `recoveries` describes each recovery from an out-of-memory error.
    `noisy_forwards` is whether dropout or NEFTune raised the losses of `trained`. `point_figures`
    are (step, figure) of the evaluation points that the best one was chosen among, where it was
    chosen by another metric than the eval loss. `start_eval_loss` is that before the first step of
    a run that goes on from an adapter.
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
    noisy_forwards: bool = False
    point_figures: tuple[tuple[int, float], ...] = ()
    start_eval_loss: float | None = None


@dataclass(frozen=True)
class Wiring:
    """How trl prepared the train rows of a run.

    Of `examples` train examples trl dropped `dropped`. `sampled` of them were examined in full:
    `ended` have a labelled token that ends generation; `masked_ends` have one whose label the
    collator removed; `cut` were cut to `max_length`, which removed the end of `lost_ends`.
    `split_prompts` have a prompt that is tokenised differently before its completion. `labels`
    counts their labelled tokens before cutting; `lost_labels` of them were cut off, and
    `prompt_labels` belong to prompts. `generates` is whether the scorer reads generated text.
    `untrained_tokens` were added to the tokenizer and occur in the rows, but the `untrained_layers`
    that hold their new weights (embeddings, output layer) are not trained.
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
    untrained_tokens: tuple[str, ...] = ()
    untrained_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainedExample:
    """What the training's own forward passes showed of a train example, in the order of its passes.

    `losses` are means per token in nats, computed right before the step that trains on the example,
    so the first is out of sample. `tokens` counts its labelled tokens. `steps` are the optimiser's
    steps before each pass, `correct` the labelled tokens that were top-1 in it; both are empty if
    unknown.
    """

    id: str
    losses: tuple[float, ...]
    tokens: int = 1
    steps: tuple[int, ...] = ()
    correct: tuple[int, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """The results of the adapter at the best evaluation point.

    `examples` are all eval examples, scored. `train_examples` are a seeded sample of the train set,
    in eval mode; `final_train_examples` are the same sample with the last weights (the same tuple
    if the last point is the best). `base_eval_loss` is that of the untrained base. `guards` are the
    results of each guard's rows, by its name. `base` is what the untrained base gave, if it was
    measured with this run. `max_new_tokens` is the limit by which outputs were generated, 0 if none
    were. `train_figures` are the train losses by metric where their examples are not at hand: of a
    training that is measured again.
    """

    examples: tuple[ExampleResult, ...]
    train_examples: tuple[ExampleResult, ...]
    final_train_examples: tuple[ExampleResult, ...]
    base_eval_loss: float
    guards: Guarded = field(default_factory=dict)
    base: BaseResults | None = None
    max_new_tokens: int = 0
    train_figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BaseResults:
    """What the untrained base gives for the eval set, and for each guard's rows."""

    examples: tuple[ExampleResult, ...]
    guards: Guarded = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One result of the diagnosis.

    `evidence` has the numbers behind it, `remedy` is what to do about it. `tunable` is whether a
    change of settings can help, which it can't for a fault in the data or the wiring.
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

    With the `action` adjust, the next iteration trains with `next`. With stop, `kind` is gates,
    plateau, iterations, time, fault, exhausted, pending or unscored, and `next` is what would be
    tried if the loop continued; it may be empty. `because` is one sentence. `parent` is the id of
    the iteration that `next` changes, if that is not the best one so far. `rests_on` is the part of
    the loop file that a stop depends on (policy and patience), if it is not the default: after a
    change of it, the decision is made again.
    """

    action: Literal["adjust", "stop"]
    kind: str
    because: str
    next: tuple[Adjustment, ...] = ()
    parent: str = ""
    rests_on: str = ""


@dataclass(frozen=True)
class Cost:
    """The cost of an iteration. `device_memory_mib` is the peak on the accelerator, 0 on a CPU.

    `resumed_at` is the step from which an interrupted training went on, 0 if none was.
    """

    seconds: float
    steps: int
    tokens: int
    device_memory_mib: float = 0.0
    resumed_at: int = 0


@dataclass(frozen=True)
class Iteration:
    """One train, evaluate, diagnose, adjust: one record of the improvement log.

    `metrics` are the figures of the best evaluation point, by name and by `name[tag]`; `final`
    those of the last one; `base` those of the untrained base model. `facts` are counts and events
    of the training (steps, best_step, trainable_parameters, ...). `failing` are the ids of the eval
    examples that did not pass. `examples` may be read from their file only when first looked at.
    `group` is the fingerprint of its settings whatever the seed: iterations and seed runs of one
    group differ by chance only (empty in records of schema 1). `weights` identifies what was
    trained, whatever it was measured by, and `adapter` is the hash of the weights that the figures
    are of; both are empty in older records, the latter also where no adapter was saved. `guards`
    are the results of each guard's rows at the best point. `tag` tells its files from another
    training of the same settings (see `log`). `exposed` are the dotted keys under which its file
    holds a credential, which is left out here. Iteration 0 is the untrained base (`Untrained`).
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
    steps: tuple[StepLog, ...]
    evals: tuple[EvalPoint, ...]
    findings: tuple[Finding, ...]
    failing: tuple[str, ...]
    decision: Decision
    environment: Mapping[str, str]
    cost: Cost
    examples: Sequence[ExampleResult] = field(default=(), compare=False, repr=False)
    guards: Guarded = field(default_factory=dict, compare=False, repr=False)
    group: str = ""
    weights: str = ""
    adapter: str = ""
    schema: int = SCHEMA_VERSION
    tag: str = field(default="", compare=False)
    exposed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """The name in messages and of its file, `001-3fa9c1d2`."""
        return name_of(self.number, self.id)

    @property
    def is_untrained(self) -> bool:
        """Whether it is the untrained base, measured as iteration 0."""
        return self.number == UNTRAINED

    @property
    def seed(self) -> int:
        """The seed that it was trained with."""
        return seed_of(self.settings)


SeedRole = Literal["gate", "calibration", "baseline"]


@dataclass(frozen=True)
class SeedRun:
    """The settings of an iteration, trained with another seed or in another environment.

    `iteration` is the id of the iteration that it repeats. `role` is its purpose: `gate` compares
    with the baseline, `calibration` measures how much the seed alone changes the figures,
    `baseline` gives the baseline in the candidate's environment. `group`, `weights`, `adapter`,
    `scoring`, `data`, `metrics`, `examples`, `guards` and `exposed` are as in `Iteration`.
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
    guards: Guarded = field(default_factory=dict, compare=False, repr=False)
    weights: str = ""
    adapter: str = ""
    schema: int = SCHEMA_VERSION
    tag: str = field(default="", compare=False)
    exposed: tuple[str, ...] = field(default=(), compare=False)


NOTHING_DECIDED = "base"
"""The kind of the decision after the untrained base, which none follows."""

UNTRAINED = 0
"""The number of the untrained base among a loop's iterations; a trained one has 1 or more."""


@dataclass(frozen=True)
class Untrained:
    """The untrained base, measured like an iteration: once for all iterations that it fits.

    `fingerprint` is of what decides its figures: base model, tokenizer, eval set, scoring, guards,
    and the settings that change how rows become tokens. The other fields are as in `Iteration`.
    """

    loop: str
    fingerprint: str
    model: str
    scoring: Mapping[str, Any]
    data: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, float]
    facts: Mapping[str, Any]
    environment: Mapping[str, str]
    examples: Sequence[ExampleResult] = field(default=(), compare=False, repr=False)
    guards: Guarded = field(default_factory=dict, compare=False, repr=False)
    schema: int = SCHEMA_VERSION
    tag: str = field(default="", compare=False)
    exposed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def id(self) -> str:
        """The start of its fingerprint."""
        return self.fingerprint[:ID_LENGTH]

    def as_iteration(self) -> Iteration:
        """The base as iteration 0: nothing trained, no settings, no findings."""
        return Iteration(
            loop=self.loop,
            number=UNTRAINED,
            id=self.id,
            fingerprint=self.fingerprint,
            parent=None,
            adjustments=(),
            model=self.model,
            settings=Settings(lora={}, training={}),
            scoring=self.scoring,
            data=self.data,
            metrics=self.metrics,
            final={},
            base={},
            facts=self.facts,
            steps=(),
            evals=(),
            findings=(),
            failing=tuple(sorted(row.id for row in self.examples if row.passed is False)),
            decision=Decision("stop", NOTHING_DECIDED, ""),
            environment=self.environment,
            cost=Cost(seconds=0.0, steps=0, tokens=0),
            examples=self.examples,
            guards=self.guards,
            schema=self.schema,
            tag=self.tag,
            exposed=self.exposed,
        )


@dataclass(frozen=True)
class Judgement:
    """A verdict in the log.

    `candidate` and `baseline` are ids of iterations; the first version has no baseline. `over`
    names the judgements that this one replaces: the next candidate is compared with the iteration
    whose passing judgement is not replaced. `by` is `gate`, or `hand` for an iteration that the
    user accepted whatever the gate's verdict. `verdict` has the figures as plain values.
    `exposed` is as in `Iteration`.
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
    exposed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """The stem of its file name, which `over` refers to."""
        return f"{self.candidate}-{self.tag}"


@dataclass(frozen=True)
class HoldoutUse:
    """One measurement on the holdout, of an accepted iteration.

    `metrics` are the figures on the holdout, `examples` its results without any text: the log must
    not reveal the holdout. `data` is its source, number of rows and hash. `exposed` is as in
    `Iteration`.
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
    exposed: tuple[str, ...] = field(default=(), compare=False)


def name_of(number: int, id_: str) -> str:
    """The name of an iteration in messages and of its file, `001-3fa9c1d2`."""
    return f"{number:03d}-{id_}"


def seed_of(settings: Settings) -> int:
    """The seed that settings train with."""
    return int(settings.training.get("seed", DEFAULT_SEED))


def facts_of(training: Training) -> dict[str, Any]:
    """The counts and events of a training, for `Iteration.facts`."""
    before = training.start_eval_loss
    by_step = {str(step): round(figure, 6) for step, figure in training.point_figures}
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
        **({"point_figures": by_step} if by_step else {}),
        **({} if before is None else {"start_eval_loss": round(before, 6)}),
    }


@dataclass(frozen=True)
class Run:
    """The results of one run.

    `adapter` is the hash of the adapter that was saved, empty if none was; `not_saved` is why not,
    where it should have been.
    """

    training: Training
    evaluation: Evaluation
    cost: Cost
    environment: Mapping[str, str]
    adapter: str = ""
    not_saved: str = ""


HOPELESS = "hopeless"
"""`Training.ended_early` begins with this word if the run had no chance of a useful result."""


def ended_as_hopeless(iteration: Iteration) -> bool:
    """Whether an iteration was ended early because it had no chance of a useful result."""
    return str(iteration.facts.get("ended_early", "")).startswith(HOPELESS)


UNSCORED = "unscored"
"""The kind of the decision of an iteration that was trained, and is still to be scored."""


def is_unscored(iteration: Iteration) -> bool:
    """Whether an iteration was trained and not scored: the scorer failed, or was interrupted."""
    return iteration.decision.kind == UNSCORED


ID_LENGTH = 8
"""Characters of an iteration's id: the first ones of its fingerprint, 4 billion values."""

SEVERITIES = ("error", "warning", "info")
"""The severities of a finding, the worst first."""
