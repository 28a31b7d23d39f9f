"""Fixtures and settings of all tests. Nothing is written to the user's cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.loops import Loops

pytest_plugins = ["pytester", "tests.small_base"]

# Before torch is imported: models this small gain nothing from a second thread, and two processes
# with two threads each on two cores wait for each other most of the time. One number of threads
# also gives the same sums on each run.
os.environ["OMP_NUM_THREADS"] = "1"

# Each run draws the same examples, however busy the machine; tests/fuzz.py explores with others.
settings.register_profile(
    "same",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("fuzz", settings.get_profile("same"), derandomize=False)
settings.load_profile("same")

# Hypothesis draws now and then a constant of our modules that are imported by then: under
# pytest-xdist not the same ones in each run.
providers._get_local_constants = lambda: providers._local_constants  # none, or tests/fuzz.py's


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this test run's own, shared by its processes: the embedded model is built once.

    FTLOOP_TEST_CACHE names one to keep.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = Path(os.environ.get("FTLOOP_TEST_CACHE") or shared / "ftloop-cache").absolute()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTLOOP_CACHE", str(folder))
        patch.delenv("FTLOOP_RECORDS", raising=False)
        yield folder


@pytest.fixture
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a developer's machine: the CI variable is not set."""
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file below `tmp_path`: text as UTF-8 with its line ends as they are, or bytes."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


@pytest.fixture
def loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loops:
    """A new repository, the working folder, where `ftloop run` trains in no time."""
    from pytest_ftloop.loop import backend
    from tests.gitfakes import GitRepo, isolate
    from tests.loops import Loops
    from tests.plugin.fake_runner import FakeBackend

    isolate(monkeypatch)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(backend, "local", FakeBackend)
    made = Loops(GitRepo.init(tmp_path / "project"), tmp_path / "trained")
    monkeypatch.setenv("FAKE_TRAINED", str(made.trained_file))
    monkeypatch.chdir(made.root)
    return made
