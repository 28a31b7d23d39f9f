"""The eval loss against the metrics of the answers, in the logs of several trainers."""

from __future__ import annotations

import json

import pytest

from pytest_ftloop.diagnose.any_trainer.trainer_state import findings_of, read_state
from tests.diagnose.trainer_state_cases import Put, falling, run_of

FALLS = [0.9, 0.6, 0.5, 0.45, 0.43, 0.42]
RISES = [0.50, 0.42, 0.47, 0.55, 0.62, 0.70]


def found(put: Put, evals: dict[str, list[float]], **state: object) -> dict[str, object]:
    """The findings but infos of a run with these evaluations, by kind."""
    last = 0.1 if evals["eval_loss"] is RISES else 0.38
    path = put(*run_of(falling(60, 2.0, last), evals), **state)
    return {of.kind: of for of in findings_of(read_state(path)) if of.severity != "info"}


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("eval_wer", [0.40, 0.35, 0.31, 0.28, 0.26, 0.25]),
        ("eval_wer", [40.0, 35.0, 31.0, 28.0, 26.0, 25.0]),
        ("eval_cer", [0.20, 0.17, 0.15, 0.13, 0.12, 0.11]),
        ("eval_rougeL", [20.0, 24.0, 26.0, 28.0, 29.0, 30.0]),
        ("eval_bleu", [10.0, 14.0, 16.0, 18.0, 19.0, 20.0]),
        ("eval_f1", [0.60, 0.70, 0.74, 0.76, 0.78, 0.79]),
        ("eval_mean_iou", [0.40, 0.50, 0.54, 0.56, 0.58, 0.59]),
        ("eval_accuracy", [60.0, 70.0, 74.0, 76.0, 78.0, 79.0]),
        ("eval_exact_match", [50.0, 60.0, 64.0, 66.0, 68.0, 69.0]),
        ("eval_rmse", [9.0, 7.0, 6.0, 5.5, 5.2, 5.0]),
    ],
)
def test_answers_improve_while_the_loss_rises(put: Put, metric: str, values: list[float]) -> None:
    """By WER, ROUGE, F1, IoU and so on it is overconfidence, not overfitting."""
    of = found(put, {"eval_loss": RISES, metric: values})
    assert ["overconfidence"] == list(of)
    assert f"{metric} (" in of["overconfidence"].message


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("eval_wer", [0.40, 0.35, 0.37, 0.39, 0.41, 0.43]),
        ("eval_rougeL", [20.0, 30.0, 28.0, 27.0, 26.0, 25.0]),
        ("eval_f1", [0.60, 0.79, 0.77, 0.76, 0.74, 0.72]),
        ("eval_foo", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    ],
)
def test_answers_get_worse_with_the_loss(put: Put, metric: str, values: list[float]) -> None:
    """Then, or where the metric's direction is unknown, it is overfitting, and said once."""
    assert ["overfitting"] == list(found(put, {"eval_loss": RISES, metric: values}))


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("eval_wer", [0.40, 0.25, 0.30, 0.34, 0.38, 0.42]),
        ("eval_rouge1", [20.0, 40.0, 36.0, 32.0, 29.0, 26.0]),
        ("eval_mean_iou", [0.40, 0.60, 0.55, 0.51, 0.48, 0.45]),
    ],
)
def test_answers_get_worse_while_the_loss_falls(put: Put, metric: str, values: list[float]) -> None:
    """The loss does not show it, so the metric does."""
    of = found(put, {"eval_loss": FALLS, metric: values})
    assert ["worse-answers"] == list(of)
    remedy = of["worse-answers"].remedy
    assert remedy.startswith("Use checkpoint-200 (epoch 1 of 3), if it was saved: by " + metric)


@pytest.mark.parametrize(
    "evals",
    [
        {"eval_loss": FALLS, "eval_wer": [0.40, 0.35, 0.31, 0.28, 0.26, 0.25]},
        {"eval_loss": FALLS, "eval_wer": [0.40, 0.35, 0.31, 0.28, 0.26, 0.262]},
        {"eval_loss": FALLS, "eval_f1": [0.70, 0.78, 0.76, 0.79, 0.77, 0.78]},
        {"eval_loss": FALLS, "eval_accuracy": [0.70, 0.80, 0.80, 0.81, 0.80, 0.80]},
        {
            "eval_loss": FALLS,
            "eval_precision": [0.70, 0.90, 0.86, 0.82, 0.80, 0.78],
            "eval_recall": [0.60, 0.50, 0.60, 0.70, 0.75, 0.80],
        },
    ],
)
def test_healthy_metrics(put: Put, evals: dict[str, list[float]]) -> None:
    """Nothing is said where metrics improve, wobble, or trade precision for recall."""
    assert {} == found(put, evals)


def test_the_checkpoint_by_the_metric(put: Put) -> None:
    """The remedy names the trainer's best checkpoint and its epoch, and nothing of LoRA."""
    evals = {"eval_loss": RISES, "eval_wer": [0.79, 0.77, 0.743, 0.75, 0.748, 0.745]}
    state = {"best_metric": 0.743, "best_model_checkpoint": "out/checkpoint-300"}
    remedy = found(put, evals, **state)["overconfidence"].remedy
    assert remedy.startswith("Use checkpoint-300 (epoch 1.5 of 3): by eval_wer (lower is better)")
    assert "lora" not in remedy.lower()


def test_the_checkpoint_by_the_loss(put: Put) -> None:
    """Without a metric the eval loss decides; what is not on disk has to be trained again."""
    first = found(put, {"eval_loss": RISES})["overfitting"].remedy
    assert first.startswith("Use checkpoint-200 (epoch 1 of 3), if it was saved: its eval loss is")
    path = put(*run_of(falling(60, 2.0, 0.1), {"eval_loss": RISES}), folder="checkpoint-600")
    (path.parent.parent / "checkpoint-200").mkdir()
    (of,) = findings_of(read_state(path))
    assert of.remedy.startswith("Use checkpoint-200 (epoch 1 of 3): its eval loss is the lowest")
    (path.parent.parent / "checkpoint-200").rename(path.parent.parent / "checkpoint-400")
    (of,) = findings_of(read_state(path))
    assert of.remedy.startswith("checkpoint-200 (epoch 1 of 3) is not on disk: train again")


@pytest.mark.parametrize(
    ("metric", "values", "best", "step", "expected"),
    [
        ("eval_wer", [0.4, 0.3, 0.2], 0.4, 200, ["wrong-best"]),
        ("eval_f1", [0.4, 0.5, 0.6], 0.4, 200, ["wrong-best"]),
        ("eval_wer", [0.4, 0.3, 0.2], 0.2, 600, []),
        ("eval_f1", [0.4, 0.5, 0.6], 0.6, 600, []),
        ("eval_foo", [0.6, 0.5, 0.4], 0.4, 600, []),
    ],
)
def test_the_trainer_kept_the_worst(
    put: Put, metric: str, values: list[float], best: float, step: int, expected: list[str]
) -> None:
    """transformers takes higher as better for every metric: with WER that keeps the worst."""
    state = {"best_metric": best, "best_model_checkpoint": f"out/checkpoint-{step}"}
    assert expected == list(found(put, {"eval_loss": [0.9, 0.6, 0.5], metric: values}, **state))


def test_metrics_without_an_eval_loss(put: Put) -> None:
    """A trainer that only generates logs metrics and no loss: they are read."""
    evals = {"eval_wer": [0.40, 0.25, 0.30, 0.34, 0.38, 0.42]}
    run = read_state(put(*run_of(falling(60, 2.0, 0.1), evals)))
    assert ["worse-answers"] == [of.kind for of in findings_of(run)]


def test_whisper_beside_its_configuration(put: Put) -> None:
    """An encoder-decoder's loss is compared with its WER all the same."""
    evals = {"eval_loss": RISES, "eval_wer": [0.40, 0.35, 0.31, 0.28, 0.26, 0.25]}
    path = put(*run_of(falling(60, 2.0, 0.1), evals))
    (path.parent / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    assert ["overconfidence"] == [of.kind for of in findings_of(read_state(path))]
