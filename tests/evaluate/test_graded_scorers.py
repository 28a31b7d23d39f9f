"""The scorers that give scores or read numbers and tool calls, against plain oracles."""

from __future__ import annotations

import json
import math
import random
import sys
from collections import Counter
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.scoring import Scoring, check_scoring
from pytest_ftloop.core.errors import ConfigError, ScoringError
from pytest_ftloop.core.records import Example
from pytest_ftloop.evaluate.calls import Call, calls_in, shares
from pytest_ftloop.evaluate.json_values import wrong_fields
from pytest_ftloop.evaluate.number import last_number
from pytest_ftloop.evaluate.overlap import f1, words
from pytest_ftloop.evaluate.scored import Scored
from pytest_ftloop.evaluate.scorers import load_scorer
from tests.evaluate.scorer_cases import SETTING, WHERE, an_example, passes


def scored(expected: str | None, output: str, *answers: str, **scoring: Any) -> Scored:
    example = Example("e1", "c", {}, expected=expected, where=WHERE, answers=answers)
    return load_scorer(Scoring(**scoring))(example, output)


# several acceptable answers


@pytest.mark.parametrize(
    ("scorer", "expected", "answers", "output", "wanted"),
    [
        ("exact", "Paris", ["the city of Paris"], "the city of Paris", True),
        ("exact", "Paris", ["the city of Paris"], "Paris", True),
        ("exact", "Paris", ["the city of Paris"], "city", False),
        ("contains", "Paris", ["Lutetia"], "It is Lutetia.", True),
        ("number", "3", ["4"], "It is 4", True),
        ("number", "3", ["4"], "It is 5", False),
        ("json", '{"a": 1}', ['{"a": 2}'], '{"a": 2}', True),
        ("f1", "red car", ["blue bus"], "a blue bus", True),
    ],
)
def test_the_best_answer_counts(
    scorer: str, expected: str, answers: list[str], output: str, wanted: bool
) -> None:
    """An output passes that passes by any acceptable answer, the expected text included."""
    assert wanted is scored(expected, output, *answers, scorer=scorer).passed


def test_the_best_score_counts() -> None:
    """The score is that of the best answer."""
    assert {"score": 0.8} == scored("no", "one two three", "one two", scorer="f1").scores


# json


@pytest.mark.parametrize(
    ("expected", "output", "valid", "fields"),
    [
        ('{"a": 1, "b": {"c": 2, "d": [3, 4]}}', '{"a": 1, "b": {"c": 2, "d": [3, 5]}}', 1, 3 / 4),
        ('{"a": 1, "b": 2}', '{"b": 2}', 1, 1 / 2),
        ('{"a": 1}', '{"a": 1, "b": 2}', 1, 1),
        ('{"a": null}', "{}", 1, 0),
        ('{"a": null}', '{"a": null}', 1, 1),
        ('{"a": 1}', '{"a": true}', 1, 0),
        ('{"a": []}', '{"a": [1]}', 1, 0),
        ('{"a": {}}', '{"a": {}}', 1, 1),
        ("[1, 2]", "[1]", 1, 1 / 2),
        ('{"a": {"b": 1}}', '{"a": 3}', 1, 0),
        ("3", "3", 1, 1),
        ("3", "4", 1, 0),
        ('{"a": 1}', '{"a": 1', 0, 0),
        ('{"a": 1}', "", 0, 0),
    ],
)
def test_json_scores(expected: str, output: str, valid: float, fields: float) -> None:
    """`fields` is the share of expected values that are right, and `valid` whether it is JSON."""
    found = scored(expected, output, scorer="json")
    assert {"score.valid": valid, "score.fields": fields} == found.scores
    is_same = bool(valid) and leaves(json.loads(expected)) == leaves(json.loads(output))
    assert found.passed is is_same


def test_json_passes_by_its_fields_if_asked_to() -> None:
    """With `pass_at` the scores decide; without it the whole value must be the same."""
    output = '{"a": 1, "b": 2}'
    assert not scored('{"a": 1}', output, scorer="json").passed
    assert scored('{"a": 1}', output, scorer="json", pass_at=1.0).passed
    assert scored('{"a": 1, "c": 3}', output, scorer="json", pass_at={"fields": 0.5}).passed


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], str]:
    """Each field by its path, as JSON text, by recursion."""
    parts: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    if not parts:
        return {path: json.dumps(value)}
    found = {}
    for key, part in parts:
        found |= leaves(part, (*path, key))
    return found


@given(values, values)
def test_fields_agree_with_recursion(wanted: Any, found: Any) -> None:
    """The number of wrong fields is that of leaves whose text is not the same at their path."""
    mine, theirs = leaves(wanted), leaves(found)
    wrong, total = wrong_fields(wanted, found)
    assert len(mine) == total
    assert sum(theirs.get(path) != text for path, text in mine.items()) == len(wrong)


def test_names_of_wrong_fields() -> None:
    """They are named by their paths, in their order."""
    wanted = {"a": 1, "b": {"c": [1, {"d": 2}]}, "e": 3}
    found = {"a": 2, "b": {"c": [1, {"d": 3}]}, "e": 3}
    assert (["a", "b.c[1].d"], 4) == wrong_fields(wanted, found)
    assert (["value"], 1) == wrong_fields(3, 4)


def test_json_that_is_nested_deep() -> None:
    """Values too deep for recursion are compared, and outputs too deep to read are not JSON."""
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    assert ([], 1) == wrong_fields(deep, deep)
    assert {"score.valid": 0.0, "score.fields": 0.0} == scored(
        "1", "[" * 9999, scorer="json"
    ).scores


# number


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The answer is 42.", 42),
        ("#### 1,234,567", 1234567),
        ("1'234.50 francs", 1234.5),
        ("1\u202f234 km", 1234),
        ("3 apples and 4 pears", 4),
        ("-5", -5),
        ("\u22125.25", -5.25),
        ("+7", 7),
        ("10-3", 3),
        ("in 2019-2020", 2020),
        ("= -2e-3", -0.002),
        ("6.02E23", 6.02e23),
        ("12%", 0.12),
        ("12.5 %", 0.125),
        ("$3.50", 3.5),
        ("-$1,000", -1000),
        ("42km", 42),
        (".5", 0.5),
        ("\\boxed{17}", 17),
        ("答案是-42。", -42),
        ("1,2345", 2345),
        ("H2O", None),
        ("none", None),
        ("", None),
        ("7 is H2O", 7),
        ("(3)", 3),
        ("5e", 5),
        ("9.", 9),
    ],
)
def test_the_last_number(text: str, wanted: float | None) -> None:
    """It is read with sign, thousands, decimals, exponent and percent; not within a word."""
    found = last_number(text)
    assert wanted == (None if found is None else float(found))


@given(st.floats(allow_nan=False, allow_infinity=False), st.text("ab ;:", max_size=5))
def test_numbers_as_python_writes_them(value: float, before: str) -> None:
    """What Python writes after a space is read as it is, to the bit."""
    assert float(last_number(f"{before} {value!r}") or 0) == value


@given(st.integers(-(10**15), 10**15), st.integers(0, 99))
def test_numbers_with_thousands(whole: int, part: int) -> None:
    """Commas between groups of three change nothing."""
    text = f"{whole:,}.{part:02d}"
    assert Decimal(text.replace(",", "")) == last_number(f"about {text} in all")


@pytest.mark.parametrize(
    ("expected", "output", "tolerance", "wanted"),
    [
        ("0.3", "0.31", None, False),
        ("0.3", "0.31", 0.01, True),
        ("0.3", "0.311", 0.01, False),
        ("-200", "-202", "1%", True),
        ("-200", "-202.1", "1%", False),
        ("0", "0.001", "1%", False),
        ("1e30", "1000000000000000000000000000000", None, True),
        ("0.30", "0.3", None, True),
        ("50%", "0.5", None, True),
        ("4", "four", 9, False),
        ("4", "", 9, False),
    ],
)
def test_number(expected: str, output: str, tolerance: Any, wanted: bool) -> None:
    """It passes within the tolerance, which is absolute, or relative to the expected number."""
    assert wanted is passes(expected, output, scorer="number", tolerance=tolerance)


def test_number_without_an_expected_one() -> None:
    """An expected text without a number is an error with the row, whatever the output."""
    with pytest.raises(ScoringError, match="wanted a number in the expected text") as caught:
        passes("four", "", scorer="number")
    assert WHERE == caught.value.where


@pytest.mark.parametrize("tolerance", ["1", "-1%", "x%", "%", math.nan, math.inf, -0.1, "nan%"])
def test_tolerance_that_is_none(tolerance: Any) -> None:
    """It is a number, 0 or more, or a percentage."""
    with pytest.raises(ConfigError, match="wanted a number, 0 or more, or a percentage") as caught:
        check_scoring(Scoring("number", tolerance=tolerance), where=SETTING)
    assert SETTING == caught.value.where


# f1 and rouge


@pytest.mark.parametrize(
    ("wanted", "found", "figure"),
    [
        ("the cat sat", "Cat sat!", 1.0),
        ("cat sat on mat", "the cat", 0.4),
        ("a cat cat", "cat", 2 / 3),
        ("dog", "cat", 0.0),
        ("the", "", 1.0),
        ("dog", "", 0.0),
        ("", "dog", 0.0),
    ],
)
def test_f1(wanted: str, found: str, figure: float) -> None:
    """SQuAD's F1: small letters, no punctuation or articles; words count as often as they occur."""
    assert math.isclose(figure, f1(wanted, found))


@given(st.text("ab .", max_size=12), st.text("ab .", max_size=12))
def test_f1_agrees_with_precision_and_recall(wanted: str, found: str) -> None:
    """It is the harmonic mean of precision and recall over words, in either order of the texts."""
    right, said = Counter(words(wanted)), Counter(words(found))
    common = sum(min(right[word], said[word]) for word in right)
    if common:
        precision, recall = common / sum(said.values()), common / sum(right.values())
        assert math.isclose(2 * precision * recall / (precision + recall), f1(wanted, found))
    else:
        assert f1(wanted, found) == float(not right and not said)
    assert f1(wanted, found) == f1(found, wanted)


def test_f1_passes_from_pass_at_on() -> None:
    """1.0 is the default: all words."""
    assert not scored("red car", "red bus", scorer="f1").passed
    assert scored("red car", "red bus", scorer="f1", pass_at=0.5).passed


def test_rouge() -> None:
    """It is the F-measure of rouge-score, of the kind that is stated."""
    package = pytest.importorskip("rouge_score.rouge_scorer")
    texts = "the cat sat on the mat", "the cat lay on a mat"
    for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        wanted = package.RougeScorer([kind]).score(*texts)[kind].fmeasure
        assert {"score": wanted} == scored(*texts, scorer="rouge", rouge=kind).scores
    assert scored(*texts, scorer="rouge") == scored(*texts, scorer="rouge", rouge="rougeL")


def test_rouge_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading it is no fault, since a replay scores nothing; scoring says what to install."""
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ConfigError, match="needs the package rouge-score") as caught:
        load_scorer(Scoring("rouge"), where=SETTING)(an_example("a"), "a")
    assert SETTING == caught.value.where
    assert 'pip install "pytest-ftloop[rouge]"' == caught.value.cure


# tool calls


JSON_CALL = '{"name": "f", "arguments": {"a": 1, "b": "x"}}'
TAG_CALL = (
    "<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nx\n</parameter>\n</function>"
)


@pytest.mark.parametrize(
    "text",
    [
        JSON_CALL,
        f"[{JSON_CALL}]",
        f"I call it.\n<tool_call>\n{JSON_CALL}\n</tool_call>",
        '{"name": "f", "parameters": {"b": "x", "a": 1}}',
        '{"function": {"name": "f", "arguments": "{\\"a\\": 1, \\"b\\": \\"x\\"}"}}',
        f'{{"tool_calls": [{JSON_CALL}]}}',
        f"<tool_call>\n{TAG_CALL}\n</tool_call>",
    ],
)
def test_forms_of_a_call(text: str) -> None:
    """A call is found in JSON and in tags, in the forms that templates and servers write."""
    example = an_example(JSON_CALL)
    found = load_scorer(Scoring("tool_call"))(example, text)
    assert Scored(True, {"score.name": 1.0, "score.arguments": 1.0}) == found


@pytest.mark.parametrize(
    ("output", "name", "arguments"),
    [
        ('{"name": "f", "arguments": {"a": 2, "b": "x"}}', 1, 0),
        ('{"name": "f", "arguments": {"a": true, "b": "x"}}', 1, 0),
        ('{"name": "f", "arguments": {"a": 1}}', 1, 0),
        ('{"name": "f"}', 1, 0),
        ('{"name": "g", "arguments": {"a": 1, "b": "x"}}', 0, 0),
        (f"{JSON_CALL}\n{JSON_CALL}", 1 / 2, 1 / 2),
        ("<function=f><parameter=a>2</parameter><parameter=b>x</parameter></function>", 1, 0),
        ("no call", 0, 0),
        ("", 0, 0),
    ],
)
def test_wrong_calls(output: str, name: float, arguments: float) -> None:
    """Names and arguments are told apart; a call too many counts like one that is missing."""
    found = load_scorer(Scoring("tool_call"))(an_example(JSON_CALL), output)
    assert Scored(False, {"score.name": name, "score.arguments": arguments}) == found


def test_calls_of_messages() -> None:
    """The expected calls are those of the answer's messages, whatever the template writes."""
    calls = [{"function": {"name": "f", "arguments": {"a": 1, "b": "x"}}}]
    row = {"prompt": [], "completion": [{"role": "assistant", "tool_calls": calls}]}
    example = Example("e", "c", row, expected="rendered in a way of its own")
    assert load_scorer(Scoring("tool_call"))(example, TAG_CALL).passed
    silent = Example(
        "e", "c", {"prompt": [], "completion": [{"role": "assistant", "content": "no"}]}
    )
    assert load_scorer(Scoring("tool_call"))(silent, "I call nothing.").passed
    assert not load_scorer(Scoring("tool_call"))(silent, JSON_CALL).passed


calls = st.lists(
    st.builds(
        Call, st.sampled_from("fg"), st.dictionaries(st.sampled_from("ab"), st.integers(0, 1))
    ),
    max_size=4,
)


@given(calls, calls)
def test_calls_in_any_order(wanted: list[Call], found: list[Call]) -> None:
    """The shares are those of the best of all orders, and of the longer of the two lists."""
    longer, shorter = sorted((wanted, found), key=len, reverse=True)
    orders = list(permutations(longer, len(shorter)))
    best = [
        max(sum(map(equal, order, shorter)) for order in orders)
        for equal in (lambda a, b: a.name == b.name, lambda a, b: a == b)
    ]
    expected = tuple(b / len(longer) for b in best) if longer else (1.0, 1.0)
    assert expected == shares(wanted, found)
    assert shares(wanted, random.Random(0).sample(found, len(found))) == shares(wanted, found)


def test_calls_in_plain_text() -> None:
    """JSON without a name is no call."""
    assert [] == calls_in('{"a": 1} [1, {"name": 3}] <function=f>')


# settings


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        (Scoring("exact", pass_at=0.5), "pass_at is for"),
        (Scoring("json", tolerance=1.0), "tolerance is for number"),
        (Scoring("f1", rouge="rouge1"), "rouge is for rouge"),
        (Scoring("json", pass_at={"field": 1.0}), "gives no score 'field'"),
        (Scoring("f1", pass_at={"f": 1.0}), "gives no score 'f'"),
    ],
)
def test_settings_of_another_scorer(scoring: Scoring, message: str) -> None:
    """An option that the scorer would ignore, and a score that it does not give, are errors."""
    with pytest.raises(ConfigError, match=message):
        check_scoring(scoring)
