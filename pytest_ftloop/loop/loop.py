"""The loop: train -> evaluate -> diagnose -> adjust -> log, until it is decided to stop.

What is in the log already is up to date and not trained again; torch is imported only when
something has to be trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop import adjust
from pytest_ftloop.adjust.choose import policy_of
from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.core.cache import adapter_folder, records_folder
from pytest_ftloop.core.chain import best_of, chain_from, next_number
from pytest_ftloop.core.errors import ConfigError, StaleLogError
from pytest_ftloop.core.metrics import best_metrics, final_metrics
from pytest_ftloop.core.noise import run_noise
from pytest_ftloop.core.progress import Progress, Silent
from pytest_ftloop.core.records import (
    ID_LENGTH,
    Adjustment,
    DataSet,
    Decision,
    Finding,
    Iteration,
    facts_of,
    name_of,
)
from pytest_ftloop.data.identity import scoring_identity
from pytest_ftloop.diagnose import before_training, by_severity, diagnose
from pytest_ftloop.diagnose.custom import Diagnose
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.evaluate.scorers import Scorer
from pytest_ftloop.gate.thresholds import judge
from pytest_ftloop.log import FOLDER, ImprovementLog, as_logged
from pytest_ftloop.log.files import locked
from pytest_ftloop.log.kept import Store
from pytest_ftloop.loop import backend as runners
from pytest_ftloop.loop.acceptance import Acceptance
from pytest_ftloop.loop.backend import Environment, Measure, Runner, RunnerFactory
from pytest_ftloop.loop.inputs import Inputs, data_facts
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.planner import PENDING, Plan, Planner
from pytest_ftloop.loop.result import LoopResult
from pytest_ftloop.train.early_end import Pace

if TYPE_CHECKING:
    from pytest_ftloop.adjust.function import Adjust
    from pytest_ftloop.adjust.policy import Policy
    from pytest_ftloop.core.records import Run


@dataclass(frozen=True)
class Course:
    """A loop's iterations, and the ids of those trained for it now, and of those restored."""

    chain: tuple[Iteration, ...]
    trained: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outlook:
    """What would come after the chain: adjustments to `parent`; without any `because` says why.

    `is_planned`: the next run trains it. Else the loop has stopped, and this is what it would try.
    """

    chain: tuple[Iteration, ...]
    parent: Iteration
    adjustments: tuple[Adjustment, ...]
    because: str = ""
    is_planned: bool = False


@dataclass
class Loop:
    """One loop, ready to run."""

    config: LoopConfig
    options: Options = field(default_factory=Options)
    progress: Progress = field(default_factory=Silent)
    hook: Scorer | None = None
    runner: RunnerFactory | None = None
    measure: Measure | None = None
    environment: Environment | None = None
    adjust_hook: Adjust | None = None
    diagnose_hook: Diagnose | None = None
    _made: Runner | None = field(default=None, init=False, repr=False)
    _policy: Policy | None = field(default=None, init=False, repr=False)
    _of_data: tuple[Finding, ...] | None = field(default=None, init=False, repr=False)

    def run(self) -> LoopResult:
        """Bring the log up to date, training what is not in it, and judge the best iteration.

        Only one process works on a loop at a time; the others wait, then find it up to date.
        """
        inputs, log = Inputs.of(self.config, self.hook), self.log
        course = self._course(log, inputs)
        best = best_of(course.chain, self.config.loop.metric)
        acceptance = self._acceptance(log, inputs)
        acceptance.complete_seeds(best)
        return self._result(course, best, inputs, acceptance)

    def calibrate(self, seeds: int) -> LoopResult:
        """Bring the log up to date, and train the best iteration until it has `seeds` runs."""
        inputs, log = Inputs.of(self.config, self.hook), self.log
        course = self._course(log, inputs)
        best = best_of(course.chain, self.config.loop.metric)
        acceptance = self._acceptance(log, inputs)
        acceptance.train_seeds(best, seeds, "calibration")
        return self._result(course, best, inputs, acceptance)

    def outlook(self) -> Outlook:
        """What would come next, by what is logged; trains nothing. Without a chain: stale."""
        inputs, log = Inputs.of(self.config, self.hook), self.log
        planner, logged = self._planner(log, inputs), log.read()
        chain, plan = planner.walk(logged)
        if not chain:
            raise self._stale(log, chain)
        decision = chain[-1].decision
        if plan is not None and plan.parent is not None:
            return Outlook(chain, plan.parent, plan.adjustments, decision.because, is_planned=True)
        if decision.next or decision.kind == "fault":
            parent = planner.parent(decision, chain)
            return Outlook(chain, parent, decision.next, decision.because)
        known = planner.known(chain, logged)
        proposal = self.policy.propose(chain, self.config.loop.metric, known)
        because = proposal.because or decision.because
        return Outlook(chain, proposal.parent, proposal.adjustments, because)

    def _course(self, log: ImprovementLog, inputs: Inputs) -> Course:
        """The loop's iterations, after training what the log lacks of them."""
        if not self.options.retrain:
            # Without the lock first: reading needs none, and most runs find nothing to do.
            chain, plan = self._planner(log, inputs).walk(log.read())
            if plan is None:
                return Course(chain)
            if self.options.replay:
                raise self._stale(log, chain)
        log.check_writable()
        with self._locked(log) as lock:
            note = self._retrained_note(lock, inputs)
            retrained = self.options.retrain and self._retrained(note)
            try:
                done = self._train_on(log, inputs, afresh=self.options.retrain and not retrained)
            finally:
                self.progress.done()
            if self.options.retrain:
                note.write_text(self.options.run_id, encoding="utf-8")
            return done

    @property
    def log_folder(self) -> Path:
        """The folder that holds the log of this loop and of its neighbours."""
        return self.options.log_folder or self.config.folder / FOLDER

    @cached_property
    def log(self) -> ImprovementLog:
        """The log of the loop itself: one, so that each of its files is read once."""
        return ImprovementLog(self.log_folder / self.config.name)

    @property
    def policy(self) -> Policy:
        """What says what is trained next, made when first asked for."""
        if self._policy is None:
            self._policy = policy_of(self.config, self.adjust_hook)
        return self._policy

    def _planner(self, log: ImprovementLog, inputs: Inputs) -> Planner:
        explores = self.options.explore or self.options.iterations is not None
        limit = self.options.iterations if explores else 1
        return Planner(self.config, inputs, log, lambda: self.policy, limit, explores)

    def _acceptance(self, log: ImprovementLog, inputs: Inputs) -> Acceptance:
        return Acceptance(
            self.config,
            self.options,
            log,
            inputs,
            self.progress,
            self._store,
            runner=lambda: self._runner(inputs),
            measure=self.measure or runners.lora_measure,
            locked=lambda: self._locked(log),
        )

    def _train_on(self, log: ImprovementLog, inputs: Inputs, *, afresh: bool) -> Course:
        """Train what the log lacks; `afresh`, nothing that it holds counts as trained."""
        log.sweep()
        planner, before = self._planner(log, inputs), log.read()
        _ = self.policy  # a mistake in it comes before an hour of training
        logged = () if afresh else before
        trained: list[str] = []
        restored: list[str] = []
        while True:
            chain, plan = planner.walk(logged)
            if plan is None:
                return Course(chain, tuple(trained), tuple(restored))
            known = next((i for i in before if i.fingerprint == plan.fingerprint), None)
            number = known.number if known else next_number((*before, *logged))
            if kept := self._kept(plan):
                written = log.append(replace(kept, number=number))
                restored.append(written.id)
            else:
                written = self._trained(log, inputs, number, plan, chain, logged)
                trained.append(written.id)
            log.remove_others(written)
            logged = (*logged, written)
            if afresh:
                self._drop_replaced(log, before, logged, inputs)

    def _trained(
        self,
        log: ImprovementLog,
        inputs: Inputs,
        number: int,
        plan: Plan,
        chain: Sequence[Iteration],
        logged: Sequence[Iteration],
    ) -> Iteration:
        """The planned iteration, trained and logged; then kept, where that is asked for."""
        planner = self._planner(log, inputs)
        told = _beside_the_chain(log)  # a damaged file is told before an hour of training
        self._look_at_data(inputs)
        runner = self._runner(inputs)
        self.progress.iteration(self.config.name, len(chain) + 1, planner.limit(chain))
        try:
            run = runner(
                plan.settings,
                adapter_folder(plan.fingerprint),
                chain[0].base["eval_loss"] if chain else None,
                name=name_of(number, plan.fingerprint[:ID_LENGTH]),
                pace=self._pace(chain),
            )
        except ConfigError as error:
            if not chain:
                raise
            raise self._undecided(log, chain[-1], plan, error) from error
        evidence = self._evidence(inputs, run, chain, told)
        draft = self._draft(inputs, number, plan, run, diagnose(evidence, self._of_data))
        try:
            draft = self._with_findings_of_user(draft, evidence)
            # Decided on what the log will say, so that a later run would decide the same.
            decision = planner.decide([*chain, as_logged(draft)], logged)
        except BaseException:  # what was trained is not lost to a mistake in a hook or policy
            log.remove_others(log.append(draft))
            raise
        written = log.append(replace(draft, decision=decision))
        self._store.keep(written, log)
        return written

    def _undecided(
        self, log: ImprovementLog, last: Iteration, plan: Plan, error: ConfigError
    ) -> ConfigError:
        """The error of settings that were decided and can't be trained; the decision is undone.

        It would stand else, and with it the mistake, whatever is mended in the policy.
        """
        log.remove_others(log.append(replace(last, decision=Decision("stop", PENDING, ""))))
        policy = self.config.locate("loop.policy")
        said = ", ".join(f"{a.setting} {a.after}" for a in plan.adjustments)
        return ConfigError(
            f"what was to be tried next ({said}) can't be trained: {error.message}",
            where=policy,
            cure=f"{error.cure} The iterations so far are in the log.".strip(),
        )

    def _runner(self, inputs: Inputs) -> Runner:
        """The runner, made when something is trained first: it loads the base model."""
        if self._made is None:
            self._made = (self.runner or runners.lora_runner)(inputs, self.config, self.progress)
        return self._made

    def _pace(self, chain: Sequence[Iteration]) -> Pace | None:
        """What the next iteration is held against; nothing where the loss does not decide."""
        if not chain or self.config.loop.metric != "eval_loss":
            return None
        return Pace.of(adjust.parent_of_next(chain, "eval_loss"), self.config.gates)

    def _look_at_data(self, inputs: Inputs) -> tuple[Finding, ...]:
        """What is wrong with the data, found and told once: before anything is trained."""
        if self._of_data is None:
            self._of_data = before_training(
                inputs.train.examples,
                inputs.eval.examples,
                (*self.config.gates, *self.config.regressions),
            )
            self.progress.found(self.config.name, self._of_data)
        return self._of_data

    def _kept(self, plan: Plan) -> Iteration | None:
        """The planned iteration as an earlier run trained it."""
        parent = plan.parent.id if plan.parent else None
        return self._store.iteration(
            plan.fingerprint, plan.settings, self.config.name, parent, plan.adjustments
        )

    @cached_property
    def _store(self) -> Store:
        """What earlier runs trained."""
        environment = self.environment or runners.lora_environment
        return Store(
            records_folder(),
            lambda settings: environment(self.config, settings, self.progress),
            restores=not self.options.retrain,
        )

    def _drop_replaced(
        self,
        log: ImprovementLog,
        before: Sequence[Iteration],
        retrained: Sequence[Iteration],
        inputs: Inputs,
    ) -> None:
        """Remove what the chain held before, once its retraining has left the old course.

        Left there, iterations of two courses (and perhaps two machines) would be read as one
        chain. Version control keeps them. Asked after every iteration, so that an interrupted
        retraining leaves no mixture either.
        """
        start = inputs.fingerprint(self.config, self.config.settings)
        old = chain_from(before, start)
        _, plan = self._planner(log, inputs).walk(retrained)
        if plan is not None and plan.fingerprint in {iteration.fingerprint for iteration in old}:
            return  # still on the old course: the next of it is trained next
        kept = {iteration.id for iteration in retrained}
        for iteration in old:
            if iteration.id not in kept:
                log.remove(iteration)

    def _evidence(
        self, inputs: Inputs, run: Run, chain: Sequence[Iteration], told: Mapping[str, Any]
    ) -> Evidence:
        """What the diagnosis looks at; `told` is what the log holds beside the chain."""
        return Evidence.of(
            run.training,
            best_metrics(run.evaluation),
            final_metrics(run.training, run.evaluation),
            run.evaluation.base_eval_loss,
            history=tuple(chain),
            metric=self.config.loop.metric,
            train=inputs.train.examples,
            eval=inputs.eval.examples,
            results=run.evaluation.examples,
            gates=(*self.config.gates, *self.config.regressions),
            **told,
        )

    def _draft(
        self, inputs: Inputs, number: int, plan: Plan, run: Run, findings: tuple[Finding, ...]
    ) -> Iteration:
        """The iteration as it will be logged, but for what is decided after it."""
        training, evaluation = run.training, run.evaluation
        return Iteration(
            loop=self.config.name,
            number=number,
            id=plan.fingerprint[:ID_LENGTH],
            fingerprint=plan.fingerprint,
            parent=plan.parent.id if plan.parent else None,
            adjustments=plan.adjustments,
            model=inputs.model,
            settings=plan.settings,
            group=inputs.group(self.config, plan.settings),
            scoring=scoring_identity(self.config.scoring, self.config.folder),
            data={role: data_facts(set_) for role, set_ in self._sets(inputs).items()},
            metrics=best_metrics(evaluation),
            final=final_metrics(training, evaluation),
            base={"eval_loss": round(evaluation.base_eval_loss, 6)},
            facts=facts_of(training),
            steps=training.steps,
            evals=training.evals,
            findings=findings,
            failing=tuple(sorted(r.id for r in evaluation.examples if not r.passed)),
            decision=Decision("stop", PENDING, ""),
            environment=run.environment,
            cost=run.cost,
            examples=evaluation.examples,
        )

    def _with_findings_of_user(self, draft: Iteration, evidence: Evidence) -> Iteration:
        """With the user's findings, those of one severity after ours."""
        if self.diagnose_hook is None:
            return draft
        return replace(
            draft, findings=by_severity((*draft.findings, *self.diagnose_hook(evidence)))
        )

    def _sets(self, inputs: Inputs) -> dict[str, DataSet]:
        return {"train": inputs.train, "eval": inputs.eval}

    def _result(
        self, course: Course, best: Iteration, inputs: Inputs, acceptance: Acceptance
    ) -> LoopResult:
        log = acceptance.log
        # The best alone: the others are judged by nothing, and 200 tables take seconds to read.
        log.verify(best)
        adapter = adapter_folder(best.fingerprint)
        return LoopResult(
            loop=self.config.name,
            source=self.config.source,
            chain=course.chain,
            best=best,
            gates=judge(self.config.gates, best.metrics),
            trained=course.trained,
            restored=course.restored,
            notes=self._store.notes,
            log_folder=log.folder,
            files=tuple(path for i in course.chain for path in log.files(i)),
            examples={e.id: e for e in inputs.eval.examples},
            adapter=adapter if adapter.is_dir() else None,
            regressions=self.config.regressions,
            judge=acceptance.judge(best),
            log=log,
        )

    def _stale(self, log: ImprovementLog, chain: Sequence[Iteration]) -> StaleLogError:
        logged = log.read()
        since = "it has no iteration yet"
        if chain:
            since = f"iteration {chain[-1].name} is not the last, the next was not trained"
        elif logged:
            since = f"settings, data, scoring or model changed since iteration {logged[-1].name}"
        return StaleLogError(
            f"the improvement log of {self.config.name} is out of date: {since}",
            where=self.config.locate("name"),
            cure=f"Run pytest --ftloop and commit {FOLDER}/.",
        )

    def _retrained(self, note: Path) -> bool:
        """Whether this pytest run, in whichever process, has retrained this loop already."""
        return bool(self.options.run_id) and (
            note.is_file() and note.read_text(encoding="utf-8") == self.options.run_id
        )

    def _retrained_note(self, lock: Path, inputs: Inputs) -> Path:
        start = inputs.fingerprint(self.config, self.config.settings)
        return lock.with_name(f"{lock.name}.{start[:ID_LENGTH]}.retrained")

    def _locked(self, log: ImprovementLog) -> AbstractContextManager[Path]:
        said = f"{self.config.name}: waiting for another process"
        return locked(log.folder, lambda: self.progress.working(said))


def _beside_the_chain(log: ImprovementLog) -> dict[str, Any]:
    """What the diagnosis needs of a log beside the chain, as fields of its evidence."""
    view = log.view
    uses = view.holdout_uses()
    ids = {use.iteration for use in uses}
    return {
        "holdout": uses,
        "opened": tuple(i for i in view.iterations() if i.id in ids),
        "run_noise": run_noise(view.iterations(), view.seed_runs()),
    }
