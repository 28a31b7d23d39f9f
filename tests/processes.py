"""Processes that a test starts, waits for and interrupts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

LONG_S = 600
"""Seconds after which a process hangs, for certain: on a busy machine a start takes a minute."""


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the process has made the file."""
    until = time.monotonic() + LONG_S
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, f"{file.name} was not made in {LONG_S} s"
        time.sleep(0.05)
