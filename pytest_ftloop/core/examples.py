"""The rows of a data set, and the results that a model has on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_ftloop.core.errors import Location


@dataclass(frozen=True)
class Example:
    """One row of a data set, in one of the four forms that trl accepts.

    `row` has the columns that trl reads: one text, in the column `text_column`; `prompt` and
    `completion`; `messages`; or `input_ids`. `prompt` and `expected` are the texts of the second
    and third form, before any chat template, and None for the others. `content` is a hash of `row`:
    the same id with other content is another example. `choices` are the example's own candidates
    for the `choice` scorer, `answers` those that are acceptable besides the expected text, `kept`
    the columns that scorers read besides those of `row`. `scored_by` is a hash of the answers and
    columns that only the scoring reads, empty without any; it is a part of an eval example's
    content (`scored_content`).
    """

    id: str
    content: str
    row: Mapping[str, Any]
    tags: tuple[str, ...] = ()
    prompt: str | None = None
    expected: str | None = None
    choices: tuple[str, ...] = ()
    where: Location | None = None
    text_column: str = "text"
    kept: Mapping[str, Any] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    scored_by: str = ""

    @property
    def prompt_text(self) -> str:
        """What reports show of the example and rules compare: prompt, text, or token numbers."""
        if "input_ids" in self.row:
            return " ".join(map(str, self.row["input_ids"]))
        text = self.row.get(self.text_column) if self.prompt is None else self.prompt
        return text if isinstance(text, str) else ""


def scored_content(example: Example) -> Example:
    """The example of an eval set, whose content also covers what only its scoring reads."""
    if not example.scored_by:
        return example
    return replace(example, content=f"{example.content}+{example.scored_by}")


def measured_content(content: str) -> str:
    """The part of an example's content that the model sees, which its loss and output are of."""
    return content.partition("+")[0]


@dataclass(frozen=True)
class DataSet:
    """The examples of one role (train, eval, holdout), their source, and their content hash.

    `columns` are those of the source's rows, empty if they are not known.
    """

    role: str
    source: str
    examples: tuple[Example, ...]
    sha256: str
    columns: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def tags(self) -> frozenset[str]:
        """The tags of all examples."""
        return frozenset(tag for example in self.examples for tag in example.tags)


@dataclass(frozen=True)
class ExampleResult:
    """The result of one example: `loss` is the sum over its `tokens`, `correct` of which are top-1.

    `passed` is None for examples that are not scored (the sample of the train set). `scores` are
    from 0 to 1, by the metric that is their mean over examples: `score`, or `score.<name>` for each
    that the scorer names; a scorer that says only yes or no gives none. `outputs` are all sampled
    outputs, `output` the first of them; it is empty where there is one output only.
    """

    id: str
    content: str
    tags: tuple[str, ...]
    loss: float
    tokens: int
    correct: int
    passed: bool | None = None
    expected: str = ""
    output: str = ""
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)
    outputs: tuple[str, ...] = ()

    @property
    def mean_loss(self) -> float:
        """Loss per token."""
        return self.loss / self.tokens if self.tokens else float("nan")


Guarded = Mapping[str, Sequence[ExampleResult]]
"""The results of each guard's rows, by the guard's name; without scoring they did not pass or fail.
"""
