"""The judge of a loop file: a model at an endpoint that grades outputs with the user's rubric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CONCURRENCY = 4
"""Requests at a time, where none is stated: hosted endpoints limit them, and a server on the same
machine as the training shares its memory."""


@dataclass(frozen=True)
class Judge:
    """A judge's settings.

    `scale` is the lowest and the highest grade, mapped to the scores 0 and 1. `request` are further
    fields of each request. `api_key_env` names the environment variable with the key.
    """

    url: str
    model: str
    rubric: str
    scale: tuple[float, float] = (1.0, 5.0)
    request: Mapping[str, Any] = field(default_factory=dict, hash=False)
    api_key_env: str | None = None
    timeout_s: float = 60.0
    concurrency: int = CONCURRENCY

    @property
    def identity(self) -> dict[str, Any]:
        """What decides a grade: not where the model is served, or how it is asked for."""
        stated = {"model": self.model, "rubric": self.rubric, "scale": list(self.scale)}
        return {**stated, "request": dict(self.request)} if self.request else stated

    def score(self, grade: float) -> float:
        """The grade as a score from 0 to 1."""
        low, high = self.scale
        return (grade - low) / (high - low)
