"""Losses that a healthy run can't have, in the loop and in the logs of several trainers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from pytest_ftloop.core.records import ExampleResult
from pytest_ftloop.diagnose import Evidence
from pytest_ftloop.diagnose.any_trainer.trainer_state import findings_of, read_state
from pytest_ftloop.diagnose.impossible import impossible_loss, zero_loss
from tests.diagnose.fakes_curves import evidence, kinds
from tests.diagnose.trainer_state_cases import Put, falling, run_of

GPT2 = {"architectures": ["GPT2LMHeadModel"], "vocab_size": 50_257}
STUCK = [9.0, 8.1, 7.9, 7.8, 7.7, 7.65, 7.6, 7.62, 7.58, 7.6, 7.57, 7.55]
LORA = {"task_type": "CAUSAL_LM", "r": 8}


def of_state(
    put: Put,
    losses: list[float],
    evals: dict[str, list[float]] | None = None,
    config: dict[str, Any] | None = None,
    adapter: dict[str, Any] | None = None,
    **more: Any,
) -> list[str]:
    """The kinds of the findings about what can't be, of a run with these files beside it."""
    path = put(*run_of(losses, evals, **more))
    for name, content in (("config.json", config), ("adapter_config.json", adapter)):
        if content is not None:
            (path.parent / name).write_text(json.dumps(content))
    about = ("impossible-loss", "zero-loss", "incomparable-losses")
    return [of.kind for of in findings_of(read_state(path)) if of.kind in about]


def trl(losses: list[float]) -> dict[str, list[float]]:
    """What trl's SFTTrainer logs beside these losses."""
    return {"mean_token_accuracy": [math.exp(-loss) for loss in losses]}


# --- another trainer's run -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "files"),
    [
        (STUCK, {}),
        ([15.1, 20.0, *STUCK], {}),
        ([6.4, 6.3, 6.25, 6.22, 6.2, 6.21, 6.2, 6.19, 6.2, 6.2], {"config": GPT2}),
        (falling(40, 14.0, 0.4), {"config": GPT2}),
        (falling(40, 14.0, 0.4), {}),
        (falling(200, 9.5, 0.6), {"config": GPT2, "more": trl, "stride": 1}),
        (falling(40, 12.9, 2.0), {"config": {**GPT2, "vocab_size": 32_000}}),
        (falling(40, 16.0, 2.0), {"config": {"text_config": {"vocab_size": 262_208}}}),
    ],
)
def test_a_loss_that_no_pretrained_model_has(
    put: Put, losses: list[float], files: dict[str, Any]
) -> None:
    """A start worse than a guess or above 8 nats, or an end that stays above 5, is a warning."""
    more = files.pop("more", None)
    assert ["impossible-loss"] == of_state(put, losses, **files, **(more(losses) if more else {}))


SEQ2SEQ = {"model_type": "mt5", "vocab_size": 250_112}
FROM_SCRATCH = falling(40, 10.9, 5.6)


@pytest.mark.parametrize(
    ("losses", "evals", "files"),
    [
        (falling(40, 25.0, 2.2), None, {"config": SEQ2SEQ}),
        (falling(40, 25.0, 0.5), None, {"config": {"is_encoder_decoder": True}}),
        (falling(40, 25.0, 0.5), None, {"adapter": {"task_type": "SEQ_2_SEQ_LM"}}),
        (falling(40, 25.0, 2.2), {"eval_loss": [3.0, 2.5], "eval_rouge1": [10.0, 20.0]}, {}),
        (falling(40, 25.0, 2.2), None, {}),
        (FROM_SCRATCH, None, {}),
        (FROM_SCRATCH, None, {"config": GPT2}),
        (falling(40, 60.0, 2.9), {"eval_loss": [3.5, 2.9], "eval_wer": [1.0, 0.9]}, {}),
        ([30.0] * 20, {"eval_loss": [30.0, 30.0], "eval_rmse": [5.5, 5.5]}, {}),
        ([400.0] * 20, None, {}),
        (falling(40, 2.5, 0.9), {"eval_loss": [1.2, 1.1]}, {"config": GPT2}),
        (falling(40, 7.5, 1.9), None, {"config": GPT2}),
        ([2.4] * 20, None, {"config": {"architectures": ["ViTForImageClassification"]}}),
    ],
)
def test_high_losses_that_are_healthy(
    put: Put, losses: list[float], evals: dict[str, list[float]] | None, files: dict[str, Any]
) -> None:
    """mT5, training from scratch, CTC and regression begin or stay high, and nothing is said."""
    assert [] == of_state(put, losses, evals, **files)


def test_a_rate_that_destroys(put: Put) -> None:
    """Where the learning rate explains the loss, the remedy begins with it."""
    run = read_state(put(*run_of(STUCK, rate=0.02)))
    (of,) = findings_of(run)
    assert of.remedy.startswith("First lower the learning rate: 0.02 destroys")
    (calm,) = findings_of(read_state(put(*run_of(STUCK, rate=2e-5))))
    assert calm.remedy.startswith("Decode the labels")


@pytest.mark.parametrize("train", [0.0004, 0.0015])
def test_both_losses_near_zero(put: Put, train: float) -> None:
    """A constant answer or a leak is an info, in place of `converged`."""
    path = put(*run_of([5.0, 1.0, 0.1, *[train] * 30], {"eval_loss": [0.0013, 0.0004, 0.0004]}))
    found = findings_of(read_state(path))
    assert ["zero-loss"] == [of.kind for of in found]
    assert "at step 110 (epoch 1) already" in found[0].message


@pytest.mark.parametrize(
    ("losses", "evals"),
    [
        (falling(40, 5.0, 0.0004), {"eval_loss": [0.05, 0.02, 0.018]}),
        (falling(40, 5.0, 0.02), {"eval_loss": [0.05, 0.01, 0.001]}),
        (falling(40, 0.5, 0.001), {"eval_loss": [0.002, 0.001], "eval_mse": [0.002, 0.001]}),
        (falling(40, 0.5, 0.001), {"eval_loss": [0.002, 0.001], "eval_pearson": [0.9, 0.92]}),
    ],
)
def test_losses_that_may_be_small(
    put: Put, losses: list[float], evals: dict[str, list[float]]
) -> None:
    """One of them is larger, or it is the error of a regression: nothing is said."""
    assert [] == of_state(put, losses, evals)


# --- the loop ------------------------------------------------------------------------------------


def in_the_loop(base: float, last: float, vocabulary: int, tokens: int = 40) -> Evidence:
    """Evidence of an iteration whose eval loss falls from the base's to `last`."""
    points = (base * 0.7 + last * 0.3, (base + last) / 2, last)
    of = evidence(falling(40, base, last), points, base, vocabulary=vocabulary)
    results = tuple(ExampleResult(str(n), "", (), last * tokens, tokens, 0) for n in range(20))
    return replace(of, results=results)


@pytest.mark.parametrize(
    ("base", "last", "vocabulary"),
    [(14.0, 0.5, 50_257), (13.0, 2.0, 32_000), (9.0, 1.0, 50_257), (9.5, 9.0, 50_257)],
)
def test_a_base_that_guesses_worse(base: float, last: float, vocabulary: int) -> None:
    """A base above ln(vocabulary), or above 8 nats, was given labels that it can't read."""
    of = impossible_loss(in_the_loop(base, last, vocabulary))
    assert of is not None
    assert of.message.startswith(f"The untrained base's eval loss is {base:.1f} nats")
    assert f"{math.log(vocabulary):.1f}" in of.message or "8 nats" in of.message
    assert not of.tunable


@pytest.mark.parametrize(
    ("base", "last", "vocabulary", "tokens"),
    [
        (5.755, 5.5, 4_096, 10),  # a small base, and a learning rate that is too low
        (6.93, 1.0, 1_024, 10),  # the embedded base's uniform loss
        (10.9, 8.0, 50_257, 40),  # random weights
        (9.5, 0.3, 50_257, 2),  # labels of one token and the end, which are learned
        (3.0, 0.5, 50_257, 40),
    ],
)
def test_a_base_that_is_healthy(base: float, last: float, vocabulary: int, tokens: int) -> None:
    """Small vocabularies, random weights and short codes are told apart."""
    assert None is impossible_loss(in_the_loop(base, last, vocabulary, tokens))


def test_the_loop_looks_at_rows() -> None:
    """Where the rows are known, `leak` and others say why losses are near 0."""
    of = evidence([0.001] * 40, (0.001, 0.001), 5.0)
    assert zero_loss(of) is not None
    assert None is zero_loss(replace(of, eval=(object(),)))  # type: ignore[arg-type]


def test_a_diverged_run_is_only_that() -> None:
    """A run that training destroyed is not blamed on its labels."""
    of = evidence([1.5, 2.0, 6.0, *[7.6] * 30], (7.6, 7.6, 7.6), 1.4, vocabulary=50_257)
    assert ["diverged"] == kinds(of)
