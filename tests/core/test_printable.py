"""Text as it is printed: every character can be seen, and no CI system obeys a line of it."""

from __future__ import annotations

import io
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.errors import FtloopError, Location
from pytest_ftloop.core.printable import (
    PrintableStream,
    printable,
    printable_json,
    printable_line,
    unguarded,
)

UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""The categories of controls, marks (also bidirectional ones), surrogates and unassigned ones."""

TEXTS = (
    ("\x1b[2J\x1b[31mred", r"\x1b[2J\x1b[31mred"),
    ("\x9b31m", r"\x9b31m"),
    ("a\rb\tc\x00", r"a\rb\tc\x00"),
    ("\u202egnp.exe", r"\u202egnp.exe"),
    ("\u2066a\u2069", r"\u2066a\u2069"),
    ("zero\u200bwidth", r"zero\u200bwidth"),
    ("\ud83d", r"\ud83d"),
    ("\u2028", r"\u2028"),
    ("::error::x", r":\x3aerror::x"),
    ("a\n  ::stop-commands::t", "a\n  :\\x3astop-commands::t"),
    ("a ##[error]x", r"a #\x23[error]x"),
    ("##vso[task.setvariable]x", r"#\x23vso[task.setvariable]x"),
    ("##teamcity[x]", r"#\x23teamcity[x]"),
)
PLAIN = ("", "a\n\nb", r"C:\new\table", "x::y", "## Heading", "\u00e9\u4e2d\U0001f600", "a: b")


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_what_would_be_obeyed_is_escaped(text: str, shown: str) -> None:
    """Controls, bidirectional marks and commands of CI systems, as Python writes them."""
    assert shown == printable(text)


@pytest.mark.parametrize("text", PLAIN)
def test_what_can_be_seen_stays(text: str) -> None:
    """Also a backslash, as in a path, and colons within a line."""
    assert text == printable(text)


def is_inert(text: str) -> bool:
    """Whether all that is unseen are line breaks, and no line is a command."""
    unseen = any(unicodedata.category(c) in UNSEEN for c in text if c != "\n")
    lines = text.split("\n")
    return not unseen and not any(line.strip().startswith("::") or "##[" in line for line in lines)


commands = st.sampled_from(
    [":", "::", "#", "[", "##[error]", " ", "\n", "\x1b", "\u202e", "\ud83d"]
)
hostile = st.lists(commands | st.text(st.characters(), max_size=3), max_size=12)


@given(hostile)
def test_any_text_is_inert_and_stays_so(pieces: list[str]) -> None:
    """Whatever the text, and escaping it twice changes nothing."""
    shown = printable("".join(pieces))
    assert is_inert(shown)
    assert shown == printable(shown)
    assert "\n" not in printable_line("".join(pieces))


@given(hostile)
def test_a_stream_is_inert_in_whatever_pieces_it_is_written(pieces: list[str]) -> None:
    """A command that is put together by several writes is none either."""
    under = io.StringIO()
    stream = PrintableStream(under)
    for piece in pieces:
        assert len(piece) == stream.write(piece)
    assert not any(line.strip().startswith("::") for line in under.getvalue().split("\n"))
    assert "\x1b" not in under.getvalue()
    assert not re.search(r"##(vso|teamcity)?\[", under.getvalue())


@pytest.mark.parametrize("command", ["##[error]x", "##vso[task.complete]x", "##teamcity[x]"])
def test_a_command_cut_in_two_is_none(command: str) -> None:
    """Wherever it is cut, also with a `#` before it."""
    for before in ("", "#", "a "):
        whole = before + command
        for cut in range(len(whole) + 1):
            under = io.StringIO()
            stream = PrintableStream(under)
            stream.write(whole[:cut])
            stream.write("")
            stream.write(whole[cut:])
            assert not re.search(r"##(vso|teamcity)?\[", under.getvalue()), (whole, cut)


def test_what_is_to_be_obeyed_goes_below_the_stream() -> None:
    """A line that is redrawn; what is written after it is escaped again."""
    under = io.StringIO()
    stream = PrintableStream(under)
    stream.write("a")
    unguarded(stream).write("\r\x1b[2K\n")
    stream.write("::error::x")
    assert "a\r\x1b[2K\n:\\x3aerror::x" == under.getvalue()
    assert under is unguarded(under)


@given(hostile, hostile, hostile)
def test_an_error_is_inert(message: list[str], file: list[str], cure: list[str]) -> None:
    """Its message, place and cure may quote what strangers wrote."""
    place = Location("".join(file), 3)
    error = FtloopError("".join(message), where=place, cure="".join(cure))
    assert is_inert(str(error))
    assert is_inert(error.message)
    assert is_inert(error.cure)


@pytest.mark.parametrize("text", [*(text for text, _ in TEXTS), *PLAIN])
def test_json_stays_json(text: str) -> None:
    """What is printed as JSON passes the stream as it is, and reads as what it was."""
    under = io.StringIO()
    print(printable_json(json.dumps([text, {text: 1}])), file=PrintableStream(under))
    assert [text, {text: 1}] == json.loads(under.getvalue())
    assert not re.search(r"##(vso|teamcity)?\[", under.getvalue())
