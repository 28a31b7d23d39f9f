"""What judging costs: 200 iterations of 2,000 examples, 1,000 of 200, and fifty loops at once.

Of the long logs one more iteration is not committed.

    python benchmarks/replay.py                       # make the repository, time the commands
    python benchmarks/replay.py --python X/bin/python # as installed in another environment
    python benchmarks/replay.py --before CHECKOUT     # in turns with an earlier commit
    python benchmarks/replay.py --keep DIR            # keep the repository there, and use it again

Whole commands in processes of their own; wall time and the processor time of the process and of
git, minimum and median, beside an empty Python program and a plain pytest run. Every command is
checked: it exits 0, and none of the heavy libraries is in sys.modules at its end. CHECKOUT has a
.venv of its own, and its own benchmarks/replay.py makes its repository (as its log may differ).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from long_log import add_seed_runs, make_many, make_repository

from pytest_ftloop.loop.seeds import CALIBRATION_SEEDS

ITERATIONS = 200
EXAMPLES = 2_000
LONGEST = (1_000, 200)
"""Iterations and eval examples of the log with the most records."""
LOOPS = 50
OF_EACH = (3, 100)
"""Iterations and eval examples of each of the many loops."""


def main() -> None:
    """Make the repositories, then time each command without and with calibration seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="runs of each command (default: 7)")
    parser.add_argument(
        "--python", default=sys.executable, type=os.path.abspath, help="the interpreter to time"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the repositories here")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="time this one in turns")
    parser.add_argument(
        "--smoke", action="store_true", help="three iterations, three commands once"
    )
    chosen = parser.parse_args()
    iterations, examples = (3, 60) if chosen.smoke else (ITERATIONS, EXAMPLES)
    longest = (4, 20) if chosen.smoke else LONGEST
    loops = 2 if chosen.smoke else LOOPS
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.keep or Path(temporary)).absolute()
        sides = [Side("", chosen.python, folder, is_compiled=chosen.smoke)]
        if not (folder / "seeded").is_dir():
            make_all(folder, iterations, examples, longest, loops)
        if chosen.before:
            sides.append(before(chosen.before.absolute(), folder / "before"))
        for title, root in (("one seed", "plain"), (f"{CALIBRATION_SEEDS} seeds", "seeded")):
            if chosen.smoke and root == "plain":
                continue
            print(f"{iterations} iterations, {examples} examples, {title}: s")
            wanted = commands()[2:] if chosen.smoke else commands()
            show_all(wanted, root, sides, 0 if chosen.smoke else chosen.runs)
        print(f"{longest[0]} iterations, {longest[1]} examples, one seed: s")
        show_all(commands()[2:], "longest", sides, 0 if chosen.smoke else chosen.runs)
        print(f"{loops} loops of {OF_EACH[0]} iterations, {OF_EACH[1]} examples: s")
        show_all(commands_of_many(), "many", sides, 0 if chosen.smoke else chosen.runs)


@dataclass(frozen=True)
class Side:
    """An interpreter, and the folder with the two repositories that its commands run in.

    `is_compiled`: its modules are taken as they are. Else they are compiled in the first run, as
    pip compiles them; nothing is written into the folders of the packages.
    """

    name: str
    python: str
    folder: Path
    is_compiled: bool = False


@dataclass(frozen=True)
class Time:
    """Wall and processor seconds of one process."""

    wall_s: float
    cpu_s: float


def make_all(
    folder: Path, iterations: int, examples: int, longest: tuple[int, int], loops: int
) -> None:
    """The repository with one seed, a copy with calibration seeds, the longest, the many loops."""
    make_many(folder / "many", loops, *OF_EACH)
    make_repository(folder / "longest", *longest)
    make_repository(folder / "plain", iterations, examples)
    shutil.copytree(folder / "plain", folder / "seeded")
    add_seed_runs(folder / "seeded")


def show_all(wanted: list[tuple[str, list[str]]], root: str, sides: list[Side], runs: int) -> None:
    """Time commands in one of the repositories, and print a table; once each without `runs`."""
    # An earlier commit's own replay.py may have made no such repository.
    sides = [side for side in sides if (side.folder / root).is_dir()]
    print(f"  {'':34}  wall min  median   cpu min  median")
    for name, command in wanted:
        times = [timed(side, command, root) for side in sides]
        if runs:  # that was to warm the caches up
            times = [timed(side, command, root) for _ in range(runs) for side in sides]
        show(name, sides, times)
    print()


def before(checkout: Path, folder: Path) -> Side:
    """Another checkout's side, with repositories made by its own code."""
    python = str(checkout / ".venv" / "bin" / "python")
    if not (folder / "seeded").is_dir():
        script = str(checkout / "benchmarks" / "replay.py")
        made = [python, script, "--runs", "1", "--keep", str(folder)]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    return Side("before", python, folder)


def show(name: str, sides: list[Side], times: list[Time]) -> None:
    """A line per side, whose runs took turns; with two sides, their ratio."""
    medians = []
    for n, side in enumerate(sides):
        own = times[n :: len(sides)]
        wall, cpu = [t.wall_s for t in own], [t.cpu_s for t in own]
        figures = (min(wall), statistics.median(wall), min(cpu), statistics.median(cpu))
        medians.append(figures)
        shown = name if not side.name else f"  {side.name}"
        print(f"  {shown:34}" + "".join(f"{figure:9.3f}" for figure in figures), flush=True)
    if len(medians) == 2:
        ratios = (ours / theirs for ours, theirs in zip(*medians, strict=True))
        print(f"  {'  ratio':34}" + "".join(f"{ratio:9.2f}" for ratio in ratios), flush=True)


PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
"""pytest without those plugins of an environment that are not ours to measure."""
FTLOOP = ["-m", "pytest_ftloop"]


def commands() -> list[tuple[str, list[str]]]:
    """Each command by its name: what follows the interpreter."""
    return [
        ("python -c pass", ["-c", "pass"]),
        ("pytest test_trivial.py", [*PYTEST, "test_trivial.py"]),
        ("pytest --ftloop-replay", [*PYTEST, "--ftloop-replay", "topic.ftloop.yaml"]),
        ("ftloop gate", [*FTLOOP, "gate"]),
        ("ftloop diff", [*FTLOOP, "diff"]),
    ]


def commands_of_many() -> list[tuple[str, list[str]]]:
    """Those that judge all loops of a folder."""
    return [
        ("pytest --ftloop-replay", [*PYTEST, "--ftloop-replay"]),
        ("ftloop run --replay -q", [*FTLOOP, "run", "--replay", "-q"]),
        ("ftloop gate", [*FTLOOP, "gate"]),
    ]


def timed(side: Side, command: list[str], root: str) -> Time:
    """One run of a command in a side's repository."""
    folder = side.folder / root
    env = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith(("GIT", "PYTHON"))}
    env |= {
        "FTLOOP_CACHE": str(folder / ".cache"),
        "PYTHONPATH": str(folder / "checked"),
    }
    if not side.is_compiled:
        env["PYTHONPYCACHEPREFIX"] = str(folder / ".cache/compiled")
    started = time.perf_counter()
    process = subprocess.Popen(
        [side.python, *command],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    printed = process.stdout.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{printed[-3000:]}")
    return Time(wall_s, used.ru_utime + used.ru_stime)


if __name__ == "__main__":
    main()
