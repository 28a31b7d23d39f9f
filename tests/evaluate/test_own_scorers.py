"""The user's own scorers, by hook and by module:function; loss and choice."""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import ConfigError, ScoringError
from pytest_ftloop.core.records import Example, ExampleResult
from pytest_ftloop.evaluate.scored import Scored, scored_alike
from pytest_ftloop.evaluate.scorers import load_scorer, score_by_choice, score_by_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
from tests.evaluate.scorer_cases import SETTING, WHERE, an_example


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


# hook and module:function


def by_hook(result: Any, **scoring: Any) -> Scored:
    """What a hook's result scores."""
    scorer = load_scorer(Scoring(scorer="hook", **scoring), lambda *_: result)
    return scorer(an_example(), "out")


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
def test_yes_or_no(result: Any, wanted: bool) -> None:
    """A bool, 0 or 1, numpy's included, is a pass or none and no score."""
    assert Scored(wanted) == by_hook(result)
    assert wanted is by_hook(result).passed


@pytest.mark.parametrize(
    ("result", "pass_at", "passed", "scores"),
    [
        (1.0, None, True, {"score": 1.0}),
        (0.999, None, False, {"score": 0.999}),
        (sum([0.1] * 10), None, True, {"score": sum([0.1] * 10)}),
        (1 + 1e-12, None, True, {"score": 1.0}),
        (np.float32(0.5), 0.5, True, {"score": 0.5}),
        (np.float64(0.4), 0.5, False, {"score": 0.4}),
        (0.0, 0.0, True, {"score": 0.0}),
        ({"valid": True, "fields": 0.6}, None, False, {"score.valid": 1.0, "score.fields": 0.6}),
        ({"valid": 1, "fields": 0.6}, 0.6, True, {"score.valid": 1.0, "score.fields": 0.6}),
        ({"a": 0.2, "b": 0.9}, {"b": 0.9}, True, {"score.a": 0.2, "score.b": 0.9}),
        ({"a": 0.2, "b": 0.9}, {"b": 0.9, "a": 0.3}, False, {"score.a": 0.2, "score.b": 0.9}),
    ],
)
def test_scores(result: Any, pass_at: Any, passed: bool, scores: dict[str, float]) -> None:
    """A number is `score`, names are `score.<name>`; it passes where each reaches `pass_at`."""
    assert Scored(passed, scores) == by_hook(result, pass_at=pass_at)


@pytest.mark.parametrize(
    "result",
    [None, 2, -0.1, 1.1, math.nan, math.inf, "yes", [True], {}, {"a": "b"}, {"a": 2}, {1: 0.5},
     {"a]": 0.5}, {"": 0.5}, {"a": math.nan}, {"a": {"b": 1.0}}, 1j],
)  # fmt: skip
def test_what_is_no_score(result: Any) -> None:
    """Anything else is a ScoringError with scorer, example, place and what was found."""
    with pytest.raises(
        ScoringError, match="scorer 'pytest_ftloop_score' on example 'e1'"
    ) as caught:
        by_hook(result)
    assert WHERE == caught.value.where
    assert repr(result) in caught.value.cure


def test_pass_at_names_a_score_that_is_not_given() -> None:
    """A name of `pass_at` that the scorer does not return is an error, never a pass."""
    with pytest.raises(ScoringError, match="pass_at names the score 'field', which it does not"):
        by_hook({"fields": 1.0}, pass_at={"field": 1.0})


def test_yes_among_numbers_is_one() -> None:
    """The mean of a score is one of all examples, also of those whose result was a bool."""
    rows = [Scored(True), Scored(False, {"score": 0.25}), Scored(False)]
    found = scored_alike(rows, [an_example()] * 3, "s")
    assert [{"score": 1.0}, {"score": 0.25}, {"score": 0.0}] == [row.scores for row in found]
    assert rows[:1] == [*scored_alike(rows[:1], [an_example()], "s")]


@pytest.mark.parametrize("other", [{}, {"score.b": 1.0}, {"score": 1.0}])
def test_other_names_for_another_example(other: dict[str, float]) -> None:
    """A scorer that names other scores for another row is an error with that row's place."""
    rows = [Scored(True, {"score.a": 1.0}), Scored(True, other)]
    with pytest.raises(
        ScoringError, match=r"wanted the scores score\.a for each example"
    ) as caught:
        scored_alike(rows, [an_example()] * 2, "s")
    assert WHERE == caught.value.where


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
    assert scorer(an_example("yes", p=("out", "yes")), "out").passed
    assert not scorer(an_example("yes", p=("out", "no")), "out").passed


def test_function_in_a_package(write_module: Callable[[str, str], Path]) -> None:
    """A dotted module is found too."""
    write_module("ftl_pkg/__init__", "")
    folder = write_module("ftl_pkg/near", "def near(*_):\n    return True\n")
    assert load_scorer(Scoring(scorer="ftl_pkg.near:near"), folder=folder)(an_example(), "").passed


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


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        ("output", ["out"]),
        ("prompt, output", ["asked", "out"]),
        ("example, *, expected, least=3", None),
        ("prompt, example, expected, output", ["asked", {"id": "e1", "tags": []}, "yes", "out"]),
        ("o, e, x", ["out", "yes", {"id": "e1", "tags": []}]),
        ("o, e, x, more=1", ["out", "yes", {"id": "e1", "tags": []}, 1]),
        ("output, e, x", ["out", "yes", {"id": "e1", "tags": []}]),
        ("*all", [("out", "yes", {"id": "e1", "tags": []})]),
        ("o, e, x, /", ["out", "yes", {"id": "e1", "tags": []}]),
    ],
)
def test_parameters(parameters: str, wanted: Any, write_module: Callable[[str, str], Path]) -> None:
    """A function takes any of output, expected, example and prompt by name, or three by place."""
    folder = write_module(
        "ftl_takes",
        f"SEEN = []\ndef f({parameters}):\n    SEEN.append(locals())\n    return True\n",
    )
    example = Example("e1", "c", {}, prompt="asked", expected="yes", where=WHERE)
    if wanted is None:  # one that is neither
        with pytest.raises(ConfigError, match="can't be called as function"):
            load_scorer(Scoring(scorer="ftl_takes:f"), folder=folder)
        return
    assert load_scorer(Scoring(scorer="ftl_takes:f"), folder=folder)(example, "out").passed
    assert [dict(zip(sys.modules["ftl_takes"].SEEN[0], wanted, strict=True))] == [
        *sys.modules["ftl_takes"].SEEN
    ]


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
        ("def f(output, other): ...", r"can't be called as function\(output, expected, example\)"),
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
        assert (name == "one") == scorers[name](an_example(), "").passed


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
