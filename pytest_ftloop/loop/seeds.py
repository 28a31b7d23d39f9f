"""More seeds of an iteration: the same settings trained again, to know what the seed alone does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.metrics import best_metrics
from pytest_ftloop.core.progress import Progress
from pytest_ftloop.core.records import Iteration, SeedRole, SeedRun, Settings, seed_of
from pytest_ftloop.core.runs import Measured, decisive, in_environment, runs_of
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.kept import Store

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.loop.backend import Runner
    from pytest_ftloop.loop.inputs import Inputs

CALIBRATION_SEEDS = 5
"""Runs of one iteration that `ftloop calibrate` sees to: 4 degrees of freedom of the seed noise."""


@dataclass(frozen=True)
class SeedTrainer:
    """Trains an iteration of a loop with other seeds, and logs each run when it is done.

    `locked` holds the log's lock, so that of several processes one trains a seed and the others
    find it. `runner` is asked for only when something has to be trained: what `store` has is
    restored.
    """

    config: LoopConfig
    inputs: Inputs
    log: ImprovementLog
    runner: Callable[[], Runner]
    progress: Progress
    locked: Callable[[], AbstractContextManager[Path]]
    store: Store = field(default_factory=Store)

    def train(self, iteration: Iteration, wanted: int, role: SeedRole) -> tuple[SeedRun, ...]:
        """Train the seeds after the iteration's own until there are `wanted` runs in all.

        Where this is another environment than the iteration's, it ends after the first: such runs
        can't stand beside the iteration.
        """
        seeds = {run.seed for run in runs_here(self.log, iteration)}
        trained: list[SeedRun] = []
        seed = iteration.seed
        while len(seeds) < wanted:
            seed += 1
            if seed not in seeds:
                run = self._run(iteration, seed, role)
                trained.append(run)
                seeds.add(seed)
                if not in_environment([run], iteration.environment):
                    break
        return tuple(trained)

    def _run(self, iteration: Iteration, seed: int, role: SeedRole) -> SeedRun:
        settings = with_seed(iteration.settings, seed)
        fingerprint = self.inputs.fingerprint(self.config, settings)
        with self.locked():
            for run in self.log.view.seed_runs():
                alike = decisive(run.environment) == decisive(iteration.environment)
                if run.fingerprint == fingerprint and alike:
                    return run
            try:
                kept = self.store.seed_run(fingerprint, settings, iteration, seed)
                if kept:
                    return self.log.append_seed_run(replace(kept, role=role))
                return self._trained(iteration, settings, fingerprint, role)
            finally:
                self.progress.done()

    def _trained(
        self, iteration: Iteration, settings: Settings, fingerprint: str, role: SeedRole
    ) -> SeedRun:
        """The run with these settings, trained and logged; then kept, where that is asked for."""
        seed = seed_of(settings)
        named = f"{self.config.name} seed {seed}"
        runner = self.runner()
        self.progress.iteration(named, iteration.number, iteration.number)
        run = runner(
            settings,
            None,
            iteration.base.get("eval_loss"),
            name=f"{iteration.name}-seed-{seed}",
        )
        written = self.log.append_seed_run(
            SeedRun(
                loop=iteration.loop,
                iteration=iteration.id,
                seed=seed,
                role=role,
                fingerprint=fingerprint,
                group=self.inputs.group(self.config, settings),
                scoring=iteration.scoring,
                data=iteration.data,
                metrics=best_metrics(run.evaluation),
                environment=run.environment,
                cost=run.cost,
                examples=run.evaluation.examples,
            )
        )
        self.store.keep(written, self.log)
        return written


def runs_here(log: ImprovementLog, iteration: Iteration) -> tuple[Measured, ...]:
    """The runs of an iteration in its own environment, itself among them."""
    return in_environment(runs_of(iteration, (), log.view.seed_runs()), iteration.environment)


def with_seed(settings: Settings, seed: int) -> Settings:
    """The same settings with another seed. A `data_seed` that is stated stays: it was fixed."""
    return replace(settings, training={**settings.training, "seed": seed})
