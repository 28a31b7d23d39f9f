"""Where users plug in, from a conftest.py or a plugin of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest


@pytest.hookspec(firstresult=True)
def pytest_ftloop_score(output: str, expected: str, example: Mapping[str, Any]) -> bool | None:
    """Say whether an example passes, for loops with `scoring: {scorer: hook}`.

    `output` is the model's greedy output, `expected` the example's expected text, `example` its
    row. Return None to leave the word to the next implementation.
    """
