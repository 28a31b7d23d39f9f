"""Evaluate a training again whose weights the log knows: measure what is missing, train nothing.

Losses, outputs and choices are taken from the log by the content of their rows: of the eval set,
the guards, and of the untrained base. A new scorer reads the outputs that are there, so it needs
neither torch nor the model. What is missing is measured with the adapter in this machine's cache,
in the environment of the other figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.cache import adapter_at_hand, why_no_adapter
from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.records import (
    BaseResults,
    Evaluation,
    Iteration,
    Run,
    Settings,
    ended_as_hopeless,
)
from pytest_ftloop.core.runs import decisive, environment_changes
from pytest_ftloop.core.untrained import tokenising
from pytest_ftloop.log.aside import aside_of
from pytest_ftloop.log.writing import rounded
from pytest_ftloop.loop.inputs import sampled
from pytest_ftloop.loop.known_rows import KnownRows, Measurable, Source, known_rows
from pytest_ftloop.loop.trained import Trained, trained_of
from pytest_ftloop.train.task import EVAL, Found, FoundAll, ToMeasure

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.core.records import ExampleResult
    from pytest_ftloop.core.runs import Measured
    from pytest_ftloop.log import ImprovementLog
    from pytest_ftloop.loop.backend import Backend
    from pytest_ftloop.loop.inputs import Inputs

Rows = tuple["ExampleResult", ...]


@dataclass(frozen=True)
class Known:
    """A training that the log knows, and what of the loop's rows is measured of it, by role.

    `source` is its latest record. `base` is what is known of the untrained base in its environment.
    """

    source: Measured
    trained: Trained
    rows: Mapping[str, KnownRows]
    base: Mapping[str, KnownRows]

    @property
    def name(self) -> str:
        """What to call its record."""
        run = self.source
        return run.name if isinstance(run, Iteration) else f"{run.iteration} with seed {run.seed}"

    @property
    def size(self) -> tuple[int, int]:
        """How many rows have no loss yet, and how many no output or choice."""
        missing = [known.missing for known in self.rows.values()]
        return sum(len(m.losses) for m in missing), sum(len(m.answers) for m in missing)

    @property
    def is_complete(self) -> bool:
        """Whether nothing has to be measured. The base alone is not worth loading the model for."""
        return self.size == (0, 0)

    @property
    def what(self) -> str:
        """What is left to measure: `3 new rows`, `80 outputs`, or nothing."""
        rows, outputs = self.size
        if rows:
            return f"{rows} new row{'s' if rows > 1 else ''}"
        return f"{outputs} output{'s' if outputs > 1 else ''}" if outputs else "nothing"

    def as_fact(self) -> dict[str, Any]:
        """What the log says of it: the record that it rests on, and how much was measured."""
        rows, answers = self.size
        return {"of": self.name, "rows": rows, "answers": answers}


@dataclass(frozen=True)
class Again:
    """Finds and evaluates known trainings of one loop. `notes` is what the user is to be told."""

    config: LoopConfig
    inputs: Inputs
    log: ImprovementLog
    backend: Backend
    notes: list[str]
    progress: Progress

    @cached_property
    def sets(self) -> tuple[Measurable, ...]:
        """What is measured: the eval set and the guards."""
        return Measurable.all_of(self.config, self.inputs)

    def known(self, settings: Settings) -> tuple[Known, ...]:
        """The trainings in the log with the weights of these settings; with least missing first.

        One that was ended early as hopeless is none, nor one whose record is damaged.
        """
        groups: dict[tuple[Any, ...], list[Measured]] = {}
        for run in self._runs(settings):
            groups.setdefault((decisive(run.environment), run.adapter), []).append(run)
        found = [known for runs in groups.values() if (known := self._known(runs, settings))]
        return tuple(sorted(found, key=lambda known: sum(known.size)))

    def evaluable(
        self, settings: Settings, environment: Mapping[str, str] | None = None
    ) -> Known | None:
        """The known training that can be evaluated in place of a new one; None to train.

        With `environment` only one that was trained there. The user learns where a training is only
        necessary because an adapter is not here, and what it costs.
        """
        reason = ""
        for known in self.known(settings):
            if environment and decisive(environment) != decisive(known.source.environment):
                continue
            why = self._why_not(known, settings)
            if not why:
                return known
            reason = reason or (
                f"the weights of {known.name} are known, but {why}: they are trained again to "
                f"measure {known.what} ({known.source.cost.seconds:.0f} s when they were trained)"
            )
        if reason:
            self.notes.append(reason)
            self.progress.working(reason)
        return None

    def prospect(self, settings: Settings) -> str:
        """What a run would do for settings whose weights the log knows; empty if it trains."""
        for known in self.known(settings):
            if known.is_complete:
                return f"That scores the logged outputs of {known.name} and trains nothing."
            if why := why_no_adapter(known.source):
                return (
                    f"To measure {known.what} it trains the weights of {known.name} again here "
                    f"({known.source.cost.seconds:.0f} s when they were trained): {why}."
                )
            return (
                f"That measures {known.what} of {known.name} with its adapter and trains nothing."
            )
        return ""

    def _why_not(self, known: Known, settings: Settings) -> str:
        """Why a known training can't be evaluated here; empty if it can."""
        if known.is_complete:
            return ""
        if why := why_no_adapter(known.source):
            return why
        here = self.backend.environment(settings)
        changed = environment_changes(known.source.environment, here)
        return f"environment changed ({', '.join(changed)})" if changed else ""

    def evaluate(
        self, known: Known, settings: Settings, base_eval_loss: float | None = None
    ) -> Run:
        """Measure what is missing with the training's adapter; the run, with outputs not scored.

        `base_eval_loss` is the untrained base's loss where that is known already: then the base is
        not looked at.
        """
        asks_base = base_eval_loss is None
        found = FoundAll({}, {})
        if not known.is_complete:
            adapter = adapter_at_hand(known.source)
            assert adapter is not None, why_no_adapter(known.source)
            base = known.base if asks_base else {}
            missing = ToMeasure(
                {role: rows.missing for role, rows in known.rows.items() if rows.missing},
                {role: rows.missing for role, rows in base.items() if rows.missing},
            )
            found = self.backend.measure_missing(settings, adapter, missing)
        trained = known.trained
        rows = self._measured(known.rows, found.trained)
        of_base = self._base_results(known, found.base) if asks_base else None
        if base_eval_loss is None:
            base_eval_loss = self._base_eval_loss(known, found.base)
        limit = rows_limit(known.rows[EVAL], found.trained.get(EVAL))
        evaluation = Evaluation(
            examples=rows[EVAL],
            train_examples=trained.train_examples,
            final_train_examples=trained.final_train_examples,
            base_eval_loss=base_eval_loss,
            max_new_tokens=limit,
            train_figures=trained.train_figures or {},
            guards={of.guard: rows[of.role] for of in self.sets if of.guard},
            base=of_base,
        )
        return Run(
            trained.training, evaluation, trained.cost, trained.environment, known.source.adapter
        )

    def scored(self, run: Run) -> Run:
        """The run with all rows scored, the base's too. Raises `ScoringError`."""
        of_eval, *guards = self.sets
        evaluation = run.evaluation

        def all_guards(rows: Mapping[str, Sequence[ExampleResult]]) -> dict[str, Rows]:
            return {of.guard: of.scored(rows[of.guard]) for of in guards if of.guard in rows}

        base = evaluation.base
        if base is not None:
            base = BaseResults(of_eval.scored(base.examples), all_guards(base.guards))
        evaluation = replace(
            evaluation,
            examples=of_eval.scored(evaluation.examples),
            guards=all_guards(evaluation.guards),
            base=base,
        )
        return replace(run, evaluation=evaluation)

    def _measured(
        self, known: Mapping[str, KnownRows], found: Mapping[str, Found]
    ) -> dict[str, Rows]:
        """The rows of each role: as known, or else as found; not scored."""
        return {
            of.role: tuple(of.rows(known[of.role], found.get(of.role, Found())))
            for of in self.sets
            if of.role in known
        }

    def _base_results(self, known: Known, found: Mapping[str, Found]) -> BaseResults | None:
        """What the untrained base gives, where all of it is known now."""
        for of in self.sets:
            rows = known.base.get(of.role)
            if rows is None or not of.is_whole(rows, found.get(of.role, Found())):
                return None
        rows_by_role = self._measured(known.base, found)
        guards = {of.guard: rows_by_role[of.role] for of in self.sets if of.guard}
        return BaseResults(rows_by_role[EVAL], guards)

    def _base_eval_loss(self, known: Known, found: Mapping[str, Found]) -> float:
        """The untrained base's loss: of its rows, else as logged of the same rows, else NaN."""
        of_eval, rows = self.sets[0], known.base[EVAL]
        if of_eval.has_losses(rows, found.get(EVAL, Found())):
            return token_mean_loss(of_eval.rows(rows, found.get(EVAL, Found())))
        return _logged_base_loss(known.source, self.inputs)

    def _runs(self, settings: Settings) -> Iterator[Measured]:
        """The sound runs in the log with the weights of these settings, the latest first."""
        iterations = self.log.read()
        wanted = {self.inputs.weights(settings), self.inputs.weights(rounded(settings))}
        by_id = {iteration.id: iteration for iteration in iterations}
        aside = aside_of(self.log)
        runs: Sequence[Measured] = (
            *reversed(iterations),
            *self.log.view.seed_runs(),
            *aside.view.seed_runs(),  # they are not scored yet
        )
        for run in runs:
            if run.weights and run.weights not in wanted:
                continue  # nearly always, and it spares a hash of the train rows
            if self._weights_of(run, by_id) not in wanted or not self._is_sampled_alike(run):
                continue
            try:
                self.log.verify(run)
            except LogError:  # it is named where it is needed, and here nothing is taken from it
                continue
            yield run

    def _is_sampled_alike(self, run: Measured) -> bool:
        """Whether its train losses are of the loop's `train_sample`.

        Another sample can't be measured with the last weights, which are not kept. Older records do
        not say: of those it is another one where nothing else can differ.
        """
        said = run.data.get("train", {}).get("sampled")
        if said is not None:
            return bool(said == sampled(self.config, self.inputs.train))
        eval_ = str(run.data.get("eval", {}).get("sha256", ""))
        is_measured_alike = self.inputs.eval.sha256.startswith(eval_) and (
            dict(run.scoring) == rounded(self.inputs.scoring)
        )
        return not is_measured_alike or bool(self.inputs.guards)

    def _weights_of(self, run: Measured, by_id: Mapping[str, Iteration]) -> str:
        """What identifies the weights of a run by what its record says; empty if it is no use."""
        if isinstance(run, Iteration):
            if ended_as_hopeless(run):
                return ""
            weights = self.inputs.weights(run.settings) if self._has_base(run) else ""
            return weights if run.weights in ("", weights) or self._is_stated(run) else ""
        if run.role == "baseline":
            return ""
        of = by_id.get(run.iteration)
        if of is None or not self._has_base(of):
            return ""
        training = {**of.settings.training, "seed": run.seed}
        weights = self.inputs.weights(replace(of.settings, training=training))
        return weights if run.weights in ("", weights) else ""

    def _is_stated(self, run: Iteration) -> bool:
        """Whether a record's weights are those of the loop file's settings before rounding."""
        return run.weights == self.inputs.weights(self.config.settings)

    def _has_base(self, run: Iteration) -> bool:
        """Whether a run has the loop's base model and tokenizer, and without `weights` its rows."""
        if run.model != self.inputs.model:
            return False
        if run.facts.get("tokenizer", {}) != dict(self.inputs.tokenizer):
            return False
        rows = str(run.data.get("train", {}).get("sha256", ""))
        return bool(run.weights) or (bool(rows) and self.inputs.train.sha256.startswith(rows))

    def _known(self, runs: Sequence[Measured], settings: Settings) -> Known | None:
        """What runs of one training have measured; None if its curve is unknown."""
        trained = next((found for run in runs if (found := trained_of(run))), None)
        if trained is None:
            return None
        sources = [Source.of(run) for run in runs]
        bases = self._bases(runs[0], settings)
        return Known(
            runs[0],
            trained,
            {of.role: known_rows(of, sources) for of in self.sets},
            # The base is measured whole where that is asked for, and not on this occasion.
            {of.role: known_rows(of, bases) for of in self.sets if bases or of.role == EVAL},
        )

    def _bases(self, run: Measured, settings: Settings) -> list[Source]:
        """The measurements of the untrained base that a training's rows can stand beside."""
        here = decisive(run.environment)
        return [
            Source.of(base)
            for base in self.log.view.bases()
            if base.model == self.inputs.model
            and base.facts.get("tokenizer", {}) == dict(self.inputs.tokenizer)
            and base.facts.get("training", {}) == rounded(tokenising(settings.training))
            and decisive(base.environment) == here
        ]


def rows_limit(known: KnownRows, found: Found | None) -> int:
    """The limit of new tokens that the outputs of a set have; 0 if there are none."""
    return (found.max_new_tokens if found else 0) or known.missing.max_new_tokens


def _logged_base_loss(source: Measured, inputs: Inputs) -> float:
    """The untrained base's loss, as logged on the same eval rows; NaN if it is not known."""
    if not isinstance(source, Iteration):
        return math.nan
    then = Counter(row.content for row in source.examples)
    now = Counter(example.content for example in inputs.eval.examples)
    return source.base.get("eval_loss", math.nan) if then == now else math.nan
