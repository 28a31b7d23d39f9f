"""Untrusted text is shown, never acted upon."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.report.escape import (
    columns_of,
    one_line,
    quoted,
    quoted_pair,
    shorten,
    visible,
)

SCRIPTS = st.text(
    "e\u0301\u0e17\u0e35\u0e48\u0915\u094d\u0937\u093f\u4f60\U0001f44d\U0001f3fd1\ufe0f\u20e3"
)
ANYTHING = st.text(st.characters()) | SCRIPTS  # lone surrogates too


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain text", "plain text"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eabc\u2066", r"\u202eabc\u2066"),
        ("\ud800", r"\ud800"),
        ("a\u2028b\u200bc\ufeff", r"a\u2028b\u200bc\ufeff"),
        ("a\xa0b", r"a\xa0b"),
        (r"a\nb", r"a\\nb"),
        ("caf\u00e9 \u4f60\u597d", "caf\u00e9 \u4f60\u597d"),
        ("\u0301e\u0301", "\\u0301e\u0301"),
    ],
)
def test_visible(text: str, wanted: str) -> None:
    """What is not printable becomes an escape; letters of any script stay."""
    assert wanted == visible(text)


@given(ANYTHING)
def test_visible_can_be_undone(text: str) -> None:
    """Two different texts never look the same: the escapes lead back to the text."""
    ascii_only = visible(text).encode("ascii", "backslashreplace")
    assert text == ascii_only.decode("unicode_escape")


@given(ANYTHING, st.integers(-3, 120), st.booleans())
def test_one_line_is_printable_and_fits(text: str, width: int, middle: bool) -> None:
    """No control character survives, the result is one line and within the width."""
    line = one_line(text, width, middle=middle)
    assert line.isprintable()
    assert len(line.splitlines()) <= 1
    assert columns_of(line) <= max(width, 0)


@given(ANYTHING)
def test_one_line_without_width_is_all_of_it(text: str) -> None:
    """Without a width nothing is left out."""
    assert visible(text) == one_line(text)


@pytest.mark.parametrize(
    ("width", "middle", "wanted"),
    [
        (10, False, "abcdefghij"),
        (9, False, "abcdef..."),
        (9, True, "abc...hij"),
        (3, False, "..."),
        (2, False, ".."),
        (0, False, ""),
    ],
)
def test_shorten(width: int, middle: bool, wanted: str) -> None:
    """A cut is marked, at the end or inside; what fits is left alone."""
    assert wanted == shorten("abcdefghij", width, middle=middle)


def test_shorten_counts_wide_characters_twice() -> None:
    """Chinese, Japanese, Korean and emoji take two columns each."""
    assert "\u4f60..." == shorten("\u4f60\u597d\u4f60\u597d", 6)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", 0),
        ("plain", 5),
        ("cafe\u0301", 4),  # an accent of its own
        ("\u4f60\u597d", 4),
        ("\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22", 7),  # "Thai", without marks
        ("\u0e17\u0e35\u0e48", 1),  # one Thai letter, a vowel and a tone over it
        ("\u0939\u093f\u0928\u094d\u0926\u0940", 4),  # "Hindi": two syllables
        ("\U0001f44d\U0001f3fd", 2),  # a thumb and its colour
        ("\U0001f1e9\U0001f1ea", 2),  # a flag of two letters
        ("1\ufe0f\u20e3", 2),  # a digit on a key
    ],
)
def test_columns(text: str, columns: int) -> None:
    """A letter's marks take no column, an emoji of several characters takes two."""
    assert columns == columns_of(text)


@pytest.mark.parametrize("middle", [False, True])
@pytest.mark.parametrize("letter", ["e\u0301", "\u0e17\u0e35\u0e48", "\U0001f44d\U0001f3fd"])
def test_shorten_keeps_letters_whole(letter: str, middle: bool) -> None:
    """A cut comes between letters, never between a letter and its marks."""
    cut = shorten(letter * 40, 25, middle=middle)
    assert ["", ""] == [part.replace(letter, "") for part in cut.split("...")]
    assert 23 <= columns_of(cut) <= 25


@pytest.mark.parametrize("middle", [False, True])
@pytest.mark.parametrize("marks", [1, 2, 40, 4000])
def test_a_cut_is_marked_whatever_the_letters_take(marks: int, middle: bool) -> None:
    """Of a text with more marks than are looked at, what is left out is left out visibly."""
    text = ("e" + "\u0301" * marks) * 61
    assert "..." in one_line(text, 60, middle=middle)
    assert text == one_line(text, None)


def test_one_line_of_a_huge_text_is_quick_and_right() -> None:
    """Only what can be seen of a huge output is looked at; head and tail are the real ones."""
    assert "aaa...bbb" == one_line("a" * 10_000_000 + "b" * 10, 9, middle=True)


@pytest.mark.parametrize(
    ("text", "wanted"), [("", '""'), (" yes ", '" yes "'), ("a" * 20, '"aaaaa..."')]
)
def test_quoted(text: str, wanted: str) -> None:
    """Quotes show an empty text, and spaces at its ends."""
    assert wanted == quoted(text, 10)


def test_quoted_pair_keeps_a_late_difference_in_view() -> None:
    """Two long texts with the same start are cut so that their difference is seen."""
    expected, actual = quoted_pair("same " * 30 + "yes", "same " * 30 + "no", 40)
    assert ('..."', '..."', 'yes"', 'no"') == (
        expected[:4],
        actual[:4],
        expected[-4:],
        actual[-3:],
    )


def test_quoted_pair_leaves_short_texts_whole() -> None:
    """What fits is not cut."""
    assert ('"negative"', '"negation"') == quoted_pair("negative", "negation", 40)


@given(ANYTHING, ANYTHING, ANYTHING, st.integers(2, 80))
def test_quoted_pair_fits(common: str, expected: str, actual: str, width: int) -> None:
    """Both lines are printable and within the width, whatever the texts share."""
    for line in quoted_pair(common * 3 + expected, common * 3 + actual, width):
        assert line.isprintable()
        assert columns_of(line) <= width
