"""One turn of the cycle: train, evaluate, diagnose, decide, log.

`turn` calls the five functions of these names in this order, and so makes one iteration. What comes
next is planned between turns, by `Planner`; `course` turns the cycle until nothing is planned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_ftloop import adjust
from pytest_ftloop import diagnose as diagnosis
from pytest_ftloop.core.cache import adapter_folder, forget_unfinished
from pytest_ftloop.core.chain import CHOSEN_BY, chosen_by
from pytest_ftloop.core.errors import ConfigError, ScoringError
from pytest_ftloop.core.metrics import best_metrics, final_metrics
from pytest_ftloop.core.noise import measured_noise
from pytest_ftloop.core.records import (
    ID_LENGTH,
    UNSCORED,
    BaseMeasured,
    Decision,
    Finding,
    Iteration,
    Run,
    facts_of,
    is_unscored,
    name_of,
)
from pytest_ftloop.core.runs import groups_of
from pytest_ftloop.data.files import check_holdout_exists
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.log import ImprovementLog, as_logged
from pytest_ftloop.log.aside import written
from pytest_ftloop.loop.again import Again, Known
from pytest_ftloop.loop.gains import compared_with_base
from pytest_ftloop.loop.inputs import Inputs, data_of, model_facts
from pytest_ftloop.loop.judging import judge_facts, judge_findings, recall
from pytest_ftloop.loop.planner import PENDING, Plan, Planner
from pytest_ftloop.loop.trained import keep_trained
from pytest_ftloop.loop.tried import try_scorers
from pytest_ftloop.loop.untrained import BaseKeeper
from pytest_ftloop.train.early_end import Pace

if TYPE_CHECKING:
    from pytest_ftloop.config.gates import Gate, Regression
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.core.records import Settings
    from pytest_ftloop.core.runs import Measured
    from pytest_ftloop.diagnose.custom import Diagnose
    from pytest_ftloop.log.kept import Store
    from pytest_ftloop.loop.backend import Backend


@dataclass(frozen=True)
class Cycle:
    """What all turns of one loop share.

    `inputs` are the loop's examples and scorer; `backend` trains on them. `planner` chooses what
    comes next. `store` keeps records for later runs (`FTLOOP_RECORDS`). `user_diagnosis` is the
    user's `pytest_ftloop_diagnose` hook, if there is one.
    """

    config: LoopConfig
    inputs: Inputs
    improvement_log: ImprovementLog
    planner: Planner
    backend: Backend
    store: Store
    progress: Progress
    user_diagnosis: Diagnose | None = None

    @property
    def again(self) -> Again:
        """Finds and evaluates what the log has trained already."""
        return Again(
            self.config,
            self.inputs,
            self.improvement_log,
            self.backend,
            self.store.notes,
            self.progress,
        )

    @property
    def base_keeper(self) -> BaseKeeper:
        """Finds and keeps the measurements of the untrained base."""
        return BaseKeeper(self.config, self.inputs, self.improvement_log, self.backend, self.store)

    def take_in(self, run: Measured, settings: Settings) -> None:
        """Give the log what belongs to a run that the store has: answers of judges, and the base.

        The judges know the answers from then on.
        """
        log = self.improvement_log
        if self.store.restore_answers(run, log):
            recall(self.inputs, log, self.progress)
        self.base_keeper.known(settings)


@dataclass(frozen=True)
class Turn:
    """One iteration to make: its number, the plan for it, and the iterations before it.

    `chain` are the iterations that led to it, the first with the loop file's own settings;
    `logged` are all in the log, those of other chains included. `data_findings` are the findings on
    the data, made once, before the first training. `known` is the training in the log that has
    these weights, if it can be evaluated again.
    """

    number: int
    plan: Plan
    chain: tuple[Iteration, ...]
    logged: tuple[Iteration, ...]
    data_findings: tuple[Finding, ...]
    known: Known | None = None

    @property
    def name(self) -> str:
        """The name that the iteration will have."""
        return name_of(self.number, self.plan.fingerprint[:ID_LENGTH])


def turn(cycle: Cycle, current: Turn) -> Iteration:
    """Make one iteration: train, evaluate, diagnose, decide, log. Returns it as logged."""
    # Read now, so that a damaged log is an error before an hour of training, not after it.
    from_log = _evidence_in_log(cycle.improvement_log)

    run = train(cycle, current) if current.known is None else train_nothing(cycle, current)
    _keep_base(cycle, current, run)
    draft = evaluate(cycle, current, run)
    evidence = _evidence(cycle, current, run, {**from_log, **_of_base(cycle, current, draft)})
    draft = diagnose(draft, evidence, current.data_findings, current.known)
    try:
        draft = _with_findings_of_user(cycle, draft, evidence)
        draft = decide(cycle, current, draft)
    except BaseException:
        # A user's hook or policy failed, or Ctrl-C was pressed. Logged without a decision, the
        # trained iteration is not lost, and the next run decides.
        log(cycle, draft)
        raise
    return log(cycle, draft)


def train(cycle: Cycle, current: Turn) -> Run:
    """Train the planned settings, and measure the result on the eval set.

    Both are one call of the backend, because the model is in its memory. What is trained is in the
    log before it is scored. Raises `ConfigError` for settings that can't be trained.
    """
    chain, plan = current.chain, current.plan
    weights = cycle.inputs.weights(plan.settings)
    base = cycle.base_keeper.known(plan.settings)
    which = f"iteration {len(chain) + 1}/{cycle.planner.limit(chain)}"
    cycle.progress.iteration(cycle.config.name, which)
    with _logged_unscored(cycle, current) as keep:
        try:
            run = cycle.backend.train(
                plan.settings,
                name=current.name,
                adapter=adapter_folder(weights),
                base_eval_loss=base.metrics.get("eval_loss") if base else None,
                pace=_pace(cycle, chain),
                metric=point_metric(cycle, chain),
                keep=keep,
            )
        except ConfigError as error:
            if not chain:
                raise  # these are the loop file's settings: the error names their line
            raise _take_back_decision(cycle, chain[-1], plan, error) from error
    cycle.store.notes.extend(keep_trained(weights, run, current.name))
    return run


def train_nothing(cycle: Cycle, current: Turn) -> Run:
    """In place of `train` where the log knows the weights: measure only what is missing."""
    known = current.known
    assert known is not None
    forget_unfinished(cycle.inputs.weights(current.plan.settings))
    cycle.progress.working(f"evaluating again: {known.what}")
    with _logged_unscored(cycle, current) as keep:
        base = _base_eval_loss(cycle, current, known)
        run = cycle.again.evaluate(known, current.plan.settings, base)
        if not known.is_complete:  # else a failing scorer loses nothing
            keep(run)
        run = cycle.again.scored(run)
    source = known.source
    before = (
        f"{current.name} was scored, not trained: an earlier run trained it"
        if isinstance(source, Iteration) and is_unscored(source)
        else f"{current.name} was evaluated again, not trained: it has the weights of {known.name}"
    )
    cycle.store.notes.append(f"{before}, and {known.what} had to be measured")
    return run


def evaluate(cycle: Cycle, current: Turn, run: Run) -> Iteration:
    """Put the run's results into a draft record, without findings or decision."""
    config, inputs, plan = cycle.config, cycle.inputs, current.plan
    training, evaluation, known = run.training, run.evaluation, current.known
    facts = {**facts_of(training), **model_facts(config, inputs)}
    if (metric := point_metric(cycle, current.chain)) != "eval_loss":
        facts[CHOSEN_BY] = metric
    # What a scorer left unscored has no figures that need scores, or outputs that it refused.
    is_scored = all(row.passed is not None for row in evaluation.examples)
    of_the_set = inputs.set_metrics if is_scored else {}
    if is_scored:
        facts |= judge_facts(config, inputs)
    if known is not None:
        facts["measured_again"] = known.as_fact()
    if run.not_saved:
        facts["adapter_not_saved"] = run.not_saved
    return Iteration(
        loop=config.name,
        number=current.number,
        id=plan.fingerprint[:ID_LENGTH],
        fingerprint=plan.fingerprint,
        parent=plan.parent.id if plan.parent else None,
        adjustments=plan.adjustments,
        model=inputs.model,
        settings=plan.settings,
        group=inputs.group(config, plan.settings),
        weights=inputs.weights(plan.settings),
        adapter=run.adapter,
        scoring=inputs.scoring,
        data=data_of(config, inputs, evaluation),
        metrics=best_metrics(evaluation, of_the_set),
        final=final_metrics(training, evaluation),
        base={"eval_loss": round(evaluation.base_eval_loss, 6)},
        facts=facts,
        steps=training.steps,
        evals=training.evals,
        findings=(),
        failing=tuple(sorted(r.id for r in evaluation.examples if not r.passed)),
        decision=Decision("stop", PENDING, ""),
        environment=run.environment,
        cost=run.cost,
        examples=evaluation.examples,
        guards=evaluation.guards,
    )


def diagnose(
    draft: Iteration,
    evidence: Evidence,
    data_findings: tuple[Finding, ...],
    known: Known | None = None,
) -> Iteration:
    """Add the findings of our rules on the run and on the data.

    Of a `known` training of which only the log is left, findings on it are as they were logged.
    """
    found = diagnosis.diagnose(evidence, data_findings)
    if known is not None and not known.trained.whole:
        logged = known.source.findings if isinstance(known.source, Iteration) else ()
        found += tuple(f for f in logged if f.kind in diagnosis.OF_TRAINING and f not in found)
    return replace(draft, findings=diagnosis.by_severity(found))


def decide(cycle: Cycle, current: Turn, draft: Iteration) -> Iteration:
    """Add the decision: to stop, or which settings to adjust for the next iteration."""
    # Decide on the figures as rounded in the log, because a later run reads those.
    decision = cycle.planner.decide([*current.chain, as_logged(draft)], current.logged)
    return replace(draft, decision=decision)


def log(cycle: Cycle, draft: Iteration) -> Iteration:
    """Write the iteration to the log, in place of an older record of it. Returns it as written."""
    logged = written(cycle.improvement_log, lambda log: log.put(draft))
    for other in cycle.improvement_log.read():
        if is_unscored(other) and other.weights == logged.weights and other.id != logged.id:
            cycle.improvement_log.remove(other)  # it is scored now, by another scorer
    if draft.decision.kind != PENDING:  # a store must not hand out records without a decision
        cycle.store.keep(logged, cycle.improvement_log)
    cycle.progress.ended(logged.metrics)
    return logged


@contextmanager
def _logged_unscored(cycle: Cycle, current: Turn) -> Iterator[Callable[[Run], None]]:
    """A function that logs a run which is not scored yet, so that nothing trained is lost.

    A scorer may fail, and the process be interrupted or killed; the next run goes on at scoring.
    """
    is_kept = False

    def keep(run: Run) -> None:
        nonlocal is_kept
        weights = cycle.inputs.weights(current.plan.settings)
        draft = evaluate(cycle, current, run)
        draft = replace(draft, decision=Decision("stop", UNSCORED, "it is not scored yet"))
        # The record first: whatever goes wrong with the rest, the training is not lost.
        adapter = adapter_folder(weights) if current.known is None else None
        written(cycle.improvement_log, lambda log: log.put(draft), adapter)
        is_kept = True
        if current.known is None:
            keep_trained(weights, run, current.name)
            _keep_base(cycle, current, run)  # scored before the first step

    try:
        yield keep
    except ScoringError as error:
        if not is_kept:
            raise
        raise ScoringError(
            error.message,
            where=error.where,
            cure=f"{error.cure} What was trained is in the log, unscored: the next run goes on at "
            "scoring, and trains nothing again.".strip(),
        ) from error


def _keep_base(cycle: Cycle, current: Turn, run: Run) -> None:
    """Log what a run has measured of the untrained base, if it has."""
    if run.evaluation.base is not None:
        measured = BaseMeasured(run.evaluation.base, run.environment)
        cycle.base_keeper.keep(current.plan.settings, measured)


def _base_eval_loss(cycle: Cycle, current: Turn, known: Known) -> float | None:
    """The untrained base's loss, as the chain or the log has it; None if it is not known."""
    chain, settings = current.chain, current.plan.settings
    base = cycle.base_keeper.measured_in(known.source.environment, settings)
    figures = base.metrics if base is not None else chain[0].base if chain else {}
    value = figures.get("eval_loss", math.nan)
    return value if math.isfinite(value) else None


def point_metric(cycle: Cycle, chain: Sequence[Iteration]) -> str:
    """What the best evaluation point of the chain's next iteration is chosen by.

    As its first one's was, since iterations whose points are chosen differently can't be compared.
    """
    return chosen_by(chain[0]) if chain else cycle.config.metric_of(())


def find_in_data(cycle: Cycle) -> tuple[Finding, ...]:
    """Check data and scorer before anything is trained; report the findings, and return them."""
    from pytest_ftloop.diagnose.copies import guard_leaks
    from pytest_ftloop.diagnose.data import before_training

    try_scorers(cycle.config, cycle.inputs)
    # The holdout is read once all is decided: a missing one would be told after the training.
    check_holdout_exists(cycle.config)
    gates: tuple[Gate | Regression, ...] = (*cycle.config.thresholds, *cycle.config.regressions)
    inputs = cycle.inputs
    found = before_training(inputs.train.examples, inputs.eval.examples, gates)
    guards = {guard.name: guard.rows.examples for guard in inputs.guards}
    found = (*found, *guard_leaks(guards, inputs.train.examples, inputs.eval.examples))
    found = (*found, *judge_findings(cycle.config, inputs))
    cycle.progress.found(cycle.config.name, found)
    return found


def _evidence_in_log(improvement_log: ImprovementLog) -> Mapping[str, Any]:
    """The fields of `Evidence` that come from the log: holdout uses and the seed noise."""
    view = improvement_log.view
    uses = view.holdout_uses()
    ids = {use.iteration for use in uses}
    return {
        "holdout": uses,
        "opened": tuple(i for i in view.iterations() if i.id in ids),
        "seed_noise": measured_noise(groups_of(view.iterations(), view.seed_runs())),
    }


def _of_base(cycle: Cycle, current: Turn, draft: Iteration) -> Mapping[str, Any]:
    """The fields of `Evidence` that compare the draft with the untrained base and its parent."""
    view = cycle.improvement_log.view
    return compared_with_base(view, draft, current.plan.parent, cycle.config.forgetting)


def _evidence(cycle: Cycle, current: Turn, run: Run, from_log: Mapping[str, Any]) -> Evidence:
    """Everything that the rules of the diagnosis may look at."""
    config, inputs = cycle.config, cycle.inputs
    return Evidence.of(
        run.training,
        best_metrics(run.evaluation, inputs.set_metrics),
        final_metrics(run.training, run.evaluation),
        run.evaluation.base_eval_loss,
        history=current.chain,
        adjustments=current.plan.adjustments,
        metric=config.metric_of(current.chain),
        train=inputs.train.examples,
        eval=inputs.eval.examples,
        results=run.evaluation.examples,
        gates=(*config.thresholds, *config.regressions),
        settings=current.plan.settings,
        **from_log,
    )


def _with_findings_of_user(cycle: Cycle, draft: Iteration, evidence: Evidence) -> Iteration:
    """Add the findings of the user's hook. At equal severity ours come first."""
    if cycle.user_diagnosis is None:
        return draft
    findings = (*draft.findings, *cycle.user_diagnosis(evidence))
    return replace(draft, findings=diagnosis.by_severity(findings))


def _pace(cycle: Cycle, chain: Sequence[Iteration]) -> Pace | None:
    """The best iteration's eval curve, which ends a hopeless run early; None if none may be.

    Only where the loop chooses by eval loss can a run be given up: a pass rate may still rise late.
    """
    if not chain or cycle.config.metric_of(chain) != "eval_loss":
        return None
    return Pace.of(adjust.parent_of_next(chain, "eval_loss"), cycle.config.thresholds)


def _take_back_decision(
    cycle: Cycle, last: Iteration, plan: Plan, error: ConfigError
) -> ConfigError:
    """Remove from the log a decision whose settings can't be trained; return the error.

    A decision left in the log would be followed again, even after the user has fixed the policy.
    """
    pending = replace(last, decision=Decision("stop", PENDING, ""))
    cycle.improvement_log.put(pending)
    settings = ", ".join(f"{a.setting} {a.after}" for a in plan.adjustments)
    return ConfigError(
        f"the settings chosen for the next iteration ({settings}) can't be trained: "
        f"{error.message}",
        where=cycle.config.locate("loop.policy"),
        cure=f"{error.cure} The iterations so far are in the log.".strip(),
    )
