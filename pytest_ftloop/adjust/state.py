"""What the policy knows: the settings that it moves, the chain so far, and conclusions from it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.chain import best_of, rank_key
from pytest_ftloop.core.metrics import figure_of
from pytest_ftloop.core.noise import UNMEASURED, SeedNoise, better_beyond_noise
from pytest_ftloop.core.records import Adjustment, Finding, Iteration, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

RATE, WARMUP = "training.learning_rate", "training.warmup_steps"
EPOCHS, MAX_STEPS = "training.num_train_epochs", "training.max_steps"
RANK, ALPHA, DROPOUT = "lora.r", "lora.lora_alpha", "lora.lora_dropout"
DECAY, RSLORA = "training.weight_decay", "lora.use_rslora"
START = "lora.init_from"

DEFAULTS: Mapping[str, Any] = {
    RATE: 2e-5,
    WARMUP: 0,
    EPOCHS: 3.0,
    MAX_STEPS: -1,
    DECAY: 0.0,
    RANK: 8,
    ALPHA: 8,
    DROPOUT: 0.0,
}
"""The values of settings that are not stated: defaults of trl 1.16 (SFTConfig) and peft 0.21
(LoraConfig)."""

RATES = (1e-6, 1e-1)
"""The lowest and highest learning rate of a move. LoRA's best rates are well within (2e-4 for most
models, about 1e-2 for the embedded one), so only a search in the wrong direction ends here."""

MOST_EPOCHS = 20
"""Maximum number of epochs of a move, since each such move doubles or triples the cost; LoRA runs
usually take 1 to 3."""

RANKS = (1, 256)
"""The lowest and highest rank of a move: peft requires at least 1, and more than 256 is hardly
ever used."""

DROPOUTS = (0.05, 0.1, 0.2, 0.3)
"""The values of `lora_dropout` that the moves step through: 0.05 and 0.1, as published, then
higher ones."""

HIGH_DROPOUT = 0.2
"""Dropouts above this value hinder learning: published LoRA settings are 0.1 or lower."""

LOW_RANK = 4
"""Ranks below this value limit learning: published LoRA settings are higher, and 8 is the default
of peft."""

DECAYS = (0.01, 0.03, 0.1)
"""The values of `weight_decay` that the moves step through: the usual range is 0.01 to 0.1."""

HIGH_RATE = 1e-2
"""From this learning rate on, a run that learned too little is slowed down first: the best rates
for LoRA are lower on all but very small models."""

USUAL = 5e-4
"""The usual best learning rate of LoRA for a model of width 2,000; see `usual_rate`."""

TIGHT = 1.25
"""Learning rates within this factor count as equal: the difference is hardly measurable."""

TOO_HIGH = frozenset({"diverged", "non-finite"})
"""The kinds of finding that mean the learning rate is too high."""

PROMISING = frozenset({"underfit", "not-learning"})
"""The kinds of finding that promise a gain from more training or a higher rate."""

ANSWERED = TOO_HIGH | PROMISING | {"oscillation", "overfitting", "overconfidence", "converged"}
"""The kinds of finding that the rules answer with a change of settings."""

Adjustments = tuple[Adjustment, ...]


@dataclass(frozen=True)
class Known:
    """What the log knows besides the chain.

    `iterations` are others with the same base model and train rows; `seed_noise` is the measured
    seed noise by metric (`core.noise.measured_noise`).
    """

    iterations: tuple[Iteration, ...] = ()
    seed_noise: Mapping[str, SeedNoise] = field(default_factory=lambda: UNMEASURED)


NOTHING = Known()
"""A log with nothing besides the chain."""


@dataclass(frozen=True)
class State:
    """The chain, the iteration that the next one starts from, and what else is known.

    It has more than ten members, since each conclusion from the chain is a property of its own that
    moves combine.
    """

    chain: tuple[Iteration, ...]
    parent: Iteration
    metric: str
    known: Known = NOTHING

    def get(self, setting: str) -> Any:
        """The parent's value of a setting."""
        return value_of(self.parent, setting)

    def finding(self, *kinds: str) -> Finding | None:
        """The parent's first finding of one of the kinds."""
        return next((found for found in self.parent.findings if found.kind in kinds), None)

    @property
    def rate(self) -> float:
        """The parent's learning rate."""
        return float(self.get(RATE))

    @property
    def usual(self) -> float:
        """The usual best learning rate for a model of this width; 0: unknown."""
        return usual_rate(int(self.parent.facts.get("width", 0)))

    @property
    def best_share(self) -> float:
        """The step with the lowest eval loss, as a fraction of all steps; 1 if unknown."""
        points = [p for p in self.parent.evals if math.isfinite(p.eval_loss)]
        if not points:
            return 1.0
        return min(points, key=lambda p: p.eval_loss).step / max(points[-1].step, 1)

    @property
    def diverged(self) -> tuple[Iteration, ...]:
        """The iterations that diverged, in the chain and elsewhere in the log.

        Only those with a higher learning rate than any that works in this chain: at lower rates
        another setting was the reason.
        """
        works = (i for i in self.chain if not has(i, TOO_HIGH))
        finite = (i for i in works if math.isfinite(figure(i, self.metric)))
        sound = max(map(rate_of, finite), default=0.0)
        everywhere = (*self.chain, *self.known.iterations)
        return tuple(i for i in everywhere if has(i, TOO_HIGH) and rate_of(i) > sound)

    @property
    def ceiling(self) -> float:
        """The lowest learning rate that is known to diverge."""
        return min(map(rate_of, self.diverged), default=math.inf)

    @property
    def floor(self) -> float:
        """The highest learning rate that learned nothing, below the ceiling and the parent's rate.

        A rate above the parent's was too high rather than too low, unless the parent also learned
        nothing.
        """
        top = self.ceiling if self.finding("not-learning") else min(self.ceiling, self.rate)
        return max((rate for i in self.idle if (rate := rate_of(i)) < top), default=0.0)

    @property
    def idle(self) -> tuple[Iteration, ...]:
        """The iterations that learned nothing; outside the chain only those with as many steps."""
        elsewhere = (i for i in self.known.iterations if steps_of(i) >= steps_of(self.parent))
        return tuple(i for i in (*self.chain, *elsewhere) if has(i, {"not-learning"}))

    @property
    def bracket(self) -> tuple[float, float]:
        """The learning rates around the parent's that enclose the optimum; 0, inf: unknown.

        Of two iterations that differ in the learning rate only, the optimum is on the side of the
        better one.
        """
        low, high = self.floor, self.ceiling
        for pair in combinations(self.chain, 2):
            left, right = sorted(pair, key=rate_of)
            if rate_of(left) == rate_of(right) or family(left) != family(right):
                continue
            if has(right, TOO_HIGH):
                continue  # its rate is a ceiling already, however good its best point was
            if rank_key(right, self.metric) < rank_key(left, self.metric):
                low = max(low, rate_of(left) if rate_of(left) < self.rate else 0.0)
            elif rate_of(right) > self.rate:
                high = min(high, rate_of(right))
        return low, high

    def allows(self, adjustments: Adjustments) -> bool:
        """Whether the result is new to the chain, and its learning rate is not known to fail."""
        settings = self.parent.settings.adjusted(adjustments)
        rate = float(settings.get(RATE, DEFAULTS[RATE]))
        idle = rate <= self.floor and any(a.setting == RATE for a in adjustments)
        tried = {canonical(iteration.settings) for iteration in self.chain}
        return rate < self.ceiling and not idle and canonical(settings) not in tried


def parent_of_next(chain: Sequence[Iteration], metric: str) -> Iteration:
    """The iteration that the next adjustments start from: the best one so far.

    If no figure is finite, there is no best: it is the last one, with the latest adjustments.
    """
    best = best_of(chain, metric)
    return best if math.isfinite(figure(best, metric)) else chain[-1]


def gained(
    iteration: Iteration, before: Sequence[Iteration], metric: str, known: Known = NOTHING
) -> bool:
    """Whether it is better than the best before it by more than noise.

    If both figures are equal, the eval loss decides.
    """
    best = parent_of_next(before, metric)
    new, old = figure(iteration, metric), figure(best, metric)
    if new == old:
        metric = "eval_loss"
        new, old = figure(iteration, metric), figure(best, metric)
    return better_beyond_noise(metric, new, old, known.seed_noise)


def figure(iteration: Iteration, metric: str) -> float:
    """The figure of a metric; NaN if the iteration has none."""
    return figure_of(iteration.metrics, metric)


def has(iteration: Iteration, kinds: Iterable[str]) -> bool:
    """Whether the iteration has a finding of one of the kinds."""
    return any(finding.kind in kinds for finding in iteration.findings)


def value_of(iteration: Iteration, setting: str) -> Any:
    """The value of a setting, or the default of trl or peft."""
    value = iteration.settings.get(setting)
    return DEFAULTS.get(setting) if value is None else _number(setting, value)


def _number(setting: str, value: Any) -> Any:
    """A setting's value; a number in quotes, which trl and peft accept, becomes a number."""
    if not isinstance(value, str) or setting not in DEFAULTS:
        return value
    try:
        number = float(value)
    except ValueError:
        return value  # peft and trl refuse it with a message of their own
    is_whole = number.is_integer() and not isinstance(DEFAULTS[setting], float)
    return int(number) if is_whole else number


def usual_rate(width: int) -> float:
    """The usual best learning rate for LoRA: 5e-4 * (2000 / width)^0.78; 0 for an unknown width.

    The authors of "LoRA Without Regret" (Schulman et al., 2025) fitted it to Llama models; it is
    ten times the best rate for full fine-tuning. Their fit for Qwen models hardly depends on the
    width (a power of 0.08), and differs by less than a factor of 3 for widths from 420 to 9,500.
    The embedded model, of width 128, did best at 4e-3 to 1.6e-2 in the grids of
    benchmarks/policy.py, where the formula gives 4.3e-3. It is a direction for the search, not a
    value to rely on: measurements take precedence.
    """
    return min(USUAL * (2000 / width) ** 0.78, RATES[1]) if width > 0 else 0.0


def steps_of(iteration: Iteration) -> int:
    """The number of steps that were planned."""
    return int(iteration.facts.get("planned_steps", 0))


def rate_of(iteration: Iteration) -> float:
    """The learning rate of an iteration."""
    return float(value_of(iteration, RATE))


def canonical(settings: Settings, without: Iterable[str] = ()) -> str:
    """The settings as one string, with defaults filled in, whether stated or not."""
    stated = {
        **{f"lora.{name}": value for name, value in settings.lora.items()},
        **{f"training.{name}": value for name, value in settings.training.items()},
    }
    given = {name: _number(name, v) for name, v in stated.items() if v is not None}
    full = {**DEFAULTS, **given}
    kept = {name: value for name, value in full.items() if name not in without}
    numbers = {k: float(v) if type(v) in (int, float) else v for k, v in kept.items()}
    return json.dumps(numbers, sort_keys=True, default=str)


def family(iteration: Iteration) -> str:
    """The settings as one string, without the learning rate and its warm-up."""
    return canonical(iteration.settings, without=(RATE, WARMUP))


def times(number: int, noun: str) -> str:
    """`1 iteration`, `2 iterations`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
