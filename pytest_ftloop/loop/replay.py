"""Judge a loop from its log, without training, writing, or torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.loop.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.loop.options import Options
    from pytest_ftloop.loop.result import LoopResult


def replay(
    config: LoopConfig, options: Options, fail_on: frozenset[str] | None = None
) -> LoopResult:
    """The loop's result from its log, with a verdict for each of its regression gates.

    A loop without a regression gate gets the verdict of a default one, for information. `fail_on`
    are the kinds of verdict that fail, in place of the loop file's. Raises `StaleLogError` if
    something would have to be trained.
    """
    if fail_on is not None:
        strict = tuple(sorted(fail_on - {"regressed"}))
        rules = tuple(replace(rule, fail_on=strict) for rule in config.regressions)
        config = replace(config, regressions=rules)
    loop = replaying(config, options)
    result = loop.judge(loop.run())
    lenient = tuple((rule, _lenient(verdict, fail_on)) for rule, verdict in result.verdicts)
    return replace(result, verdicts=_with_notes(lenient, result.notes))


def replaying(config: LoopConfig, options: Options) -> Loop:
    """The loop in replay: running and judging it only reads its log."""
    options = replace(options, replay=True, retrain=False, retrain_baseline=False)
    # Nothing is scored in a replay, so any function can take the place of pytest's scoring hook.
    return Loop(config, options, hook=lambda *_: False)


def gated(config: LoopConfig) -> LoopConfig:
    """The loop with at least one regression gate: the default one if it has none."""
    return replace(config, regressions=config.regressions or (Regression(),))


def _with_notes(
    verdicts: tuple[tuple[Regression, Verdict], ...], notes: Sequence[str]
) -> tuple[tuple[Regression, Verdict], ...]:
    """The verdicts; the first, which every report shows, with the notes on the whole loop."""
    if not verdicts or not notes:
        return verdicts
    (rule, verdict), *others = verdicts
    return ((rule, replace(verdict, notes=(*verdict.notes, *notes))), *others)


def _lenient(verdict: Verdict, fail_on: frozenset[str] | None) -> Verdict:
    """The verdict; a regression passes if `fail_on` is given and does not list it."""
    if fail_on is None or verdict.kind != "regressed" or "regressed" in fail_on:
        return verdict
    return replace(verdict, ok=True)
