"""What the page says of one loop: its records, and which of them it has room for.

Nothing is read or judged here: `html_report` gathers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_ftloop.core.records import Iteration, SeedRun
from pytest_ftloop.gate.holdout import HoldoutReport
from pytest_ftloop.gate.thresholds import GateResult
from pytest_ftloop.gate.verdict import Verdict

MOST_ITERATIONS = 40
"""Iterations on a page: more are no curves but a carpet."""

MOST_RESULTS = 60_000
"""Results of examples on a page, over all iterations: 12 iterations of 5,000 examples. With outputs
of two lines each, that is a file of about 10 MB."""


@dataclass(frozen=True)
class LoopReport:
    """One loop's log as it is shown.

    `iterations` are all in the log, in order of number; `chain` holds the ids of those that the
    loop's own settings lead to. `baseline` is what `verdicts` (by the gate's name) compare with. It
    need not be among the iterations: its commit may know another training of the same settings.
    `is_gated` says whether a failing verdict fails the loop, or only informs.
    `prompts` are by id and content. `note` says what is wrong with the log, if anything is.
    """

    loop: str
    source: str
    iterations: tuple[Iteration, ...]
    best: Iteration
    chain: frozenset[str] = frozenset()
    baseline: Iteration | None = None
    gates: tuple[GateResult, ...] = ()
    verdicts: tuple[tuple[str, Verdict], ...] = ()
    is_gated: bool = True
    holdout: HoldoutReport | None = None
    seed_runs: tuple[SeedRun, ...] = ()
    prompts: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)
    note: str = ""


@dataclass(frozen=True)
class Shown:
    """An iteration's place on the page; `label` is unique there."""

    iteration: Iteration
    label: str
    is_best: bool
    is_baseline: bool
    in_chain: bool
    same_eval_set: bool
    has_examples: bool


def shown(report: LoopReport) -> tuple[Shown, ...]:
    """The iterations on the page, the baseline first where it is none of the log's."""
    kept = _most_wanted(report)
    outside = report.baseline if report.baseline and not _index(report, report.baseline) else None
    every = ([outside] if outside else []) + kept
    with_examples = _within_budget(report, every)
    eval_set = _eval_set(report.best)
    numbers = [iteration.number for iteration in kept]
    return tuple(
        Shown(
            iteration=it,
            label=_label(it, numbers, is_outside=it is outside),
            is_best=it is not outside and it.fingerprint == report.best.fingerprint,
            is_baseline=_is(it, report.baseline),
            in_chain=it is not outside and (not report.chain or it.id in report.chain),
            same_eval_set=_eval_set(it) == eval_set,
            has_examples=id(it) in with_examples,
        )
        for it in every
    )


def left_out(report: LoopReport) -> int:
    """How many of the log's iterations the page has no room for."""
    return len(report.iterations) - len(_most_wanted(report))


def _most_wanted(report: LoopReport) -> list[Iteration]:
    """The log's iterations, but for the oldest of a long log."""
    ranked = sorted(report.iterations, key=lambda it: (-_rank(report, it), -it.number))
    kept = {id(it) for it in ranked[:MOST_ITERATIONS]}
    return [it for it in report.iterations if id(it) in kept]


def _within_budget(report: LoopReport, iterations: list[Iteration]) -> set[int]:
    """The iterations whose examples fit on the page: best and baseline always, then the last."""
    ranked = sorted(iterations, key=lambda it: (-_rank(report, it), -it.number))
    fitting: set[int] = set()
    used = 0
    for it in ranked:
        used += len(it.examples)
        if used <= MOST_RESULTS or _rank(report, it) > 1:
            fitting.add(id(it))
    return fitting


def _rank(report: LoopReport, iteration: Iteration) -> int:
    if iteration.fingerprint == report.best.fingerprint or _is(iteration, report.baseline):
        return 2
    return int(iteration.id in report.chain)


def _index(report: LoopReport, wanted: Iteration) -> int:
    """Its place in the log, from 1 on; 0 where it is none of the log's."""
    return next((n for n, it in enumerate(report.iterations, 1) if _is(it, wanted)), 0)


def _is(one: Iteration, other: Iteration | None) -> bool:
    """Whether both are one training: the same settings may have been trained elsewhere too."""
    return (
        other is not None
        and one.fingerprint == other.fingerprint
        and one.metrics == other.metrics
        and one.environment == other.environment
    )


def _label(iteration: Iteration, numbers: list[int], *, is_outside: bool) -> str:
    if is_outside:
        return f"{iteration.number} baseline"
    twice = numbers.count(iteration.number) > 1
    return f"{iteration.number} {iteration.id[:4]}" if twice else str(iteration.number)


def _eval_set(iteration: Iteration) -> object:
    facts = iteration.data.get("eval", {})
    return facts.get("sha256", facts.get("rows"))
