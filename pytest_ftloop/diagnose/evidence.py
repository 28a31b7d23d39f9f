"""The input of the rules: one iteration's curves and figures, and the chain before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.core.records import SEVERITIES, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_ftloop.config.gates import Gate, Regression
    from pytest_ftloop.core.noise import SeedNoise
    from pytest_ftloop.core.records import (
        Adjustment,
        EvalPoint,
        Example,
        ExampleResult,
        HoldoutUse,
        Iteration,
        Settings,
        StepLog,
        TrainedExample,
        Training,
        Wiring,
    )
    from pytest_ftloop.diagnose.scores import Score


Figures = dict[str, "float | int | str"]
"""The figures behind a finding, by name."""


@dataclass(frozen=True)
class Lifted:
    """What training gained in one metric over the untrained base.

    `before` and `after` are the metric's figures, `lift` the improvement in its unit, `p` the
    probability of so large a gain if there is none.
    """

    metric: str
    before: float
    after: float
    lift: float
    p: float


@dataclass(frozen=True)
class Forgotten:
    """A metric of a guard that is proven worse than against the base, or the parent."""

    metric: str
    against: str
    before: float
    after: float
    p: float


@dataclass(frozen=True)
class Evidence:
    """Everything that the rules can use to diagnose one iteration.

    `metrics` are the figures at the best evaluation point, `final` those at the last one. `metric`
    is the one that the loop chooses by. `history` are the earlier iterations of the same chain,
    oldest first, and `adjustments` are the settings that this one changed. `train` and `eval` are
    the examples, `results` the result of each eval example at the best point, `gates` the loop's
    gates. `holdout` are the openings of the holdout so far, `opened` the iterations it was opened
    for. `seed_noise` is the measured seed noise by metric (`core.noise.measured_noise`), empty
    without seed runs. `scores` are other metrics that a trainer logged at its evaluation points,
    the one that decides first. `causal` and `pretrained` are whether the model is a causal language
    model, and whether it was pretrained; None if that is unknown. `eval_examples` is the size of
    the eval set where only that is known, else 0. `of_lora` is False if the whole model is trained,
    None if that is unknown: remedies then name nothing of LoRA. `lifted` is what was gained over
    the untrained base, which passes `base_passes` of the eval examples, of which `broken_of_base`
    fail now; `forgotten` are the guards that got worse. `settings` are those in force, from which
    remedies are worded. The other fields are those of `Training`.
    What is unknown (curves of another trainer come without data) is empty or None, and the rules
    that need it are silent.
    """

    steps: tuple[StepLog, ...]
    evals: tuple[EvalPoint, ...]
    planned_steps: int
    best_step: int
    steps_per_epoch: int
    trainable_parameters: int | None
    labelled_tokens: int | None
    vocabulary: int
    adapter_moved: bool
    ended_early: str = ""
    recoveries: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    final: Mapping[str, float] = field(default_factory=dict)
    base_eval_loss: float = math.nan
    history: tuple[Iteration, ...] = ()
    adjustments: tuple[Adjustment, ...] = ()
    metric: str = "eval_loss"
    wiring: Wiring | None = None
    train: tuple[Example, ...] = ()
    trained: tuple[TrainedExample, ...] = ()
    noisy_forwards: bool = False
    eval: tuple[Example, ...] = ()
    results: tuple[ExampleResult, ...] = ()
    gates: tuple[Gate | Regression, ...] = ()
    holdout: tuple[HoldoutUse, ...] = ()
    opened: tuple[Iteration, ...] = ()
    seed_noise: Mapping[str, SeedNoise] = field(default_factory=dict)
    scores: tuple[Score, ...] = ()
    causal: bool | None = None
    pretrained: bool | None = None
    of_lora: bool | None = True
    eval_examples: int = 0
    lifted: tuple[Lifted, ...] = ()
    base_passes: int = 0
    broken_of_base: tuple[str, ...] = ()
    forgotten: tuple[Forgotten, ...] = ()
    settings: Settings | None = None

    @classmethod
    def of(
        cls,
        training: Training,
        metrics: Mapping[str, float],
        final: Mapping[str, float],
        base_eval_loss: float,
        history: Sequence[Iteration] = (),
        metric: str = "eval_loss",
        **others: Any,
    ) -> Evidence:
        """The evidence of a training and its figures; `others` are further fields, by name."""
        return cls(
            steps=training.steps,
            evals=training.evals,
            planned_steps=training.planned_steps,
            best_step=training.best_step,
            steps_per_epoch=training.steps_per_epoch,
            trainable_parameters=training.trainable_parameters,
            labelled_tokens=training.labelled_tokens,
            vocabulary=training.vocabulary,
            adapter_moved=training.adapter_moved,
            ended_early=training.ended_early,
            recoveries=training.recoveries,
            metrics=metrics,
            final=final,
            base_eval_loss=base_eval_loss,
            history=tuple(history),
            metric=metric,
            wiring=training.wiring,
            trained=training.trained,
            causal=True,
            pretrained=True,
            noisy_forwards=training.noisy_forwards,
            **others,
        )

    @property
    def measured_train(self) -> bool:
        """Whether the train losses of `metrics` and `final` were measured in eval mode.

        Our own evaluation does that, and has results. Another trainer's run has only logged losses,
        which are of train mode.
        """
        return bool(self.results)

    def results_of(self, iteration: Iteration) -> tuple[ExampleResult, ...]:
        """The results of an earlier iteration's examples; empty if its table can't be read.

        It is no error, because the iteration being diagnosed is not in the log yet and a damaged
        table of another one must not lose it.
        """
        try:
            return tuple(iteration.examples)
        except (FtloopError, OSError):
            return ()

    @property
    def eval_curve(self) -> tuple[tuple[int, float], ...]:
        """(step, eval loss) per evaluation point, from step 0 if the untrained base's is known."""
        points = tuple((point.step, point.eval_loss) for point in self.evals)
        if math.isfinite(self.base_eval_loss) and not (points and points[0][0] == 0):
            return ((0, self.base_eval_loss), *points)
        return points

    @property
    def untrained_loss(self) -> float:
        """The untrained base's eval loss, given or evaluated before the first step; else NaN."""
        curve = self.eval_curve
        return curve[0][1] if curve and curve[0][0] == 0 else math.nan


Rule = Callable[[Evidence], Finding | None]


def found_by(rules: Iterable[Rule], **known: Any) -> tuple[Finding, ...]:
    """The findings of these rules, errors first, from the fields of the evidence that are known."""
    evidence = Evidence(
        steps=(),
        evals=(),
        planned_steps=0,
        best_step=0,
        steps_per_epoch=0,
        trainable_parameters=0,
        labelled_tokens=0,
        vocabulary=0,
        adapter_moved=False,
        **known,
    )
    found = [finding for rule in rules if (finding := rule(evidence))]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))
