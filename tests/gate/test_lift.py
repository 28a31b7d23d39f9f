"""The gates `lift` and `forgetting`: what is proven against the untrained base and the baseline."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.gates import DEFAULT_FORGETTING, Forgetting, Lift
from pytest_ftloop.core.noise import Prior, SeedNoise
from pytest_ftloop.core.records import Iteration, Settings, Untrained
from pytest_ftloop.core.runs import differences
from pytest_ftloop.gate.compare import Side
from pytest_ftloop.gate.forgetting import Reference, judge_guards
from pytest_ftloop.gate.lift import LiftTests, gain_of
from pytest_ftloop.gate.statistic import paired_test
from tests.fakes import fake_measured, fake_seed_run, fake_table
from tests.gate.compare_cases import losses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import ExampleResult
    from pytest_ftloop.gate.thresholds import GateResult
    from pytest_ftloop.gate.verdict import Verdict

EVAL = {"rows": 200, "sha256": "e" * 16}
GENERAL = {"rows": 200, "sha256": "f" * 16, "scoring": None}


def measured(number: int, rows: Sequence[ExampleResult], **fields: Any) -> Iteration:
    data = {"train": {"rows": 400, "sha256": "a" * 16}, "eval": EVAL}
    return fake_measured(number, rows, **({"data": data} | fields))


def untrained(rows: Sequence[ExampleResult], like: Iteration, **fields: Any) -> Untrained:
    facts: dict[str, Any] = {
        "loop": like.loop,
        "fingerprint": "b" * 64,
        "model": like.model,
        "scoring": like.scoring,
        "data": {role: of for role, of in like.data.items() if role != "train"},
        "metrics": {},
        "facts": {},
        "environment": like.environment,
        "examples": tuple(rows),
    }
    return Untrained(**(facts | fields))


def table(mean: float, passing: int, noise: int = 0) -> tuple[ExampleResult, ...]:
    return fake_table(losses(mean, noise), range(passing, 200))


def checked(gate: Lift, base: Untrained | None, candidate: Iteration, *seeds: Any) -> GateResult:
    tests = LiftTests((base,) if base else (), (candidate,), seeds)
    return tests.check([gate], candidate)[0]


TEN_POINTS = Lift("lift", ">=", 0.1)
HALF_A_NAT = Lift("lift[eval_loss]", ">=", 0.5)


@pytest.mark.parametrize(
    ("gate", "now", "passed", "message"),
    [
        (
            TEN_POINTS,
            table(1.0, 150, 1),
            True,
            "lift +55.0 points (pass_rate 20.0% -> 75.0%), wanted >= 10 points: proven, p < 0.0001",
        ),
        (
            TEN_POINTS,
            table(1.0, 50, 1),
            False,
            "lift +5.0 points (pass_rate 20.0% -> 25.0%), wanted >= 10 points",
        ),
        (
            TEN_POINTS,
            table(1.0, 62, 1),
            False,
            "lift +11.0 points (pass_rate 20.0% -> 31.0%), wanted >= 10 points: only ",
        ),
        (
            HALF_A_NAT,
            table(1.0, 40, 1),
            True,
            "lift[eval_loss] +4.0765 (eval_loss 5.0979 -> 1.0214), wanted >= 0.5: proven",
        ),
        (
            HALF_A_NAT,
            table(4.9, 40, 1),
            False,
            "lift[eval_loss] +0.0929 (eval_loss 5.0979 -> 5.0049), wanted >= 0.5",
        ),
    ],
    ids=["proven", "too small", "not proven", "loss", "loss too small"],
)
def test_lift(gate: Lift, now: Any, passed: bool, message: str) -> None:
    """A lift holds only if the gain is proven to be at least the bound."""
    candidate = measured(1, now)
    result = checked(gate, untrained(table(5.0, 40), candidate), candidate)
    assert passed is result.passed
    assert result.message.startswith(message)


def test_what_would_prove_a_lift() -> None:
    """A gain that would do, but is not proven, says how many examples or seeds would prove it."""
    candidate = measured(1, table(1.0, 75, 1))
    result = checked(TEN_POINTS, untrained(table(5.0, 40), candidate), candidate)
    assert not result.passed
    assert result.message.endswith("would prove a gain of this size")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (None, "lift is not known: the log has no measurement of the untrained base; run pytest"),
        ({"scoring": {"scorer": "contains"}}, "lift is not known: the log has no measurement"),
        ({"model": "other"}, "lift is not known: the log has no measurement"),
        (
            {"environment": {"device": "cuda"}},
            "lift is not known: the untrained base was measured in another environment",
        ),
    ],
)
def test_lift_without_a_base(changes: dict[str, Any] | None, message: str) -> None:
    """Without the base as measured for this iteration the gate fails, and says what to run."""
    candidate = measured(1, table(1.0, 190, 1))
    base = None if changes is None else untrained(table(5.0, 40), candidate, **changes)
    result = checked(TEN_POINTS, base, candidate)
    assert (None, False) == (result.value, result.passed)
    assert result.message.startswith(message)


def test_base_has_no_seed_noise() -> None:
    """Against the untrained base only the candidate's seeds count: half the seed variance."""
    found = differences([0.1, -0.1, 0.2, 0.0])
    noise, prior = SeedNoise(0.0, 0.0, 0), Prior(0.1, 4.0)
    both = paired_test(found, 1, 1, noise, prior, 0.01)
    alone = paired_test(found, 1, 1, noise, prior, 0.01, untrained=True)
    sampling = found.variance / found.n
    assert math.isclose(both.se**2 - sampling, 2 * (alone.se**2 - sampling))


def test_more_seeds_prove_more() -> None:
    """A candidate's seeds lower the gain's standard error."""
    candidate = measured(1, table(1.0, 100, 1))
    base = untrained(table(5.0, 40), candidate).as_iteration()
    seeds = [fake_seed_run(candidate, n, table(1.0, 100, n)) for n in (43, 44)]
    one = gain_of(Side(candidate, (candidate,)), base, [], "pass_rate")
    three = gain_of(Side(candidate, (candidate, *seeds)), base, [[candidate, *seeds]], "pass_rate")
    assert not isinstance(one, str)
    assert not isinstance(three, str)
    assert (1, 3) == (one.test.k_candidate, three.test.k_candidate)
    assert three.test.se < one.test.se


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_larger_bound_is_harder_to_prove(one: float, other: float) -> None:
    """The p-value of a lift rises with its bound."""
    candidate = measured(1, table(1.0, 100, 1))
    gain = gain_of(
        Side(candidate, (candidate,)),
        untrained(table(5.0, 40), candidate).as_iteration(),
        [],
        "pass_rate",
    )
    assert not isinstance(gain, str)
    low, high = sorted((one, other))
    assert gain.p(low) <= gain.p(high)
    assert gain.p(gain.lower()) == pytest.approx(0.01)


def guarded(number: int, **guards: Sequence[ExampleResult]) -> Iteration:
    data = {"train": {"rows": 400, "sha256": "a" * 16}, "eval": EVAL}
    data |= {f"guard.{name}": GENERAL for name in guards}
    return measured(number, table(1.0, 100, number), data=data, guards=guards)


def general(mean: float, noise: int) -> tuple[ExampleResult, ...]:
    """A guard of texts, which no scorer reads."""
    rows = fake_table(losses(mean, noise))
    return tuple(replace(row, passed=None) for row in rows)


def judged(
    candidate: Iteration,
    base: Iteration | None = None,
    baseline: Iteration | None = None,
    rule: Forgetting = DEFAULT_FORGETTING,
) -> Verdict:
    references = []
    if base is not None:
        references.append(Reference("base", Side(base, (base,)), fails=True))
    else:
        references.append(Reference("base", why="the log has no base", fails=True))
    if baseline is not None:
        references.append(Reference("baseline", Side(baseline, (baseline,))))
    return judge_guards(Side(candidate, (candidate,)), references, [], rule)


def base_of_guards(**guards: Sequence[ExampleResult]) -> Iteration:
    like = guarded(1, **guards)
    return untrained(table(5.0, 10), like, guards=guards).as_iteration()


@pytest.mark.parametrize(
    ("now", "kind", "ok"),
    [(2.0, "unchanged", True), (3.0, "regressed", False), (1.0, "improved", True)],
)
def test_a_guard_against_the_base(now: float, kind: str, ok: bool) -> None:
    """A guard that is proven worse than the base's fails; one that got better does not."""
    verdict = judged(guarded(2, general=general(now, 2)), base_of_guards(general=general(2.0, 0)))
    (change,) = verdict.changes
    assert ("guard.general.eval_loss", "base") == (change.metric, change.against)
    assert (kind, ok) == (change.kind, verdict.ok)
    assert ("regressed" if kind == "regressed" else "unchanged") == verdict.kind


def test_a_guard_against_the_baseline() -> None:
    """A guard that is better than the base's, but worse than the baseline's, fails."""
    base = base_of_guards(general=general(3.0, 0))
    verdict = judged(guarded(2, general=general(2.5, 2)), base, guarded(1, general=general(1.5, 1)))
    assert ("regressed", False) == (verdict.kind, verdict.ok)
    assert "against the baseline" in verdict.because
    assert "against the base," not in verdict.because


@pytest.mark.parametrize(
    ("candidate", "base", "rule", "because"),
    [
        (guarded(2), None, DEFAULT_FORGETTING, "has no results of any guard"),
        (guarded(2, other=general(2.0, 2)), None, Forgetting("forgetting[general]"), "general"),
        (guarded(2, general=general(2.0, 2)), None, DEFAULT_FORGETTING, "the log has no base"),
        (
            guarded(2, general=general(2.0, 2)),
            base_of_guards(other=general(2.0, 0)),
            DEFAULT_FORGETTING,
            "it was not measured on this guard",
        ),
        (
            guarded(2, general=general(2.0, 2)),
            base_of_guards(general=general(2.0, 0)),
            Forgetting(metrics=("pass_rate",)),
            "it has no scoring that gives pass_rate",
        ),
    ],
    ids=["no guards", "another guard", "no base", "base without it", "not scored"],
)
def test_a_guard_that_can_not_be_judged(
    candidate: Iteration, base: Iteration | None, rule: Forgetting, because: str
) -> None:
    """What must not be forgotten and can't be compared with the base is incomplete, and fails."""
    verdict = judged(candidate, base, rule=rule)
    assert ("incomplete", False) == (verdict.kind, verdict.ok)
    assert because in verdict.because


def test_guards_share_one_correction() -> None:
    """Twenty guards have no more false alarms together than one: Holm covers all of them."""
    names = [f"g{n}" for n in range(20)]
    before = {name: general(2.0, n) for n, name in enumerate(names)}
    now = {name: general(2.16, 100 + n) for n, name in enumerate(names)}
    many = judged(guarded(2, **now), base_of_guards(**before))
    one = judged(guarded(2, g0=now["g0"]), base_of_guards(g0=before["g0"]))
    p = {change.metric: change.p for change in many.changes}
    assert p["guard.g0.eval_loss"] > one.changes[0].p


def test_what_the_base_can_not_do_is_not_forgotten() -> None:
    """Where the base passes nothing, the loss alone judges, and a note says so."""
    base = base_of_guards(general=table(2.0, 0))
    verdict = judged(guarded(2, general=table(2.0, 0, 1)), base)
    assert ["guard.general.eval_loss"] == [change.metric for change in verdict.changes]
    assert (
        "guard general against the base: pass_rate of the base is 0%, so there is nothing to "
        "forget by it; judged by eval_loss",
    ) == verdict.notes
    worse = judged(guarded(2, general=table(3.0, 0, 1)), base)
    assert ("regressed", False) == (worse.kind, worse.ok)
    only = judged(
        guarded(2, general=table(2.0, 0, 1)), base, rule=Forgetting(metrics=("pass_rate",))
    )
    assert ["guard.general.pass_rate"] == [change.metric for change in only.changes]
    some = judged(guarded(2, general=table(2.0, 0, 1)), base_of_guards(general=table(2.0, 1)))
    assert 2 == len(some.changes)


def test_each_guard_is_asked_for_what_it_has() -> None:
    """A gate on all guards compares a score where a guard's scorer gives it, and no zeros."""
    fields = tuple(replace(row, scores={"score.fields": 0.5}) for row in table(2.0, 100))
    rows = {"json": fields, "plain": table(2.0, 100, 1), "texts": general(2.0, 2)}
    rule = Forgetting(metrics=("eval_loss", "pass_rate", "score.fields"))
    found = judged(guarded(1, **rows), base_of_guards(**rows), rule=rule)
    assert [
        *(f"guard.json.{name}" for name in rule.metrics),
        *(f"guard.plain.{name}" for name in rule.metrics[:2]),
        "guard.texts.eval_loss",
    ] == [change.metric for change in found.changes]


def test_a_score_that_the_candidate_lost() -> None:
    """What the base has and the candidate lacks is incomplete, and is not left out."""
    rows = table(2.0, 100)
    had = tuple(replace(row, scores={"score.fields": 0.5}) for row in rows)
    rule = Forgetting(metrics=("eval_loss", "score.fields"))
    found = judged(guarded(1, json=rows), base_of_guards(json=had), rule=rule)
    assert ("incomplete", False) == (found.kind, found.ok)


@pytest.mark.parametrize(
    ("changes", "ok"),
    [
        ({}, True),
        ({"settings": Settings(lora={"r": 64}, training={})}, False),
        ({"model": "another"}, False),
    ],
)
def test_other_rows_to_guard_with_another_training(changes: dict[str, Any], ok: bool) -> None:
    """Where only the baseline counts, other rows are no way past the gate for another model."""
    was, now = guarded(1, texts=general(2.0, 1)), guarded(2, texts=general(9.0, 2))
    others = tuple(replace(row, content=f"{row.content}2") for row in now.guards["texts"])
    data = {**now.data, "guard.texts": {**GENERAL, "sha256": "9" * 16}}
    candidate = replace(now, guards={"texts": others}, data=data, **changes)
    baseline = replace(was, settings=now.settings, model=now.model)
    references = [Reference("baseline", Side(baseline, (baseline,)))]
    rule = Forgetting(against=("baseline",))
    found = judge_guards(Side(candidate, (candidate,)), references, [], rule)
    assert ("not comparable", ok) == (found.kind, found.ok)
