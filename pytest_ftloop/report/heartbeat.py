"""The lines of a long run where nothing is redrawn: begin and end of an iteration, a line a minute.

All texts of this kind are here, whoever prints them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.core.metrics import own_metrics
from pytest_ftloop.report.escape import one_line, shorten, visible
from pytest_ftloop.report.phrases import duration_text, figure_text
from pytest_ftloop.report.progress_text import progress_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EVERY_S = 60.0
"""Seconds between two lines: a CI system stops a job that prints nothing for ten minutes."""

WIDE = 200
"""Columns of a line: nobody's terminal, but a file, in which nothing is left out."""


def began_line(loop: str, which: str) -> str:
    """`ftloop sentiment: iteration 2/4 begins`; of a seed run `iteration 3, seed 44 begins`."""
    return f"ftloop {visible(loop)}: {which} begins"


def ended_line(loop: str, which: str, metrics: Mapping[str, float], seconds: float) -> str:
    """`ftloop sentiment: iteration 2/4 done in 20.1 s, eval_loss 0.3745, pass_rate 74.2%`."""
    names = [n for n in ("eval_loss", "pass_rate", *own_metrics([metrics])) if n in metrics]
    figures = [f"{visible(name)} {figure_text(name, metrics[name])}" for name in names]
    said = ", ".join([f"done in {duration_text(seconds)}", *figures])
    return f"ftloop {visible(loop)}: {which} {said}"


def step_line(
    loop: str,
    which: str,
    step: int,
    steps: int,
    loss: float,
    elapsed_s: float,
    before: int,
) -> str:
    """`ftloop sentiment  iteration 2/4  step 31/66 [...] loss 1.234  0:12 left`."""
    return progress_line(
        f"ftloop {one_line(loop, 60)}", which, step, steps, loss, elapsed_s, WIDE, before
    )


def working_line(loop: str, what: str, done: int, of: int, seconds: float) -> str:
    """`ftloop sentiment: evaluating 40/200, for 2 min 00 s`: work other than training steps."""
    share = f" {done}/{of}" if of else ""
    name = f" {visible(loop)}" if loop else ""
    return f"ftloop{name}: {visible(what)}{share}, for {duration_text(seconds)}"


def workers_line(
    loop: str, at_work: Sequence[tuple[str, str]], waiting: int, width: int = 80
) -> str:
    """`sentiment  2 at once  seed 43: 120/400 loss 1.234  seed 44: preparing  (3 waiting)`."""
    name = one_line(loop, max(width // 3, 8))
    parts = [f"{visible(label)}: {visible(now)}" for label, now in at_work]
    queued = f"({waiting} waiting)" if waiting else ""
    return shorten("  ".join(filter(None, [name, f"{len(parts)} at once", *parts, queued])), width)
