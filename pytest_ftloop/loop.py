"""The loop: train -> evaluate -> diagnose -> adjust -> log, until it is decided to stop.

What is in the log already is up to date and not trained again; torch is imported only when
something has to be trained.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pytest_ftloop import adjust, data
from pytest_ftloop.baseline import find_baseline
from pytest_ftloop.cache import cache_folder
from pytest_ftloop.config import LoopConfig
from pytest_ftloop.diagnose import diagnose
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.errors import DataError, StaleLogError, TrainingError
from pytest_ftloop.fingerprint import (
    ID_LENGTH,
    iteration_fingerprint,
    model_identity,
    scoring_identity,
)
from pytest_ftloop.gates import check_tags, judge
from pytest_ftloop.judging import Judge, Judging, is_accepted
from pytest_ftloop.log import FOLDER, ImprovementLog, as_logged, chain_from, next_number
from pytest_ftloop.log.lock import locked
from pytest_ftloop.log.record import Rows
from pytest_ftloop.metrics import best_metrics, final_metrics
from pytest_ftloop.progress import Progress, Silent
from pytest_ftloop.records import (
    Adjustment,
    DataSet,
    Decision,
    Evaluation,
    ExampleResult,
    HoldoutUse,
    Iteration,
    Settings,
    name_of,
)
from pytest_ftloop.result import LoopResult, best_of
from pytest_ftloop.retrain import retrain_baseline
from pytest_ftloop.scorers import Scorer, load_scorer, needs_generation
from pytest_ftloop.seeds import SeedTrainer, runs_here

if TYPE_CHECKING:
    from pytest_ftloop.train import Run

RESUMABLE = frozenset({"iterations", "time"})
"""Stops that a larger budget undoes: what would have come next is in the log."""


@dataclass(frozen=True)
class Options:
    """How a loop is to be run, whatever its file says.

    `explore` False (in CI): the loop file's own settings are the only iteration that may be
    trained. `iterations` overrides the file's number and explores in any case. `log_folder` holds
    the log instead of the folder `improvement_log` beside the loop file. `run_id` names the
    pytest run that several processes (xdist) share: together they retrain a loop once. `baseline`
    is the commit to compare with, None the default one; `retrain_baseline` trains that commit's
    iteration here where its figures are from another environment.
    """

    retrain: bool = False
    replay: bool = False
    explore: bool = True
    iterations: int | None = None
    log_folder: Path | None = None
    run_id: str = ""
    baseline: str | None = None
    retrain_baseline: bool = False


class Runner(Protocol):
    """Trains and evaluates one iteration."""

    def __call__(
        self,
        settings: Settings,
        adapter: Path | None,
        base_eval_loss: float | None,
        *,
        name: str,
    ) -> Run:
        """Run with these settings; save the best adapter to the folder `adapter`, if any.

        `name` tells the run from the loop's others, wherever it is reported to.
        """


Measure = Callable[..., tuple[ExampleResult, ...]]
RunnerFactory = Callable[["Inputs", LoopConfig, Progress], Runner]


@dataclass(frozen=True)
class Inputs:
    """A loop's data, the identity of its model, and its scorer."""

    train: DataSet
    eval: DataSet
    model: str
    scorer: Scorer | None

    @classmethod
    def of(cls, config: LoopConfig, hook: Scorer | None) -> Inputs:
        """Load and check everything that needs no torch."""
        where = config.locate("data.train")
        train = data.load(config.train, "train", config.folder, config.columns, where)
        if config.split is not None:
            train, eval_ = data.split_off(train, config.split.fraction, config.split.seed)
        else:
            where = config.locate("data.eval")
            eval_ = data.load(config.eval, "eval", config.folder, config.columns, where)
        _check_forms(config, train, eval_)
        check_tags((*config.gates, *config.regressions), eval_.tags, config.source)
        scorer = None
        if needs_generation(config.scoring):
            scorer = load_scorer(
                config.scoring, hook, folder=config.folder, where=config.locate("scoring.scorer")
            )
            _check_prompts(eval_)
            if config.scoring.scorer in {"contains", "regex", "json"}:
                for example in eval_.examples:
                    scorer(example, "")  # raises now for an example that could never be scored
        model = model_identity(config.model, config.folder, config.tokenizer)
        return cls(train, eval_, model, scorer)

    def fingerprint(self, config: LoopConfig, settings: Settings) -> str:
        """The fingerprint of an iteration with these settings."""
        return iteration_fingerprint(
            self.model,
            settings,
            config.scoring,
            config.folder,
            self.train,
            self.eval,
            config.train_sample,
        )

    def group(self, config: LoopConfig, settings: Settings) -> str:
        """The fingerprint of these settings whatever their seed: what an A/A group shares."""
        training = {name: value for name, value in settings.training.items() if name != "seed"}
        return self.fingerprint(config, replace(settings, training=training))


@dataclass(frozen=True)
class Plan:
    """What to train next: these settings, made from the parent's by the adjustments."""

    parent: Iteration | None
    adjustments: tuple[Adjustment, ...]
    settings: Settings
    fingerprint: str


@dataclass
class Loop:
    """One loop, ready to run."""

    config: LoopConfig
    options: Options = field(default_factory=Options)
    progress: Progress = field(default_factory=Silent)
    hook: Scorer | None = None
    runner: RunnerFactory | None = None
    measure: Measure | None = None
    _made: Runner | None = field(default=None, init=False, repr=False)

    def run(self) -> LoopResult:
        """Bring the log up to date, training what is not in it, and judge the best iteration.

        Only one process works on a loop at a time; the others wait, then find it up to date.
        """
        inputs = Inputs.of(self.config, self.hook)
        log = self.log
        chain, trained = self._chain(log, inputs)
        best = best_of(chain, self.config.loop.metric)
        self._complete_seeds(best, log, inputs)
        return self._result(chain, best, trained, log, inputs)

    def calibrate(self, seeds: int) -> LoopResult:
        """Bring the log up to date, and train the best iteration until it has `seeds` runs."""
        inputs = Inputs.of(self.config, self.hook)
        log = self.log
        chain, trained = self._chain(log, inputs)
        best = best_of(chain, self.config.loop.metric)
        log.check_writable()
        self._seeds(log, inputs).train(best, seeds, "calibration")
        return self._result(chain, best, trained, log, inputs)

    def _chain(
        self, log: ImprovementLog, inputs: Inputs
    ) -> tuple[tuple[Iteration, ...], tuple[str, ...]]:
        """The loop's iterations, and the ids of those trained for it now."""
        if not self.options.retrain:
            # Without the lock first: reading needs none, and most runs find nothing to do.
            chain, plan = self._walk(log.read(), inputs)
            if plan is None:
                return chain, ()
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

    @property
    def log(self) -> ImprovementLog:
        """The log of the loop itself."""
        return ImprovementLog(self.log_folder / self.config.name)

    @property
    def limit(self) -> int:
        """How many iterations the chain may have."""
        if self.options.iterations is not None:
            return self.options.iterations
        return self.config.loop.iterations if self.options.explore else 1

    def _train_on(
        self, log: ImprovementLog, inputs: Inputs, *, afresh: bool
    ) -> tuple[tuple[Iteration, ...], tuple[str, ...]]:
        """Train what the log lacks; `afresh`, nothing that it holds counts as trained."""
        log.sweep()
        before = log.read()
        logged = () if afresh else before
        trained: list[str] = []
        while True:
            chain, plan = self._walk(logged, inputs)
            if plan is None:
                return chain, tuple(trained)
            runner = self._runner(inputs)
            self.progress.iteration(self.config.name, len(chain) + 1, self.limit)
            known = next((i for i in before if i.fingerprint == plan.fingerprint), None)
            number = known.number if known else next_number((*before, *logged))
            run = runner(
                plan.settings,
                adapter_folder(plan.fingerprint),
                chain[0].base["eval_loss"] if chain else None,
                name=name_of(number, plan.fingerprint[:ID_LENGTH]),
            )
            draft = self._draft(inputs, number, plan, run, chain)
            # Decided on what the log will say, so that a later run would decide the same.
            decision = self._decide([*chain, as_logged(draft)])
            written = log.append(replace(draft, decision=decision))
            log.remove_others(written)
            logged = (*logged, written)
            trained.append(draft.id)
            if afresh:
                self._drop_replaced(log, before, logged, inputs)

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
        _, plan = self._walk(retrained, inputs)
        if plan is not None and plan.fingerprint in {iteration.fingerprint for iteration in old}:
            return  # still on the old course: the next of it is trained next
        kept = {iteration.id for iteration in retrained}
        for iteration in old:
            if iteration.id not in kept:
                log.remove(iteration)

    def _walk(
        self, logged: Sequence[Iteration], inputs: Inputs
    ) -> tuple[tuple[Iteration, ...], Plan | None]:
        """The loop's chain as far as the log holds it, and what to train next (None: complete).

        Where it comes to settings that another chain has trained, it goes on along that one.
        """
        start = inputs.fingerprint(self.config, self.config.settings)
        chain = list(chain_from(logged, start))
        if not chain:
            return (), Plan(None, (), self.config.settings, start)
        while (decision := self._follow(chain)) is not None:
            parent = adjust.parent_of_next(chain, self.config.loop.metric)
            settings = parent.settings.adjusted(decision.next)
            fingerprint = inputs.fingerprint(self.config, settings)
            ids = {iteration.id for iteration in chain}
            found = [i for i in chain_from(logged, fingerprint) if i.id not in ids]
            if not found:
                if any(i.fingerprint == fingerprint for i in chain):
                    break  # a user's decision led back to where the chain has been
                return tuple(chain), Plan(parent, decision.next, settings, fingerprint)
            chain += found
        return tuple(chain), None

    def _follow(self, chain: Sequence[Iteration]) -> Decision | None:
        """The logged decision to go on, or None when the chain is complete as it stands.

        A decision is taken as logged. A stop is looked at again only where what it rested on has
        changed: a larger budget, or gates that held then and do not hold now.
        """
        decision = chain[-1].decision
        if len(chain) >= self.limit:
            return None
        if not self.options.explore and self.options.iterations is None:
            return None
        if decision.kind == "time" and not self._time_allows(chain):
            return None
        if decision.action == "adjust" or decision.kind in RESUMABLE:
            return decision if decision.next else None
        if decision.kind == "gates" and not self._gates_hold(chain):
            again = self._decide(chain)
            return again if again.action == "adjust" else None
        return None

    def _decide(self, chain: Sequence[Iteration]) -> Decision:
        limits = adjust.Limits(
            iterations=self.limit,
            patience=self.config.loop.patience,
            metric=self.config.loop.metric,
            seconds_left=self._seconds_left(chain),
        )
        return adjust.decide(chain, self._gates_hold(chain), limits)

    def _seconds_left(self, chain: Sequence[Iteration]) -> float | None:
        """Of the time budget, by the costs logged: the same log gives the same answer anywhere."""
        budget = self.config.loop.time_budget_s
        return None if budget is None else budget - sum(i.cost.seconds for i in chain)

    def _time_allows(self, chain: Sequence[Iteration]) -> bool:
        left = self._seconds_left(chain)
        return left is None or left >= chain[-1].cost.seconds

    def _gates_hold(self, chain: Sequence[Iteration]) -> bool:
        best = best_of(chain, self.config.loop.metric)
        # A loop without gates has nothing that could hold: it goes on to a plateau or its limits.
        results = judge(self.config.gates, best.metrics)
        return bool(results) and all(result.passed for result in results)

    def _draft(
        self,
        inputs: Inputs,
        number: int,
        plan: Plan,
        run: Run,
        chain: Sequence[Iteration],
    ) -> Iteration:
        """The iteration as it will be logged, but for what is decided after it."""
        training, evaluation = run.training, run.evaluation
        metrics, final = best_metrics(evaluation), final_metrics(training, evaluation)
        evidence = Evidence.of(
            training,
            metrics,
            final,
            evaluation.base_eval_loss,
            history=tuple(chain),
            metric=self.config.loop.metric,
        )
        facts = {
            "steps": len(training.steps),
            "planned_steps": training.planned_steps,
            "best_step": training.best_step,
            "steps_per_epoch": training.steps_per_epoch,
            "trainable_parameters": training.trainable_parameters,
            "labelled_tokens": training.labelled_tokens,
            "vocabulary": training.vocabulary,
            "dropped_examples": training.dropped_examples,
            "ended_early": training.ended_early,
            "recoveries": list(training.recoveries),
        }
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
            metrics=metrics,
            final=final,
            base={"eval_loss": round(evaluation.base_eval_loss, 6)},
            facts=facts,
            steps=training.steps,
            evals=training.evals,
            findings=diagnose(evidence),
            failing=tuple(sorted(r.id for r in evaluation.examples if not r.passed)),
            decision=Decision("stop", "pending", ""),
            environment=run.environment,
            cost=run.cost,
            examples=evaluation.examples,
        )

    def _sets(self, inputs: Inputs) -> dict[str, DataSet]:
        return {"train": inputs.train, "eval": inputs.eval}

    def _result(
        self,
        chain: tuple[Iteration, ...],
        best: Iteration,
        trained: tuple[str, ...],
        log: ImprovementLog,
        inputs: Inputs,
    ) -> LoopResult:
        # The best alone: the others are judged by nothing, and 200 tables take seconds to read.
        log.verify(best)
        adapter = adapter_folder(best.fingerprint)
        return LoopResult(
            loop=self.config.name,
            source=self.config.source,
            chain=chain,
            best=best,
            gates=judge(self.config.gates, best.metrics),
            trained=trained,
            log_folder=log.folder,
            files=tuple(path for i in chain for path in log.files(i)),
            examples={e.id: e for e in inputs.eval.examples},
            adapter=adapter if adapter.is_dir() else None,
            regressions=self.config.regressions,
            judge=self._judge(log, inputs, best),
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

    # --- seeds and the verdict -------------------------------------------------------------------

    def _complete_seeds(self, best: Iteration, log: ImprovementLog, inputs: Inputs) -> None:
        """Train the best iteration with as many seeds as the loop asks for."""
        wanted = self.config.loop.seeds
        found = len(runs_here(log, best)) if wanted > 1 else 1
        if found >= wanted:
            return
        if self.options.replay:
            raise StaleLogError(
                f"the improvement log of {self.config.name} is incomplete: iteration {best.name} "
                f"has {found} of {wanted} seeds",
                where=self.config.locate("loop.seeds"),
                cure=f"Run pytest --ftloop and commit {FOLDER}/.",
            )
        log.check_writable()
        self._seeds(log, inputs).train(best, wanted, "gate")

    def _seeds(self, log: ImprovementLog, inputs: Inputs) -> SeedTrainer:
        return SeedTrainer(
            self.config,
            inputs,
            log,
            runner=lambda: self._runner(inputs),
            progress=self.progress,
            locked=lambda: self._locked(log),
        )

    def _runner(self, inputs: Inputs) -> Runner:
        """The runner, made when something is trained first: it loads the base model."""
        if self._made is None:
            self._made = (self.runner or lora_runner)(inputs, self.config, self.progress)
        return self._made

    def _judge(self, log: ImprovementLog, inputs: Inputs, best: Iteration) -> Judge:
        def begin() -> Judging:
            metric, folder = self.config.loop.metric, self.config.folder
            stated = self.options.baseline
            logged = Rows(log.read)  # a loop that was not renamed is found without
            baseline = find_baseline(log.folder, folder, logged, metric, stated)
            seeds = None if self.options.replay else self._seeds(log, inputs)
            retrain = self._retrain_baseline(log) if self.options.retrain_baseline else None
            return Judging(log, best, baseline, seeds, retrain)

        def after() -> None:
            self._open_holdout(log, inputs, best)

        return Judge(begin, after, writes=not self.options.replay)

    def _retrain_baseline(self, log: ImprovementLog) -> Callable[[Judging], None]:
        def retrain(judging: Judging) -> None:
            log.check_writable()
            said = f"{self.config.name}: training the baseline {judging.baseline.shown}"
            with self._locked(log):
                if judging.baseline_runs():
                    return  # another process was first
                self.progress.working(said)
                try:
                    retrain_baseline(self.config, judging.baseline, judging.candidate, log)
                finally:
                    self.progress.done()

        return retrain

    def _open_holdout(
        self, log: ImprovementLog, inputs: Inputs, best: Iteration
    ) -> HoldoutUse | None:
        """Measure an accepted iteration on the holdout, once; None where there is nothing to do.

        Without its adapter in the cache (it was trained elsewhere) the holdout stays closed.
        """
        accepted = any(j.candidate == best.id and is_accepted(j) for j in log.view.judgements())
        opened = any(use.iteration == best.id for use in log.view.holdout_uses())
        adapter = adapter_folder(best.fingerprint)
        if self.config.holdout is None or not accepted or opened or not adapter.is_dir():
            return None
        config, where = self.config, self.config.locate("data.holdout")
        holdout = data.load(config.holdout, "holdout", config.folder, config.columns, where)
        _check_forms(config, inputs.train, holdout)
        with self._locked(log):
            try:
                results = (self.measure or lora_measure)(
                    inputs, config, holdout, best.settings, adapter, self.progress
                )
            finally:
                self.progress.done()
            return log.append_holdout_use(
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


def in_ci() -> bool:
    """Whether the CI variable is set, as every CI service sets it."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false", "no"}


def adapter_folder(fingerprint: str) -> Path:
    """Where the best adapter of an iteration is kept, in peft's own layout."""
    return cache_folder() / "adapters" / fingerprint


def lora_runner(inputs: Inputs, config: LoopConfig, progress: Progress) -> Runner:
    """The runner that trains for real: imports torch, loads the base model once."""
    progress.working("loading torch and the base model")
    try:
        from pytest_ftloop import train
    except ImportError as error:
        raise TrainingError(
            f"training needs the training extra, {error.name or error} is missing",
            cure='pip install "pytest-ftloop[train]"',
        ) from None
    return train.runner(inputs, config, progress)


def lora_measure(
    inputs: Inputs,
    config: LoopConfig,
    holdout: DataSet,
    settings: Settings,
    adapter: Path,
    progress: Progress,
) -> tuple[ExampleResult, ...]:
    """What an adapter really shows on the holdout: imports torch."""
    progress.working("loading torch and the base model")
    from pytest_ftloop import train

    return train.holdout_results(inputs, config, holdout, settings, adapter, progress)


def _check_forms(config: LoopConfig, train: DataSet, eval_: DataSet) -> None:
    has_prompt = [set_.examples[0].prompt is not None for set_ in (train, eval_)]
    if has_prompt[0] != has_prompt[1]:
        raise DataError(
            "train and eval set are of different forms: "
            f"{', '.join(train.examples[0].row)} and {', '.join(eval_.examples[0].row)}",
            where=eval_.examples[0].where,
            cure="Both need the same columns.",
        )
    if not has_prompt[1] and config.scoring.scorer != "loss":
        raise DataError(
            f"the scorer {config.scoring.scorer!r} needs prompt and completion, or messages; the "
            "eval set is plain text",
            where=config.locate("scoring") or eval_.examples[0].where,
            cure="Use scoring: {scorer: loss, threshold: 2.0}, or give prompt and completion.",
        )


def _check_prompts(eval_: DataSet) -> None:
    for example in eval_.examples:
        if not (example.prompt or "").strip():
            raise DataError(
                f"the prompt of example {example.id!r} is empty: nothing can be generated from it",
                where=example.where,
                cure="Give it a prompt, or use the scorer 'loss' or 'choice'.",
            )


def _eval_figures(results: tuple[ExampleResult, ...]) -> dict[str, float]:
    """The metrics of examples alone: without a train set there is no gap."""
    figures = best_metrics(Evaluation(results, (), (), math.nan))
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def data_facts(set_: DataSet) -> Mapping[str, Any]:
    """What a record says of a data set: where from, how many rows, a hash of what they say."""
    return {"source": set_.source, "rows": len(set_.examples), "sha256": set_.sha256[:16]}
