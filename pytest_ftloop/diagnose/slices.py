"""Failing slices: groups of eval examples that do far worse than all others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Protocol

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.groups import (
    IDS_PER_GROUP,
    KINDS,
    SUPPORT,
    Group,
    Members,
    Traits,
    groups_of,
    listed,
    words_each,
)
from pytest_ftloop.diagnose.statistics import Ranks, discoveries, fisher_exact

if TYPE_CHECKING:
    from pytest_ftloop.core.records import ExampleResult
    from pytest_ftloop.diagnose.evidence import Evidence

FALSE_DISCOVERIES = 0.05
"""Largest expected share of false discoveries, over all groups of an eval set (Benjamini and
Hochberg)."""

MORE_FAIL = 0.35
"""Smallest difference between the failure rates of a slice and of the others, chosen from healthy
runs of the benchmark `slices.py`."""

SURELY_MORE, SURELY_TIMES, SURE_P = 0.15, 4.0, 1e-6
"""A smaller difference counts too if it is at least this large, the slice's rate is this many times
the others', and p is this low. Not one of ten thousand groups has that by chance; and in a small
eval set so small a difference can't reach that p."""

MOST_OTHERS_FAIL = 0.5
"""Failure rate of the others from which on no slice is reported: then the model fails."""

MORE_LOSS, TIMES_LOSS = 0.5, 2.0
"""By loss: how many nats, and how many times, a slice's mean loss per token must be above that of
the others."""

SUPERIORITY = 0.8
"""By loss: the smallest chance that an example of the slice has a higher loss than one of the
others. It keeps a few extreme losses from making a slice."""

FEWEST_EACH = 5
"""Fewest failing, and fewest passing, examples with which failure rates are compared. With fewer no
group could stand out, and losses are compared instead."""

SAME_SLICE = 0.8
"""Jaccard index from which on two groups are two names for one slice."""

MOST_SLICES = 3
"""Maximum number of slices that are reported, as the worst ones are to be looked at first."""

SLICE_LEARNED_CONFIDENCE = 0.8
"""Mean confidence in a slice's train examples, in their last pass, from which on they count as
learned. Measured: 0.95 to 0.99 with planted wrong labels; 0.37 to 0.77 if more training was needed
or labels contradicted each other."""


class Measure(Protocol):
    """How groups of examples are compared: by failures, or by loss."""

    def __len__(self) -> int:
        """How many examples there are."""

    def figures(self, members: Sequence[int]) -> tuple[float, float]:
        """The failure rate, or mean loss, of the members and of the others."""

    def p(self, members: Sequence[int]) -> float:
        """The chance that members chosen at random are as bad as these."""

    def is_worse(self, members: Sequence[int]) -> bool:
        """Whether the difference is large enough to be reported."""

    def without(self, places: frozenset[int]) -> Measure:
        """The same measure without the examples at these places."""


@dataclass(frozen=True)
class Failures:
    """Compare by failure rate, with Fisher's exact test. `failed` is by place."""

    failed: Mapping[int, bool]

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.failed)

    @cached_property
    def _failing(self) -> int:
        return sum(self.failed.values())

    def figures(self, members: Sequence[int]) -> tuple[float, float]:
        """The failure rate of the members and of the others."""
        inside = self._inside(members)
        others = len(self.failed) - len(members)
        return inside / len(members), (self._failing - inside) / others

    def p(self, members: Sequence[int]) -> float:
        """Fisher's exact test, one-sided."""
        return fisher_exact(self._inside(members), len(members), self._failing, len(self.failed))

    def is_worse(self, members: Sequence[int]) -> bool:
        """Whether most of the others pass, and the difference is large, or smaller and certain."""
        inside, others = self.figures(members)
        if others >= MOST_OTHERS_FAIL or inside - others < SURELY_MORE:
            return False
        if inside - others >= MORE_FAIL:
            return True
        return inside >= SURELY_TIMES * others and self.p(members) <= SURE_P

    def without(self, places: frozenset[int]) -> Failures:
        """The same measure without the examples at these places."""
        return Failures({n: failed for n, failed in self.failed.items() if n not in places})

    def _inside(self, members: Sequence[int]) -> int:
        return sum(map(self.failed.__getitem__, members))


@dataclass(frozen=True)
class Losses:
    """Compare by loss per token, with Mann and Whitney's test. `losses` is by place."""

    losses: Mapping[int, float]

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.losses)

    @cached_property
    def _total(self) -> float:
        return math.fsum(self.losses.values())

    @cached_property
    def _ranks(self) -> Ranks:
        return Ranks.of(list(self.losses.values()))

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {place: number for number, place in enumerate(self.losses)}

    def figures(self, members: Sequence[int]) -> tuple[float, float]:
        """The mean loss per token of the members and of the others."""
        inside = math.fsum(self.losses[place] for place in members)
        others = len(self.losses) - len(members)
        return inside / len(members), (self._total - inside) / others

    def p(self, members: Sequence[int]) -> float:
        """Mann and Whitney's test, one-sided."""
        return self._ranks.mann_whitney([self._numbers[place] for place in members])

    def is_worse(self, members: Sequence[int]) -> bool:
        """Whether their mean is far above, and most of them are above most of the others."""
        inside, others = self.figures(members)
        if inside - others < MORE_LOSS or inside < TIMES_LOSS * others:
            return False
        return self._ranks.superiority([self._numbers[n] for n in members]) >= SUPERIORITY

    def without(self, places: frozenset[int]) -> Losses:
        """The same measure without the examples at these places."""
        return Losses({n: loss for n, loss in self.losses.items() if n not in places})


@dataclass(frozen=True)
class Slice:
    """A group that does worse than the others, with its figures.

    `inside` is the figure of the members at `places`, `others` that of the other examples; both are
    without the examples of slices named before. `also` are other names for nearly the same
    examples.
    """

    group: Group
    places: tuple[int, ...]
    inside: float
    others: float
    p: float
    also: tuple[str, ...] = ()


def failing_slices(e: Evidence) -> tuple[Slice, ...]:
    """The worst groups of the eval set, at most `MOST_SLICES`.

    Every group is tested once. Of the discoveries, those with a large effect remain: among
    thousands of examples a small difference is certain, but not important. The one with the lowest
    p-value comes first, under the name of the simplest group with nearly the same examples. The
    rest is then tested without these examples, so that a word which only occurs with a failing tag
    is not named too.
    """
    measure = measure_of(e.results)
    if measure is None:
        return ()
    known = {(example.id, example.content): example for example in e.eval}
    most = words_each(len(e.results))
    traits = [Traits.of_result(r, known.get((r.id, r.content)), most) for r in e.results]
    tested = groups_of(traits)
    p_values = [measure.p(equals[0].places) for equals in tested]
    is_found = discoveries(p_values, FALSE_DISCOVERIES)
    cutoff = max((p for p, found in zip(p_values, is_found, strict=True) if found), default=0.0)
    found = [
        members for equals, yes in zip(tested, is_found, strict=True) if yes for members in equals
    ]
    return _named(found, measure, cutoff)


def measure_of(results: Sequence[ExampleResult]) -> Measure | None:
    """By failures if enough fail and enough pass; else by loss. None if a loss is not finite."""
    failed = [result.passed is False for result in results]
    is_scored = all(result.passed is not None for result in results)
    if is_scored and FEWEST_EACH <= sum(failed) <= len(failed) - FEWEST_EACH:
        return Failures(dict(enumerate(failed)))
    losses = [result.mean_loss for result in results]
    if len(losses) < 2 * SUPPORT or not all(map(math.isfinite, losses)):
        return None
    return Losses(dict(enumerate(losses)))


def _named(found: Sequence[Members], measure: Measure, cutoff: float) -> tuple[Slice, ...]:
    named: list[Slice] = []
    taken: frozenset[int] = frozenset()
    while len(named) < MOST_SLICES:
        candidates = [c for m in found if (c := _candidate(m, measure, taken, cutoff))]
        if not candidates:
            break
        best = min(candidates, key=lambda c: (c.p, _order(c.group)))
        alike = sorted(
            (c for c in candidates if _jaccard(c.places, best.places) >= SAME_SLICE),
            key=lambda c: _order(c.group),
        )
        named.append(replace(alike[0], also=tuple(c.group.name for c in alike[1:])))
        new = frozenset(alike[0].places)
        measure, taken = measure.without(new), taken | new
    return tuple(named)


def _candidate(
    members: Members, measure: Measure, taken: frozenset[int], cutoff: float
) -> Slice | None:
    """The group without the examples already taken, if most are left and they still do worse."""
    left = tuple(place for place in members.places if place not in taken)
    if not SUPPORT <= len(left) <= len(measure) - SUPPORT or len(left) < len(members.places) / 2:
        return None
    if not measure.is_worse(left):
        return None
    p = measure.p(left)
    return Slice(members.group, left, *measure.figures(left), p) if p <= cutoff else None


def _order(group: Group) -> tuple[int, str]:
    return KINDS.index(group.kind), group.name


def _jaccard(one: Sequence[int], other: Sequence[int]) -> float:
    both = len(set(one) & set(other))
    return both / (len(one) + len(other) - both)


def findings(e: Evidence) -> tuple[Finding, ...]:
    """`failing-slice`: a group of eval examples fails far more often than the others.

    Signal: Fisher's exact test on the failures; if (nearly) all examples pass or all fail, Mann and
    Whitney's rank test on the loss per token. Both are one-sided, with at most 5% false discoveries
    over all groups (Benjamini and Hochberg). Threshold: most of the others pass, and the failure
    rate is 35 points above theirs, or 15 points and 4 times as high with p up to 1e-6; by loss, the
    mean is twice theirs and 0.5 nats above, in 80% of pairs. Source: practice; the sizes are from
    healthy runs of the benchmark `slices.py`. Minimum data: 5 examples in the slice and 5 others;
    for the failure rate 5 failing and 5 passing ones. NaN: with a loss that is not finite, losses
    are not compared.
    """
    named = failing_slices(e)
    most = words_each(len(e.results))
    train = [(x.id, Traits.of_example(x, most)) for x in e.train] if named else []
    return tuple(
        _finding(e, found, [id_ for id_, traits in train if found.group.holds(traits)])
        for found in named
    )


def _finding(e: Evidence, found: Slice, in_train: Sequence[str]) -> Finding:
    name, rows = found.group.name, [e.results[place] for place in found.places]
    rows.sort(key=lambda row: (-row.mean_loss, row.id))
    by_rate = isinstance(measure_of(e.results), Failures)
    # By rate, name examples that fail: a passing one with a high loss would confuse.
    shown = [row.id for row in rows if not by_rate or row.passed is False]
    seen, iterations = _seen(e, found)
    confidence = _confidence(e, frozenset(in_train))
    what, unit = ("failure_rate", ".0%") if by_rate else ("loss", ".2f")
    evidence: dict[str, float | int | str] = {
        "slice": name,
        "examples": len(rows),
        what: found.inside,
        f"others_{what}": found.others,
        "p": f"{found.p:.1e}",
        "ids": listed(shown, IDS_PER_GROUP),
        "iterations_seen": seen,
        "iterations": iterations,
    }
    if found.also:
        evidence["nearly_the_same"] = "; ".join(found.also[:2])
    if e.train:
        evidence["train_examples"] = len(in_train)
    if math.isfinite(confidence):
        evidence["train_confidence"] = confidence
    finding = Finding(
        kind="failing-slice",
        severity="warning",
        message=(
            f"The {len(rows)} examples {name}: {what.replace('_', ' ')} {found.inside:{unit}}, of "
            f"the others {found.others:{unit}} ({evidence['ids']})."
        ),
        evidence=evidence,
        remedy=_remedy(e, found, len(in_train), confidence),
    )
    # Only an info if earlier iterations did not show it: it may be chance.
    return replace(finding, severity="info") if seen == 1 < iterations else finding


def _remedy(e: Evidence, found: Slice, in_train: int, confidence: float) -> str:
    name = found.group.name
    if not e.train:
        return f"Look at the train examples {name}: are there enough, and are their labels right?"
    # Under a third of its share in eval: what the slice lacks is examples.
    if in_train < len(e.train) * len(found.places) / len(e.results) / 3:
        return f"Add train examples {name}: there are {in_train} of {len(e.train)}."
    these = f"the {in_train} train examples {name}"
    if math.isnan(confidence):
        return f"Check the labels of {these}; if they are right, add more such examples."
    if confidence >= SLICE_LEARNED_CONFIDENCE:
        return f"Check the labels of {these}: the model learned them, so they teach something else."
    return (
        f"T{these[1:]} are not learned either: train longer, add more of them, or look "
        "whether their labels contradict each other."
    )


def _confidence(e: Evidence, ids: frozenset[str]) -> float:
    """The mean confidence in these train examples in their last pass; NaN if unknown."""
    last = [example.losses[-1] for example in e.trained if example.id in ids]
    return fmean(math.exp(-loss) for loss in last) if last else math.nan


def _seen(e: Evidence, found: Slice) -> tuple[int, int]:
    """The number of iterations, with this one, in which the slice did worse, and that had it."""
    members = {(e.results[place].id, e.results[place].content) for place in found.places}
    by_rate = isinstance(measure_of(e.results), Failures)
    seen = iterations = 1
    for iteration in e.history:
        rows = e.results_of(iteration)
        places = [n for n, row in enumerate(rows) if (row.id, row.content) in members]
        measure = measure_of(rows)
        if len(places) < SUPPORT or isinstance(measure, Failures) is not by_rate:
            continue
        if measure is None or len(places) == len(rows):
            continue
        iterations += 1
        seen += measure.is_worse(places)
    return seen, iterations
