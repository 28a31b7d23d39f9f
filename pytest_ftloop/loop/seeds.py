"""Train an iteration with more seeds, to measure how much the seed alone moves its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.cache import adapter_folder
from pytest_ftloop.core.chain import chosen_by
from pytest_ftloop.core.errors import TrainingError
from pytest_ftloop.core.metrics import best_metrics
from pytest_ftloop.core.records import Iteration, Run, SeedRole, SeedRun, Settings, seed_of
from pytest_ftloop.core.runs import Measured, decisive, in_environment, runs_of
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.aside import drop_unscored, keep_unscored, written
from pytest_ftloop.loop.ahead import Ahead, workers_of, working_ahead
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
        of another environment can't be pooled with it. If one fails whose others are trained beside
        it, those are logged before its error is raised.
        """
        seeds = self._missing(iteration, wanted)
        if not seeds:
            return ()
        try:
            with self.locked(), working_ahead(self.cycle.backend) as begin:
                begun = begin(self._to_begin(iteration, seeds))
                return self._all(iteration, seeds, role, goes_on=begun)
        finally:
            self.cycle.progress.done()

    def upcoming(self, iteration: Iteration, wanted: int) -> list[Ahead]:
        """The trainings that `train` would begin. Writes nothing."""
        return self._to_begin(iteration, self._missing(iteration, wanted))

    def _missing(self, iteration: Iteration, wanted: int) -> tuple[int, ...]:
        """The seeds that an iteration lacks until it has `wanted` runs."""
        known = {run.seed for run in runs_here(self.cycle.improvement_log, iteration)}
        later = (seed for seed in count(iteration.seed + 1) if seed not in known)
        return tuple(islice(later, max(wanted - len(known), 0)))

    def _all(
        self, iteration: Iteration, seeds: Sequence[int], role: SeedRole, *, goes_on: bool
    ) -> tuple[SeedRun, ...]:
        """The runs of these seeds. If it `goes_on`, an error of one is raised after the others."""
        trained: list[SeedRun] = []
        failed: TrainingError | None = None
        for seed in seeds:
            try:
                run = self._run(iteration, seed, role)
            except TrainingError as error:
                if not goes_on:
                    raise
                failed = failed or error
                continue
            trained.append(run)
            if not in_environment([run], iteration.environment):
                break
        if failed is not None:
            raise failed
        return tuple(trained)

    def _to_begin(self, iteration: Iteration, seeds: Sequence[int]) -> list[Ahead]:
        """The trainings for those seeds that are not known in the log, or perhaps in the store."""
        cycle = self.cycle
        if workers_of(cycle.backend) == 1:
            return []
        logged = {run.fingerprint for run in cycle.improvement_log.view.seed_runs()}
        begun = []
        for seed in seeds:
            settings = with_seed(iteration.settings, seed)
            fingerprint = cycle.inputs.fingerprint(cycle.config, settings)
            if fingerprint in logged or cycle.store.may_have(fingerprint):
                continue
            if not cycle.again.known(settings):
                begun.append(self._training(iteration, settings))
        return begun

    def _training(self, iteration: Iteration, settings: Settings) -> Ahead:
        """The training with these settings, which differ from the iteration's by the seed."""
        seed, base = seed_of(settings), iteration.base.get("eval_loss", math.nan)
        return Ahead(
            settings,
            name=f"{iteration.name}-seed-{seed}",
            adapter=adapter_folder(self.cycle.inputs.weights(settings)),
            metric=chosen_by(iteration),
            label=f"seed {seed}",
            base_eval_loss=base if math.isfinite(base) else None,
        )

    def _run(self, iteration: Iteration, seed: int, role: SeedRole) -> SeedRun:
        settings = with_seed(iteration.settings, seed)
        cycle = self.cycle
        fingerprint = cycle.inputs.fingerprint(cycle.config, settings)
        # Another process, or an earlier calibration, may have trained this seed.
        for run in cycle.improvement_log.view.seed_runs():
            alike = decisive(run.environment) == decisive(iteration.environment)
            if run.fingerprint == fingerprint and alike:
                return run
        kept = cycle.store.seed_run(fingerprint, settings, iteration, seed)
        if kept:
            cycle.take_in(kept, settings)
            return cycle.improvement_log.append_seed_run(replace(kept, role=role))
        return self._made(iteration, settings, fingerprint, role)

    def _made(
        self, iteration: Iteration, settings: Settings, fingerprint: str, role: SeedRole
    ) -> SeedRun:
        """Train these settings, or evaluate them again; log the run, and keep it in the store."""
        cycle, seed, log = self.cycle, seed_of(settings), self.cycle.improvement_log
        weights = cycle.inputs.weights(settings)
        training = self._training(iteration, settings)
        if known := cycle.again.evaluable(settings, iteration.environment):
            cycle.progress.working(f"evaluating seed {seed} again: {known.what}")
            run = cycle.again.evaluate(known, settings, training.base_eval_loss)
            run = cycle.again.scored(run)
            cycle.store.notes.append(f"seed {seed} of {iteration.name} was evaluated again")
        else:
            which = f"iteration {iteration.number}, seed {seed}"
            cycle.progress.iteration(cycle.config.name, which)
            called = f"seed {seed} of {iteration.name}"

            def keep(unscored: Run) -> None:
                keep_trained(weights, unscored, called)
                keep_unscored(log, self._record(iteration, settings, fingerprint, role, unscored))

            run = cycle.backend.train(
                settings,
                name=training.name,
                adapter=training.adapter,
                base_eval_loss=training.base_eval_loss,
                metric=training.metric,
                keep=keep,
            )
            cycle.store.notes.extend(keep_trained(weights, run, called))
        record = self._record(iteration, settings, fingerprint, role, run)
        logged = written(log, lambda log: log.append_seed_run(record), adapter_folder(weights))
        drop_unscored(log, logged)
        cycle.store.keep(logged, log)
        cycle.progress.ended(logged.metrics)
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
