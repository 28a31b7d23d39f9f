"""Training dynamics: train examples that look mislabelled by how they were learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, median, pstdev
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.groups import listed

if TYPE_CHECKING:
    from pytest_ftloop.core.records import TrainedExample
    from pytest_ftloop.diagnose.evidence import Evidence

PASSES = 3
"""Times that an example was trained on, at least: the first says nothing, the model is untaught."""

LEARNED = 0.75
"""The median confidence from which on a low one means something: the rest was learned well. A
doubted example with as much in its last pass was learned in the end, so it may only be hard."""

LOW = 0.5
"""An example's confidence, as a share of the median, below which its label is doubted."""

BETWEEN, TIMES_BETWEEN = 0.7, 2
"""Wrong labels stand apart, hard examples shade into the rest: up to this share of the median there
are no more than so many times the doubted ones."""

LEAST = 3
"""Doubted examples: one or two are as likely hard ones."""

MOST_SHARE = 0.2
"""Of the examples: with more of them doubted it is the model that has not learned."""

EXAMPLES = 20
"""Trained examples, below which there is no rest to speak of."""

IDS = 10
"""Ids that the finding names, the least confident first."""


def findings(e: Evidence) -> tuple[Finding, ...]:
    """The doubted labels, if there are any."""
    found = mislabelled(e)
    return (found,) if found else ()


def mislabelled(e: Evidence) -> Finding | None:
    """Train examples that the model keeps contradicting while it learns the others well.

    Signal: an example's confidence is the geometric mean probability of its tokens, averaged over
    the times it was trained on but the first; steadily low, it is hard or wrong. Threshold: below
    half of the median, which is 0.75 or more; 3 such examples, no more than 20% of all, and at
    most twice as many between half and 70% of the median, as hard examples would lie. Those that
    the last pass learned (0.75 or more) vary much: wrong labels learned by heart look so, but hard
    examples too, so they are counted apart. Source: dataset cartography (Swayamdipta et al., 2020:
    low confidence and low variability are often label errors); the figures from the benchmark
    `slices.py`. Minimum data: 20 examples that were trained on 3 times each. NaN: an example with
    a loss that is not finite is left out.
    """
    confidence = confidences(e)
    doubted = doubted_ids(confidence)
    if not doubted:
        return None
    middle, highest = median(confidence.values()), confidence[doubted[-1]]
    passes = {x.id: probabilities(x) for x in e.trained if x.id in confidence}
    late = sum(passes[id_][-1] >= LEARNED for id_ in doubted)
    ids = listed(doubted, IDS)
    looks = f"mislabelled or hard (the last pass learned {late})" if late else "mislabelled"
    return Finding(
        kind="mislabelled",
        severity="warning",
        message=(
            f"{len(doubted)} of {len(confidence)} train examples look {looks}: the model gives "
            f"their tokens a probability of {highest:.2f} or less, against {middle:.2f} in the "
            f"median: {ids}."
        ),
        evidence={
            "doubted": len(doubted),
            "examples": len(confidence),
            "highest_confidence": highest,
            "median_confidence": middle,
            "variability": fmean(pstdev(passes[id_]) for id_ in doubted),
            "median_variability": median(map(pstdev, passes.values())),
            "learned_last": late,
            "ids": ids,
        },
        remedy="Check the labels of these train examples: mend the wrong ones, or drop them."
        + (" Where the label is right, the example is hard: keep it." if late else ""),
        tunable=False,
    )


def confidences(e: Evidence) -> dict[str, float]:
    """Each example's confidence by id, of those trained on often enough."""
    return {
        example.id: fmean(probabilities(example))
        for example in e.trained
        if len(example.losses) >= PASSES and all(map(math.isfinite, example.losses))
    }


def probabilities(example: TrainedExample) -> list[float]:
    """The geometric mean probability of its tokens each time but the first."""
    return [math.exp(-loss) for loss in example.losses[1:]]


def doubted_ids(confidence: Mapping[str, float]) -> list[str]:
    """Whose labels are doubted, the least confident first; nobody's where that says nothing."""
    if len(confidence) < EXAMPLES or (middle := median(confidence.values())) < LEARNED:
        return []
    low = sorted((c, id_) for id_, c in confidence.items() if c < LOW * middle)
    between = sum(LOW * middle <= c < BETWEEN * middle for c in confidence.values())
    if between > TIMES_BETWEEN * len(low):
        return []
    return [id_ for _, id_ in low] if LEAST <= len(low) <= MOST_SHARE * len(confidence) else []
