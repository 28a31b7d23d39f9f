"""The best evaluation point by what its outputs give, and what choosing it leaves unchanged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.set_metrics import SetMetric, of_labels
from pytest_ftloop.train import best_point as chosen
from pytest_ftloop.train.best_point import best_point
from pytest_ftloop.train.recorder import Candidate, spread
from tests import small_base
from tests.fakes import fake_example
from tests.small_base import base, quietly, task, tiny  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from pytest_ftloop.train.base import Base


@given(st.sets(st.integers(1, 10_000), min_size=1), st.integers(2, 10))
def test_points_that_are_compared(points: set[int], most: int) -> None:
    """All of a few; of many as many as are allowed, the first and the last among them."""
    ordered = sorted(points)
    found = spread(ordered, most)
    assert found <= points
    assert min(len(points), most) == len(found)
    assert {ordered[0], ordered[-1]} <= found


class Weights:
    """A model that only has the weights that are loaded."""

    def __init__(self) -> None:
        self.loaded: list[int] = []


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Choose among points, given as step -> (eval loss, passes of four rows)."""

    def choose(points: dict[int, tuple[float, int]], metric: str) -> tuple[Any, Weights]:
        def rows(loss: float, passing: int) -> tuple[Any, ...]:
            return tuple(
                fake_example(
                    f"e{n}",
                    n < passing,
                    loss=4 * loss,
                    tokens=4,
                    scores={"score": passing / 8},
                    tags=("x",),
                    output="yes" if n < passing else "no",
                )
                for n in range(4)
            )

        results = {step: rows(*point) for step, point in points.items()}
        lowest = min(points, key=lambda step: points[step][0])
        candidates = {
            step: Candidate(points[step][0], found, {"at": step})  # type: ignore[dict-item]
            for step, found in results.items()
        }
        recorder = SimpleNamespace(
            metric=metric,
            progress=Silent(),
            task=SimpleNamespace(
                eval=SimpleNamespace(examples=()),
                scoring=None,
                scorer=None,
                set_metrics={
                    "macro_f1": of_labels("macro_f1"),
                    "worst": SetMetric(lambda row: [row.output], lambda found: found.count("no")),
                },
            ),
            best_step=lowest,
            best=results[lowest],
            best_weights={"at": lowest},
            candidates=candidates,
        )
        model = Weights()
        monkeypatch.setattr(chosen, "load_weights", lambda m, w: m.loaded.append(w["at"]))
        monkeypatch.setattr(chosen, "scored_eval", lambda _evaluator, found, *_: found)
        return best_point(model, None, recorder, None, results[lowest]), model  # type: ignore[arg-type]

    return choose


@pytest.mark.parametrize(
    ("points", "metric", "step"),
    [
        ({1: (2.0, 1), 2: (1.0, 2), 3: (1.5, 4)}, "pass_rate", 3),
        ({1: (2.0, 1), 2: (1.0, 2), 3: (1.5, 4)}, "score", 3),
        ({1: (2.0, 1), 2: (1.0, 2), 3: (1.5, 4)}, "eval_loss", 2),
        ({1: (2.0, 1), 2: (1.0, 2), 3: (1.5, 4)}, "macro_f1", 3),
        ({1: (2.0, 1), 2: (1.0, 2), 3: (1.5, 4)}, "worst", 1),
        ({1: (2.0, 1), 2: (1.0, 2), 3: (1.5, 4)}, "score[x]", 3),
        ({1: (2.0, 1), 2: (1.0, 2), 3: (1.5, 4)}, "score[gone]", 2),
        ({1: (2.0, 3), 2: (1.0, 3), 3: (1.5, 3)}, "pass_rate", 2),
        ({1: (2.0, 4), 2: (1.0, 3), 3: (1.5, 4)}, "pass_rate", 3),
        ({1: (2.0, 0), 2: (1.0, 0)}, "score", 2),
        ({5: (1.0, 0)}, "pass_rate", 5),
    ],
)
def test_the_best_point(
    choose: Any, points: dict[int, tuple[float, int]], metric: str, step: int
) -> None:
    """The highest figure wins, of equal ones the lower loss; the model ends with its weights."""
    best, model = choose(points, metric)
    assert step == best.step
    assert points[step][1] == sum(row.passed for row in best.examples)
    lowest = min(points, key=lambda at: points[at][0])
    assert step == [lowest, *model.loaded][-1]
    is_compared = metric != "eval_loss" and len(points) > 1
    assert (sorted(points) if is_compared else []) == [at for at, _ in best.figures]


@pytest.mark.slow
def test_losses_do_not_depend_on_what_points_are_chosen_by(base: Base, task: Any) -> None:  # noqa: F811
    """Training is the same to the bit; the point that is kept is the best by the metric."""
    from pytest_ftloop.train.lora import run_lora

    own = task(Scoring("f1", max_new_tokens=4), set_metrics={"macro_f1": of_labels("macro_f1")})
    runs = [
        run_lora(base, own, small_base.settings(num_train_epochs=1), Silent(), metric=metric)
        for metric in ("eval_loss", "pass_rate", "score", "macro_f1")
    ]
    assert all(made.training.steps == runs[0].training.steps for made in runs)
    assert runs[0].training.evals == runs[1].training.evals
    assert () == runs[0].training.point_figures
    for made in runs[1:]:
        figures = dict(made.training.point_figures)
        assert {point.step for point in made.training.evals} == set(figures)
        assert max(figures.values()) == figures[made.training.best_step]
    best = next(e for e in runs[2].training.evals if e.step == runs[2].training.best_step)
    total = sum(row.loss for row in runs[2].evaluation.examples)
    assert best.eval_loss == total / sum(row.tokens for row in runs[2].evaluation.examples)
