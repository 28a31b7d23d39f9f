"""Threads of torch on a CPU: set before it is imported, unless the user did."""

from __future__ import annotations

import os

import pytest

from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.loop.backend import check_one_process
from pytest_ftloop.train import threads


@pytest.mark.parametrize(
    ("stated", "cores", "number"),
    [
        ({}, 8, None),
        ({"PYTEST_XDIST_WORKER_COUNT": "1"}, 8, None),
        ({"PYTEST_XDIST_WORKER_COUNT": "2"}, 8, "4"),
        ({"PYTEST_XDIST_WORKER_COUNT": "3"}, 8, "2"),
        ({"PYTEST_XDIST_WORKER_COUNT": "9"}, 8, "1"),
        ({"PYTEST_XDIST_WORKER_COUNT": "2", "OMP_NUM_THREADS": "7"}, 8, "7"),
    ],
)
def test_workers_share_the_cores(
    stated: dict[str, str], cores: int, number: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of pytest-xdist share the cores; what the user states stays."""
    monkeypatch.setattr(threads, "cores", lambda: cores)
    environ = dict(stated)
    threads.set_threads(environ)
    assert number == environ.get("OMP_NUM_THREADS")


def test_idle_threads_sleep_soon() -> None:
    """Idle threads do not wait busily for long, unless the user wants them to."""
    environ: dict[str, str] = {}
    threads.set_threads(environ)
    assert {"GOMP_SPINCOUNT": "1000"} == environ
    environ = {"GOMP_SPINCOUNT": "infinite"}
    threads.set_threads(environ)
    assert {"GOMP_SPINCOUNT": "infinite"} == environ


def test_cores_are_those_of_this_process() -> None:
    """At least one core, and no more than the machine has."""
    assert 1 <= threads.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("world_size", ["2", "16"])
def test_several_processes_are_refused(world_size: str) -> None:
    """Under torchrun a training would wait for ever on its own lock: it is refused at once."""
    with pytest.raises(ConfigError, match=f"wanted one process, found WORLD_SIZE={world_size}"):
        check_one_process({"WORLD_SIZE": world_size})


@pytest.mark.parametrize("environ", [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}])
def test_one_process_trains(environ: dict[str, str]) -> None:
    """One process, launched or not, may train."""
    check_one_process(environ)
