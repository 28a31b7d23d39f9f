"""A loop made from Python objects."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str, str | bytes], Path]
from tests.config.config_cases import FULL, python


def test_python_says_the_same(read: Any) -> None:
    """The sections of a loop file can be given as dicts, and mean the same."""
    written = read(FULL)
    said = from_python(
        folder=written.folder,
        source=written.source,
        name="feelings",
        model="gpt2",
        train=Path("data/train.jsonl"),
        eval={"hub": "owner/name", "split": "test", "revision": "abc"},
        data={"id": "key", "tags": ["label", "length"], "keep": "answers", "train_sample": 10},
        lora=written.settings.lora,
        training=written.settings.training,
        scoring={"scorer": "loss", "threshold": 2},
        gates={"eval_loss": "<= 3.4", "pass_rate[negation]": ">= 80%"},
        loop={"iterations": 6, "patience": 3, "metric": "pass_rate", "time_budget_s": 60},
    )
    gates = tuple(dataclasses.replace(gate, line=None) for gate in written.gates)
    assert dataclasses.replace(written, lines={}, gates=gates) == said


def test_live_objects_are_kept() -> None:
    """A loaded model, its tokenizer and rows at hand are passed on as they are."""
    model, tokenizer, rows = object(), object(), [{"text": "a"}]
    config = python(model=model, tokenizer=tokenizer, train=rows, eval=None, data=SPLIT)
    assert (model, tokenizer, rows) == (config.model, config.tokenizer, config.train)
    assert (None, 0.5) == (config.eval, config.split.fraction)


SPLIT = {"split": {"fraction": 0.5}}


def test_datasets_objects_are_kept() -> None:
    """A `datasets.Dataset` is rows; a DatasetDict must be narrowed to one split."""
    datasets = pytest.importorskip("datasets")  # the light install has none

    rows = datasets.Dataset.from_list([{"text": "a"}])
    assert rows is python(train=rows).train
    with pytest.raises(ConfigError) as caught:
        python(train=datasets.DatasetDict({"train": rows, "test": rows}))
    assert (
        "test_x.py: train: wanted one split, found a DatasetDict of train, test\n"
        "  Pass one of them: train=data['train']."
    ) == str(caught.value)


def test_scorer_by_name() -> None:
    """The scorer alone can be given as its name."""
    assert "contains" == python(scoring="contains").scoring.scorer


def test_sets_become_lists() -> None:
    """A set of modules is stated in one order, so that the same settings have one fingerprint."""
    config = python(lora={"target_modules": {"v", "q", "k"}, "rank_pattern": {"q": 1}})
    assert {"target_modules": ["k", "q", "v"], "rank_pattern": {"q": 1}} == config.settings.lora


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": None}, "test_x.py: data.train is missing"),
        ({"eval": None}, "test_x.py: no eval set: add eval"),
        ({"data": {"tgas": "x"}}, "test_x.py: unknown key 'tgas' in data\n  Did you mean 'tags'?"),
        ({"loop": {"iterations": 0}}, "test_x.py: loop.iterations: wanted 1 or more, found 0"),
        ({"gates": {"eval_loss": 3}}, "test_x.py: gate eval_loss: wanted <= or < and a number"),
        ({"scoring": "exakt"}, "test_x.py: unknown scorer 'exakt'"),
        ({"name": "a/b"}, "test_x.py: name 'a/b' is not a valid folder name on every system"),
        ({"lora": 8}, "test_x.py: lora: wanted a LoraConfig or its arguments as a dict, found int"),
        ({"training": []}, "test_x.py: training: wanted a SFTConfig or its arguments as a dict, f"),
        (
            {"lora": {"r": object}},
            "test_x.py: lora.r: wanted a value that the log can store, found ",
        ),
    ],
)
def test_mistake_in_python(given: dict[str, Any], message: str) -> None:
    """A mistake in Python is told like one in a file; the place is the test's file."""
    with pytest.raises(ConfigError) as caught:
        python(**given)
    assert message == str(caught.value)[: len(message)]


@pytest.mark.slow
def test_config_objects_say_only_what_was_stated() -> None:
    """Of a LoraConfig and an SFTConfig come the fields that differ from fresh ones."""
    import torch
    from peft import LoraConfig
    from trl import SFTConfig

    config = python(
        lora=LoraConfig(r=4, target_modules=["v", "q"], task_type="CAUSAL_LM"),
        training=SFTConfig(
            output_dir="anywhere",
            use_cpu=True,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            model_init_kwargs={"dtype": torch.bfloat16},
        ),
    )
    assert {"r": 4, "target_modules": ["q", "v"]} == config.settings.lora
    assert {
        "use_cpu": True,
        "bf16": True,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "model_init_kwargs": {"dtype": "bfloat16"},
    } == config.settings.training


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        ({"use_cpu": True}, {"use_cpu": True, "bf16": True}),
        ({"use_cpu": True, "bf16": False}, {"use_cpu": True, "bf16": False}),
        ({"use_cpu": True, "fp16": True}, {"use_cpu": True, "fp16": True}),
        ({"bf16": False}, {"bf16": False}),
    ],
)
def test_stated_precision_is_kept(stated: dict[str, bool], kept: dict[str, bool]) -> None:
    """Device and precision that the user chose are not chosen again for the machine."""
    from trl import SFTConfig

    assert kept == python(training=SFTConfig(**stated)).settings.training


@pytest.mark.slow
def test_other_config_objects_are_refused() -> None:
    """TrainingArguments have other defaults than SFTConfig: what they state can't be told."""
    from transformers import TrainingArguments

    with pytest.raises(ConfigError, match="found TrainingArguments"):
        python(training=TrainingArguments(use_cpu=True))


@pytest.mark.parametrize(
    ("stated", "found"), [(".inf", "inf"), (".nan", "nan"), ("'nan'", "nan"), ("'inf'", "inf")]
)
@pytest.mark.parametrize("name", ["learning_rate", "num_train_epochs"])
def test_settings_that_are_not_finite(
    write: Callable[[str, str], Path], name: str, stated: str, found: str
) -> None:
    """An infinite or NaN setting is a mistake with its line, quoted too: trl takes both."""
    path = write("s.ftloop.yaml", f"data: {{train: t, eval: e}}\ntraining:\n  {name}: {stated}\n")
    with pytest.raises(ConfigError, match=f"{name}: wanted a finite number, found {found}") as e:
        read_loop_file(path)
    assert 3 == e.value.where.line


def test_iterators_are_read_once(tmp_path: Path) -> None:
    """A generator of rows serves every run of the loop."""
    made = from_python(
        folder=tmp_path, source="t.py", name="s", train=({"text": t} for t in "ab"), eval=iter([])
    )
    assert [{"text": "a"}, {"text": "b"}] == made.train
