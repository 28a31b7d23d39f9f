"""The executor of this machine: a few worker processes, each with its device and its threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.temporary import temporary_folder
from pytest_ftloop.loop.executor import Ended
from pytest_ftloop.loop.shares import VISIBLE, devices, environment_of
from pytest_ftloop.loop.spec import ERROR, RUN

_START = (
    "import sys; sys.path = list(filter(None, sys.path)); "
    "from pytest_ftloop.loop.worker import serve; sys.exit(serve())"
)
"""A worker's code. It drops the working folder from the path, which `-c` puts first."""

COMMAND = (sys.executable, "-c", _START)

KILLED = 128
"""Exit codes from here on are a shell's for a signal, as below zero they are Python's."""


class Processes:
    """Runs at most `count` workers at once. They start when they are needed, and end in `close`.

    Nothing runs between calls: a worker that is idle gets its next spec when the loop asks how a
    training is doing.

    Their working folder and cache are this process's, unless `folder` and `cache` name others.
    `modules` are folders on Python's path before those of this process. Each worker has a device of
    its own, unless `all_devices` are for each: something else has chosen them.
    """

    def __init__(
        self,
        count: int,
        command: Sequence[str] = COMMAND,
        *,
        folder: Path | None = None,
        cache: Path | None = None,
        modules: Sequence[Path] = (),
        all_devices: bool = False,
    ) -> None:
        self._count, self._command = count, command
        self._working, self._cache, self._modules = folder, cache, modules
        self._all_devices = all_devices
        self._workers: list[_Process] = []
        self._waiting: deque[_Training] = deque()
        # The workers' temporary folders are in it, so that a killed one leaves nothing behind.
        self._open = ExitStack()
        self._folder = self._open.enter_context(temporary_folder())

    def submit(self, spec: Path) -> _Training:
        """See `Executor`."""
        training = _Training(self, spec)
        self._waiting.append(training)
        self.see()
        return training

    def see(self) -> None:
        """Note what has ended, and give idle workers what waits."""
        for worker in list(self._workers):
            worker.see()
            # Not one that has ended since: how its training ended is noted the next time.
            if worker.training is None and worker.process.poll() is not None:
                worker.close()
                self._workers.remove(worker)
        while self._waiting:
            idle = next((w for w in self._workers if w.training is None), None)
            if idle is None and len(self._workers) >= self._count:
                return
            (idle or self._started()).train(self._waiting.popleft())

    def withdraw(self, training: _Training) -> None:
        """End a training: take it from the queue, or kill its worker."""
        if training.how is None:
            training.how = Ended("was cancelled")
        if training in self._waiting:
            self._waiting.remove(training)
        for worker in [w for w in self._workers if w.training is training]:
            worker.close()
            self._workers.remove(worker)

    def close(self) -> None:
        """See `Executor`."""
        self._waiting.clear()
        for worker in self._workers:
            worker.close()
        self._workers = []
        self._open.close()

    def _started(self) -> _Process:
        taken = {worker.slot for worker in self._workers}
        slot = next(n for n in range(self._count) if n not in taken)
        env = environment_of(slot, self._count)
        if self._all_devices and VISIBLE in env:
            env[VISIBLE] = ",".join(devices())
        paths = [*self._modules, *(Path(entry) for entry in sys.path if entry)]
        env["PYTHONPATH"] = os.pathsep.join(str(path.absolute()) for path in paths)
        env["FTLOOP_CACHE"] = str((self._cache or cache_folder()).absolute())
        env["TMPDIR"] = str(self._folder)
        output = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - `_Process` closes it
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            text=True,
            env=env,
            cwd=self._working,
            start_new_session=True,  # Ctrl-C on the terminal is the parent's
        )
        worker = _Process(slot, process, output)
        self._workers.append(worker)
        return worker


@dataclass(eq=False)
class _Training:
    """A submitted spec: a `Handle`."""

    executor: Processes
    spec: Path
    how: Ended | None = None

    def ended(self) -> Ended | None:
        """See `Handle`."""
        self.executor.see()
        return self.how

    def cancel(self) -> None:
        """See `Handle`."""
        self.executor.withdraw(self)


@dataclass
class _Process:
    """A worker process, and what it trains; None if it is idle."""

    slot: int
    process: subprocess.Popen[str]
    output: IO[bytes]
    training: _Training | None = None

    def train(self, training: _Training) -> None:
        self.training = training
        assert self.process.stdin is not None
        with suppress(OSError):  # it has just died, which `see` finds
            self.process.stdin.write(f"{training.spec}\n")
            self.process.stdin.flush()

    def see(self) -> None:
        """Note how its training has ended, if it has."""
        if self.training is None:
            return
        # Asked before the files: a process that wrote its run and then ended has succeeded.
        code = self.process.poll()
        if any((self.training.spec.parent / name).exists() for name in (RUN, ERROR)):
            self.training.how = Ended()
        elif code is not None:
            self.training.how = self._died(code)
        else:
            return
        self.training = None

    def _died(self, code: int) -> Ended:
        if code < 0 or code > KILLED:
            number = -code if code < 0 else code - KILLED
            with suppress(ValueError):
                name = signal.Signals(number).name
                memory = ": out of memory?" if name == "SIGKILL" else ""
                return Ended(f"was killed by {name}{memory}", again=True)
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        return Ended(f"ended with exit code {code}{last}")

    def close(self) -> None:
        """Kill it, with the processes that it started, and wait until it is gone."""
        with suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
        self.output.close()
