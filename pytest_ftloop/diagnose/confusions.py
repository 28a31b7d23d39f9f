"""Confusions: examples of one label that are answered with another."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.groups import IDS_PER_GROUP, MOST_LABELS, has_labels, listed, short

if TYPE_CHECKING:
    from pytest_ftloop.diagnose.evidence import Evidence

FEWEST_CONFUSED = 5
"""Fewest examples of a label, answered with one other label, that are a confusion: fewer are single
errors."""

CONFUSED_SHARE = 0.3
"""Smallest share of a label's examples, answered with one other label, that is a confusion: with a
smaller share that label is one of several wrong answers."""

MOST_CONFUSIONS = 3
"""Maximum number of confusions that are reported, the most frequent first: with many labels a weak
model confuses nearly all."""

PUNCTUATION = " ,:;!?\"'`*()[]{}<>"
"""Characters around an answer that are not part of it."""


def findings(e: Evidence) -> tuple[Finding, ...]:
    """`confusion`: examples that expect one label are often answered with one other label.

    Signal: among failing examples, how often each pair (expected, output) occurs. Threshold: 5
    times, and in 30% of the examples with that label. Source: practice; fewer are single errors.
    Minimum data: at most 100 different expected texts, with 5 examples each on average, and at most
    100 different outputs. NaN: does not occur, as these are counts.
    """
    outputs = {row.output for row in e.results if row.output}
    if not has_labels([row.expected for row in e.results]) or len(outputs) > MOST_LABELS:
        return ()
    expected = Counter(row.expected for row in e.results)
    answered = Counter(
        (row.expected, row.output) for row in e.results if row.passed is False and row.output
    )
    often = [
        (count, pair)
        for pair, count in answered.items()
        if count >= FEWEST_CONFUSED and count >= CONFUSED_SHARE * expected[pair[0]]
    ]
    often.sort(key=lambda found: (-found[0], found[1]))
    often = often[:MOST_CONFUSIONS]
    return tuple(_finding(e, *pair, count, expected[pair[0]]) for count, pair in often)


def same_but_for_form(one: str, other: str) -> bool:
    """Whether two texts differ only in case, white space, or the punctuation around them."""
    plain = _plain(one)
    return plain != "" and plain == _plain(other)


def _plain(text: str) -> str:
    # Full stops are stripped at the end only: at the beginning one may belong to a number (.5).
    line = " ".join(text.replace("_", " ").split()).casefold()
    return line.lstrip(PUNCTUATION).rstrip(PUNCTUATION + ".")


def _finding(e: Evidence, expected: str, output: str, count: int, examples: int) -> Finding:
    rows = [
        r for r in e.results if r.passed is False and (r.expected, r.output) == (expected, output)
    ]
    wanted, actual = short(expected), short(output)
    ids = listed(sorted(row.id for row in rows), IDS_PER_GROUP)
    return Finding(
        kind="confusion",
        severity="info",
        message=f"'{wanted}' is answered with '{actual}' in {count} of {examples} examples: {ids}.",
        evidence={
            "expected": wanted,
            "output": actual,
            "count": count,
            "examples": examples,
            "ids": ids,
        },
        remedy=(
            "They differ only in case, white space or punctuation: check how the train completions "
            f"write '{wanted}', or let both pass (scoring.ignore_case, or a scorer of your own)."
            if same_but_for_form(expected, output)
            else f"Add train examples that distinguish '{wanted}' from '{actual}', or check "
            "whether the labels do."
        ),
    )
