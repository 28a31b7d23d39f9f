"""Load the metrics of the whole eval set, and try each on answers before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_ftloop.core.errors import ConfigError, Locate, Location, ScoringError
from pytest_ftloop.core.functions import described, load_function, raised_at
from pytest_ftloop.core.records import Example, ExampleResult
from pytest_ftloop.core.runs import is_figure
from pytest_ftloop.core.set_metrics import OF_LABELS, SetMetric, of_labels, outputs_of
from pytest_ftloop.evaluate.scored import short
from pytest_ftloop.evaluate.scorers import file_of, row_of

SIGNATURE = ("outputs", "expected", "rows")
"""The parameters of a user's function: three lists of equal length."""


def load_set_metrics(
    metrics: Mapping[str, str],
    examples: Sequence[Example],
    folder: Path,
    locate: Locate,
    *,
    imports: bool = True,
) -> dict[str, SetMetric]:
    """The metrics by the user's name, each tried on the expected texts and on empty outputs.

    `examples` are the rows that a user's function is given. Raises `ConfigError` for a function
    or library that is missing, `ScoringError` for a function that fails. Without `imports` a user's
    function is neither imported nor called, and its metric is `unread`.
    """
    loaded: dict[str, SetMetric] = {}
    for name, kind in metrics.items():
        where = locate(f"metrics.{name}") or locate("metrics")
        if kind in OF_LABELS:
            loaded[name] = of_labels(kind)
        elif ":" in kind and not imports:
            loaded[name] = SetMetric(lambda _: (), lambda _: math.nan, by_tag=False, unread=kind)
        elif ":" in kind:
            loaded[name] = _of_user(name, kind, examples, folder, where)
        else:
            loaded[name] = _of_texts(kind, where)
    for metric in loaded.values():
        for answered in (True, False):
            metric.of(_answered(example, answered) for example in examples)
    return loaded


def _answered(example: Example, answered: bool) -> ExampleResult:
    text = (example.expected or "").strip()
    return ExampleResult(
        example.id,
        example.content,
        example.tags,
        0.0,
        0,
        0,
        expected=text,
        output=text if answered else "",
    )


def _of_texts(kind: str, where: Location | None) -> SetMetric:
    """BLEU or chrF by sacrebleu, with its defaults.

    Both are functions of sums over sentences, which sacrebleu computes once a sentence for its own
    significance test; a resampled figure then costs no tokenising.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise ConfigError(
            f"the metric {kind!r} needs sacrebleu, which is not installed",
            where=where,
            cure='pip install "pytest-ftloop[text]"',
        ) from None
    metric: Any = {"bleu": BLEU, "chrf": CHRF}[kind]()

    def parts(row: ExampleResult) -> list[Any]:
        outputs = outputs_of(row)
        return list(metric._extract_corpus_statistics([*outputs], [[row.expected] * len(outputs)]))

    return SetMetric(parts, lambda found: float(metric._aggregate_and_compute(found).score))


@dataclass(frozen=True)
class _Row:
    """One output as a user's function is given it."""

    output: str
    expected: str
    row: Mapping[str, Any]


def _of_user(
    name: str, kind: str, examples: Sequence[Example], folder: Path, where: Location | None
) -> SetMetric:
    function = load_function("metric", kind, SIGNATURE, folder, where)
    rows = {example.content: row_of(example) for example in examples}

    def parts(row: ExampleResult) -> list[_Row]:
        # A row that the eval set no longer has is known by what its table holds.
        whole = rows.get(row.content) or {"id": row.id, "tags": list(row.tags)}
        return [_Row(output, row.expected, whole) for output in outputs_of(row)]

    def figure(found: Sequence[_Row]) -> float:
        columns = (
            [part.output for part in found],
            [part.expected for part in found],
            [part.row for part in found],
        )
        return _called(name, kind, function, columns, where)

    return SetMetric(parts, figure, by_tag=False)


def _called(
    name: str,
    kind: str,
    function: Callable[..., object],
    columns: tuple[list[Any], ...],
    where: Location | None,
) -> float:
    """The number that a user's function gives. Raises `ScoringError` for anything else."""
    said = f"metric {name!r} ({kind})"
    try:
        result: Any = function(*columns)
    except Exception as error:
        raise ScoringError(
            f"{said} raised {described(error)} on {len(columns[0])} outputs",
            where=where,
            cure=f"It was raised at {raised_at(error, file_of(function))}. It has to take outputs "
            "that repeat, and a part of the rows: the regression gate resamples them.",
        ) from error
    value = math.nan
    if not isinstance(result, str):
        with suppress(TypeError, ValueError, OverflowError):
            value = float(result)
    if not is_figure(value):
        raise ScoringError(
            f"{said}: wanted a finite number, found {short(result)} for {len(columns[0])} outputs",
            where=where,
            cure="Return a finite number for any outputs, empty ones too, and for a part of the "
            "rows: the gate resamples them.",
        )
    return value
