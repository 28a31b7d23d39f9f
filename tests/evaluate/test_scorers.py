"""How an example passes, and what a faulty scorer or example says."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.scoring import SCORERS, Scoring, check_scoring, needs_generation
from pytest_ftloop.core.errors import ConfigError, ScoringError
from pytest_ftloop.core.records import Example
from pytest_ftloop.evaluate.scorers import load_scorer
from tests.evaluate.scorer_cases import SETTING, WHERE, passes

# Names and settings


@pytest.mark.parametrize(
    ("scorer", "wanted"),
    [
        *[(name, name not in {"loss", "choice"}) for name in SCORERS],
        ("my_scorers:near", True),
    ],
)
def test_needs_generation(scorer: str, wanted: bool) -> None:
    """Every scorer but `loss` and `choice` reads generated text."""
    assert wanted == needs_generation(Scoring(scorer=scorer))


def test_unknown_scorer_is_guessed() -> None:
    """A misspelt scorer is a ConfigError that names the place and guesses what was meant."""
    with pytest.raises(ConfigError) as caught:
        load_scorer(Scoring(scorer="exakt"), where=SETTING)
    assert "sentiment.ftloop.yaml:12: unknown scorer 'exakt'\n  Did you mean 'exact'?" == str(
        caught.value
    )


@pytest.mark.parametrize(
    ("scoring", "option"),
    [
        (Scoring(scorer="exact", threshold=1.0), "threshold"),
        (Scoring(scorer="exact", threshold=0.0), "threshold"),
        (Scoring(scorer="contains", pattern="a"), "pattern"),
        (Scoring(scorer="exact", choices=("a", "b")), "choices"),
        (Scoring(scorer="json", ignore_case=True), "ignore_case"),
        (Scoring(scorer="a:b", ignore_case=True), "ignore_case"),
    ],
)
def test_setting_that_would_be_ignored(scoring: Scoring, option: str) -> None:
    """A setting that the scorer does not use is refused: it looks like a condition and is none."""
    with pytest.raises(ConfigError, match=f"scoring {option} is for") as caught:
        check_scoring(scoring, where=SETTING)
    assert SETTING == caught.value.where


@pytest.mark.parametrize("threshold", [None, math.nan, math.inf, -1.0])
def test_loss_wants_a_threshold(threshold: float | None) -> None:
    """The scorer `loss` without a finite threshold is a ConfigError."""
    with pytest.raises(ConfigError, match="wanted a threshold"):
        check_scoring(Scoring(scorer="loss", threshold=threshold))


def test_max_new_tokens_is_positive() -> None:
    """Generating no tokens at all is a ConfigError."""
    with pytest.raises(ConfigError, match="max_new_tokens: wanted 1 or more, found 0"):
        check_scoring(Scoring(max_new_tokens=0))


@pytest.mark.parametrize(
    "scoring", [Scoring(scorer="loss", threshold=1.0), Scoring(scorer="choice")]
)
def test_load_scorer_is_for_generated_text(scoring: Scoring) -> None:
    """Asking for a text scorer where there is none is the caller's fault, not the user's."""
    with pytest.raises(ValueError, match="reads no generated text"):
        load_scorer(scoring)


# exact, contains, regex


@pytest.mark.parametrize(
    ("expected", "output", "ignore_case", "wanted"),
    [
        (" yes", "yes\n", False, True),
        ("yes", "Yes", False, False),
        ("Straße", "STRASSE", True, True),
        ("yes", "yes it is", False, False),
        ("", "  \n", False, True),
        ("", "something", False, False),
    ],
)
def test_exact(expected: str, output: str, ignore_case: bool, wanted: bool) -> None:
    """`exact` compares stripped texts, casefolded on request."""
    assert wanted == passes(expected, output, scorer="exact", ignore_case=ignore_case)


@pytest.mark.parametrize(
    ("expected", "output", "ignore_case", "wanted"),
    [
        (" 42\n", "The answer is 42.", False, True),
        ("Paris", "in paris, France", False, False),
        ("Paris", "in paris, France", True, True),
        ("Paris", "", False, False),
    ],
)
def test_contains(expected: str, output: str, ignore_case: bool, wanted: bool) -> None:
    """`contains` looks for the stripped expected text in the output."""
    assert wanted == passes(expected, output, scorer="contains", ignore_case=ignore_case)


@pytest.mark.parametrize("scorer", ["contains", "regex"])
@pytest.mark.parametrize("expected", ["", " \n"])
def test_empty_expected_would_always_pass(scorer: str, expected: str) -> None:
    """An empty expected text that any output would satisfy is a ScoringError, not a pass."""
    with pytest.raises(ScoringError, match="'e1' is empty") as caught:
        passes(expected, "anything", scorer=scorer)
    assert WHERE == caught.value.where


@pytest.mark.parametrize("scorer", ["exact", "contains", "regex", "json"])
def test_no_expected_text(scorer: str) -> None:
    """An example of the plain text form has nothing to compare with: a ScoringError."""
    with pytest.raises(ScoringError, match="wanted an expected text, example 'e1' has none"):
        passes(None, "anything", scorer=scorer)


@pytest.mark.parametrize(
    ("pattern", "expected", "output", "ignore_case", "wanted"),
    [
        (r"\b\d{3}\b", None, "call 112 now", False, True),
        (r"\b\d{3}\b", "ignored", "call 1124 now", False, False),
        (None, r" (yes|yeah)\n", "oh yeah", False, True),
        (None, "^Yes$", "yes", False, False),
        (None, "^Yes$", "yes", True, True),
    ],
)
def test_regex(
    pattern: str | None, expected: str | None, output: str, ignore_case: bool, wanted: bool
) -> None:
    """`regex` searches for the common pattern, or else for the expected text as a pattern."""
    found = passes(
        expected and expected.replace(r"\n", "\n"),
        output,
        scorer="regex",
        pattern=pattern,
        ignore_case=ignore_case,
    )
    assert wanted == found


def test_invalid_common_pattern() -> None:
    """An invalid pattern is found when loaded; the error has the pattern, position and place."""
    with pytest.raises(ConfigError, match=r"'ab\(c': .* at position 2") as caught:
        load_scorer(Scoring(scorer="regex", pattern="ab(c"), where=SETTING)
    assert SETTING == caught.value.where


def test_empty_common_pattern() -> None:
    """An empty pattern would match anything: a ConfigError."""
    with pytest.raises(ConfigError, match="pattern is empty"):
        load_scorer(Scoring(scorer="regex", pattern=""))


@pytest.mark.parametrize("pattern", ["a{99999999999999999999}", "(" * 2000 + ")" * 2000])
def test_monstrous_pattern(pattern: str) -> None:
    """A pattern that the re module gives up on is a ConfigError too."""
    with pytest.raises(ConfigError, match="not a valid regular expression"):
        load_scorer(Scoring(scorer="regex", pattern=pattern))


def test_invalid_example_pattern() -> None:
    """An expected text that is no valid pattern names its example and line, whatever the output."""
    with pytest.raises(ScoringError, match=r"example 'e1' .* '\*a': .* at position 0") as caught:
        passes("*a", "", scorer="regex")
    assert WHERE == caught.value.where


# json


@pytest.mark.parametrize(
    ("expected", "output", "wanted"),
    [
        ('{"a": 1, "b": [true, null]}', '\n{"b":[true,null],"a":1.0} ', True),
        ('{"a": 1}', '```json\n{"a": 1}\n```\n', True),
        ('{"a": 1}', '```\n{"a": 1}```', True),
        ('```json\n{"a": 1}\n```', '{"a": 1}', True),
        ('"```"', '"```"', True),
        ('{"a": 1}', '{"a": true}', False),
        ("0", "false", False),
        ("[1, 2]", "[2, 1]", False),
        ("[1, 2]", "[1, 2, 3]", False),
        ('{"a": 1}', '{"a": 1, "b": 2}', False),
        ("[]", "{}", False),
        ('{"a": 1}', '{"a": 1', False),
        ('{"a": 1}', 'Here you are: {"a": 1}', False),
        ("1", "NaN", False),
        ("1", "", False),
        ("[]", "[" * 100_000, False),
        ("1", "1" * 10_000, False),
    ],
)
def test_json(expected: str, output: str, wanted: bool) -> None:
    """`json` compares values, true is not 1, and an output that is not JSON does not pass."""
    assert wanted == passes(expected, output, scorer="json")


@pytest.mark.parametrize("expected", ["{'a': 1}", "", "NaN", "yes"])
def test_json_expected_is_not_json(expected: str) -> None:
    """An expected text that is not JSON is a ScoringError with example and line."""
    with pytest.raises(ScoringError, match="example 'e1', found ") as caught:
        passes(expected, "not json either", scorer="json")
    assert WHERE == caught.value.where


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, json_values)
def test_json_agrees_with_canonical_text(left: object, right: object) -> None:
    """Without floats, two values are the same exactly if their sorted JSON texts are."""
    import json

    texts = [json.dumps(value, sort_keys=True) for value in (left, right)]
    assert (texts[0] == texts[1]) == passes(texts[0], texts[1], scorer="json")
    assert passes(texts[0], json.dumps(left, indent=2, ensure_ascii=False), scorer="json")


def called(arguments: dict[str, Any], text: str) -> Example:
    calls = [{"type": "function", "function": {"name": "f", "arguments": arguments}}]
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    row = {"prompt": [{"role": "user", "content": "p"}], "completion": [answer]}
    return Example("a", "", row, prompt="p", expected=text)


CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1, "b": [2]}}\n</tool_call>'


@pytest.mark.parametrize(
    ("output", "passing"),
    [
        (CALL, {"exact", "contains", "json"}),
        (
            '<tool_call>{"arguments": {"b": [2], "a": 1.0}, "name": "f"}</tool_call>',
            {"exact", "contains", "json"},
        ),
        ('{"name": "f", "arguments": {"b": [2], "a": 1}}', {"contains", "json"}),
        (f"I call it. {CALL}", {"contains", "json"}),
        (f"{CALL}\n{CALL}", {"contains"}),
        (CALL.replace("1", "true"), set()),
        (CALL.replace("[2]", "[2, 2]"), set()),
        (CALL.replace('"f"', '"g"'), set()),
        (CALL[:-20], set()),
        ("", set()),
    ],
)
def test_tool_calls_compare_as_json(output: str, passing: set[str]) -> None:
    """Keys may be in any order; name and arguments must be equal, for `exact` also the words."""
    example = called({"a": 1, "b": [2]}, CALL)
    passed = {
        name
        for name in ("exact", "contains", "json")
        if load_scorer(Scoring(name))(example, output).passed
    }
    assert passing == passed


QWEN = (
    "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n[2]\n</parameter>\n"
    "</function>\n</tool_call>"
)
QWEN_TURNED = (
    "<tool_call>\n<function=f>\n<parameter=b>\n[2]\n</parameter>\n<parameter=a>\n1\n</parameter>\n"
    "</function>\n</tool_call>"
)
GLM = (
    "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n"
    "<arg_key>b</arg_key>\n<arg_value>[2]</arg_value>\n</tool_call>"
)
GLM_TURNED = (
    "<tool_call>f\n<arg_key>b</arg_key>\n<arg_value>[2]</arg_value>\n"
    "<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"
)
BESIDE = 'to=functions.f json{"a": 1, "b": [2]}'
ALL = {"exact", "contains", "json"}


@pytest.mark.parametrize(
    ("expected", "output", "passing"),
    [
        (QWEN, QWEN, ALL),
        (QWEN, QWEN_TURNED, ALL),
        (QWEN, f"I call it. {QWEN_TURNED}", {"contains"}),
        (QWEN, QWEN.replace("=f>", "=g>"), set()),
        (QWEN, QWEN_TURNED.replace("[2]", "[3]"), set()),
        (QWEN, QWEN.replace("=a>", "=c>"), set()),
        (GLM, GLM_TURNED, ALL),
        (GLM, GLM.replace(">f", ">g"), set()),
        (GLM, GLM_TURNED.replace(">1<", ">2<"), set()),
        (BESIDE, 'to=functions.f json{"b": [2], "a": 1}', {"exact", "json"}),
        (BESIDE, 'to=functions.g json{"a": 1, "b": [2]}', set()),
    ],
)
def test_tool_calls_that_are_not_all_json(expected: str, output: str, passing: set[str]) -> None:
    """Arguments may be in any order; a name outside the JSON, or without any, must be equal."""
    example = called({"a": 1, "b": [2]}, expected)
    assert passing == {name for name in ALL if load_scorer(Scoring(name))(example, output).passed}


def test_an_answer_without_tool_calls_is_text() -> None:
    """JSON in an answer that calls no tool is compared as it stands by `exact`."""
    example = Example(
        "a", "", {"prompt": "p", "completion": '{"a": 1, "b": 2}'}, expected='{"a": 1, "b": 2}'
    )
    assert not load_scorer(Scoring("exact"))(example, '{"b": 2, "a": 1}').passed
