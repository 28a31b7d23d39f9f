"""Which groups there are: by tag, label, length, word and pair, and where their members are."""

from __future__ import annotations

from pytest_ftloop.core.records import Example
from pytest_ftloop.diagnose.groups import (
    SUPPORT,
    Traits,
    groups_of,
    has_labels,
    listed,
    short,
    words_each,
)


def traits(**columns: list) -> list[Traits]:
    """Traits by column; what is not named is the same for all, which is no group."""
    count = len(next(iter(columns.values())))
    empty = {"tags": [()] * count, "expected": ["x"] * count, "words": [("same",)] * count}
    rows = zip(*(empty | columns).values(), strict=True)
    return [Traits(tags, expected, (words,), len(words)) for tags, expected, words in rows]


def names(rows: list[Traits]) -> list[list[str]]:
    return [[members.group.name for members in equals] for equals in groups_of(rows)]


def test_a_group_has_support_and_leaves_some_out() -> None:
    """Four examples are too few, and so are four that it is compared with."""
    assert [] == names(traits(tags=[("a",)] * 4 + [()] * 20))
    assert [] == names(traits(tags=[("a",)] * 20 + [()] * 4))
    assert [["tagged 'a'"]] == names(traits(tags=[("a",)] * 5 + [()] * 5))


def test_groups_of_equal_members_are_together_the_simplest_first() -> None:
    """A tag, a label, a word and a pair of the same examples are one group with four names."""
    rows = traits(
        tags=[("a",)] * 6 + [()] * 12,
        expected=["p"] * 6 + ["q"] * 6 + ["r"] * 6,
        words=[("one", "two")] * 6 + [("two", "six")] * 12,
    )
    expected = ["tagged 'a'", "that expect 'p'", "with the word 'one'", "with the words 'one two'"]
    assert expected == names(rows)[0]


def test_a_group_knows_its_members() -> None:
    """What `holds` says of an example is whether its place is named."""
    rows = traits(
        tags=[("a", "b") if n % 2 else ("b",) if n % 3 else () for n in range(40)],
        expected=[f"label {n % 3}" for n in range(40)],
        words=[tuple("abcdefghi"[n % 4 : 3 + n % 7]) for n in range(40)],
    )
    groups = groups_of(rows)
    assert {"tag", "label", "length", "word", "pair"} == {m.group.kind for e in groups for m in e}
    for members in (members for equals in groups for members in equals):
        assert list(members.places) == [n for n, row in enumerate(rows) if members.group.holds(row)]
        assert SUPPORT <= len(members.places) <= len(rows) - SUPPORT


def test_lengths_of_expected_texts_count_where_they_are_no_labels() -> None:
    """Long answers may fail where short ones do not."""
    rows = traits(expected=[f"text {n}" + " word" * (n % 4) for n in range(40)])
    found = [name for equals in names(rows) for name in equals]
    assert "with expected texts of up to 2 words" in found
    assert "with expected texts of 5 words or more" in found


def test_labels() -> None:
    """A few texts that repeat are labels."""
    assert has_labels(["a", "b"] * 5)
    assert not has_labels(["a", "b"] * 4)
    assert not has_labels(["a"] * 10)
    assert not has_labels([f"text {n}" for n in range(40)])
    assert not has_labels(["a", "b"] * 5, least=3)


def test_the_ends_of_a_long_prompt_are_no_neighbours() -> None:
    """Its words at both ends are groups, but not a pair of the last and the first of them."""
    long = Example("e", "c", {}, prompt=" ".join("abcdefghi"))
    rows = [Traits.of_example(long, 4)] * 5 + [Traits((), "x", (("other",),), 1)] * 5
    found = {name for equals in names(rows) for name in equals}
    assert "with prompts of 9 words or more" in found
    assert {"with the words 'a b'", "with the words 'h i'"} <= found
    assert "with the words 'b h'" not in found


def test_the_more_prompts_the_fewer_words_of_each() -> None:
    """As many in all, but for a few that are looked at in any case."""
    assert (600, 48, 32, 32) == tuple(words_each(n) for n in (200, 2500, 5000, 100_000))


def test_short() -> None:
    """One line of 40 characters at most."""
    assert "a b" == short(" a\n b ")
    assert 40 == len(short("x" * 99))


def test_ids() -> None:
    """So many as asked for, and of an id that is a whole text its start."""
    assert "a, b" == listed(["a", "b", "c"], 2)
    assert f"{'x' * 67}..., b" == listed(["x" * 15_074, "b"], 3)
