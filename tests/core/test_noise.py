"""Seed noise: measured by a log's seed runs, one figure on every screen; else believed."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.cli import main
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.noise import (
    Prior,
    better_beyond_noise,
    least_change,
    measured_noise,
    noise_of,
    shrunk,
)
from pytest_ftloop.core.runs import groups_of
from pytest_ftloop.gate.verdict import amount_text
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.planner import Planner
from pytest_ftloop.loop.workspace import Logged
from pytest_ftloop.report.html.gather import of_log
from pytest_ftloop.report.html.page import loop_data
from tests.fakes import fake_iteration, fake_metrics, fake_noise, fake_seed_run
from tests.loops import BETTER

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Finding
    from pytest_ftloop.core.runs import Measured
    from pytest_ftloop.diagnose import Evidence
    from tests.loops import Loops


def group(*losses: float, name: str = "g", **metrics: float) -> tuple[Measured, ...]:
    """The runs of one A/A group, whose eval losses these are; the other metrics are all equal."""
    first = fake_iteration(1, metrics=fake_metrics(losses[0], 0.9, **metrics), group=name)
    others = (
        fake_seed_run(first, 42 + n, (), metrics=fake_metrics(loss, 0.9, **metrics))
        for n, loss in enumerate(losses[1:], start=1)
    )
    return first, *others


# --- measured ------------------------------------------------------------------------------------


def test_without_seed_runs_nothing_is_measured() -> None:
    """One run of each setting tells nothing of the seed, nor do runs of different settings."""
    runs = [fake_iteration(n, metrics=fake_metrics(n), group=f"g{n}") for n in (1, 2, 3)]
    assert {} == measured_noise(groups_of(runs, []))


def test_groups_are_pooled_by_degrees_of_freedom() -> None:
    """Variances within the groups: a group of three seeds counts twice as much as a pair."""
    noise = measured_noise([group(1.0, 1.1, 1.2), group(5.0, 5.4, name="h")])["eval_loss"]
    assert 3 == noise.df
    assert math.sqrt((2 * 0.1**2 + 0.08) / 3) == pytest.approx(noise.sd)


def test_one_group_is_the_standard_deviation() -> None:
    """Of one group it is the standard deviation over its seeds, in the metric's own unit."""
    noise = measured_noise([group(2.0, 2.1, 2.4)])["eval_loss"]
    assert stdev([2.0, 2.1, 2.4]) == pytest.approx(noise.sd)


def test_a_figure_that_never_moved_is_measured() -> None:
    """Equal figures are a seed noise of 0, which is not the same as none measured."""
    noise = measured_noise([group(1.0, 1.1, pass_rate=0.9)])["pass_rate"]
    assert (0.0, 1) == (noise.sd, noise.df)


def test_figures_that_are_not_finite_are_left_out() -> None:
    """A NaN run tells nothing, the others of its group do."""
    with_nan, without = (measured_noise([group(*of)]) for of in ((2.0, math.nan, 2.2), (2.0, 2.2)))
    assert with_nan["eval_loss"] == without["eval_loss"]
    assert "eval_loss" not in measured_noise([group(2.0, math.nan)])


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=2, max_size=6))
def test_any_figures_give_finite_noise(losses: list[float]) -> None:
    """Whatever figures a log holds, what is measured is finite, and what counts as a change too."""
    measured = measured_noise([group(*losses)])
    assert all(0 <= noise.sd < math.inf for noise in measured.values())
    assert 0 < least_change("eval_loss", 1.0, measured) < math.inf


# --- one log, one figure -------------------------------------------------------------------------


def test_one_log_has_one_seed_noise(
    loops: Loops, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibration, verdict, HTML page, policy and diagnosis give one log's seed noise alike.

    The log has two A/A groups at different losses, which the figures of one group alone, or as a
    share of the loss, would not describe.
    """
    monkeypatch.setenv("FAKE_NOISE", "0.01")
    loops.version()
    main(["calibrate", "--seeds", "3"])
    loops.commit()
    path = loops.write(rate=BETTER)
    main(["calibrate", "--seeds", "2"])
    log, config = ImprovementLog(loops.root / "improvement_log/x"), read_loop_file(path)
    iterations, seed_runs = log.view.iterations(), log.view.seed_runs()
    runs: list[Measured] = [*iterations, *seed_runs]
    grouped = [[r.metrics["eval_loss"] for r in runs if r.group == i.group] for i in iterations]
    assert [3, 2] == [len(losses) for losses in grouped]
    sd = math.sqrt(sum((len(losses) - 1) * stdev(losses) ** 2 for losses in grouped) / 3)
    shown = amount_text("eval_loss", sd)

    calibrated = capsys.readouterr().out.splitlines()
    assert [f"seed noise {shown}"] == [
        line.rpartition(", ")[2] for line in calibrated[-3:] if "eval_loss" in line
    ]

    main(["gate"])
    note = " ".join(capsys.readouterr().out.split()).partition("measure the seed noise ")[2]
    meant = "how far trainings that differ in their seed alone are apart"
    assert note.startswith(f"({meant}; so far {shown} in eval_loss, 0.0 points in pass_rate)")

    bands = loop_data(of_log(Logged(log, config)))["metrics"]["eval_loss"]["noise"]
    assert [pytest.approx(sd)] * 2 == [band["sd"] for band in bands]

    inputs = Inputs.of(config, None)
    known = Planner(config, inputs, log, None, None, explores=True).known(iterations, iterations)
    assert sd == pytest.approx(known.seed_noise["eval_loss"].sd)

    found: list[Evidence] = []

    def look(evidence: Evidence) -> tuple[Finding, ...]:
        found.append(evidence)
        return ()

    loops.write(rate="3.0e-4")
    Loop(read_loop_file(Path(path)), Options(), diagnose_hook=look).run()
    assert [pytest.approx(sd)] == [evidence.seed_noise["eval_loss"].sd for evidence in found]


# --- assumed -------------------------------------------------------------------------------------


def test_assumed_lies_between_belief_and_measure() -> None:
    """One pair counts as much as half the belief; of many pairs the belief is forgotten."""
    one_pair, many = noise_of([[1.0, 1.2]]), noise_of([[1.0, 1.2]] * 10_000)
    assert (2 * 0.01**2 + 0.02) / 3 == pytest.approx(shrunk(one_pair, Prior(0.01, 2)))
    assert many.variance == pytest.approx(shrunk(many, Prior(0.01, 2)), rel=1e-3)


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("eval_loss", 2.0, 0.02),
        ("eval_loss[negation]", 2.0, 0.02),
        ("pass_rate", 0.8, 0.005),
        ("token_accuracy", 0.0, 0.005),
        ("overfit_gap", 0.0, 0.01),
    ],
)
def test_believed(metric: str, value: float, expected: float) -> None:
    """1% of a loss, half a point of a rate, 0.01 nats of a gap."""
    assert expected == least_change(metric, value)


def test_two_runs_differ_by_more_than_one_varies() -> None:
    """A change counts beyond the standard deviation of a difference: that of a run times root 2."""
    measured = fake_noise(eval_loss=0.08, pass_rate=0.03)
    assert math.sqrt(2) * 0.08 == pytest.approx(least_change("eval_loss", 2.0, measured), rel=0.01)
    assert math.sqrt(2) * 0.03 == pytest.approx(least_change("pass_rate", 0.1, measured), rel=0.01)


def test_two_seeds_that_agree() -> None:
    """They lower a variance that is worth 2 degrees of freedom by a third, and no more."""
    measured = measured_noise([group(2.0, 2.0)])
    assert 0.02 * math.sqrt(2 / 3) == pytest.approx(least_change("eval_loss", 2.0, measured))


def test_of_a_tag_nothing_is_measured() -> None:
    """The whole set's noise understates that of a slice: for it what is believed stands."""
    assert 0.02 == least_change("eval_loss[negation]", 2.0, fake_noise(eval_loss=0.5))


def test_better_beyond_measured_noise() -> None:
    """A gain of 3% counts where 1% is believed, and not where 5% was measured."""
    assert better_beyond_noise("eval_loss", 0.97, 1.0)
    assert not better_beyond_noise("eval_loss", 0.97, 1.0, fake_noise(eval_loss=0.05))


def test_nan() -> None:
    """Any figure is better than NaN; NaN is never better."""
    assert better_beyond_noise("eval_loss", 9.0, math.nan)
    assert not better_beyond_noise("eval_loss", math.nan, 9.0)
    assert not better_beyond_noise("eval_loss", math.nan, math.nan)
