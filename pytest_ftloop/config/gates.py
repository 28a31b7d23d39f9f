"""The gates of a loop file: thresholds on metrics, and no regression."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from pytest_ftloop.core.errors import ConfigError, Locate, Location, did_you_mean
from pytest_ftloop.core.metrics import (
    METRICS,
    guard_and_metric,
    is_rate,
    is_score,
    metric_of,
    split_name,
)
from pytest_ftloop.core.sampled import is_sampled_metric, k_of, recorded_ks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from pytest_ftloop.config.scoring import Scoring


OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}
"""The comparisons that a condition may begin with."""

PROVEN = ("regression", "lift", "forgetting")
"""The gates that are judged by a test, not by a threshold."""

LIFTED = ("pass_rate", "eval_loss", "token_accuracy")
"""The metrics of examples that a lift can be of, besides scores."""

OF_GUARDS = ("eval_loss", "pass_rate", "token_accuracy", "perplexity")
"""The metrics of a guard, besides its scores."""

OF_TRAIN_SAMPLE = frozenset({"train_loss", "overfit_gap"})
"""Metrics that need the sample of the train set, which may lack a tag of the eval set."""

NO_METRICS: Mapping[str, str] = MappingProxyType({})

ALPHA = 0.01
"""The usual level of a test: the highest probability of a false alarm, or of an unproven gain."""

LEAST_ALPHA = 1e-4
"""The least `alpha`. With nothing measured yet (four degrees of freedom), this one already needs a
drop of about 37 points; with a smaller one hardly any drop could be proven."""

MOST_ALPHA = 0.5
"""`alpha` is below this: here a coin toss would fail the gate."""

LARGEST_DROP = 0.5
"""The largest `min_regression` and `max_regression`: half of the loss, or 50 points. A gate that
lets more pass would not fail for a model that is broken."""

COMPARED = ("eval_loss", "pass_rate", "token_accuracy", "overfit_gap")
"""The metrics that the regression gate compares, besides scores and the loop's own metrics."""

_CONDITION = re.compile(
    r"\s*(?P<op>[<>]=?)\s*"
    r"(?P<bound>[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?)"
    r"\s*(?P<percent>%?)\s*"
)


_LIFT = re.compile(
    r"\s*>=\s*(?P<bound>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?)"
    r"\s*(?P<points>points?|)\s*"
)


@dataclass(frozen=True)
class Gate:
    """A threshold for one metric, over the whole eval set or one tag (`pass_rate[negation]`)."""

    name: str
    op: str
    bound: float
    line: int | None = None

    @property
    def metric(self) -> str:
        """The metric without its tag."""
        return split_name(self.name)[0]

    @property
    def tag(self) -> str | None:
        """The tag, or None for the whole eval set."""
        return split_name(self.name)[1]

    @property
    def text(self) -> str:
        """The condition in words, as `eval_loss <= 3.4`."""
        return f"{self.name} {self.op} {_number(self.bound)}"

    @property
    def condition(self) -> str:
        """The condition without the name, as people read it: `>= 90%`."""
        return f"{self.op} {exact_figure(self.metric, self.bound)}"

    @property
    def better(self) -> Literal["lower", "higher"]:
        """Whether a lower or a higher figure passes more."""
        return metric_of(self.metric).better


@dataclass(frozen=True)
class Lift(Gate):
    """The least that training must gain over the untrained base, proven by a test.

    `name` is `lift` (of the pass rate), or `lift[metric]`. The figure is the improvement, whatever
    the metric's direction: `bound` is a share for rates, nats for a loss.
    """

    @property
    def metric(self) -> str:
        """The metric that must have improved."""
        return split_name(self.name)[1] or "pass_rate"

    @property
    def tag(self) -> str | None:
        """None: it is of the whole eval set."""
        return None

    @property
    def text(self) -> str:
        """The condition in words, as `lift >= 10 points`."""
        return f"{self.name} {self.condition}"

    @property
    def condition(self) -> str:
        """`>= 10 points`, or `>= 0.5` for a loss."""
        if not is_rate(self.metric):
            return f"{self.op} {_number(self.bound)}"
        return f"{self.op} {_number(round(100 * self.bound, 6))} points"

    @property
    def better(self) -> Literal["lower", "higher"]:
        """A larger gain is better, also of a loss."""
        return "higher"


@dataclass(frozen=True)
class Regression:
    """The regression gate: not worse than the last committed version.

    `name` is `regression`, or `regression[tag]` for the examples with a tag. `alpha` is the highest
    probability of a false alarm. A drop below `min_regression` never fails; unless a drop of
    `max_regression` can be ruled out, the verdict is inconclusive. Both are relative to the loss,
    and absolute for rates. `fail_on` names verdicts that fail besides regressed and incomplete,
    which always do.
    `stated` is False for the gate that judges a loop which states none.
    """

    name: str = "regression"
    alpha: float = ALPHA
    max_regression: float = 0.05
    min_regression: float = 0.01
    metrics: tuple[str, ...] = ("eval_loss", "pass_rate")
    fail_on: tuple[str, ...] = ()
    line: int | None = None
    stated: bool = True

    @property
    def tag(self) -> str | None:
        """The tag, or None for the whole eval set."""
        return split_name(self.name)[1]


DEFAULT_REGRESSION = Regression(stated=False)
"""Judges a loop that states no regression gate."""

Against = Literal["base", "baseline"]


@dataclass(frozen=True)
class Forgetting(Regression):
    """The forgetting gate: no guard worse than the base, or than the last committed version.

    `name` is `forgetting` for all guards, or `forgetting[guard]`. The other fields are as for a
    regression.
    """

    name: str = "forgetting"
    against: tuple[Against, ...] = ("base", "baseline")

    @property
    def tag(self) -> str | None:
        """Empty, not None, which is for gates on the whole eval set: it is on other rows."""
        return ""

    @property
    def guard(self) -> str | None:
        """The guard, or None for all."""
        return split_name(self.name)[1]


DEFAULT_FORGETTING = Forgetting(stated=False)
"""Judges a loop that has guards and states no forgetting gate: what must not be forgotten is
judged wherever it is stated."""


def metrics_of(gate: Gate | Regression) -> tuple[str, ...]:
    """The metrics that a gate is about."""
    return gate.metrics if isinstance(gate, Regression) else (gate.metric,)


def implied_metric(gates: Iterable[Gate]) -> str:
    """What the best iteration is chosen by where the loop file does not state it.

    The pass rate, or a score, if every threshold is about that one; else the eval loss. Without a
    threshold the lifts say it. Thresholds on a guard do not count: they are no aim.
    """
    aims = [gate for gate in gates if guard_and_metric(gate.metric) is None]
    asked = {g.metric for g in [g for g in aims if not isinstance(g, Lift)] or aims}
    only = next(iter(asked)) if len(asked) == 1 else ""
    return only if only == "pass_rate" or is_score(only) else "eval_loss"


def check_scores(
    gates: Iterable[Gate | Regression],
    metric: str | None,
    scores: Collection[str],
    scoring: Scoring,
    locate: Locate,
) -> None:
    """Raise a ConfigError for a gate, or a `loop.metric`, about a score that is not given.

    `scores` are the metrics of the scores that the scorer gives.
    """
    asked = [
        (f"gate {gate.name}", name, locate(f"gates.{gate.name}"))
        for gate in gates
        for name in metrics_of(gate)
    ]
    asked += [("loop.metric", metric, locate("loop.metric"))] if metric else []
    for what, name, where in asked:
        if is_score(name) and name not in scores:
            given = ", ".join(sorted(scores)) or "no score"
            raise ConfigError(
                f"{what}: wanted {name}, but the scorer {scoring.scorer!r} gives {given}",
                where=where,
                cure=did_you_mean(name, scores)
                if scores
                else "Choose a scorer that gives scores, or ask for the pass_rate.",
            )


def parse_gate(
    name: str,
    condition: object,
    where: Location | None = None,
    of_the_set: Mapping[str, str] = NO_METRICS,
) -> Gate:
    """The gate that `name: condition` in a loop file states, such as `eval_loss: "<= 3.4"`.

    `of_the_set` are the loop's metrics of the whole set, by name.
    """
    if split_name(name)[0] == "lift":
        return _parse_lift(name, condition, where)
    metric = _known_metric(name, where, of_the_set)
    good, usual = (">=", 0.9) if metric_of(metric).better == "higher" else ("<=", 3.4)
    wanted = f'wanted {good} or {good[0]} and a number, such as "{good} {usual}"'
    if not isinstance(condition, str):
        raise ConfigError(
            f"gate {name}: {wanted}, found {condition!r} ({type(condition).__name__})",
            where=where,
            cure=f'Write {name}: "{good} {condition if _usable(condition, metric) else usual}".',
        )
    cure = f'Write {name}: "{good} {usual}".'
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise ConfigError(f"gate {name}: {wanted}, found {condition!r}", where=where, cure=cure)
    op, percent = match["op"], bool(match["percent"])
    if percent and not is_rate(metric):
        raise ConfigError(
            f"gate {name}: only pass_rate, token_accuracy and scores can be in percent, "
            f"found {condition!r}",
            where=where,
            cure=cure,
        )
    if op[0] != good[0]:
        raise ConfigError(
            f"gate {name}: {metric_of(metric).better} is better for {metric}, found {condition!r}",
            where=where,
            cure=f'Write {name}: "{good[0]}{condition.strip()[1:]}".',
        )
    bound = parse_number(match["bound"], percent=percent)
    if not math.isfinite(bound):
        raise ConfigError(f"gate {name}: {wanted}, found {condition!r}", where=where, cure=cure)
    if is_rate(metric) and not 0 <= bound <= 1:
        meant = f"Did you mean {_number(bound / 100)} or {_number(bound)}%?"
        raise ConfigError(
            f"gate {name}: wanted a share from 0 to 1, found {condition!r}",
            where=where,
            cure=meant if 1 < bound <= 100 and not percent else cure,
        )
    return Gate(name=name, op=op, bound=bound, line=where.line if where else None)


def _parse_lift(name: str, condition: object, where: Location | None) -> Lift:
    """The gate that `lift: ">= 10 points"` or `lift[eval_loss]: ">= 0.5"` states."""
    metric = split_name(name)[1] if "[" in name else "pass_rate"
    compared = metric is not None and (is_score(metric) or is_sampled_metric(metric))
    if metric is None or not (metric in LIFTED or compared):
        raise ConfigError(
            f"gate {name}: wanted lift, or lift and a metric of examples in brackets",
            where=where,
            cure=f"Choose one of {', '.join(LIFTED)}, score or score.<name>: lift[eval_loss].",
        )
    usual = "10 points" if is_rate(metric) else "0.5"
    match = _LIFT.fullmatch(condition) if isinstance(condition, str) else None
    if match is None or bool(match["points"]) != is_rate(metric):
        unit = " and points" if is_rate(metric) else ""
        raise ConfigError(
            f'gate {name}: wanted >= and a number{unit}, such as ">= {usual}", found {condition!r}',
            where=where,
            cure=f'Write {name}: ">= {usual}".',
        )
    bound = parse_number(match["bound"], percent=is_rate(metric))
    if not 0 <= bound <= (1 if is_rate(metric) else 100):
        raise ConfigError(
            f"gate {name}: wanted a gain from 0 to 100, found {condition!r}",
            where=where,
            cure=f'Write {name}: ">= {usual}"; ">= 0" asks for any gain.',
        )
    return Lift(name=name, op=">=", bound=bound, line=where.line if where else None)


def checked_option(key: str, value: float) -> float:
    """The value of `--alpha` or `--max-regression`, within the bounds of the loop file's key."""
    if key == "alpha":
        fits, wanted = (
            LEAST_ALPHA <= value < MOST_ALPHA,
            f"from {LEAST_ALPHA:g}, below {MOST_ALPHA}",
        )
    else:
        fits, wanted = 0 < value <= LARGEST_DROP, f"above 0, {LARGEST_DROP} at most"
    if not fits:
        option = key.replace("_", "-")
        raise ConfigError(f"--{option}: wanted a number {wanted}, found {value:g}")
    return value


def regression_tag(name: str, where: Location | None) -> str | None:
    """The tag of `regression[tag]`, None for `regression`; a ConfigError for any other name."""
    base, tag = split_name(name)
    if base != "regression" or tag == "":
        raise ConfigError(
            f"gate {name}: wanted regression, or regression and a tag, such as "
            "regression[negation]",
            where=where,
        )
    return tag


def check_compared(
    name: str, metrics: Iterable[str], of_the_set: Mapping[str, str], where: Location | None
) -> None:
    """Raise a ConfigError for a metric of the regression gate `name` that can't be compared."""
    for metric in metrics:
        known = metric in {*COMPARED, *of_the_set} or is_score(metric)
        if not known and not is_sampled_metric(metric):
            raise ConfigError(
                f"gate {name}: unknown metric {metric!r}",
                where=where,
                cure=did_you_mean(metric, {*COMPARED, *of_the_set}),
            )
        if split_name(name)[1] is not None and ":" in of_the_set.get(metric, ""):
            raise ConfigError(
                f"gate {name}: {metric}, a metric of your own, is computed of the whole eval set "
                "only",
                where=where,
                cure="Leave it out of the metrics of this gate.",
            )


def check_sampled(gates: Iterable[Gate | Regression], samples: int, where_file: str) -> None:
    """Raise a ConfigError for the first gate on pass@k or pass^k whose k is not recorded."""
    for gate in gates:
        for name in filter(is_sampled_metric, metrics_of(gate)):
            if k_of(name) in recorded_ks(samples):
                continue
            ks = ", ".join(map(str, recorded_ks(samples)))
            raise ConfigError(
                f"gate {gate.name}: {name} is not recorded with scoring.samples {samples}",
                where=Location(where_file, gate.line),
                cure=f"With so many samples k is one of {ks}." if ks else "Set scoring.samples.",
            )


def _known_metric(name: str, where: Location | None, of_the_set: Mapping[str, str]) -> str:
    metric, tag = split_name(name)
    if tag == "" or ("[" in name and tag is None):
        raise ConfigError(
            f"gate {name}: wanted a metric, or a metric and a tag, such as pass_rate[negation]",
            where=where,
        )
    if (guarded := guard_and_metric(metric)) and tag is None:
        if guarded[1] in OF_GUARDS or is_score(guarded[1]):
            return metric
        raise ConfigError(
            f"gate {name}: a guard has no metric {guarded[1]!r}",
            where=where,
            cure=did_you_mean(guarded[1], OF_GUARDS),
        )
    if metric in of_the_set:
        if tag is not None and ":" in of_the_set[metric]:
            raise ConfigError(
                f"gate {name}: a metric of your own is computed of the whole eval set only",
                where=where,
                cure=f"Write {metric} without a tag.",
            )
        return metric
    if metric not in METRICS and not is_score(metric) and not is_sampled_metric(metric):
        raise ConfigError(
            f"gate {name}: unknown metric {metric!r}",
            where=where,
            cure=did_you_mean(metric, {*METRICS, *of_the_set, *PROVEN} - {metric}),
        )
    return metric


def _usable(condition: object, metric: str) -> bool:
    """Whether a condition is a mere number, which the cure can suggest as the bound."""
    most = 1 if is_rate(metric) else 1e6
    return type(condition) in (int, float) and 0 <= condition <= most  # type: ignore[operator]


def parse_number(text: str, *, percent: bool) -> float:
    """The number in a condition: 28.9, or 0.289 if it is a percentage."""
    # Decimal makes 28.9% the same float as 0.289: otherwise a rate equal to the bound may fail.
    return float(Decimal(text) / 100 if percent else Decimal(text)) + 0.0  # + 0.0: no -0.0


def forgetting_guard(name: str, where: Location | None) -> str | None:
    """The guard of `forgetting[guard]`, None for `forgetting`; a ConfigError for another name."""
    base, guard = split_name(name)
    if base != "forgetting" or guard == "":
        raise ConfigError(
            f"gate {name}: wanted forgetting, or forgetting and a guard, such as "
            "forgetting[general]",
            where=where,
        )
    return guard


def check_guards(
    gates: Iterable[Gate | Regression], guards: Iterable[str], where_file: str | Path
) -> Iterator[ConfigError]:
    """A mistake for each gate on a guard that the loop does not have."""
    known = set(guards)
    for gate in gates:
        if isinstance(gate, Forgetting):
            guard = gate.guard
        else:
            guard = (guard_and_metric(split_name(gate.name)[0]) or (None,))[0]
        missing = guard not in known if guard else isinstance(gate, Forgetting) and not known
        if missing:
            what = f"no guard is called {guard!r}" if guard else "the loop has no guards"
            yield ConfigError(
                f"gate {gate.name}: {what}",
                where=Location(str(where_file), gate.line),
                cure=did_you_mean(guard, known)
                if guard and known
                else "State the rows to guard: data.guards: {general: guard.jsonl}.",
            )


def exact_figure(metric: str, value: float) -> str:
    """The figure without rounding: `90%` for a rate, `3.4` otherwise."""
    if not is_rate(metric):
        return _number(value)
    return f"{(Decimal(repr(float(value))) * 100).normalize():f}%"


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
