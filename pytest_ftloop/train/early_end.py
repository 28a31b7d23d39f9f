"""End hopeless runs early: `Pace` compares eval curves, `Watch` looks at every training step."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import HOPELESS, EvalPoint  # pydantic reads the type of `Pace`

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.config.gates import Gate
    from pytest_ftloop.core.records import Iteration, StepLog, Training


HALF = 0.5
"""Fraction of the planned steps that must be complete; before that, warm-up dominates."""

BEHIND = 1.1
"""A run is behind if its loss is over this many times the best iteration's after as many steps."""

FASTER = 2.0
"""Steepest fall that is expected of the rest of a run, in multiples of its fall per step since the
last evaluation point."""

DEEPER = 0.5
"""Lowest loss that is expected of a run, as a fraction of what it would end at if it fell like the
best iteration over the same part of its run. 0.5 allows a fall that is twice as deep."""


@dataclass(frozen=True)
class Pace:
    """The best iteration's eval curve, to compare a run with.

    `evals` and `steps` are that iteration's evaluation points and planned steps. `needed` is the
    highest eval loss, in nats per token, that would be of use.
    """

    evals: tuple[EvalPoint, ...]
    steps: int
    needed: float

    @classmethod
    def of(cls, best: Iteration, gates: Sequence[Gate]) -> Pace | None:
        """The pace of the best iteration so far; None if it has no curve to compare with.

        A run is of use if it beats that iteration's eval loss, or meets a gate on the eval loss.
        """
        evals = tuple(best.evals)
        if len(evals) < 2 or not all(math.isfinite(point.eval_loss) for point in evals):
            return None
        asked = [gate.bound for gate in gates if gate.name == "eval_loss"]
        needed = max([min(point.eval_loss for point in evals), *asked])
        return cls(evals, int(best.facts.get("planned_steps", evals[-1].step)), needed)

    def hopeless(self, evals: Sequence[EvalPoint], steps: int) -> str:
        """Why to end a run of `steps` planned steps, now at the last of `evals`; '' to continue.

        All of these must hold. Half of the steps are complete. The loss is over 1.1 times the best
        iteration's after as many steps. The needed loss is out of reach by the run's own curve,
        even if it fell twice as fast as since the last point; and by the best iteration's, even if
        it fell twice as deep as that did over the same part of its run (where the learning rate
        decays). The numbers are from recorded runs, see docs/appendix.md. Two points are needed. A
        NaN does not end a run here; `Watch` does that.
        """
        if len(evals) < 2 or evals[-1].step < HALF * steps or evals[-1].step >= steps:
            return ""
        last, before = evals[-1], evals[-2]
        left = steps - last.step
        fall = max(before.eval_loss - last.eval_loss, 0.0) / (last.step - before.step)
        by_slope = last.eval_loss - FASTER * fall * left
        by_then = self._at(last.step / steps * self.steps)
        deeper = DEEPER * (min(self._at(self.steps) / by_then, 1.0) if by_then else 1.0)
        reachable = min(by_slope, last.eval_loss * deeper, min(p.eval_loss for p in evals))
        standard = self._at(last.step)
        # Written so that a NaN makes the condition true, and the run continues.
        if not (last.eval_loss > BEHIND * standard and reachable > self.needed):
            return ""
        at = max((p for p in self.evals if p.step <= last.step), default=self.evals[0], key=_step)
        return (
            f"{HOPELESS}: the eval loss at step {last.step} of {steps} was {last.eval_loss:.3f}, "
            f"the best iteration's {at.eval_loss:.3f} at step {at.step}; {left} steps were saved"
        )

    def first_hopeless(self, evals: Sequence[EvalPoint], steps: int) -> tuple[int, str] | None:
        """How many of these points a run would have had when this ended it, and why; or None."""
        told = ((n, self.hopeless(evals[:n], steps)) for n in range(2, len(evals) + 1))
        return next((end for end in told if end[1]), None)

    def _at(self, step: float) -> float:
        """The best iteration's eval loss after `step` steps, interpolated between its points."""
        points = self.evals
        if step <= points[0].step:
            return points[0].eval_loss
        for one, two in pairwise(points):
            if step <= two.step:
                share = (step - one.step) / (two.step - one.step)
                return one.eval_loss + share * (two.eval_loss - one.eval_loss)
        return points[-1].eval_loss


def ended_in_time(training: Training, pace: Pace | None) -> bool:
    """Whether a run ended where this pace would have ended it. It may have had another, or none.

    A run that no pace ended may have been ended for another reason, which holds for any.
    """
    end = pace.first_hopeless(training.evals, training.planned_steps) if pace else None
    if training.ended_early.startswith(HOPELESS):
        return end == (len(training.evals), training.ended_early)
    return end is None


def _step(point: EvalPoint) -> int:
    return point.step


WINDOW = 20
"""Steps that must agree before a run has diverged: single steps are noisy."""

TIMES_LOWEST = 2.0
"""A run has diverged if the mean loss of the last window is over this many times the lowest one."""

TIMES_START = 1.5
"""A run has diverged if all losses of the last window are over this many times its first losses."""

START = 3
"""Number of first losses: after three steps the model is still nearly the untrained one."""

RISE = 0.5
"""Smallest rise of the loss, in nats, that ends a run: a smaller one may recover."""

LOST = 0.5
"""A run has diverged only if it has lost more than this fraction of what it had learned."""

BAD_NORMS = 3
"""Non-finite gradient norms in a row that end a run; single ones are skipped steps under fp16."""

BAD_NORMS_AT_START = 8
"""The same before the first finite norm: fp16 loss scaling starts too high and halves each step."""

FROZEN = 5
"""Steps in a row with zero gradient and a uniform loss that end a run: nothing is learned."""

UNIFORM = 0.01
"""Largest relative distance from ln(vocabulary) of a loss that counts as uniform."""


class Watch:
    """Decides after each step whether the run is hopeless, with constant work per step.

    To end a good run is a defect; to end a bad one late costs a little time. So:

    - a non-finite loss ends the run at once, because the weights are lost;
    - a non-finite gradient norm ends it only if it repeats (3 in a row, or 8 before the first
      finite one): fp16 loss scaling gives single infinite norms in healthy runs, and skips those
      steps;
    - divergence ends it if the last 20 steps agree. Either every loss is above every loss of the
      lowest 20-step window, their mean is twice that window's, and more than half of what had been
      learned is lost again; or every loss is 1.5 times the highest of the first 3 steps. Both need
      a rise of 0.5 nats. Two windows of a healthy run differ so much by chance once in 1e11;
    - a frozen loss ends it after 5 steps within 1% of ln(vocabulary) with a gradient of exactly 0,
      if the gradient was not 0 before (zero from the start is a wiring fault, which the diagnosis
      reports).
    """

    def __init__(self, vocabulary: int) -> None:
        self._uniform_loss = math.log(vocabulary) if vocabulary > 1 else math.nan
        self._start: list[float] = []
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._lowest = math.inf
        self._lowest_max = math.inf
        self._lowest_step = 0
        self._bad_norms = 0
        self._good_norm_seen = False
        self._moved = False
        self._frozen = 0

    def see(self, step: StepLog) -> str:
        """Why to end the run after this step; '' to continue."""
        if not math.isfinite(step.loss):
            return f"loss is {step.loss} at step {step.step}"
        return self._norm(step) or self._freeze(step) or self._divergence(step)

    def _norm(self, step: StepLog) -> str:
        if step.grad_norm is None:
            return ""
        if math.isfinite(step.grad_norm):
            self._bad_norms, self._good_norm_seen = 0, True
            return ""
        self._bad_norms += 1
        if self._bad_norms < (BAD_NORMS if self._good_norm_seen else BAD_NORMS_AT_START):
            return ""
        return f"gradient norm is {step.grad_norm} at step {step.step}, {self._bad_norms} in a row"

    def _freeze(self, step: StepLog) -> str:
        uniform = abs(step.loss - self._uniform_loss) <= UNIFORM * self._uniform_loss
        self._moved = self._moved or bool(step.grad_norm)
        self._frozen = self._frozen + 1 if uniform and step.grad_norm == 0 else 0
        if not self._moved or self._frozen < FROZEN:
            return ""
        return (
            f"the loss froze at {step.loss:.2f}, ln(vocabulary), with zero gradient "
            f"for {FROZEN} steps to step {step.step}"
        )

    def _divergence(self, step: StepLog) -> str:
        self._last.append(step.loss)
        if len(self._start) < START:
            self._start.append(step.loss)
        if len(self._last) < WINDOW:
            return ""
        mean, smallest = fmean(self._last), min(self._last)
        start = fmean(self._start)
        if mean < self._lowest:
            self._lowest, self._lowest_max = mean, max(self._last)
            self._lowest_step = step.step
        rose = (
            smallest > self._lowest_max
            and mean > TIMES_LOWEST * self._lowest
            and mean - self._lowest > max(RISE, LOST * (start - self._lowest))
        )
        if rose:
            return (
                f"diverged: the loss of the last {WINDOW} steps averages {mean:.2f}, "
                f"{mean / max(self._lowest, 1e-9):.1f} times its lowest (step {self._lowest_step})"
            )
        highest_start = max(self._start)
        if smallest > TIMES_START * highest_start and smallest - highest_start > RISE:
            return (
                f"diverged: the loss of the last {WINDOW} steps averages {mean:.2f}, "
                f"{mean / max(start, 1e-9):.1f} times what it was at the start"
            )
        return ""
