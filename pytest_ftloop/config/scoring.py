"""The names and options of the scorers, checked before anything is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ftloop.core.errors import ConfigError, Location, did_you_mean

if TYPE_CHECKING:
    pass


SCORERS: Mapping[str, str] = {
    "loss": "the example's mean loss per token is at most `threshold`; nothing is generated",
    "exact": "the output equals the expected text, surrounding whitespace aside",
    "contains": "the expected text occurs in the output",
    "regex": "`pattern`, or else the expected text as a pattern, is found in the output",
    "choice": "the expected text is the likeliest of the candidates; nothing is generated",
    "json": "output and expected text are the same JSON value, with or without a ```json fence",
    "hook": "the pytest_ftloop_score hook",
    "module:function": "your function(output, expected, example) -> bool",
}

_OPTIONS: Mapping[str, frozenset[str]] = {
    "loss": frozenset({"threshold"}),
    "exact": frozenset({"ignore_case"}),
    "contains": frozenset({"ignore_case"}),
    "regex": frozenset({"pattern", "ignore_case"}),
    "choice": frozenset({"choices"}),
}


@dataclass(frozen=True)
class Scoring:
    """Which scorer, and what it needs.

    `threshold` is for `loss`, in nats per token. `pattern` is for `regex`; without one the
    example's expected text is the pattern. `choices` are the candidates of `choice` common to all
    examples; an example's own come first. `ignore_case` is for `exact`, `contains` and `regex`.
    """

    scorer: str = "exact"
    max_new_tokens: int | None = None
    threshold: float | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    ignore_case: bool = False


def needs_generation(scoring: Scoring) -> bool:
    """Whether the scorer reads generated text; `loss` and `choice` do not."""
    return scoring.scorer not in {"loss", "choice"}


def check_scoring(scoring: Scoring, *, where: Location | None = None) -> None:
    """Raise a ConfigError for a scorer that does not exist or settings that can't be meant.

    A setting that the scorer would ignore is refused too: a `threshold` beside `exact` looks like
    a condition and is none.
    """
    name = scoring.scorer
    if name not in SCORERS and ":" not in name:
        raise ConfigError(f"unknown scorer {name!r}", where=where, cure=did_you_mean(name, SCORERS))
    for option in ("threshold", "pattern", "choices", "ignore_case"):
        stated = getattr(scoring, option) != getattr(Scoring, option)
        if stated and option not in _OPTIONS.get(name, frozenset()):
            users = ", ".join(user for user, options in _OPTIONS.items() if option in options)
            raise ConfigError(
                f"scoring {option} is for {users}, found it with the scorer {name!r}",
                where=where,
                cure=f"Leave out {option}, or choose another scorer.",
            )
    if name == "loss":
        loss_threshold(scoring, where)
    if name == "regex" and scoring.pattern is not None:
        compiled_pattern(scoring.pattern, scoring, where)
    if scoring.max_new_tokens is not None and not needs_generation(scoring):
        raise ConfigError(
            f"scoring max_new_tokens is for scorers of generated text, found it with {name!r}",
            where=where,
            cure="Leave out max_new_tokens, or choose another scorer.",
        )
    if scoring.max_new_tokens is not None and scoring.max_new_tokens < 1:
        raise ConfigError(
            f"scoring max_new_tokens: wanted 1 or more, found {scoring.max_new_tokens}", where=where
        )


def loss_threshold(scoring: Scoring, where: Location | None) -> float:
    """The threshold of the scorer `loss`, in nats per token. A `ConfigError` if it is unusable."""
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
    """The pattern of the scorer `regex`. A `ConfigError` for one that is empty or invalid."""
    if not pattern:
        raise ConfigError("scoring pattern is empty: it would match any output", where=where)
    try:
        return compile_pattern(pattern, scoring)
    except ValueError as error:
        raise ConfigError(
            f"scoring pattern is not a valid regular expression: {error}",
            where=where,
            cure="In YAML, put a pattern in single quotes: a backslash then stays as it is.",
        ) from error


def compile_pattern(pattern: str, scoring: Scoring) -> re.Pattern[str]:
    """The compiled pattern; a ValueError that names the pattern and the position."""
    try:
        return re.compile(pattern, re.IGNORECASE if scoring.ignore_case else 0)
    except (re.error, OverflowError, RecursionError, Warning) as error:  # Warning: under -W error
        raise ValueError(f"{pattern!r}: {error}") from error
