"""How many threads torch computes with on a CPU, and how they wait: set before it is imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPIN_COUNT = "10000"
"""Rounds that an idle OpenMP thread of GNU's library waits busily before it sleeps.

By its default the threads of two trainings on one machine mostly wait for each other's cores.
"""


def set_threads(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what the user did not: short waits, and the share of the cores of a pytest-xdist worker.

    Has no effect on a torch that is imported already.
    """
    environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    workers = environ.get("PYTEST_XDIST_WORKER_COUNT", "")
    if workers.isdigit() and int(workers) > 1:
        environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // int(workers))))


def _cores() -> int:
    """The cores that this process may use: a container may have fewer than its machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
