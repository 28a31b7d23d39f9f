"""Chains of iterations: what descends from what, whatever order the files are in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.chain import chain_from, next_number
from pytest_ftloop.core.records import Iteration
from tests.fakes import fake_iteration


def node(number: int, id_: str, parent: str | None) -> Iteration:
    return fake_iteration(number, id=id_, fingerprint=id_ + "-whole", parent=parent)


def ids(chain: Sequence[Iteration]) -> str:
    return " ".join(f"{i.number}{i.id}" for i in chain)


@pytest.mark.parametrize(
    ("log", "start", "chain"),
    [
        ("", "a", ""),
        ("1a", "b", ""),
        ("1a 2b<a 3c<b", "a", "1a 2b 3c"),
        ("1a 2b<a 3c<b", "b", "2b 3c"),
        ("1a 2x 3b<a 4y<x", "a", "1a 3b"),
        ("1a 2x 3b<a 4y<x", "x", "2x 4y"),
        ("1a 2b<a 2c<a 3d<b 3e<c", "a", "1a 2b 2c 3d 3e"),
        ("1a 2b<a 3b<a 4c<b", "a", "1a 2b 4c"),
        ("1a 3c<b 5b<a", "a", "1a 5b 3c"),
        ("1a 2b<nobody", "a", "1a"),
        ("1a<b 2b<a", "a", "1a 2b"),
        ("1a 2c 3a<c 4d<a", "c", "2c 3a 4d"),
        ("1a 2c 3a<c 4d<a", "a", "1a 4d"),
    ],
    ids=[
        "empty",
        "unknown",
        "line",
        "from the middle",
        "two chains",
        "the other chain",
        "two branches merged",
        "the same iteration in both branches",
        "renumbered by a merge",
        "unknown parent",
        "circle",
        "the same iteration in two chains",
        "the same iteration in two chains, from itself",
    ],
)
def test_chain_from(log: str, start: str, chain: str) -> None:
    """A chain is the iteration that the settings make, and what descends from it."""
    iterations = []
    for part in log.split():
        own, _, parent = part.partition("<")
        iterations.append(node(int(own[:-1]), own[-1], parent or None))
    assert chain == ids(chain_from(iterations, f"{start}-whole"))


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from("abcdef"), st.sampled_from([*"abcdef", None])),
        max_size=12,
        unique_by=lambda t: t[:2],
    ),
    st.randoms(),
)
def test_order_of_files_is_irrelevant(nodes: list[Any], random: Any) -> None:
    """However a folder lists its files, the chain is the same: parents first, each id once."""
    log = [node(*n) for n in nodes]
    shuffled = random.sample(log, len(log))
    chain = chain_from(log, "a-whole")
    assert chain == chain_from(shuffled, "a-whole")
    assert len({i.id for i in chain}) == len(chain)
    for position, iteration in enumerate(chain[1:], start=1):
        assert iteration.parent in {i.id for i in chain[:position]}


def test_next_number() -> None:
    """Numbers go on from the highest."""
    assert 1 == next_number([])
    assert 8 == next_number([node(7, "a", None), node(2, "b", None)])
