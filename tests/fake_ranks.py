"""A launcher of ranks that train in no time and without torch, and fail where a test says so.

`python fake_ranks.py N -m pytest_ftloop worker SPEC` starts N ranks, as torchrun would, and ends
them all when one fails. RANKS_FAIL is `RANK HOW`: that rank raises a mistake, is killed or hangs,
or, with `bug`, raises what is no mistake of the user's. RANKS_SEEN names a folder where each rank
leaves a file, by its number.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FILE = Path(__file__)

RANK = (
    f"import sys; sys.path.insert(0, {str(FILE.parents[1])!r}); "
    "from tests.fake_rank import main; main()"
)

KILLED = """\
  rank      : {rank} (local_rank: {rank})
  exitcode  : -{number} (pid: 4711)
"""
"""What torchrun prints of a rank that was killed."""


def launch(count: int, spec: str) -> int:
    """Start the ranks, and end all when one fails; the exit code."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, spec],
            env={**os.environ, "RANK": str(number), "WORLD_SIZE": str(count)},
            start_new_session=True,
        )
        for number in range(count)
    ]

    def end(*_: object) -> None:
        for rank in ranks:
            rank.kill()

    signal.signal(signal.SIGTERM, lambda *_: (end(), sys.exit(1)))
    while True:
        codes = [rank.poll() for rank in ranks]
        failed = [(number, code) for number, code in enumerate(codes) if code]
        if failed:
            end()
            number, code = failed[0]
            if code < 0:
                print(KILLED.format(rank=number, number=-code))
            return 1
        if None not in codes:
            return 0
        time.sleep(0.02)


def main() -> int:
    """Run as the launcher."""
    count, *command, spec = sys.argv[1:]
    assert command == ["-m", "pytest_ftloop", "worker"]
    return launch(int(count), spec)


if __name__ == "__main__":
    sys.exit(main())
