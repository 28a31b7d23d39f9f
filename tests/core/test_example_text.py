"""What an example says is one text, in whichever form its row is and wherever it is used."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.data.examples import Columns, data_set
from pytest_ftloop.diagnose.data import before_training
from pytest_ftloop.diagnose.groups import Traits
from pytest_ftloop.gate.compare import Side, compare
from pytest_ftloop.gate.difference import difference
from pytest_ftloop.loop.result import Figure
from pytest_ftloop.report.explain import explain_figure
from pytest_ftloop.report.html import gather
from pytest_ftloop.report.show import show_iteration
from pytest_ftloop.report.text import example_lines
from tests.fakes import fake_example, fake_iteration
from tests.report.fakes_report import fake_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ftloop.core.records import Example

TEXT = "Was it good"
FORMS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "text": lambda text, column: {column: text},
    "prompt": lambda text, _: {"prompt": text, "completion": " no"},
    "prompt as messages": lambda text, _: {
        "prompt": [{"role": "user", "content": text}],
        "completion": [{"role": "assistant", "content": "no"}],
    },
    "messages": lambda text, _: {
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "no"}]
    },
}
"""A row of each form, given its text and the column that `dataset_text_field` names."""

BESIDE: dict[str, dict[str, Any]] = {
    "alone": {},
    "with settings of the template": {"chat_template_kwargs": {}},
    "with a column text": {"text": "another text"},
}
"""What trl reads, or could read, beside it. These columns come first in the row."""


def example_of(form: str, text: str, column: str, beside: dict[str, Any]) -> Example:
    row = {**beside, **FORMS[form](text, column)}
    (example,) = data_set([(row, None)], "eval", "", Columns(text=column)).examples
    return example


def words(example: Example) -> str:
    """The words that slices are made of: without capitals and marks."""
    found = " ".join(Traits.of_example(example, 99).words)
    return found.replace("was it good", TEXT).replace("user ", "user: ")


def quoted(lines: str) -> str:
    """The prompt among lines of the terminal."""
    (found,) = re.findall(r'^ *prompt +"(.*)"$', lines, re.MULTILINE)
    return str(found)


def terminal(example: Example) -> str:
    return quoted("\n".join(example_lines(fake_example("e1", False), example)))


def shown(example: Example) -> str:
    rows = [fake_example("e1", False)]
    return quoted(show_iteration(fake_iteration(examples=rows), {"e1": example}))


def explained(example: Example) -> str:
    """What a failing assert says, as the fixture's results explain it."""
    best = fake_iteration(examples=[fake_example("e1", False)])
    result = fake_result((best,), best=best, examples={"e1": example})
    figure = Figure(0.5, "pass_rate", result)
    return quoted("\n".join(explain_figure(figure, ">=", 0.9)))


def on_the_page(example: Example) -> str:
    best = fake_iteration(examples=[fake_example("e1", False)])
    result = fake_result(
        (best,), best=best, examples={"e1": example}, log_folder=Path("no-such-log")
    )
    (text,) = gather.of_result(result).prompts.values()
    return text


def flipped(example: Example) -> str | None:
    """`ftloop diff` and the comment of a pull request show what was broken."""
    old, new = (fake_iteration(n, examples=[fake_example("e1", n == 1)]) for n in (1, 2))
    verdict = compare(Side(new, (new,)), Side(old, (old,)), None, (), Regression())
    (flip,) = difference(old, new, replace(verdict, broken=("e1",)), {"e1": example}).broken
    return flip.prompt


PLACES = (words, terminal, shown, explained, on_the_page, flipped)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("column", ["text", "body"])
@pytest.mark.parametrize("form", FORMS)
def test_text_of_an_example(
    form: str, column: str, beside: dict[str, Any], place: Callable[[Example], str | None]
) -> None:
    """The prompt; of a row of one text that text, whatever its column is called."""
    example = example_of(form, TEXT, column, beside)
    wanted = TEXT if form in {"text", "prompt"} else f"user: {TEXT}"
    assert wanted == place(example)


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("column", ["text", "body"])
@pytest.mark.parametrize("form", FORMS)
def test_examples_are_compared_by_their_text(
    form: str, column: str, beside: dict[str, Any]
) -> None:
    """A row is in both sets where its text is, whatever other columns the rows share."""
    one, other = (example_of(form, text, column, beside) for text in (TEXT, "Something else"))
    assert "leak" in [finding.kind for finding in before_training((one,), (one,))]
    assert "leak" not in [finding.kind for finding in before_training((one,), (other,))]
