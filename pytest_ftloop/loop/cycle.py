"""The cycle: train, evaluate, diagnose, decide, log. `turn` is one iteration of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_ftloop import adjust
from pytest_ftloop import diagnose as diagnosis
from pytest_ftloop.core.cache import adapter_folder
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.metrics import best_metrics, final_metrics
from pytest_ftloop.core.noise import measured_noise
from pytest_ftloop.core.records import (
    ID_LENGTH,
    Decision,
    Finding,
    Iteration,
    Run,
    facts_of,
    name_of,
)
from pytest_ftloop.core.runs import groups_of
from pytest_ftloop.data.identity import scoring_identity
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.log import ImprovementLog, as_logged
from pytest_ftloop.loop.inputs import Inputs, data_facts
from pytest_ftloop.loop.planner import PENDING, Plan, Planner
from pytest_ftloop.train.early_end import Pace

if TYPE_CHECKING:
    from pytest_ftloop.config.gates import Gate, Regression
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.diagnose.custom import Diagnose
    from pytest_ftloop.log.kept import Store
    from pytest_ftloop.loop.backend import Backend


@dataclass(frozen=True)
class Cycle:
    """What every turn of one loop shares.

    `store` holds what earlier runs trained. `user_diagnosis` is the user's
    `pytest_ftloop_diagnose` hook, if there is one.
    """

    config: LoopConfig
    inputs: Inputs
    improvement_log: ImprovementLog
    planner: Planner
    backend: Backend
    store: Store
    progress: Progress
    user_diagnosis: Diagnose | None = None


@dataclass(frozen=True)
class Turn:
    """One planned iteration: its number, its plan, and what is logged so far.

    `chain` is the loop's own course, `logged` everything in the log. `data_findings` were found
    before the first training of this run.
    """

    number: int
    plan: Plan
    chain: tuple[Iteration, ...]
    logged: tuple[Iteration, ...]
    data_findings: tuple[Finding, ...]


def turn(cycle: Cycle, now: Turn) -> Iteration:
    """Turn the cycle once: the planned iteration, trained, judged by its own evidence, and logged.

    A mistake in a user's hook or policy loses nothing: the iteration is logged without a decision,
    and the next run decides.
    """
    beside = _beside_the_chain(cycle.improvement_log)  # a damaged file is an error before training
    run = train(cycle, now)
    draft = evaluate(cycle, now, run)
    evidence = _evidence(cycle, now, run, beside)
    draft = diagnose(draft, evidence, now.data_findings)
    try:
        draft = _with_findings_of_user(cycle, draft, evidence)
        draft = decide(cycle, now, draft)
    except BaseException:
        log(cycle, draft)
        raise
    return log(cycle, draft)


def train(cycle: Cycle, now: Turn) -> Run:
    """Train the planned settings. A `ConfigError` for settings that can't be trained."""
    chain, plan = now.chain, now.plan
    cycle.progress.iteration(cycle.config.name, len(chain) + 1, cycle.planner.limit(chain))
    try:
        return cycle.backend.train(
            plan.settings,
            name=name_of(now.number, plan.fingerprint[:ID_LENGTH]),
            adapter=adapter_folder(plan.fingerprint),
            base_eval_loss=chain[0].base["eval_loss"] if chain else None,
            pace=_pace(cycle, chain),
        )
    except ConfigError as error:
        if not chain:
            raise
        raise _undecided(cycle, chain[-1], plan, error) from error


def evaluate(cycle: Cycle, now: Turn, run: Run) -> Iteration:
    """The run's figures as a draft of its record: nothing found, nothing decided yet."""
    config, inputs, plan = cycle.config, cycle.inputs, now.plan
    training, evaluation = run.training, run.evaluation
    return Iteration(
        loop=config.name,
        number=now.number,
        id=plan.fingerprint[:ID_LENGTH],
        fingerprint=plan.fingerprint,
        parent=plan.parent.id if plan.parent else None,
        adjustments=plan.adjustments,
        model=inputs.model,
        settings=plan.settings,
        group=inputs.group(config, plan.settings),
        scoring=scoring_identity(config.scoring, config.folder),
        data={"train": data_facts(inputs.train), "eval": data_facts(inputs.eval)},
        metrics=best_metrics(evaluation),
        final=final_metrics(training, evaluation),
        base={"eval_loss": round(evaluation.base_eval_loss, 6)},
        facts=facts_of(training),
        steps=training.steps,
        evals=training.evals,
        findings=(),
        failing=tuple(sorted(r.id for r in evaluation.examples if not r.passed)),
        decision=Decision("stop", PENDING, ""),
        environment=run.environment,
        cost=run.cost,
        examples=evaluation.examples,
    )


def diagnose(draft: Iteration, evidence: Evidence, data_findings: tuple[Finding, ...]) -> Iteration:
    """The draft with the findings of the rules."""
    return replace(draft, findings=diagnosis.diagnose(evidence, data_findings))


def decide(cycle: Cycle, now: Turn, draft: Iteration) -> Iteration:
    """The draft with what follows it, decided on what the log will hold of it.

    A later run reads the log, so it would decide the same.
    """
    decision = cycle.planner.decide([*now.chain, as_logged(draft)], now.logged)
    return replace(draft, decision=decision)


def log(cycle: Cycle, draft: Iteration) -> Iteration:
    """The iteration as written to the log; a decided one is also kept for later runs."""
    written = cycle.improvement_log.append(draft)
    cycle.improvement_log.remove_others(written)
    if draft.decision.kind != PENDING:
        cycle.store.keep(written, cycle.improvement_log)
    return written


def find_in_data(cycle: Cycle) -> tuple[Finding, ...]:
    """What is wrong with the data, reported before anything is trained."""
    gates: tuple[Gate | Regression, ...] = (*cycle.config.gates, *cycle.config.regressions)
    inputs = cycle.inputs
    found = diagnosis.before_training(inputs.train.examples, inputs.eval.examples, gates)
    cycle.progress.found(cycle.config.name, found)
    return found


def _beside_the_chain(improvement_log: ImprovementLog) -> Mapping[str, Any]:
    """What the diagnosis needs of a log besides the chain, as fields of its evidence."""
    view = improvement_log.view
    uses = view.holdout_uses()
    ids = {use.iteration for use in uses}
    return {
        "holdout": uses,
        "opened": tuple(i for i in view.iterations() if i.id in ids),
        "seed_noise": measured_noise(groups_of(view.iterations(), view.seed_runs())),
    }


def _evidence(cycle: Cycle, now: Turn, run: Run, beside: Mapping[str, Any]) -> Evidence:
    config, inputs = cycle.config, cycle.inputs
    return Evidence.of(
        run.training,
        best_metrics(run.evaluation),
        final_metrics(run.training, run.evaluation),
        run.evaluation.base_eval_loss,
        history=now.chain,
        metric=config.loop.metric,
        train=inputs.train.examples,
        eval=inputs.eval.examples,
        results=run.evaluation.examples,
        gates=(*config.gates, *config.regressions),
        **beside,
    )


def _with_findings_of_user(cycle: Cycle, draft: Iteration, evidence: Evidence) -> Iteration:
    """The draft with the user's findings too; of one severity they come after ours."""
    if cycle.user_diagnosis is None:
        return draft
    findings = (*draft.findings, *cycle.user_diagnosis(evidence))
    return replace(draft, findings=diagnosis.by_severity(findings))


def _pace(cycle: Cycle, chain: Sequence[Iteration]) -> Pace | None:
    """What the next run is held against; None where the loss does not decide."""
    if not chain or cycle.config.loop.metric != "eval_loss":
        return None
    return Pace.of(adjust.parent_of_next(chain, "eval_loss"), cycle.config.gates)


def _undecided(cycle: Cycle, last: Iteration, plan: Plan, error: ConfigError) -> ConfigError:
    """The error for settings that were decided and can't be trained; the decision is undone.

    Left in the log, the decision would repeat the mistake after the policy has been mended.
    """
    pending = replace(last, decision=Decision("stop", PENDING, ""))
    cycle.improvement_log.remove_others(cycle.improvement_log.append(pending))
    settings = ", ".join(f"{a.setting} {a.after}" for a in plan.adjustments)
    return ConfigError(
        f"what was to be tried next ({settings}) can't be trained: {error.message}",
        where=cycle.config.locate("loop.policy"),
        cure=f"{error.cure} The iterations so far are in the log.".strip(),
    )
