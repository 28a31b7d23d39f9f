"""Train an iteration with more seeds, to measure how much the seed alone moves its figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.cache import adapter_folder
from pytest_ftloop.core.chain import chosen_by
from pytest_ftloop.core.metrics import best_metrics
from pytest_ftloop.core.records import Iteration, Run, SeedRole, SeedRun, Settings, seed_of
from pytest_ftloop.core.runs import Measured, decisive, in_environment, runs_of
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.aside import drop_unscored, keep_unscored, written
from pytest_ftloop.loop.inputs import with_limit
from pytest_ftloop.loop.trained import keep_trained

if TYPE_CHECKING:
    from pytest_ftloop.loop.cycle import Cycle

CALIBRATION_SEEDS = 5
"""Default number of runs for `ftloop calibrate`: 4 degrees of freedom for the seed noise."""


@dataclass(frozen=True)
class SeedTrainer:
    """Trains an iteration of a loop with other seeds, and logs each run.

    `locked` opens a context that holds the log's lock: of several processes one trains a seed, the
    others find its run. Runs in the cycle's store are restored instead.
    """

    cycle: Cycle
    locked: Callable[[], AbstractContextManager[Path]]

    def train(self, iteration: Iteration, wanted: int, role: SeedRole) -> tuple[SeedRun, ...]:
        """Train the seeds after the iteration's own until it has `wanted` runs, its own included.

        Returns the new runs. If this environment is not the iteration's, ends after the first: runs
        of another environment can't be pooled with it.
        """
        seeds = {run.seed for run in runs_here(self.cycle.improvement_log, iteration)}
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
        cycle = self.cycle
        fingerprint = cycle.inputs.fingerprint(cycle.config, settings)
        with self.locked():
            # Another process, or an earlier calibration, may have trained this seed.
            for run in cycle.improvement_log.view.seed_runs():
                alike = decisive(run.environment) == decisive(iteration.environment)
                if run.fingerprint == fingerprint and alike:
                    return run
            try:
                kept = cycle.store.seed_run(fingerprint, settings, iteration, seed)
                if kept:
                    return cycle.improvement_log.append_seed_run(replace(kept, role=role))
                return self._made(iteration, settings, fingerprint, role)
            finally:
                cycle.progress.done()

    def _made(
        self, iteration: Iteration, settings: Settings, fingerprint: str, role: SeedRole
    ) -> SeedRun:
        """Train these settings, or evaluate them again; log the run, and keep it in the store."""
        cycle, seed, log = self.cycle, seed_of(settings), self.cycle.improvement_log
        weights = cycle.inputs.weights(settings)
        name = f"{iteration.name}-seed-{seed}"
        base = iteration.base.get("eval_loss", math.nan)
        base_eval_loss = base if math.isfinite(base) else None
        if known := cycle.again.evaluable(settings, iteration.environment):
            cycle.progress.working(f"evaluating seed {seed} again: {known.what}")
            run = cycle.again.evaluate(known, settings, base_eval_loss)
            run = cycle.again.scored(run)
            cycle.store.notes.append(f"seed {seed} of {iteration.name} was evaluated again")
        else:
            cycle.progress.iteration(
                f"{cycle.config.name} seed {seed}", iteration.number, iteration.number
            )

            def keep(unscored: Run) -> None:
                keep_trained(weights, unscored)
                keep_unscored(log, self._record(iteration, settings, fingerprint, role, unscored))

            run = cycle.backend.train(
                settings,
                name=name,
                adapter=adapter_folder(weights),
                base_eval_loss=base_eval_loss,
                metric=chosen_by(iteration),
                keep=keep,
            )
            keep_trained(weights, run)
        record = self._record(iteration, settings, fingerprint, role, run)
        logged = written(log, lambda log: log.append_seed_run(record), adapter_folder(weights))
        drop_unscored(log, logged)
        cycle.store.keep(logged, log)
        return logged

    def _record(
        self, iteration: Iteration, settings: Settings, fingerprint: str, role: SeedRole, run: Run
    ) -> SeedRun:
        """The record of a run of these settings."""
        inputs, evaluation = self.cycle.inputs, run.evaluation
        is_scored = all(row.passed is not None for row in evaluation.examples)
        return SeedRun(
            loop=iteration.loop,
            iteration=iteration.id,
            seed=seed_of(settings),
            role=role,
            fingerprint=fingerprint,
            group=inputs.group(self.cycle.config, settings),
            weights=inputs.weights(settings),
            adapter=run.adapter,
            scoring=iteration.scoring,
            data=with_limit(iteration.data, evaluation),
            metrics=best_metrics(evaluation, inputs.set_metrics if is_scored else {}),
            environment=run.environment,
            cost=run.cost,
            examples=evaluation.examples,
            guards=evaluation.guards,
        )


def runs_here(log: ImprovementLog, iteration: Iteration) -> tuple[Measured, ...]:
    """The runs of an iteration in its own environment, the iteration itself included."""
    return in_environment(runs_of(iteration, (), log.view.seed_runs()), iteration.environment)


def with_seed(settings: Settings, seed: int) -> Settings:
    """The same settings with another seed. A `data_seed` stays, because the user fixed it."""
    return replace(settings, training={**settings.training, "seed": seed})
