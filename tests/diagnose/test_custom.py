"""Findings of the user's own hook: what is taken, and what is a mistake with the plugin's name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.diagnose.custom import findings_of_hook
from tests.fakes import fake_finding

OWN = fake_finding("too-rude", "warning", evidence={"rude": 3, "share": 0.1, "worst": "e7"})


@pytest.mark.parametrize(
    ("said", "expected"),
    [(None, ()), ([], ()), ([OWN], (OWN,)), ((OWN, OWN), (OWN, OWN))],
    ids=["none", "empty", "a list", "a tuple"],
)
def test_findings(said: object, expected: tuple[object, ...]) -> None:
    """A list of findings is taken as it is; None says that there is nothing to say."""
    assert expected == findings_of_hook("my_plugin", lambda: said)


@pytest.mark.parametrize(
    ("said", "phrase"),
    [
        (OWN, "wanted a list of findings, found Finding"),
        ("too rude", "wanted a list of findings, found str"),
        (7, "wanted a list of findings, found int"),
        ([OWN, "rude"], "finding 2: wanted a pytest_ftloop.Finding, found str"),
        ([replace(OWN, kind="")], "finding 1: wanted a text as kind, found ''"),
        ([replace(OWN, kind=None)], "wanted a text as kind, found None"),
        ([replace(OWN, message=" ")], "wanted a text as message, found ' '"),
        ([replace(OWN, severity="bad")], "wanted one of error, warning, info as severity"),
        ([replace(OWN, tunable=1)], "wanted true or false as tunable, found 1"),
        ([replace(OWN, evidence=[1])], "wanted a dict as evidence, found list"),
        ([replace(OWN, evidence={"a": [1]})], "as evidence, found 'a': [1]"),
        ([replace(OWN, evidence={1: 1})], "as evidence, found 1: 1"),
        ([replace(OWN, remedy=None)], "wanted a text as remedy, found None"),
    ],
)
def test_mistakes(said: Any, phrase: str) -> None:
    """Anything else is an error that names the plugin and what was wanted."""
    with pytest.raises(ConfigError) as caught:
        findings_of_hook("my_plugin", lambda: said)
    assert "pytest_ftloop_diagnose of my_plugin: " in str(caught.value)
    assert phrase in str(caught.value)


def test_an_exception_names_the_plugin_and_the_place() -> None:
    """A hook that raises is told as its own mistake."""

    def ask() -> object:
        raise KeyError("rude")

    with pytest.raises(ConfigError, match=r"of my_plugin raised KeyError: 'rude'\n.*test_custom"):
        findings_of_hook("my_plugin", ask)
