"""A loop file of unknown origin is read in no time, or refused by one line."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.config import loop_yaml
from pytest_ftloop.config.loop_config import likely_name, read_loop_file
from pytest_ftloop.core.errors import ConfigError, FtloopError
from pytest_ftloop.core.records import MOST_BYTES_OF_NAME
from tests.torture.mutate import bombs

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = "data: {train: t.jsonl, eval: e.jsonl}\n"
VALUES = "wanted at most 10000 values, found more (what an alias repeats counts)"
LEVELS = "wanted at most 64 levels of lists and keys, found more"
DIGITS = "wanted a number of at most 300 digits, found "
LARGE = "it is larger than 512 KiB"
REFUSED = {
    "aliases": (5, VALUES),
    "merge keys": (5, VALUES),
    "anchor twice": (2, "the anchor &x is defined twice"),
    "itself": (1, "a value contains itself"),
    "merge of itself": (1, "a value contains itself"),
    "brackets": (1, LEVELS),
    "closed brackets": (1, LEVELS),
    "braces": (1, LEVELS),
    "blocks": (None, LARGE),
    "dashes": (1, LEVELS),
    "questions": (1, LEVELS),
    "digits": (None, LARGE),
    "keys": (5000, VALUES),
    "comments": (None, LARGE),
    "scalar": (None, LARGE),
}
"""Bombs, and the line and message that each is refused with."""


@pytest.mark.parametrize(
    "bomb",
    [bomb for bomb in bombs(".yaml") if bomb.name.removeprefix("bomb: ") in REFUSED],
    ids=lambda bomb: bomb.name,
)
def test_a_bomb_is_refused_in_a_second(write: Callable[[str, bytes], Path], bomb: object) -> None:
    """Each is told by one mistake with its line."""
    path = write("x.ftloop.yaml", bomb.content)
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        read_loop_file(path)
    likely_name(path)
    assert time.process_time() - began < 3  # on a busy machine
    line, message = REFUSED[bomb.name.removeprefix("bomb: ")]
    assert message in str(caught.value)
    assert line == caught.value.where.line
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (f"a: {'9' * 300}\n", ""),
        (f"a: {'9' * 301}\n", f"x:1: {DIGITS}301"),
        (f"a: 0x{'f' * 300}\n", f"x:1: {DIGITS}302"),
        (f"a: 0x{'f' * 255}\n", ""),
        (f"a: 0x{'f' * 257}\n", "x:1: wanted a number of at most 300 digits, found more"),
        (f"a: 0.{'1' * 300}\n", f"x:1: {DIGITS}302"),
        ("\n".join(["a: &a [1, 2]", "b: [*a, *a]", "c: {<<: {d: *a}}\n"]), ""),
        (f"a: {'[' * 63}{']' * 63}\n", ""),
        (f"a: {'[' * 64}{']' * 64}\n", f"x:1: {LEVELS}"),
        # Each is flat, and all of them in each other are deep.
        (
            "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 99)),
            f"x:64: {LEVELS}",
        ),
    ],
)
def test_the_limits_are_where_they_are_said_to_be(text: str, mistake: str) -> None:
    """Up to a limit a value reads; beyond it the line is told."""
    if mistake:
        with pytest.raises(ConfigError) as caught:
            loop_yaml.parse(text, "x")
        assert mistake == str(caught.value)
    else:
        assert "a" in loop_yaml.parse(text, "x")[0]


def test_a_loop_file_is_a_file(tmp_path: Path) -> None:
    """A link to a device, a pipe and 2 GB of nothing are refused, not read."""
    device, pipe, large = (tmp_path / f"{name}.ftloop.yaml" for name in ("d", "p", "l"))
    device.symlink_to("/dev/zero")
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(2**31)
    for path, why in ((device, "device or a pipe"), (pipe, "device or a pipe"), (large, "larger")):
        with pytest.raises(ConfigError, match=f"can't be read: it is .*{why}"):
            read_loop_file(path)
        assert path.name.partition(".")[0] == likely_name(path)


@pytest.mark.parametrize(("key", "letter"), [("name", "n"), ("name", "é"), ("guard", "n")])
def test_a_name_fits_into_that_of_a_file(
    write: Callable[[str, str], Path], key: str, letter: str
) -> None:
    """Bytes count, not letters; the longest that is taken fits with what is added to it."""
    most = MOST_BYTES_OF_NAME // len(letter.encode())
    for length, is_fine in ((most, True), (most + 1, False)):
        word = letter * length
        text = {
            "name": f"name: {word}\n{DATA}",
            "guard": DATA.replace("}", f", guards: {{{word}: g.jsonl}}}}"),
        }[key]
        path = write("x.ftloop.yaml", text)
        if is_fine:
            read_loop_file(path)
            assert len(f"001-12345678-1234.guard-{word}.examples.csv".encode()) < 200
        else:
            with pytest.raises(ConfigError, match="is longer than 150 bytes"):
                read_loop_file(path)


def test_what_the_system_says_of_a_path_is_one_line(tmp_path: Path) -> None:
    """A path that no file system takes is no bug of ours."""
    with pytest.raises(FtloopError, match="File name too long") as caught:
        read_loop_file(tmp_path / ("n" * 300 + ".ftloop.yaml"))
    assert str(caught.value).endswith(": can't be read: File name too long")
