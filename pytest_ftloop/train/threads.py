"""How many threads torch computes with on a CPU, and how they wait: set before it is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

SPIN_COUNT = "1000"
"""Rounds that an idle OpenMP thread of GNU's library waits busily before it sleeps.

By its default the threads of two trainings on one machine mostly wait for each other's cores. Ten
times as many still cost two of them a factor of four, and one alone is no faster; with a tenth, one
alone takes twice as long.
"""


def set_threads(environ: MutableMapping[str, str] = os.environ, processes: int = 1) -> None:
    """Set what the user did not: short waits, and a share of the cores.

    The cores are shared by the workers of pytest-xdist, and by the `processes` that each of these
    trains in at once. Has no effect on a torch that is imported already.
    """
    environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    share = xdist_workers(environ) * processes
    if share > 1:
        environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // share)))


def xdist_workers(environ: Mapping[str, str]) -> int:
    """The number of pytest-xdist's workers, of which this process is one; 1 without them."""
    stated = environ.get("PYTEST_XDIST_WORKER_COUNT", "")
    return max(1, int(stated)) if stated.isdigit() else 1


def xdist_number(environ: Mapping[str, str]) -> int:
    """The number of this process among pytest-xdist's workers, from 0; 0 without them."""
    number = environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    return int(number) if number.isdigit() else 0


def cores() -> int:
    """The cores that this process may use: a container may have fewer than its machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
