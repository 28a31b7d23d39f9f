"""What the code offers to a user: options, settings, commands."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

from pytest_ftloop.cli.main import parser
from pytest_ftloop.plugin import entry as plugin


def options() -> dict[str, str]:
    """The options that the plugin adds, and what each takes."""
    added: dict[str, str] = {}
    group = SimpleNamespace(
        addoption=lambda name, metavar="", **_: added.update({name: metavar}),
    )
    parser = SimpleNamespace(getgroup=lambda *_: group, addini=lambda *_, **__: None)
    plugin.pytest_addoption(parser)  # type: ignore[arg-type]
    return added


def ini_settings() -> list[str]:
    """The ini settings that the plugin adds."""
    added: list[str] = []
    group = SimpleNamespace(addoption=lambda *_, **__: None)
    parser = SimpleNamespace(
        getgroup=lambda *_: group, addini=lambda name, *_, **__: added.append(name)
    )
    plugin.pytest_addoption(parser)  # type: ignore[arg-type]
    return added


def subparsers() -> dict[str, argparse.ArgumentParser]:
    actions = parser()._actions
    return dict(next(a.choices for a in actions if isinstance(a, argparse._SubParsersAction)))
