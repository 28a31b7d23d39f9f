"""One advice: a finding's remedy and what the loop does next never contradict each other."""

from __future__ import annotations

import pytest

from pytest_ftloop.core.records import Adjustment, Decision
from pytest_ftloop.report.advice import remedy_of
from tests.fakes import fake_finding

DOWN = (Adjustment("training.learning_rate", 0.01, 0.0031, "the middle one is best"),)
UP = "Raise the learning rate by a factor of 3 to 5."


@pytest.mark.parametrize(
    ("kind", "decision", "wanted"),
    [
        (
            "underfit",
            Decision("adjust", "adjust", "", DOWN),
            "the loop changes next: learning_rate 0.01 -> 3.1e-3",
        ),
        (
            "underfit",
            Decision("stop", "plateau", "", DOWN),
            "the loop would change next: learning_rate 0.01 -> 3.1e-3",
        ),
        (
            "underfit",
            Decision("stop", "gates", "", DOWN),
            "the loop changes nothing for it: the thresholds hold",
        ),
        (
            "underfit",
            Decision("stop", "exhausted", ""),
            f"by hand: nothing left that the loop would change; {UP}",
        ),
        ("failing-slice", Decision("adjust", "adjust", "", DOWN), f"by hand: {UP}"),
        ("underfit", None, UP),
    ],
)
def test_remedy_agrees_with_the_decision(kind: str, decision: Decision | None, wanted: str) -> None:
    """Of what the policy answers its own step is stated; the rest is said to be done by hand."""
    assert wanted == remedy_of(fake_finding(kind, remedy=UP), decision)


def test_a_fault_is_mended_by_hand() -> None:
    """What no setting can cure is not the loop's, whatever it does next."""
    finding = fake_finding("diverged", "error", remedy=UP, tunable=False)
    assert f"by hand: {UP}" == remedy_of(finding, Decision("adjust", "adjust", "", DOWN))
