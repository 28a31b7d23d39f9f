"""The package is nearly empty to import: every pytest run with the plugin installed imports it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pytest_ftloop

TRAIN = ["torch", "transformers", "trl", "peft", "datasets", "numpy"]
TABLES = ["tabulate", "wcwidth"]
HEAVY = [*TRAIN, "pydantic", "yaml", "ruamel", *TABLES]


def test_dir_is_all() -> None:
    """What `dir()` shows are the public names, and nothing else."""
    assert dir(pytest_ftloop) == pytest_ftloop.__all__


@pytest.mark.parametrize("name", pytest_ftloop.__all__)
def test_each_public_name_is_there(name: str) -> None:
    """Each public name resolves to what its own module defines."""
    assert name == getattr(pytest_ftloop, name).__name__


def test_unknown_name() -> None:
    """A name that is not public is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="module 'pytest_ftloop' has no attribute 'Train'"):
        pytest_ftloop.Train  # noqa: B018


@pytest.mark.parametrize(
    ("imported", "kept_out"),
    [
        ("pytest_ftloop", [*HEAVY, "pytest"]),
        ("pytest_ftloop.plugin", HEAVY),
        ("pytest_ftloop.loop.loop", [*TRAIN, *TABLES]),
        ("pytest_ftloop.plugin.session", [*TRAIN, *TABLES]),
    ],
)
def test_import_is_light(imported: str, kept_out: list[str]) -> None:
    """Importing the plugin imports nothing heavy; the loop itself gets by without torch."""
    code = f"import sys, {imported}; print(*sorted(set({kept_out}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "" == found.stdout.strip()
