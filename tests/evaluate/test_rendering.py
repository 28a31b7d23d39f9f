"""The renderer gives what trl trains on, for any chat template of trl's own folder."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trl
from trl import SFTTrainer

from pytest_ftloop.core.errors import DataError, Location
from pytest_ftloop.core.records import Example
from pytest_ftloop.data.forms import texts
from pytest_ftloop.evaluate.rendering import PROBE, Renderer
from pytest_ftloop.train.rows import examples_dataset

pytestmark = pytest.mark.usefixtures("quietly")

FOLDER = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
MARKERS = [
    *("<|im_end|>", "<|im_start|>", "<|END_OF_TURN_TOKEN|>", "<|END_RESPONSE|>", "<turn|>"),
    *("<|turn>", "<end_of_turn>", "<start_of_turn>", "<|return|>", "<|call|>", "<|start|>"),
    *("<|end|>", "<|channel|>", "<|message|>", "<end_of_utterance>", "<|eot_id|>", "<|eot|>"),
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
]
"""Special tokens of the models that the templates belong to."""

PARTS_ONLY = {"idefics3", "llava_next", "smolvlm"}
"""Templates that render no plain text."""

SPLIT = {"deepseek_r1_distill", "deepseekv3"} | {
    f"nemotron_3_{name}" for name in ("5_lightning", "nano", "super", "ultra")
}
"""Templates whose generation prompt is not what the trained row begins with."""

USER = {"role": "user", "content": "Where am I?"}
ANSWER = {"role": "assistant", "content": "in Rome"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"type": "function", "function": {"name": "find", "arguments": {"of": "me", "n": 3}}}
    ],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find",
            "description": "finds",
            "parameters": {"type": "object", "properties": {"of": {"type": "string"}}},
        },
    }
]


def of(template: str) -> str:
    return template.removesuffix("_training")


@pytest.fixture(scope="module")
def tokenizer(base: Any) -> Any:
    made = copy.deepcopy(base.tokenizer)
    made.add_special_tokens({"additional_special_tokens": MARKERS})
    return made


def renderer_of(tokenizer: Any, template: str) -> Renderer:
    with_template = copy.copy(tokenizer)
    with_template.chat_template = (FOLDER / f"{template}.jinja").read_text(encoding="utf-8")
    return Renderer(with_template)


def example_of(row: dict[str, Any]) -> Example:
    prompt, expected = texts(row)
    return Example("a", "", row, prompt=prompt, expected=expected, where=Location("t.jsonl", 7))


def trained(renderer: Renderer, *examples: Example) -> list[tuple[list[int], list[int]]]:
    """The tokens and labels that trl makes of each row."""
    stub = SimpleNamespace(
        _tokenizer=renderer.tokenizer, chat_template=None, completion_only_loss=True
    )
    args = SimpleNamespace(
        dataset_num_proc=None,
        dataset_text_field="text",
        assistant_only_loss=False,
        max_length=None,
        shuffle_dataset=False,
    )
    prepared = SFTTrainer._prepare_dataset(
        stub,
        examples_dataset(examples),
        renderer.tokenizer,
        args,
        packing=False,
        formatting_func=None,
        dataset_name="train",
    )
    return [(row["input_ids"], row["labels"]) for row in prepared]


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(name, marks=pytest.mark.slow) if name.endswith("_training") else name
        for name in TEMPLATES
    ],
)
def test_prompt_and_answer_are_the_trained_text(template: str, tokenizer: Any) -> None:
    """The prompt and the rendered answer are the row that trl trains on, and its labels."""
    renderer = renderer_of(tokenizer, template)
    user, answer = USER, ANSWER
    if of(template) in PARTS_ONLY:
        user, answer = (
            {**m, "content": [{"type": "text", "text": m["content"]}]} for m in (user, answer)
        )
    pair = {"prompt": [user], "completion": [answer]}
    rows = pair, {**pair, "tools": json.dumps(TOOLS)}, {**pair, "tools": TOOLS}
    examples = [example_of(row) for row in rows]
    for example, (ids, labels) in zip(examples, trained(renderer, *examples), strict=True):
        answered, asked = renderer.answer(example), renderer.prompt(example)
        before = len(ids) - len(answered)
        assert answered == ids[before:] == [label for label in labels if label != -100]
        assert asked[:before] == ids[:before]
        assert (of(template) in SPLIT) == (len(asked) > before)
        assert "in Rome" == renderer.expected(example)
        assert "in Rome" == renderer.reading(example).text(answered)
        assert "" == renderer.missing(example)


@pytest.mark.parametrize("template", ["qwen3", "gemma3", "llama3_1", "qwen3_5_think"])
def test_the_last_turn_of_a_conversation(template: str, tokenizer: Any) -> None:
    """Of messages the last is the answer; all before it is the prompt, as trl renders it."""
    renderer = renderer_of(tokenizer, template)
    example = example_of({"messages": [USER, {**ANSWER, "content": "Hm?"}, USER, ANSWER]})
    ((ids, _),) = trained(renderer, example)
    assert renderer.prompt(example) + renderer.answer(example) == ids
    assert "in Rome" == renderer.expected(example)


@pytest.mark.parametrize("template", ["qwen3", "glm4moe", "gptoss", "qwen3_6"])
def test_the_templates_own_words_do_not_count(template: str, tokenizer: Any) -> None:
    """An empty think block or a channel before each answer is no part of an output either."""
    renderer = renderer_of(tokenizer, template)
    example = example_of({"prompt": [USER], "completion": [ANSWER]})
    reading = renderer.reading(example)
    ids = renderer.tokenizer(f"{reading.marked}in Oslo<|im_end|>")["input_ids"]
    assert reading.marked.strip()
    assert "in Oslo" == reading.text(ids)
    bare = renderer.tokenizer("in Oslo<|im_end|>")["input_ids"]
    assert "in Oslo" == reading.text(bare)


def test_thoughts_of_the_model_count(tokenizer: Any) -> None:
    """A think block that is not empty stays: with it the output is another answer."""
    renderer = renderer_of(tokenizer, "qwen3")
    example = example_of({"prompt": [USER], "completion": [ANSWER]})
    ids = renderer.tokenizer("<think>\nhm\n</think>\n\nin Rome")["input_ids"]
    assert "<think>\nhm\n</think>\n\nin Rome" == renderer.reading(example).text(ids)


def test_arguments_of_the_row_reach_the_template(tokenizer: Any) -> None:
    """`chat_template_kwargs` shape the prompt and the answer as in training."""
    renderer = renderer_of(tokenizer, "qwen3")
    row = {
        "prompt": [USER],
        "completion": [ANSWER],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    example = example_of(row)
    ((ids, labels),) = trained(renderer, example)
    assert renderer.prompt(example) + renderer.answer(example) == ids
    assert renderer.answer(example) == [label for label in labels if label != -100]
    assert renderer.tokenizer.decode(renderer.prompt(example)).endswith("</think>\n\n")
    assert "" == renderer.reading(example).marked


def test_an_answer_that_continues_the_prompts_last_turn(tokenizer: Any) -> None:
    """After an assistant's turn the model is asked to continue it, if the trained row does."""
    joining = copy.copy(tokenizer)
    joining.chat_template = (
        "{% for m in messages %}{% if not loop.index0 or m.role != messages[loop.index0 - 1].role "
        "%}{{ m.role }}: {% endif %}{{ m.content }}{% if loop.last or m.role != "
        "messages[loop.index0 + 1].role %}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    renderer = Renderer(joining)
    begun = {"role": "assistant", "content": "I am"}
    example = example_of({"prompt": [USER, begun], "completion": [{**ANSWER, "content": " here"}]})
    ((ids, _),) = trained(renderer, example)
    assert "user: Where am I?<|im_end|>assistant: I am here<|im_end|>" == joining.decode(ids)
    assert "user: Where am I?<|im_end|>assistant: I am" == joining.decode(renderer.prompt(example))
    assert "here" == renderer.expected(example)


@pytest.mark.parametrize(
    ("template", "answer", "missing"),
    [
        ("qwen3", {**ANSWER, "content": [{"type": "text", "text": "in Rome"}]}, "text"),
        ("idefics3", ANSWER, "text"),
        ("gemma3", CALL, "tool calls"),
        ("llama3", {**CALL, "content": "Calling."}, "tool calls"),
        ("qwen3", CALL, ""),
        ("qwen3", {**ANSWER, "content": PROBE}, ""),
        ("qwen3", {"role": "assistant", "tool_calls": CALL["tool_calls"]}, ""),
        ("gemma3", {**ANSWER, "content": [{"type": "text", "text": "in Rome"}]}, ""),
    ],
)
def test_an_answer_that_the_template_leaves_out(
    template: str, answer: dict[str, Any], missing: str, tokenizer: Any
) -> None:
    """What makes no difference to the rendered row is missing in it."""
    content = [{"type": "text", "text": "Where?"}] if template == "idefics3" else "Where?"
    row = {"prompt": [{**USER, "content": content}], "completion": [answer]}
    assert missing == renderer_of(tokenizer, template).missing(example_of(row))


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        ("gemma", [{"role": "system", "content": "s"}, USER, ANSWER], "System role not supported"),
        ("gemma", [USER, USER, ANSWER], "Conversation roles must alternate"),
        ("deepseekv3", [USER, CALL], "can only concatenate str"),
    ],
)
def test_a_row_that_the_template_refuses(
    template: str, messages: list[Any], reason: str, tokenizer: Any
) -> None:
    """Whatever a template raises is an error in one line, with the row."""
    renderer = renderer_of(tokenizer, template)
    with pytest.raises(DataError) as caught:
        renderer.answer(example_of({"messages": messages}))
    assert reason in caught.value.message
    assert "\n" not in caught.value.message
    assert "t.jsonl:7" == str(caught.value.where)


@pytest.mark.parametrize(
    ("content", "cure"),
    [
        (None, 'Write the content that is null as "", or set training.chat_template_path'),
        ([], "Change its messages, or set training.chat_template_path"),
    ],
)
def test_a_content_that_is_null_is_named_in_the_cure(
    content: Any, cure: str, tokenizer: Any
) -> None:
    """transformers leaves such a content out, so a template that reads it has none at all."""
    renderer = Renderer(tokenizer, "{% for m in messages %}{{ m['content'] + 'x' }}{% endfor %}")
    row = {"messages": [USER, {**CALL, "content": content}]}
    with pytest.raises(DataError) as caught:
        renderer.answer(example_of(row))
    assert caught.value.cure.startswith(cure)
