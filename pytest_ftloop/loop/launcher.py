"""Start the processes that train one run together, by torchrun or the user's own launcher."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.errors import ConfigError, Location
from pytest_ftloop.loop.shares import environment_of_ranks

WORKER = ("-m", "pytest_ftloop", "worker")
"""What each process runs, as arguments of python and of all launchers that take its `-m`."""

_UNDER_PARENT = (
    "import os, sys; sys.path = list(filter(None, sys.path)); "
    "from pytest_ftloop.loop.orphans import end_with_parent; end_with_parent(); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
"""Becomes the launcher, which then ends with this process however that ends (Linux)."""

LAST_BYTES = 65_536
"""Of what was printed, the bytes in which the reason for an end is looked for."""

GRACE_S = 10
"""Seconds that a launcher has to end its processes, before it is killed itself."""

KILLED_RANK = re.compile(
    r"rank\s*:\s*(\d+) \(local_rank: \d+\)\s*\n\s*exitcode\s*:\s*-(\d+)", re.MULTILINE
)
"""How torchrun, and accelerate by it, tells of a process that was killed."""


RAISED = re.compile(r"(\[rank\d+\]: ?)?[\w.]*(Error|Exception)\b")
"""How the last line of a traceback begins."""


def command_of(launcher: str | None, count: int, folder: Path, where: Location | None) -> list[str]:
    """The launcher's command. Without one of the user's, torchrun's for `count` processes here.

    Words that name files beside the loop file are their paths. Raises `ConfigError` for a command
    that is not installed.
    """
    if launcher is None:
        standalone = ["--standalone", "--nproc-per-node", str(count)]
        return [sys.executable, "-m", "torch.distributed.run", *standalone]
    try:
        first, *words = shlex.split(launcher)
    except ValueError as error:
        raise ConfigError(f"loop.launcher: {error}: {launcher!r:.80}", where=where) from None
    beside = Path(sys.executable).parent
    program = shutil.which(first) or shutil.which(first, path=str(beside))
    if program is None and (folder / first).is_file():
        program = str((folder / first).absolute())
    if program is None:
        raise ConfigError(
            f"loop.launcher: wanted a command, found {first!r}, which is not installed",
            where=where,
            cure="torchrun comes with torch, and accelerate launch with accelerate.",
        )
    files = [str((folder / w).absolute()) if (folder / w).is_file() else w for w in words]
    return [program, *files]


class Launched:
    """A launcher at work. What it and its processes print goes to `output`."""

    def __init__(
        self, command: Sequence[str], spec: Path, count: int, output: Path, temporary: Path
    ) -> None:
        self.output = output
        self._file: IO[bytes] = output.open("wb")
        under = [sys.executable, "-c", _UNDER_PARENT] if hasattr(os, "killpg") else []
        self._process = subprocess.Popen(
            [*under, *command, *WORKER, str(spec)],
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=self._file,
            env=_environment(count, temporary),
            start_new_session=True,  # Ctrl-C on the terminal is this process's
        )

    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def said(self) -> str:
        """What it and its processes printed last."""
        with self.output.open("rb") as file:
            file.seek(max(0, self.output.stat().st_size - LAST_BYTES))
            return file.read(LAST_BYTES).decode(errors="replace")

    def close(self) -> None:
        """End it and its processes, and wait until they are gone."""
        if self._process.poll() is None:
            self._process.terminate()  # its processes have sessions of their own: it ends them
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        with suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        self._file.close()


def _environment(count: int, temporary: Path) -> dict[str, str]:
    """Environment variables of the processes: their devices, this process's modules and cache."""
    made = environment_of_ranks(count)
    made["PYTHONPATH"] = os.pathsep.join(str(Path(e).absolute()) for e in sys.path if e)
    made["FTLOOP_CACHE"] = str(cache_folder().absolute())
    made["TMPDIR"] = str(temporary)  # so that killed ones leave nothing behind
    return made


def how_it_ended(code: int, said: str) -> str:
    """In words how processes ended that left neither a run nor a mistake."""
    # Those that the launcher ended afterwards, by SIGTERM, are told of as well.
    killed = [found for found in KILLED_RANK.findall(said) if int(found[1]) != signal.SIGTERM]
    if killed:
        rank, number = killed[0]
        return f"process {rank} was killed by {_signal(int(number))}"
    if code < 0:
        return f"the launcher was killed by {_signal(-code)}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if RAISED.match(line)]
    last = next(iter(errors), lines[-1] if lines else "")
    return f"the launcher ended with exit code {code}{f': {last:.200}' if last else ''}"


def _signal(number: int) -> str:
    name = f"signal {number}"
    with suppress(ValueError):
        name = signal.Signals(number).name
    return f"{name}: out of memory?" if name == "SIGKILL" else name
