"""What rules find before anything is trained: of data and wiring alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pytest_ftloop.diagnose.custom import SEVERITIES
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.records import Finding

Rule = Callable[[Evidence], Finding | None]


def found_by(rules: Iterable[Rule], **known: Any) -> tuple[Finding, ...]:
    """What the rules find, errors first; `known` are those fields of the evidence that are."""
    evidence = Evidence(
        steps=(),
        evals=(),
        planned_steps=0,
        best_step=0,
        steps_per_epoch=0,
        trainable_parameters=0,
        labelled_tokens=0,
        vocabulary=0,
        adapter_moved=False,
        **known,
    )
    found = [finding for rule in rules if (finding := rule(evidence))]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))
