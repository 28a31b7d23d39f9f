"""The chains of refute.py: what a loop's iterations reach one after the other."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_ftloop.core.records import Iteration
from pytest_ftloop.diagnose.chain import plateau
from pytest_ftloop.diagnose.evidence import found_by
from pytest_ftloop.log import ImprovementLog

QUICKSTART = Path(__file__).parents[1] / "examples/quickstart/improvement_log/sentiment"

ITERATIONS = 10
"""Iterations of a made-up chain: two or three times what a loop usually has."""


def says_plateau(template: Iteration, losses: Sequence[float]) -> bool:
    """Whether `plateau` is found after iterations with these best eval losses."""
    *earlier, last = (
        replace(template, number=n, metrics={**template.metrics, "eval_loss": loss})
        for n, loss in enumerate(losses, start=1)
    )
    return bool(found_by((plateau,), history=tuple(earlier), metrics=last.metrics))


def template() -> Iteration:
    """A record whose metrics are replaced."""
    return next(iter(ImprovementLog(QUICKSTART).read()))


@dataclass(frozen=True)
class Chain:
    """The best eval losses of a loop's iterations: measured, and without the seed's noise."""

    shape: str
    measured: tuple[float, ...]
    true: tuple[float, ...]


def made_up_chains(count: int, seed: int = 0) -> Iterator[Chain]:
    """Chains of every shape in turns; the seed's noise is 0.2 to 2%."""
    for number in range(count):
        draw = random.Random(f"chain-{seed}-{number}")
        shape = SHAPES[number % len(SHAPES)]
        noise = draw.choice((0.002, 0.005, 0.01, 0.02))
        pairs: list[tuple[float, float]] = []
        # The shape reads what was measured so far, so the list must grow while it runs.
        for loss in itertools.islice(shape(draw, pairs), ITERATIONS):
            pairs.append((loss * math.exp(draw.gauss(0, noise)), loss))  # noqa: PERF401
        measured, true = zip(*pairs, strict=True)
        yield Chain(shape.__name__.replace("_", " "), measured, true)


Pairs = Sequence[tuple[float, float]]
"""Measured and true loss of the iterations so far."""


def searched(draw: random.Random, seen: Pairs) -> Iterator[float]:
    """A learning rate, as the rules search it: up by 2 or 3, then the lowest point of a parabola.

    Places are logarithms of the rate over the best one, at first up to 100 times off.
    """
    floor, steepness, step = draw.uniform(0.05, 2), draw.uniform(0.02, 0.3), draw.choice((2, 3))
    places = [-draw.uniform(0, 4.6)]
    while True:
        yield floor * (1 + steepness * places[-1] ** 2)
        tried = sorted(zip(places, (loss for loss, _ in seen), strict=True))
        best = min(range(len(tried)), key=lambda n: tried[n][1])
        if 0 < best < len(tried) - 1:
            places.append(lowest(*tried[best - 1 : best + 2]))
        elif best:
            places.append(tried[best][0] + math.log(step))
        else:
            places.append(tried[best][0] + (math.log(step) if len(tried) == 1 else -math.log(2)))


def lowest(left: tuple[float, float], at: tuple[float, float], right: tuple[float, float]) -> float:
    """Where the parabola through three points (place, loss), the middle one lowest, is lowest."""
    a, b = at[0] - left[0], at[0] - right[0]
    up, down = a * (at[1] - right[1]), b * (at[1] - left[1])
    return at[0] - (a * up - b * down) / (2 * (up - down)) if up != down else at[0]


def trained_longer(draw: random.Random, _: Pairs) -> Iterator[float]:
    """Ever more epochs: each gains a share of what the last one did."""
    floor, gap, share = draw.uniform(0.05, 2), draw.uniform(0.05, 3), draw.uniform(0.2, 0.8)
    yield from (floor * (1 + gap * share**n) for n in itertools.count())


def level(draw: random.Random, _: Pairs) -> Iterator[float]:
    """Nothing that is tried helps, or it does harm."""
    floor = draw.uniform(0.05, 2)
    while True:
        yield floor * (1 + max(0.0, draw.gauss(0, 0.05)))


def helped_by_another(draw: random.Random, seen: Pairs) -> Iterator[float]:
    """Nothing helps for some iterations, then another kind of setting does, by 3 to 30%."""
    when, gain = draw.randint(2, 7), draw.uniform(0.03, 0.3)
    yield from (x * (1 - gain * (n >= when)) for n, x in enumerate(level(draw, seen)))


SHAPES: Sequence[Callable[[random.Random, Pairs], Iterator[float]]] = (
    searched,
    trained_longer,
    level,
    helped_by_another,
)
