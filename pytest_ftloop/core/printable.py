r"""Text that a terminal, a CI log or a command stream shows and never obeys.

Whatever is printed passes here: an error when it is made, all output of `ftloop` in its streams,
and what the plugin gives to pytest. Texts on one line, cut to a width, are `report.escape`'s.
"""

from __future__ import annotations

import re
from typing import Any

_COMMAND = re.compile(r"^( *:):|(#)#(?=(?:vso|teamcity)?\[)", re.MULTILINE)
"""What a CI system would obey: GitHub a line that begins with `::`, and `##[` within any line, as
Azure does `##vso[` and TeamCity `##teamcity[`. The second character is escaped."""

_HASHES = re.compile(r"#{1,2}[a-z]{0,8}\Z")
"""An end of a text after which the next one may complete `##[`, `##vso[` or `##teamcity[`."""

_COMPLETED = re.compile(r"##(?:vso|teamcity)?\[")


def escaped(character: str) -> str:
    r"""A character as Python writes it in a text: `\n`, `\x1b`, `\u202e`."""
    return character.encode("unicode_escape").decode("ascii")


def printable(text: str) -> str:
    r"""Text of several lines in which every character is one that can be seen, or a line break.

    Controls, ANSI escapes, bidirectional and zero-width marks become escapes (`\x1b`, `\u202e`),
    and so does a character of what a CI system would take for a command. Unlike `visible`, it
    leaves a backslash as it is, since it reads paths, and its own escapes a second time.
    """
    if not text.replace("\n", "").isprintable():
        text = "".join(c if c == "\n" or c.isprintable() else escaped(c) for c in text)
    return _COMMAND.sub(lambda match: f"{match[1]}\\x3a" if match[1] else "#\\x23", text)


def printable_line(text: str) -> str:
    r"""The same on one line: a line break becomes `\n`."""
    return printable(text.replace("\n", "\\n"))


def printable_json(text: str) -> str:
    """JSON that `printable` leaves unchanged: JSON's own escape replaces a command's second `#`.

    `text` is ASCII, as `json.dumps` writes it: a `#` occurs in strings only.
    """
    return _COMPLETED.sub(lambda match: f"#\\u0023{match[0][2:]}", text)


class PrintableStream:
    """A text stream that prints everything by `printable`.

    `unguarded` is the stream itself, for what has to be obeyed: a line that is redrawn, and a
    workflow command.
    """

    def __init__(self, stream: Any) -> None:
        self.unguarded = stream
        self._begun = ""
        self._hashes = ""

    def write(self, text: str) -> int:
        """Write a text, which may begin within a line; its length, as streams return it."""
        length = len(text)
        text = self._apart(text)
        whole = printable(self._begun + text)
        self.unguarded.write(whole[len(self._begun) :])
        line = whole.rpartition("\n")[2]
        # What a command may still begin with, or a character that none begins with.
        self._begun = line if line.strip(" ") in ("", ":") else "-"
        return length

    def _apart(self, text: str) -> str:
        """The text, with the bracket escaped that would complete what was written before it."""
        before, after = self._hashes, self._hashes + text
        ending = _HASHES.search(after)
        self._hashes = ending[0] if ending else ""
        found = _COMPLETED.search(after)
        if found is None or found.start() >= len(before):
            return text
        return f"{after[len(before) : found.end() - 1]}\\x5b{after[found.end() :]}"

    def begins_anywhere(self) -> None:
        """Take what is written next for the start of a line: others write to the stream below."""
        self._begun = self._hashes = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def unguarded(stream: Any) -> Any:
    """The stream below a `PrintableStream`, or the stream itself."""
    if not isinstance(stream, PrintableStream):
        return stream
    stream.begins_anywhere()
    return stream.unguarded
