"""The task of a loop: the examples to train on and the examples, and scorer, to measure by."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import Locate
from pytest_ftloop.core.metrics import GUARD
from pytest_ftloop.core.records import DataSet, Example, ExampleResult, Finding
from pytest_ftloop.core.set_metrics import SetMetric
from pytest_ftloop.evaluate.scored import Scorer


@dataclass(frozen=True)
class Guard:
    """Rows of another task that must not get worse.

    Without a `scoring` only their loss is measured. `scorer` is None where that reads no text.
    """

    name: str
    rows: DataSet
    scoring: Scoring | None = None
    scorer: Scorer | None = None

    @property
    def role(self) -> str:
        """The name of its rows among a trainer's eval sets."""
        return f"{GUARD}.{self.name}"

    @property
    def is_choice(self) -> bool:
        """Whether it is scored by the likeliest of candidates, which are rows of their own."""
        return self.scoring is not None and self.scoring.scorer == "choice"

    @property
    def role_of_choices(self) -> str:
        """The name of its candidates among a trainer's eval sets."""
        return f"{self.role}.choices"

    def within(self, task: Task) -> Task:
        """The task with this guard's rows, scored as they are, in place of the eval set."""
        expected = dict.fromkeys((e.expected or "").strip() for e in self.rows.examples)
        scoring = self.scoring or Scoring("loss", threshold=0.0)
        candidates = scoring.choices or tuple(expected)
        return replace(
            task, eval=self.rows, scoring=scoring, scorer=self.scorer, candidates=candidates
        )


INIT_FROM = "init_from"
"""The key of the section `lora` that names the adapter to go on from. LoraConfig has none such."""


@dataclass(frozen=True)
class Start:
    """The adapter that the trainings of a loop go on from.

    `stated` is the loop file's name for it, `adapter` the hash of its weights, `of` the iteration
    or folder that it is of. `folder` is where it is on this machine; None if it is not.
    """

    stated: str
    adapter: str
    of: str
    folder: Path | None = None

    def as_fact(self) -> dict[str, str]:
        """What the log says of it."""
        return {"stated": self.stated, "of": self.of, "adapter": self.adapter}

    def as_text(self) -> dict[str, str]:
        """All of it, for another process on this machine."""
        return {**self.as_fact(), "folder": str(self.folder.absolute()) if self.folder else ""}

    @classmethod
    def of_text(cls, stated: Mapping[str, str]) -> Start:
        """What `as_text` wrote."""
        folder = Path(stated["folder"]) if stated["folder"] else None
        return cls(stated["stated"], stated["adapter"], stated["of"], folder)


@dataclass(frozen=True)
class Task:
    """The data and scoring that every run of a loop shares.

    `train_sample` are the train examples whose loss is measured again in eval mode. `candidates`
    are the texts that the `choice` scorer chooses among, unless an example has its own. `found` is
    called with the findings on a run's rows before its first step. `guards` are measured beside
    the eval set. `start` is the adapter to go on from, None to start afresh. `set_metrics` are the
    metrics of the whole eval set, one of which may choose the best point.
    """

    train: DataSet
    eval: DataSet
    train_sample: tuple[Example, ...]
    scoring: Scoring
    scorer: Scorer | None = None
    candidates: tuple[str, ...] = ()
    locate: Locate = lambda _: None
    found: Callable[[Sequence[Finding]], None] = lambda _: None
    guards: tuple[Guard, ...] = ()
    start: Start | None = None
    set_metrics: Mapping[str, SetMetric] = field(default_factory=dict)

    @property
    def guarded(self) -> tuple[Example, ...]:
        """The examples of all guards."""
        return tuple(example for guard in self.guards for example in guard.rows.examples)


EVAL = "eval"
"""The role of the eval set; that of a guard is `Guard.role`."""


@dataclass(frozen=True)
class Missing:
    """What of one set of rows is to be measured with weights that exist.

    `losses` are the examples without a known loss, `answers` those without an output or choice.
    `max_new_tokens` is the limit by which the known outputs were generated, 0 if there are none or
    it is unknown.
    """

    losses: tuple[Example, ...] = ()
    answers: tuple[Example, ...] = ()
    max_new_tokens: int = 0

    def __bool__(self) -> bool:
        """Whether anything is."""
        return bool(self.losses or self.answers)


@dataclass(frozen=True)
class Found:
    """What was measured of `Missing`: rows with losses, rows with outputs or choices.

    `answers` are all examples where the limit `max_new_tokens` had to rise: a longer answer is
    expected now. Generated outputs are not scored yet.
    """

    losses: tuple[ExampleResult, ...] = ()
    answers: tuple[ExampleResult, ...] = ()
    max_new_tokens: int = 0


@dataclass(frozen=True)
class ToMeasure:
    """What is missing by role: of the trained weights, and of the untrained base."""

    trained: Mapping[str, Missing]
    base: Mapping[str, Missing]

    def ids(self, role: str, *, by_choice: bool) -> frozenset[str]:
        """The ids of the examples of a role that have to be tokenised with their answers."""
        missing = [of[role] for of in (self.trained, self.base) if role in of]
        rows = [*(e for m in missing for e in m.losses)]
        rows += [e for m in missing for e in m.answers] if by_choice else []
        return frozenset(example.id for example in rows)


@dataclass(frozen=True)
class FoundAll:
    """What was measured of `ToMeasure`, by role."""

    trained: Mapping[str, Found]
    base: Mapping[str, Found]


def train_sample(train: DataSet, size: int) -> tuple[Example, ...]:
    """A random sample of `size` train examples, the same in every run, in the set's order."""
    if size >= len(train.examples):
        return train.examples
    chosen = sorted(random.Random(0).sample(range(len(train.examples)), size))
    return tuple(train.examples[i] for i in chosen)
