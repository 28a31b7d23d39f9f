"""The reference's options, hooks and variables of pytest are those of the plugin."""

from __future__ import annotations

import inspect
import re

import pytest

from pytest_ftloop.plugin import entry as plugin
from pytest_ftloop.plugin import hookspecs
from tests.docs.offered import ini_settings, options
from tests.docs.pages import PACKAGE, PAGES, REFERENCE, TEXTS, names, section, tables, ticked


def test_pytest_options() -> None:
    """The table of pytest's options has each option with what it takes, in order, and no other."""
    expected = [f"{name} {takes}".strip() for name, takes in options().items()]
    rows = tables(section(REFERENCE, "pytest options"))[0]
    assert expected == [ticked(row[0])[0] for row in rows]


def test_ini_settings() -> None:
    """The table of ini settings has each one, and no other."""
    assert ini_settings() == names(tables(section(REFERENCE, "pytest options"))[1])


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_an_option_that_does_not_exist(page: str) -> None:
    """Every --ftloop option in the documentation exists."""
    assert set() == set(re.findall(r"--ftloop[\w-]*", TEXTS[page])) - set(options())


def test_marker_fixture_and_hook(pytestconfig: pytest.Config) -> None:
    """The table has each marker, fixture and hook of the plugin, and no other."""
    table = tables(section(REFERENCE, "Marker, fixture and hook"))[0]
    markers = [line.partition(":")[0] for line in pytestconfig.getini("markers")]
    fixtures = [n for n, v in vars(plugin).items() if "Fixture" in type(v).__name__]
    hooks = [n for n in vars(hookspecs) if n.startswith("pytest_ftloop")]
    expected = [("ftloop", "marker")] if "ftloop" in markers else []
    expected += [(name, "fixture") for name in fixtures] + [(name, "hook") for name in hooks]
    assert expected == [(ticked(row[0])[0], row[1]) for row in table]


@pytest.mark.parametrize("hook", ["pytest_ftloop_score", "pytest_ftloop_diagnose"])
def test_hook_arguments(hook: str) -> None:
    """The hook is shown with its own arguments."""
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"{hook}({arguments})" in ticked(REFERENCE)


def test_environment_variables() -> None:
    """Each variable that the package reads or sets is in the table; ours have no other names."""
    documented = set(names(tables(section(REFERENCE, "Environment variables"))[0]))
    pattern = re.compile(r'environ(?:\.get|\.setdefault)?[\[(]\s*"(\w+)"')
    read = {name for file in PACKAGE.rglob("*.py") for name in pattern.findall(file.read_text())}
    assert set() == read - documented
    ours = {name for text in TEXTS.values() for name in re.findall(r"\bFTLOOP_\w+", text)}
    known = {"API_KEY", "CACHE", "CHROMIUM", "RECORDS", "TEST_CACHE", "TRACEBACK"}
    assert {f"FTLOOP_{name}" for name in known} == ours
