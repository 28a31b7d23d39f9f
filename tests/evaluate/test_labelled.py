"""On a CPU the LM head projects labelled positions alone, and no figure differs for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from pytest_ftloop.evaluate.labelled import UNLABELLED, labelled_alone

pytestmark = pytest.mark.usefixtures("quietly")

VOCABULARY, WIDTH = 211, 32
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
MODELS: dict[str, dict[str, Any]] = {
    "cohere": {**SHAPE, "logit_scale": 0.25},
    "gemma2": {**SHAPE, "final_logit_softcapping": 1.0},
    "gpt2": {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": 2, "n_head": 2},
    "granite": {**SHAPE, "logits_scaling": 8.0},
    "mamba": {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": 2},
    "mixtral": {**SHAPE, "num_local_experts": 4, "output_router_logits": True},
    "phi": SHAPE,
}
"""Scaled and capped logits, tied weights, no attention, routers, and a bias of the LM head."""

FIGURES = ("log_probs", "entropy", "is_top1", "label_mask")


def made(name: str) -> Any:
    """A random model of an architecture with trl's head, in evaluation mode."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **MODELS[name])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    return model


def batch(*labelled: range, width: int = 13) -> dict[str, torch.Tensor]:
    """A row for each range of labelled positions, padded on the right after it."""
    chance = torch.Generator().manual_seed(1)
    ids = torch.randint(1, VOCABULARY, (len(labelled), width), generator=chance)
    labels, mask = torch.full_like(ids, UNLABELLED), torch.ones_like(ids)
    for row, positions in enumerate(labelled):
        labels[row, positions.start : positions.stop] = ids[row, positions.start : positions.stop]
        mask[row, positions.stop :] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


UNEVEN = (range(9, 13), range(5), range(7, 8), range(4, 11))
"""Labels at a row's end, at its start, a single one, and in the middle; 16 are predicted."""


def measured(model: Any, rows: dict[str, torch.Tensor], **how: Any) -> tuple[Any, int]:
    """What the fused head gives for a batch, and the operations that it took."""
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        out = model(**rows, fused_lm_head=True, **how)
    return out, counted.get_total_flops()


@pytest.mark.parametrize("name", MODELS)
def test_figures_are_those_of_all_positions(name: str) -> None:
    """Each token's figures, their shape and the loss are those of trl, with fewer operations."""
    model, rows = made(name), batch(*UNEVEN)
    whole, operations = measured(model, rows)
    with labelled_alone(model):
        alone, fewer = measured(model, rows)
    assert 2 * WIDTH * VOCABULARY * (4 * 12 - 16) == operations - fewer
    for figure in FIGURES:
        torch.testing.assert_close(alone[figure], whole[figure], atol=1e-6, rtol=0)
    torch.testing.assert_close(alone.loss, whole.loss, atol=1e-6, rtol=0)


def test_a_batch_without_labels() -> None:
    """Nothing is projected, and every figure is zero."""
    with labelled_alone(model := made("gpt2")):
        out, _ = measured(model, batch(range(0), range(0)))
    assert (2, 12) == out.log_probs.shape
    assert not any(out[figure].any() for figure in FIGURES)


def test_an_adapter_counts() -> None:
    """A PEFT model has the figures of its adapter, and those of its base without it."""
    lora = LoraConfig(target_modules="all-linear", init_lora_weights=False)
    model, rows = get_peft_model(made("phi"), lora).eval(), batch(*UNEVEN)
    whole, _ = measured(model, rows)
    with labelled_alone(model):
        alone, _ = measured(model, rows)
        with model.disable_adapter():
            of_base, _ = measured(model, rows)
    torch.testing.assert_close(alone.log_probs, whole.log_probs, atol=1e-6, rtol=0)
    assert not torch.allclose(alone.log_probs, of_base.log_probs, atol=1e-3)


def test_what_needs_no_figures_stays() -> None:
    """Logits of every position, the model's own loss and generation are as without it."""
    model, rows = made("gpt2"), batch(*UNEVEN)

    def found() -> list[torch.Tensor]:
        with torch.no_grad():
            out = model(**rows)
            generated = model.generate(rows["input_ids"][:, :4], max_new_tokens=3, do_sample=False)
        return [out.logits, out.loss, generated]

    before = found()
    with labelled_alone(model):
        assert all(torch.equal(one, other) for one, other in zip(before, found(), strict=True))


def test_nothing_of_it_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards the model is as before, also if its forward has failed."""
    model = made("gpt2")
    forward = model.forward
    with pytest.raises(IndexError), labelled_alone(model):
        measured(model, {**batch(range(2, 4)), "input_ids": torch.full((1, 13), VOCABULARY)})
    assert forward == model.forward
    assert not model.base_model._forward_hooks


def test_gradients_are_those_of_all_positions() -> None:
    """What an adapter would learn from a batch is the same, for each architecture's head."""
    for name in ("gemma2", "gpt2", "granite"):
        lora = LoraConfig(target_modules="all-linear", init_lora_weights=False)
        model, rows = get_peft_model(made(name), lora), batch(*UNEVEN)

        def gradients(model: Any = model, rows: Any = rows) -> list[torch.Tensor]:
            model.zero_grad()
            model(**rows, fused_lm_head=True).loss.backward()
            return [w.grad.clone() for w in model.parameters() if w.requires_grad]

        whole = gradients()
        with labelled_alone(model):
            torch.testing.assert_close(gradients(), whole, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_an_accelerator_is_left_to_trl(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another device trl's own forward is called: it knows what that device is good at."""
    model = made("gpt2")
    forward = model.forward
    monkeypatch.setattr(type(model), "device", torch.device(device))
    with labelled_alone(model):
        assert forward == model.forward
