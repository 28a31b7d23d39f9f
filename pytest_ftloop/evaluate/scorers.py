"""Scorers decide whether an example passes: the built-in ones, and the user's function or hook.

`loss` and `choice` use the model's probabilities (`score_by_loss`, `score_by_choice`); every other
scorer reads the generated text (`load_scorer`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
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
    tolerances,
)
from pytest_ftloop.core.chat import answers
from pytest_ftloop.core.errors import ConfigError, Location, ScoringError
from pytest_ftloop.core.functions import described, load_function, raised_at
from pytest_ftloop.core.records import Example, ExampleResult
from pytest_ftloop.core.sampled import SCORE
from pytest_ftloop.evaluate.calls import calls_in, expected_calls, shares
from pytest_ftloop.evaluate.json_values import (
    MISSING,
    are_calls,
    ordered,
    parse,
    same,
    values_and_texts,
    wrong_fields,
)
from pytest_ftloop.evaluate.judge import JudgeScorer
from pytest_ftloop.evaluate.number import is_near, last_number
from pytest_ftloop.evaluate.overlap import f1, rouge
from pytest_ftloop.evaluate.scored import (
    Scored,
    Scorer,
    UserScorer,
    by_pass_at,
    scored_by_user,
    short,
)

SIGNATURE = ("output", "expected", "example")
"""The parameters of a user's scoring function, which may also take any of these and `prompt`."""


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
    if name == "judge":
        assert scoring.judge is not None  # checked
        return JudgeScorer(scoring.judge, scoring, where)
    if name == "hook":
        if hook is None:
            raise ConfigError(
                "scorer 'hook': wanted a pytest_ftloop_score hook, found none",
                where=where,
                cure="Define pytest_ftloop_score in a conftest.py, or name another scorer.",
            )
        return _guarded("pytest_ftloop_score", hook, scoring)
    if ":" in name:
        by_name = (*SIGNATURE, "prompt")
        function = load_function("scorer", name, SIGNATURE, folder, where, by_name=by_name)

        def call(example: Example, output: str) -> object:
            wanted = (example.expected or "").strip()
            return function(output, wanted, row_of(example), example.prompt or "")

        return _guarded(name, call, scoring, file_of(function))
    if name == "rouge":
        return _rouge(scoring, where)
    return _BUILT_IN[name](scoring)


def file_of(function: Callable[..., object]) -> str | None:
    """The file that defines a user's function; None if it is not written in Python."""
    file: str | None = getattr(getattr(unwrap(function), "__code__", None), "co_filename", None)
    return file


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


def _best(scoring: Scoring, score: Callable[[Example, str, str], Scored]) -> Scorer:
    """A scorer of (example, output, wanted text), by the acceptable answer that is the best.

    That is the first of those that pass, else of those with the highest scores.
    """

    def scored(example: Example, output: str) -> Scored:
        wanted = (_expected(example, scoring), *example.answers)
        found = (score(example, output, text) for text in wanted)
        return max(found, key=lambda one: (one.passed, sum(one.scores.values())))

    return scored


def _exact(scoring: Scoring) -> Scorer:
    def passes(example: Example, output: str, text: str) -> Scored:
        wanted, found = _folded(text, scoring), _folded(output, scoring)
        equal = wanted == found or (_calls_tools(example) and _same_calls(wanted, found))
        return Scored(equal)

    return _best(scoring, passes)


def _contains(scoring: Scoring) -> Scorer:
    def passes(example: Example, output: str, text: str) -> Scored:
        wanted = _folded(_not_empty(text, example, scoring), scoring)
        found = _folded(output, scoring)
        if wanted in found or not _calls_tools(example):
            return Scored(wanted in found)
        written, _ = values_and_texts(found)
        calls, _ = values_and_texts(wanted)
        if not are_calls(calls):
            return Scored(" ".join(ordered(wanted).split()) in " ".join(ordered(found).split()))
        return Scored(all(any(same(c, value) for value in written) for c in calls))

    return _best(scoring, passes)


def _regex(scoring: Scoring) -> Scorer:
    if scoring.pattern is not None:
        common = compiled_pattern(scoring.pattern, scoring, None)
        return lambda _example, output: Scored(common.search(output) is not None)

    def passes(example: Example, output: str) -> Scored:
        pattern = _not_empty(_expected(example, scoring), example, scoring)
        try:
            return Scored(compile_pattern(pattern, scoring).search(output) is not None)
        except ValueError as error:
            raise ScoringError(
                f"scorer 'regex': the expected text of example {example.id!r} is not a valid"
                f" pattern: {error}",
                where=example.where,
                cure="Fix the expected text, or set one pattern for all: scoring: {pattern: ...}",
            ) from error

    return passes


def _json(scoring: Scoring) -> Scorer:
    def scored(example: Example, output: str, text: str) -> Scored:
        if _calls_tools(example) and not are_calls(values_and_texts(text)[0]):
            # The name is outside the JSON, or there is no JSON.
            passed = _same_calls(text, output)
            return Scored(passed, dict.fromkeys(("score.valid", "score.fields"), float(passed)))
        wanted, found = _wanted_json(example, text), _found_json(example, output)
        fields = 0.0
        if found is not MISSING:
            wrong, total = wrong_fields(wanted, found)
            fields = (total - len(wrong)) / total
        scores = {"score.valid": float(found is not MISSING), "score.fields": fields}
        if scoring.pass_at is not None:
            return by_pass_at(scores, scoring)
        return Scored(found is not MISSING and same(wanted, found), scores)

    return _best(scoring, scored)


def _wanted_json(example: Example, text: str) -> Any:
    """The JSON value of an acceptable answer; of an answer with tool calls, the list of them."""
    if _calls_tools(example):
        return values_and_texts(text)[0]
    try:
        return parse(text)
    except (ValueError, RecursionError) as error:
        raise ScoringError(
            f"scorer 'json': wanted JSON as the expected text of example {example.id!r},"
            f" found {short(text)}: {described(error)}",
            where=example.where,
            cure="Fix the expected text, or choose another scorer.",
        ) from error


def _found_json(example: Example, output: str) -> Any:
    """The JSON value of an output; `MISSING` if it is none."""
    if _calls_tools(example):
        return values_and_texts(output)[0] or MISSING
    try:
        return parse(output)
    except (ValueError, RecursionError):
        return MISSING


def _number(scoring: Scoring) -> Scorer:
    absolute, relative = tolerances(scoring, None)

    def passes(example: Example, output: str, text: str) -> Scored:
        wanted, found = last_number(text), last_number(output)
        if wanted is None:
            raise ScoringError(
                f"scorer 'number': wanted a number in the expected text of example {example.id!r},"
                f" found {short(text)}",
                where=example.where,
                cure="Fix the expected text, or choose another scorer.",
            )
        return Scored(found is not None and is_near(found, wanted, absolute, relative))

    return _best(scoring, passes)


def _f1(scoring: Scoring) -> Scorer:
    return _best(scoring, lambda _, output, text: by_pass_at({SCORE: f1(text, output)}, scoring))


def _rouge(scoring: Scoring, where: Location | None) -> Scorer:
    # Imported with the first text: a replay scores none, and need not have the package.
    overlap = lru_cache(maxsize=1)(lambda: rouge(scoring.rouge or "rougeL", where))
    return _best(
        scoring, lambda _, output, text: by_pass_at({SCORE: overlap()(text, output)}, scoring)
    )


def _tool_call(scoring: Scoring) -> Scorer:
    def scored(example: Example, output: str) -> Scored:
        names, calls = shares(expected_calls(example), calls_in(output))
        return by_pass_at({"score.name": names, "score.arguments": calls}, scoring)

    return scored


_BUILT_IN: Mapping[str, Callable[[Scoring], Scorer]] = {
    "exact": _exact,
    "contains": _contains,
    "regex": _regex,
    "json": _json,
    "number": _number,
    "f1": _f1,
    "tool_call": _tool_call,
}


def _guarded(name: str, score: UserScorer, scoring: Scoring, file: str | None = None) -> Scorer:
    """Wrap a user's scorer so that it returns what it scored, or raises ScoringError.

    An exception that is not an `Exception`, such as Ctrl-C, passes through.
    """

    def scored(example: Example, output: str) -> Scored:
        try:
            result = score(example, output)
        except Exception as error:
            raise ScoringError(
                f"scorer {name!r} raised {described(error)} on example {example.id!r}",
                where=example.where,
                cure=f"It was raised at {raised_at(error, file)}, for the output {short(output)}"
                f" and the expected text {short(example.expected)}.",
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
    """Whether two texts with tool calls are equal, with keys and arguments in any order."""
    (wanted, words), (found, others) = (values_and_texts(ordered(t)) for t in (expected, output))
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


def _not_empty(text: str, example: Example, scoring: Scoring) -> str:
    text = text.strip()
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
