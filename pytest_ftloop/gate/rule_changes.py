"""The differences of two loop files in what decides whether a model passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.gates import Gate, Lift, Regression
from pytest_ftloop.config.judge import Judge
from pytest_ftloop.config.scoring import Scoring, needs_generation
from pytest_ftloop.gate.thresholds import check_gate

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.config.sources import GuardSource
    from pytest_ftloop.core.records import Iteration

REMOVED, NONE = "removed", "not set"

_AMOUNTS = (("alpha", False), ("max_regression", True), ("min_regression", True))
"""Keys of a regression gate that are numbers, and whether a larger one lets more pass."""

_LISTS = ("metrics", "fail_on", "against")

RULE_KEYS = (*(key for key, _ in _AMOUNTS), *_LISTS)
"""The keys of a regression gate; a change of one is named `regression.alpha`."""


@dataclass(frozen=True)
class GateChange:
    """One thing that decides what passes: its name, how it was, how it is now.

    `loosened`: a model that failed before can pass now. Where that can't be told from the two
    values, it is True: the reviewer should look. Of a threshold that was loosened or removed `held`
    is whether the candidate's `figure` holds by the old bound; None where it is not known.
    """

    name: str
    before: str
    after: str
    loosened: bool
    held: bool | None = None
    figure: str = ""


def rule_changes(
    before: LoopConfig, after: LoopConfig, candidate: Iteration | None = None
) -> Iterator[GateChange]:
    """The differences in thresholds, regression gates, scoring, and how the best is chosen.

    Thresholds that were loosened are checked with the candidate's figures as they were.
    """
    yield from _thresholds(before.gates, after.gates, candidate)
    yield from _regressions(before.comparisons, after.comparisons)
    yield from _guards(before, after)
    yield from _scoring(before.scoring, after.scoring)
    yield from _of_the_set(before.metrics, after.metrics)
    if before.loop.seeds != after.loop.seeds:
        fewer = after.loop.seeds < before.loop.seeds
        yield _change("loop.seeds", before.loop.seeds, after.loop.seeds, loosened=fewer)
    for name, old, new in (
        ("loop.metric", *_metrics(before, after)),
        ("data.train_sample", before.train_sample, after.train_sample),
    ):
        if old != new:
            yield _change(name, old, new, loosened=True)
    if before.holdout != after.holdout and _is_plain(before.holdout, after.holdout):
        added = before.holdout is None
        yield _change("data.holdout", before.holdout, after.holdout, loosened=not added)


def _metrics(before: LoopConfig, after: LoopConfig) -> tuple[str, str]:
    """What both choose the best iteration by; where neither states it, the gates alone changed."""
    stated = before.loop.metric, after.loop.metric
    return ("", "") if stated == (None, None) else (before.metric_of(()), after.metric_of(()))


def _thresholds(
    before: Sequence[Gate], after: Sequence[Gate], candidate: Iteration | None
) -> Iterator[GateChange]:
    old, new = ({gate.name: gate for gate in gates} for gates in (before, after))
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        said = [g.condition if g else "" for g in (was, now)]
        if said[0] != said[1]:
            loosened = was is not None and (now is None or _is_looser(was, now))
            change = GateChange(name, said[0] or NONE, said[1] or REMOVED, loosened)
            yield _by_the_old(change, was, candidate) if was and candidate else change


def _by_the_old(change: GateChange, was: Gate, candidate: Iteration) -> GateChange:
    """The change with what the old threshold gives; a lift is decided by a test, not by a bound."""
    if not change.loosened or isinstance(was, Lift):
        return change
    checked = check_gate(was, candidate)
    return replace(change, held=checked.passed, figure=checked.shown)


def _is_looser(was: Gate, now: Gate) -> bool:
    if now.bound == was.bound:
        return len(now.op) > len(was.op)  # `>=` lets the bound itself pass, `>` does not
    return (now.bound < was.bound) == (now.better == "higher")


def _regressions(before: Sequence[Regression], after: Sequence[Regression]) -> Iterator[GateChange]:
    old, new = ({rule.name: rule for rule in rules} for rules in (before, after))
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        if was is None or now is None:
            said = [_rule_text(rule) if rule else "" for rule in (was, now)]
            yield GateChange(name, said[0] or NONE, said[1] or REMOVED, loosened=now is None)
            continue
        for key, more_is_looser in _AMOUNTS:
            a, b = getattr(was, key), getattr(now, key)
            if a != b:
                yield _change(f"{name}.{key}", a, b, loosened=(b > a) == more_is_looser)
        for key in _LISTS:
            a, b = getattr(was, key, ()), getattr(now, key, ())
            if set(a) != set(b):
                yield _change(f"{name}.{key}", a, b, loosened=not set(a) <= set(b))


def _of_the_set(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[GateChange]:
    """Metrics of the set that were added, removed, or are computed in another way."""
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield _change(f"metrics.{name}", old, new, loosened=old is not None)


def _guards(before: LoopConfig, after: LoopConfig) -> Iterator[GateChange]:
    """Guards that were added, removed, or are other rows or scored in another way."""
    old, new = ({guard.name: guard for guard in at.guards} for at in (before, after))
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        said = [str(guard.source) if guard else "" for guard in (was, now)]
        if said[0] != said[1]:
            key = f"data.guards.{name}"
            yield GateChange(key, said[0] or NONE, said[1] or REMOVED, loosened=was is not None)
        if was is not None and now is not None and was.scoring != now.scoring:
            # Where both are scored as the eval set, a change of its scoring is named once.
            scored = _scoring_of(was, before), _scoring_of(now, after)
            for change in _scoring_of_guard(*scored):
                yield replace(change, name=f"data.guards.{name}.{change.name}")


def _scoring_of(guard: GuardSource, config: LoopConfig) -> Scoring | None:
    """How a guard's rows are scored: as the eval set, where it states nothing; None for not."""
    if guard.scoring is not None:
        return guard.scoring
    return config.scoring if needs_generation(config.scoring) else None


def _scoring_of_guard(before: Scoring | None, after: Scoring | None) -> Iterator[GateChange]:
    if before is not None and after is not None:
        yield from _scoring(before, after)
    elif before != after:
        names = [scoring.scorer if scoring else None for scoring in (before, after)]
        yield _change("scoring", *names, loosened=after is None)


def _rule_text(rule: Regression) -> str:
    fails = f", fail_on {_text(rule.fail_on)}" if rule.fail_on else ""
    return (
        f"alpha {rule.alpha:g}, min_regression {rule.min_regression:g}, max_regression "
        f"{rule.max_regression:g}, {_text(rule.metrics)}{fails}"
    )


def _scoring(before: Scoring, after: Scoring) -> Iterator[GateChange]:
    for key in (each.name for each in fields(Scoring)):
        old, new = getattr(before, key), getattr(after, key)
        if old == new:
            continue
        if key == "judge" and old is not None and new is not None:
            yield from _judge(old, new)
            continue
        tightened = (key == "threshold" and None not in (old, new) and new < old) or (
            key == "ignore_case" and old
        )
        yield _change(f"scoring.{key}", old, new, loosened=not tightened)


def _judge(before: Judge, after: Judge) -> Iterator[GateChange]:
    """What of a judge decides its grades, key by key: not where it is served, or its key."""
    old, new = before.identity, after.identity
    for key in dict.fromkeys((*old, *new)):
        if old.get(key) != new.get(key):
            yield _change(f"scoring.judge.{key}", old.get(key), new.get(key), loosened=True)


def _is_plain(*sources: Any) -> bool:
    """Whether these are as a loop file states them; live objects can't be compared."""
    return all(source is None or isinstance(source, str | dict) for source in sources)


def _change(name: str, before: Any, after: Any, *, loosened: bool) -> GateChange:
    return GateChange(name, _text(before), _text(after) if after is not None else REMOVED, loosened)


def _text(value: Any) -> str:
    """A value as people read it in the loop file."""
    if value is None or value == ():
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Judge):
        return value.model
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
