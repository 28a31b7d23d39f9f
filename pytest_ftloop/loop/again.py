"""Evaluate a training again whose weights the log knows: measure what is missing, train nothing.

Losses, outputs and choices are taken from the log by the content of their rows. A new scorer reads
the outputs that are there, so it needs neither torch nor the model. What is missing is measured
with the adapter in this machine's cache, in the environment of the other figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.scoring import needs_generation
from pytest_ftloop.core.cache import adapter_at_hand, why_no_adapter
from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.records import (
    Evaluation,
    Example,
    ExampleResult,
    Iteration,
    Run,
    Settings,
    ended_as_hopeless,
)
from pytest_ftloop.core.runs import decisive, environment_changes
from pytest_ftloop.data.identity import content_for_model
from pytest_ftloop.evaluate.scored import scored_by_output
from pytest_ftloop.evaluate.scorers import score_by_loss
from pytest_ftloop.log.writing import rounded
from pytest_ftloop.loop.inputs import sampled
from pytest_ftloop.loop.trained import Trained, trained_of
from pytest_ftloop.train.task import Found, Missing

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.core.runs import Measured
    from pytest_ftloop.log import ImprovementLog
    from pytest_ftloop.loop.backend import Backend
    from pytest_ftloop.loop.inputs import Inputs

OF_SCORER = frozenset(
    {"scorer", "source", "threshold", "pattern", "choices", "ignore_case", "pass_at"}
)
"""What of a scoring's identity only says how an output is scored. All else counts as a part of how
it is generated: outputs of another generation are not scored as if they were of this one."""

Rows = Mapping[str, ExampleResult]
"""Results by the content of their rows."""


@dataclass(frozen=True)
class Known:
    """A training that the log knows, and what of the loop's eval set is measured of it.

    `source` is its latest record. `answers` have an output of this generation, or a choice of this
    scoring. `missing` is what is left to measure.
    """

    source: Measured
    trained: Trained
    losses: Rows
    answers: Rows
    missing: Missing

    @property
    def name(self) -> str:
        """What to call its record."""
        return name_of_run(self.source)

    def as_fact(self) -> dict[str, Any]:
        """What the log says of it: the record that it rests on, and how much was measured."""
        rows, answers = len(self.missing.losses), len(self.missing.answers)
        return {"of": self.name, "rows": rows, "answers": answers}

    @property
    def what(self) -> str:
        """What is left to measure: `3 new rows`, `80 outputs`, or nothing."""
        rows, outputs = len(self.missing.losses), len(self.missing.answers)
        if rows:
            return f"{rows} new row{'s' if rows > 1 else ''}"
        return f"{outputs} output{'s' if outputs > 1 else ''}" if outputs else "nothing"


@dataclass(frozen=True)
class Again:
    """Finds and evaluates known trainings of one loop. `notes` is what the user is to be told."""

    config: LoopConfig
    inputs: Inputs
    log: ImprovementLog
    backend: Backend
    notes: list[str]
    progress: Progress

    def known(self, settings: Settings) -> tuple[Known, ...]:
        """The trainings in the log with the weights of these settings; with least missing first.

        One that was ended early as hopeless is none, nor one whose record is damaged.
        """
        groups: dict[tuple[Any, ...], list[Measured]] = {}
        for run in self._runs(settings):
            groups.setdefault((decisive(run.environment), run.adapter), []).append(run)
        found = [known for runs in groups.values() if (known := self._known(runs))]
        return tuple(sorted(found, key=_size))

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
            if not known.missing:
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
        if not known.missing:
            return ""
        if why := why_no_adapter(known.source):
            return why
        here = self.backend.environment(settings)
        changed = environment_changes(known.source.environment, here)
        return f"environment changed ({', '.join(changed)})" if changed else ""

    def evaluate(
        self, known: Known, settings: Settings, base_eval_loss: float | None = None
    ) -> Run:
        """Measure what is missing with the training's adapter; the run, with outputs not scored."""
        found = Found()
        if known.missing:
            adapter = adapter_at_hand(known.source)
            assert adapter is not None, why_no_adapter(known.source)
            missing = known.missing
            if base_eval_loss is None and self._base_eval_loss(known.source) is None:
                missing = replace(missing, base=self.inputs.eval.examples)
            found = self.backend.measure_missing(settings, adapter, missing)
        if base_eval_loss is None:
            base_eval_loss = self._base_eval_loss(known.source)
        if base_eval_loss is None:
            base_eval_loss = token_mean_loss(found.base)
        trained = known.trained
        evaluation = Evaluation(
            examples=tuple(self._rows(known, found)),
            train_examples=trained.train_examples,
            final_train_examples=trained.final_train_examples,
            base_eval_loss=base_eval_loss,
            max_new_tokens=found.max_new_tokens or known.missing.max_new_tokens,
            train_figures=trained.train_figures or {},
            guards=known.source.guards,
        )
        return Run(
            trained.training, evaluation, trained.cost, trained.environment, known.source.adapter
        )

    def scored(self, run: Run) -> Run:
        """The run with its examples scored. Raises `ScoringError`."""
        rows, scoring = run.evaluation.examples, self.config.scoring
        if scoring.scorer == "loss":
            rows = tuple(replace(row, passed=score_by_loss(scoring, row)) for row in rows)
        elif self.inputs.scorer is not None:
            examples = self.inputs.eval.examples
            rows = scored_by_output(rows, examples, self.inputs.scorer, scoring.scorer)
        return replace(run, evaluation=replace(run.evaluation, examples=rows))

    def _runs(self, settings: Settings) -> Iterator[Measured]:
        """The sound runs in the log with the weights of these settings, the latest first."""
        iterations = self.log.read()
        wanted = {self.inputs.weights(settings), self.inputs.weights(rounded(settings))}
        by_id = {iteration.id: iteration for iteration in iterations}
        runs: Sequence[Measured] = (*reversed(iterations), *self.log.view.seed_runs())
        for run in runs:
            if self._weights_of(run, by_id) not in wanted or not self._is_sampled_alike(run):
                continue
            if not self._is_guarded_alike(run):
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
        return not is_measured_alike

    def _is_guarded_alike(self, run: Measured) -> bool:
        """Whether a run has measured the loop's guards as they are measured now."""
        return all(
            run.data.get(guard.role) == rounded(self.inputs.measured_data[guard.role])
            for guard in self.inputs.guards
        )

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

    def _known(self, runs: Sequence[Measured]) -> Known | None:
        """What runs of one training have measured of the eval set; None if its curve is unknown."""
        source = runs[0]
        trained = next((found for run in runs if (found := trained_of(run))), None)
        if trained is None:
            return None
        losses = self._of_eval_set(row for run in runs for row in run.examples)
        limit = max(map(self._limit, runs))
        answered = (run for run in runs if self._is_answered(run) and self._limit(run) == limit)
        answers = self._of_eval_set(row for run in answered for row in run.examples)
        missing = Missing(
            losses=tuple(e for e in self.inputs.eval.examples if e.content not in losses),
            answers=self._unanswered(answers),
            max_new_tokens=limit,
        )
        return Known(source, trained, losses, answers, missing)

    def _of_eval_set(self, rows: Iterable[ExampleResult]) -> Rows:
        """The first row of each of the loop's eval examples, by the example's content.

        A row without the columns that only scorers read counts as the same row with them.
        """
        by_content: dict[str, ExampleResult] = {}
        for row in rows:
            by_content.setdefault(row.content, row)
        found: dict[str, ExampleResult] = {}
        for example in self.inputs.eval.examples:
            content = example.content
            if content not in by_content:
                content = content_for_model(example)
            if content in by_content:
                found[example.content] = by_content[content]
        return found

    def _unanswered(self, answers: Rows) -> tuple[Example, ...]:
        if self.config.scoring.scorer == "loss":
            return ()
        return tuple(e for e in self.inputs.eval.examples if e.content not in answers)

    def _is_answered(self, run: Measured) -> bool:
        """Whether a run's rows have outputs, or choices, that hold for the loop's scoring."""
        scoring = rounded(self.inputs.scoring)
        is_scored = all(row.passed is not None for row in run.examples)
        if not needs_generation(self.config.scoring):
            is_alike = scoring["scorer"] == "choice" and dict(run.scoring) == scoring
            return is_alike and is_scored
        if run.scoring.get("scorer") in {"loss", "choice"}:
            return False
        has_outputs = is_scored or "max_new_tokens" in run.data.get("eval", {})
        return has_outputs and _generation(run.scoring) == _generation(scoring)

    def _limit(self, run: Measured) -> int:
        """The limit of new tokens by which a run's outputs were generated; 0 if it has none.

        Also where it is unknown: older records lack it.
        """
        if not self._is_answered(run):
            return 0
        stated = self.config.scoring.max_new_tokens or 0
        return int(run.data.get("eval", {}).get("max_new_tokens", stated))

    def _rows(self, known: Known, found: Found) -> Iterator[ExampleResult]:
        """A result for each example: its loss and answer as known, or else as found."""
        losses = {row.id: row for row in found.losses}
        answers = {row.id: row for row in found.answers}
        for example in self.inputs.eval.examples:
            measured = losses.get(example.id) or known.losses[example.content]
            answer = answers.get(example.id) or known.answers.get(example.content)
            yield ExampleResult(
                example.id,
                example.content,
                example.tags,
                measured.loss,
                measured.tokens,
                measured.correct,
                passed=answer.passed if answer and self.config.scoring.scorer == "choice" else None,
                expected=answer.expected if answer else (example.expected or "").strip(),
                output=answer.output if answer else "",
                outputs=answer.outputs if answer else (),
            )

    def _base_eval_loss(self, source: Measured) -> float | None:
        """The untrained base's loss, as logged on the same eval rows; None if it is not known."""
        if not isinstance(source, Iteration):
            return None
        then = Counter(row.content for row in source.examples)
        now = Counter(example.content for example in self.inputs.eval.examples)
        value = source.base.get("eval_loss", math.nan)
        return value if then == now and math.isfinite(value) else None


def name_of_run(run: Measured) -> str:
    """What to call a run's record."""
    return run.name if isinstance(run, Iteration) else f"{run.iteration} with seed {run.seed}"


def _generation(scoring: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scoring.items() if name not in OF_SCORER}


def _size(known: Known) -> int:
    return len(known.missing.losses) + len(known.missing.answers)
