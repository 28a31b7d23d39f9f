"""The findings about examples come together, the most telling first."""

from __future__ import annotations

from dataclasses import replace

from pytest_ftloop.diagnose import Evidence, diagnose
from pytest_ftloop.diagnose.failing import findings
from tests.fakes import fake_example, fake_iteration, fake_metrics, fake_steps, fake_training


def evidence(**training) -> Evidence:
    """One of four labels is answered with another; before, all passed but one."""
    rows = tuple(
        fake_example(
            f"e{n:02d}",
            n % 4 != 0,
            expected=f"label {n % 4}",
            output=f"label {n % 4 or 1}",
        )
        for n in range(80)
    )
    before = tuple(replace(row, passed=row.id != "e00") for row in rows)
    history = (fake_iteration(1, examples=before),)
    metrics = fake_metrics()
    of = Evidence.of(fake_training(**training), metrics, metrics, 5.0, history=history)
    return replace(of, results=rows)


def test_slices_then_confusions_then_courses() -> None:
    """The slice, how it is answered, what broke, what never passed."""
    kinds = [finding.kind for finding in findings(evidence())]
    assert ["failing-slice", "confusion", "broken", "never-passed"] == kinds


def test_a_run_that_failed_says_nothing_of_examples() -> None:
    """The NaN explains the failures, not the examples."""
    broken = evidence(steps=fake_steps([2.0, 1.0, float("nan")]))
    kinds = {finding.kind for finding in diagnose(broken)}
    assert "non-finite" in kinds
    assert not {"failing-slice", "confusion"} & kinds
