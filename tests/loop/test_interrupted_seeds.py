"""A seed run that is interrupted while it is scored goes on there; nothing is trained twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.aside import aside_of
from tests.loop.again_cases import Adapters, run

LOOP = {"iterations": 1, "seeds": 3}


def log_of(folder: Path) -> ImprovementLog:
    return ImprovementLog(folder / "improvement_log/s")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("when", "asked"), [("generating", ["measure"]), ("scoring", [])], ids=["generating", "scoring"]
)
def test_a_seed_goes_on_at_scoring(tmp_path: Path, when: str, asked: list[str]) -> None:
    """As an iteration does: it has the figures of an uninterrupted run, and counts only then."""
    run(tmp_path, Adapters(), loop={"iterations": 1})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Adapters(stop={when: KeyboardInterrupt()}), loop=LOOP)
    assert () == log_of(tmp_path).view.seed_runs()
    backend = Adapters()
    run(tmp_path, backend, loop=LOOP)
    assert [*asked, "train"] == backend.asked  # seed 43 was trained, seed 44 is
    whole = tmp_path / "whole"
    run(whole, Adapters(), loop=LOOP)
    found, wanted = log_of(tmp_path).view.seed_runs(), log_of(whole).view.seed_runs()
    assert [43, 44] == [of.seed for of in found]
    for one, other in zip(found, wanted, strict=True):
        assert (one.metrics, one.adapter) == (other.metrics, other.adapter)
        assert tuple(one.examples) == tuple(other.examples)
    assert () == aside_of(log_of(tmp_path)).view.seed_runs()


def test_what_is_unscored_is_of_one_loop(tmp_path: Path) -> None:
    """Another loop of the same settings trains its own seeds: its log is another one."""
    run(tmp_path / "one", Adapters(), loop={"iterations": 1})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "one", Adapters(stop={"scoring": KeyboardInterrupt()}), loop=LOOP)
    backend = Adapters()
    run(tmp_path / "two", backend, loop=LOOP)
    assert ["train"] * 3 == backend.asked
