"""The recipe of the embedded base model: numbers only, so that it is readable without torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Recipe:
    """A GPT-2 pretrained on the package's corpus: every number that determines its weights.

    Each of the `steps` takes `batch` sequences of `length` tokens. `learning_rate` is the peak of a
    cosine schedule with `warmup_steps`.
    """

    vocabulary: int = 1024
    width: int = 128
    layers: int = 4
    heads: int = 4
    context: int = 256
    steps: int = 600
    batch: int = 16
    length: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 40
    weight_decay: float = 0.1
    seed: int = 0
    threads: int = 2  # the order of summation depends on it, and so do the weights
    version: int = 2  # raised when the code that follows the recipe gives other weights


RECIPE = Recipe()
"""The recipe of `model: tiny`."""


def corpus() -> str:
    """The text that the embedded model is pretrained on."""
    return (files("pytest_ftloop") / "corpus.txt").read_text(encoding="utf-8")


def recipe_id(recipe: Recipe = RECIPE) -> str:
    """A hash of recipe and corpus, which identifies the embedded model on every machine."""
    text = json.dumps(asdict(recipe), sort_keys=True) + "\0" + corpus()
    return hashlib.sha256(text.encode()).hexdigest()[:16]
