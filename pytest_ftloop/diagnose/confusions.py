"""Confusions: one label answered with another."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.groups import MOST_LABELS, has_labels, listed, short

if TYPE_CHECKING:
    from pytest_ftloop.diagnose.evidence import Evidence

LEAST = 5
"""Times that one label is answered with another."""

SHARE = 0.3
"""Of the label's examples that are answered so."""

MOST = 3
"""Confusions shown."""

EXAMPLES = 3
"""Ids shown of a confusion."""

FORM = " ,:;!?\"'`*()[]{}<>"
"""What stands around an answer without being part of it."""


def findings(e: Evidence) -> tuple[Finding, ...]:
    """`confusion`: examples that expect one label are often answered with one other.

    Signal: among failing examples, how often each (expected, output) occurs. Threshold: 5 times and
    30% of the examples that expect it; the most frequent first. Source: practice; below that it
    is an error or two. Minimum data: expected texts and outputs that are each at most 100 different
    ones, expected ones with 5 examples each on average. NaN: no figure that could be.
    """
    outputs = {row.output for row in e.results if row.output}
    if not has_labels([row.expected for row in e.results]) or len(outputs) > MOST_LABELS:
        return ()
    asked = Counter(row.expected for row in e.results)
    said = Counter(
        (row.expected, row.output) for row in e.results if row.passed is False and row.output
    )
    often = [
        (count, pair)
        for pair, count in said.items()
        if count >= LEAST and count >= SHARE * asked[pair[0]]
    ]
    often.sort(key=lambda found: (-found[0], found[1]))
    return tuple(_finding(e, *pair, count, asked[pair[0]]) for count, pair in often[:MOST])


def same_but_for_form(one: str, other: str) -> bool:
    """Whether two texts differ only in case, white space, or the punctuation around them."""
    plain = _plain(one)
    return plain != "" and plain == _plain(other)


def _plain(text: str) -> str:
    # A point before a figure is a part of it.
    return " ".join(text.replace("_", " ").split()).casefold().lstrip(FORM).rstrip(FORM + ".")


def _finding(e: Evidence, expected: str, output: str, count: int, asked: int) -> Finding:
    rows = [
        r for r in e.results if r.passed is False and (r.expected, r.output) == (expected, output)
    ]
    wanted, said = short(expected), short(output)
    ids = listed(sorted(row.id for row in rows), EXAMPLES)
    return Finding(
        kind="confusion",
        severity="info",
        message=f"'{wanted}' is answered '{said}' in {count} of {asked}: {ids}.",
        evidence={
            "expected": wanted,
            "output": said,
            "count": count,
            "examples": asked,
            "ids": ids,
        },
        remedy=(
            "They differ only in case, white space or punctuation: see how the train completions "
            f"write '{wanted}', or let both pass (scoring.ignore_case, or a scorer of your own)."
            if same_but_for_form(expected, output)
            else f"Add train examples that tell '{wanted}' from '{said}', or check whether the "
            "labels do."
        ),
    )
