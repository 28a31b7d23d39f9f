"""What follows once a loop's best iteration is known: its seeds, its verdict, the holdout."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.cache import adapter_folder
from pytest_ftloop.core.errors import StaleLogError
from pytest_ftloop.core.metrics import best_metrics
from pytest_ftloop.core.records import Evaluation, ExampleResult, HoldoutUse, Iteration, SeedRole
from pytest_ftloop.data import examples as data
from pytest_ftloop.gate.baseline import find_baseline
from pytest_ftloop.gate.judging import Judge, Judging, is_accepted
from pytest_ftloop.log import FOLDER, ImprovementLog
from pytest_ftloop.loop.inputs import check_forms, data_facts
from pytest_ftloop.loop.retrain import retrain_baseline
from pytest_ftloop.loop.seeds import SeedTrainer, runs_here

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.log.kept import Store
    from pytest_ftloop.loop.backend import Measure, Runner
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.loop.options import Options


@dataclass(frozen=True)
class Acceptance:
    """Brings a loop's best iteration to its verdict; trains and logs what that takes.

    `runner` is asked for only where something has to be trained, `measure` is what looks at the
    holdout, `locked` holds the log's lock.
    """

    config: LoopConfig
    options: Options
    log: ImprovementLog
    inputs: Inputs
    progress: Progress
    store: Store
    runner: Callable[[], Runner]
    measure: Measure
    locked: Callable[[], AbstractContextManager[Path]]

    def complete_seeds(self, best: Iteration) -> None:
        """Train the best iteration with as many seeds as the loop asks for."""
        wanted = self.config.loop.seeds
        found = len(runs_here(self.log, best)) if wanted > 1 else 1
        if found >= wanted:
            return
        if self.options.replay:
            raise StaleLogError(
                f"the improvement log of {self.config.name} is incomplete: iteration {best.name} "
                f"has {found} of {wanted} seeds",
                where=self.config.locate("loop.seeds"),
                cure=f"Run pytest --ftloop and commit {FOLDER}/.",
            )
        self.train_seeds(best, wanted, "gate")

    def train_seeds(self, best: Iteration, wanted: int, role: SeedRole) -> None:
        """Train the iteration until it has so many runs."""
        self.log.check_writable()
        self._seeds().train(best, wanted, role)

    def _seeds(self) -> SeedTrainer:
        return SeedTrainer(
            self.config,
            self.inputs,
            self.log,
            runner=self.runner,
            progress=self.progress,
            locked=self.locked,
            store=self.store,
        )

    def judge(self, best: Iteration) -> Judge:
        """What judges the best iteration, once it is asked, and then opens the holdout."""

        def begin() -> Judging:
            metric, folder = self.config.loop.metric, self.config.folder
            stated = self.options.baseline
            baseline = find_baseline(self.log.folder, folder, self.log.read(), metric, stated)
            seeds = None if self.options.replay else self._seeds()
            retrain = self._retrain_baseline() if self.options.retrain_baseline else None
            return Judging(self.log, best, baseline, seeds, retrain)

        def after() -> None:
            self._open_holdout(best)

        return Judge(begin, after, writes=not self.options.replay)

    def _retrain_baseline(self) -> Callable[[Judging], None]:
        def retrain(judging: Judging) -> None:
            self.log.check_writable()
            said = f"{self.config.name}: training the baseline {judging.baseline.shown}"
            with self.locked():
                if judging.baseline_runs():
                    return  # another process was first
                self.progress.working(said)
                try:
                    retrain_baseline(self.config, judging.baseline, judging.candidate, self.log)
                finally:
                    self.progress.done()

        return retrain

    def _open_holdout(self, best: Iteration) -> HoldoutUse | None:
        """Measure an accepted iteration on the holdout, once; None where there is nothing to do.

        Without its adapter in the cache (it was trained elsewhere) the holdout stays closed.
        """
        accepted = any(
            j.candidate == best.id and is_accepted(j) for j in self.log.view.judgements()
        )
        opened = any(use.iteration == best.id for use in self.log.view.holdout_uses())
        adapter = adapter_folder(best.fingerprint)
        if self.config.holdout is None or not accepted or opened or not adapter.is_dir():
            return None
        config, where = self.config, self.config.locate("data.holdout")
        holdout = data.load(config.holdout, "holdout", config.folder, config.columns, where)
        check_forms(config, self.inputs.train, holdout)
        with self.locked():
            try:
                results = self.measure(
                    self.inputs, config, holdout, best.settings, adapter, self.progress
                )
            finally:
                self.progress.done()
            return self.log.append_holdout_use(
                HoldoutUse(
                    loop=config.name,
                    iteration=best.id,
                    fingerprint=best.fingerprint,
                    scoring=best.scoring,
                    data=data_facts(holdout),
                    metrics=_eval_figures(results),
                    environment=best.environment,
                    examples=results,
                )
            )


def _eval_figures(results: tuple[ExampleResult, ...]) -> dict[str, float]:
    """The metrics of examples alone: without a train set there is no gap."""
    figures = best_metrics(Evaluation(results, (), (), math.nan))
    return {name: value for name, value in figures.items() if math.isfinite(value)}
