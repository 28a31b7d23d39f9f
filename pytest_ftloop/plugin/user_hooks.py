"""The user's hooks as plain functions, so that the loop need not know pytest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pytest_ftloop.diagnose import custom as diagnosis
from pytest_ftloop.evaluate.scorers import row_of

if TYPE_CHECKING:
    import pytest

    from pytest_ftloop.adjust.function import Adjust
    from pytest_ftloop.core.records import Example, Finding
    from pytest_ftloop.diagnose.custom import Diagnose
    from pytest_ftloop.diagnose.evidence import Evidence


def score_hook(config: pytest.Config) -> Callable[[Example, str], bool] | None:
    """The user's `pytest_ftloop_score` as a scorer; None if nobody implements it."""
    hook = config.hook.pytest_ftloop_score
    if not hook.get_hookimpls():
        return None

    def score(example: Example, output: str) -> bool:
        passed: bool = hook(
            output=output, expected=(example.expected or "").strip(), example=row_of(example)
        )
        return passed

    return score


def adjust_hook(config: pytest.Config, loop: str) -> Adjust | None:
    """The user's `pytest_ftloop_adjust` for this loop; None if nobody implements it."""
    hook = config.hook.pytest_ftloop_adjust
    if not hook.get_hookimpls():
        return None
    return lambda chain: hook(loop=loop, chain=chain)


def diagnose_hook(config: pytest.Config) -> Diagnose | None:
    """The user's `pytest_ftloop_diagnose`; None if nobody implements it."""
    found = config.hook.pytest_ftloop_diagnose.get_hookimpls()
    # Reversed, the list is in the order in which pluggy calls: the last registered first.
    plugins = list(dict.fromkeys(impl.plugin for impl in reversed(found)))
    if not plugins:
        return None

    def findings(evidence: Evidence) -> list[Finding]:
        # One plugin at a time, so that an error message can name the plugin at fault.
        return [f for plugin in plugins for f in _diagnosed_by(config, plugin, plugins, evidence)]

    return findings


def _diagnosed_by(
    config: pytest.Config, plugin: object, plugins: Sequence[object], evidence: Evidence
) -> tuple[Finding, ...]:
    manager = config.pluginmanager
    hook = manager.subset_hook_caller(diagnosis.NAME, [p for p in plugins if p is not plugin])

    def ask() -> object:
        answers = hook(evidence=evidence)
        return answers[0] if answers else None

    return diagnosis.findings_of_hook(manager.get_name(plugin) or repr(plugin), ask)
