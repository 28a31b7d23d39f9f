"""Whether a guard got worse: each guard's rows compared with the base's and the baseline's.

The test is the regression gate's, on the guard's rows. One Holm correction covers all that is
tested: every guard and metric, against the base and against the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_ftloop.config.gates import Forgetting, Regression
from pytest_ftloop.core.metrics import (
    GUARD,
    depends_on_scoring,
    guard_and_metric,
    guard_metrics,
    is_rate,
    is_score,
)
from pytest_ftloop.core.records import ExampleResult, Iteration
from pytest_ftloop.core.runs import Measured
from pytest_ftloop.core.sampled import has_score
from pytest_ftloop.gate.compare import Side, compare
from pytest_ftloop.gate.paired import Groups
from pytest_ftloop.gate.statistic import corrected
from pytest_ftloop.gate.verdict import TRAINED_ANEW, Change, Verdict, amount_text, p_text


@dataclass(frozen=True)
class Reference:
    """What a candidate's guards are compared with: the base, the baseline, the parent.

    Without a `side`, `why` says why there is none, and `fails` whether that fails the gate: a base
    can always be measured, a baseline need not exist.
    """

    name: str
    side: Side | None = None
    why: str = ""
    fails: bool = False


def judge_guards(
    candidate: Side, references: Sequence[Reference], groups: Groups, rule: Forgetting
) -> Verdict:
    """The verdict of a forgetting gate on a candidate.

    A guard that the candidate was not measured on, or a base that is missing, is incomplete.
    """
    iteration, notes = candidate.iteration, []
    names = [rule.guard] if rule.guard is not None else list(iteration.guards)
    verdict = Verdict("unchanged", ok=True, because="", candidate=iteration.name, alpha=rule.alpha)
    if missing := [name for name in names if not iteration.guards.get(name)]:
        return _incomplete(verdict, f"{iteration.name} has no results of the guard {missing[0]}")
    if not names:
        return _incomplete(verdict, f"{iteration.name} has no results of any guard")
    raw: list[Change] = []
    trained_anew = False
    for reference in references:
        if reference.side is None:
            if reference.fails:
                return _incomplete(verdict, reference.why)
            notes.append(f"not compared with the {reference.name}: {reference.why}")
            continue
        for guard in names:
            judged, without = _with_something_to_lose(guard, reference, rule)
            notes += without
            found = _compared(guard, candidate, reference.side, groups, judged)
            where = f"guard {guard} against the {reference.name}"
            if found.kind == "incomplete" or (reference.fails and not found.changes):
                return _incomplete(verdict, f"{where}: {found.because}")
            trained_anew |= TRAINED_ANEW in found.notes
            if not found.changes:
                notes.append(f"{where} is not compared: {found.because}")
            raw += [_of_guard(change, guard, reference.name) for change in found.changes]
    if trained_anew and not raw:
        notes.append(TRAINED_ANEW)
    return _concluded(verdict, _corrected(raw, rule), notes, rule)


def of_guard(run: Measured, guard: str) -> Measured:
    """A run with a guard's rows in place of the eval set's, to be compared like those.

    Rows that are not scored count as failed on both sides: only their loss is compared.
    """
    rows = tuple(
        replace(row, passed=False) if row.passed is None else row for row in run.guards[guard]
    )
    facts = run.data.get(f"{GUARD}.{guard}", {})
    return replace(
        run,
        examples=rows,
        metrics=_figures(rows),
        scoring=facts.get("scoring") or {},
        data={"train": run.data.get("train", {}), "eval": facts},
    )


def _figures(rows: Sequence[ExampleResult]) -> Mapping[str, float]:
    found = guard_metrics({"-": rows}).items()
    return {named[1]: value for name, value in found if (named := guard_and_metric(name))}


def _compared(
    guard: str, candidate: Side, reference: Side, groups: Groups, rule: Forgetting
) -> Verdict:
    """The verdict on one guard against one reference, before correction."""
    sides = (candidate.iteration, reference.iteration)
    metrics = tuple(name for name in rule.metrics if any(_has(s, guard, name) for s in sides))
    if not metrics:
        why = f"it has no scoring that gives {' or '.join(rule.metrics)}"
        return Verdict("incomplete", ok=False, because=why, candidate=candidate.iteration.name)
    new, old = (_side_of(side, guard) for side in (candidate, reference))
    if old is None or new is None:
        why = "it was not measured on this guard"
        return Verdict("not comparable", ok=False, because=why, candidate=candidate.iteration.name)
    same = [[of_guard(run, guard) for run in group if run.guards.get(guard)] for group in groups]
    alone = Regression(
        alpha=rule.alpha,
        max_regression=rule.max_regression,
        min_regression=rule.min_regression,
        metrics=metrics,
    )
    return compare(new, old, None, [group for group in same if len(group) > 1], alone)


def _with_something_to_lose(
    guard: str, reference: Reference, rule: Forgetting
) -> tuple[Forgetting, list[str]]:
    """The rule without rates that are 0% of the reference, which can't be forgotten; and why.

    A rule of nothing else keeps them: there is always something that is judged.
    """
    assert reference.side is not None
    figures = _figures(reference.side.iteration.guards.get(guard, ()))
    empty = [name for name in rule.metrics if depends_on_scoring(name) and figures.get(name) == 0]
    left = tuple(name for name in rule.metrics if name not in empty)
    if not empty or not left:
        return rule, []
    note = (
        f"guard {guard} against the {reference.name}: {' and '.join(empty)} of the "
        f"{reference.name} is 0%, so there is nothing to forget by it; judged by {', '.join(left)}"
    )
    return replace(rule, metrics=left), [note]


def _has(run: Iteration, guard: str, name: str) -> bool:
    """Whether a guard's rows have what a metric is computed from; one that has it is enough.

    Guards are scored in different ways: a gate on all of them asks each for what it has.
    """
    if not depends_on_scoring(name):
        return True
    rows = [row for row in run.guards.get(guard, ()) if row.passed is not None]
    return any(not is_score(name) or has_score(row, name) for row in rows)


def _side_of(side: Side, guard: str) -> Side | None:
    """A side with a guard's rows in place of the eval set's; None if it lacks them."""
    runs = tuple(of_guard(run, guard) for run in side.runs if run.guards.get(guard))
    if not side.iteration.guards.get(guard) or not runs:
        return None
    iteration = of_guard(side.iteration, guard)
    assert isinstance(iteration, Iteration)
    return Side(iteration, runs)


def _of_guard(change: Change, guard: str, against: str) -> Change:
    return replace(change, metric=f"{GUARD}.{guard}.{change.metric}", against=against)


def _corrected(raw: Sequence[Change], rule: Forgetting) -> tuple[Change, ...]:
    """The changes with p-values corrected over all of them, and judged by these."""
    worse, better = corrected([change.test for change in raw])
    changes = []
    for change, p_worse, p_better in zip(raw, worse, better, strict=True):
        p = p_worse if change.test.change > 0 else p_better
        kind = change.kind
        if kind in {"regressed", "improved"} and p > rule.alpha:
            kind = "inconclusive" if change.decide else "unchanged"
        changes.append(replace(change, p=p, kind=kind))
    return tuple(changes)


def _concluded(
    verdict: Verdict, changes: tuple[Change, ...], notes: Sequence[str], rule: Forgetting
) -> Verdict:
    """The verdict that the corrected changes give together."""
    verdict = replace(verdict, changes=changes, notes=tuple(notes))
    if not changes:
        because = "; ".join(notes)
        # Other rows to guard together with another training would be a way past the gate.
        ok = "not comparable" not in rule.fail_on and TRAINED_ANEW not in notes
        return replace(verdict, kind="not comparable", ok=ok, because=because)
    if forgotten := [change for change in changes if change.kind == "regressed"]:
        return replace(verdict, kind="regressed", ok=False, because="; ".join(_texts(forgotten)))
    if open_ := [change for change in changes if change.kind == "inconclusive"]:
        first = open_[0]
        most = amount_text(first.metric, first.test.upper)
        because = (
            f"{first.text}: nothing forgotten is proven, but it could be worse by up to {most}, "
            f"more than max_regression ({rule.max_regression:.0%}) allows; {first.decide}"
        )
        return replace(
            verdict, kind="inconclusive", ok="inconclusive" not in rule.fail_on, because=because
        )
    return replace(verdict, because="no guard got worse: " + "; ".join(c.text for c in changes))


def _texts(forgotten: Sequence[Change]) -> Iterator[str]:
    for change in forgotten:
        yield f"{change.text}, p {p_text(change.p)}"


def _incomplete(verdict: Verdict, because: str) -> Verdict:
    return replace(verdict, kind="incomplete", ok=False, because=because)


def could_fail(change: Change, rule: Forgetting) -> bool:
    """Whether more seeds could show that a guard got worse by enough to fail."""
    unit = 1.0 if is_rate(change.metric) else abs(change.baseline)
    return change.test.change >= rule.min_regression * unit
