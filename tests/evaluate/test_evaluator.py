"""Per-example figures: exact whatever the batch, and what a plain forward pass says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import DataError
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.train.base import Base
from pytest_ftloop.train.lora import run_lora
from tests.small_base import LORA, TRAINING, data_set, rows, settings

pytestmark = pytest.mark.usefixtures("quietly")


def test_eval_loss_is_the_same_at_every_batch_size(base: Base, task: Any) -> None:
    """The token-mean loss, and each example's own, agree to 1e-6 for batches of 1 to 37."""
    varied = [{**r, "prompt": "again " * (i % 17) + r["prompt"]} for i, r in enumerate(rows(37, 5))]
    uneven = task(eval=data_set(varied, "eval"))
    by_size = {
        size: run_lora(
            base, uneven, settings(max_steps=2, per_device_eval_batch_size=size), Silent()
        ).evaluation.examples
        for size in (1, 2, 3, 8, 16, 37)
    }
    mean = token_mean_loss(by_size[1])
    for examples in by_size.values():
        assert mean == pytest.approx(token_mean_loss(examples), abs=1e-6)
        assert [r.loss for r in by_size[1]] == pytest.approx([r.loss for r in examples], abs=1e-5)
        assert [r.output for r in by_size[1]] == [r.output for r in examples]


def test_figures_are_those_of_a_plain_forward_pass(base: Base, task: Any) -> None:
    """The untrained base's figures equal a cross entropy computed by hand, example by example."""
    frozen = settings(learning_rate=0.0, max_steps=1)
    run = run_lora(base, task(), frozen, Silent())
    for example, result in zip(task().eval.examples, run.evaluation.examples, strict=True):
        prompt = base.tokenizer(example.row["prompt"])["input_ids"]
        whole = base.tokenizer(example.row["prompt"] + example.row["completion"])["input_ids"]
        whole = [*whole, base.tokenizer.eos_token_id]
        with torch.no_grad():
            logits = base.model(torch.tensor([whole])).logits[0, len(prompt) - 1 : -1]
        wanted = torch.tensor(whole[len(prompt) :])
        loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
        assert len(wanted) == result.tokens
        assert int((logits.argmax(-1) == wanted).sum()) == result.correct
        assert loss == pytest.approx(result.loss, abs=1e-4)
    assert token_mean_loss(run.evaluation.examples) == pytest.approx(
        run.evaluation.base_eval_loss, abs=1e-6
    )


def test_outputs_are_those_of_generating_one_by_one(base: Base, task: Any) -> None:
    """Batched greedy generation says what unbatched generation says."""
    run = run_lora(base, task(), settings(learning_rate=0.0, max_steps=1), Silent())
    for example, result in zip(task().eval.examples, run.evaluation.examples, strict=True):
        ids = base.tokenizer(example.row["prompt"], return_tensors="pt")
        out = base.model.generate(**ids, do_sample=False, max_new_tokens=8, pad_token_id=1)
        text = base.tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text.strip().startswith(result.output[:10])


@pytest.mark.parametrize(
    "form",
    ["messages", *(pytest.param(f, marks=pytest.mark.slow) for f in ("conversational", "text"))],
)
def test_all_forms_of_trl_train_and_evaluate(base: Base, task: Any, form: str) -> None:
    """Messages, conversational prompt/completion and plain text work as prompt/completion does."""

    def shaped(row: dict[str, Any]) -> dict[str, Any]:
        user = {"role": "user", "content": row["prompt"]}
        assistant = {"role": "assistant", "content": row["completion"].strip()}
        return {
            "messages": {"id": row["id"], "messages": [user, assistant]},
            "conversational": {"id": row["id"], "prompt": [user], "completion": [assistant]},
            "text": {"id": row["id"], "text": row["prompt"] + row["completion"]},
        }[form]

    train = data_set([shaped(r) for r in rows(48, 1)], "train")
    eval_ = data_set([shaped(r) for r in rows(20, 2)], "eval")
    scoring = Scoring("loss", threshold=0.5) if form == "text" else Scoring("contains")
    shaped_task = task(scoring, train=train, eval=eval_, train_sample=train.examples[:8])
    run = run_lora(base, shaped_task, settings(num_train_epochs=12), Silent())
    assert 20 == len(run.evaluation.examples)
    assert token_mean_loss(run.evaluation.examples) < run.evaluation.base_eval_loss
    if form != "text":
        assert {r.expected for r in run.evaluation.examples} <= {"money", "delivery"}
        assert sum(bool(r.passed) for r in run.evaluation.examples) > 5


def test_prompt_longer_than_the_model_takes_is_an_error(base: Base, task: Any) -> None:
    """A row longer than the model's positions is an error with the cure, not an index error."""
    long = [{**rows(1, 6)[0], "prompt": "again " * 300 + "\ntopic:"}]
    overfull = task(eval=data_set([*rows(4, 2), *long], "eval"))
    with pytest.raises(DataError, match="tokens, but the model takes at most 256"):
        run_lora(base, overfull, settings(max_steps=1, max_length=None), Silent())


def test_evaluation_survives_a_shortage_of_memory(
    base: Base, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch too large to evaluate is halved; the figures are the same."""
    from transformers import GPT2Model

    small = settings(max_steps=1, per_device_train_batch_size=2)
    whole = run_lora(base, task(), small, Silent())
    real = GPT2Model.forward

    def short(self: Any, input_ids: Any = None, **kwargs: Any) -> Any:
        if not self.training and input_ids is not None and len(input_ids) > 2:
            raise torch.OutOfMemoryError("planted")
        return real(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(GPT2Model, "forward", short)
    halved = run_lora(base, task(), small, Silent())
    for one, other in zip(whole.evaluation.examples, halved.evaluation.examples, strict=True):
        assert one.loss == pytest.approx(other.loss, abs=1e-5)
        assert (one.tokens, one.output) == (other.tokens, other.output)


def test_train_loss_is_measured_in_eval_mode(base: Base, task: Any) -> None:
    """The train loss of a record is that of the kept weights without dropout."""
    same = task().train
    on_itself = task(eval=same, train_sample=same.examples)
    run = run_lora(base, on_itself, settings(), Silent())
    assert token_mean_loss(run.evaluation.examples) == pytest.approx(
        token_mean_loss(run.evaluation.train_examples), abs=1e-6
    )


def test_settings_of_these_tests_have_dropout() -> None:
    """Else the tests of random states and eval mode would show nothing."""
    assert LORA["lora_dropout"] > 0
    assert TRAINING["learning_rate"] > 0
