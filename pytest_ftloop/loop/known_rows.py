"""What a log has measured of a set of rows, by their content, and what of it is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.scoring import needs_generation
from pytest_ftloop.core.metrics import GUARD
from pytest_ftloop.core.records import (
    Example,
    ExampleResult,
    Iteration,
    SeedRun,
    Untrained,
    measured_content,
)
from pytest_ftloop.core.set_metrics import ONLY_READ
from pytest_ftloop.evaluate.scored import Scorer, scored_by_output
from pytest_ftloop.evaluate.scorers import score_by_loss
from pytest_ftloop.log.writing import rounded
from pytest_ftloop.train.task import EVAL, Found, Missing

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.config.scoring import Scoring
    from pytest_ftloop.loop.inputs import Inputs

OF_SCORER = frozenset(
    {
        "scorer",
        "source",
        "threshold",
        "pattern",
        "choices",
        "ignore_case",
        "pass_at",
        "tolerance",
        "rouge",
    }
    | {"judge", *ONLY_READ}
)
"""What of a scoring's identity only says how an output is scored. All else counts as a part of how
it is generated: outputs of another generation are not scored as if they were of this one."""

Rows = Mapping[str, ExampleResult]
"""Results by the content of their rows."""


@dataclass(frozen=True)
class KnownRows:
    """What is known of a set: `answers` have an output of its generation, or a choice of it."""

    losses: Rows
    answers: Rows
    missing: Missing


@dataclass(frozen=True)
class Source:
    """The rows of one record by role, how they were scored, and their limit of new tokens."""

    rows: Mapping[str, Sequence[ExampleResult]]
    scoring: Mapping[str, Mapping[str, Any]]
    limits: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Iteration | SeedRun | Untrained) -> Source:
        """The rows of a record: of its eval set and guards."""
        guards = {f"{GUARD}.{name}": rows for name, rows in record.guards.items()}
        scoring = {role: record.data.get(role, {}).get("scoring") or {} for role in guards}
        return cls(
            {EVAL: record.examples, **guards},
            {EVAL: record.scoring, **scoring},
            {
                role: int(of["max_new_tokens"])
                for role, of in record.data.items()
                if "max_new_tokens" in of
            },
        )


@dataclass(frozen=True)
class Measurable:
    """A set of rows that is measured: the eval set, or a guard.

    `guard` is the guard's name, empty for the eval set. Without a `scoring` only losses are.
    `identity` is that of the scoring.
    """

    role: str
    guard: str
    examples: tuple[Example, ...]
    scoring: Scoring | None
    scorer: Scorer | None
    identity: Mapping[str, Any]

    @classmethod
    def all_of(cls, config: LoopConfig, inputs: Inputs) -> tuple[Measurable, ...]:
        """The loop's eval set, then its guards."""
        scoring = rounded(inputs.scoring)
        of_eval = cls(EVAL, "", inputs.eval.examples, config.scoring, inputs.scorer, scoring)
        return (
            of_eval,
            *(
                cls(
                    guard.role,
                    guard.name,
                    guard.rows.examples,
                    guard.scoring,
                    guard.scorer,
                    rounded(inputs.guard_identities[guard.name]["scoring"] or {}),
                )
                for guard in inputs.guards
            ),
        )

    @property
    def is_answered(self) -> bool:
        """Whether its rows need an output or a choice."""
        return self.scoring is not None and self.scoring.scorer != "loss"

    @property
    def is_by_choice(self) -> bool:
        """Whether its rows need a choice."""
        return self.scoring is not None and self.scoring.scorer == "choice"

    def has_losses(self, known: KnownRows, found: Found) -> bool:
        """Whether the loss of each row is known now."""
        ids = {row.id for row in found.losses}
        return all(e.content in known.losses or e.id in ids for e in self.examples)

    def is_whole(self, known: KnownRows, found: Found) -> bool:
        """Whether each row is known now, with its output or choice."""
        ids = {row.id for row in found.answers}
        answered = all(e.content in known.answers or e.id in ids for e in self.examples)
        return self.has_losses(known, found) and (answered or not self.is_answered)

    def rows(self, known: KnownRows, found: Found) -> Iterator[ExampleResult]:
        """A result for each example: its loss and answer as found, or else as known."""
        losses = {row.id: row for row in found.losses}
        answers = {row.id: row for row in found.answers}
        for example in self.examples:
            measured = losses.get(example.id) or known.losses[example.content]
            answer = answers.get(example.id) or known.answers.get(example.content)
            yield ExampleResult(
                example.id,
                example.content,
                example.tags,
                measured.loss,
                measured.tokens,
                measured.correct,
                passed=answer.passed if answer and self.is_by_choice else None,
                expected=answer.expected if answer else (example.expected or "").strip(),
                output=answer.output if answer else "",
                outputs=answer.outputs if answer else (),
            )

    def scored(self, rows: Sequence[ExampleResult]) -> tuple[ExampleResult, ...]:
        """The rows, scored from their outputs or losses; choices are scored already."""
        if self.scoring is None:
            return tuple(rows)
        if self.scoring.scorer == "loss":
            scoring = self.scoring
            return tuple(replace(row, passed=score_by_loss(scoring, row)) for row in rows)
        if self.scorer is None:
            return tuple(rows)
        return scored_by_output(rows, self.examples, self.scorer, self.scoring.scorer)


def known_rows(of: Measurable, sources: Sequence[Source]) -> KnownRows:
    """What the sources, the latest first, have measured of a set."""
    losses = _by_example(of, (row for source in sources for row in source.rows.get(of.role, ())))
    usable = [source for source in sources if _is_answered(of, source)]
    limit = max((_limit(of, source) for source in usable), default=0)
    alike = [source for source in usable if _limit(of, source) == limit]
    rows = (row for source in alike for row in source.rows[of.role])
    answers = _by_example(of, rows, exactly=of.is_by_choice)
    unanswered = tuple(e for e in of.examples if e.content not in answers)
    missing = Missing(
        losses=tuple(e for e in of.examples if e.content not in losses),
        answers=unanswered if of.is_answered else (),
        max_new_tokens=limit,
    )
    return KnownRows(losses, answers, missing)


def _by_example(of: Measurable, rows: Iterable[ExampleResult], *, exactly: bool = False) -> Rows:
    """The first row of each example, by the example's content.

    What only scorers read does not count: the row has the same loss and output with it, without it
    and after a change of it. `exactly`: it counts, as a row's own candidates do for its choice.
    """
    by_content: dict[str, ExampleResult] = {}
    for row in rows:
        by_content.setdefault(row.content, row)
        if not exactly:
            by_content.setdefault(measured_content(row.content), row)
    found: dict[str, ExampleResult] = {}
    for example in of.examples:
        whole = example.content
        names = (whole,) if exactly else (whole, measured_content(whole))
        if known := next((name for name in names if name in by_content), None):
            found[whole] = by_content[known]
    return found


def _is_answered(of: Measurable, source: Source) -> bool:
    """Whether a source's rows have outputs, or choices, that hold for the set's scoring."""
    rows, scoring = source.rows.get(of.role, ()), source.scoring.get(of.role, {})
    if of.scoring is None or not rows:
        return False
    is_scored = all(row.passed is not None for row in rows)
    if not needs_generation(of.scoring):
        is_choice = of.is_by_choice and scoring.get("scorer") == "choice"
        is_alike = _choices(scoring) == _choices(of.identity) and _has_its_candidates(of, rows)
        return is_choice and is_scored and is_alike
    if scoring.get("scorer", "loss") in {"loss", "choice"}:
        return False
    has_outputs = is_scored or of.role in source.limits
    return has_outputs and _generation(scoring) == _generation(of.identity)


def _has_its_candidates(of: Measurable, rows: Sequence[ExampleResult]) -> bool:
    """Whether rows were chosen among the set's candidates: a guard's own answers, if none stated.

    With another answer among its rows all of them choose among other texts.
    """
    if not of.guard or (of.scoring is not None and of.scoring.choices):
        return True
    now = {(example.expected or "").strip() for example in of.examples}
    return {row.expected.strip() for row in rows} == now


def _limit(of: Measurable, source: Source) -> int:
    """The limit of new tokens of a source's outputs; 0 where an older record does not say."""
    stated = (of.scoring.max_new_tokens if of.scoring else None) or 0
    return source.limits.get(of.role, stated)


def _generation(scoring: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scoring.items() if name not in OF_SCORER}


def _choices(scoring: Mapping[str, Any]) -> list[str]:
    return list(scoring.get("choices", ()))
