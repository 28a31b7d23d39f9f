"""One loop on the page: its records, and which of them the page has room for.

Nothing is read or judged here; `gather` does that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_ftloop.core.records import Iteration, SeedRun
from pytest_ftloop.gate.gate_changes import GateChanges
from pytest_ftloop.gate.holdout import HoldoutReport
from pytest_ftloop.gate.thresholds import GateResult
from pytest_ftloop.gate.verdict import Verdict

MOST_ITERATIONS = 40
"""Most iterations on a page: more curves could not be told apart."""

MOST_RESULTS = 60_000
"""Most results of examples on a page, over all iterations: 12 iterations of 5,000 examples, with
outputs of two lines each, make a file of about 10 MB."""


@dataclass(frozen=True)
class LoopReport:
    """One loop's log for the page.

    `iterations` are all iterations of the log, by number. `chain` holds the ids of those that start
    from the loop file's settings. `verdicts` (with the gate's name) compare with `baseline`, which
    may be missing from `iterations`: its commit may hold another training of the same settings.
    `is_gated`: a failing verdict fails the loop; otherwise it informs only. `prompts` are by id and
    content. `note` is a problem of the log, or empty. `unjudged` are the gates of the loop that
    nothing judged for this page, by name. `gate_changes` is how they differ from the baseline's
    commit, if that was looked at. `metric` is what the best iteration was chosen by.
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
    unjudged: tuple[str, ...] = ()
    gate_changes: GateChanges | None = None
    metric: str = "eval_loss"

    @property
    def base(self) -> Iteration | None:
        """The untrained base as iteration 0, if it was measured."""
        return next((it for it in self.iterations if it.is_untrained), None)


@dataclass(frozen=True)
class Shown:
    """An iteration on the page; its `label` is unique there.

    `is_outside`: a baseline that the log does not hold, but the commit that is compared with.
    """

    iteration: Iteration
    label: str
    is_best: bool
    is_baseline: bool
    is_outside: bool
    in_chain: bool
    same_eval_set: bool
    has_examples: bool


def shown(report: LoopReport) -> tuple[Shown, ...]:
    """The iterations on the page. A baseline that is not in the log comes first."""
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
            is_outside=it is outside,
            in_chain=it is not outside and (not report.chain or it.id in report.chain),
            same_eval_set=_eval_set(it) == eval_set,
            has_examples=id(it) in with_examples,
        )
        for it in every
    )


def left_out(report: LoopReport) -> int:
    """The number of iterations for which the page has no room."""
    return len(report.iterations) - len(_most_wanted(report))


def _most_wanted(report: LoopReport) -> list[Iteration]:
    """The log's iterations, without the oldest ones of a long log."""
    ranked = sorted(report.iterations, key=lambda it: (-_rank(report, it), -it.number))
    kept = {id(it) for it in ranked[:MOST_ITERATIONS]}
    return [it for it in report.iterations if id(it) in kept]


def _within_budget(report: LoopReport, iterations: list[Iteration]) -> set[int]:
    """The iterations whose examples fit on the page: best and baseline, then the latest."""
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
    """Its position in the log, counted from 1; 0 if it is not in the log."""
    return next((n for n, it in enumerate(report.iterations, 1) if _is(it, wanted)), 0)


def _is(one: Iteration, other: Iteration | None) -> bool:
    """Whether both are the same training; equal settings may be trained twice, elsewhere."""
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
