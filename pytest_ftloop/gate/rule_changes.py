"""The differences of two loop files in what decides whether a model passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.gates import Gate, Regression
from pytest_ftloop.config.scoring import Scoring

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import GuardSource, LoopConfig

REMOVED, NONE = "removed", "not set"


@dataclass(frozen=True)
class GateChange:
    """One thing that decides what passes: its name, how it was, how it is now.

    `loosened`: a model that failed before can pass now. Where that can't be told from the two
    values, it is True: the reviewer should look.
    """

    name: str
    before: str
    after: str
    loosened: bool


def rule_changes(before: LoopConfig, after: LoopConfig) -> Iterator[GateChange]:
    """The differences in thresholds, regression gates, scoring, and how the best is chosen."""
    yield from _thresholds(before.gates, after.gates)
    yield from _regressions(before.comparisons, after.comparisons)
    yield from _guards(before.guards, after.guards)
    yield from _scoring(before.scoring, after.scoring)
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


def _thresholds(before: Sequence[Gate], after: Sequence[Gate]) -> Iterator[GateChange]:
    old, new = ({gate.name: gate for gate in gates} for gates in (before, after))
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        said = [g.condition if g else "" for g in (was, now)]
        if said[0] != said[1]:
            loosened = was is not None and (now is None or _is_looser(was, now))
            yield GateChange(name, said[0] or NONE, said[1] or REMOVED, loosened)


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
        for key, more_is_looser in (
            ("alpha", False),
            ("max_regression", True),
            ("min_regression", True),
        ):
            a, b = getattr(was, key), getattr(now, key)
            if a != b:
                yield _change(f"{name}.{key}", a, b, loosened=(b > a) == more_is_looser)
        for key in ("metrics", "fail_on", "against"):
            a, b = getattr(was, key, ()), getattr(now, key, ())
            if set(a) != set(b):
                yield _change(f"{name}.{key}", a, b, loosened=not set(a) <= set(b))


def _guards(before: Sequence[GuardSource], after: Sequence[GuardSource]) -> Iterator[GateChange]:
    """Guards that were added, removed, or are other rows or scored in another way."""
    old, new = ({guard.name: guard for guard in guards} for guards in (before, after))
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        said = [str(guard.source) if guard else "" for guard in (was, now)]
        if said[0] != said[1]:
            key = f"data.guards.{name}"
            yield GateChange(key, said[0] or NONE, said[1] or REMOVED, loosened=was is not None)
        if was is not None and now is not None and was.scoring != now.scoring:
            stated = [guard.scoring or Scoring() for guard in (was, now)]
            for change in _scoring(*stated):
                yield replace(change, name=f"data.guards.{name}.{change.name}")


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
        tightened = (key == "threshold" and None not in (old, new) and new < old) or (
            key == "ignore_case" and old
        )
        yield _change(f"scoring.{key}", old, new, loosened=not tightened)


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
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
