"""What a loop's run gives back."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.core.chain import best_of, worst
from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.loop.result import Figure, LoopResult
from tests.fakes import fake_example, fake_finding, fake_iteration, fake_metrics

NAN = math.nan


def result(**fields: Any) -> LoopResult:
    best = fake_iteration(
        metrics=fake_metrics(1.25, 1.0, 0.75, **{"pass_rate[negation]": 0.5}),
        findings=[fake_finding("underfit")],
        examples=[fake_example("a"), fake_example("b", passed=False)],
    )
    defaults: dict[str, Any] = {
        "loop": "sentiment",
        "source": "s.ftloop.yaml",
        "chain": (best,),
        "best": best,
        "gates": (),
        "trained": (),
        "log_folder": Path("improvement_log/sentiment"),
        "files": (),
    }
    return LoopResult(**(defaults | fields))


def test_figures_of_the_best_iteration() -> None:
    """Each metric is an attribute, a number that knows its name and where it comes from."""
    found = result()
    for name in ("eval_loss", "train_loss", "overfit_gap", "pass_rate", "token_accuracy"):
        figure = getattr(found, name)
        assert (found.best.metrics[name], name, found) == (figure, figure.name, figure.result)
    assert math.exp(1.25) == found.perplexity
    assert 1.3 > found.eval_loss


def test_findings_and_failing() -> None:
    """Findings and failing examples are those of the best iteration."""
    found = result()
    assert ["underfit"] == [finding.kind for finding in found.findings]
    assert ["b"] == [row.id for row in found.failing]


def test_slice() -> None:
    """A tag's figures are reached as `slice(tag).metric`."""
    figure = result().slice("negation").pass_rate
    assert (0.5, "pass_rate[negation]") == (figure, figure.name)


def test_figure_that_is_not_there() -> None:
    """A tag without figures and a misspelt metric are told, with a guess."""
    with pytest.raises(FtloopError) as caught:
        _ = result().slice("negatoin").pass_rate
    assert "the best iteration 001-00000001 has no figure 'pass_rate[negatoin]'" in str(
        caught.value
    )
    assert "Did you mean 'pass_rate[negation]'?" == caught.value.cure
    with pytest.raises(AttributeError, match=r"no metric 'passrate'\. Did you mean 'pass_rate'"):
        _ = result().slice("negation").passrate
    assert not hasattr(result().slice("negation"), "__deepcopy__")


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))]
)
def test_copied_figure_is_a_plain_number(again: Any) -> None:
    """A figure can be copied and sent to another process: the number travels, not the result."""
    figure: Figure = result().eval_loss
    assert (float, 1.25) == (type(again(figure)), again(figure))


@pytest.mark.parametrize(
    ("figures", "metric", "best"),
    [
        ([3.0, 2.0, 2.5], "eval_loss", 2),
        ([0.3, 0.5, 0.4], "pass_rate", 2),
        ([2.0, 2.0], "eval_loss", 1),
        ([NAN, 2.0], "eval_loss", 2),
        ([2.0, NAN], "eval_loss", 1),
        ([NAN, NAN], "eval_loss", 1),
        ([None, 2.0], "eval_loss", 2),
        ([2.0, None], "eval_loss", 1),
        ([math.inf, 5.0], "eval_loss", 2),
    ],
)
def test_best_of(figures: list[float | None], metric: str, best: int) -> None:
    """The best by the metric's own direction, of equals the first; NaN and missing never win."""
    chain = [
        fake_iteration(n, metrics={} if value is None else {metric: value})
        for n, value in enumerate(figures, start=1)
    ]
    assert best == best_of(chain, metric).number


def test_worst_examples_first() -> None:
    """Of the failed examples NaN comes first, then the highest loss per token, then the id."""
    rows = [
        fake_example("low", passed=False, loss=1.0),
        fake_example("long", passed=False, loss=8.0, tokens=80),
        fake_example("nan", passed=False, loss=NAN),
        fake_example("high", passed=False, loss=9.0),
        fake_example("also high", passed=False, loss=9.0),
        fake_example("no tokens", passed=False, loss=0.0, tokens=0),
        fake_example("passed", loss=99.0),
        fake_example("unscored", passed=None, loss=99.0),
    ]
    assert ["nan", "no tokens", "also high", "high", "low", "long"] == [r.id for r in worst(rows)]
