"""How far a judge agrees with people, and with itself in another order."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.judge import Judge
from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import DataError
from pytest_ftloop.evaluate.agreement import Agreement, agreement, graded_rows, wilson
from pytest_ftloop.evaluate.judge import JudgeScorer
from tests.docs.pages import TEXTS
from tests.endpoints import endpoint
from tests.judges import biased, fair

ROWS: list[dict[str, Any]] = [
    {"prompt": f"p{n}", "expected": "good", "output": "good" if n < 6 else "bad", "pass": n < 6}
    for n in range(10)
]


def scorer(url: str = "http://127.0.0.1:9") -> JudgeScorer:
    how = Judge(url, "a-model", "Is it right?")
    return JudgeScorer(how, Scoring("judge", judge=how))


def asked(reply: Any, rows: list[dict[str, Any]]) -> Agreement:
    with endpoint(reply) as served:
        judge = scorer(served.url)
        return agreement(judge, graded_rows(((row, None) for row in rows), judge, None))


def test_a_fair_judge_agrees_in_both_orders() -> None:
    """A judge that grades as people do has no error and no flip."""
    found = asked(fair, ROWS)
    assert Agreement(10, 10, 4, 0, 6, 0, 10, 0) == found
    assert (1.0, False) == (found.kappa, found.is_doubtful)


def test_a_planted_position_bias_is_found() -> None:
    """A judge that favours the text in the first place passes bad outputs once they are there."""
    found = asked(biased, ROWS)
    assert (10, 4) == (found.compared, found.flips)
    assert found.is_doubtful
    assert "verdicts that change when output and expected answer swap: 4 of 10 (40%" in found.text


def test_errors_are_counted_by_their_side() -> None:
    """False passes are among what people fail, false fails among what they pass."""
    rows = [
        {**row, "pass": not row["pass"]} if n in (0, 8, 9) else row for n, row in enumerate(ROWS)
    ]
    found = asked(fair, rows)
    assert (7, 3, 1, 7, 2) == (
        found.agreed,
        found.failing,
        found.false_passes,
        found.passing,
        found.false_fails,
    )
    assert "agrees with 7 of 10 human grades (70%, 95% interval 40 to 89%)" in found.text


def test_without_an_expected_answer_no_order_is_compared() -> None:
    """Where only the rubric counts there is no order to swap."""
    rows = [{"prompt": "p", "output": o, "grade": g} for o, g in (("good", 5), ("bad", 2))]
    found = asked(fair, rows)
    assert (2, 2, 0) == (found.rows, found.agreed, found.compared)
    assert "swap" not in found.text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"output": "x", "pass": True}, "wanted a text in prompt, found NoneType"),
        ({"prompt": "x", "output": 3, "pass": True}, "wanted a text in output, found int"),
        ({"prompt": "x", "output": "y"}, "wanted pass (true or false), or a grade from 1 to 5"),
        ({"prompt": "x", "output": "y", "grade": 9}, "found 9"),
        ({"prompt": "x", "output": "y", "grade": "good"}, "found 'good'"),
    ],
)
def test_a_row_without_a_grade(row: dict[str, Any], message: str) -> None:
    """A row that is not graded, or on another scale, is an error before the judge is asked."""
    with pytest.raises(DataError) as caught:
        graded_rows([(row, None)], scorer(), None)
    assert message in str(caught.value)


def test_no_rows() -> None:
    """An empty file of graded rows is an error."""
    with pytest.raises(DataError, match="judge_check has no rows"):
        graded_rows([], scorer(), None)


@given(st.integers(0, 60), st.integers(0, 60))
def test_wilson_interval_contains_the_share(hits: int, more: int) -> None:
    """The interval holds the observed share and stays within 0 and 1."""
    of = hits + more
    low, high = wilson(hits, of)
    assert 0 <= low <= high <= 1
    if of:
        assert low - 1e-12 <= hits / of <= high + 1e-12


def test_wilson_interval_is_the_known_one() -> None:
    """The textbook's interval of 8 of 10 (Wilson, without continuity correction): 49.0 to 94.3%."""
    assert (0.490, 0.943) == tuple(round(bound, 3) for bound in wilson(8, 10))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_kappa_by_its_definition(pairs: list[tuple[bool, bool]]) -> None:
    """Cohen's kappa is (observed - chance) / (1 - chance), chance from both sides' shares."""
    n = len(pairs)
    found = Agreement(
        n,
        sum(a == b for a, b in pairs),
        sum(not a for a, _ in pairs),
        sum(not a and b for a, b in pairs),
        sum(a for a, _ in pairs),
        sum(a and not b for a, b in pairs),
        0,
        0,
    )
    people, judge = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    chance = people * judge + (1 - people) * (1 - judge)
    if math.isclose(chance, 1):
        assert math.isnan(found.kappa)
    else:
        assert math.isclose((found.agreed / n - chance) / (1 - chance), found.kappa, abs_tol=1e-9)


def test_the_page_shows_an_agreement_as_it_is_printed() -> None:
    """The example in the documentation is what those counts print."""
    assert Agreement(50, 41, 20, 5, 30, 4, 50, 3).text in TEXTS["docs/evaluation.md"]
