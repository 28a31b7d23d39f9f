"""Scorers decide whether an example passes: the built-in ones, and the user's function or hook.

`loss` and `choice` use the model's probabilities (`score_by_loss`, `score_by_choice`); every other
scorer reads the generated text (`load_scorer`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from inspect import unwrap
from pathlib import Path
from typing import Any

from pytest_ftloop.config.scoring import (
    Scoring,
    check_scoring,
    compile_pattern,
    compiled_pattern,
    loss_threshold,
    needs_generation,
)
from pytest_ftloop.core.chat import answers
from pytest_ftloop.core.errors import ConfigError, Location, ScoringError
from pytest_ftloop.core.functions import described, load_function, raised_at
from pytest_ftloop.core.records import Example, ExampleResult
from pytest_ftloop.evaluate.json_values import parse, same, values_and_texts
from pytest_ftloop.evaluate.scored import Scored, Scorer, UserScorer, scored_by_user, short

Passes = Callable[[Example, str], bool]
"""(example, generated output) -> whether it passes, of a scorer that says no more."""

SIGNATURE = ("output", "expected", "example")
"""The parameters of a user's scoring function."""


def load_scorer(
    scoring: Scoring,
    hook: UserScorer | None = None,
    *,
    folder: Path | None = None,
    where: Location | None = None,
) -> Scorer:
    """Load the scorer of generated text that `scoring` names, and check its settings.

    `hook` is used for the scorer `hook`. A module of `module:function` is searched for in `folder`
    first. `where` is the place of the setting, for errors. A built-in scorer raises ScoringError
    for a faulty example with any output, so that `scorer(example, "")` finds it before training.
    """
    check_scoring(scoring, where=where)
    name = scoring.scorer
    if not needs_generation(scoring):
        raise ValueError(f"the scorer {name!r} reads no generated text")
    if name == "hook":
        if hook is None:
            raise ConfigError(
                "scorer 'hook': wanted a pytest_ftloop_score hook, found none",
                where=where,
                cure="Define pytest_ftloop_score in a conftest.py, or name another scorer.",
            )
        return _guarded("pytest_ftloop_score", hook, scoring)
    if ":" in name:
        function = load_function("scorer", name, SIGNATURE, folder, where)

        def call(example: Example, output: str) -> object:
            return function(output, (example.expected or "").strip(), row_of(example))

        file = getattr(getattr(unwrap(function), "__code__", None), "co_filename", None)
        return _guarded(name, call, scoring, file)
    passes = {
        "exact": _exact,
        "contains": _contains,
        "regex": _regex,
        "json": _json,
    }[name](scoring)
    return lambda example, output: Scored(passes(example, output))


def score_by_loss(scoring: Scoring, result: ExampleResult) -> bool:
    """Whether the mean loss per token is at most the threshold. NaN, or no token, does not pass."""
    return result.mean_loss <= loss_threshold(scoring, None)


def score_by_choice(
    log_likelihoods: Sequence[float], candidates: Sequence[str], expected: str
) -> tuple[bool, str]:
    """Whether the most likely candidate is the expected one, and which candidate it is.

    Each figure is a candidate's log-likelihood given the prompt, summed over its tokens: the
    model's own probability of exactly that answer, not corrected for length. A figure that is not
    finite never wins; if none is finite, the choice is `""`. Of equals the first wins. Outer white
    space does not count.
    """
    chosen: tuple[float, str] | None = None
    for figure, candidate in zip(log_likelihoods, candidates, strict=True):
        if math.isfinite(figure) and (chosen is None or figure > chosen[0]):
            chosen = (figure, candidate)
    if chosen is None:
        return False, ""
    return chosen[1].strip() == expected.strip(), chosen[1]


def _exact(scoring: Scoring) -> Passes:
    def passes(example: Example, output: str) -> bool:
        wanted, found = _folded(_expected(example, scoring), scoring), _folded(output, scoring)
        return wanted == found or (_calls_tools(example) and _same_calls(wanted, found))

    return passes


def _contains(scoring: Scoring) -> Passes:
    def passes(example: Example, output: str) -> bool:
        wanted = _folded(_expected_not_empty(example, scoring), scoring)
        found = _folded(output, scoring)
        if wanted in found or not _calls_tools(example):
            return wanted in found
        written, _ = values_and_texts(found)
        calls, _ = values_and_texts(wanted)
        return bool(calls) and all(any(same(c, value) for value in written) for c in calls)

    return passes


def _regex(scoring: Scoring) -> Passes:
    if scoring.pattern is not None:
        common = compiled_pattern(scoring.pattern, scoring, None)
        return lambda _example, output: common.search(output) is not None

    def passes(example: Example, output: str) -> bool:
        pattern = _expected_not_empty(example, scoring)
        try:
            return compile_pattern(pattern, scoring).search(output) is not None
        except ValueError as error:
            raise ScoringError(
                f"scorer 'regex': the expected text of example {example.id!r} is not a valid"
                f" pattern: {error}",
                where=example.where,
                cure="Fix the expected text, or set one pattern for all: scoring: {pattern: ...}",
            ) from error

    return passes


def _json(scoring: Scoring) -> Passes:
    def passes(example: Example, output: str) -> bool:
        text = _expected(example, scoring)
        if _calls_tools(example):
            calls, _ = values_and_texts(text)
            return bool(calls) and same(calls, values_and_texts(output)[0])
        try:
            wanted = parse(text)
        except (ValueError, RecursionError) as error:
            raise ScoringError(
                f"scorer 'json': wanted JSON as the expected text of example {example.id!r},"
                f" found {short(text)}: {described(error)}",
                where=example.where,
                cure="Fix the expected text, or choose another scorer.",
            ) from error
        try:
            found = parse(output)
        except (ValueError, RecursionError):
            return False
        return same(wanted, found)

    return passes


def _guarded(name: str, score: UserScorer, scoring: Scoring, file: str | None = None) -> Scorer:
    """Wrap a user's scorer so that it returns what it scored, or raises ScoringError.

    An exception that is not an `Exception`, such as Ctrl-C, passes through.
    """

    def scored(example: Example, output: str) -> Scored:
        try:
            result = score(example, output)
        except Exception as error:
            keep = ""
            if isinstance(error, KeyError) and error.args and error.args[0] not in row_of(example):
                keep = " Columns that trl does not read are named in data.keep."
            raise ScoringError(
                f"scorer {name!r} raised {described(error)} on example {example.id!r}",
                where=example.where,
                cure=f"It was raised at {raised_at(error, file)}, for the output {short(output)}"
                f" and the expected text {short(example.expected)}.{keep}",
            ) from error
        try:
            return scored_by_user(result, scoring)
        except Exception as error:
            raise ScoringError(
                f"scorer {name!r} on example {example.id!r}: {error}",
                where=example.where,
                cure=f"It returned {short(result)} for the output {short(output)}; return a bool, "
                "a number from 0 to 1, or a mapping such as {'valid': 1.0, 'fields': 0.6}.",
            ) from error

    return scored


def _calls_tools(example: Example) -> bool:
    return any(message.get("tool_calls") for message in answers(example.row))


def _same_calls(expected: str, output: str) -> bool:
    """Whether two texts with tool calls are equal, each call as JSON: keys in any order."""
    (wanted, words), (found, others) = values_and_texts(expected), values_and_texts(output)
    return words == others and same(wanted, found)


def row_of(example: Example) -> dict[str, Any]:
    """The example for a user's scorer: its row and kept columns, with its id and tags."""
    return {"id": example.id, "tags": list(example.tags), **example.kept, **example.row}


def _expected(example: Example, scoring: Scoring) -> str:
    if example.expected is None:
        raise ScoringError(
            f"scorer {scoring.scorer!r}: wanted an expected text, example {example.id!r} has none",
            where=example.where,
            cure="Add a prompt and a completion, or messages, to the data; or use the scorer loss.",
        )
    return example.expected


def _expected_not_empty(example: Example, scoring: Scoring) -> str:
    text = _expected(example, scoring).strip()
    if not text:
        raise ScoringError(
            f"scorer {scoring.scorer!r}: the expected text of example {example.id!r} is empty, so"
            " any output would pass",
            where=example.where,
            cure="Fix the expected text, or use the scorer exact.",
        )
    return text


def _folded(text: str, scoring: Scoring) -> str:
    return text.strip().casefold() if scoring.ignore_case else text.strip()
