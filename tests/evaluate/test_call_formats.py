"""Tool calls in the formats of trl's chat templates: what a template writes is read back."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.core.records import Example
from pytest_ftloop.evaluate.calls import calls_in, expected_calls, shares

PROBE = {"name": "get_weather", "arguments": {"city": "Paris", "days": 3, "wind": None}}

FORMATS = (
    *("deepseekv3", "gemma4", "gemma4_v5", "glm4moe", "gptoss", "lfm2_2_5", "lfm2_v2", "llama3_1"),
    *("muse_glimmer", "nemotron_3_nano", "qwen2_5", "qwen3_6"),
)
"""A template for each way of writing a call."""

UNESCAPED = frozenset({"lfm2_2_5", "lfm2_2_5_v2"})
"""Templates that write texts in quotes and escape none, so that not all can be read back."""

DROPS_CALLS = frozenset(
    {
        *("cohere", "cohere2", "deepseek_r1_distill", "gemma", "gemma3", "idefics3", "lfm2"),
        *("llama3", "llava_next", "phi3", "phi3_5", "qwen2_5_vl", "smolvlm"),
    }
)
"""Templates that leave a message's tool calls out; the data's check reports them."""


def template(name: str) -> str:
    """A template of the installed trl."""
    path = folder() / f"{name}.jinja"
    if not path.exists():
        pytest.skip(f"the installed trl has no template {name}")
    return path.read_text(encoding="utf-8")


def folder() -> Path:
    spec = importlib.util.find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "chat_templates"


def rendered(template: str, messages: list[dict[str, Any]]) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    marks = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    texts, _ = render_jinja_template([messages], chat_template=template, **marks)
    return str(texts[0])


def written(template: str, calls: Sequence[dict[str, Any]]) -> str:
    """An answer with these calls as the template writes it, without what is before it."""
    from jinja2.exceptions import TemplateError

    asked: list[dict[str, Any]] = [{"role": "user", "content": "Well?"}]

    def whole(calls: Sequence[dict[str, Any]]) -> str:
        functions = [{"type": "function", "id": "123456789", "function": call} for call in calls]
        answer = {"role": "assistant", "content": "", "tool_calls": functions}
        return rendered(template, [*asked, answer])

    try:
        text = whole(calls)
    except (TypeError, TemplateError):  # it wants JSON text
        text = whole([{**call, "arguments": json.dumps(call["arguments"])} for call in calls])
    before = rendered(template, asked)
    return text[next(i for i in range(len(text)) if text[: i + 1] != before[: i + 1]) :]


def read_back(name: str, text: str, made: list[dict[str, Any]]) -> None:
    assert (1.0, 1.0) == shares(expected_calls(wanted(made)), calls_in(text)), (name, text)
    other = [{**call, "arguments": {**call["arguments"], "extra": 1}} for call in made]
    assert (1.0, 0.0) == shares(expected_calls(wanted(other)), calls_in(text)), (name, text)


@pytest.mark.slow
def test_a_call_of_each_template() -> None:
    """What each installed template writes for a call is read, but for those that drop calls."""
    names = {path.stem for path in folder().glob("*.jinja")}
    # Those for training write what the others do, with marks around it.
    names -= {name for name in names if name.endswith("_training")} | DROPS_CALLS
    for name in sorted(names):
        read_back(name, written(template(name), [PROBE]), [PROBE])
    assert names.issuperset(FORMATS)


names = st.sampled_from(["f", "get_weather", "maps.find-all"])
plain = st.text("abc XY1.-é日", max_size=8)
texts = st.text("aé日 '\"{}[](),:=\\\n1", max_size=12)


def arguments(of: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    leaf = st.none() | st.booleans() | st.integers(-1000, 1000) | st.just(0.25) | of
    value = leaf | st.lists(leaf, max_size=3) | st.dictionaries(st.sampled_from("ab"), leaf)
    keys = st.sampled_from(["city", "n", "unit_of"])
    return st.dictionaries(keys, value, max_size=3)


def calls(of: st.SearchStrategy[str], most: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    call = st.fixed_dictionaries({"name": names, "arguments": arguments(of)})
    return st.lists(call, min_size=1, max_size=most)


def wanted(calls: list[dict[str, Any]]) -> Example:
    row = {"prompt": [], "completion": [{"role": "assistant", "tool_calls": calls}]}
    return Example("e", "c", row)


ONE_ONLY = frozenset({"gptoss", "llama3_1"})
"""Templates that write one call per message."""


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_written_call_is_read_back(name: str, data: st.DataObject) -> None:
    """What a template writes for calls is read as those calls, and as no others."""
    of, most = (plain if name in UNESCAPED else texts), (1 if name in ONE_ONLY else 3)
    made = data.draw(calls(of, most))
    read_back(name, written(template(name), made), made)


@pytest.mark.parametrize(
    "text",
    [
        '<|python_tag|>f.call(a="1", b="x")',
        "<\uff5ctool▁calls▁begin\uff5c><\uff5ctool▁call▁begin\uff5c>f<\uff5ctool▁sep\uff5c>"
        '{"a": 1, "b": "x"}<\uff5ctool▁call▁end\uff5c><\uff5ctool▁calls▁end\uff5c>',
        "<|channel|>commentary to=functions.f <|constrain|>json<|message|>"
        '{"a": 1, "b": "x"}<|call|>',
        "[f(a=1, b='x')]",
        "<|tool_call_start|>[f(a=1,b='x')]<|tool_call_end|>",
    ],
)
def test_calls_that_no_installed_template_writes(text: str) -> None:
    """Models write some calls in ways of which their template has no example."""
    asked = wanted([{"name": "f", "arguments": {"a": 1, "b": "x"}}])
    assert (1.0, 1.0) == shares(expected_calls(asked), calls_in(text))


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>I do not know</tool_call>",
        "to=functions.f<|message|>{",
        "<|tool_call>call:f{a:<tool_call|>",
        "<\uff5ctool▁call▁begin\uff5c>function<\uff5ctool▁sep\uff5c>f",
        "<|tool_call_start|>f<|tool_call_end|>",
        "[f, g]",
        '<atem:invoke name="f">',
    ],
)
def test_what_is_no_call(text: str) -> None:
    """Words in a call's tags, and calls that break off, are no calls."""
    assert [] == calls_in(text)


def test_a_text_that_ends_in_a_backslash() -> None:
    """Two backslashes are one of the text, which escapes no quote."""
    asked = wanted([{"name": "f", "arguments": {"path": "C:\\", "b": 'x "y"'}}])
    text = '<|tool_call_start|>[f(path="C:\\\\", b="x \\"y\\"")]<|tool_call_end|>'
    assert (1.0, 1.0) == shares(expected_calls(asked), calls_in(text)), text
