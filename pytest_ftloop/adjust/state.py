"""What the policy knows: the settings it moves, the chain so far, and what the chain shows."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.chain import best_of
from pytest_ftloop.core.metrics import METRICS, split_name
from pytest_ftloop.core.noise import UNMEASURED, better_beyond_noise
from pytest_ftloop.core.records import Adjustment, Finding, Iteration, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

RATE, WARMUP = "training.learning_rate", "training.warmup_steps"
EPOCHS, MAX_STEPS = "training.num_train_epochs", "training.max_steps"
RANK, ALPHA, DROPOUT = "lora.r", "lora.lora_alpha", "lora.lora_dropout"
DECAY, RSLORA = "training.weight_decay", "lora.use_rslora"

DEFAULTS: Mapping[str, Any] = {  # of trl 1.16 (SFTConfig) and peft 0.21 (LoraConfig), when unset
    RATE: 2e-5,
    WARMUP: 0,
    EPOCHS: 3.0,
    MAX_STEPS: -1,
    DECAY: 0.0,
    RANK: 8,
    ALPHA: 8,
    DROPOUT: 0.0,
}
RATES = (1e-6, 1e-1)
MOST_EPOCHS = 20
RANKS = (1, 256)
DROPOUTS = (0.05, 0.1, 0.2, 0.3)
HIGH_DROPOUT = 0.2
"""Published LoRA settings stay at 0.1 or below."""
LOW_RANK = 4
"""Published LoRA settings stay above, 8 being the libraries' default."""
DECAYS = (0.01, 0.03, 0.1)
HIGH_RATE = 1e-2
"""LoRA's best rates lie below: from here on a run that lacks something is first slowed down."""
USUAL = 5e-4
"""LoRA's usual best rate for a model 2,000 wide; see `usual_rate`."""
TIGHT = 1.25
"""Two learning rates this near are the same one."""
TOO_HIGH = frozenset({"diverged", "non-finite"})
PROMISING = frozenset({"underfit", "not-learning"})

Adjustments = tuple[Adjustment, ...]


@dataclass(frozen=True)
class Known:
    """What the log knows beside the chain.

    `iterations` are others of the same base model and train rows; `noise` is how far the seed alone
    moves each metric, where that was measured (`diagnose.noise.run_noise`).
    """

    iterations: tuple[Iteration, ...] = ()
    noise: Mapping[str, float] = field(default_factory=lambda: UNMEASURED)


NOTHING = Known()


@dataclass(frozen=True)
class State:
    """The chain, the iteration that the next one starts from, and what else is known."""

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
        """The learning rate that LoRA usually does best with on a model this wide; 0: unknown."""
        return usual_rate(int(self.parent.facts.get("width", 0)))

    @property
    def best_share(self) -> float:
        """Where in the run the lowest eval loss came, as a share of its steps; 1 where unknown."""
        points = [p for p in self.parent.evals if math.isfinite(p.eval_loss)]
        if not points:
            return 1.0
        return min(points, key=lambda p: p.eval_loss).step / max(points[-1].step, 1)

    @property
    def diverged(self) -> tuple[Iteration, ...]:
        """What diverged, in the chain and elsewhere in the log.

        Only at higher learning rates than any that works in this chain: below them what made the
        difference was another setting.
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
        """The highest learning rate that learned nothing, below the ceiling and the best rate.

        Above the best rate (unless that learned nothing either) it was too high, not too low.
        """
        top = self.ceiling if self.finding("not-learning") else min(self.ceiling, self.rate)
        return max((rate for i in self.idle if (rate := rate_of(i)) < top), default=0.0)

    @property
    def idle(self) -> tuple[Iteration, ...]:
        """What learned nothing; elsewhere in the log only runs of as many steps count."""
        elsewhere = (i for i in self.known.iterations if steps_of(i) >= steps_of(self.parent))
        return tuple(i for i in (*self.chain, *elsewhere) if has(i, {"not-learning"}))

    @property
    def bracket(self) -> tuple[float, float]:
        """The learning rates around the parent's between which the optimum lies; 0, inf: unknown.

        Of two iterations that differ in the learning rate alone, the optimum lies on the better
        one's side.
        """
        low, high = self.floor, self.ceiling
        for pair in combinations(self.chain, 2):
            left, right = sorted(pair, key=rate_of)
            if rate_of(left) == rate_of(right) or family(left) != family(right):
                continue
            if has(right, TOO_HIGH):
                continue  # its rate is a ceiling already, whatever its best point reached
            if rank_key(right, self.metric) < rank_key(left, self.metric):
                low = max(low, rate_of(left) if rate_of(left) < self.rate else 0.0)
            elif rate_of(right) > self.rate:
                high = min(high, rate_of(right))
        return low, high

    def allows(self, adjustments: Adjustments) -> bool:
        """Whether the result is new to the chain and its learning rate not known to fail."""
        settings = self.parent.settings.adjusted(adjustments)
        rate = float(settings.get(RATE, DEFAULTS[RATE]))
        idle = rate <= self.floor and any(a.setting == RATE for a in adjustments)
        tried = {canonical(iteration.settings) for iteration in self.chain}
        return rate < self.ceiling and not idle and canonical(settings) not in tried


def parent_of_next(chain: Sequence[Iteration], metric: str) -> Iteration:
    """The best iteration so far, which the next one's adjustments start from.

    Without any finite figure the last one.
    """
    sound = [i for i in chain if math.isfinite(figure(i, metric))]
    return best_of(sound, metric) if sound else chain[-1]


def gained(
    iteration: Iteration, before: Sequence[Iteration], metric: str, known: Known = NOTHING
) -> bool:
    """Whether it beats the best before it by more than noise; eval loss decides equal figures."""
    best = parent_of_next(before, metric)
    new, old = figure(iteration, metric), figure(best, metric)
    if new == old:
        metric = "eval_loss"
        new, old = figure(iteration, metric), figure(best, metric)
    return better_beyond_noise(metric, new, old, known.noise)


def figure(iteration: Iteration, metric: str) -> float:
    """Its figure of a metric; NaN where it has none."""
    return iteration.metrics.get(metric, math.nan)


def has(iteration: Iteration, kinds: Iterable[str]) -> bool:
    """Whether it has a finding of one of the kinds."""
    return any(finding.kind in kinds for finding in iteration.findings)


def value_of(iteration: Iteration, setting: str) -> Any:
    """Its value of a setting, or the libraries' default."""
    value = iteration.settings.get(setting)
    return DEFAULTS.get(setting) if value is None else _number(setting, value)


def _number(setting: str, value: Any) -> Any:
    """A setting's value; a quoted number, as trl and peft take it, as the number that it is."""
    if not isinstance(value, str) or setting not in DEFAULTS:
        return value
    try:
        number = float(value)
    except ValueError:
        return value  # peft and trl say what they want instead
    is_whole = number.is_integer() and not isinstance(DEFAULTS[setting], float)
    return int(number) if is_whole else number


def usual_rate(width: int) -> float:
    """5e-4 at a width of 2,000, higher for narrower models by the power 0.78; 0 for no width.

    Fitted to Llama models by the authors of "LoRA Without Regret" (Schulman et al., 2025), who saw
    ten times the best rate of full fine-tuning. For Qwen models their fit hardly depends on the
    width (a power of 0.08), which is within 3 times of this from 420 to 9,500 wide. The
    embedded model, 128 wide, did best at 4e-3 to 1.6e-2 in the grids of benchmarks/policy.py, where
    the formula says 4.3e-3. A direction to go in, not a value to trust: the curves come first.
    """
    return min(USUAL * (2000 / width) ** 0.78, RATES[1]) if width > 0 else 0.0


def steps_of(iteration: Iteration) -> int:
    """How many steps it was planned for."""
    return int(iteration.facts.get("planned_steps", 0))


def rate_of(iteration: Iteration) -> float:
    """Its learning rate."""
    return float(value_of(iteration, RATE))


def rank_key(iteration: Iteration, metric: str) -> tuple[float, float]:
    """Its figure and its eval loss, both as lower is better, NaN last."""
    sign = 1 if METRICS[split_name(metric)[0]].better == "lower" else -1
    figures = (sign * figure(iteration, metric), figure(iteration, "eval_loss"))
    return tuple(math.inf if math.isnan(f) else f for f in figures)  # type: ignore[return-value]


def canonical(settings: Settings, without: Iterable[str] = ()) -> str:
    """The settings as one string, defaults filled in: stated or not, they are the same."""
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
    """What iterations share that differ in the learning rate (and its warmup) alone."""
    return canonical(iteration.settings, without=(RATE, WARMUP))


def times(number: int, noun: str) -> str:
    """`1 iteration`, `2 iterations`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
