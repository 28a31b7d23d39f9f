"""How an example passes, and what a faulty scorer or example says."""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.scoring import SCORERS, Scoring, check_scoring, needs_generation
from pytest_ftloop.core.errors import ConfigError, Location, ScoringError
from pytest_ftloop.core.records import Example, ExampleResult
from pytest_ftloop.evaluate.scorers import load_scorer, score_by_choice, score_by_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WHERE = Location("data/eval.jsonl", 7)
SETTING = Location("sentiment.ftloop.yaml", 12)


def an_example(expected: str | None = "yes", **row: Any) -> Example:
    row = row or {"prompt": "Well?", "completion": expected}
    return Example(id="e1", content="c", row=row, expected=expected, where=WHERE)


def passes(expected: str | None, output: str, **scoring: Any) -> bool:
    return load_scorer(Scoring(**scoring))(an_example(expected), output)


def a_result(loss: float, tokens: int) -> ExampleResult:
    return ExampleResult(id="e1", content="c", tags=(), loss=loss, tokens=tokens, correct=0)


@pytest.fixture
def write_module(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Write a module to the loop's folder; it is forgotten after the test."""
    before = set(sys.modules)

    def write(name: str, source: str) -> Path:
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and file.startswith(str(tmp_path)):
            del sys.modules[name]


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


# hook and module:function


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        (True, True),
        (False, False),
        (1, True),
        (0, False),
        (np.True_, True),
        (np.False_, False),
        (np.int64(1), True),
    ],
)
def test_hook_result(result: Any, wanted: bool) -> None:
    """A hook's bool, 0 or 1 is taken as a plain bool, numpy's included."""
    assert wanted is load_scorer(Scoring(scorer="hook"), lambda *_: result)(an_example(), "out")


@pytest.mark.parametrize("result", [None, 1.0, 0.7, 2, "yes", [True], np.float64(1)])
def test_hook_result_that_is_neither(result: Any) -> None:
    """Anything else is a ScoringError with scorer, example, place and what was found."""
    scorer = load_scorer(Scoring(scorer="hook"), lambda *_: result)
    with pytest.raises(ScoringError, match="wanted True or False on example 'e1'") as caught:
        scorer(an_example(), "out")
    assert WHERE == caught.value.where
    assert f"({type(result).__name__})" in caught.value.message


def test_missing_hook() -> None:
    """The scorer `hook` without a hook is a ConfigError that says how to define one."""
    with pytest.raises(ConfigError, match="wanted a pytest_ftloop_score hook, found none"):
        load_scorer(Scoring(scorer="hook"))


def test_function_from_the_loop_folder(write_module: Callable[[str, str], Path]) -> None:
    """A function beside the loop file is called with the output, the expected text and the row."""
    folder = write_module(
        "ftl_near",
        "def near(output, expected, example):\n    return (output, expected) == example['p']\n",
    )
    path = list(sys.path)
    scorer = load_scorer(Scoring(scorer="ftl_near:near"), folder=folder)
    assert path == sys.path
    assert scorer(an_example("yes", p=("out", "yes")), "out")
    assert not scorer(an_example("yes", p=("out", "no")), "out")


def test_function_in_a_package(write_module: Callable[[str, str], Path]) -> None:
    """A dotted module is found too."""
    write_module("ftl_pkg/__init__", "")
    folder = write_module("ftl_pkg/near", "def near(*_):\n    return True\n")
    assert load_scorer(Scoring(scorer="ftl_pkg.near:near"), folder=folder)(an_example(), "")


def test_function_cannot_change_the_example(write_module: Callable[[str, str], Path]) -> None:
    """The function is handed a copy of the row."""
    folder = write_module(
        "ftl_clears", "def f(output, expected, example):\n    example.clear()\n    return True\n"
    )
    example = an_example(prompt="p")
    load_scorer(Scoring(scorer="ftl_clears:f"), folder=folder)(example, "")
    assert {"prompt": "p"} == example.row


def test_function_raises(write_module: Callable[[str, str], Path]) -> None:
    """A function's exception names scorer, example, its place, type, message and source line."""
    folder = write_module(
        "ftl_raises", "def f(output, expected, example):\n    return int(output)\n"
    )
    with pytest.raises(ScoringError) as caught:
        load_scorer(Scoring(scorer="ftl_raises:f"), folder=folder)(an_example(), "x")
    error = caught.value
    assert WHERE == error.where
    assert (
        "scorer 'ftl_raises:f' raised ValueError: invalid literal for int() with base 10: 'x' on"
        " example 'e1'" == error.message
    )
    assert f"{folder / 'ftl_raises.py'}:2, for the output 'x'" in error.cure
    assert isinstance(error.__cause__, ValueError)


def test_hook_raises_without_a_message() -> None:
    """An exception without a message is described by its type."""

    def hook(example: Example, output: str) -> bool:
        raise KeyError

    with pytest.raises(ScoringError, match="raised KeyError on example 'e1'"):
        load_scorer(Scoring(scorer="hook"), hook)(an_example(), "out")


@pytest.mark.parametrize("stop", [SystemExit, KeyboardInterrupt])
def test_stops_pass_through(
    stop: type[BaseException], write_module: Callable[[str, str], Path]
) -> None:
    """SystemExit and KeyboardInterrupt are not a scorer's failure, in a call or in an import."""

    def hook(example: Example, output: str) -> bool:
        raise stop

    with pytest.raises(stop):
        load_scorer(Scoring(scorer="hook"), hook)(an_example(), "out")
    folder = write_module(f"ftl_{stop.__name__}", f"raise {stop.__name__}")
    with pytest.raises(stop):
        load_scorer(Scoring(scorer=f"ftl_{stop.__name__}:f"), folder=folder)


def test_missing_module_is_guessed(write_module: Callable[[str, str], Path]) -> None:
    """A missing module is a ConfigError that guesses among the files beside the loop file."""
    folder = write_module("ftl_scorers", "")
    path = list(sys.path)
    with pytest.raises(ConfigError, match="there is no module 'ftl_scorer'") as caught:
        load_scorer(Scoring(scorer="ftl_scorer:f"), folder=folder, where=SETTING)
    assert (SETTING, path) == (caught.value.where, sys.path)
    assert "Did you mean 'ftl_scorers'?" in caught.value.cure


def test_missing_submodule_is_guessed(write_module: Callable[[str, str], Path]) -> None:
    """A missing module of a package is guessed among the package's own."""
    write_module("ftl_outer/__init__", "")
    folder = write_module("ftl_outer/inner", "")
    with pytest.raises(ConfigError, match=r"there is no module 'ftl_outer\.iner'") as caught:
        load_scorer(Scoring(scorer="ftl_outer.iner:f"), folder=folder)
    assert "Did you mean 'ftl_outer.inner'?" in caught.value.cure


def test_missing_module_without_a_folder() -> None:
    """Without a folder the cure is to install the module."""
    with pytest.raises(ConfigError, match="there is no module 'ftl_nowhere'") as caught:
        load_scorer(Scoring(scorer="ftl_nowhere.x:f"))
    assert "Install it." == caught.value.cure


def test_missing_function_is_guessed(write_module: Callable[[str, str], Path]) -> None:
    """A missing function is a ConfigError that guesses among the module's own."""
    folder = write_module("ftl_names", "LIMIT = 3\ndef near(o, e, x): ...\n")
    with pytest.raises(ConfigError, match="ftl_names has no function 'nera'") as caught:
        load_scorer(Scoring(scorer="ftl_names:nera"), folder=folder)
    assert "Did you mean 'near'?" == caught.value.cure


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("f = 3", "wanted a function, found int"),
        ("", "has no function 'f'"),
        ("def f(output): ...", r"can't be called as function\(output, expected, example\)"),
        ("import ftl_nowhere", "raised ModuleNotFoundError: No module named 'ftl_nowhere'"),
        ("1 / 0", r"importing ftl_faulty raised ZeroDivisionError: division by zero"),
        ("def f(:", "raised SyntaxError"),
    ],
)
def test_faulty_module(source: str, message: str, write_module: Callable[[str, str], Path]) -> None:
    """A module that can't serve is a ConfigError before anything is trained."""
    folder = write_module("ftl_faulty", source)
    with pytest.raises(ConfigError, match=message):
        load_scorer(Scoring(scorer="ftl_faulty:f"), folder=folder)


@pytest.mark.parametrize("scorer", ["a b:f", ":f", "m:", "m:f:g", "../m:f", ".m:f"])
def test_malformed_module_function(scorer: str) -> None:
    """What is not module:function is refused with an example."""
    with pytest.raises(ConfigError, match=r"wanted module:function, such as"):
        load_scorer(Scoring(scorer=scorer))


def test_namesake_of_another_folder(
    write_module: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Each of two folders with a module of the same name has its own scorer."""
    write_module("one/ftl_same", "def f(*_):\n    return True\n")
    write_module("two/ftl_same", "def f(*_):\n    return False\n")
    scorers = {
        name: load_scorer(Scoring(scorer="ftl_same:f"), folder=tmp_path / name)
        for name in ("one", "two")
    }
    for name in ("one", "two", "one"):
        assert (name == "one") == scorers[name](an_example(), "")


def test_builtin_function_without_a_signature() -> None:
    """A callable whose signature can't be read is taken at its word."""
    scorer = load_scorer(Scoring(scorer="builtins:max"))
    with pytest.raises(ScoringError, match=re.escape("raised TypeError")):
        scorer(an_example(), "x")


# loss and choice


@pytest.mark.parametrize(
    ("loss", "tokens", "wanted"),
    [(4.0, 4, True), (4.1, 4, False), (math.nan, 4, False), (math.inf, 4, False), (0.0, 0, False)],
)
def test_score_by_loss(loss: float, tokens: int, wanted: bool) -> None:
    """An example passes by its mean loss per token; NaN and no tokens do not pass."""
    scoring = Scoring(scorer="loss", threshold=1.0)
    assert wanted is score_by_loss(scoring, a_result(loss, tokens))


def test_score_by_loss_without_a_threshold() -> None:
    """No threshold is a ConfigError, never a pass."""
    with pytest.raises(ConfigError, match="wanted a threshold"):
        score_by_loss(Scoring(scorer="loss"), a_result(1.0, 1))


@pytest.mark.parametrize(
    ("figures", "candidates", "expected", "wanted"),
    [
        ((-2.0, -1.0), ("no", " yes"), "yes\n", (True, " yes")),
        ((-1.0, -2.0), ("no", "yes"), "yes", (False, "no")),
        ((-1.0, -1.0), ("no", "yes"), "yes", (False, "no")),
        ((math.nan, -9.0), ("no", "yes"), "yes", (True, "yes")),
        ((-9.0, math.nan), ("no", "yes"), "yes", (False, "no")),
        ((math.nan, math.nan), ("no", "yes"), "no", (False, "")),
        ((-math.inf, math.inf), ("no", "yes"), "yes", (False, "")),
        ((), (), "yes", (False, "")),
        ((math.nan,), ("",), "", (False, "")),
    ],
)
def test_score_by_choice(
    figures: tuple[float, ...], candidates: tuple[str, ...], expected: str, wanted: object
) -> None:
    """The likeliest candidate is chosen: the first of equals, never one that is not finite."""
    assert wanted == score_by_choice(figures, candidates, expected)


def test_score_by_choice_wants_a_figure_each() -> None:
    """A figure too few is the caller's fault and is not passed over."""
    with pytest.raises(ValueError, match=r"longer|shorter"):
        score_by_choice((-1.0,), ("no", "yes"), "yes")


@given(st.lists(st.floats(), max_size=6))
def test_choice_is_never_worse_than_another(figures: list[float]) -> None:
    """The chosen figure is the highest finite one."""
    candidates = [str(i) for i in range(len(figures))]
    finite = [figure for figure in figures if math.isfinite(figure)]
    passed, chosen = score_by_choice(figures, candidates, "0")
    assert (chosen == "0") is passed
    assert (max(finite) if finite else None) == (figures[int(chosen)] if chosen else None)
