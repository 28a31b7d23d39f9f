"""Outputs that need no generation: a forward pass shows that the model writes the expected answer.

Greedy generation writes a text exactly if each of its tokens is the likeliest after those before
it. One forward pass over prompt and answer tells that of all tokens at once, where generation takes
a pass for each. What it does not show is generated.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.chat import split

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Example
    from pytest_ftloop.evaluate.decoding import Decoding
    from pytest_ftloop.evaluate.rendering import Renderer

Prompt = tuple["Example", list[int]]
"""An example, and the tokens of its prompt."""

CERTAIN = math.log(0.8)
"""Least log-probability of each token of a foreseen answer, in nats.

Any other token has at most 0.2, which is ln 4 = 1.4 nats less. Generation computes the same logits
in another order: in bfloat16 a logit of 20 is rounded by up to 0.06, in float32 by 1e-6.
"""

_HARMLESS = frozenset(
    {
        *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
        *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "num_beams"),
        *("max_length", "max_new_tokens", "use_cache", "transformers_version"),
        *("_from_model_config", "output_attentions", "output_hidden_states", "output_scores"),
    }
)
"""Fields of a GenerationConfig that do not change which token is the likeliest."""


def is_plain(model: Any, how: Decoding) -> bool:
    """Whether outputs are the likeliest tokens, with nothing that changes how likely they are.

    The model's own GenerationConfig may have a penalty, or tokens that are suppressed.
    """
    own = set(model.generation_config.to_diff_dict())
    return how.shaping is None and not how.stated and own <= _HARMLESS


def answer_that_ends(
    example: Example, prompt: list[int], renderer: Renderer, ends: Collection[int]
) -> list[int]:
    """The tokens of the expected answer after the prompt's, up to the one that ends an output.

    None if there is no such token, or no prompt.
    """
    answer = _answer(example, prompt, renderer) if prompt else []
    end = next((at for at, id_ in enumerate(answer) if id_ in ends), None)
    return [] if end is None else answer[: end + 1]


def _answer(example: Example, prompt: list[int], renderer: Renderer) -> list[int]:
    given, answer = split(example.row)
    if not isinstance(answer, str):
        return renderer.answer(example) if answer else []
    # As in training: tokenised with the prompt, and ended by the tokenizer's end token.
    whole = list(renderer.tokenizer(f"{given}{answer}")["input_ids"])
    end = renderer.tokenizer.eos_token_id
    return [*whole[len(prompt) :], end] if whole[: len(prompt)] == prompt else []
