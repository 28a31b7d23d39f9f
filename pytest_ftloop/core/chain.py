"""The chain of a loop's iterations from its start, the best of it, and the worst examples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_ftloop.core.metrics import figure_of, metric_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_ftloop.core.records import ExampleResult, Iteration


CHOSEN_BY = "chosen_by"
"""The fact of an iteration that has the metric of `chosen_by`, if that is not the eval loss."""


def chain_from(iterations: Sequence[Iteration], fingerprint: str) -> tuple[Iteration, ...]:
    """The iteration with this fingerprint and its descendants.

    Parents come before their children, and otherwise lower numbers first. If a merge brought the
    same iteration twice, the one with the lower number is taken.
    """
    waiting = sorted(iterations, key=lambda i: (i.number, i.id))
    following = next((i for i in waiting if i.fingerprint == fingerprint), None)
    chain: list[Iteration] = []
    ids: set[str] = set()
    while following is not None:
        chain.append(following)
        ids.add(following.id)
        waiting = [i for i in waiting if i.id not in ids]
        following = next((i for i in waiting if i.parent in ids), None)
    return tuple(chain)


def named(iterations: Sequence[Iteration], wanted: str) -> list[Iteration]:
    """The iterations that a user's word names: none, one, or several.

    The first meaning that fits counts: a name, a number, the start of an id, the start of a name. A
    number comes before an id, which can begin with the same digits.
    """
    meanings: tuple[Callable[[Iteration], bool], ...] = (
        lambda it: it.name == wanted,
        lambda it: wanted.isdecimal() and it.number == int(wanted),
        lambda it: it.fingerprint.startswith(wanted.lower()) and bool(wanted),
        lambda it: "-" in wanted and it.name.startswith(wanted.lower()),
    )
    return next((found for fits in meanings if (found := [*filter(fits, iterations)])), [])


def next_number(iterations: Iterable[Iteration]) -> int:
    """One more than the highest number in the log."""
    return max((i.number for i in iterations), default=0) + 1


def chosen_by(iteration: Iteration) -> str:
    """The metric that the iteration's chain is chosen by, where the loop file does not state one.

    It is what the gates asked for when the chain began, and is logged (`CHOSEN_BY`): other gates,
    or a newer version of this tool, do not choose another best iteration of a logged chain.
    """
    return str(iteration.facts.get(CHOSEN_BY, "eval_loss"))


def best_of(chain: Sequence[Iteration], metric: str | None = None) -> Iteration:
    """The best iteration by a metric; of equal ones that with the lower eval loss, then the first.

    One that made a guard worse is the best only if all did. Early pass rates are often all 0, so
    the loss decides. A figure that is missing, NaN or infinite is worse than any other. ValueError
    for an empty chain.
    """
    by = metric or (chosen_by(chain[-1]) if chain else "eval_loss")
    return min(chain, key=lambda iteration: rank_key(iteration, by))


def rank_key(iteration: Iteration, metric: str) -> tuple[bool, float, float]:
    """The key of `best_of`: whether a guard was forgotten, the figure, the eval loss.

    Lower is better; infinity for no figure. An iteration with the finding `forgetting` comes after
    all without it, so that a guard never pays for a better figure.
    """
    return (
        forgets(iteration),
        _badness(iteration, metric),
        _badness(iteration, "eval_loss"),
    )


FORGETTING = "forgetting"
"""The finding that a guard is proven worse than the base's, or the parent's."""


def forgets(iteration: Iteration) -> bool:
    """Whether the iteration was found to have made a guard worse."""
    return any(finding.kind == FORGETTING for finding in iteration.findings)


def _badness(iteration: Iteration, metric: str) -> float:
    value = figure_of(iteration.metrics, metric)
    if not math.isfinite(value):
        return math.inf
    return value if metric_of(metric).better == "lower" else -value


def worst(examples: Sequence[ExampleResult]) -> tuple[ExampleResult, ...]:
    """The examples that did not pass: NaN first, then by loss per token, the highest first."""
    failing = [row for row in examples if row.passed is False]

    def badness(row: ExampleResult) -> tuple[float, str]:
        return (-math.inf if math.isnan(row.mean_loss) else -row.mean_loss, row.id)

    return tuple(sorted(failing, key=badness))
