"""Judge a loop from its log, without training, writing, or torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from pytest_ftloop.config.gates import DEFAULT_REGRESSION, Regression
from pytest_ftloop.core.collector import reading
from pytest_ftloop.gate.verdict import FAILING
from pytest_ftloop.loop.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.loop.options import Options
    from pytest_ftloop.loop.result import LoopResult


Rule = TypeVar("Rule", bound=Regression)


def replay(
    config: LoopConfig, options: Options, fail_on: frozenset[str] = frozenset()
) -> LoopResult:
    """The loop's result from its log, with a verdict for each of its regression gates.

    A loop without a regression gate gets the verdict of a default one, for information. `fail_on`
    are kinds of verdict that fail beside those that the loop file names. Raises `StaleLogError` if
    something would have to be trained.
    """
    loop = replaying(stricter(config, fail_on), options)
    with reading():
        result = loop.judge(loop.run())
    return replace(result, verdicts=_with_notes(result.verdicts, result.notes))


def replaying(config: LoopConfig, options: Options) -> Loop:
    """The loop in replay: it only reads its log, and imports none of the user's code."""
    options = replace(options, replay=True, retrain=False, retrain_baseline=False)
    return Loop(config, options, reads=True)


def gated(config: LoopConfig) -> LoopConfig:
    """The loop with at least one regression gate: the default one if it has none."""
    return replace(config, regressions=config.regressions or (DEFAULT_REGRESSION,))


def stricter(config: LoopConfig, fail_on: frozenset[str]) -> LoopConfig:
    """The loop whose gates of comparison also fail on these kinds of verdict."""
    rules = tuple(stricter_rule(rule, fail_on) for rule in config.regressions)
    guarding = tuple(stricter_rule(rule, fail_on) for rule in config.forgetting)
    return replace(config, regressions=rules, forgetting=guarding)


def stricter_rule(rule: Rule, fail_on: frozenset[str]) -> Rule:
    """The gate that also fails on these kinds of verdict."""
    more = fail_on - FAILING  # these fail anyway
    return replace(rule, fail_on=tuple(sorted({*rule.fail_on, *more}))) if more else rule


def _with_notes(
    verdicts: tuple[tuple[Regression, Verdict], ...], notes: Sequence[str]
) -> tuple[tuple[Regression, Verdict], ...]:
    """The verdicts; the first, which every report shows, with the notes on the whole loop."""
    if not verdicts or not notes:
        return verdicts
    (rule, verdict), *others = verdicts
    return ((rule, replace(verdict, notes=(*verdict.notes, *notes))), *others)
