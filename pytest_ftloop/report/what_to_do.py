"""What to do about a failing verdict: sentences, each with the commands that it speaks of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.core.metrics import format_figure, is_rate
from pytest_ftloop.core.records import is_unscored
from pytest_ftloop.gate.difference import setting_changes
from pytest_ftloop.gate.lift import NO_BASE
from pytest_ftloop.gate.verdict import (
    ENVIRONMENT_CHANGED,
    NOT_LOGGED,
    SEEDS_MISSING,
    TRAINED_ANEW,
)
from pytest_ftloop.report import hints
from pytest_ftloop.report.cause import stated, without_data
from pytest_ftloop.report.escape import visible
from pytest_ftloop.report.layout import paragraph
from pytest_ftloop.report.phrases import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.loop.result import LoopResult

Step = tuple[str, list[str]]
"""A sentence, and its commands."""

MOST_SETTINGS = 3
"""Settings that are named to be set back; of more, the whole change is easier to revert."""

_NEW_START = "if the new start is intended, accept it, and commit the log"
_NOT_TRAINED = ("scoring.", "data.eval", "data.holdout", "data.guard")
"""Beginnings of the names of what does not change the weights, so can't have made them worse."""


def verdict_advice(result: LoopResult, verdict: Verdict, width: int) -> list[str]:
    """Sentences on a failing verdict, each followed by its commands, which are never shortened."""
    advice, accept = advice_parts(result, verdict, width)
    return [*advice, *accept]


def advice_parts(result: LoopResult, verdict: Verdict, width: int) -> tuple[list[str], list[str]]:
    """The advice; and how to accept a worse model as it is, which comes after all other advice."""
    first, *others = _what_to_do(result, verdict)
    told, commands = first
    advice = _lines((f"what to do: {told}", commands), width)
    return advice, [line for step in others for line in _lines(step, width)]


def _lines(step: Step, width: int) -> list[str]:
    told, commands = step
    end = ":" if commands else "."
    lines = paragraph(f"{told}{end}", width, "", "  ")
    return [*lines, *(f"  {command}" for command in commands)]


def _what_to_do(result: LoopResult, verdict: Verdict) -> list[Step]:
    if verdict.kind == "regressed":
        return list(_about_regression(result, verdict))
    return [_about_comparison(result, verdict)]


def _about_comparison(result: LoopResult, verdict: Verdict) -> Step:
    """What lets a verdict be reached that could not be, or decides one that is in doubt."""
    accept = hints.accept(result, "best", "--baseline")
    if verdict.because.endswith(NOT_LOGGED):
        told = (
            "train that version here, to compare with, and commit the log with it; or train it at "
            "its own commit, and commit that log first"
        )
        return told, [hints.retrain(result, "--ftloop-retrain-baseline")]
    if verdict.because.startswith(SEEDS_MISSING):
        return "train the missing seeds with the command above, and commit them", []
    if verdict.kind == "incomplete":
        if is_unscored(result.best):
            return "score it, which trains nothing again", [hints.retrain(result)]
        if NO_BASE in verdict.because:
            told = "measure the untrained base, which trains nothing again"
            return told, [hints.retrain(result)]
        return "train it again", [hints.retrain(result, "--ftloop-retrain")]
    if verdict.kind == "inconclusive":
        told = "train more seeds; more eval examples help too"
        return told, [hints.calibrate(result)]
    if TRAINED_ANEW in verdict.notes:
        told = (
            "change the eval set or the scoring first, with the training as it is, and commit that "
            f"version; or compare by a metric that both have; {_NEW_START}"
        )
        return told, [accept]
    if verdict.because.startswith(ENVIRONMENT_CHANGED):
        told = "train the baseline in this environment"
        return told, [hints.retrain(result, "--ftloop-retrain-baseline")]
    if verdict.baseline is None and verdict.against:
        told = (
            "put the old log back, under the loop's name (git mv), so that there is a version to "
            f"compare with; {_NEW_START}"
        )
        return told, [accept]
    if verdict.baseline is None:
        return "commit improvement_log/: the next version is compared with it", []
    return "if the change is intended, accept it, and commit the log", [accept]


def _about_regression(result: LoopResult, verdict: Verdict) -> Iterator[Step]:
    """How to undo it comes first; to accept a worse model comes last, as what it is."""
    baseline = result.baseline
    if any(change.against for change in verdict.changes):
        yield (
            "lower training.learning_rate or the epochs, or mix rows of the guarded task into the "
            "train set",
            [],
        )
    elif baseline is not None and _lacks_adjustments(result.best, baseline):
        told = (
            f"the loop file's own settings were judged, those of {baseline.name} were adjusted: "
            "write them into the loop file"
        )
        yield told, [hints.accept(result, baseline.number)]
    else:
        yield _undo(result)
    accept = hints.accept(result, "best", "--baseline")
    yield f"only if {_worse(verdict)}, accept it and commit", [accept]


def _undo(result: LoopResult) -> Step:
    """What to set back, by its name where only few things changed what is trained."""
    commit = result.standard.commit if result.standard else ""
    rows = [changed for changed in result.data_changes if changed.role == "train"]
    restored = [hints.restore(result, c.file, commit) for c in rows if c.file and commit]
    named = [*("restore data.train" for _ in rows), *_settings_back(result)]
    return ", ".join(named) or "revert the change", restored


def _settings_back(result: LoopResult) -> list[str]:
    """`set training.learning_rate back to 1e-3`; nothing of settings that the loop had adjusted."""
    if result.baseline is None:
        return []
    adjusted = {change.setting for it in result.chain for change in it.adjustments}
    changes = setting_changes(result.baseline, result.best)
    found = [
        change
        for change in without_data(changes, result.data_changes)
        if not change.name.startswith(_NOT_TRAINED) and change.name not in adjusted
    ]
    back = [
        f"remove {visible(change.name)}"
        if change.before is None
        else f"set {visible(change.name)} back to {stated(change.before)}"
        for change in found[:MOST_SETTINGS]
    ]
    left = len(found) - len(back)
    return [*back, *([f"and {plural(left, 'setting')} more"] if left else [])]


def _worse(verdict: Verdict) -> str:
    """`pass_rate 0.0% in place of 94.6% is intended`: a rate that is proven worse, else a loss."""
    worse = [change for change in verdict.changes if change.kind == "regressed"]
    if not worse:
        return "a worse model is intended"
    change = next((change for change in worse if is_rate(change.metric)), worse[0])
    now, before = (format_figure(change.metric, v) for v in (change.candidate, change.baseline))
    return f"{visible(change.metric)} {now} in place of {before} is intended"


def _lacks_adjustments(best: Iteration, baseline: Iteration) -> bool:
    """Whether the best is a start without the settings that the loop had found for the baseline.

    After `ftloop accept` the loop file has them, and the fault is elsewhere.
    """
    return not best.adjustments and any(
        best.settings.get(adjustment.setting) != baseline.settings.get(adjustment.setting)
        for adjustment in baseline.adjustments
    )
