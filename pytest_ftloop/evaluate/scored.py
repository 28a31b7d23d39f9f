"""What a scorer says of one output: whether it passes, and scores from 0 to 1 by their metric."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from numbers import Integral, Real
from typing import TypeVar

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import ScoringError
from pytest_ftloop.core.records import Example, ExampleResult
from pytest_ftloop.core.sampled import SCORE, SHARE
from pytest_ftloop.core.set_metrics import outputs_of

ROUNDING = 1e-9
"""What adding up a score's parts may move it by: ten times 0.1 is a little below 1."""

_NAME = re.compile(r"\w[\w.-]*")
"""The name of a score, which is part of a metric's: `score.fields[negation]`."""

WANTED = "a bool, a number from 0 to 1, or such numbers by name"
"""What a user's scorer may return."""


@dataclass(frozen=True)
class Scored:
    """Whether an output passes, and its scores from 0 to 1 by metric: `score`, `score.<name>`.

    A scorer that only says yes or no gives none.
    """

    passed: bool
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)


Scorer = Callable[[Example, str], Scored]
"""(example, generated output) -> whether it passes, and its scores."""

UserScorer = Callable[[Example, str], object]
"""A user's scorer: it returns a bool, a number from 0 to 1, or such numbers by name."""


def scored_by_user(result: object, scoring: Scoring) -> Scored:
    """What a user's scorer has returned. Raises ValueError for what is not `WANTED`.

    True, False and the whole numbers 1 and 0 are yes and no, also numpy's. Anything else passes
    where each score, or each that `pass_at` names, reaches it.
    """
    if (passed := _as_bool(result)) is not None:
        return Scored(passed)
    if isinstance(result, Mapping):
        if not result:
            raise ValueError(f"wanted {WANTED}, found an empty mapping")
        return by_pass_at({_named(n): _score(value, n) for n, value in result.items()}, scoring)
    return by_pass_at({SCORE: _score(result)}, scoring)


def by_pass_at(scores: Mapping[str, float], scoring: Scoring) -> Scored:
    """These scores, by metric; passed where they reach `pass_at`. ValueError if it names none."""
    wanted = scoring.pass_at if scoring.pass_at is not None else 1.0
    if not isinstance(wanted, Mapping):
        return Scored(all(v >= wanted - ROUNDING for v in scores.values()), scores)
    bounds = {f"{SCORE}.{name}": bound for name, bound in wanted.items()}
    if missing := [name for name in bounds if name not in scores]:
        name, found = missing[0].removeprefix(f"{SCORE}."), ", ".join(scores)
        raise ValueError(
            f"pass_at names the score {name!r}, which it does not give (found {found})"
        )
    return Scored(all(scores[name] >= bound - ROUNDING for name, bound in bounds.items()), scores)


_Row = TypeVar("_Row", Scored, ExampleResult)


def scored_by_output(
    results: Sequence[ExampleResult], examples: Sequence[Example], scorer: Scorer, name: str
) -> tuple[ExampleResult, ...]:
    """The results with `passed` and `scores` as the scorer, called `name`, says of their outputs.

    It compares with the results' own expected texts: those that the model is trained to write.
    """
    prepare = getattr(scorer, "prepare", None)
    if prepare is not None:  # a judge is asked for many outputs at a time
        prepare(
            (replace(example, expected=result.expected), output)
            for result, example in zip(results, examples, strict=True)
            for output in outputs_of(result)
        )
    said: list[Scored] = []
    scored_examples: list[Example] = []
    for result, example in zip(results, examples, strict=True):
        asked = replace(example, expected=result.expected)
        outputs = outputs_of(result)
        said += [scorer(asked, output) for output in outputs]
        scored_examples += [example] * len(outputs)
    alike = iter(scored_alike(said, scored_examples, name))
    return tuple(_of_all(result, [next(alike) for _ in outputs_of(result)]) for result in results)


def with_outputs(result: ExampleResult, outputs: Sequence[str]) -> ExampleResult:
    """The result with its outputs; several are kept in `outputs`, too."""
    return replace(result, output=outputs[0], outputs=tuple(outputs) if len(outputs) > 1 else ())


def _of_all(result: ExampleResult, said: Sequence[Scored]) -> ExampleResult:
    """The result with what was said of each of its outputs.

    Of several it has the share that passes, and its scores are their means. It passes if more than
    half of them do.
    """
    if not result.outputs:
        return replace(result, passed=said[0].passed, scores=said[0].scores)
    share = sum(each.passed for each in said) / len(said)
    scores = {
        name: math.fsum(each.scores[name] for each in said) / len(said) for name in said[0].scores
    }
    return replace(result, passed=share > 0.5, scores={**scores, SHARE: share})


def scored_alike(
    rows: Sequence[_Row], examples: Sequence[Example], scorer: str
) -> tuple[_Row, ...]:
    """The rows, each with the same scores. Raises ScoringError where a scorer names others.

    A yes or no among numbers is 1 or 0, so that the mean is one of all examples.
    """
    named: Mapping[str, float] = next((row.scores for row in rows if row.scores), {})
    if [*named] == [SCORE]:
        rows = [row if row.scores else replace(row, scores=_number_of(row)) for row in rows]
    for row, example in zip(rows, examples, strict=True):
        if row.scores.keys() != named.keys():
            raise ScoringError(
                f"scorer {scorer!r}: wanted the scores {', '.join(named)} for each example, "
                f"found {', '.join(row.scores) or 'none'} for {example.id!r}",
                where=example.where,
                cure="Return the same names for each example; 0 is the score of what is not there.",
            )
    return tuple(rows)


def _number_of(row: Scored | ExampleResult) -> dict[str, float]:
    return {SCORE: 1.0 if row.passed else 0.0}


def _named(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"wanted a score's name of letters, digits, '_', '-', '.', found {name!r}")
    return f"{SCORE}.{name}"


def _score(value: object, name: object = None) -> float:
    """A score as a plain number. Raises ValueError for anything but a number from 0 to 1."""
    if (passed := _as_bool(value)) is not None:
        return 1.0 if passed else 0.0
    number = float(value) if isinstance(value, Real | Decimal) else math.nan
    if not -ROUNDING <= number <= 1 + ROUNDING:
        wanted = WANTED if name is None else f"a number from 0 to 1 as {name!r}"
        raise ValueError(f"wanted {wanted}, found {short(value)} ({type(value).__name__})")
    return min(max(number, 0.0), 1.0)


def _as_bool(result: object) -> bool | None:
    """The result as a bool if it is a bool, 0 or 1, also of numpy; otherwise None."""
    numpy_bool = type(result).__module__ == "numpy" and type(result).__name__ in {"bool", "bool_"}
    if numpy_bool or (isinstance(result, Integral) and result in (0, 1)):
        return bool(result)
    return None


def short(value: object, most: int = 60) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."
