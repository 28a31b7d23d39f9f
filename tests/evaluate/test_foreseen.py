"""Expected answers that a forward pass shows to be the output are not generated."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.evaluate import evaluator as evaluating
from pytest_ftloop.evaluate.decoding import Decoding
from pytest_ftloop.evaluate.evaluator import Evaluator
from pytest_ftloop.evaluate.foreseen import is_plain
from pytest_ftloop.train.base import Base
from pytest_ftloop.train.lora import run_lora
from tests.small_base import data_set, rows, settings

pytestmark = pytest.mark.usefixtures("quietly")


def shaped(row: dict[str, Any], form: str) -> dict[str, Any]:
    """The row in one of the forms that have a prompt."""
    if form == "text":
        return row
    answer = {"role": "assistant", "content": row["completion"].strip()}
    asked = {"role": "user", "content": row["prompt"]}
    return {"id": row["id"], "prompt": [asked], "completion": [answer]}


@pytest.mark.parametrize(
    ("form", "epochs"), [("text", 6), pytest.param("messages", 14, marks=pytest.mark.slow)]
)
def test_outputs_are_the_same(
    base: Base, task: Any, monkeypatch: pytest.MonkeyPatch, form: str, epochs: int
) -> None:
    """Each output is the generated one, and those that equal the answer are not generated."""
    train, eval_ = (
        data_set([shaped(row, form) for row in rows(count, seed)], role)
        for count, seed, role in ((48, 1, "train"), (20, 2, "eval"))
    )
    shaped_task = task(Scoring("exact"), train=train, eval=eval_, train_sample=train.examples[:8])
    learned = settings(num_train_epochs=epochs, learning_rate=1e-2)
    generated: list[int] = []
    generate = Evaluator.generate_all

    def watched(self: Evaluator, prompts: Any, *how: Any) -> Any:
        generated.append(len(prompts))
        return generate(self, prompts, *how)

    monkeypatch.setattr(Evaluator, "generate_all", watched)
    foreseen = run_lora(base, shaped_task, learned, Silent(), base_eval_loss=5.0)
    (_, *counts) = generated  # the first is the rehearsal
    passed = sum(bool(r.passed) for r in foreseen.evaluation.examples)
    assert passed > 5
    assert 20 - passed <= counts[-1] < 20
    monkeypatch.setattr(evaluating, "is_plain", lambda *_: False)
    whole = run_lora(base, shaped_task, learned, Silent(), base_eval_loss=5.0)
    assert 20 == generated[-1]
    assert whole.evaluation.examples == foreseen.evaluation.examples


@pytest.mark.parametrize("stated", [{"repetition_penalty": 1.2}, {"suppress_tokens": [5]}])
def test_what_changes_the_likeliest_token(base: Base, stated: dict[str, Any]) -> None:
    """With a penalty of the model's own or of the loop file, and in samples, all is generated."""
    greedy = Decoding()
    assert is_plain(base.model, greedy)
    assert not is_plain(base.model, Decoding(stated))
    assert not is_plain(base.model, Decoding(shaping={}))
    for name, value in stated.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(base.model.generation_config, name, value)
            assert not is_plain(base.model, greedy)
