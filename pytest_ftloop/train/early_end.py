"""Whether a run can still be of use: its eval curve against that of the best iteration so far."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import HOPELESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.config.gates import Gate
    from pytest_ftloop.core.records import EvalPoint, Iteration, StepLog


HALF = 0.5
"""Of the planned steps must be done: before, the warmup and the first falls tell little."""

BEHIND = 1.1
"""Times the best iteration's loss after as many steps."""

FASTER = 2.0
"""Times the fall since the last point, per step, that the rest of the run is thought able of."""

DEEPER = 0.5
"""Of the loss that is left after the best iteration's own fall over the same share of its run."""


@dataclass(frozen=True)
class Pace:
    """What a run is held against.

    `evals` and `steps` are the best iteration's evaluation points and planned steps, `needed` is
    the highest eval loss that would be of use.
    """

    evals: tuple[EvalPoint, ...]
    steps: int
    needed: float

    @classmethod
    def of(cls, best: Iteration, gates: Sequence[Gate]) -> Pace | None:
        """The pace of the best iteration so far; None where it has no curve to compare with.

        Of use is what beats its eval loss, or holds a gate on the eval loss that it does not hold.
        """
        evals = tuple(best.evals)
        if len(evals) < 2 or not all(math.isfinite(point.eval_loss) for point in evals):
            return None
        asked = [gate.bound for gate in gates if gate.name == "eval_loss"]
        needed = max([min(point.eval_loss for point in evals), *asked])
        return cls(evals, int(best.facts.get("planned_steps", evals[-1].step)), needed)

    def hopeless(self, evals: Sequence[EvalPoint], steps: int) -> str:
        """'' or why a run of `steps` planned steps, now at the last of `evals`, should be ended.

        All must hold: half of its steps are done; its loss is over 1.1 times the best iteration's
        after as many steps; and what is needed is out of reach both by its own curve (were it to
        fall twice as fast as since the last point) and by the best one's (were it to fall twice
        as deep as that did over the same share of its run, where the learning rate decays). Made on
        recorded runs, see docs/diagnosis.md. Minimum data: two points. A NaN ends nothing here.
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
        if not (last.eval_loss > BEHIND * standard and reachable > self.needed):
            return ""
        return (
            f"{HOPELESS}: the eval loss at step {last.step} of {steps} was {last.eval_loss:.3f}, "
            f"the best iteration's by then {standard:.3f}; {left} steps were saved"
        )

    def _at(self, step: float) -> float:
        """The best iteration's eval loss after `step` steps, between points that of a line."""
        points = self.evals
        if step <= points[0].step:
            return points[0].eval_loss
        for one, two in pairwise(points):
            if step <= two.step:
                share = (step - one.step) / (two.step - one.step)
                return one.eval_loss + share * (two.eval_loss - one.eval_loss)
        return points[-1].eval_loss


WINDOW = 20
"""Steps that must agree before a run is called diverged."""

TIMES_LOWEST = 2.0
"""The mean loss of the last window, against the lowest window mean."""

TIMES_START = 1.5
"""Every loss of the last window, against the highest of the first steps."""

START = 3
"""The first steps: the model is still (nearly) the untrained one."""

RISE = 0.5
"""Nats: a smaller rise is not worth ending a run for."""

BAD_NORMS = 3
"""Non-finite gradient norms in a row that end a run whose loss is finite."""

BAD_NORMS_AT_START = 8
"""The same before any finite one: fp16 loss scaling starts too high and halves step by step."""

FROZEN = 5
"""Steps with exactly zero gradient and a loss of ln(vocabulary)."""


class Watch:
    """Says after each step whether the run is hopeless; constant work a step.

    A good run stopped is a defect, a bad one stopped late costs a little time. So:

    - a non-finite loss ends the run at once: the weights are lost;
    - a non-finite gradient norm only when it repeats (3 in a row, 8 before the first finite one):
      fp16 loss scaling gives single infinite norms in healthy runs and skips those steps;
    - divergence needs the last 20 steps to agree. Either every loss is above every loss of the
      lowest 20-step window, their mean twice that window's and more than half of what had been
      learned is lost again; or every loss is 1.5 times the highest of the first 3 steps. Both need
      a rise of 0.5 nats. Two windows of a healthy run separate so by chance about once in 1e11;
    - a frozen loss needs 5 steps within 1% of ln(vocabulary) with gradient exactly 0, after a
      gradient that was not 0 (zero from the start is a wiring fault, which the diagnosis names).
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
        """'' or why the run should be ended now."""
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
        uniform = abs(step.loss - self._uniform_loss) <= 0.01 * self._uniform_loss
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
            and mean - self._lowest > max(RISE, 0.5 * (start - self._lowest))
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
