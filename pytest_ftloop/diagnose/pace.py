"""Whether a run can still be of use: its eval curve against that of the best iteration so far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.gates import Gate
    from pytest_ftloop.records import EvalPoint, Iteration

HALF = 0.5
"""Of the planned steps must be done: before, the warmup and the first falls tell little."""
BEHIND = 1.1
"""Times the best iteration's loss after as many steps."""
FASTER = 2.0
"""Times the fall since the last point, per step, that the rest of the run is thought able of."""
DEEPER = 0.5
"""Of the loss that is left after the best iteration's own fall over the same share of its run."""
HOPELESS = "hopeless"
"""How the reason of a run ended for this begins."""


def ended_as_hopeless(iteration: Iteration) -> bool:
    """Whether an iteration was ended because it could not be of use."""
    return str(iteration.facts.get("ended_early", "")).startswith(HOPELESS)


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
