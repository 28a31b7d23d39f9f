"""The chains of refute.py: what a loop's iterations reach one after the other."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_ftloop.core.records import Adjustment, Iteration
from pytest_ftloop.diagnose.chain import plateau
from pytest_ftloop.diagnose.evidence import found_by
from pytest_ftloop.log import ImprovementLog

QUICKSTART = Path(__file__).parents[1] / "examples/quickstart/improvement_log/sentiment"

ITERATIONS = 10
"""Iterations of a made-up chain: two or three times what a loop usually has."""


def said_of(template: Iteration, losses: Sequence[float], settings: Sequence[str]) -> set[str]:
    """The settings that `plateau` names after iterations with these losses; empty if it is silent.

    `losses` are the best eval losses, `settings` what each iteration changed.
    """
    *earlier, last = (
        replace(
            template,
            number=n,
            metrics={**template.metrics, "eval_loss": loss},
            adjustments=(Adjustment(setting, 1, 2, ""),),
        )
        for n, (loss, setting) in enumerate(zip(losses, settings, strict=True), start=1)
    )
    found = found_by(
        (plateau,),
        history=tuple(earlier),
        metrics=last.metrics,
        adjustments=last.adjustments,
    )
    return {name for f in found for name in str(f.evidence["changed"]).split(", ")}


def template() -> Iteration:
    """A record whose metrics are replaced."""
    return next(iter(ImprovementLog(QUICKSTART).read()))


@dataclass(frozen=True)
class Chain:
    """The best eval losses of a loop's iterations: measured, and without the seed's noise.

    `settings` is what each iteration changed.
    """

    shape: str
    measured: tuple[float, ...]
    true: tuple[float, ...]
    settings: tuple[str, ...]

    def gains(self, count: int, settings: AbstractSet[str]) -> float:
        """The share by which changes of these settings alone lower the loss after `count`."""
        more = itertools.takewhile(lambda pair: pair[1] in settings, self.after(count))
        best = min(self.true[:count])
        return 1 - min((loss for loss, _ in more), default=best) / best

    def after(self, count: int) -> Iterator[tuple[float, str]]:
        """True loss and changed setting of each iteration after the first `count`."""
        return zip(self.true[count:], self.settings[count:], strict=True)


def made_up_chains(count: int, seed: int = 0) -> Iterator[Chain]:
    """Chains of every shape in turns; the seed's noise is 0.2 to 2%."""
    for number in range(count):
        draw = random.Random(f"chain-{seed}-{number}")
        shape = SHAPES[number % len(SHAPES)]
        noise = draw.choice((0.002, 0.005, 0.01, 0.02))
        pairs: list[tuple[float, float]] = []
        settings: list[str] = []
        # The shape reads what was measured so far, so the list must grow while it runs.
        for loss, setting in itertools.islice(shape(draw, pairs), ITERATIONS):
            pairs.append((loss * math.exp(draw.gauss(0, noise)), loss))
            settings.append(setting)
        measured, true = zip(*pairs, strict=True)
        yield Chain(shape.__name__.replace("_", " "), measured, true, tuple(settings))


Pairs = Sequence[tuple[float, float]]
"""Measured and true loss of the iterations so far."""

Tried = tuple[float, str]
"""The true loss of an iteration, and the setting that it changed."""

RATE, EPOCHS, RANK = "training.learning_rate", "training.num_train_epochs", "lora.r"


def searched(draw: random.Random, seen: Pairs) -> Iterator[Tried]:
    """A learning rate, as the rules search it: up by 2 or 3, then the lowest point of a parabola.

    Places are logarithms of the rate over the best one, at first up to 100 times off.
    """
    floor, steepness, step = draw.uniform(0.05, 2), draw.uniform(0.02, 0.3), draw.choice((2, 3))
    places = [-draw.uniform(0, 4.6)]
    while True:
        yield floor * (1 + steepness * places[-1] ** 2), RATE
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


def trained_longer(draw: random.Random, _: Pairs) -> Iterator[Tried]:
    """Ever more epochs: each gains a share of what the last one did."""
    floor, gap, share = draw.uniform(0.05, 2), draw.uniform(0.05, 3), draw.uniform(0.2, 0.8)
    yield from ((floor * (1 + gap * share**n), EPOCHS) for n in itertools.count())


def level(draw: random.Random, _: Pairs) -> Iterator[Tried]:
    """Nothing that is tried helps, or it does harm."""
    floor = draw.uniform(0.05, 2)
    while True:
        yield floor * (1 + max(0.0, draw.gauss(0, 0.05))), draw.choice((RATE, EPOCHS))


def helped_by_another(draw: random.Random, seen: Pairs) -> Iterator[Tried]:
    """Nothing helps for some iterations, then another kind of setting does, by 3 to 30%."""
    when, gain = draw.randint(2, 7), draw.uniform(0.03, 0.3)
    for n, (loss, setting) in enumerate(level(draw, seen)):
        yield (loss, setting) if n < when else (loss * (1 - gain), RANK)


SHAPES: Sequence[Callable[[random.Random, Pairs], Iterator[Tried]]] = (
    searched,
    trained_longer,
    level,
    helped_by_another,
)
