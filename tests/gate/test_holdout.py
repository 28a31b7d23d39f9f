"""Whether a gain holds on the holdout, and how worn the sets are."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.gate.compare import Side, compare
from pytest_ftloop.gate.holdout import WORN_USES, HoldoutReport, report_of
from tests.fakes import (
    fake_example,
    fake_holdout_use,
    fake_judgement,
    fake_measured,
    fake_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import ExampleResult, HoldoutUse, Judgement
    from pytest_ftloop.gate.verdict import Verdict

N = 100


def losses(mean: float, noise: int = 0) -> list[float]:
    shared, own = random.Random(0), random.Random(noise)
    return [mean * (shared.uniform(0.5, 1.5) + 0.05 * own.gauss(0, 1)) for _ in range(N)]


OLD = fake_measured(1, fake_table(losses(1.0, 1)))
NEW = fake_measured(2, fake_table(losses(0.6, 2)))


def verdict_of(rule: Regression | None = None) -> Verdict:
    return compare(Side(NEW, (NEW,)), Side(OLD, (OLD,)), None, (), rule or Regression())


def report(
    on_holdout: float,
    *,
    uses: Sequence[HoldoutUse] = (),
    judgements: Sequence[Judgement] = (),
    verdict: Verdict | None = None,
    **fields: Any,
) -> HoldoutReport:
    before = fake_holdout_use(OLD, fake_table(losses(1.0, 3)))
    after = replace(fake_holdout_use(NEW, fake_table(losses(on_holdout, 4))), **fields)
    found = report_of(NEW, [before, *uses, after], verdict or verdict_of(), OLD, judgements)
    assert found is not None
    return found


def test_not_opened() -> None:
    """Before it was opened for this iteration there is nothing to say."""
    use = fake_holdout_use(OLD, OLD.examples)
    assert report_of(NEW, [use], verdict_of(), OLD, []) is None


def test_gain_that_holds() -> None:
    """About the same gain on both sets: no alarm, and both are told."""
    found = report(0.6)
    gain = found.gains[0]
    assert ("eval_loss", False) == (gain.metric, found.alarm)
    assert pytest.approx(0.4, abs=0.05) == gain.on_eval
    assert pytest.approx(0.4, abs=0.05) == gain.on_holdout
    assert abs(gain.z) < 2
    assert (NEW.name, OLD.name, 2) == (found.iteration, found.reference, found.uses)


def test_gain_that_does_not_hold() -> None:
    """A gain on the eval set alone: an alarm."""
    found = report(1.0)
    assert found.alarm
    assert found.gains[0].z > 2
    assert pytest.approx(0.0, abs=0.05) == found.gains[0].on_holdout


def test_larger_gain_on_the_holdout() -> None:
    """More than was promised alarms nobody."""
    found = report(0.2)
    assert found.gains[0].z < -2
    assert not found.alarm


def test_z_is_the_difference_in_its_standard_errors() -> None:
    """Of the examples of both sets; the seed, which moves both sets together, is left out."""
    found = report(0.7)
    gain, test = found.gains[0], verdict_of().changes[0].test
    holdout = [
        old - new
        for old, new in zip(
            (row.loss / 4 for row in fake_table(losses(1.0, 3))),
            (row.loss / 4 for row in fake_table(losses(0.7, 4))),
            strict=True,
        )
    ]
    mean = sum(holdout) / N
    variance = sum((value - mean) ** 2 for value in holdout) / (N - 1) / N
    of_eval = test.se**2 - 2 * test.tau**2
    assert pytest.approx(mean) == gain.on_holdout
    assert pytest.approx(-test.change) == gain.on_eval
    wanted = (gain.on_eval - gain.on_holdout) / math.sqrt(variance + of_eval)
    assert pytest.approx(wanted) == gain.z


def other_texts(rows: Sequence[ExampleResult]) -> tuple[ExampleResult, ...]:
    return tuple(replace(row, content=f"{row.content}2") for row in rows)


@pytest.mark.parametrize(("z", "alarms"), [(1.99, False), (2.0, False), (2.01, True)])
def test_alarm_above_two(z: float, alarms: bool) -> None:
    """Exactly two standard errors are none yet."""
    gain = replace(report(0.6).gains[0], z=z)
    assert alarms is gain.alarms
    assert alarms is replace(report(0.6), gains=(gain,)).alarm


@pytest.mark.parametrize(
    "change",
    [{"data": {"sha256": "c" * 16}}, {"scoring": {"scorer": "contains"}}],
    ids=["content", "scoring"],
)
def test_another_holdout(change: dict[str, Any]) -> None:
    """What was measured otherwise is not compared: its figures stand alone."""
    if "data" in change:
        change = change | {"examples": other_texts(fake_table(losses(1.0, 4)))}
    found = report(1.0, **change)
    assert () == found.gains
    assert not found.alarm
    assert ["eval_loss", "pass_rate"] == list(found.metrics)


def test_first_opening() -> None:
    """Without one before there is no gain to hold."""
    found = report_of(NEW, [fake_holdout_use(NEW, NEW.examples)], verdict_of(), OLD, [])
    assert found is not None
    assert (None, (), 1) == (found.reference, found.gains, found.uses)
    found = report_of(NEW, [fake_holdout_use(NEW, NEW.examples)], verdict_of(), None, [])
    assert found is not None
    assert (None, ()) == (found.reference, found.gains)


@pytest.mark.parametrize(
    "rows",
    [
        fake_table([1.0]),
        fake_table([0.0] * N, tokens=0),
        [fake_example("e001", loss=math.nan), *fake_table([1.0])],
    ],
    ids=["one example", "no tokens", "nan"],
)
def test_holdout_that_says_nothing(rows: Any) -> None:
    """One example, no tokens or a NaN: no gain in the loss is made up."""
    found = report(1.0, examples=tuple(rows))
    assert "eval_loss" not in {gain.metric for gain in found.gains}


def test_renamed_ids_are_the_same_holdout() -> None:
    """Another hash over the same texts: the gains are compared, and the openings go on counting."""
    rows = fake_table(losses(1.0, 4))
    named = tuple(replace(row, id=f"new-{row.id}") for row in reversed(rows))
    before, after = (
        report(1.0, examples=rows),
        report(1.0, examples=named, data={"sha256": "d" * 16}),
    )
    assert before.gains
    assert before == after


def test_only_metrics_of_examples() -> None:
    """A gate on the overfit gap has no gain on the holdout, which has no train set."""
    assert () == report(0.6, verdict=verdict_of(Regression(metrics=("overfit_gap",)))).gains


def test_a_gate_on_a_tag() -> None:
    """A change of the examples of a tag is no change of the set: it has no gain on the holdout."""
    old, new = (
        replace(
            run,
            examples=[
                replace(row, tags=("x",) if n % 2 else (), scores={"score.f": score})
                for n, row in enumerate(run.examples)
            ],
            metrics={**run.metrics, "score.f[x]": score},
        )
        for run, score in ((OLD, 0.4), (NEW, 0.9))
    )
    rule = Regression(name="regression[x]", metrics=("score.f", "eval_loss"))
    verdict = compare(Side(new, (new,)), Side(old, (old,)), None, (), rule)
    assert ["score.f[x]", "eval_loss[x]"] == [change.metric for change in verdict.changes]
    assert () == report(0.6, verdict=verdict).gains


def test_worn_holdout() -> None:
    """Worn from the twentieth opening on; openings of another holdout do not count."""

    def uses(count: int, **fields: Any) -> list[HoldoutUse]:
        return [
            replace(fake_holdout_use(OLD, OLD.examples), iteration=f"{n:08x}", **fields)
            for n in range(100, 100 + count)
        ]

    assert not report(0.6, uses=uses(WORN_USES - 3)).holdout_is_worn
    assert report(0.6, uses=uses(WORN_USES - 2)).holdout_is_worn
    older = {"data": {"sha256": "older"}, "examples": other_texts(OLD.examples)}
    renewed = report(0.6, uses=uses(WORN_USES, **older))
    assert (2, False) == (renewed.uses, renewed.holdout_is_worn)


def test_worn_eval_set() -> None:
    """Worn when one judgement in error is expected: 100 of the gate's at an alpha of 1%."""
    judgements = [fake_judgement(f"{n:08x}", kind="unchanged") for n in range(99)]
    by_hand = fake_judgement(OLD, kind="accepted", by="hand")
    assert not report(0.6, judgements=[*judgements, by_hand]).eval_set_is_worn
    found = report(0.6, judgements=[*judgements, fake_judgement(NEW)])
    assert found.eval_set_is_worn
    assert (100, 0.01) == (found.judged, found.alpha)


@given(
    st.lists(st.tuples(st.floats(0, 1e30), st.floats(0, 1e30)), max_size=6),
    st.lists(st.tuples(st.floats(0, 1e30), st.floats(0, 1e30)), min_size=1, max_size=6),
)
def test_any_tables(holdout: list[Any], eval_: list[Any]) -> None:
    """Whatever the figures are, every gain and its z are numbers."""
    old, new = (fake_measured(n + 1, fake_table([p[n] for p in eval_])) for n in range(2))
    rule = Regression(max_regression=0.99)
    verdict = compare(Side(new, (new,)), Side(old, (old,)), None, (), rule)
    uses = [
        fake_holdout_use(it, fake_table([p[n] for p in holdout])) for n, it in enumerate((old, new))
    ]
    found = report_of(new, uses, verdict, old, [])
    assert found is not None
    for gain in found.gains:
        assert not math.isnan(gain.z)
