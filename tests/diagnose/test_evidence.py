"""What the loop gives its diagnosis beside the curves: the chain, the noise, the holdout."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose import Evidence
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.seeds import with_seed
from tests.fake_backend import FakeBackend
from tests.fakes import fake_finding, fake_holdout_use, fake_measured, fake_metrics, fake_seed_run
from tests.loop.loop_cases import config


def seen(folder: Path, **options: object) -> list[Evidence]:
    """The evidence of each iteration that a loop trains now."""
    found: list[Evidence] = []

    def look(evidence: Evidence) -> tuple[Finding, ...]:
        found.append(evidence)
        return (fake_finding("own", "warning"),)

    loop = Loop(config(folder), Options(**options), backend=FakeBackend(), diagnose_hook=look)  # type: ignore[arg-type]
    result = loop.run()
    assert all("own" in [f.kind for f in i.findings] for i in result.chain)
    return found


def test_a_new_log_has_measured_nothing(tmp_path: Path) -> None:
    """Without seed runs and openings there is no noise and no holdout; the chain grows."""
    found = seen(tmp_path)
    assert [0, 1, 2] == [len(of.history) for of in found]
    assert [({}, (), ())] * 3 == [(of.seed_noise, of.holdout, of.opened) for of in found]
    assert all(of.train and of.eval and of.results for of in found)


def test_what_the_log_has_measured(tmp_path: Path) -> None:
    """Noise is that of its seed runs, and openings come with the iterations they were for."""
    first = seen(tmp_path, iterations=1)[0]
    loop = Loop(config(tmp_path))
    (iteration,) = loop.log.read()
    figures = dict(iteration.metrics) | fake_metrics(2 * first.metrics["eval_loss"])
    inputs, settings = Inputs.of(loop.config, None), with_seed(iteration.settings, 43)
    fingerprint = inputs.fingerprint(loop.config, settings)
    loop.log.append_seed_run(fake_seed_run(iteration, 43, metrics=figures, fingerprint=fingerprint))
    loop.log.append_holdout_use(fake_holdout_use(iteration, iteration.examples))
    loop.log.append_holdout_use(fake_holdout_use(fake_measured(99, ()), iteration.examples))
    (second, third) = seen(tmp_path)
    for of in (second, third):
        half = first.metrics["eval_loss"] / 2
        assert math.sqrt(2) * half == pytest.approx(of.seed_noise["eval_loss"].sd, abs=1e-5)
        assert 2 == len(of.holdout)
        assert [iteration.id] == [opened.id for opened in of.opened]


def test_a_damaged_log_is_told_before_training(tmp_path: Path) -> None:
    """A seed run that can't be read costs no training."""
    seen(tmp_path, iterations=1)
    folder = Loop(config(tmp_path)).log.folder / "seeds"
    folder.mkdir()
    (folder / "01234567-43-abcd.yaml").write_text("{")
    trainer = FakeBackend()
    with pytest.raises(LogError, match="01234567-43-abcd"):
        Loop(config(tmp_path), backend=trainer).run()
    assert [] == trainer.runs
