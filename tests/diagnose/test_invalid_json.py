"""Outputs that are not JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_ftloop.core.records import ExampleResult
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.invalid_json import findings
from tests.fakes import fake_example, fake_metrics, fake_training


def evidence(rows: list[ExampleResult]) -> Evidence:
    plain = Evidence.of(fake_training(), fake_metrics(), fake_metrics(), 5.0)
    return replace(plain, results=tuple(rows))


def scored(valid: int, invalid: int, fields: float = 0.5) -> list[ExampleResult]:
    every = [1.0] * valid + [0.0] * invalid
    return [
        fake_example(f"e{n}", False, scores={"score.valid": v, "score.fields": fields * v})
        for n, v in enumerate(every)
    ]


@pytest.mark.parametrize(
    ("valid", "invalid", "is_found"),
    [(18, 2, True), (19, 1, False), (98, 2, False), (95, 5, True), (0, 3, True), (20, 0, False)],
)
def test_invalid_json(valid: int, invalid: int, is_found: bool) -> None:
    """It is found from two outputs and a twentieth of them on."""
    assert is_found == bool(findings(evidence(scored(valid, invalid))))


def test_what_it_says() -> None:
    """It counts the outputs, names one, and has the share of right fields of the others."""
    (finding,) = findings(evidence(scored(6, 4)))
    assert "4 of 10 outputs are not JSON (e6); of the others 50% of the fields are right." == (
        finding.message
    )
    assert {"invalid": 4, "outputs": 10, "fields": 0.5, "first": "e6"} == finding.evidence
    (all_,) = findings(evidence(scored(0, 4)))
    assert all_.message.endswith("(e0); none is.")


def test_other_scorers() -> None:
    """Nothing is found where no output had to be JSON."""
    rows = [fake_example(f"e{n}", False, scores={"score": 0.0}) for n in range(5)]
    assert () == findings(evidence(rows)) == findings(evidence([]))
