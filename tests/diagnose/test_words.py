"""Words are found in any script, and of a long text those at its ends."""

from __future__ import annotations

import unicodedata

import pytest

from pytest_ftloop.diagnose.words import count_words, joined, runs_of


def words(text: str) -> str:
    """The words of a short text, a bar between them."""
    return "|".join(*runs_of(text, 1000))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I can't log in, again!", "i|can't|log|in|again"),
        ("snake_case, 'quoted' and 3 Äpfel", "snake|case|quoted|and|3|äpfel"),
        ("can\u2019t, \u2018won\u2019t\u2019", "can't|won't"),
        ("मुझे हिन्दी में उत्तर चाहिए।", "मुझे|हिन्दी|में|उत्तर|चाहिए"),
        ("الكِتاب، مَدرسة", "الكِتاب|مَدرسة"),
        ("退款abc 人々。", "退|款|abc|人|々"),
        ("カード・かな", "カ|ー|ド|か|な"),
        ("คืน เงิน", "ค|ื|น|เ|ง|ิ|น"),
        ("한국어 단어", "한국어|단어"),
        ("soft\u00adhyphen zero\u200bwidth می\u200cشود", "softhyphen|zero|width|میشود"),
        ("I \u2764\ufe0flove\ufe0f it", "i|love|it"),
        ("", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    """Letters, their marks and digits in lower case, with the apostrophes inside."""
    assert expected == words(text)


def test_an_accent_is_the_same_however_it_was_typed() -> None:
    """One code or two for a letter and its accent."""
    assert "café" == words("café") == words(unicodedata.normalize("NFD", "Café"))


def test_of_a_long_text_both_ends_are_looked_at() -> None:
    """Six words, three from each end, which are no neighbours; all of them where there are six."""
    text = " ".join(f"w{n}" for n in range(9))
    assert (("w0", "w1", "w2"), ("w6", "w7", "w8")) == runs_of(text, 6)
    assert ((*text.split(),),) == runs_of(text, 9)


def test_a_page_is_not_read_to_its_end() -> None:
    """The words at its ends are the same as if it were."""
    page = " ".join(f"w{n}" for n in range(5000))
    assert (("w0", "w1", "w2"), ("w4997", "w4998", "w4999")) == runs_of(page, 6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("two words", 2), ("zwei Wörter", 2), ("我要退款", 4), ("退款 now please é", 4)],
)
def test_how_many_words(text: str, expected: int) -> None:
    """By blanks, or by characters in scripts without them."""
    assert expected == count_words(text)


def test_a_pair_is_written_as_it_stands() -> None:
    """Without a blank in scripts that have none."""
    assert "退款" == joined(("退", "款"))
    assert "not good" == joined(("not", "good"))
    assert "退 ok" == joined(("退", "ok"))
