"""The names and options of the scorers, checked before anything is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_ftloop.core.errors import ConfigError, Location, did_you_mean

_FUNCTION = "module:function"
"""The name of all scorers that are a user's function, in the tables below."""

SCORERS: Mapping[str, str] = {
    "loss": "the example's mean loss per token is at most `threshold`; nothing is generated",
    "exact": "the output equals the expected text, surrounding whitespace aside",
    "contains": "the expected text occurs in the output",
    "regex": "`pattern`, or else the expected text as a pattern, is found in the output",
    "choice": "the expected text is the likeliest of the candidates; nothing is generated",
    "json": "output and expected text are the same JSON value, with or without a ```json fence",
    "hook": "the pytest_ftloop_score hook",
    _FUNCTION: "your function(output, expected, example): a bool, or scores from 0 to 1",
}
"""When an example passes, by the name of the scorer."""

_OPTIONS: Mapping[str, frozenset[str]] = {
    "loss": frozenset({"threshold"}),
    "exact": frozenset({"ignore_case"}),
    "contains": frozenset({"ignore_case"}),
    "regex": frozenset({"pattern", "ignore_case"}),
    "choice": frozenset({"choices"}),
    "hook": frozenset({"pass_at"}),
    _FUNCTION: frozenset({"pass_at"}),
}
"""The options of each scorer that has any."""


@dataclass(frozen=True)
class Scoring:
    """A scorer and its options.

    `threshold` is for `loss`, in nats per token. `pattern` is for `regex`; without it, the
    example's expected text is the pattern. `choices` are the candidates of `choice` for all
    examples; those of an example come first. `ignore_case` is for `exact`, `contains` and `regex`.
    An output passes where each of its scores, or each that `pass_at` names, reaches `pass_at`; None
    is 1.
    """

    scorer: str = "exact"
    max_new_tokens: int | None = None
    threshold: float | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    ignore_case: bool = False
    pass_at: float | Mapping[str, float] | None = None


def needs_generation(scoring: Scoring) -> bool:
    """Whether the scorer reads generated text; `loss` and `choice` do not."""
    return scoring.scorer not in {"loss", "choice"}


def check_scoring(scoring: Scoring, *, where: Location | None = None) -> None:
    """Raise a ConfigError for an unknown scorer, or for options that it can't use.

    An option that the scorer would ignore is an error: a `threshold` with `exact` looks like a
    condition, but has no effect.
    """
    name = scoring.scorer
    if name not in SCORERS and ":" not in name:
        raise ConfigError(f"unknown scorer {name!r}", where=where, cure=did_you_mean(name, SCORERS))
    taken = _OPTIONS.get(_FUNCTION if ":" in name else name, frozenset())
    for option in ("threshold", "pattern", "choices", "ignore_case", "pass_at"):
        stated = getattr(scoring, option) != getattr(Scoring, option)
        if stated and option not in taken:
            users = ", ".join(user for user, options in _OPTIONS.items() if option in options)
            raise ConfigError(
                f"scoring {option} is for {users}, but the scorer is {name!r}",
                where=where,
                cure=f"Leave out {option}, or choose another scorer.",
            )
    if name == "loss":
        loss_threshold(scoring, where)
    if name == "regex" and scoring.pattern is not None:
        compiled_pattern(scoring.pattern, scoring, where)
    if scoring.max_new_tokens is not None and not needs_generation(scoring):
        raise ConfigError(
            f"scoring max_new_tokens is for scorers of generated text, but the scorer is {name!r}",
            where=where,
            cure="Leave out max_new_tokens, or choose another scorer.",
        )
    if scoring.max_new_tokens is not None and scoring.max_new_tokens < 1:
        raise ConfigError(
            f"scoring max_new_tokens: wanted 1 or more, found {scoring.max_new_tokens}", where=where
        )


def loss_threshold(scoring: Scoring, where: Location | None) -> float:
    """The threshold of the scorer `loss`, in nats per token; a `ConfigError` if unusable."""
    threshold = scoring.threshold
    if threshold is None or not (math.isfinite(threshold) and threshold >= 0):
        found = "none" if threshold is None else threshold
        raise ConfigError(
            f"scorer 'loss': wanted a threshold in nats per token, 0 or more, found {found}",
            where=where,
            cure="Write scoring: {scorer: loss, threshold: 1.5}.",
        )
    return threshold


def compiled_pattern(pattern: str, scoring: Scoring, where: Location | None) -> re.Pattern[str]:
    """The pattern of the scorer `regex`. Raises `ConfigError` if it is empty or invalid."""
    if not pattern:
        raise ConfigError("scoring pattern is empty, so it would match any output", where=where)
    try:
        return compile_pattern(pattern, scoring)
    except ValueError as error:
        raise ConfigError(
            f"scoring pattern is not a valid regular expression: {error}",
            where=where,
            cure="In YAML, put a pattern in single quotes, which leave backslashes as they are.",
        ) from error


def compile_pattern(pattern: str, scoring: Scoring) -> re.Pattern[str]:
    """The compiled pattern. Raises a ValueError with the pattern and where it is wrong."""
    try:
        return re.compile(pattern, re.IGNORECASE if scoring.ignore_case else 0)
    except (re.error, OverflowError, RecursionError, Warning) as error:  # Warning: under -W error
        raise ValueError(f"{pattern!r}: {error}") from error
