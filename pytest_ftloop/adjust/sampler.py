"""Optuna as the policy: any of its samplers, told of the whole chain before each question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_ftloop.adjust.policy import Proposal, changes
from pytest_ftloop.adjust.state import NOTHING, Known, State, figure, value_of
from pytest_ftloop.errors import ConfigError, Location, did_you_mean
from pytest_ftloop.metrics import METRICS, split_name
from pytest_ftloop.records import Iteration

if TYPE_CHECKING:
    from types import ModuleType

ASKED_AT_MOST = 100
"""Suggestions that may be turned down before the search counts as at its end."""


@dataclass(frozen=True)
class Dimension:
    """A setting's range (`low` to `high`, whole numbers where both are), or its `choices`."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def holds(self, value: Any) -> bool:
        """Whether a value lies in it."""
        if self.choices:
            return value in self.choices
        assert self.low is not None
        assert self.high is not None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high


@dataclass(frozen=True)
class Sampler:
    """Suggestions of an Optuna sampler over `space`, on top of the loop file's own settings.

    Each question starts a new study that is told of every iteration of the chain, so the answer
    depends on the log alone. What the findings rule out (a learning rate that diverged, settings
    that were tried) is turned down and told to the study as pruned.
    """

    name: str
    space: Mapping[str, Dimension]
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    where: Location | None = None
    exhaustive: bool = True

    def __post_init__(self) -> None:
        self._sampler(_optuna(self.where), 0)  # a mistake is found before anything is trained

    def propose(self, chain: Sequence[Iteration], metric: str, known: Known = NOTHING) -> Proposal:
        """The first suggestion that nothing speaks against."""
        optuna = _optuna(self.where)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        first = chain[0]
        study = self._study(optuna, chain, metric)
        state = State(tuple(chain), first, metric, known)
        distributions = {name: _distribution(optuna, d) for name, d in self.space.items()}
        for _ in range(ASKED_AT_MOST):
            trial = study.ask(distributions)
            wanted = {name: _rounded(value) for name, value in trial.params.items()}
            made = changes(first, wanted, f"as {self.name} suggests")
            if made and state.allows(made):
                return Proposal(first, made)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return Proposal(first, (), f"{self.name} suggests nothing that is new and may work.")

    def _study(self, optuna: ModuleType, chain: Sequence[Iteration], metric: str) -> Any:
        direction = METRICS[split_name(metric)[0]].better
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
        try:
            # Another seed for each question: a new study would else repeat its first suggestion.
            return kind(**{"seed": self.seed + asked, **self.options})
        except (TypeError, ValueError, ImportError) as error:
            raise ConfigError(
                f"loop.policy.options: optuna refuses them: {error}", where=self.where
            ) from None


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
    if isinstance(low, int) and isinstance(high, int):
        return optuna.distributions.IntDistribution(low, high, log=dimension.log)
    return optuna.distributions.FloatDistribution(low, high, log=dimension.log)


def _rounded(value: Any) -> Any:
    """A number as a person would write it."""
    return float(f"{value:.3g}") if isinstance(value, float) else value
