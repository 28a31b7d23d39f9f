"""The embedded base model: the same weights each time, built once, whoever asks."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.recipe import RECIPE, recipe_id
from pytest_ftloop.train import tiny as module
from pytest_ftloop.train.tiny import build, build_tokenizer, tiny_folder
from tests.torture.kills import flipped

pytestmark = pytest.mark.usefixtures("quietly")

SHORT = replace(RECIPE, steps=3)


def test_two_builds_have_equal_weights(tmp_path: Path) -> None:
    """The same recipe gives the same weights, whatever the random state before."""
    torch.manual_seed(1)
    build(tmp_path / "one", Silent(), SHORT)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    build(tmp_path / "two", Silent(), SHORT)
    assert torch.equal(before, torch.get_rng_state())
    one, two = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("one", "two"))
    assert one == two


def test_tokenizer_gives_any_text_back() -> None:
    """Byte-level: no text is unknown; the pad token is not the end token."""
    tokenizer = build_tokenizer()
    text = "late again, grüße \U0001f355\n\tsentiment:"
    assert text == tokenizer.decode(tokenizer(text)["input_ids"])
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert RECIPE.vocabulary == len(tokenizer)


def test_embedded_model_is_about_a_million_parameters_and_speaks(tiny: Path) -> None:
    """The model loads as any folder does, and prefers English to noise."""
    model = AutoModelForCausalLM.from_pretrained(tiny)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert 0.8e6 < sum(p.numel() for p in model.parameters()) < 1.2e6

    def loss(text: str) -> float:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return float(model(ids, labels=ids).loss)

    assert loss("the driver was late and my food was cold") + 2 < loss("zq xv jj kwp q vvt zz")


def test_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted build is not taken for a model."""
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny_folder(Silent(), SHORT)
    assert [f"{recipe_id(SHORT)}.lock"] == [p.name for p in (tmp_path / "tiny").iterdir()]


def test_a_damaged_model_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit of its weights moves all losses: it is not trained on, but built as it was."""
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path))
    weights = tiny_folder(Silent(), SHORT) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(next(flipped(whole[::-1]))[::-1])
    assert whole != weights.read_bytes()
    assert weights == tiny_folder(Silent(), SHORT) / "model.safetensors"
    assert whole == weights.read_bytes()


def _ask(cache: str) -> float:
    import os

    os.environ["FTLOOP_CACHE"] = cache
    folder = tiny_folder(Silent(), SHORT)
    return (folder / "model.safetensors").stat().st_mtime


@pytest.mark.slow
def test_processes_that_ask_at_once_get_one_build(tmp_path: Path) -> None:
    """The first asks for the lock and builds; the others find it built."""
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        times = pool.map(_ask, [str(tmp_path)] * 3)
    assert 1 == len(set(times))
