"""A log is a stranger's: its ids are no paths, and no link leads out of its folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.errors import LogError
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.aside import aside_of
from pytest_ftloop.log.files import locked
from pytest_ftloop.log.record import from_text, holdout_of, iteration_of, judgement_of, seed_run_of
from pytest_ftloop.log.writing import holdout_yaml, judgement_yaml, seed_run_yaml, to_yaml
from tests.fakes import (
    fake_example,
    fake_holdout_use,
    fake_iteration,
    fake_judgement,
    fake_seed_run,
)

ITERATION = fake_iteration(2, examples=[fake_example()])
KINDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "iteration": (to_yaml(ITERATION, "0"), iteration_of),
    "seed run": (seed_run_yaml(fake_seed_run(ITERATION, 43), "0"), seed_run_of),
    "judgement": (
        judgement_yaml(fake_judgement(candidate="0" * 8, baseline="1" * 8)),
        judgement_of,
    ),
    "holdout": (holdout_yaml(fake_holdout_use(ITERATION, [fake_example()]), "0"), holdout_of),
}
IDS = [
    (kind, key)
    for kind, keys in {
        "iteration": ("loop", "id", "parent", "fingerprint"),
        "seed run": ("loop", "iteration", "fingerprint"),
        "judgement": ("loop", "candidate", "baseline"),
        "holdout": ("loop", "iteration", "fingerprint"),
    }.items()
    for key in keys
]
PATHS = (
    *("../../evil", "/etc", "/somewhere/else", "..", ".", "a/b", "a\\b", "C:\\x", "~", "~root"),
    *("", " ", "*", "a\nb", "\x1b[2J", "0" * 63 + "g", "0" * 65, "0" * 7, "0" * 9, "A" * 64),
)
"""What is neither an id nor the name of a loop."""


CASES = [
    (kind, key, value)
    for kind, key in IDS
    for value in PATHS
    if key != "loop" or not value.isalnum()  # a loop may be called so
]


def with_value(kind: str, key: str, value: str) -> str:
    """A record with another value for a key at its top."""
    lines = KINDS[kind][0].splitlines(keepends=True)
    quoted = '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    changed = [f"{key}: {quoted}\n" if line.startswith(f"{key}:") else line for line in lines]
    assert lines != changed
    return "".join(changed)


@pytest.mark.parametrize(("kind", "key", "value"), CASES)
def test_an_id_is_no_path(kind: str, key: str, value: str) -> None:
    """Anything else is one line that names file, line and key."""
    with pytest.raises(LogError, match=rf"x\.yaml:\d+: damaged log file: {key}: wanted"):
        from_text(KINDS[kind][1], with_value(kind, key, value), lambda: "x.yaml")


@given(st.sampled_from(IDS), st.text(st.characters(categories=None, exclude_categories=["Cs"])))
def test_whatever_is_read_stays_in_its_folder(place: tuple[str, str], value: str) -> None:
    """Of any text an id or a name that is read is one part of a path."""
    kind, key = place
    try:
        read = from_text(KINDS[kind][1], with_value(kind, key, value), lambda: "x.yaml")
    except LogError:
        return
    kept = read[0] if isinstance(read, tuple) else read
    name = getattr(kept, key)
    assert Path("x") == Path("x", name).parent
    assert name not in ("", ".", "..")


@pytest.mark.parametrize("value", ["../../evil", "/etc", "..", "a/b", "a\\b", "", "*"])
def test_a_guards_name_is_no_path(value: str) -> None:
    """It is part of the name of its table."""
    table = f"guards:\n  '{value}': {{rows: 1, sha256: '0'}}\n"
    text = KINDS["iteration"][0].replace("environment:", f"{table}environment:")
    with pytest.raises(LogError, match=r"guards.*: wanted the name of"):
        from_text(iteration_of, text, lambda: "x.yaml")


@pytest.fixture
def log(tmp_path: Path) -> ImprovementLog:
    """A log with an iteration, beside which there is a folder of others."""
    log = ImprovementLog(tmp_path / "loop" / "improvement_log" / "sentiment")
    log.append(ITERATION)
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "secret.yaml").write_text("password: open-sesame\n")
    return log


@pytest.mark.parametrize(
    "name", ["003-00000003-0000.yaml", "002.examples.csv", "verdicts", "seeds"]
)
def test_a_link_in_a_log_is_not_followed(log: ImprovementLog, name: str) -> None:
    """Neither a file nor a folder; the message shows nothing of what it leads to."""
    others = log.folder.parents[2] / "others"
    (log.folder / name).symlink_to(others if "." not in name else others / "secret.yaml")
    with pytest.raises(LogError, match="found a link") as caught:
        log.read()
    assert name in str(caught.value)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("depth", [0, 1])
def test_a_log_that_is_a_link_is_neither_read_nor_written(log: ImprovementLog, depth: int) -> None:
    """The folder of a loop's log, and the one beside the loop file that holds it."""
    place = (log.folder, *log.folder.parents)[depth]
    moved = log.folder.parents[2] / "others" / place.name
    place.rename(moved)
    place.symlink_to(moved)
    for use in (log.read, log.check_writable, lambda: log.append(ITERATION)):
        with pytest.raises(LogError, match="found a link"):
            use()


@pytest.mark.parametrize("to", ["itself", "nothing"])
def test_a_log_that_is_a_link_to_nothing_is_not_an_empty_log(log: ImprovementLog, to: str) -> None:
    """Git keeps such links too; links in a circle are an error of their own to the system."""
    log.folder.rename(log.folder.with_name("gone"))
    log.folder.symlink_to(log.folder if to == "itself" else log.folder.with_name("nowhere"))
    for use in (log.read, log.check_writable, lambda: log.append(ITERATION)):
        with pytest.raises(LogError, match="found a link"):
            use()


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are texts there")
def test_a_folder_whose_name_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log is written, locked, and kept aside like any other."""
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    log = ImprovementLog(folder / "improvement_log" / "sentiment")
    with locked(log.folder, lambda: None):
        log.append(ITERATION)
    assert aside_of(log).view.is_empty()
    assert 1 == len(ImprovementLog(log.folder).read())


def test_a_folder_that_the_user_names_may_be_a_link(tmp_path: Path) -> None:
    """As to another disk; and an editor's lock, which is a hidden link, is no file of the log."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "named").symlink_to(tmp_path / "disk")
    log = ImprovementLog(tmp_path / "named" / "sentiment")
    log.append(ITERATION)
    (log.folder / ".#002-x.yaml").symlink_to("user@host.1234")
    assert [ITERATION.name] == [iteration.name for iteration in log.read()]
