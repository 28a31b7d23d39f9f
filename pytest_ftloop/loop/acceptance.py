"""Judge the best iteration of a loop: train its seeds, compare it, measure it on the holdout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.config.sources import sources_in
from pytest_ftloop.core.cache import adapter_at_hand
from pytest_ftloop.core.errors import FtloopError, StaleLogError
from pytest_ftloop.core.metrics import eval_metrics
from pytest_ftloop.core.records import HoldoutUse, Iteration, SeedRole
from pytest_ftloop.data import examples as data
from pytest_ftloop.evaluate.set_metrics import load_set_metrics
from pytest_ftloop.gate.baseline import Baseline, Sought
from pytest_ftloop.gate.comparison import Comparison, is_accepted
from pytest_ftloop.gate.gate_changes import GateChanges, gate_changes
from pytest_ftloop.gate.search import find_baseline
from pytest_ftloop.log import FOLDER, ImprovementLog
from pytest_ftloop.loop.base_version import with_base_version
from pytest_ftloop.loop.changed_data import data_changes
from pytest_ftloop.loop.commands import with_paths
from pytest_ftloop.loop.inputs import check_forms, data_facts
from pytest_ftloop.loop.judging import judge_text, without_words
from pytest_ftloop.loop.retrain import retrain_baseline, train_unlogged
from pytest_ftloop.loop.seeds import SeedTrainer, runs_here
from pytest_ftloop.loop.unquoted import holdout_unquoted

if TYPE_CHECKING:
    from pytest_ftloop.config.gates import Regression
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.data_changes import DataChange
    from pytest_ftloop.core.records import DataSet
    from pytest_ftloop.core.set_metrics import SetMetric
    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.loop.ahead import Ahead
    from pytest_ftloop.loop.cycle import Cycle
    from pytest_ftloop.loop.options import Options
    from pytest_ftloop.loop.result import LoopResult


@dataclass(frozen=True)
class Acceptance:
    """Judges the best iteration of a loop, and trains and logs what that needs.

    `locked` opens a context that holds the log's lock. In a replay nothing is trained or written.
    """

    options: Options
    cycle: Cycle
    locked: Callable[[], AbstractContextManager[Path]]

    def complete_seeds(self, best: Iteration) -> None:
        """Train the best iteration with as many seeds as the loop file sets.

        Raises `StaleLogError` in a replay if runs are missing.
        """
        config, log = self.cycle.config, self.cycle.improvement_log
        wanted = config.loop.seeds
        found = len(runs_here(log, best)) if wanted > 1 else 1
        if found >= wanted:
            return
        if self.options.replay:
            raise StaleLogError(
                f"the improvement log of {config.name} is incomplete: iteration {best.name} "
                f"has {found} of {wanted} seeds",
                where=config.locate("loop.seeds"),
                cure=f"Run pytest --ftloop and commit {FOLDER}/.",
            )
        self.train_seeds(best, wanted, "gate")

    def train_seeds(self, best: Iteration, wanted: int, role: SeedRole) -> None:
        """Train the iteration until it has `wanted` runs."""
        self.cycle.improvement_log.check_writable()
        self._seeds().train(best, wanted, role)

    def upcoming_seeds(self, best: Iteration, wanted: int) -> list[Ahead]:
        """The trainings that `train_seeds` would begin."""
        return self._seeds().upcoming(best, wanted)

    def judge(self, result: LoopResult, rules: Sequence[Regression]) -> LoopResult:
        """Add to the result the verdicts of these gates, the baseline and the holdout's report."""
        comparison = self._comparison(result.best)
        verdicts = dict(result.verdicts)
        holdout = result.holdout
        for rule in rules:
            verdict = comparison.verdict(rule)
            if rule.tag is None:
                self._keep(comparison, verdict)
                holdout = comparison.holdout(verdict)
            verdicts[rule] = with_paths(verdict, result)
        changes = result.gate_changes
        if changes is None:
            changes = gate_changes(self.cycle.config, result.best, comparison.baseline)
        return replace(
            result,
            verdicts=tuple(verdicts.items()),
            baseline=comparison.baseline.iteration,
            standard=comparison.baseline,
            holdout=holdout,
            gate_changes=changes,
            data_changes=self._data_changes(comparison.baseline),
        )

    def _data_changes(self, baseline: Baseline) -> tuple[DataChange, ...]:
        """How the data sets differ from the baseline's; nothing is read if they are the same."""
        before, cycle = baseline.iteration, self.cycle
        if before is None:
            return ()
        return data_changes(cycle.config, cycle.inputs, before, baseline.commit)

    def compare_gates(self, result: LoopResult) -> LoopResult:
        """Add to the result how the gates have changed, and nothing else.

        It is for a loop that nothing compares with its committed version. So an error there (a
        shallow clone, a damaged log) is no error here: it is the reason why this is not known.
        """
        try:
            baseline = self._comparison(result.best).baseline
            found = gate_changes(self.cycle.config, result.best, baseline)
        except FtloopError as error:
            found = GateChanges(unknown=error.message)
        return replace(result, gate_changes=found)

    def _keep(self, comparison: Comparison, verdict: Verdict) -> None:
        """Log the verdict on the whole eval set; if it accepts the iteration, open the holdout."""
        if not self.options.replay:
            comparison.keep(verdict)
            self._open_holdout(comparison.candidate)

    def _comparison(self, best: Iteration) -> Comparison:
        log = self.cycle.improvement_log
        baseline = self._baseline(best)
        if self.options.retrain_baseline and baseline.unlogged and not self.options.replay:
            self._train_unlogged(baseline, best)
            baseline = self._baseline(best)
        if self.options.retrain_baseline:
            baseline = baseline.of_newest()
        # A candidate that is committed already was judged when it was trained.
        trains = not self.options.replay and not baseline.is_review
        return Comparison(
            log,
            best,
            baseline,
            self._seeds().train if trains else None,
            self._retrain_baseline if self.options.retrain_baseline else None,
            judge_note=judge_text(best.facts),
            set_metrics=self.cycle.inputs.set_metrics,
        )

    def _baseline(self, best: Iteration) -> Baseline:
        config, log = self.cycle.config, self.cycle.improvement_log
        baseline = find_baseline(sought(config, log, best), self.options.baseline)
        return with_base_version(config, self.cycle.inputs, baseline, best, log.read())

    def _train_unlogged(self, baseline: Baseline, best: Iteration) -> None:
        """Train the version of the baseline's commit that its log lacks."""
        config, log, progress = self.cycle.config, self.cycle.improvement_log, self.cycle.progress
        log.check_writable()
        with self.locked():
            progress.working(f"{config.name}: training the version at {baseline.shown}")
            try:
                train_unlogged(config, baseline, best, log)
            finally:
                progress.done()

    def _seeds(self) -> SeedTrainer:
        return SeedTrainer(self.cycle, self.locked)

    def _retrain_baseline(self, comparison: Comparison) -> None:
        config, log, progress = self.cycle.config, self.cycle.improvement_log, self.cycle.progress
        log.check_writable()
        with self.locked():
            if comparison.baseline_runs():
                return  # another process trained it while this one waited for the lock
            progress.working(f"{config.name}: training the baseline {comparison.baseline.shown}")
            try:
                retrain_baseline(config, comparison.baseline, comparison.candidate, log)
            finally:
                progress.done()

    def _set_metrics(self, rows: DataSet) -> Mapping[str, SetMetric]:
        """The loop's metrics of the whole set, whose functions are given these rows."""
        config = self.cycle.config
        return load_set_metrics(config.metrics, rows.examples, config.folder, config.locate)

    def _open_holdout(self, best: Iteration) -> HoldoutUse | None:
        """Measure an accepted iteration on the holdout, once. None if there is nothing to measure.

        If the adapter is not in this machine's cache (it was trained elsewhere), the holdout stays
        closed.
        """
        config, view = self.cycle.config, self.cycle.improvement_log.view
        accepted = any(j.candidate == best.id and is_accepted(j) for j in view.judgements())
        opened = any(use.iteration == best.id for use in view.holdout_uses())
        adapter = adapter_at_hand(best)
        if config.holdout is None or not accepted or opened or adapter is None:
            return None
        where = config.locate("data.holdout")
        with holdout_unquoted(config):
            holdout = data.load(config.holdout, "holdout", config.folder, config.columns, where)
        check_forms(config, self.cycle.inputs.train, holdout)
        with self.locked():
            try:
                with holdout_unquoted(config), without_words(self.cycle.inputs):
                    results = self.cycle.backend.measure(best.settings, adapter, holdout)
                    metrics = eval_metrics(results, {}, self._set_metrics(holdout))
            finally:
                self.cycle.progress.done()
            return self.cycle.improvement_log.append_holdout_use(
                HoldoutUse(
                    loop=config.name,
                    iteration=best.id,
                    fingerprint=best.fingerprint,
                    scoring=best.scoring,
                    data=data_facts(holdout),
                    metrics=metrics,
                    environment=best.environment,
                    examples=results,
                )
            )


def sought(config: LoopConfig, log: ImprovementLog, candidate: Iteration) -> Sought:
    """What the baseline of a loop's iteration is found by."""
    sources = (*sources_in(config.train), config.eval)
    return Sought(
        log.folder,
        config.folder,
        log.read(),
        config.loop.metric,
        candidate,
        log.view.seed_runs(),
        tuple(
            path
            for path in (
                *((config.file,) if config.lines else ()),
                *(config.folder / source for source in sources if isinstance(source, str)),
            )
            if path.exists()
        ),
    )
