"""`make fuzz`: fresh seeds until the time is up, and what a find leaves behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import LONG_S

ROOT = Path(__file__).parents[2]

TESTS = """\
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers())
def test_sound(x):
    assert x == x


def test_no_property():
    raise AssertionError


@given(st.integers(0, 2**64))
def test_wrong(x):
    print("drawn", x)
    assert x < {bound}
"""


def fuzz(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "tests/fuzz.py", "--workers=0", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """A file with a property that fails often, and a test that is none."""
    (tmp_path / "conftest.py").write_text("import tests.conftest")  # the project's profiles
    file = tmp_path / "test_x.py"
    file.write_text(TESTS.format(bound=1000))
    return file


def test_a_find_ends_it(tests: Path) -> None:
    """The failing round is the last one; it names its seed and how to keep the failing case."""
    done = fuzz("--minutes=5", tests)
    (seed,) = re.findall(r"^fuzz: seed (\d+), at 0 s$", done.stdout, re.MULTILINE)
    assert 1 == done.returncode
    assert "test_wrong" in done.stdout
    assert "test_no_property" not in done.stdout
    assert re.search(r"@reproduce_failure\(.+\)", done.stdout)
    assert f"fuzz: seed {seed} found what fails." in done.stdout
    assert "@example(argument=value, ...)" in done.stdout
    assert (
        f"again: make fuzz SEED={seed}\n" == done.stdout[-len(f"again: make fuzz SEED={seed}\n") :]
    )


@pytest.mark.slow
def test_a_seed_draws_the_same_again(tests: Path) -> None:
    """One round with a stated seed, twice alike; another seed draws something else."""
    first, again, other = (fuzz(f"--seed={seed}", tests).stdout for seed in (7, 7, 8))
    drawn = [re.findall("drawn [0-9]+", text) for text in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.slow
def test_nothing_found(tests: Path) -> None:
    """Rounds with fresh seeds until the time is up, each counted."""
    tests.write_text(TESTS.format(bound=2**64 + 1))
    done = fuzz("--seconds=8", tests)
    seeds = re.findall(r"^fuzz: seed (\d+), at", done.stdout, re.MULTILINE)
    assert 0 == done.returncode
    assert len(set(seeds)) == len(seeds)
    assert f"with {len(seeds)} seeds in " in done.stdout


def test_no_time(tests: Path) -> None:
    """A time too short for one test is no success."""
    done = fuzz("--seconds=0.001", tests)
    assert (2, "fuzz: no test began within 0 s: take more\n") == (done.returncode, done.stderr)


@pytest.mark.parametrize("argument", ["--seconds=0", "--minutes=nan", "--minutes=-1", "--seed=x"])
def test_bad_arguments(argument: str) -> None:
    """A time or seed that is none is an error in one line."""
    done = fuzz(argument)
    assert 2 == done.returncode
    assert "fuzz.py: error: argument --" in done.stderr


def test_the_default_run_is_the_same_each_time(tests: Path) -> None:
    """Without fuzz the same examples are drawn each time, whatever was imported before."""
    tests.write_text(TESTS.format(bound=2**64 + 1))
    (tests.parent / "many_constants.py").write_text(f"MANY = {list(range(10_000, 10_500))}\n")

    def drawn(first: str) -> list[str]:
        code = f"import sys, pytest; {first}; pytest.main(sys.argv[1:])"
        done = subprocess.run(
            [sys.executable, "-c", code, "-qs", "--rootdir", tests.parent, tests],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(tests.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        return re.findall("drawn [0-9]+", done.stdout)

    without, with_, again = drawn("pass"), drawn("import many_constants"), drawn("pass")
    assert len(without) >= 100
    assert without == with_ == again
