"""The records that each stage passes to the next; an `Iteration` is one record of the log.

Data flows one way: examples -> `Training` -> `Evaluation` -> `Finding`s -> `Decision`, together an
`Iteration`. Records contain numbers, strings and tuples; tensors never leave the torch modules.
The first ones are defined in `examples` and `training`, and imported from here like the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pytest_ftloop.core.examples import (
    DataSet,
    Example,
    ExampleResult,
    Guarded,
    measured_content,
    scored_content,
)
from pytest_ftloop.core.training import (
    HOPELESS,
    BaseMeasured,
    BaseResults,
    Cost,
    EvalPoint,
    Evaluation,
    Run,
    StepLog,
    TrainedExample,
    Training,
    Wiring,
    facts_of,
)

__all__ = [
    "DEFAULT_SEED", "GUARD_NAME", "HOPELESS", "ID_LENGTH", "LOOP_NAME", "MOST_BYTES_OF_NAME",
    "NOTHING_DECIDED", "SCHEMA_VERSION", "SEVERITIES", "UNSCORED", "UNTRAINED", "Adjustment",
    "BaseMeasured", "BaseResults", "Cost", "DataSet", "Decision", "EvalPoint", "Evaluation",
    "Example", "ExampleResult", "Finding", "Guarded", "HoldoutUse", "Iteration", "Judgement",
    "Run", "SeedRole", "SeedRun", "Settings", "Severity", "StepLog", "TrainedExample",
    "Training", "Untrained", "Wiring", "ended_as_hopeless", "facts_of", "is_unscored",
    "measured_content", "name_of", "scored_content", "seed_of",
]  # fmt: skip

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
