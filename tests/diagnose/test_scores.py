"""Metrics other than the loss: their direction, and whether they moved."""

from __future__ import annotations

import pytest

from pytest_ftloop.diagnose.any_trainer.series import choice_of, scores_of, series_of
from pytest_ftloop.diagnose.scores import Score, direction, is_overall

LOWER = "wer wer_ortho normalized_wer cer per ter mae rmse mse error_rate fid eer brier_score der"
HIGHER = (
    "accuracy f1 f1_macro macro_f1 rouge1 rouge2 rougeL rougeLsum bleu sacrebleu chrf iou mean_iou "
    "per_class_iou dice map map_50 mcc matthews_correlation exact_match em precision recall "
    "roc_auc pearson spearmanr bertscore_f1 ndcg mrr top1 pass@1 win_rate r2"
)
UNKNOWN = "gen_len samples_per_second steps_per_second runtime num_tokens entropy foo length"


@pytest.mark.parametrize(
    ("names", "expected"), [(LOWER, "lower"), (HIGHER, "higher"), (UNKNOWN, None)]
)
def test_directions(names: str, expected: str | None) -> None:
    """A metric's name tells in which direction it improves, or nothing."""
    assert dict.fromkeys(names.split(), expected) == {
        name: direction(name) for name in names.split()
    }


def test_parts() -> None:
    """A class's metric is told from an overall one."""
    assert [True, True, False, False] == [
        is_overall(name) for name in ("mean_iou", "f1_macro", "iou_road", "map_person")
    ]


@pytest.mark.parametrize(
    ("values", "rows", "expected"),
    [
        ([0.80, 0.81], 0, 0.005),
        ([80.0, 81.0], 0, 0.5),
        ([300.0, 280.0], 0, 6.0),
        ([1.3, 0.5, 0.4], 0, 0.005),
        ([0.5, 0.5], 100, 0.05),
        ([50.0, 50.0], 100, 5.0),
        ([0.8, 0.9, 0.8, 0.9, 0.8], 0, pytest.approx(2 * 1.4826 * 0.2 / 6**0.5)),
    ],
)
def test_the_smallest_change_that_counts(values: list[float], rows: int, expected: float) -> None:
    """Half a point, 2% of a figure without bounds, the error of few rows, or the curve's jitter."""
    points = tuple(enumerate(values, start=1))
    assert expected == Score("eval_f1", "higher", points, rows).limit


def logged(**figures: list[float]) -> list[dict[str, float]]:
    """Entries of evaluations at the steps 100, 200, ..."""
    rows = zip(*figures.values(), strict=True)
    return [
        {"step": 100 * n, "eval_runtime": 1.0, **dict(zip(figures, row, strict=True))}
        for n, row in enumerate(rows, start=1)
    ]


def test_which_metric_decides() -> None:
    """That of the trainer's best checkpoint; else error rates before F1 before accuracy."""
    series = series_of(
        logged(eval_loss=[1.0, 0.9], eval_accuracy=[0.5, 0.6], eval_f1=[0.4, 0.5], eval_x=[3, 2])
    )
    assert ["eval_f1", "eval_accuracy"] == [of.name for of in scores_of(series, "", [""], None)]
    state = {"best_metric": 0.6, "best_model_checkpoint": "out/checkpoint-200"}
    chosen = scores_of(series, "", [""], choice_of(state, series))
    assert ["eval_accuracy", "eval_f1"] == [of.name for of in chosen]


def test_a_metric_of_unknown_direction() -> None:
    """The trainer's choice shows it: the best value is the lowest, so lower is better."""
    series = series_of(logged(eval_loss=[1.0, 0.9, 0.8], eval_oddness=[5.0, 2.0, 3.0]))
    state = {"best_metric": 2.0, "best_global_step": 200, "best_model_checkpoint": None}
    (score,) = scores_of(series, "", [""], choice_of(state, series))
    assert ("eval_oddness", "lower", (200, 2.0)) == (score.name, score.better, score.best)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"best_metric": None, "best_model_checkpoint": None},
        {"best_metric": "x", "best_model_checkpoint": "checkpoint-3"},
        {"best_metric": 0.5, "best_model_checkpoint": "elsewhere"},
        {"best_metric": float("nan"), "best_model_checkpoint": "checkpoint-3"},
        {"best_metric": True, "best_model_checkpoint": "checkpoint-3"},
    ],
)
def test_a_state_without_a_choice(state: dict[str, object]) -> None:
    """A best metric or checkpoint that is missing or odd is none."""
    assert None is choice_of(state, {})


def test_parts_count_where_there_is_nothing_overall() -> None:
    """A class's IoU is left out beside the mean, and used without it."""
    both = series_of(logged(eval_iou_road=[0.5, 0.6], eval_mean_iou=[0.4, 0.5]))
    assert ["eval_mean_iou"] == [of.name for of in scores_of(both, "", [""], None)]
    part = series_of(logged(eval_iou_road=[0.5, 0.6]))
    assert ["eval_iou_road"] == [of.name for of in scores_of(part, "", [""], None)]


def test_each_eval_set_has_its_metrics() -> None:
    """They are not taken for those of the set without a name."""
    series = series_of(logged(eval_far_wer=[0.5, 0.6], eval_wer=[0.4, 0.5]))
    assert ["eval_wer"] == [of.name for of in scores_of(series, "", ["", "far"], None)]
    assert ["eval_far_wer"] == [of.name for of in scores_of(series, "far", ["", "far"], None)]
