"""The section tokenizer: its tokens, its mistakes, and what it does to the fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.loop.inputs import Inputs, model_facts

ROWS = [{"prompt": "a", "completion": " b"}, {"prompt": "c", "completion": " d"}]


def loop(folder: Path = Path(), tokenizer: Any = None, **more: Any) -> Any:
    return from_python(
        folder=folder, source="test", name="x", train=ROWS, eval=ROWS, tokenizer=tokenizer, **more
    )


def fingerprint(config: Any) -> str:
    return Inputs.of(config, None).fingerprint(config, config.settings)


def test_tokens_by_list_and_by_role() -> None:
    """A list is transformers' extra_special_tokens; roles are passed on."""
    listed = loop(tokenizer={"add_special_tokens": ["<|a|>"]}).tokenizer
    assert {"extra_special_tokens": ["<|a|>"]} == listed.tokens
    by_role = {"pad_token": "<|pad|>", "extra_special_tokens": ["<|a|>"]}
    assert by_role == loop(tokenizer={"add_special_tokens": by_role}).tokenizer.tokens
    assert {} == loop(tokenizer={"name": "gpt2"}).tokenizer.tokens


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"add_special_tokens": {"padd_token": "x"}}, "add_special_tokens.padd_token: wanted one"),
        ({"add_special_tokens": {"pad_token": ["x"]}}, "pad_token: wanted a token, found"),
        ({"add_special_tokens": {"extra_special_tokens": "x"}}, "wanted a list of tokens"),
        ({"add_special_tokens": ["a", ""]}, "wanted a list of tokens"),
        ({"add_special_tokens": "x"}, "wanted a list of tokens, or tokens by role"),
        ({"add_tokens": ["x"]}, "Did you mean 'add_special_tokens'?"),
        ({"name": ""}, "tokenizer.name"),
    ],
)
def test_mistakes(stated: Any, words: str) -> None:
    """Each names its key and what was wanted."""
    with pytest.raises(ConfigError) as caught:
        loop(tokenizer=stated)
    assert words in str(caught.value)


def test_live_objects() -> None:
    """Keys are for a named model, a live tokenizer for a live one."""
    with pytest.raises(ConfigError, match="found tokenizer keys with a loaded model"):
        loop(tokenizer={"name": "x"}, model=object())
    with pytest.raises(ConfigError, match="found a tokenizer with the model 'tiny'"):
        loop(tokenizer=object())


def test_fingerprint(tmp_path: Path) -> None:
    """Tokens, the other tokenizer's files and a template's content count, if they are stated."""
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    training = {"learning_rate": 1e-3, "chat_template_path": "chat.jinja"}
    plain = loop(tmp_path, training={"learning_rate": 1e-3})
    assert {} == Inputs.of(plain, None).tokenizer == model_facts(plain, Inputs.of(plain, None))
    seen = [
        fingerprint(plain),
        fingerprint(loop(tmp_path, {"add_special_tokens": ["a"]}, training=training)),
        fingerprint(loop(tmp_path, {"add_special_tokens": ["b"]}, training=training)),
        fingerprint(loop(tmp_path, {"name": "gpt2"}, training=training)),
        fingerprint(loop(tmp_path, training=training)),
    ]
    template.write_text("{{ messages }}.")
    seen.append(fingerprint(loop(tmp_path, training=training)))
    assert len(seen) == len(set(seen))
