"""A failing gate or assert explains itself in the terminal, whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.plugin.conftest import Project

TESTS = """\
import pytest

@pytest.fixture
def best(ftloop):
    return ftloop("x.ftloop.yaml").run()

def test_less(best):
    assert best.eval_loss < 0.1

def test_swapped(best):
    assert 0.1 > best.eval_loss

def test_floor(best):
    assert 9 <= best.eval_loss

def test_worded(best):
    assert best.eval_loss <= 0.1, "not good enough"

def test_slice(best):
    assert best.slice("negation").pass_rate >= 0.8

def test_equal(best):
    assert best.pass_rate == 1

def test_good(best):
    assert best.eval_loss < 3
    assert 3 > best.eval_loss
    assert best.pass_rate == 0.6
    assert best.slice("negation").eval_loss >= 1

def test_not_ours(best):
    assert float(best.eval_loss) < 0.1
"""

HISTORY = ["     1  {}  start: lr 2e-4, r 8, 2 epochs", "  *  2  {}  learning_rate 2e-4 -> 1e-3"]
FINDINGS = [
    "findings:",
    "  info underfit: ",
    "    remedy: the loop would change next: learning_rate 1e-3 -> 5e-3",
]
EXAMPLE = [
    "  e0 [negation]  loss 1.8000 per token",
    '    prompt    "what is 0?"',
    '    expected  "answer 0"',
    '    actual    "wrong"',
]
NEXT = ["try next: learning_rate 1e-3 -> 5e-3: "]

LOSS = [
    "history of eval_loss:",
    *(line.format(figure) for line, figure in zip(HISTORY, ("2.0000", "1.6800"), strict=True)),
    *FINDINGS,
    "examples with the highest loss (of 5):",
    *EXAMPLE,
    *NEXT,
]
RATE = [
    "history of pass_rate[negation]:",
    *(line.format("0.0%") for line in HISTORY),
    *FINDINGS,
    "failing examples: 2 of 2 (100.0%)",
    *EXAMPLE,
    *NEXT,
]


@pytest.fixture
def text_of(project: Project) -> Callable[..., str]:
    """Runs the tests of a name, and gives what is shown of their failures."""
    project.edit("x.ftloop.yaml", "iterations: 3", "iterations: 2")
    project.edit("x.ftloop.yaml", "<= 1.9", "<= 0.1")
    project.write("test_x.py", TESTS)

    def run(name: str, *args: str) -> str:
        result = project.run("--ftloop", "-k", name, *args)
        assert pytest.ExitCode.TESTS_FAILED == result.ret
        return result.stdout.str().partition("= FAILURES =")[2].partition(" ftloop x ")[0]

    return run


def assert_in_order(text: str, parts: list[str]) -> None:
    """Each part begins a line of its own, after the part before it."""
    lines = iter(text.splitlines())
    for part in parts:
        assert any(line.startswith(part) for line in lines), f"{part!r} is missing in\n{text}"


def test_failing_gates(text_of: Callable[..., str]) -> None:
    """A failed gate shows figure, place, history, findings, worst examples and what to try."""
    loss = [
        "eval_loss 1.6800, wanted <= 0.1",
        "eval_loss of iteration 002-",
        "missed by 1.58",
        *LOSS,
    ]
    rate = [
        "pass_rate[negation] 0.0%, wanted >= 80%",
        "pass_rate[negation] of iteration 002-",
        *RATE,
    ]
    text = text_of("x.ftloop.yaml", "-v")
    assert_in_order(text, [*loss, *rate])
    assert "gate at x.ftloop.yaml:5" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("test", "first", "second", "rest"),
    [
        (
            "test_less",
            "assert 1.68 < 0.1: eval_loss of iter",
            "eval_loss 1.6800, wanted < 0.1",
            LOSS,
        ),
        ("test_swapped", "assert 1.68 < 0.1: eval_loss", "eval_loss 1.6800, wanted < 0.1", LOSS),
        ("test_floor", "assert 1.68 >= 9: eval_loss", "eval_loss 1.6800, wanted >= 9", LOSS),
        ("test_worded", "assert 1.68 <= 0.1: eval_loss", "eval_loss 1.6800, wanted <= 0.1", LOSS),
        (
            "test_slice",
            "assert 0 >= 0.8: pass_rate[negation] of iter",
            "pass_rate[negation] 0.0%, wanted >= 80%",
            RATE,
        ),
        ("test_equal", "assert 0.6 == 1: pass_rate of", "missed by 40.0 points", FINDINGS),
    ],
)
@pytest.mark.parametrize("args", [(), ("--tb=short",), ("-q",), ("-vv",)], ids=" ".join)
def test_failing_assert(
    text_of: Callable[..., str],
    test: str,
    first: str,
    second: str,
    rest: list[str],
    args: tuple[str, ...],
) -> None:
    """A failed assert on a figure shows the same below the test, whatever pytest cuts."""
    text = text_of(test, *args)
    assert_in_order(re.sub("^E +", "", text, flags=re.MULTILINE), [first, second])
    assert_in_order(text.partition("- ftloop -")[2], ["-", *rest] if rest else [])
    assert ("not good enough" in text) == (test == "test_worded")


def test_failing_assert_in_ci(text_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI, where pytest cuts nothing, the text is the same."""
    monkeypatch.setenv("CI", "true")
    text = text_of("test_less", "--ftloop-iterations", "2")
    assert 1 == text.count("history of eval_loss")
    assert_in_order(text, LOSS)


def test_other_asserts_are_pytests_own(text_of: Callable[..., str]) -> None:
    """A plain number's failing assert, also beside a figure's, is not explained."""
    text = text_of("test_not_ours")
    assert "assert 1.68 < 0.1" in text
    assert "history of" not in text


def test_explanation_stays_with_its_test(text_of: Callable[..., str]) -> None:
    """Of two failing asserts each has its own explanation."""
    text = text_of("test_less or test_slice")
    less, _, other = text.partition("_ test_slice _")
    assert (1, 0) == (less.count("history of eval_loss"), less.count("history of pass_rate"))
    assert (0, 1) == (other.count("history of eval_loss"), other.count("history of pass_rate"))


def test_passing_asserts_say_nothing(project: Project) -> None:
    """Asserts that hold print nothing of their own."""
    project.edit("x.ftloop.yaml", "iterations: 3", "iterations: 2")
    project.write("test_x.py", TESTS)
    result = project.run("--ftloop", "-k", "test_good")
    result.assert_outcomes(passed=1, deselected=9)
    text = result.stdout.str()
    assert "history of" not in text
    assert 1 == text.count("- ftloop ")
