"""Processes that a test starts, waits for and interrupts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

LONG_S = 600
"""Seconds after which a process hangs, for certain: on a busy machine a start takes a minute."""


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the process has made the file."""
    until = time.monotonic() + LONG_S
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, f"{file.name} was not made in {LONG_S} s"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether there is a process of this number, other than one whose parent has not noticed."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
