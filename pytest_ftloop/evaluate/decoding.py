"""TORCH: how outputs are generated: greedily, or sampled so that a seed gives the same again.

transformers draws tokens from one stream of random numbers for a whole batch, so an output would
change with the examples beside it, and with every number that training draws. Here each output has
a stream of its own, seeded by its example's content, its number among the samples, and the loop
file's seed. Adding Gumbel noise to the logits and taking the largest is an exact draw from their
softmax (Gumbel 1954; Maddison et al. 2014), so what is left of the batch is its rounding: an output
changes with it only where two tokens are as good as equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from pytest_ftloop.config.scoring import ONLY_SAMPLED, Scoring
from pytest_ftloop.core.errors import ConfigError, Location, did_you_mean
from pytest_ftloop.core.records import Example, measured_content

WARPERS: Mapping[str, Callable[[Any, str], LogitsProcessor]] = {
    "temperature": lambda value, _: TemperatureLogitsWarper(float(value)),
    "top_k": lambda value, _: TopKLogitsWarper(top_k=value),
    "top_p": lambda value, _: TopPLogitsWarper(top_p=value),
    "min_p": lambda value, _: MinPLogitsWarper(min_p=value),
    "typical_p": lambda value, _: TypicalLogitsWarper(mass=value),
    "epsilon_cutoff": lambda value, _: EpsilonLogitsWarper(epsilon=value),
    "eta_cutoff": lambda value, device: EtaLogitsWarper(epsilon=value, device=device),
}
"""What shapes the distribution that is sampled from, in the order in which transformers does."""


@dataclass(frozen=True)
class Decoding:
    """How one output of each example is generated.

    `stated` are the loop file's further fields of GenerationConfig; `shaping` those that shape a
    sampled distribution, and None for greedy outputs. `seed` and `number` are those of the sample.
    """

    stated: Mapping[str, Any] = field(default_factory=dict)
    shaping: Mapping[str, Any] | None = None
    seed: int = 0
    number: int = 0

    def processors(self, examples: Sequence[Example], device: str) -> LogitsProcessorList:
        """What transformers applies to the logits of these examples, a row each."""
        if self.shaping is None:
            return LogitsProcessorList()
        warpers = [
            WARPERS[name](self.shaping[name], device) for name in WARPERS if name in self.shaping
        ]
        seeds = [_seed_of(example, self.seed, self.number) for example in examples]
        return LogitsProcessorList([*warpers, GumbelNoise(seeds)])


def decodings(scoring: Scoring) -> tuple[Decoding, ...]:
    """How each of an example's outputs is generated."""
    stated = {k: v for k, v in scoring.generation.items() if k not in ONLY_SAMPLED}
    if not scoring.is_sampled:
        return (Decoding(stated),)
    shaping = {k: v for k, v in scoring.generation.items() if k in ONLY_SAMPLED}
    if scoring.temperature not in (None, 1.0):
        shaping["temperature"] = scoring.temperature
    if scoring.top_p not in (None, 1.0):
        shaping["top_p"] = scoring.top_p
    return tuple(
        Decoding(stated, shaping, scoring.seed, number) for number in range(scoring.samples)
    )


class GumbelNoise(LogitsProcessor):  # type: ignore[misc]
    """Adds Gumbel noise to each row of logits, from a stream of the row's own."""

    def __init__(self, seeds: Sequence[int]) -> None:
        # On the CPU, so that each device draws the same.
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The noisy logits, (B, V)."""
        waits = [
            torch.empty(scores.shape[1]).exponential_(generator=stream) for stream in self._streams
        ]
        # Minus the logarithm of an exponential variable is a Gumbel variable.
        return scores.float() - torch.stack(waits).log().to(scores.device)


def check_decoding(scoring: Scoring, where: Location | None) -> None:
    """Raise a ConfigError for a field or value of `generation` that transformers does not take."""
    known = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    for name in scoring.generation:
        if name not in known:
            raise ConfigError(
                f"scoring.generation: transformers' GenerationConfig has no field {name!r}",
                where=where,
                cure=did_you_mean(name, known),
            )
    try:
        first = decodings(scoring)[0]
        GenerationConfig(**first.stated).validate(strict=True)
        first.processors((), "cpu")
    except Exception as error:  # whatever the library says of a value
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(
            f"scoring.generation: {line}",
            where=where,
            cure="Mend it, or leave it out.",
        ) from error


def _seed_of(example: Example, seed: int, number: int) -> int:
    # What only the scoring reads does not count: the outputs are kept where that changes.
    text = f"{seed}\0{number}\0{measured_content(example.content)}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)
