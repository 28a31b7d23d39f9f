"""Rows of two versions, paired by a key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.pairing import paired


@pytest.mark.parametrize(
    ("old", "new", "pairs", "left", "come"),
    [
        ("ab", "ab", ["aa", "bb"], "", ""),
        ("ab", "ba", ["bb", "aa"], "", ""),
        ("ab", "bc", ["bb"], "a", "c"),
        ("aab", "ac", ["aa"], "ab", "c"),
        ("-a", "-a", ["aa"], "-", "-"),
        ("", "a", [], "", "a"),
    ],
)
def test_pairs(old: str, new: str, pairs: list[str], left: str, come: str) -> None:
    """Equal keys in the order of the new rows, each row once; a row without a key stays alone."""
    found, *rest = paired(old, new, lambda row: None if row == "-" else row)
    assert (pairs, [list(left), list(come)]) == (["".join(pair) for pair in found], rest)


@given(st.lists(st.integers(0, 4)), st.lists(st.integers(0, 4)))
def test_no_row_is_lost_or_used_twice(old: list[int], new: list[int]) -> None:
    """As many pairs as both sides allow, the first rows of a key before later ones."""
    rows = list(enumerate(old)), list(enumerate(new))
    pairs, left, come = paired(*rows, lambda row: row[1])
    assert sorted(rows[0]) == sorted([one for one, _ in pairs] + left)
    assert sorted(rows[1]) == sorted([other for _, other in pairs] + come)
    assert not {row[1] for row in left} & {row[1] for row in come}
    assert left == sorted(left)
    assert come == sorted(come)
    for key in range(5):
        assert [o for o, _ in pairs if o[1] == key] == [r for r in rows[0] if r[1] == key][
            : sum(one[1] == key for one, _ in pairs)
        ]
