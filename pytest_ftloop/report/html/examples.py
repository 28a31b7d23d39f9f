"""The examples' results as columns, each text stored once: 5,000 x 10 results take 4 MB."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_ftloop.core.records import ExampleResult, Iteration, SeedRun
from pytest_ftloop.core.runs import groups_of

Key = tuple[str, str]
"""Id and content hash: the same id with other content is another example."""

MISSING, UNSCORED, FAILED, PASSED = "-", "?", "0", "1"
LONGEST_TEXT = 20_000
"""Most characters of a text on the page: a model that never stops must not bloat the file."""

FLAKY_FLIPS = 2
"""Changes of outcome over the iterations that make an example flaky: there and back."""


class Texts:
    """A list of texts, each stored once. Number 0 is the empty text."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        """The text's index in the list."""
        if len(text) > LONGEST_TEXT:
            text = f"{text[:LONGEST_TEXT]} ... ({len(text)} characters)"
        return self._numbers.setdefault(text, len(self._numbers))

    @property
    def all(self) -> list[str]:
        """The texts in order."""
        return list(self._numbers)


def columns(
    iterations: Sequence[Iteration | None],
    prompts: Mapping[Key, str],
    seed_runs: Sequence[SeedRun],
) -> dict[str, Any]:
    """The examples of all iterations; None for an iteration whose examples are omitted.

    `passed` has one character per example. `output` and the other texts are indices into `texts`.
    `loss` is per token, with four digits.
    """
    tables = [_by_key(it.examples) if it else {} for it in iterations]
    first: dict[Key, ExampleResult] = {}
    for table in reversed(tables):  # the latest result of an example counts
        for key, row in table.items():
            first.setdefault(key, row)
    keys = sorted(first)
    texts, tags = Texts(), sorted({tag for row in first.values() for tag in row.tags})
    places = {tag: place for place, tag in enumerate(tags)}
    flaky = flaky_keys(tables, groups_of([it for it in iterations if it], seed_runs))
    rows = [first[key] for key in keys]
    return {
        "ids": [row.id for row in rows],
        "tagNames": tags,
        "tags": [[places[tag] for tag in row.tags] for row in rows],
        "prompt": [texts.number(prompts.get(key, "")) for key in keys],
        "expected": [texts.number(row.expected) for row in rows],
        "flaky": "".join("1" if key in flaky else "0" for key in keys),
        "results": [_results(table, keys, texts) if table else None for table in tables],
        "texts": texts.all,
    }


def flaky_keys(
    tables: Iterable[Mapping[Key, ExampleResult]],
    groups: Iterable[Sequence[Iteration | SeedRun]],
) -> set[Key]:
    """Examples with an unstable outcome.

    It differs between seeds of the same settings, or changed back and forth over the iterations.
    """
    found: set[Key] = set()
    for group in groups:
        outcomes: dict[Key, set[bool]] = {}
        for run in group:
            for key, row in _by_key(run.examples).items():
                if row.passed is not None:
                    outcomes.setdefault(key, set()).add(row.passed)
        found |= {key for key, seen in outcomes.items() if len(seen) > 1}
    last: dict[Key, bool] = {}
    flips: dict[Key, int] = {}
    for table in tables:
        for key, row in table.items():
            if row.passed is None:
                continue
            if last.get(key, row.passed) is not row.passed:
                flips[key] = flips.get(key, 0) + 1
            last[key] = row.passed
    return found | {key for key, count in flips.items() if count >= FLAKY_FLIPS}


def _results(
    table: Mapping[Key, ExampleResult], keys: Sequence[Key], texts: Texts
) -> dict[str, Any]:
    found = [table.get(key) for key in keys]
    return {
        "passed": "".join(map(_outcome, found)),
        "output": [texts.number(row.output) if row else 0 for row in found],
        "loss": [_four_digits(row.mean_loss) if row else None for row in found],
    }


def _outcome(row: ExampleResult | None) -> str:
    if row is None:
        return MISSING
    if row.passed is None:
        return UNSCORED
    return PASSED if row.passed else FAILED


def _four_digits(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _by_key(rows: Iterable[ExampleResult]) -> dict[Key, ExampleResult]:
    return {(row.id, row.content): row for row in rows}
