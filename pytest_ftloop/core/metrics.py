"""The metrics: the direction of each, and how it is computed from the results of examples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pytest_ftloop.core.records import (
    EvalPoint,
    Evaluation,
    ExampleResult,
    Guarded,
    Training,
)
from pytest_ftloop.core.sampled import (
    SCORE,
    estimate,
    is_sampled_metric,
    k_of,
    own_scores,
    recorded_ks,
    share_of,
)
from pytest_ftloop.core.set_metrics import SetMetric

NO_SET_METRICS: Mapping[str, SetMetric] = MappingProxyType({})


@dataclass(frozen=True)
class Metric:
    """A metric: its name, the direction in which it improves, and its definition."""

    name: str
    better: Literal["lower", "higher"]
    description: str

    def improved(self, new: float, old: float) -> bool:
        """Whether `new` is strictly better than `old`; any figure is better than NaN."""
        if math.isnan(new):
            return False
        if math.isnan(old):
            return True
        return new < old if self.better == "lower" else new > old


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("eval_loss", "lower", "token-mean loss over the eval set, in nats"),
        Metric("train_loss", "lower", "token-mean loss over a sample of the train set, eval mode"),
        Metric("overfit_gap", "lower", "eval_loss - train_loss"),
        Metric("pass_rate", "higher", "share of the eval examples that the scorer passes, 0 to 1"),
        Metric("token_accuracy", "higher", "share of labelled tokens that are the most likely one"),
        Metric("perplexity", "lower", "exp(eval_loss)"),
    )
}
"""All metrics by name."""


def metric_of(name: str) -> Metric:
    """The metric of this name, whose tag does not count.

    Of every score, and every metric that a user names, higher is better.
    """
    base = split_name(name)[0]
    if found := METRICS.get(base):
        return found
    if guarded := guard_and_metric(base):
        guard, metric = guarded
        of = metric_of(metric)
        return Metric(base, of.better, f"{of.description}; of the guard {guard}")
    what = "mean score of the eval examples, 0 to 1" if is_score(base) else "of the user's own"
    if is_sampled_metric(base):
        what = f"probability that {'any' if '@' in base else 'each'} of {k_of(base)} outputs passes"
    return Metric(base, "higher", what)


def is_rate(name: str) -> bool:
    """Whether a metric is a share from 0 to 1, shown in percent and compared in points."""
    name = without_guard(split_name(name)[0])
    return name in {"pass_rate", "token_accuracy"} or is_score(name) or is_sampled_metric(name)


def depends_on_scoring(name: str) -> bool:
    """Whether a metric is compared only where both sides were scored in the same way."""
    name = without_guard(split_name(name)[0])
    return name == "pass_rate" or is_score(name) or is_sampled_metric(name)


GUARD = "guard"
"""The metrics of a guard's rows are `guard.<guard>.<metric>`."""


def guard_and_metric(name: str) -> tuple[str, str] | None:
    """`guard.general.eval_loss` -> (`general`, `eval_loss`); None for a metric of the eval set."""
    word, _, rest = name.partition(".")
    guard, _, metric = rest.partition(".")
    return (guard, metric) if word == GUARD and guard and metric else None


def without_guard(name: str) -> str:
    """`guard.general.eval_loss` -> `eval_loss`; any other name as it is."""
    guarded = guard_and_metric(name)
    return guarded[1] if guarded else name


def is_score(name: str) -> bool:
    """Whether a metric is the mean of a score that the scorer gives each example."""
    return split_name(name)[0].partition(".")[0] == SCORE


def figure_of(metrics: Mapping[str, float], name: str) -> float:
    """A metric's figure among those of a record; NaN if it has none.

    Without any score each example was a yes or a no, which are scores of 1 and 0: then the mean
    `score` is the pass rate.
    """
    if name in metrics:
        return metrics[name]
    base, tag = split_name(name)
    of = base.removesuffix(SCORE)
    is_scored = any(f"{split_name(known)[0]}.".startswith(f"{base}.") for known in metrics)
    if without_guard(base) != SCORE or is_scored:
        return math.nan
    return metrics.get(f"{of}pass_rate" if tag is None else f"{of}pass_rate[{tag}]", math.nan)


def own_metrics(figures: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The metrics that a loop has besides `METRICS`, without tags, in order.

    Scores and metrics of the set; of pass@k and pass^k only those of the largest k, and of a guard
    only loss and pass rate, as tables of all would be illegible. Guards come last.
    """
    names = dict.fromkeys(name for of_one in figures for name in of_one if "[" not in name)
    guards = [n for n in names if without_guard(n) != n]
    own = [n for n in names if n not in METRICS and n not in guards]
    most = max((k_of(name) for name in own if is_sampled_metric(name)), default=0)
    kept = [n for n in own if not is_sampled_metric(n) or k_of(n) == most]
    return (*kept, *(n for n in guards if without_guard(n) in {"eval_loss", "pass_rate"}))


DECIMALS = 6
"""Decimals of a figure, when it is judged and in the log, so that the log gives equal verdicts."""


def token_mean_loss(results: Iterable[ExampleResult]) -> float:
    """Total loss divided by total tokens, so batches make no difference. NaN without tokens."""
    rows = list(results)
    tokens = sum(row.tokens for row in rows)
    return math.fsum(row.loss for row in rows) / tokens if tokens else math.nan


def token_accuracy(results: Iterable[ExampleResult]) -> float:
    """Fraction of labelled tokens that were predicted top-1. NaN without tokens."""
    rows = list(results)
    tokens = sum(row.tokens for row in rows)
    return sum(row.correct for row in rows) / tokens if tokens else math.nan


def pass_rate(results: Sequence[ExampleResult]) -> float:
    """Fraction of outputs that passed, each example counting alike.

    NaN without examples, or if none is scored yet.
    """
    if all(row.passed is None for row in results):
        return math.nan
    return math.fsum(map(share_of, results)) / len(results)


def mean_scores(results: Sequence[ExampleResult]) -> dict[str, float]:
    """The mean of each score over the examples, by its metric; an example without it has 0."""
    names = dict.fromkeys(name for row in results for name in own_scores(row))
    return {
        name: math.fsum(row.scores.get(name, 0.0) for row in results) / len(results)
        for name in names
    }


def sampled_rates(results: Sequence[ExampleResult]) -> dict[str, float]:
    """pass@k and pass^k, each a mean over the examples; none without several sampled outputs."""
    samples = max((len(row.outputs) for row in results), default=0)
    names = [f"pass{kind}{k}" for kind in "@^" for k in recorded_ks(samples)]
    return {n: math.fsum(estimate(row, n) for row in results) / len(results) for n in names}


def perplexity(loss: float) -> float:
    """exp(loss); infinity instead of an overflow error for a diverged loss."""
    return math.exp(loss) if loss < 700 else (math.nan if math.isnan(loss) else math.inf)


def best_metrics(
    evaluation: Evaluation, of_the_set: Mapping[str, SetMetric] = NO_SET_METRICS
) -> dict[str, float]:
    """Every metric of the best evaluation point, then each by tag as `name[tag]`.

    `of_the_set` are the loop's own metrics of the whole set. A user's function is not called for a
    tag: it may need all classes.
    """
    figures = _figures(evaluation.examples, evaluation.train_examples)
    figures |= {name: _round(m.of(evaluation.examples)) for name, m in of_the_set.items()}
    tags = sorted({tag for row in evaluation.examples for tag in row.tags})
    figures |= guard_metrics(evaluation.guards)
    for tag in tags:
        of_tag = [row for row in evaluation.examples if tag in row.tags]
        by_tag = _figures(
            of_tag,
            [row for row in evaluation.train_examples if tag in row.tags],
        )
        # Without train examples of this tag, its train loss and gap are left out, not NaN.
        missing = {"train_loss", "overfit_gap"} if _lacks(evaluation.train_examples, tag) else set()
        figures |= {f"{name}[{tag}]": v for name, v in by_tag.items() if name not in missing}
        figures |= {
            f"{name}[{tag}]": _round(m.of(of_tag)) for name, m in of_the_set.items() if m.by_tag
        }
    return figures | _with_train_figures(figures, evaluation.train_figures)


def guard_metrics(guards: Guarded) -> dict[str, float]:
    """The metrics of each guard's rows, as `guard.<guard>.<metric>`.

    Rows that no scorer passed or failed have no pass rate.
    """
    found: dict[str, float] = {}
    for guard, rows in guards.items():
        loss = token_mean_loss(rows)
        figures = {
            "eval_loss": loss,
            "token_accuracy": token_accuracy(rows),
            "perplexity": perplexity(loss),
        }
        if any(row.passed is not None for row in rows):
            figures |= {"pass_rate": pass_rate(rows), **mean_scores(rows)}
        found |= {f"{GUARD}.{guard}.{name}": _round(value) for name, value in figures.items()}
    return found


def eval_metrics(
    rows: Sequence[ExampleResult],
    guards: Guarded,
    of_the_set: Mapping[str, SetMetric] = NO_SET_METRICS,
) -> dict[str, float]:
    """The finite metrics of results alone: without train examples there is no overfit gap."""
    figures = best_metrics(Evaluation(tuple(rows), (), (), math.nan, guards), of_the_set)
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def final_metrics(training: Training, evaluation: Evaluation) -> dict[str, float]:
    """The figures of the last evaluation point; no pass rate, since nothing is generated there."""
    last = training.evals[-1] if training.evals else EvalPoint(0, 0.0, math.nan, math.nan)
    train_loss = token_mean_loss(evaluation.final_train_examples)
    return {
        "eval_loss": _round(last.eval_loss),
        "train_loss": _round(train_loss),
        "overfit_gap": _round(last.eval_loss - train_loss),
        "token_accuracy": _round(last.token_accuracy),
        "perplexity": _round(perplexity(last.eval_loss)),
    }


def split_name(name: str) -> tuple[str, str | None]:
    """`pass_rate[negation]` -> (`pass_rate`, `negation`); the tag is None for the whole set."""
    base, bracket, rest = name.partition("[")
    return (base, rest[:-1]) if bracket and rest.endswith("]") else (name, None)


def format_figure(name: str, value: float) -> str:
    """A figure for display: rates in percent, losses with four decimals.

    Of what depends on scoring, NaN is the figure of examples that are still to be scored.
    """
    if math.isnan(value):
        return "unscored" if depends_on_scoring(name) else "nan"
    if is_rate(name):
        return f"{100 * value:.1f}%"
    return f"{value:.4f}"


def number_text(value: float) -> str:
    """A setting's value as people write it: `2e-4`, `0.05`."""
    if not math.isfinite(value) or value == 0 or 0.01 <= abs(value) < 1e6:
        return f"{value:.6g}"
    mantissa, _, exponent = f"{value:.5e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _figures(
    examples: Sequence[ExampleResult], train_examples: Sequence[ExampleResult]
) -> dict[str, float]:
    eval_loss, train_loss = token_mean_loss(examples), token_mean_loss(train_examples)
    return {
        "eval_loss": _round(eval_loss),
        "train_loss": _round(train_loss),
        "overfit_gap": _round(eval_loss - train_loss),
        "pass_rate": _round(pass_rate(examples)),
        "token_accuracy": _round(token_accuracy(examples)),
        "perplexity": _round(perplexity(eval_loss)),
        **{name: _round(value) for name, value in mean_scores(examples).items()},
        **{name: _round(value) for name, value in sampled_rates(examples).items()},
    }


def _with_train_figures(
    figures: Mapping[str, float], train_figures: Mapping[str, float]
) -> dict[str, float]:
    """Train losses that are known without their examples, and the gaps that follow."""
    found: dict[str, float] = {}
    for name, train_loss in train_figures.items():
        tag = split_name(name)[1]
        of_tag = f"[{tag}]" if tag else ""
        if f"eval_loss{of_tag}" in figures:
            gap = _round(figures[f"eval_loss{of_tag}"] - train_loss)
            found |= {f"train_loss{of_tag}": train_loss, f"overfit_gap{of_tag}": gap}
    return found


def _lacks(results: Sequence[ExampleResult], tag: str) -> bool:
    return not any(tag in row.tags for row in results)


def _round(value: float) -> float:
    return round(value, DECIMALS) + 0.0  # + 0.0: no -0.0 in the log
