"""A pytest run that trains what `ftloop ci` names, whatever the user's `addopts` select.

`ftloop ci --train` loads this module with `-p`. Plugins, the import mode, ini settings and options
of the user's own conftest.py stay as they are, because scorers and hooks may need them. Only
options that select tests, stop early or forbid training are undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

UNDONE: Mapping[str, Any] = {
    # which tests run
    "keyword": "",
    "markexpr": "",
    "deselect": None,
    "ignore": None,
    "ignore_glob": None,
    "pyargs": False,
    "lf": False,
    "failedfirst": False,
    "newfirst": False,
    "stepwise": False,
    "stepwise_skip": False,
    # whether they run, and to the end
    "maxfail": 0,
    "collectonly": False,
    "setuponly": False,
    "setupplan": False,
    "showfixtures": False,
    "show_fixtures_per_test": False,
    "markers": False,
    "cacheshow": None,
    "help": False,
    "version": 0,
    "usepdb": False,
    "trace": False,
    # what this plugin does
    "ftloop_replay": False,
    "ftloop_retrain": False,
    "ftloop_retrain_baseline": False,
    "ftloop_iterations": None,
    "ftloop_report": None,
}
"""Options by the name of their value, each with what it is without them."""

_OWN = {"ftloop_baseline": "--ftloop-baseline", "ftloop_log": "--ftloop-log"}
"""Options that the command line itself may have: they are undone where only `addopts` has them."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Undo the options of `addopts` and `PYTEST_ADDOPTS`, before anything acts on them."""
    undone = dict(UNDONE)
    given = [str(argument) for argument in config.invocation_params.args]
    for name, option in _OWN.items():
        if not any(argument.startswith(f"{option}=") for argument in given):
            undone[name] = None
    for name, value in undone.items():
        if hasattr(config.option, name):  # another version of pytest may lack one
            setattr(config.option, name, value)
