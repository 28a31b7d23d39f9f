"""Optuna as the policy: any of its samplers, given the whole chain before each suggestion."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_ftloop.adjust.policy import Proposal, changes
from pytest_ftloop.adjust.state import NOTHING, Known, State, figure, value_of
from pytest_ftloop.core.errors import ConfigError, Location, did_you_mean
from pytest_ftloop.core.metrics import metric_of
from pytest_ftloop.core.records import Iteration

if TYPE_CHECKING:
    from types import ModuleType

ASKED_AT_MOST = 100
"""Suggestions that are rejected in a row before the search ends. Each takes milliseconds, and a
sampler that repeats itself so often has nothing new."""


@dataclass(frozen=True)
class Dimension:
    """A setting's range (`low` to `high`, whole numbers where both are), or its `choices`."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def holds(self, value: Any) -> bool:
        """Whether a value is in it."""
        if self.choices:
            return value in self.choices
        assert self.low is not None
        assert self.high is not None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and not (self.is_whole and value != int(value))

    @property
    def is_whole(self) -> bool:
        """Whether it contains whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def as_written(self, value: Any) -> Any:
        """A value rounded to three digits, and still in the range."""
        if self.choices or not isinstance(value, float):
            return value
        assert self.low is not None
        assert self.high is not None
        return min(max(float(f"{value:.3g}"), self.low), self.high)


@dataclass(frozen=True)
class Sampler:
    """Suggestions of an Optuna sampler over `space`, on top of the loop file's own settings.

    Each suggestion comes from a new study with every iteration of the chain, so that it depends on
    the log only. A suggestion that the findings rule out (a learning rate that diverged, settings
    that were tried) is rejected, and pruned in the study.
    """

    name: str
    space: Mapping[str, Dimension]
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    where: Location | None = None
    exhaustive: bool = True

    def __post_init__(self) -> None:
        # Find mistakes before anything is trained: some samplers raise at the first suggestion,
        # some (for a missing library) only when the study has a trial.
        optuna = _optuna(self.where)
        with self._guarded(optuna):
            study = optuna.create_study(sampler=self._sampler(optuna, 0))
            first = study.ask(self._distributions(optuna))
            study.add_trial(
                optuna.trial.create_trial(
                    params=first.params, distributions=first.distributions, value=0.0
                )
            )
            study.ask(self._distributions(optuna))

    def propose(self, chain: Sequence[Iteration], metric: str, known: Known = NOTHING) -> Proposal:
        """The first suggestion that is new and not known to fail."""
        optuna, first = _optuna(self.where), chain[0]
        state = State(tuple(chain), first, metric, known)
        with self._guarded(optuna):
            study = self._study(optuna, chain, metric)
            for _ in range(ASKED_AT_MOST):
                trial = study.ask(self._distributions(optuna))
                wanted = {n: self.space[n].as_written(value) for n, value in trial.params.items()}
                made = changes(first, wanted, f"suggested by {self.name}")
                if made and state.allows(made):
                    return Proposal(first, made)
                if not _told_as_pruned(optuna, study, trial):
                    break
        return Proposal(first, (), f"{self.name} has no suggestion that is new and may work.")

    @contextmanager
    def _guarded(self, optuna: ModuleType) -> Iterator[None]:
        """Run a sampler without its log output; whatever it raises becomes a `ConfigError`."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                yield
        except ConfigError:
            raise
        except ImportError as error:
            raise ConfigError(
                f"loop.policy.sampler: {self.name} needs {error.name or error}",
                where=self.where,
                cure=f"pip install {error.name}" if error.name else "",
            ) from None
        except Exception as error:  # samplers of many authors raise many kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(
                f"loop.policy: optuna's {self.name} failed: {reason}",
                where=self.where,
                cure="Its options are those of optuna.samplers; it must be able to sample the "
                "range of each setting.",
            ) from error

    def _distributions(self, optuna: ModuleType) -> dict[str, Any]:
        return {name: _distribution(optuna, d) for name, d in self.space.items()}

    def _study(self, optuna: ModuleType, chain: Sequence[Iteration], metric: str) -> Any:
        direction = metric_of(metric).better
        study = optuna.create_study(
            direction="minimize" if direction == "lower" else "maximize",
            sampler=self._sampler(optuna, len(chain)),
        )
        finite = [v for i in chain if math.isfinite(v := figure(i, metric))]
        worst = (max if direction == "lower" else min)(finite, default=0.0)
        for iteration in chain:
            params = {name: value_of(iteration, name) for name in self.space}
            if not all(self.space[name].holds(value) for name, value in params.items()):
                continue
            params = {n: int(v) if self.space[n].is_whole else v for n, v in params.items()}
            value = figure(iteration, metric)
            study.add_trial(
                optuna.trial.create_trial(
                    params=params,
                    distributions={n: _distribution(optuna, self.space[n]) for n in params},
                    value=value if math.isfinite(value) else worst,
                )
            )
        return study

    def _sampler(self, optuna: ModuleType, asked: int) -> Any:
        kind = getattr(optuna.samplers, self.name, None)
        names = [name for name in dir(optuna.samplers) if name.endswith("Sampler")]
        if kind is None or self.name not in names:
            raise ConfigError(
                f"loop.policy.sampler: optuna has no {self.name!r}",
                where=self.where,
                cure=did_you_mean(self.name, names),
            )
        # A different seed each time: a new study would otherwise repeat its first suggestion.
        seeded = {"seed": self.seed + asked} if _takes_a_seed(kind) else {}
        return kind(**{**seeded, **self.options})


def _optuna(where: Location | None) -> ModuleType:
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "loop.policy.sampler needs optuna, which is not installed",
            where=where,
            cure='pip install "pytest-ftloop[optuna]"',
        ) from None
    module: ModuleType = optuna
    return module


def _distribution(optuna: ModuleType, dimension: Dimension) -> Any:
    if dimension.choices:
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    low, high = dimension.low, dimension.high
    if dimension.is_whole:
        return optuna.distributions.IntDistribution(low, high, log=dimension.log)
    return optuna.distributions.FloatDistribution(low, high, log=dimension.log)


def _told_as_pruned(optuna: ModuleType, study: Any, trial: Any) -> bool:
    """Tell the study that a suggestion was rejected; False if it has no other (a grid)."""
    try:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except RuntimeError as error:
        if "Study.stop" not in str(error):
            raise
        return False
    return True


def _takes_a_seed(sampler: Any) -> bool:
    return "seed" in inspect.signature(sampler).parameters
