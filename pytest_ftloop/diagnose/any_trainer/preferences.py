"""Rules on runs that learn from pairs or verdicts (DPO, ORPO, CPO, KTO, a reward model)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.memorising import steps_at_bounds
from pytest_ftloop.diagnose.windows import tail_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_ftloop.diagnose.any_trainer.series import Series
    from pytest_ftloop.diagnose.evidence import Evidence, Figures

    Logged = Mapping[str, Series]

UNDECIDED = math.log(2)
"""Loss in nats of a pair that is a toss-up: DPO and reward models begin there."""

BY_HEART = 0.97
"""Share of train pairs ranked right from which on a train set may be learned by heart. In practice
DPO that generalises ranks 65% to 85% right."""

ALL_RIGHT = 0.99
"""The same, where nothing was evaluated."""

CERTAIN = 0.05
"""Train loss in nats of pairs that are told apart with over 95%."""

RISE = 0.05
"""Smallest relative rise of the eval loss above its lowest that counts."""

CLEAR_RISE = 0.2
"""The same, where the train pairs are not all ranked right yet, but their loss has halved."""

HALVED = 0.6
"""Share of its first value to which a train loss must have fallen then."""

GAP = 0.15
"""Smallest difference of ranking accuracy between train and eval pairs that counts."""

FEWEST = 8
"""Fewest logged losses that the rules look at."""

ACCURACIES = ("rewards/accuracies", "accuracy")
MARGINS = ("rewards/margins", "margin")


@dataclass(frozen=True)
class Pairs:
    """What a run logged of its pairs, and the evidence of one of its eval sets."""

    e: Evidence
    logged: Logged

    def train(self, names: tuple[str, ...]) -> list[float]:
        """A figure of the train pairs, under the first of these names; empty without any."""
        return [value for _, value in self._found(names, "")]

    def eval(self, names: tuple[str, ...]) -> list[float]:
        """The same of the eval pairs."""
        return [value for _, value in self._found(names, "eval_")]

    def _found(self, names: tuple[str, ...], start: str) -> Series:
        return next((self.logged[start + of] for of in names if start + of in self.logged), ())

    @property
    def losses(self) -> list[float]:
        """The finite train losses."""
        return [step.loss for step in self.e.steps if math.isfinite(step.loss)]


def no_margin(p: Pairs) -> Finding | None:
    """The policy never differs from its reference: all margins are 0.

    Signal: each logged margin is exactly 0 and the train loss moved by under 1%. Source: what trl
    logs if no parameter is trained. Minimum data: 8 logged steps.
    """
    margins, losses = p.train(MARGINS), p.losses
    if len(margins) < FEWEST or any(margins) or len(losses) < FEWEST:
        return None
    if max(losses) - min(losses) > 0.01 * abs(losses[0]):
        return None
    return Finding(
        kind="no-signal",
        severity="error",
        message=(
            f"Nothing can be learned: the margin is exactly 0 in all {len(margins)} logged steps, "
            f"and the loss stays at {losses[-1]:.4f}."
        ),
        evidence={"steps": len(margins), "loss_first": losses[0], "loss_last": losses[-1]},
        remedy=(
            "Check that the adapter's modules exist in this model, that chosen and rejected are "
            "not the same text, and that max_length does not cut both to the prompt."
        ),
        tunable=False,
    )


def memorised_preferences(p: Pairs) -> Finding | None:
    """The train pairs are learned by heart.

    Signal: at the end at least 97% of the train pairs are ranked right, and of the eval pairs 15
    points fewer (and two standard errors), or the eval loss ended over 5% above its lowest, at two
    points at least; or over 20%, and the train loss fell to 60% of its first. Where
    nothing was evaluated: 99% at a loss under 0.05, after the first epoch; or a train loss that
    falls at each epoch's end only (`memorising`). Source: DPO runs of three epochs, whose train
    loss falls at the epoch bounds while eval accuracy stays. Minimum data: 8 logged steps.
    """
    losses, right = p.losses, p.train(ACCURACIES)
    if len(losses) < FEWEST:
        return None
    accuracy = tail_mean(right) if right else math.nan
    figures: Figures = {"train_loss": tail_mean(losses)}
    if right:
        figures["train_accuracy"] = accuracy
    why = _unlike_eval(p, accuracy, figures) if p.e.evals else _by_heart(p, accuracy, figures)
    if not why:
        return None
    margins = p.train(MARGINS)
    if margins:
        figures["margin_last"] = tail_mean(margins)
    return Finding(
        kind="memorised-preferences",
        severity="warning",
        message=f"The train pairs are learned by heart: {why}.",
        evidence=figures,
        remedy=(
            "Train for one epoch, at a lower learning rate (DPO: 5e-7 to 5e-6 for a whole model, "
            "10 times that for an adapter) or a higher beta; evaluate on pairs of other prompts."
        ),
    )


def trivial_preferences(p: Pairs) -> Finding | None:
    """The pairs are told apart at once: something other than quality gives them away.

    Signal: within the first epoch 99% of the train pairs are ranked right at a loss under 0.05, and
    the eval pairs, if there are any, are too. Minimum data: 8 logged steps.
    """
    losses, right, of_eval = p.losses, p.train(ACCURACIES), p.eval(ACCURACIES)
    if len(losses) < FEWEST or not right or _epochs(p) > 1:
        return None
    if tail_mean(right) < ALL_RIGHT or tail_mean(losses) >= CERTAIN:
        return None
    if of_eval and of_eval[-1] < BY_HEART:
        return None
    return Finding(
        kind="trivial-preferences",
        severity="info",
        message=(
            f"Within the first epoch {tail_mean(right):.1%} of the pairs are ranked right at a "
            f"loss of {tail_mean(losses):.2g}: chosen and rejected differ in something plain."
        ),
        evidence={"train_accuracy": tail_mean(right), "train_loss": tail_mean(losses)},
        remedy=(
            "Compare length, format and first words of chosen and rejected answers: take pairs "
            "from one source, as the model otherwise learns the source."
        ),
        tunable=False,
    )


def _unlike_eval(p: Pairs, accuracy: float, figures: Figures) -> str:
    """Why the eval pairs show it; empty if they don't."""
    of_eval = p.eval(ACCURACIES)
    if of_eval and accuracy >= BY_HEART and accuracy - of_eval[-1] >= _gap(p, of_eval[-1]):
        figures["eval_accuracy"] = of_eval[-1]
        return f"{accuracy:.1%} of them are ranked right, of the eval pairs {of_eval[-1]:.1%}"
    points = [point for point in p.e.evals if math.isfinite(point.eval_loss)]
    lowest = min(points, key=lambda point: point.eval_loss, default=None)
    if lowest is None:
        return ""
    after = [point.eval_loss for point in points if point.step > lowest.step]
    is_known = accuracy >= BY_HEART or tail_mean(p.losses) < CERTAIN
    least = RISE if is_known else CLEAR_RISE
    if len(after) < 2 or min(after[-2:]) - lowest.eval_loss <= abs(lowest.eval_loss) * least:
        return ""
    if not is_known and tail_mean(p.losses) > HALVED * fmean(p.losses[:3]):
        return ""
    figures |= {
        "eval_lowest": lowest.eval_loss,
        "eval_last": after[-1],
        "best_step": lowest.step,
        "best_epoch": lowest.epoch,
    }
    return (
        f"the eval loss rose from {lowest.eval_loss:.3f} (step {lowest.step}) to {after[-1]:.3f}, "
        f"while the train loss fell to {tail_mean(p.losses):.3f}"
    )


def _gap(p: Pairs, accuracy: float) -> float:
    """Smallest gap that counts: `GAP`, or two standard errors over the eval pairs."""
    rows = p.e.eval_examples
    return max(GAP, 2 * math.sqrt(accuracy * (1 - accuracy) / rows) if rows else GAP)


def _by_heart(p: Pairs, accuracy: float, figures: Figures) -> str:
    """Why the train losses alone show it; empty if they don't."""
    found = steps_at_bounds(p.e.steps, p.e.steps_per_epoch)
    if found:
        levels = [found[0][0], *(after for _, after in found)]
        figures |= {f"epoch_{n}": level for n, level in enumerate(levels, start=1)}
        shown = ", ".join(f"{level:.2f}" for level in levels)
        return f"the train loss falls where pairs are seen again, and only there ({shown})"
    if _epochs(p) > 1 and accuracy >= ALL_RIGHT and tail_mean(p.losses) < CERTAIN:
        return (
            f"{accuracy:.1%} of them are ranked right at a loss of {tail_mean(p.losses):.2g}, "
            f"after {_epochs(p):.3g} epochs, and nothing was evaluated"
        )
    return ""


def _epochs(p: Pairs) -> float:
    last = p.e.steps[-1].step if p.e.steps else 0
    return last / p.e.steps_per_epoch


RULES: tuple[Callable[[Pairs], Finding | None], ...] = (
    no_margin,
    memorised_preferences,
    trivial_preferences,
)
