"""Tests that distinguish a failing group from chance. Without scipy, whose import is slow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby


def fisher_exact(inside: int, size: int, failing: int, total: int) -> float:
    """The chance of at least `inside` failing examples in a group of `size` drawn at random.

    Of `total` examples `failing` fail. This is the upper tail of the hypergeometric distribution,
    that is Fisher's exact test, one-sided.
    """
    passing = total - failing
    low, high = max(0, size - passing), min(size, failing)
    if inside <= low:
        return 1.0
    if inside > high:
        return 0.0
    chance = math.exp(
        _log_choose(failing, inside)
        + _log_choose(passing, size - inside)
        - _log_choose(total, size)
    )
    tail = 0.0
    for k in range(inside, high + 1):
        tail += chance
        chance *= (failing - k) * (size - k) / ((k + 1) * (passing - size + k + 1))
        if chance < 1e-17 * tail:
            break
    return min(tail, 1.0)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


@dataclass(frozen=True)
class Ranks:
    """The ranks of values, computed once for many tests. Equal values share their mean rank.

    `ties` is the sum of t^3 - t over the sets of t equal values, for the variance of the test.
    """

    ranks: tuple[float, ...]
    ties: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Ranks:
        """Rank the values, which must not be NaN."""
        ranks, ties, below = [0.0] * len(values), 0.0, 0
        order = sorted(range(len(values)), key=values.__getitem__)
        for _, equal in groupby(order, key=values.__getitem__):
            places = list(equal)
            count = len(places)
            for place in places:
                ranks[place] = below + (count + 1) / 2
            ties += count**3 - count
            below += count
        return cls(tuple(ranks), ties)

    def superiority(self, members: Sequence[int]) -> float:
        """The chance that a member's value is above a non-member's: U / (n m). Ties count half."""
        size, rest = len(members), len(self.ranks) - len(members)
        return self._u(members) / (size * rest)

    def mann_whitney(self, members: Sequence[int]) -> float:
        """The chance that members drawn at random have such high ranks, or higher ones.

        Mann and Whitney's test, one-sided: the normal approximation with corrections for ties and
        continuity, which is good from about 5 members on.
        """
        size, total = len(members), len(self.ranks)
        rest = total - size
        spread = size * rest / 12 * (total + 1 - self.ties / (total * (total - 1)))
        if spread <= 0:
            return 1.0
        z = (self._u(members) - size * rest / 2 - 0.5) / math.sqrt(spread)
        return math.erfc(z / math.sqrt(2)) / 2

    def _u(self, members: Iterable[int]) -> float:
        ranks = [self.ranks[member] for member in members]
        return math.fsum(ranks) - len(ranks) * (len(ranks) + 1) / 2


def discoveries(p_values: Sequence[float], rate: float) -> list[bool]:
    """Which tests are discoveries if a share `rate` of them may be false (Benjamini, Hochberg).

    Valid if the tests are independent or positively correlated, as those of overlapping groups are.
    """
    cutoff = -1.0
    for rank, p in enumerate(sorted(p_values), start=1):
        if p <= rank / len(p_values) * rate:
            cutoff = p
    return [p <= cutoff for p in p_values]
