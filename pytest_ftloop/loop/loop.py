"""A loop: turn the cycle until it stops, then judge the best iteration.

`cycle.turn` makes one iteration. Iterations in the log are up to date and not trained again, so an
unchanged loop never imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.config.gates import DEFAULT_REGRESSION, Regression, implied_metric
from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.core.cache import adapter_at_hand, records_folder, sweep_cache
from pytest_ftloop.core.chain import best_of, chosen_by
from pytest_ftloop.core.errors import ConfigError, system_errors_told
from pytest_ftloop.core.progress import Progress, Silent, until_done
from pytest_ftloop.core.records import ID_LENGTH, Adjustment, Iteration
from pytest_ftloop.core.untrained import shown_base
from pytest_ftloop.diagnose.custom import Diagnose
from pytest_ftloop.evaluate.scored import UserScorer
from pytest_ftloop.gate.lift import LiftTests
from pytest_ftloop.log import FOLDER, ImprovementLog
from pytest_ftloop.log.aside import aside_of
from pytest_ftloop.log.kept import Store
from pytest_ftloop.log.leftovers import has_leftovers
from pytest_ftloop.loop import backend as backends
from pytest_ftloop.loop.acceptance import Acceptance
from pytest_ftloop.loop.ahead import AheadBackend, why_not_ahead, why_not_sent
from pytest_ftloop.loop.backend import BackendFactory, check_one_process
from pytest_ftloop.loop.contradictions import check_chain, check_set_metrics
from pytest_ftloop.loop.course import Course, turn_until_it_stops, upcoming
from pytest_ftloop.loop.cycle import Cycle
from pytest_ftloop.loop.engines import Engine, ExecutorHook, engine_of
from pytest_ftloop.loop.hold import held
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.judging import recall
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.planner import Planner
from pytest_ftloop.loop.pool import Prospect, Workers
from pytest_ftloop.loop.processes import Processes
from pytest_ftloop.loop.reading import read_inputs
from pytest_ftloop.loop.remote import RemoteBackend, ended_after
from pytest_ftloop.loop.result import LoopResult
from pytest_ftloop.loop.seeds import runs_here
from pytest_ftloop.loop.shares import number_of_workers
from pytest_ftloop.loop.stale import stale_error
from pytest_ftloop.loop.untrained import needs_base
from pytest_ftloop.loop.warm_start import warm_started

if TYPE_CHECKING:
    from pytest_ftloop.adjust.function import Adjust
    from pytest_ftloop.loop.backend import Backend
    from pytest_ftloop.loop.executor import ExecutorFactory
    from pytest_ftloop.loop.pool import Hold


@dataclass(frozen=True)
class Outlook:
    """What comes after the chain: `adjustments` to the settings of the iteration `parent`.

    Without adjustments `because` is the reason. If `is_planned`, the next run trains them; if not,
    the loop has stopped, and they are what it would try if it continued.
    """

    chain: tuple[Iteration, ...]
    parent: Iteration
    adjustments: tuple[Adjustment, ...]
    because: str = ""
    is_planned: bool = False


@dataclass
class Loop:
    """One loop, ready to `run`, `judge`, `calibrate` or show its `outlook`.

    It has more than ten methods: those four, and the parts that they share. `hook` is the scorer
    that a user implements as a pytest hook; `adjust_hook` and `diagnose_hook` are the other hooks.
    `backend` makes the backend, by default the one that trains in this process. If it only `reads`,
    none of the user's code is imported: it replays the log, or shows the outlook. `executor` runs
    the workers of `loop.parallel` on this machine, `executor_hook` finds what runs them elsewhere.
    `workers` are shared with the other loops of a run.
    """

    config: LoopConfig
    options: Options = field(default_factory=Options)
    progress: Progress = field(default_factory=Silent)
    hook: UserScorer | None = None
    backend: BackendFactory | None = None
    adjust_hook: Adjust | None = None
    diagnose_hook: Diagnose | None = None
    reads: bool = False
    executor: ExecutorFactory = Processes
    executor_hook: ExecutorHook | None = None
    workers: Workers = field(default_factory=Workers)
    _cycle_begun: Cycle | None = field(default=None, init=False, repr=False)

    @system_errors_told()
    def run(self) -> LoopResult:
        """Train what the log lacks, also of the loop's seeds. Returns the chain and its best.

        One process trains a loop at a time; the others wait, and then find it up to date. In a
        replay nothing is trained: `StaleLogError` names what is missing.
        """
        with self._at_work():
            cycle = self._cycle_begun = self._cycle()
            course = self._bring_up_to_date(cycle)
            best = self._best(cycle, course)
            self._acceptance(cycle).complete_seeds(best)
            if needs_base(self.config) and not self.options.replay:
                with self._locked(cycle.improvement_log):
                    cycle.base_keeper.measure_missing(best, cycle.progress)
            return self._result(cycle, course, best)

    @system_errors_told()
    def judge(self, result: LoopResult, rules: Sequence[Regression] = ()) -> LoopResult:
        """Add a verdict to the result of `run` for each of these regression gates.

        Without `rules` it uses the loop's own regression gates, or the default one if there are
        none. If the comparison is in doubt, it trains more seeds. It logs the verdict on the whole
        eval set, and measures an accepted iteration on the holdout. In a replay it only compares.
        """
        cycle = self._cycle_begun = self._cycle_begun or self._cycle()
        own = (*(result.regressions or (DEFAULT_REGRESSION,)), *result.forgetting)
        rules = tuple(rules) or own
        with self._at_work():
            judged = self._acceptance(cycle).judge(result, rules)
        return replace(judged, notes=tuple(cycle.store.notes))

    def compare_gates(self, result: LoopResult) -> LoopResult:
        """Add to the result of `run` how the gates have changed; `judge` does so too."""
        cycle = self._cycle_begun = self._cycle_begun or self._cycle()
        return self._acceptance(cycle).compare_gates(result)

    def calibrate(self, seeds: int) -> LoopResult:
        """Train what the log lacks, then the best iteration until it has `seeds` runs."""
        with self._at_work():
            cycle = self._cycle_begun = self._cycle()
            course = self._bring_up_to_date(cycle)
            best = self._best(cycle, course)
            self._acceptance(cycle).train_seeds(best, seeds, "calibration")
            return self._result(cycle, course, best)

    def outlook(self) -> Outlook:
        """What comes next, according to the log. Trains nothing.

        Raises a `StaleLogError` where the log has no chain.
        """
        cycle, logged = self._cycle(trains=False), self.log.read()
        planner = cycle.planner
        chain, plan = planner.walk(logged)
        if not chain:
            raise stale_error(cycle.config, cycle.inputs, logged)
        decision = chain[-1].decision
        if plan is not None and plan.parent is not None:
            return Outlook(chain, plan.parent, plan.adjustments, decision.because, is_planned=True)
        # The loop has stopped. Its decision lists what it would try; after a fault, nothing.
        if decision.next or decision.kind == "fault":
            parent = planner.parent(decision, chain)
            return Outlook(chain, parent, decision.next, decision.because)
        if self.reads and ":" in str(self.config.loop.policy):
            why = (
                f"{decision.because} What the function {self.config.loop.policy} says is not asked."
            )
            return Outlook(chain, planner.parent(decision, chain), (), why.strip())
        # A stop without adjustments: ask the policy, which may have changed since.
        known = planner.known(chain, logged)
        proposal = planner.policy.propose(chain, self.config.metric_of(chain), known)
        because = proposal.because or decision.because
        return Outlook(chain, proposal.parent, proposal.adjustments, because)

    @system_errors_told()
    def upcoming(self, hold: Hold, seeds: int = 1) -> Prospect | None:
        """What the loop will train first in its turn, for workers that are idle before it.

        That is of `run`, or of `calibrate` with so many `seeds`. None if nothing, as far as that is
        known without the user's code; or if another process trains it. Nothing is written; `hold`
        is asked for the log's lock, which is held until then.
        """
        cycle, log = self._cycle(), self.log
        logged = log.read()
        if self.options.replay or (logged and cycle.planner.asks_user):
            return None
        chain, plan = cycle.planner.walk(logged)
        check_chain(chain, cycle.config, cycle.inputs, log)
        seeds = max(seeds, self.config.loop.seeds)
        if plan is None and not self.options.retrain and not self._lacks(cycle, chain, seeds):
            return None
        if not isinstance(cycle.backend, AheadBackend) or not cycle.backend.shares:
            return Prospect()
        log.view.check()
        if (lock := hold(log.folder)) is None:
            return None
        retrained = self.options.retrain and self._is_retrained(_retrained_note(lock, cycle))
        afresh = self.options.retrain and not retrained
        trainings = upcoming(cycle, afresh=afresh)
        chain, plan = cycle.planner.walk(log.read())
        if plan is None and not afresh and self._lacks(cycle, chain, seeds):
            best = self._best(cycle, Course(chain))
            trainings = self._acceptance(cycle).upcoming_seeds(best, seeds)
        return cycle.backend.prospect(trainings)

    def _lacks(self, cycle: Cycle, chain: tuple[Iteration, ...], seeds: int) -> bool:
        """Whether the best of a complete chain has fewer runs than wanted."""
        log = cycle.improvement_log
        return seeds > 1 and len(runs_here(log, self._best(cycle, Course(chain)))) < seeds

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Show progress until the block ends; then nothing of the loop runs elsewhere either."""

        def backend() -> Backend | None:
            return self._cycle_begun.backend if self._cycle_begun else None

        turn = self.workers.turn_of(self.log.folder)
        with until_done(self.progress), turn, ended_after(backend):
            yield

    @property
    def log_folder(self) -> Path:
        """The folder with the logs of this loop and of its neighbours, one folder per loop."""
        return self.options.log_folder or self.config.folder / FOLDER

    @cached_property
    def log(self) -> ImprovementLog:
        """The log of this loop. Made once, so that each of its files is read once."""
        return ImprovementLog(self.log_folder / self.config.name)

    def _cycle(self, *, trains: bool = True) -> Cycle:
        """Load and check the data, and put together what every turn needs."""
        trains = trains and not self.options.replay
        log = self.log
        inputs = read_inputs(self.config, log) if self.reads else Inputs.of(self.config, self.hook)
        if not trains:
            inputs = inputs.with_logged_model(self.config, log.read())
        config, inputs = warm_started(self.config, inputs, log)
        recall(inputs, log, self.progress)
        notes = list(inputs.notes)
        backend = self._backend(config, inputs, notes) if trains else self._local(config, inputs)
        # A replay judges what is logged. In CI one iteration is trained, with the loop file's own
        # settings, unless N is given.
        may_explore = self.options.explore or self.options.iterations is not None
        explores = may_explore and not self.options.replay
        limit = self.options.iterations if explores else 1
        store = Store(records_folder(), backend.environment, restores=not self.options.retrain)
        store.notes.extend(notes)
        return Cycle(
            config=config,
            inputs=inputs,
            improvement_log=log,
            planner=Planner(config, inputs, log, self.adjust_hook, limit, explores),
            backend=backend,
            store=store,
            progress=self.progress,
            user_diagnosis=self.diagnose_hook,
        )

    def _local(self, config: LoopConfig, inputs: Inputs) -> Backend:
        return (self.backend or backends.local)(config, inputs, self.progress)

    def _backend(self, config: LoopConfig, inputs: Inputs, notes: list[str]) -> Backend:
        """What trains: here or elsewhere, and if several are to at once, ahead in workers."""
        stated = self.options.parallel or config.loop.parallel
        if (engine := engine_of(config, self.executor_hook)) is not None:
            here: Backend = self._remote(config, inputs, engine)
            make, room, why = engine.make, engine.room, ""
        else:
            here = self._local(config, inputs)
            make, room = self.executor, partial(number_of_workers, "auto")
            why = why_not_ahead(config, inputs)
        if stated == 1 or (engine is None and number_of_workers(stated) == 1):
            return here
        if why:
            notes.append(f"one training at a time, not {stated}: {why}")
            return here
        return AheadBackend(
            config,
            inputs,
            self.progress,
            here,
            make,
            room if stated == "auto" else partial(int, stated),
            self.log.folder,
            afresh=self.options.retrain,
            workers=self.workers if engine is None else None,
        )

    def _remote(self, config: LoopConfig, inputs: Inputs, engine: Engine) -> RemoteBackend:
        if why := why_not_sent(config, inputs):
            raise ConfigError(
                f"loop.run_on: this loop can't be trained elsewhere: {why}",
                where=config.locate("loop.run_on"),
                cure="Leave out loop.run_on: it trains on this machine then.",
            )
        afresh = self.options.retrain
        return RemoteBackend(
            config, inputs, self.progress, engine.make, self.log.folder, afresh=afresh
        )

    def _acceptance(self, cycle: Cycle) -> Acceptance:
        return Acceptance(self.options, cycle, lambda: self._locked(cycle.improvement_log))

    def _bring_up_to_date(self, cycle: Cycle) -> Course:
        """Train what the log lacks of the loop's chain, and return the chain."""
        log = cycle.improvement_log
        if not self.options.retrain:
            if not self.options.replay:
                self._tidy(log)
            # Look without the lock first: most runs find nothing to do, and need not wait for it.
            chain, plan = cycle.planner.walk(log.read())
            check_chain(chain, cycle.config, cycle.inputs, log)
            if plan is None:
                return Course(chain)
            if self.options.replay:
                prospect = cycle.again.prospect(plan.settings)
                raise stale_error(cycle.config, cycle.inputs, log.read(), prospect)
        check_one_process()
        log.check_writable()
        log.view.check()  # judging needs every record: a damaged one is told before the training
        with self._locked(log) as lock:
            # Several xdist workers may ask to retrain: the first of this pytest run leaves a note.
            note = _retrained_note(lock, cycle)
            retrained = self.options.retrain and self._is_retrained(note)
            try:
                done = turn_until_it_stops(cycle, afresh=self.options.retrain and not retrained)
            finally:
                self.progress.done()
            if self.options.retrain:
                note.write_text(self.options.run_id, encoding="utf-8")
            return done

    def _best(self, cycle: Cycle, course: Course) -> Iteration:
        """The best iteration, sound: a damaged one is an error before its seeds are trained."""
        log, config = cycle.improvement_log, self.config
        best = best_of(course.chain, config.metric_of(course.chain))
        # Only the best is judged, and verifying 200 example tables would take seconds.
        log.verify(best)
        check_set_metrics(best, cycle.inputs, log)
        base = shown_base(log.view.bases(), best)
        if base is not None and needs_base(config):
            log.verify(base)  # a worse base, written by hand, would let any training gain
        return best

    def _result(self, cycle: Cycle, course: Course, best: Iteration) -> LoopResult:
        log, config = cycle.improvement_log, self.config
        base = shown_base(log.view.bases(), best)
        cycle.store.notes.extend(log.exposed())
        planner = cycle.planner
        is_finished = planner.explores and not planner.goes_on(course.chain)
        if is_finished and course.chain[-1].decision.next:
            cycle.store.notes.append(
                "the loop is finished: its file has the settings of iteration "
                f"{course.chain[0].name}, which it found; --ftloop-iterations N continues from "
                "there"
            )
        asked = implied_metric(config.gates)
        if config.loop.metric is None and asked != (by := chosen_by(course.chain[-1])):
            cycle.store.notes.append(
                f"the best iteration is chosen by {by}, as the chain in the log was; the gates now "
                f"ask for {asked}, and loop: {{metric: {asked}}} chooses by it"
            )
        of_base = log.files(base) if base is not None else ()
        return LoopResult(
            loop=config.name,
            source=config.source,
            chain=course.chain,
            best=best,
            gates=LiftTests.of(log.view).check(config.gates, best),
            trained=course.trained,
            restored=course.restored,
            evaluated=course.evaluated,
            notes=tuple(cycle.store.notes),
            is_finished=is_finished,
            metric=config.metric_of(course.chain),
            log_folder=log.folder,
            files=(*(path for i in course.chain for path in log.files(i)), *of_base),
            base=base,
            examples={e.id: e for e in cycle.inputs.eval.examples},
            adapter=adapter_at_hand(best),
            regressions=config.regressions,
            forgetting=config.forgetting,
            log=log,
        )

    def _tidy(self, log: ImprovementLog) -> None:
        """Sweep and recover what earlier runs left, also where nothing is to be trained."""
        if has_leftovers(log.view.files.names()) or not aside_of(log).view.is_empty():
            with self._locked(log):
                pass  # it is done first
        else:
            sweep_cache()

    def _is_retrained(self, note: Path) -> bool:
        """Whether a process of this pytest run has retrained this loop already."""
        return bool(self.options.run_id) and (
            note.is_file() and note.read_text(encoding="utf-8") == self.options.run_id
        )

    def _locked(self, log: ImprovementLog) -> AbstractContextManager[Path]:
        """A context that holds the log's lock, and gives the lock's file."""

        def waits() -> None:
            # Two processes could otherwise wait for what the other has begun beforehand.
            self.workers.let_go()
            self.progress.working(f"{self.config.name}: waiting for another process")

        return held(log, waits, self.workers.lock_of(log.folder))


def _retrained_note(lock: Path, cycle: Cycle) -> Path:
    """The file beside the lock that holds the id of the pytest run that last retrained the loop."""
    start = cycle.inputs.fingerprint(cycle.config, cycle.config.settings)
    return lock.with_name(f"{lock.name}.{start[:ID_LENGTH]}.retrained")
