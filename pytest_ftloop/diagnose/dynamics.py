"""Training dynamics: find mislabelled train examples by how they were learned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, median, pstdev
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.groups import listed
from pytest_ftloop.diagnose.label_noise import label_noise
from pytest_ftloop.diagnose.labels import labels_of
from pytest_ftloop.diagnose.naming import answer_of

if TYPE_CHECKING:
    from pytest_ftloop.core.records import TrainedExample
    from pytest_ftloop.diagnose.evidence import Evidence

FEWEST_PASSES = 3
"""Fewest times that an example must have been trained on. The first pass does not count, as the
model has learned nothing yet, and a mean needs at least two."""

LEARNED_CONFIDENCE = 0.75
"""Median confidence from which on a low one is a sign of a wrong label: the other examples were
learned well. A doubted example that reaches it in its last pass was learned in the end, so it may
just be hard."""

DOUBTED_SHARE = 0.5
"""Confidence, as a share of the median, below which an example's label is doubted: from trainings
with planted wrong labels (benchmark `slices.py`)."""

BETWEEN_SHARE, TIMES_BETWEEN = 0.7, 2
"""Wrong labels are apart from the other examples, hard ones are not. So the examples between
`DOUBTED_SHARE` and this share of the median may be at most this many times the doubted ones."""

FEWEST_DOUBTED, LEAST_DOUBTED_SHARE = 3, 0.015
"""Fewest doubted examples for a finding, and their least share: one or two, or one in a hundred of
messages that people wrote, are as likely to be hard. A healthy run on 400 of them had 5."""

MOST_DOUBTED_SHARE = 0.2
"""Largest share of doubted examples: if there are more, the model has not learned the task."""

LATE_SHARE = 0.4
"""Share of a label's examples from which on doubts are about the label: twice the largest share of
all examples that may be doubted."""

FEWEST_TRAINED = 20
"""Fewest examples that the median needs to represent the others."""

IDS = 10
"""Ids that the finding names, the least confident first: about as many as one checks by hand."""


def findings(e: Evidence) -> tuple[Finding, ...]:
    """The finding on doubted labels, if any are.

    Few that are apart from all others are named first, as those ids are the more certain ones.
    """
    found = mislabelled(e) or label_noise(e)
    return (found,) if found else ()


def mislabelled(e: Evidence) -> Finding | None:
    """The model keeps contradicting some train examples while it learns the others well.

    Signal: the confidence in an example is the geometric mean probability of its tokens, averaged
    over all passes but the first. If it stays low, the example is hard or wrongly labelled.
    Threshold: below half of the median, which must be 0.75 or more; at least 3 such examples and
    1.5% of all, at most 20%; and between half and 70% of the median, where hard examples are, at
    most twice as many. Those that the last pass learned (0.75 or more) may be wrong labels learned
    by heart, or hard examples, so they are counted separately. In a set of labels those of a label
    with over 40% of its examples doubted do not count, as it was learned late. Source: dataset
    cartography (Swayamdipta et al., 2020: low confidence with low variability is often a label
    error); the figures are from the benchmark `slices.py`. Minimum data: 20 examples, each trained
    on 3 times. NaN: an example with a loss that is not finite is left out.
    """
    confidence = confidences(e)
    doubted = without_late_labels(e, doubted_ids(confidence))
    if not doubted:
        return None
    middle, highest = median(confidence.values()), confidence[doubted[-1]]
    passes = {x.id: probabilities(x) for x in e.trained if x.id in confidence}
    late = sum(passes[id_][-1] >= LEARNED_CONFIDENCE for id_ in doubted)
    ids = listed(doubted, IDS)
    looks = f"mislabelled or hard (the last pass learned {late})" if late else "mislabelled"
    return Finding(
        kind="mislabelled",
        severity="warning",
        message=(
            f"{len(doubted)} of {len(confidence)} train examples look {looks}: the model gives "
            f"their tokens a probability of {highest:.2f} or less, against a median of "
            f"{middle:.2f}: {ids}."
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
        remedy="Check the labels of these train examples: correct the wrong ones, or drop them."
        + (" If a label is right, the example is hard: keep it." if late else ""),
        tunable=False,
    )


def without_late_labels(e: Evidence, doubted: Sequence[str]) -> list[str]:
    """The ids but those of a label most of whose examples are doubted; none if few are left.

    Such a label was only learned late, or not yet: its examples are right.
    """
    if not labels_of(e.train):
        return list(doubted)
    label_of = {x.id: answer_of(x) for x in e.train}
    total = Counter(label_of.values())
    of_label = Counter(label_of.get(id_, "") for id_ in doubted)
    late = {label for label, count in of_label.items() if count > LATE_SHARE * total[label]}
    left = [id_ for id_ in doubted if label_of.get(id_, "") not in late]
    return left if len(left) >= FEWEST_DOUBTED else []


def confidences(e: Evidence) -> dict[str, float]:
    """The confidence in each example that was trained on often enough, by id."""
    return {
        example.id: fmean(probabilities(example))
        for example in e.trained
        if len(example.losses) >= FEWEST_PASSES and all(map(math.isfinite, example.losses))
    }


def probabilities(example: TrainedExample) -> list[float]:
    """The geometric mean probability of an example's tokens in each pass but the first."""
    return [math.exp(-loss) for loss in example.losses[1:]]


def doubted_ids(confidence: Mapping[str, float]) -> list[str]:
    """The ids whose labels are doubted, the least confident first; none if that can't be judged."""
    if len(confidence) < FEWEST_TRAINED:
        return []
    middle = median(confidence.values())
    if middle < LEARNED_CONFIDENCE:
        return []
    limit = DOUBTED_SHARE * middle
    low = sorted((c, id_) for id_, c in confidence.items() if c < limit)
    between = sum(limit <= c < BETWEEN_SHARE * middle for c in confidence.values())
    if between > TIMES_BETWEEN * len(low):
        return []
    fewest = max(FEWEST_DOUBTED, LEAST_DOUBTED_SHARE * len(confidence))
    is_few = fewest <= len(low) <= MOST_DOUBTED_SHARE * len(confidence)
    return [id_ for _, id_ in low] if is_few else []
