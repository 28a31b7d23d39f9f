"""The names and options of the scorers, checked before anything is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pytest_ftloop.config.judge import Judge
from pytest_ftloop.core.errors import ConfigError, Location, did_you_mean
from pytest_ftloop.core.sampled import SCORE

SCORE_HOOK = "pytest_ftloop_score"
"""The hook that the scorer `hook` calls."""

_FUNCTION = "module:function"
"""The name of all scorers that are a user's function, in the tables below."""

SCORERS: Mapping[str, str] = {
    "loss": "the example's mean loss per token is at most `threshold`; nothing is generated",
    "exact": "the output equals the expected text, surrounding whitespace aside",
    "contains": "the expected text occurs in the output",
    "regex": "`pattern`, or else the expected text as a pattern, is found in the output",
    "choice": "the expected text is the likeliest of the candidates; nothing is generated",
    "json": "output and expected text are the same JSON value, with or without a ```json fence",
    "number": "the last number of the output is that of the expected text, within `tolerance`",
    "f1": "the F1 over words, as for SQuAD, is at least `pass_at`",
    "rouge": "the F-measure of ROUGE, by default rougeL, is at least `pass_at`",
    "tool_call": "the output makes the expected tool calls: names and arguments, in any order",
    "judge": "a model grades the output with your rubric; its score reaches `pass_at`",
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
    "json": frozenset({"pass_at"}),
    "number": frozenset({"tolerance"}),
    "f1": frozenset({"pass_at"}),
    "rouge": frozenset({"rouge", "pass_at"}),
    "tool_call": frozenset({"pass_at"}),
    "judge": frozenset({"judge", "judge_check", "pass_at"}),
    "hook": frozenset({"pass_at"}),
    _FUNCTION: frozenset({"pass_at"}),
}
"""The options of each scorer that has any."""

_CHECKED = tuple(dict.fromkeys(name for names in map(sorted, _OPTIONS.values()) for name in names))
"""All of them."""

SCORES: Mapping[str, tuple[str, ...]] = {
    "json": ("valid", "fields"),
    "f1": ("",),
    "rouge": ("",),
    "tool_call": ("name", "arguments"),
}
"""The scores that a built-in scorer gives each example, by name; `""` is the one without a name."""

ANSWERED = ("exact", "contains", "json", "number", "f1", "rouge")
"""The scorers that compare with each acceptable answer of `data.answers`; the best one counts."""


@dataclass(frozen=True)
class Scoring:
    """A scorer and its options.

    `threshold` is for `loss`, in nats per token. `pattern` is for `regex`; without it, the
    example's expected text is the pattern. `choices` are the candidates of `choice` for all
    examples; those of an example come first. `ignore_case` is for `exact`, `contains` and `regex`.
    An output passes where each of its scores, or each that `pass_at` names, reaches `pass_at`; None
    is 1, but for `json`, where the whole value must be the same. `tolerance` is for `number`: a
    number, or a text such as `1%`, which is relative to the expected number. `rouge` is the kind.
    `samples` outputs are drawn with `temperature` (None: greedy, or 1.0 for several samples),
    `top_p` and `seed`; `generation` are further fields of transformers' GenerationConfig.
    """

    scorer: str = "exact"
    max_new_tokens: int | None = None
    threshold: float | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    ignore_case: bool = False
    pass_at: float | Mapping[str, float] | None = None
    tolerance: float | str | None = None
    rouge: str | None = None
    judge: Judge | None = None
    judge_check: str | None = None
    samples: int = 1
    temperature: float | None = None
    top_p: float | None = None
    seed: int = 0
    generation: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def is_sampled(self) -> bool:
        """Whether outputs are drawn at random, by `seed`, and not greedy."""
        return self.samples > 1 or self.temperature is not None


GREEDY: Mapping[str, Any] = {
    "samples": 1, "temperature": None, "top_p": None, "seed": 0, "generation": {},
}  # fmt: skip
"""The options of the generation as they are where none is stated: the likeliest output, once."""

OWN_GENERATION = frozenset(
    {"do_sample", "temperature", "top_p", "max_new_tokens", "max_length", "num_return_sequences"}
    | {"pad_token_id", "return_dict_in_generate", "output_scores", "output_logits"}
    | {"output_attentions", "output_hidden_states"}
)
"""Fields of transformers' GenerationConfig that `scoring` states itself, or that must stay as they
are for an output to be read."""

ONLY_SAMPLED = frozenset({"top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"})
"""Fields of GenerationConfig that have an effect only where outputs are sampled."""

NOT_SAMPLED = frozenset(
    {"num_beams", "num_beam_groups", "penalty_alpha", "dola_layers", "prompt_lookup_num_tokens"}
)
"""Fields of GenerationConfig for ways of decoding that are no sampling."""


def check_generation(scoring: Scoring, where: Location | None) -> None:
    """Raise a ConfigError for options of the generation that contradict the scorer or each other.

    Whether transformers knows the fields of `generation` is checked once it is imported.
    """
    stated = [name for name, plain in GREEDY.items() if getattr(scoring, name) != plain]
    if stated and not needs_generation(scoring):
        raise ConfigError(
            f"scoring {stated[0]} is for scorers of generated text, but the scorer is "
            f"{scoring.scorer!r}",
            where=where,
            cure=f"Leave out {stated[0]}, or choose another scorer.",
        )
    lonely = [name for name in stated if name in {"top_p", "seed"}]
    lonely += [f"generation.{name}" for name in scoring.generation if name in ONLY_SAMPLED]
    if lonely and not scoring.is_sampled:
        raise ConfigError(
            f"scoring {lonely[0]} has no effect on greedy outputs",
            where=where,
            cure="State a temperature, or samples: 2 or more.",
        )
    for name in scoring.generation:
        if name in OWN_GENERATION:
            cures = {
                **dict.fromkeys(("temperature", "top_p", "max_new_tokens"), f"Set scoring.{name}."),
                "do_sample": "Set scoring.temperature.",
                "num_return_sequences": "Set scoring.samples.",
                "max_length": "Set scoring.max_new_tokens.",
            }
            raise ConfigError(
                f"scoring.generation can't state {name}",
                where=where,
                cure=cures.get(name, "Leave it out."),
            )
        if scoring.is_sampled and name in NOT_SAMPLED:
            raise ConfigError(
                f"scoring.generation {name} is no sampling, but samples or temperature are stated",
                where=where,
                cure="Leave out one of them.",
            )


def needs_generation(scoring: Scoring) -> bool:
    """Whether the scorer reads generated text; `loss` and `choice` do not."""
    return scoring.scorer not in {"loss", "choice"}


def check_scorer(name: str, where: Location | None) -> None:
    """Raise a ConfigError for an unknown scorer."""
    if name not in SCORERS and ":" not in name:
        raise ConfigError(f"unknown scorer {name!r}", where=where, cure=did_you_mean(name, SCORERS))


def check_scoring(scoring: Scoring, *, where: Location | None = None) -> None:
    """Raise a ConfigError for an unknown scorer, or for options that it can't use.

    An option that the scorer would ignore is an error: a `threshold` with `exact` looks like a
    condition, but has no effect.
    """
    name = scoring.scorer
    check_scorer(name, where)
    taken = _OPTIONS.get(_FUNCTION if ":" in name else name, frozenset())
    for option in _CHECKED:
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
    if name == "judge" and scoring.judge is None:
        raise ConfigError(
            "scorer 'judge': wanted a judge, found none",
            where=where,
            cure="Write scoring: {judge: {url: ..., model: ..., rubric: ...}}.",
        )
    if name == "number":
        tolerances(scoring, where)
    if name in SCORES and isinstance(scoring.pass_at, Mapping):
        known = {score for score in SCORES[name] if score}
        for score in scoring.pass_at:
            if score not in known:
                raise ConfigError(
                    f"scoring pass_at: the scorer {name!r} gives no score {score!r}",
                    where=where,
                    cure=did_you_mean(score, known) if known else "Write a number: pass_at: 0.8.",
                )
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
    check_generation(scoring, where)


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


def scores_of(scoring: Scoring) -> frozenset[str] | None:
    """The metrics of the scores that a built-in scorer gives; None for a user's own."""
    if scoring.scorer == "hook" or ":" in scoring.scorer:
        return None
    names = SCORES.get(scoring.scorer, ())
    return frozenset(f"{SCORE}.{name}" if name else SCORE for name in names)


def tolerances(scoring: Scoring, where: Location | None) -> tuple[Decimal, Decimal]:
    """The absolute tolerance of the scorer `number`, and that relative to the expected number."""
    stated = scoring.tolerance if scoring.tolerance is not None else 0
    text = str(stated).strip()
    try:
        value = Decimal(text.removesuffix("%"))
        if not (value.is_finite() and value >= 0) or isinstance(stated, str) != text.endswith("%"):
            raise ValueError(text)
    except (ValueError, ArithmeticError):
        raise ConfigError(
            f"scoring tolerance: wanted a number, 0 or more, or a percentage, found {stated!r}",
            where=where,
            cure='Write tolerance: 0.01, or tolerance: "1%" of the expected number.',
        ) from None
    return (Decimal(0), value / 100) if text.endswith("%") else (value, Decimal(0))


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
