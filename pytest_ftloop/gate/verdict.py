"""The verdict on a candidate, with what it was compared with and every figure behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pytest_ftloop.core.metrics import format_figure, is_rate, metric_of
from pytest_ftloop.gate.statistic import PairedTest

Kind = Literal["improved", "unchanged", "regressed", "inconclusive", "not comparable", "incomplete"]
MetricKind = Literal["improved", "unchanged", "regressed", "inconclusive"]

FAILING: frozenset[str] = frozenset({"regressed", "incomplete"})
"""Verdicts that always fail. A gate's `fail_on` may add others."""

ENVIRONMENT_CHANGED = "environment changed"
"""What the reason of a verdict begins with where only another environment makes it not comparable.
Judgements in the log keep it."""

TRAINED_ANEW = "what is trained changed as well, so nothing shows whether the model got worse"
"""The note of a verdict that fails because training changed together with eval set or scoring."""

SEEDS_MISSING = "in doubt, and the log has"
"""What the reason begins with where the log lacks the seeds that decide; it names the cure."""

NOT_LOGGED = "whose log was never committed"
"""How the reason ends where the baseline's commit has a version that its log does not hold."""


@dataclass(frozen=True)
class Change:
    """One metric of candidate and baseline, on their common examples.

    `baseline` and `candidate` are the metric's own figures, as means over the seeds. In `test` a
    change above 0 is worse, whatever the metric. `p` is that of the direction of the change, after
    Holm's correction over the metrics tested together. `decide` states how many seeds or examples
    would settle an inconclusive change. `against` is what it is compared with, where a verdict has
    several such: the base, or the baseline.
    """

    metric: str
    baseline: float
    candidate: float
    test: PairedTest
    p: float
    kind: MetricKind
    decide: str = ""
    against: str = ""

    @property
    def label(self) -> str:
        """The metric, and what it is compared with if that is not the verdict's own baseline."""
        return f"{self.metric} ({self.against})" if self.against else self.metric

    @property
    def text(self) -> str:
        """`pass_rate 77.5% -> 71.7% (-5.8 points)`, and of several seeds that it is their mean."""
        shown = f"{self.metric} {format_figure(self.metric, self.baseline)}"
        figures = f"{shown} -> {format_figure(self.metric, self.candidate)}"
        moved = change_text(self.metric, self.candidate - self.baseline)
        said = f"{figures} ({', '.join(filter(None, [moved, seeds_text([self])]))})"
        return f"{said} against the {self.against}" if self.against else said

    def as_record(self) -> dict[str, Any]:
        """The figures as plain values, for the log."""
        return {
            "metric": self.metric,
            "kind": self.kind,
            "baseline": self.baseline,
            "candidate": self.candidate,
            "change": self.test.change,
            "p": self.p,
            "se": self.test.se,
            "df": self.test.df,
            "tau": self.test.tau,
            "nu": self.test.nu,
            "upper": self.test.upper,
            "detectable": self.test.detectable,
            "examples": self.test.n,
            "seeds": [self.test.k_baseline, self.test.k_candidate],
            **({"against": self.against} if self.against else {}),
        }


@dataclass(frozen=True, repr=False)
class Verdict:
    """The result of comparing a candidate with its baseline.

    `candidate`, `baseline` and `anchor` are names of iterations (`003-3fa9c1d2`), or None.
    `against` names the baseline's commit for people. `changes` decide; `tags`, and `runs` (figures
    of whole runs), are only reported. `slide` holds the changes against the anchor. `common` of
    `total` examples were compared. `fixed` and `broken` are ids of examples.
    """

    kind: Kind
    ok: bool
    because: str
    candidate: str
    baseline: str | None = None
    against: str = ""
    anchor: str | None = None
    alpha: float = 0.01
    changes: tuple[Change, ...] = ()
    tags: tuple[Change, ...] = ()
    runs: tuple[Change, ...] = ()
    slide: tuple[Change, ...] = ()
    common: int = 0
    total: int = 0
    fixed: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """`regressed: eval_loss 0.353 -> 0.402 (+0.049), p 0.0004 ...`."""
        return f"{self.kind}: {self.because}"

    def __repr__(self) -> str:
        """As `str`, because `assert best.verdict.ok, best.verdict` shows it."""
        return str(self)

    def change(self, metric: str) -> Change | None:
        """The change of one metric, such as `eval_loss` or `pass_rate[negation]`, if tested."""
        found = (c for c in (*self.changes, *self.tags, *self.runs) if c.metric == metric)
        return next(found, None)

    def as_record(self) -> dict[str, Any]:
        """The verdict as plain values: without path or time; only `context` may name commits."""
        return {
            "kind": self.kind,
            "ok": self.ok,
            "because": self.because,
            "candidate": self.candidate,
            "baseline": self.baseline,
            "anchor": self.anchor,
            "alpha": self.alpha,
            "examples": {"common": self.common, "of": self.total},
            "changes": [change.as_record() for change in self.changes],
            "tags": [change.as_record() for change in self.tags],
            "runs": [change.as_record() for change in self.runs],
            "slide": [change.as_record() for change in self.slide],
            "fixed": list(self.fixed),
            "broken": list(self.broken),
            "notes": list(self.notes),
            "context": list(self.context),
        }


def seeds_text(changes: Sequence[Change]) -> str:
    """`mean of 3 seeds`, `mean of 3 seeds against 1 run`; empty if each side is a single run.

    Other parts of a report show the figure of a single run, so it has to be told which this is.
    """
    if not changes or max(seeds := (changes[0].test.k_candidate, changes[0].test.k_baseline)) == 1:
        return ""
    new, old = ("1 run" if k == 1 else f"mean of {k} seeds" for k in seeds)
    return new if new == old else f"{new} against {old.replace('mean', 'the mean')}"


def change_text(metric: str, difference: float) -> str:
    """`+0.0491`, `-5.8 points`: a difference between two of the metric's own figures."""
    if is_rate(metric):
        return f"{round(100 * difference, 1) + 0.0:+.1f} points"
    return f"{round(difference, 4) + 0.0:+.4f}"  # + 0.0: no -0.0000


def amount_text(metric: str, amount: float) -> str:
    """`0.0491`, `5.8 points`: the size of a change, without its sign."""
    return change_text(metric, abs(amount)).lstrip("+")


def p_text(p: float) -> str:
    """`0.0031`, `< 0.0001`: a p-value to two figures."""
    return f"{p:.2g}" if p >= 1e-4 else "< 0.0001"


def is_better(metric: str, new: float, old: float) -> bool:
    """Whether a figure improved."""
    return metric_of(metric).improved(new, old)
