"""The untrained base and the guards, measured in the run that trains: with a real tiny model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.metrics import pass_rate, token_mean_loss
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.evaluate.scorers import load_scorer
from pytest_ftloop.train.base import Base
from pytest_ftloop.train.evaluating import measure_base
from pytest_ftloop.train.lora import run_lora
from pytest_ftloop.train.task import Guard
from tests.small_base import data_set, rows, settings

pytestmark = pytest.mark.usefixtures("quietly")

NEW_TOKENS = 6


def generated(base: Base, prompt: str) -> str:
    """What a plain script gets from the untrained base."""
    ids = base.tokenizer(prompt, return_tensors="pt")["input_ids"]
    out = base.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=base.tokenizer.eos_token_id,
        eos_token_id=base.tokenizer.eos_token_id,
    )
    text: str = base.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return text


def half_known(base: Base) -> list[dict[str, Any]]:
    """Rows of which every other one expects what the base says."""
    made = rows(20, 2)
    for row in made[::2]:
        row["completion"] = " " + (generated(base, row["prompt"]).strip() or "nothing")
    return made


def guards() -> tuple[Guard, ...]:
    texts = [{"id": f"g{n}", "text": f"It was a dark and stormy night, number {n}."} for n in "abc"]
    choice = Scoring("choice")
    return (
        Guard("text", data_set(texts, "guard text")),
        Guard("prompts", data_set(rows(4, 3), "guard prompts"), Scoring(), load_scorer(Scoring())),
        Guard("choices", data_set(rows(6, 4), "guard choices"), choice),
    )


def test_base_passes_what_a_plain_script_passes(base: Base, task: Any) -> None:
    """Outputs and pass rate of the base are those of a plain `generate` on the same rows."""
    made = half_known(base)
    measured = task(Scoring(max_new_tokens=NEW_TOKENS), eval=data_set(made, "eval"))
    results = measure_base(base, measured, settings(), Silent()).results.examples
    plain = {row["id"]: generated(base, row["prompt"]).strip() for row in made}
    assert plain == {row.id: row.output.strip() for row in results}
    passed = [plain[row["id"]] == row["completion"].strip() for row in made]
    assert 0 < sum(passed) < len(passed)
    assert sum(passed) / len(passed) == pass_rate(results)


def test_measuring_base_and_guards_changes_no_loss(base: Base, task: Any) -> None:
    """Training is the same to the bit with base and guards measured and without."""
    stated = settings(max_steps=4)
    with_all = run_lora(base, replace(task(), guards=guards()), stated, Silent())
    without = run_lora(base, task(), stated, Silent(), base_eval_loss=5.0)
    assert without.training.steps == with_all.training.steps
    assert without.training.evals == with_all.training.evals
    assert without.evaluation.examples == with_all.evaluation.examples
    assert without.evaluation.base is None
    assert with_all.evaluation.base is not None


def test_guards_are_measured_for_base_and_run(base: Base, task: Any) -> None:
    """Texts have a loss alone; prompts pass or fail by their scoring; a run at rate 0 is the base.

    The base measured by itself gives the same.
    """
    frozen, measured = settings(max_steps=1, learning_rate=0.0), replace(task(), guards=guards())
    run = run_lora(base, measured, frozen, Silent())
    before, after = run.evaluation.base, run.evaluation.guards
    assert before is not None
    assert {"text", "prompts", "choices"} == set(before.guards) == set(after)
    for name, results in before.guards.items():
        again = after[name]
        assert [row.id for row in results] == [row.id for row in again]
        assert token_mean_loss(results) == pytest.approx(token_mean_loss(again), abs=1e-6)
        assert {name == "text"} == {row.passed is None for row in results}
    alone = measure_base(base, measured, frozen, Silent()).results
    assert alone.examples == before.examples
    assert alone.guards == before.guards


def test_rows_of_a_guard_are_those_of_a_plain_forward_pass(base: Base, task: Any) -> None:
    """The loss of a text is the cross entropy over all its tokens, the end included."""
    measured = replace(task(), guards=guards()[:1])
    results = measure_base(base, measured, settings(), Silent()).results.guards["text"]
    for example, result in zip(measured.guards[0].rows.examples, results, strict=True):
        ids = [*base.tokenizer(example.row["text"])["input_ids"], base.tokenizer.eos_token_id]
        with torch.no_grad():
            logits = base.model(torch.tensor([ids])).logits[0, :-1]
        wanted = torch.tensor(ids[1:])
        loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
        assert len(wanted) == result.tokens
        assert loss == pytest.approx(result.loss, abs=1e-3)
