"""What a library raises is one error; a bug of our own is not hidden by it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jinja2
import pyarrow
import pytest
import torch
from safetensors import SafetensorError

from pytest_ftloop.core.errors import ConfigError, DataError, FtloopError, Location, TrainingError
from pytest_ftloop.core.records import Settings
from pytest_ftloop.train.boundary import boundary, library_of, mentioned

SETTINGS = Settings(
    lora={"r": 8, "use_dora": True},
    training={
        "optim": "galore_adamw",
        "learning_rate": 1e-3,
        "model_init_kwargs": {"attn_implementation": "flash_attention_2"},
    },
)


def locate(key: str) -> Location:
    return Location(key)


def library(name: str = "somelib") -> Any:
    """A function of a library that raises what it is given."""
    module = ModuleType(name)
    exec("def work(error):\n    raise error", vars(module))
    return module.work  # type: ignore[attr-defined]


def raised(error: Exception, work: Any = None, **options: Any) -> FtloopError:
    with (
        pytest.raises(FtloopError) as caught,
        boundary("building", SETTINGS, locate, **options),
    ):
        (work or library())(error)
    return caught.value


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TypeError("unexpected keyword 'x'"), "TypeError: unexpected keyword 'x'"),
        (AttributeError("'X' object has no attribute 'y'"), "AttributeError: 'X' object has no"),
        (KeyError("content"), "KeyError: 'content'"),
        (IndexError("index out of range in self"), "IndexError: index out of range in self"),
        (OverflowError("int too big to convert"), "OverflowError: int too big"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (AssertionError(""), "AssertionError"),
        (RuntimeError("\n\n  sizes must match\nmore"), "building: sizes must match"),
        (jinja2.TemplateError("System role not supported"), "TemplateError: System role"),
        (pyarrow.ArrowInvalid("cannot mix list and non-list"), "building: cannot mix"),
        (SafetensorError("header too large"), "SafetensorError: header too large"),
    ],
)
def test_any_error_of_a_library_is_one_line_and_a_cure(error: Exception, words: str) -> None:
    """The message has the stage and the words; the original is its cause."""
    told = raised(error)
    assert words in told.message
    assert "while building" in told.message
    assert 1 == len(told.message.splitlines())
    assert error is told.__cause__


@pytest.mark.parametrize(
    ("words", "key", "cure"),
    [
        ("FlashAttention2 is not installed", "flash", "attn_implementation: sdpa"),
        ("you need `pip install galore-torch`", "training", "pip install galore-torch"),
        (
            "Install it with `pip install git+https://github.com/someone/GaLore`",
            "training",
            "pip install git+https://github.com/someone/GaLore, or",
        ),
        ("`learning_rate` must be positive", "training.learning_rate", ""),
        ("use_dora is not supported for Embedding", "lora.use_dora", ""),
        ("something else", "training", ""),
    ],
)
def test_the_place_is_the_setting_that_the_words_mention(words: str, key: str, cure: str) -> None:
    """By its name or its value, also in nested settings; else it is the stage's section."""
    told = raised(ImportError(words))
    flash = "training.model_init_kwargs.attn_implementation"
    assert {"flash": flash}.get(key, key) == str(told.where)
    assert cure in told.cure


def test_numbers_recognise_no_setting() -> None:
    """A value that may mean anything (8) points at no setting."""
    assert None is mentioned("wanted a multiple of 8, found True", SETTINGS)


def test_errors_of_peft_point_at_lora() -> None:
    """Where the words mention no setting."""
    assert "lora" == str(raised(ValueError("no luck today"), library("peft.tuners")).where)


def test_our_errors_and_memory_pass() -> None:
    """An error that is told already, and one that is retried, are left as they are."""
    for error in (ConfigError("told"), DataError("told"), torch.OutOfMemoryError("short")):
        with pytest.raises(type(error)) as caught, boundary("building", SETTINGS, locate):
            library()(error)
        assert error is caught.value


def test_a_bug_of_our_own_keeps_its_traceback() -> None:
    """The innermost frame is ours, also below a library's (a callback)."""
    work = library("pytest_ftloop.train.recorder")
    with pytest.raises(KeyError), boundary("building", SETTINGS, locate):
        work(KeyError("ours"))
    callback = ModuleType("transformers.trainer")
    exec("def call(work, error):\n    work(error)", vars(callback))
    with pytest.raises(KeyError), boundary("building", SETTINGS, locate):
        callback.call(work, KeyError("ours"))
    with pytest.raises(KeyError) as caught:
        work(KeyError("ours"))
    assert "" == library_of(caught.value)


def test_the_stage_moves_on() -> None:
    """The message names the stage that was reached."""

    def two_stages() -> None:
        with boundary("training", SETTINGS, locate) as stage:
            stage.is_now("generating", "scoring")
            library()(ValueError("no luck today"))

    with pytest.raises(TrainingError, match="somelib, while generating: no luck today") as caught:
        two_stages()
    assert "scoring" == str(caught.value.where)
