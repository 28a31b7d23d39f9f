"""Arguments of the chat template for all rows: `data.chat_template_kwargs` and `data.tools`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.sources import Columns
from pytest_ftloop.core.errors import DataError
from pytest_ftloop.data.examples import data_set
from tests.loop.loop_cases import config, run

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_ftloop.core.records import Example

CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
TOOLS = [{"type": "function", "function": {"name": "look_up"}}]


def loaded(row: dict[str, Any], **columns: Any) -> Example:
    return data_set([(row, None)], "train", "x", Columns(**columns)).examples[0]


def test_each_row_gets_the_loop_s_arguments() -> None:
    """A row of messages gets the arguments and tools that it lacks; its own come first."""
    how = {"template": {"enable_thinking": False, "style": "short"}, "tools": TOOLS}
    found = loaded(CHAT, **how).row
    assert {"enable_thinking": False, "style": "short"} == found["chat_template_kwargs"]
    assert TOOLS == found["tools"]
    own = {**CHAT, "chat_template_kwargs": {"style": "long"}, "tools": []}
    found = loaded(own, **how).row
    assert {"enable_thinking": False, "style": "long"} == found["chat_template_kwargs"]
    assert [] == found["tools"]


def test_arguments_are_part_of_the_data_s_identity() -> None:
    """With other arguments the rows are others: what was trained on them is out of date."""
    contents = [loaded(CHAT, template=template).content for template in ({}, {"a": 1}, {"a": 2})]
    assert 3 == len(set(contents))
    assert loaded(CHAT).content == contents[0]


def test_text_rows_of_another_role_are_left_alone() -> None:
    """A guard of texts beside a chat loop has no template to give arguments to."""
    assert {"text": "words"} == loaded({"text": "words"}, template={"a": 1}).row


@pytest.mark.parametrize(("name", "value"), [("chat_template_kwargs", {"a": 1}), ("tools", TOOLS)])
def test_arguments_without_messages(tmp_path: Path, name: str, value: Any) -> None:
    """A loop whose rows no template renders would ignore them: that is an error."""
    with pytest.raises(DataError, match=f"data.{name} is for rows of messages"):
        run(config(tmp_path, data={name: value}))
