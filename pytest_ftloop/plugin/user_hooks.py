"""The user's hooks as plain functions, so that the loop need not know pytest."""

from __future__ import annotations

from inspect import signature
from os.path import abspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.scoring import SCORE_HOOK
from pytest_ftloop.core.files import real
from pytest_ftloop.core.sources import CONFTEST
from pytest_ftloop.diagnose import custom as diagnosis
from pytest_ftloop.evaluate.scorers import row_of

if TYPE_CHECKING:
    import pluggy
    import pytest

    from pytest_ftloop.adjust.function import Adjust
    from pytest_ftloop.core.records import Example, Finding
    from pytest_ftloop.diagnose.custom import Diagnose
    from pytest_ftloop.diagnose.evidence import Evidence
    from pytest_ftloop.evaluate.scored import UserScorer


def score_hook(config: pytest.Config, folder: Path) -> UserScorer | None:
    """The `pytest_ftloop_score` of the loops in a folder as a scorer; None if there is none."""
    hook = _hook_of(config, SCORE_HOOK, folder)
    if not hook.get_hookimpls():
        return None

    def score(example: Example, output: str) -> object:
        found: object = hook(
            output=output,
            expected=(example.expected or "").strip(),
            example=row_of(example),
            prompt=example.prompt or "",
        )
        return found

    return score


def adjust_hook(config: pytest.Config, folder: Path, loop: str) -> Adjust | None:
    """The `pytest_ftloop_adjust` for a loop in a folder; None if there is none."""
    hook = _hook_of(config, "pytest_ftloop_adjust", folder)
    if not hook.get_hookimpls():
        return None
    return lambda chain: hook(loop=loop, chain=chain)


def diagnose_hook(config: pytest.Config, folder: Path) -> Diagnose | None:
    """The `pytest_ftloop_diagnose` of the loops in a folder; None if there is none."""
    found = _hook_of(config, diagnosis.NAME, folder).get_hookimpls()
    # Reversed, the list is in the order in which pluggy calls: the last registered first.
    plugins = list(dict.fromkeys(impl.plugin for impl in reversed(found)))
    if not plugins:
        return None

    def findings(evidence: Evidence) -> list[Finding]:
        # One plugin at a time, so that an error message can name the plugin at fault.
        return [f for plugin in plugins for f in _diagnosed_by(config, plugin, evidence)]

    return findings


def _diagnosed_by(config: pytest.Config, plugin: object, evidence: Evidence) -> tuple[Finding, ...]:
    manager = config.pluginmanager
    implementing = manager.hook.pytest_ftloop_diagnose.get_hookimpls()
    others = [impl.plugin for impl in implementing if impl.plugin is not plugin]
    hook = manager.subset_hook_caller(diagnosis.NAME, others)

    def ask() -> object:
        answers = hook(evidence=evidence)
        return answers[0] if answers else None

    return diagnosis.findings_of_hook(manager.get_name(plugin) or repr(plugin), ask)


def _hook_of(config: pytest.Config, name: str, folder: Path) -> pluggy.HookCaller:
    """A hook as pytest calls it for a file in `folder`: without other folders' conftest.py files.

    pytest calls the nearest conftest.py first.
    """
    _load_conftests(config, folder)
    manager = config.pluginmanager
    # A linked folder has two paths, and a conftest.py above either of them counts.
    above = {place for start in (_plain(folder), real(folder)) for place in (start, *start.parents)}
    strangers = [
        impl.plugin
        for impl in getattr(manager.hook, name).get_hookimpls()
        if (file := _conftest_file(impl.plugin)) and not above & {file.parent, real(file).parent}
    ]
    return manager.subset_hook_caller(name, strangers)


def _conftest_file(plugin: object) -> Path | None:
    """The file of a plugin that is a conftest.py."""
    file = getattr(plugin, "__file__", None)
    return Path(file) if file and Path(file).name == CONFTEST else None


def _load_conftests(config: pytest.Config, folder: Path) -> None:
    """Load the conftest.py files of a folder that pytest did not collect.

    A test may run a loop file of a folder that was not named. pytest has no public way to do this.
    """
    manager = config.pluginmanager
    options: dict[str, Any] = {"importmode": config.getoption("importmode")}
    options["rootpath"] = config.rootpath
    if "consider_namespace_packages" in signature(manager._loadconftestmodules).parameters:
        options["consider_namespace_packages"] = config.getini("consider_namespace_packages")
    manager._loadconftestmodules(_plain(folder), **options)


def _plain(folder: Path) -> Path:
    """An absolute path without `..`. Links are not followed, as pytest does not follow them."""
    return Path(abspath(folder))  # noqa: PTH100
