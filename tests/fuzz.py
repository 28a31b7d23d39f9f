"""`make fuzz`: the property tests with fresh seeds, round after round, until the time is up.

A round that finds something is the last one. Its seed draws the same examples again:
`make fuzz SEED=N`. As a plugin (`-p tests.fuzz`) it is what makes one round of a pytest run.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest

ROOT = Path(__file__).parents[1]

FOUND = """\
fuzz: seed {seed} found what fails. For each failed test above:
  1. Copy the arguments of its failing test case above the test's @given, so that every later run
     has them:
         @example(argument=value, ...)      (from hypothesis import example)
     Where they can't be written so, the line @reproduce_failure(...) that is printed with them
     does for a while: until Hypothesis or the test's strategies change.
  2. Mend the code; or the test, where what it claims is wrong.
  The same round again: make fuzz SEED={seed}
"""

_UNTIL = "FTLOOP_FUZZ_UNTIL"
"""Seconds since the epoch, after which a round begins no test."""
_COUNT = "FTLOOP_FUZZ_COUNT"
"""The file to which a round adds a line, the number of tests that it ran."""


# --- the command ----------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Explore for the stated time.

    0 nothing found, 1 something, else the exit code of a pytest run that went wrong; 2 also where
    the time was too short for a single test.
    """
    stated = _parsed(arguments)
    began = time.time()
    until = began + stated.seconds if stated.seed is None else float("inf")
    with tempfile.TemporaryDirectory() as folder:
        count = Path(folder) / "count"
        for seed in _seeds(stated.seed, until):
            print(f"fuzz: seed {seed}, at {time.time() - began:.0f} s", flush=True)
            code = subprocess.run(
                round_command(seed, stated.workers, stated.tests),
                cwd=ROOT,
                env=os.environ | {_UNTIL: str(until), _COUNT: str(count)},
                check=False,
            ).returncode
            if code == 1:
                print(FOUND.format(seed=seed), end="", flush=True)
            if code != 0:
                return code
        ran = [int(line) for line in count.read_text().splitlines()]
    took = time.time() - began
    if not any(ran):
        print(f"fuzz: no test began within {stated.seconds:.0f} s: take more", file=sys.stderr)
        return 2
    print(f"fuzz: nothing found by {sum(ran)} tests with {len(ran)} seeds in {took:.0f} s")
    return 0


def round_command(seed: int, workers: str, tests: Sequence[str]) -> list[str]:
    """The pytest run that is one round: by default of every file with a property test."""
    files = list(tests) or sorted(
        str(file.relative_to(ROOT))
        for file in (ROOT / "tests").rglob("test_*.py")
        if "\n@given(" in file.read_text(encoding="utf-8")
    )
    return [
        *(sys.executable, "-m", "pytest", "-p", "tests.fuzz", "-n", workers),
        *("-m", "hypothesis and not slow", "-q", "--no-header", "-rfE"),
        *("--hypothesis-profile=fuzz", f"--hypothesis-seed={seed}"),
        *files,
    ]


def _seeds(seed: int | None, until: float) -> Iterator[int]:
    yield secrets.randbits(32) if seed is None else seed
    while seed is None and time.time() < until:
        yield secrets.randbits(32)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz.py", description="The property tests, explored.")
    stated = parser.add_mutually_exclusive_group()
    stated.add_argument("--seconds", type=_positive, default=300.0)
    stated.add_argument("--minutes", type=lambda text: 60 * _positive(text), dest="seconds")
    stated.add_argument("--seed", type=int, help="one round with this seed, however long it takes")
    parser.add_argument("--workers", default="2", help="processes, as pytest-xdist takes them")
    parser.add_argument("tests", nargs="*", help="files or tests, by default all")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"wanted a time above 0, found {text}")
    return number


# --- the plugin -----------------------------------------------------------------------------------


def pytest_configure() -> None:
    """Let Hypothesis draw the constants of the whole package: of what is imported it would vary."""
    from hypothesis.internal.conjecture import providers
    from hypothesis.internal.constants_ast import _constants_from_source

    for file in (ROOT / "pytest_ftloop").rglob("*.py"):
        providers._local_constants |= _constants_from_source(file.read_bytes(), limit=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Another order each round, so that the time does not always end before the same tests."""
    random.Random(str(config.getoption("hypothesis_seed"))).shuffle(items)


def pytest_runtest_setup() -> None:
    """Once the time is up, what has not begun is left out."""
    import pytest

    if time.time() >= float(os.environ.get(_UNTIL, "inf")):
        pytest.skip("the time is up")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Count what ran, of all workers; they come here too."""
    if (file := os.environ.get(_COUNT)) and not hasattr(config, "workerinput"):
        ran = sum(len(terminalreporter.stats.get(how, ())) for how in ("passed", "failed"))
        with Path(file).open("a", encoding="utf-8") as count:
            count.write(f"{ran}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
