"""Judge a loop by what is logged: nothing is trained, nothing is written, torch is not needed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.loop.loop import Loop

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.loop.options import Options
    from pytest_ftloop.loop.result import LoopResult


def replay(
    config: LoopConfig, options: Options, fail_on: frozenset[str] | None = None
) -> LoopResult:
    """The loop as its log has it, with the verdict by each of its regression gates.

    A loop without such a gate is compared by the defaults, as information. `fail_on` are the kinds
    of verdict that fail, in place of the loop file's. A `StaleLogError` where something would have
    to be trained.
    """
    if fail_on is not None:
        strict = tuple(sorted(fail_on - {"regressed"}))
        rules = tuple(replace(rule, fail_on=strict) for rule in config.regressions)
        config = replace(config, regressions=rules)
    loop = replaying(config, options)
    result = loop.judge(loop.run())
    lenient = tuple((rule, _lenient(verdict, fail_on)) for rule, verdict in result.verdicts)
    return replace(result, verdicts=lenient)


def replaying(config: LoopConfig, options: Options) -> Loop:
    """The loop, ready to be replayed: running and judging it only reads its log."""
    options = replace(options, replay=True, retrain=False, retrain_baseline=False)
    # Nothing is scored in a replay: any scorer serves in place of pytest's hook.
    return Loop(config, options, hook=lambda *_: False)


def gated(config: LoopConfig) -> LoopConfig:
    """The loop with a regression gate: its own, else one with the defaults."""
    return replace(config, regressions=config.regressions or (Regression(),))


def _lenient(verdict: Verdict, fail_on: frozenset[str] | None) -> Verdict:
    """The verdict, passing where a regression is not among what is to fail."""
    if fail_on is None or verdict.kind != "regressed" or "regressed" in fail_on:
        return verdict
    return replace(verdict, ok=True)
