"""Rows reach the chat template as they were written, and train as a plain script's do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trl
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import DataError
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.train.base import Base
from pytest_ftloop.train.lora import run_lora
from pytest_ftloop.train.rows import dataset_of
from tests import small_base
from tests.small_base import data_set, rows
from tests.train.test_train import losses_of, plain_script_losses

pytestmark = pytest.mark.usefixtures("quietly")

TEMPLATE = (
    "{{ tools | tojson }}{{ mood | default(none) | tojson }}{% for m in messages %}\n{{ m.role }}:"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{{ m.tool_calls | default([]) | tojson }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}\nassistant:{% endif %}"
)
"""A template that shows each key and null of tools, tool calls and its own arguments."""

QWEN3 = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"

cells = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
nested = st.dictionaries(st.text(), cells, max_size=3) | st.lists(cells, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries({"messages": nested}), min_size=1, max_size=4))
def test_cells_come_back_as_written(written: list[dict[str, Any]]) -> None:
    """Any JSON comes back with the keys, their order, the types and the numbers of each row."""
    held = dataset_of([{**row, "id": "a"} for row in written])
    assert [json.dumps(row["messages"]) for row in written] == [
        json.dumps(cell) for cell in held["messages"]
    ]


def test_rows_without_a_column_that_others_have() -> None:
    """They get what the row without it means to trl: no template arguments, no tools."""
    messages = [{"role": "user", "content": "5"}]
    held = list(
        dataset_of(
            [
                {"messages": messages, "chat_template_kwargs": {"a": 1}},
                {"messages": messages, "tools": [{"name": "f"}]},
            ]
        )
    )
    assert [{"a": 1}, {}] == [row["chat_template_kwargs"] for row in held]
    assert [None, [{"name": "f"}]] == [row["tools"] for row in held]


def call(arguments: Any, **message: Any) -> dict[str, Any]:
    function = {"name": "route", "arguments": arguments}
    calls = [{"type": "function", "function": function}]
    return {"role": "assistant", "content": "", "tool_calls": calls, **message}


def tool(properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": "route", "parameters": parameters}}


def chat(row: dict[str, Any]) -> dict[str, Any]:
    user = {"role": "user", "content": row["prompt"]}
    return {"messages": [user, {"role": "assistant", "content": row["completion"].strip()}]}


def tools_by_row(number: int, row: dict[str, Any]) -> dict[str, Any]:
    arguments = [{"topic": row["completion"]}, {"n": number}, {"n": "three"}, {}][number % 4]
    properties = [{"topic": {"type": "string"}}, {"n": {"type": "integer", "least": number}}]
    return {
        "prompt": chat(row)["messages"][:1],
        "completion": [call(arguments)],
        "tools": [tool(properties[number % 2])],
    }


def arguments_by_row(number: int, row: dict[str, Any]) -> dict[str, Any]:
    kwargs = [{"style": "short"}, {"mood": {"grade": number}}, {"mood": {"grade": "high"}}]
    return {**chat(row), "chat_template_kwargs": kwargs[number % 3]}


FORMS: dict[str, Any] = {
    "messages": lambda _, row: chat(row),
    "pairs": lambda _, row: {
        "prompt": chat(row)["messages"][:1],
        "completion": chat(row)["messages"][1:],
    },
    "tools": tools_by_row,
    "arguments": arguments_by_row,
    "json tools": lambda n, row: {
        **tools_by_row(n, row),
        "tools": json.dumps(tools_by_row(n, row)["tools"]),
    },
}


@pytest.mark.parametrize(
    ("form", "training"),
    [
        ("tools", {}),
        pytest.param("messages", {"assistant_only_loss": True}, marks=pytest.mark.slow),
        pytest.param("messages", {}, marks=pytest.mark.slow),
        pytest.param("pairs", {}, marks=pytest.mark.slow),
        pytest.param("arguments", {}, marks=pytest.mark.slow),
        pytest.param("json tools", {}, marks=pytest.mark.slow),
    ],
)
def test_losses_of_chats_are_a_plain_scripts(
    form: str, training: dict[str, Any], base: Base, tiny: Path, task: Any, tmp_path: Path
) -> None:
    """Losses equal to the bit those of a script over `load_dataset("json")`, whatever rows hold."""
    written = [FORMS[form](n, row) for n, row in enumerate(rows(16, 1))]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    loaded = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path))
    template = tmp_path / "template.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    changed = {"chat_template_path": str(template), "num_train_epochs": 1, **training}
    expected = plain_script_losses(tiny, loaded, tmp_path / "out", **changed)
    train = data_set(written, "train")
    own = task(train=train, eval=data_set(written[:2], "eval"), train_sample=train.examples[:4])
    run = run_lora(base, own, small_base.settings(**changed), Silent())
    assert 2 == len(expected)
    assert expected == losses_of(run)


def test_numbers_that_arrow_can_not_hold(base: Base, task: Any) -> None:
    """An integer beyond 64 bits, and one that is text elsewhere, are trained on as written."""
    written = [
        {"prompt": chat(row)["messages"][:1], "completion": [call({"id": id_})]}
        for row, id_ in zip(rows(8, 1), [2**70, "x"] * 4, strict=True)
    ]
    train = data_set(written, "train")
    own = task(train=train, eval=train, train_sample=train.examples)
    changed = small_base.settings(chat_template_path=str(QWEN3), num_train_epochs=1)
    run = run_lora(base, own, changed, Silent())
    expected = [r.expected for r in run.evaluation.examples]
    assert f'{{"name": "route", "arguments": {{"id": {2**70}}}}}' in expected[0]
    assert '{"name": "route", "arguments": {"id": "x"}}' in expected[1]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"content": [{"type": "text", "text": "money"}]}, "renders nothing of the text"),
        ({"content": "money", "role": "narrator"}, "renders nothing of the text"),
    ],
)
def test_a_row_whose_answer_is_not_rendered(
    answer: dict[str, Any], message: str, base: Base, task: Any
) -> None:
    """It is an error before the first step, with its place: the model could not learn it."""
    written = [FORMS["pairs"](n, row) for n, row in enumerate(rows(8, 1))]
    written[5]["completion"][0] |= answer
    train = data_set(written, "train")
    own = task(train=train, eval=data_set(written[:2], "eval"), train_sample=train.examples[4:])
    with pytest.raises(DataError) as caught:
        run_lora(base, own, small_base.settings(chat_template_path=str(QWEN3)), Silent())
    assert message in caught.value.message
    assert "train, row 6" == str(caught.value.where)


def test_a_row_that_the_template_refuses(base: Base, task: Any) -> None:
    """It is one line with the row, not a traceback of the template's."""
    written = [FORMS["messages"](n, row) for n, row in enumerate(rows(8, 1))]
    written[5]["messages"].insert(0, {"role": "system", "content": "s"})
    train = data_set(written, "train")
    own = task(train=train, eval=data_set(written[:2], "eval"), train_sample=train.examples)
    gemma = QWEN3.with_name("gemma.jinja")
    with pytest.raises(DataError, match="System role not supported") as caught:
        run_lora(base, own, small_base.settings(chat_template_path=str(gemma)), Silent())
    assert "train, row 6" == str(caught.value.where)


def test_rows_that_are_tokenised_already(base: Base, tiny: Path, task: Any, tmp_path: Path) -> None:
    """They are trained on as they are, with their labels, and measured by their loss."""
    written = [
        {
            "input_ids": [*base.tokenizer(row["prompt"])["input_ids"], 7, 8],
            "labels": [-100] * len(base.tokenizer(row["prompt"])["input_ids"]) + [7, 8],
        }
        for row in rows(16, 1)
    ]
    train = data_set(written, "train")
    scoring = Scoring("loss", threshold=20.0)
    own = task(scoring, train=train, eval=train, train_sample=train.examples[:4])
    run = run_lora(base, own, small_base.settings(num_train_epochs=1), Silent())
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    loaded = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path))
    assert plain_script_losses(tiny, loaded, tmp_path, num_train_epochs=1) == losses_of(run)
    assert {2} == {result.tokens for result in run.evaluation.examples}


def test_tokens_that_the_model_does_not_have(base: Base, task: Any) -> None:
    """A row of another tokenizer's tokens is an error with its place."""
    train = data_set([{"input_ids": [5, 6]}, {"input_ids": [5, 10**6]}], "train")
    own = task(
        Scoring("loss", threshold=20.0), train=train, eval=train, train_sample=train.examples
    )
    with pytest.raises(DataError, match="input_ids has 1000000") as caught:
        run_lora(base, own, small_base.settings(), Silent())
    assert "train, row 2" == str(caught.value.where)


def test_a_fault_of_scoring_shows_before_training(base: Base, task: Any) -> None:
    """A scorer that can't score a perfect answer ends the run before the first step."""

    def scorer(example: Any, output: str) -> bool:
        raise DataError(f"scored {output}")

    steps: list[int] = []

    class Watching(Silent):
        def step(self, step: int, steps_: int, loss: float) -> None:
            steps.append(step)

    own = task(scorer=scorer)
    with pytest.raises(DataError, match=r"scored (delivery|money)"):
        run_lora(base, own, small_base.settings(), Watching())
    assert [] == steps
