"""Sampled outputs: drawn from the model's distribution, the same again, whatever stands beside."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import ConfigError, FtloopError
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import Example
from pytest_ftloop.evaluate.decoding import GumbelNoise, check_decoding, decodings
from pytest_ftloop.train.base import Base
from pytest_ftloop.train.lora import run_lora
from tests.small_base import data_set, rows, settings

pytestmark = pytest.mark.usefixtures("quietly")

SAMPLED = Scoring("exact", samples=2, max_new_tokens=6, temperature=0.8, top_p=0.95)


def outputs(base: Base, task: Any, **changes: Any) -> list[tuple[str, ...]]:
    how = settings(**{"learning_rate": 0.0, "max_steps": 1, **changes})
    # With a base loss the untrained base is not measured.
    run = run_lora(base, task, how, Silent(), base_eval_loss=3.0)
    return [row.outputs for row in run.evaluation.examples]


def test_outputs_do_not_depend_on_the_batch(base: Base, task: Any) -> None:
    """Each example's samples are the same alone, in other batches, and in another order."""
    whole = task(scoring=SAMPLED, eval=data_set(rows(8, 2), "eval"))
    once = outputs(base, whole)
    assert once == outputs(base, whole, per_device_eval_batch_size=1)
    assert once == outputs(base, whole, seed=7)
    turned = replace(whole.eval, examples=whole.eval.examples[::-1])
    assert once[::-1] == outputs(base, replace(whole, eval=turned))
    assert any(len(set(row)) > 1 for row in once)
    assert once != outputs(base, replace(whole, scoring=replace(SAMPLED, seed=1)))


def test_training_is_the_same_to_the_bit(base: Base, task: Any) -> None:
    """Sampling draws from streams of its own: the losses of the training are those of greedy."""
    how = settings(max_steps=4)  # with dropout
    runs = [run_lora(base, task(scoring=s), how, Silent()) for s in (Scoring("exact"), SAMPLED)]
    greedy, sampled = ([step.loss for step in run.training.steps] for run in runs)
    assert greedy == sampled


def test_noise_draws_from_the_softmax() -> None:
    """The largest noisy logit is each token as often as its probability, within 4 deviations."""
    scores = torch.tensor([[0.0, 1.0, 2.0, float("-inf")]])
    wanted = torch.softmax(scores[0], 0).tolist()
    n = 4000
    drawn = GumbelNoise(range(n))(torch.empty(0), scores.expand(n, 4)).argmax(1)
    counts = Counter(drawn.tolist())
    for token, probability in enumerate(wanted):
        spread = (probability * (1 - probability) / n) ** 0.5
        assert abs(counts[token] / n - probability) <= 4 * spread


def test_shaping_comes_before_the_noise() -> None:
    """With top_k 1 only the likeliest token can be drawn, whatever the noise."""
    (how,) = decodings(Scoring(temperature=5.0, generation={"top_k": 1}))
    scores = torch.tensor([[0.0, 0.2, 0.1]])
    for content in map(str, range(50)):
        processors = how.processors([Example("e", content, {})], "cpu")
        assert 1 == processors(torch.zeros(1, 1, dtype=torch.long), scores.clone()).argmax()


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"repetition_penality": 1.1}, "has no field 'repetition_penality'\n  Did you mean"),
        ({"top_k": -5}, "scoring.generation: `top_k` has to be"),
        ({"early_stopping": "perhaps"}, "scoring.generation: "),
    ],
)
def test_a_field_that_transformers_does_not_take(generation: Any, message: str) -> None:
    """Fields and values are checked before anything is trained."""
    with pytest.raises(ConfigError) as caught:
        check_decoding(Scoring(temperature=1.0, generation=generation), None)
    assert message in str(caught.value)


def test_a_value_that_transformers_refuses_is_found_before_the_first_step(
    base: Base, task: Any
) -> None:
    """What transformers says of a value when it generates, it says before anything is trained."""
    scoring = Scoring("exact", generation={"repetition_penalty": -1.0})
    with pytest.raises(FtloopError, match=r"transformers, while generating and scoring: .*penalty"):
        run_lora(base, task(scoring=scoring), settings(max_steps=10**6), Silent())


def test_generation_reaches_transformers(base: Base, task: Any) -> None:
    """A stated field changes the outputs as transformers says: no token of suppressed ones."""
    plain = run_lora(base, task(), settings(learning_rate=0.0, max_steps=1), Silent())
    first = next(row.output for row in plain.evaluation.examples if row.output)
    ids = base.tokenizer(first)["input_ids"]
    scoring = Scoring("exact", generation={"suppress_tokens": ids})
    how = settings(learning_rate=0.0, max_steps=1)
    run = run_lora(base, task(scoring=scoring), how, Silent())
    assert all(first not in row.output for row in run.evaluation.examples)


def test_samples_stay_where_only_the_scoring_reads_more() -> None:
    """A column of acceptable answers changes no output: those in a log are those of a new run."""
    scores = torch.zeros(1, 5)

    def drawn(content: str) -> list[float]:
        (how, *_) = decodings(SAMPLED)
        example = Example("e", content, {"prompt": "p", "completion": "c"})
        noisy: list[float] = how.processors([example], "cpu")(torch.empty(1, 0), scores)[0].tolist()
        return noisy

    assert drawn("abc") == drawn("abc+d0") == drawn("abc+e1")
    assert drawn("abc") != drawn("abd")
