"""Broken examples as one fact: their share of what passed, and what most of them answer."""

from __future__ import annotations

import pytest

from pytest_ftloop.core.records import ExampleResult, Iteration
from pytest_ftloop.gate.breakage import Breakage, breakage
from tests.fakes import fake_example, fake_iteration


def version(number: int, outputs: str, expected: str = "yes") -> Iteration:
    """An iteration with one example per output, of which `yes` passes; `-` is an empty one."""
    rows = tuple(_row(place, output, expected) for place, output in enumerate(outputs.split()))
    return fake_iteration(number, examples=rows)


def _row(place: int, output: str, expected: str) -> ExampleResult:
    text, tags = output.replace("-", ""), ("odd",) if place % 2 else ()
    return fake_example(f"e{place}", text == "yes", output=text, expected=expected, tags=tags)


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        ("wrong wrong wrong wrong", Breakage(4, 4, 4, "wrong")),
        ("wrong wrong wrong other", Breakage(4, 4, 3, "wrong")),
        ("wrong wrong other third", Breakage(4, 4)),
        ("wrong yes yes yes", Breakage(1, 4)),
        ("- - - -", Breakage(4, 4, 4, "")),
    ],
    ids=["all", "most", "too few", "one", "empty outputs"],
)
def test_what_most_of_them_answer(now: str, wanted: Breakage) -> None:
    """A common answer is one of three in four, an empty one too; one example has none in common."""
    before, after = version(1, "yes yes yes yes"), version(2, now)
    broken = [row.id for row in after.examples if not row.passed]
    assert wanted == breakage(before, after, broken)


def test_of_what_passed() -> None:
    """The baseline's own failures are not among those that could break."""
    before, after = version(1, "yes no yes no yes"), version(2, "no no yes no yes")
    assert Breakage(1, 3) == breakage(before, after, ["e0"])


def test_of_the_examples_with_a_tag() -> None:
    """A gate on a tag counts the examples that it is about."""
    before, after = version(1, "yes yes yes yes"), version(2, "yes no yes no")
    assert Breakage(2, 2, 2, "no") == breakage(before, after, ["e1", "e3"], "odd")


def test_nothing_was_generated() -> None:
    """Scored by its losses an example answers nothing, which is not an empty answer."""
    before = version(1, "- - -", expected="")
    assert Breakage(2, 0) == breakage(before, version(2, "- - -", expected=""), ["e0", "e1"])


@pytest.mark.parametrize("ids", [[], ["gone"]])
def test_nothing_broke(ids: list[str]) -> None:
    """Without a broken example, or without its row, there is nothing to say."""
    assert breakage(version(1, "yes"), version(2, "no"), ids) is None


def test_an_example_that_is_new_counts_for_nothing() -> None:
    """Of a changed eval set only the examples that both were measured on count."""
    before, after = version(1, "yes yes yes"), version(2, "no no")
    assert Breakage(2, 2, 2, "no") == breakage(before, after, ["e0", "e1"])
