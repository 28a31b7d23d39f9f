"""Whether a record's figures are those of its table, and of one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_ftloop.core.errors import shown_path
from pytest_ftloop.core.metrics import best_metrics, is_score, perplexity, split_name, without_guard
from pytest_ftloop.core.records import (
    Evaluation,
    ExampleResult,
    HoldoutUse,
    Iteration,
    SeedRun,
    Untrained,
)
from pytest_ftloop.core.sampled import is_sampled_metric
from pytest_ftloop.core.set_metrics import recomputable
from pytest_ftloop.log.files import damaged

_OF_THE_TABLE = frozenset({"eval_loss", "pass_rate", "token_accuracy"})
"""The metrics that a table of examples gives. The train loss is of other examples."""

_ROUNDED = 2e-6
"""What rounding its parts to six decimals may move a derived figure by, relative to it above 1."""


Kept = Iteration | SeedRun | HoldoutUse | Untrained


def verify(kept: Kept, where: Path | str) -> None:
    """Raise a `LogError` where a record's figures contradict its table or one another.

    `where` is the record's file, for the error.
    """
    for why in _contradictions(kept):
        raise damaged(where if isinstance(where, str) else shown_path(where), why)


def _contradictions(kept: Kept) -> Iterator[str]:
    rows: tuple[ExampleResult, ...] = tuple(kept.examples)
    # A holdout's table has no texts.
    of_the_set = {} if isinstance(kept, HoldoutUse) else recomputable(kept.scoring)
    guards = {} if isinstance(kept, HoldoutUse) else kept.guards
    said = best_metrics(Evaluation(rows, (), (), math.nan, guards), of_the_set)
    own = {base for n in (*said, *kept.metrics) if is_score(base := _plain(n))}
    own |= {base for n in said if is_sampled_metric(base := _plain(n))}
    of_the_table = {*_OF_THE_TABLE, *of_the_set, *own}
    for name, value in said.items():
        found = kept.metrics.get(name, math.nan)
        # A table's losses are rounded; each token's share of that is far below this.
        if _plain(name) in of_the_table and not _is_close(found, value, 1e-5):
            yield f"it says {name} {found}, its table of examples {value}"
    for name in kept.metrics:
        if _plain(name) in of_the_table and name not in said:
            yield f"it says {name} {kept.metrics[name]}, which its table of examples does not have"
    yield from _derived("", kept.metrics)
    if isinstance(kept, Iteration) and not kept.is_untrained:
        yield from _derived("final.", kept.final)
        failing = sorted(row.id for row in rows if not row.passed)
        if sorted(kept.failing) != failing:
            yield (
                f"it says that {len(kept.failing)} examples failed, its table of examples "
                f"{len(failing)}; or it names others"
            )


def _plain(name: str) -> str:
    """The metric without its tag and its guard."""
    return without_guard(split_name(name)[0])


def _derived(place: str, metrics: Mapping[str, float]) -> Iterator[str]:
    """The figures that are not what they derive from; `place` is where in the record they are."""
    for name, found in metrics.items():
        metric, tag = split_name(name)
        of_tag = f"[{tag}]" if tag else ""
        loss = metrics.get(f"eval_loss{of_tag}")
        train_loss = metrics.get(f"train_loss{of_tag}")
        if metric == "perplexity" and loss is not None:
            value, text = perplexity(loss), f"exp(eval_loss{of_tag})"
        elif metric == "overfit_gap" and loss is not None and train_loss is not None:
            value, text = loss - train_loss, f"eval_loss{of_tag} - train_loss{of_tag}"
        else:
            continue
        if not _is_close(found, value, _ROUNDED):
            yield f"it says {place}{name} {found}, but {text} is {value:.6f}"


def _is_close(found: float, value: float, tolerance: float) -> bool:
    if math.isfinite(found) and math.isfinite(value):
        return math.isclose(found, value, rel_tol=tolerance, abs_tol=tolerance)
    # Near the largest float one may be infinite and the other not yet.
    return repr(found) == repr(value) or min(found, value) > 1e300
