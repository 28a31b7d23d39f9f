"""The figures: exact token means, by tag, and how they are shown."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.metrics import (
    DECIMALS,
    METRICS,
    best_metrics,
    final_metrics,
    format_figure,
    pass_rate,
    perplexity,
    split_name,
    token_accuracy,
    token_mean_loss,
)
from pytest_ftloop.core.records import EvalPoint, Evaluation, ExampleResult, Training


def a_result(
    loss: float = 1.0,
    tokens: int = 1,
    correct: int = 0,
    tags: tuple[str, ...] = (),
    passed: bool | None = None,
) -> ExampleResult:
    return ExampleResult("e", "c", tags, loss, tokens, correct, passed)


def an_evaluation(
    examples: list[ExampleResult],
    train: list[ExampleResult] | None = None,
    final_train: list[ExampleResult] | None = None,
) -> Evaluation:
    return Evaluation(tuple(examples), tuple(train or ()), tuple(final_train or ()), math.nan)


def a_training(*evals: EvalPoint) -> Training:
    return Training((), evals, 1, 1, 1, 1, 1, 1, adapter_moved=True)


@st.composite
def results(draw: st.DrawFn) -> ExampleResult:
    tokens = draw(st.integers(0, 2000))
    return a_result(
        loss=draw(st.floats(0, 1e4)) if tokens else 0.0,
        tokens=tokens,
        correct=draw(st.integers(0, tokens)),
        tags=tuple(draw(st.sets(st.sampled_from("abc")))),
        passed=draw(st.booleans()),
    )


def same(left: dict[str, float], right: dict[str, float]) -> bool:
    """Equality where NaN equals NaN."""
    return left.keys() == right.keys() and all(
        left[key] == right[key] or (math.isnan(left[key]) and math.isnan(right[key]))
        for key in left
    )


# Sums and means


@given(st.lists(results(), min_size=1), st.integers(1, 9), st.randoms(use_true_random=False))
def test_token_mean_loss_whatever_the_batches(
    rows: list[ExampleResult], batch_size: int, random: object
) -> None:
    """The loss is the exact token mean, in any order, and what token-weighted batches give."""
    tokens = sum(row.tokens for row in rows)
    if not tokens:
        assert math.isnan(token_mean_loss(rows))
        return
    direct = float(sum((Fraction(row.loss) for row in rows), Fraction()) / tokens)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    batches = [shuffled[i : i + batch_size] for i in range(0, len(shuffled), batch_size)]
    weighted = [
        token_mean_loss(batch) * sum(row.tokens for row in batch)
        for batch in batches
        if any(row.tokens for row in batch)
    ]
    assert direct == pytest.approx(token_mean_loss(rows), rel=1e-15)
    assert token_mean_loss(rows) == token_mean_loss(row for batch in batches for row in batch)
    assert token_mean_loss(rows) == pytest.approx(math.fsum(weighted) / tokens, rel=1e-12)


def test_token_mean_is_not_the_mean_of_means() -> None:
    """A long example weighs as much as its tokens."""
    rows = [a_result(loss=10.0, tokens=1), a_result(loss=9.0, tokens=9)]
    assert 1.9 == token_mean_loss(rows)


def test_nothing_gives_nan() -> None:
    """No tokens or no examples have no figure: NaN, which no gate passes."""
    assert [True] * 4 == [
        math.isnan(value)
        for value in (
            token_mean_loss([]),
            token_accuracy([a_result(loss=0.0, tokens=0)]),
            pass_rate([]),
            a_result(loss=0.0, tokens=0).mean_loss,
        )
    ]


def test_nan_loss_of_one_example_shows() -> None:
    """One NaN makes the mean NaN rather than being skipped."""
    assert math.isnan(token_mean_loss([a_result(), a_result(loss=math.nan)]))


def test_pass_rate_counts_unscored_as_failed() -> None:
    """Only True is a pass."""
    assert 0.25 == pass_rate([a_result(passed=passed) for passed in (True, False, None, None)])


def test_token_accuracy() -> None:
    """Accuracy is a share of tokens, not of examples."""
    assert 0.3 == token_accuracy([a_result(tokens=9, correct=2), a_result(tokens=1, correct=1)])


@pytest.mark.parametrize(
    ("loss", "wanted"), [(0.0, 1.0), (1.0, math.e), (1e6, math.inf), (math.inf, math.inf)]
)
def test_perplexity(loss: float, wanted: float) -> None:
    """exp(loss), and infinite where that overflows."""
    assert wanted == perplexity(loss)
    assert math.isnan(perplexity(math.nan))


# The figures of an evaluation


def test_best_metrics() -> None:
    """Every metric is there, for the whole set and for each tag."""
    evaluation = an_evaluation(
        [
            a_result(loss=4.0, tokens=2, correct=1, tags=("x",), passed=True),
            a_result(loss=2.0, tokens=2, correct=2, tags=("x", "y"), passed=False),
        ],
        [a_result(loss=1.0, tokens=1, tags=("x",)), a_result(loss=0.0, tokens=1)],
    )
    assert {
        "eval_loss": 1.5,
        "train_loss": 0.5,
        "overfit_gap": 1.0,
        "pass_rate": 0.5,
        "token_accuracy": 0.75,
        "perplexity": round(math.exp(1.5), DECIMALS),
        "eval_loss[x]": 1.5,
        "train_loss[x]": 1.0,
        "overfit_gap[x]": 0.5,
        "pass_rate[x]": 0.5,
        "token_accuracy[x]": 0.75,
        "perplexity[x]": round(math.exp(1.5), DECIMALS),
        "eval_loss[y]": 1.0,
        "pass_rate[y]": 0.0,
        "token_accuracy[y]": 1.0,
        "perplexity[y]": round(math.e, DECIMALS),
    } == best_metrics(evaluation)


@given(st.lists(results()), st.lists(results()))
def test_by_tag_figures_are_those_of_the_slice(
    examples: list[ExampleResult], train: list[ExampleResult]
) -> None:
    """A tag's figures are what its examples alone would give, without what has no figure."""
    figures = best_metrics(an_evaluation(examples, train))
    tags = {tag for row in examples for tag in row.tags}
    assert tags == {split_name(name)[1] for name in figures} - {None}
    for tag in tags:
        slice_train = [row for row in train if tag in row.tags]
        alone = best_metrics(
            an_evaluation([row for row in examples if tag in row.tags], slice_train)
        )
        missing = set() if slice_train else {"train_loss", "overfit_gap"}
        wanted = {f"{name}[{tag}]": alone[name] for name in METRICS if name not in missing}
        found = {name: v for name, v in figures.items() if split_name(name)[1] == tag}
        assert same(wanted, found)


@given(st.lists(results()))
def test_one_tag_on_all_is_the_whole_set(examples: list[ExampleResult]) -> None:
    """A tag that every example has gives the figures of the whole set."""
    rows = [a_result(r.loss, r.tokens, r.correct, ("all",), r.passed) for r in examples]
    figures = best_metrics(an_evaluation(rows, rows))
    whole = {name: figures[name] for name in METRICS}
    if rows:
        assert same(whole, {name: figures[f"{name}[all]"] for name in METRICS})
    else:
        assert set(METRICS) == set(figures)


def test_figures_are_rounded_without_minus_zero() -> None:
    """Figures keep 6 decimals, and a gap of nearly nothing is not -0.0."""
    figures = best_metrics(
        an_evaluation([a_result(loss=1.0, tokens=3)], [a_result(loss=1.0000001, tokens=3)])
    )
    assert 0.333333 == figures["eval_loss"]
    assert "0.0" == repr(figures["overfit_gap"])


def test_final_metrics() -> None:
    """The last evaluation point's figures, with the train loss of the last weights."""
    training = a_training(EvalPoint(1, 0.5, 1.0, 0.9), EvalPoint(2, 1.0, 2.0, 0.5))
    evaluation = an_evaluation([], [a_result(loss=9.0)], [a_result(loss=0.5)])
    assert {
        "eval_loss": 2.0,
        "train_loss": 0.5,
        "overfit_gap": 1.5,
        "token_accuracy": 0.5,
        "perplexity": round(math.exp(2), DECIMALS),
    } == final_metrics(training, evaluation)


def test_final_metrics_of_a_run_that_was_never_evaluated() -> None:
    """Without an evaluation point every final figure of the eval set is NaN."""
    figures = final_metrics(a_training(), an_evaluation([], [], [a_result(loss=0.5)]))
    assert {"train_loss"} == {name for name, value in figures.items() if not math.isnan(value)}


# Names, directions, and how figures are shown


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("pass_rate", ("pass_rate", None)),
        ("pass_rate[negation]", ("pass_rate", "negation")),
        ("pass_rate[a[b]]", ("pass_rate", "a[b]")),
        ("pass_rate[", ("pass_rate[", None)),
    ],
)
def test_split_name(name: str, wanted: tuple[str, str | None]) -> None:
    """A name is a metric and perhaps a tag in brackets."""
    assert wanted == split_name(name)


@given(st.sampled_from(sorted(METRICS)), st.text())
def test_any_tag_is_split_off(metric: str, tag: str) -> None:
    """Whatever a tag holds, it is read back."""
    assert (metric, tag) == split_name(f"{metric}[{tag}]")


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("eval_loss", 3.51234, "3.5123"),
        ("pass_rate", 0.875, "87.5%"),
        ("pass_rate[x]", 1.0, "100.0%"),
        ("token_accuracy", 0.0, "0.0%"),
        ("pass_rate", math.nan, "unscored"),
        ("perplexity", math.inf, "inf"),
    ],
)
def test_format_figure(name: str, value: float, wanted: str) -> None:
    """Rates are shown in percent and losses with four decimals."""
    assert wanted == format_figure(name, value)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_improved(metric: object) -> None:
    """Each metric knows its direction; NaN is never better, and anything is better than NaN."""
    metric = METRICS[metric.name]  # type: ignore[attr-defined]
    better, worse = (0.2, 0.1) if metric.better == "higher" else (0.1, 0.2)
    assert [True, False, False, False, True, False] == [
        metric.improved(better, worse),
        metric.improved(worse, better),
        metric.improved(better, better),
        metric.improved(math.nan, worse),
        metric.improved(worse, math.nan),
        metric.improved(math.nan, math.nan),
    ]
