"""Watch a run step by step, to end it when it is hopeless."""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_ftloop.records import StepLog

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
