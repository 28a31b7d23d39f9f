"""How a log is written: whole or not at all, the same bytes for the same, and made for diffs."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.files import write_atomically
from pytest_ftloop.core.records import HoldoutUse, Iteration, Judgement, SeedRun, Settings
from pytest_ftloop.log import ImprovementLog, as_logged, improvement
from pytest_ftloop.log.record import iteration_of
from pytest_ftloop.log.table import examples_csv
from pytest_ftloop.log.writing import CURVE_STEPS, thinned, to_yaml
from tests.fakes import fake_example, fake_metrics, fake_steps
from tests.log.records import (
    HOSTILE,
    holdout_uses,
    iterations,
    judgements,
    kept_rows,
    one,
    rounded,
    seed_runs,
    written_record,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(iterations)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, iteration: Iteration) -> None:
    """Whatever an iteration holds, it reads back as it was but for the rounding of figures."""
    log = ImprovementLog(tmp_path_factory.mktemp("log", numbered=True))
    read = log.append(iteration)
    assert rounded(iteration) == rounded(read)
    assert kept_rows(iteration.examples) == kept_rows(read.examples)
    assert rounded(as_logged(iteration)) == rounded(read)
    (again,) = log.read()
    assert (rounded(read), read.tag) == (rounded(again), again.tag)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed_runs)
def test_round_trip_of_a_seed_run(tmp_path_factory: pytest.TempPathFactory, run: SeedRun) -> None:
    """Whatever a seed run holds, it reads back as it was but for the rounding of figures."""
    log = ImprovementLog(tmp_path_factory.mktemp("log", numbered=True))
    read = log.append_seed_run(run)
    (again,) = log.view.seed_runs()
    assert rounded(run) == rounded(read) == rounded(again)
    assert kept_rows(run.examples) == kept_rows(read.examples) == kept_rows(again.examples)
    assert set(log.files(read)) == set(log.files(again)) == set((log.folder / "seeds").iterdir())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(judgements)
def test_round_trip_of_a_judgement(
    tmp_path_factory: pytest.TempPathFactory, judgement: Judgement
) -> None:
    """Whatever a judgement holds, it reads back as it was, under the name that others refer to."""
    log = ImprovementLog(tmp_path_factory.mktemp("log", numbered=True))
    read = log.append_judgement(judgement)
    (again,) = log.view.judgements()
    assert rounded(judgement) == rounded(read) == rounded(again)
    assert [f"{read.name}.yaml"] == [p.name for p in (log.folder / "verdicts").iterdir()]
    assert read.name == again.name


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(holdout_uses)
def test_round_trip_of_a_holdout_use(
    tmp_path_factory: pytest.TempPathFactory, use: HoldoutUse
) -> None:
    """Whatever an opening of the holdout holds, it reads back, but for the texts of its rows."""
    log = ImprovementLog(tmp_path_factory.mktemp("log", numbered=True))
    read = log.append_holdout_use(use)
    (again,) = log.view.holdout_uses()
    silent = [replace(row, expected="", output="") for row in use.examples]
    assert rounded(use) == rounded(read) == rounded(again)
    assert kept_rows(silent) == kept_rows(read.examples) == kept_rows(again.examples)
    assert set(log.files(read)) == set(log.files(again)) == set((log.folder / "holdout").iterdir())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(iterations)
def test_what_is_read_is_written_the_same(iteration: Iteration) -> None:
    """Writing what was read gives the same bytes: rounding happens once."""
    first = to_yaml(iteration, "0")
    read, _ = iteration_of(first)
    assert first == to_yaml(replace(read, examples=iteration.examples), "0")
    assert examples_csv(iteration.examples) == examples_csv(reversed(iteration.examples))


def test_same_iteration_writes_the_same_bytes(tmp_path: Path) -> None:
    """The same iteration is the same two files, byte for byte, in whatever order its dicts are."""
    turned = replace(
        one(),
        settings=Settings(
            lora=dict(reversed(one().settings.lora.items())),
            training=dict(reversed(one().settings.training.items())),
        ),
        environment=dict(reversed(one().environment.items())),
        examples=tuple(reversed(one().examples)),
    )
    written = []
    for folder, iteration in (("one", one()), ("two", turned)):
        log = ImprovementLog(tmp_path / folder)
        log.append(iteration)
        written.append({p.name: p.read_bytes() for p in log.folder.iterdir()})
    assert written[0] == written[1]
    table, record = sorted(written[0])
    tag = hashlib.sha256(written[0][record]).hexdigest()[:4]
    assert (f"001-00000001-{tag}.examples.csv", f"001-00000001-{tag}.yaml") == (table, record)


def test_record_is_made_for_diffs(tmp_path: Path) -> None:
    """The record's keys are in a fixed order; a step of the curve is one line; LF ends lines."""
    text = written_record(ImprovementLog(tmp_path)).read_bytes().decode()
    assert [
        "schema", "loop", "number", "id", "parent", "fingerprint", "group", "weights", "adapter",
        "adjustments", "model", "settings", "data", "metrics", "final", "base", "facts", "curve",
        "findings", "failing", "decision", "examples", "environment", "cost",
    ] == list(yaml.safe_load(text))  # fmt: skip
    assert ["rows", "sha256"] == list(yaml.safe_load(text)["examples"])
    assert "  - [step, epoch, eval_loss, token_accuracy]\n  - [25, 0.5, 2.0, 0.5]\n" in text
    assert "\r" not in text
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_table_is_one_line_an_example(tmp_path: Path) -> None:
    """The table is sorted by id; whatever a text holds, an example is one line."""
    hostile = fake_example(HOSTILE, content="c", expected=HOSTILE, output=HOSTILE, tags=(HOSTILE,))
    rows = (hostile, *one().examples)
    table = examples_csv(rows)
    assert 4 == len(table.splitlines()) == table.count("\n")
    assert "id,content,tags,loss,tokens,correct,passed,expected,output" == table.splitlines()[0]
    assert "a,content-a,,2.000000,4,3,yes,yes,yes" == table.splitlines()[1]
    assert "b,content-b,x;y z,2.000000,4,3,no,yes,no" in table.splitlines()
    assert all(9 == len(row) for row in csv.reader(io.StringIO(table)))


def test_long_output_reads_back(tmp_path: Path) -> None:
    """A cell beyond the csv module's own limit is read."""
    log = ImprovementLog(tmp_path)
    read = log.append(one(examples=[fake_example("a", output="x" * 200_000)]))
    assert 200_000 == len(read.examples[0].output)


# writing


def test_failure_in_the_middle_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record is whole or not there: the old one stays, and no temporary file is left."""
    log = ImprovementLog(tmp_path)
    log.append(one())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LogError, match="the improvement log can't be written: No space left") as e:
        log.append(one(metrics=fake_metrics(9.0)))
    assert "--ftloop-log DIR" in e.value.cure
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "new", "text")
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_interruption_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the two files leaves a log that reads: the record is written last."""

    def interrupted(path: Path, text: str) -> None:
        if path.suffix == ".yaml":
            raise KeyboardInterrupt
        write_atomically(path, text)

    monkeypatch.setattr(improvement, "write_atomically", interrupted)
    log = ImprovementLog(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        log.append(one())
    assert () == log.read()


@pytest.mark.parametrize("below", ["", "below/it"])
def test_file_where_the_folder_should_be(tmp_path: Path, below: str) -> None:
    """A log that can't be written is told before any training, by its folder."""
    (tmp_path / "file").touch()
    log = ImprovementLog(tmp_path / "file" / below)
    assert () == log.read()
    for attempt in (log.check_writable, lambda: log.append(one())):
        with pytest.raises(LogError) as caught:
            attempt()
        assert "the improvement log can't be written" in caught.value.message
        assert str(log.folder) == str(caught.value.where)


def test_probe_leaves_nothing(tmp_path: Path) -> None:
    """Whether the log can be written is found out without a trace."""
    ImprovementLog(tmp_path / "a/b").check_writable()
    assert [] == list(tmp_path.iterdir())


# the curve


def test_short_curve_is_kept() -> None:
    """A curve of up to 60 steps is kept as it is."""
    steps = fake_steps([1.0] * CURVE_STEPS)
    assert steps == thinned(steps)
    assert () == thinned(())


@given(st.integers(CURVE_STEPS + 1, 1000))
def test_long_curve_is_thinned(count: int) -> None:
    """A longer curve becomes 60 windows: the last step, mean losses, the highest norms."""
    steps = fake_steps(range(count), [float(n % 7) for n in range(count)])
    kept = thinned(steps)
    assert CURVE_STEPS == len(kept)
    assert count == kept[-1].step
    assert [k.step for k in kept] == sorted({k.step for k in kept})
    ends = [k.step for k in kept]
    for start, kept_step in zip([0, *ends], kept, strict=False):
        window = steps[start : kept_step.step]
        assert math.isclose(sum(s.loss for s in window) / len(window), kept_step.loss)
        assert max(s.grad_norm for s in window) == kept_step.grad_norm


def test_thinned_curve_shows_what_went_wrong() -> None:
    """A NaN loss stays visible in its window; steps without a gradient norm have none."""
    losses = [1.0] * 119 + [math.nan]
    assert math.isnan(thinned(fake_steps(losses, None))[-1].loss)
    assert thinned(fake_steps(losses, None))[-1].grad_norm is None
