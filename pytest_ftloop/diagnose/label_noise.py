"""Wrong labels in number: train examples are contradicted where eval examples are not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.groups import listed
from pytest_ftloop.diagnose.labels import labels_of
from pytest_ftloop.diagnose.naming import answer_of
from pytest_ftloop.diagnose.windows import at, eval_is_finite, measured_before, tail_mean

if TYPE_CHECKING:
    from pytest_ftloop.core.records import ExampleResult, TrainedExample
    from pytest_ftloop.diagnose.evidence import Evidence


@dataclass(frozen=True)
class Limits:
    """How far the train set must do worse than the eval set.

    `loss_errors` and `accuracy_errors` are standard errors, `share` is an excess of the train loss
    over the eval loss, as a share of the latter.
    """

    loss_errors: float
    accuracy_errors: float
    share: float


OF_LABELS = Limits(2.0, 0.0, 0.1)
"""For a set of labels: a pass over examples that were trained on before is biased the other way, so
chance reaches these less often than once in a hundred runs. Excesses under a tenth are not worth
a word even if a large eval set makes them certain."""

OF_OPEN_ANSWERS = Limits(4.0, 3.0, 0.5)
"""For open answers: the two sets may differ in difficulty, but wrong answers cost several nats."""

FIRST_STEPS = 3
"""Steps whose losses show how hard the train set was before anything was learned."""

FEWEST_TRAINED, FEWEST_EVAL = 40, 20
"""Fewest examples of either set that the normal approximation of a mean needs."""

IDS = 20
"""Ids that the finding names, at most a fifth of all: a first batch to check by hand. Not fewer if
fewer are estimated, as wrong labels that were learned by heart already lower the estimate."""


@dataclass(frozen=True)
class Excess:
    """What one pass over the train set showed beyond the eval set at the same steps.

    `number` counts passes from 0. `loss` and `eval_loss` are token means in nats; `share` is what
    the former is above the latter, less known causes, as a share of the latter. `loss_errors` and
    `accuracy_errors` are the differences in standard errors, positive if the train set does worse.
    `wrong` is the estimated number of wrong labels, `measured` the last evaluation point before the
    middle of the pass: what is stated, while `eval_loss` is interpolated.
    """

    number: int
    loss: float
    eval_loss: float
    share: float
    loss_errors: float
    accuracy_errors: float
    wrong: int
    measured: tuple[int, float]


def label_noise(e: Evidence) -> Finding | None:
    """Many train labels contradict what the model learned.

    Signal: in one pass but the first, the train examples, which the model has been trained on
    before, have a higher loss than the eval examples at the same steps: in a set of labels by 2
    standard errors and a tenth of the eval loss, with no higher token accuracy; with open answers
    by 4 standard errors and half of it, and an accuracy lower by 3. Of a set of labels only the
    examples whose label occurs in the eval set count. Training on an example lowers its loss, so a
    healthy set is below the eval set. The eval loss is interpolated between evaluation points,
    which overstates it while it falls. What dropout or NEFTune may add to the train losses is
    subtracted, and so is what the first steps were above the untrained base's eval loss. The ids
    are those with the highest losses, summed over the tokens, in the second half of the passes.
    Source: planted wrong labels (benchmark `slices.py --only many`). Minimum data: 2 passes over 40
    train examples, 20 eval examples, 2 evaluation points. NaN: such examples are left out; with a
    NaN eval loss: silent. If the eval set has as many wrong labels, the two are alike, and the rule
    is silent.
    """
    found = most_excessive(e)
    if found is None:
        return None
    ids = listed(suspects(e.trained)[: min(IDS, len(e.trained) // 5)], IDS)
    share = found.wrong / len(e.trained)
    return Finding(
        kind="mislabelled",
        severity="warning",
        message=(
            f"About {found.wrong} of {len(e.trained)} train examples ({share:.0%}) look "
            f"mislabelled: in pass {found.number + 1} the train loss was {found.loss:.3f}, though "
            f"the model had seen each example before, and the eval loss {found.measured[1]:.3f} "
            f"at step {found.measured[0]}. The most doubtful: {ids}."
        ),
        evidence={
            "doubted": found.wrong,
            "examples": len(e.trained),
            "pass": found.number + 1,
            "train_loss": found.loss,
            "eval_step": found.measured[0],
            "eval_loss": found.measured[1],
            "loss_standard_errors": found.loss_errors,
            "accuracy_standard_errors": found.accuracy_errors,
            "ids": ids,
        },
        remedy=(
            "Check the labels of these train examples first, then how the train set was labelled: "
            "correct the wrong ones, or drop them. If the labels are right, the train set is "
            "harder than the eval set."
        ),
        tunable=False,
    )


def most_excessive(e: Evidence) -> Excess | None:
    """The pass with the most significant excess of those that have one."""
    trained, limits = _comparable(e)
    results = [r for r in e.results if r.tokens and math.isfinite(r.loss)]
    if len(trained) < FEWEST_TRAINED or len(results) < FEWEST_EVAL:
        return None
    if len(e.evals) < 2 or not eval_is_finite(e):
        return None
    passes = range(1, max(len(x.losses) for x in trained))
    found = [excess for n in passes if (excess := _excess(e, n, trained, results))]
    certain = [
        excess
        for excess in found
        if excess.wrong
        and excess.loss_errors >= limits.loss_errors
        and excess.accuracy_errors >= limits.accuracy_errors
        and excess.share > limits.share
    ]
    return max(certain, key=lambda excess: excess.loss_errors, default=None)


def _comparable(e: Evidence) -> tuple[list[TrainedExample], Limits]:
    """The train examples that the eval set can be compared with, and how far they must be apart."""
    trained = [x for x in e.trained if x.steps and all(map(math.isfinite, x.losses))]
    if not labels_of(e.train):
        return trained, OF_OPEN_ANSWERS
    expected = set(map(answer_of, e.eval))
    known = {x.id for x in e.train if answer_of(x) in expected}
    return [x for x in trained if x.id in known], OF_LABELS


def suspects(trained: Sequence[TrainedExample]) -> list[str]:
    """The ids by their loss in the second half of their passes, the highest first.

    Earlier passes are of a model that had not learned the task. The losses are summed over the
    tokens, as the token that tells a label from others may be one of many.
    """

    def doubt(example: TrainedExample) -> float:
        late = example.losses[(len(example.losses) + 1) // 2 :] or example.losses
        return example.tokens * fmean(late)

    finite = [x for x in trained if all(map(math.isfinite, x.losses))]
    return [x.id for x in sorted(finite, key=doubt, reverse=True)]


def _excess(
    e: Evidence, number: int, trained: Sequence[TrainedExample], results: Sequence[ExampleResult]
) -> Excess | None:
    some = [x for x in trained if len(x.losses) > number]
    steps = [x.steps[number] for x in some]
    if len(some) < max(FEWEST_TRAINED, 0.5 * len(trained)) or fmean(steps) < e.evals[0].step:
        return None
    losses = [x.losses[number] * x.tokens for x in some]
    correct = [x.correct[number] for x in some]
    tokens = [x.tokens for x in some]
    loss, accuracy = sum(losses) / sum(tokens), sum(correct) / sum(tokens)
    eval_loss = _mean_at(steps, e.eval_curve)
    eval_accuracy = _mean_at(steps, [(point.step, point.token_accuracy) for point in e.evals])
    of_eval = [r.tokens for r in results]
    loss_error = math.hypot(_error(losses, tokens), _error([r.loss for r in results], of_eval))
    accuracy_error = math.hypot(
        _error(correct, tokens), _error([r.correct for r in results], of_eval)
    )
    above = loss - eval_loss - _added_by_noise(e) - _harder_at_start(e, trained)
    if not (loss_error > 0 and accuracy_error > 0 and eval_loss > 0):
        return None
    return Excess(
        number,
        loss,
        eval_loss,
        above / eval_loss,
        above / loss_error,
        (eval_accuracy - accuracy) / accuracy_error,
        _estimated_wrong(some, number, results, eval_accuracy),
        measured_before(e.eval_curve, fmean(steps)),
    )


def _mean_at(steps: Sequence[int], curve: Sequence[tuple[int, float]]) -> float:
    """The mean of a curve over these steps, of which the examples of a batch share one."""
    counts = Counter(steps)
    return sum(at(curve, step) * count for step, count in counts.items()) / len(steps)


def _estimated_wrong(
    some: Sequence[TrainedExample],
    number: int,
    results: Sequence[ExampleResult],
    eval_accuracy: float,
) -> int:
    """How many train examples are answered wrongly beyond the eval set's share.

    The eval set's share is known at the best point only. It is scaled to the steps of the pass by
    the token error there, `1 - eval_accuracy`, over that of the best point.
    """
    failing = fmean(x.correct[number] < x.tokens for x in some)
    of_best = fmean(r.correct < r.tokens for r in results)
    error = 1 - sum(r.correct for r in results) / sum(r.tokens for r in results)
    failing_eval = of_best * max(1.0, (1 - eval_accuracy) / error) if error > 0 else 0.0
    return round(len(some) * max(0.0, failing - failing_eval) / max(1 - failing_eval, 1e-9))


def _added_by_noise(e: Evidence) -> float:
    """The most that dropout and NEFTune may have added to a train loss, in nats per token.

    That is how far the last pass is above the train loss in eval mode at the end. It includes what
    was learned meanwhile.
    """
    final = e.final.get("train_loss", math.nan)
    if not e.noisy_forwards or not math.isfinite(final):
        return 0.0
    return max(0.0, tail_mean([step.loss for step in e.steps]) - final)


def _harder_at_start(e: Evidence, trained: Sequence[TrainedExample]) -> float:
    """What the first train losses are above the untrained base's eval loss, in nats per token.

    Only the part beyond two standard errors counts. 0 if the base's loss is unknown.
    """
    first = [x for x in trained if x.steps[0] < FIRST_STEPS]
    if len(first) < 2 or math.isnan(e.untrained_loss):
        return 0.0
    losses, tokens = [x.losses[0] * x.tokens for x in first], [x.tokens for x in first]
    above = sum(losses) / sum(tokens) - e.untrained_loss
    return max(0.0, above - 2 * _error(losses, tokens))


def _error(sums: Sequence[float], tokens: Sequence[int]) -> float:
    """The standard error of a token mean over examples: that of a ratio of two sums."""
    mean = sum(sums) / sum(tokens)
    squares = ((one - mean * count) ** 2 for one, count in zip(sums, tokens, strict=True))
    return math.sqrt(sum(squares)) / sum(tokens)
