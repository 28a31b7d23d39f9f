"""JUnit's `<properties>`: the figures of an item's loop, where CI services look for them."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.metrics import METRICS
from pytest_ftloop.report.properties import verdict_properties
from tests.plugin.conftest import WORSE

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

LOOP = {"ftloop_loop", "ftloop_iteration"}


def properties(project: Project) -> dict[str, dict[str, str]]:
    """What each item's properties say, by the item's name; no name twice."""
    cases = ElementTree.parse(project.path / "junit.xml").getroot().iter("testcase")
    pairs = {
        case.attrib["name"]: [(p.attrib["name"], p.attrib["value"]) for p in case.iter("property")]
        for case in cases
    }
    assert [] == [n for n, said in pairs.items() if len(said) != len(dict(said))]
    return {name: dict(said) for name, said in pairs.items()}


@pytest.mark.parametrize("family", ["xunit1", "xunit2"])
def test_figures_of_each_gate(project: Project, family: str) -> None:
    """Each item has the loop, its iteration and the whole set's metrics; a tag's on its own item.

    The figures are those of the log, as plain numbers.
    """
    done = project.run("--ftloop", "--junitxml=junit.xml", "-o", f"junit_family={family}")
    done.assert_outcomes(passed=2)
    said = properties(project)
    assert {*LOOP, *METRICS} == set(said["eval_loss"])
    assert {*LOOP, *METRICS, "pass_rate[negation]"} == set(said["pass_rate[negation]"])
    for values in said.values():
        assert ("x", "1.44", "1.0") == tuple(
            values[name] for name in ("ftloop_loop", "eval_loss", "pass_rate")
        )
        assert re.fullmatch(r"003-[0-9a-f]{8}", values["ftloop_iteration"])
        assert all(float(values[name]) is not None for name in METRICS)


def test_loop_without_gates(project: Project) -> None:
    """The item that says that a loop completes has the figures too."""
    text = (project.path / "x.ftloop.yaml").read_text(encoding="utf-8")
    kept = itertools.takewhile(lambda line: line != "gates:", text.split("\n"))
    project.write("x.ftloop.yaml", "\n".join([*kept, "loop: {iterations: 3, patience: 9}\n"]))
    project.run("--ftloop", "--junitxml=junit.xml").assert_outcomes(passed=1)
    assert {*LOOP, *METRICS} == set(properties(project)["completes"])


@pytest.mark.slow
def test_figures_with_xdist(project: Project) -> None:
    """The controller's file has what the workers measured."""
    pytest.importorskip("xdist")
    done = project.run_alone("--ftloop", "-n", "2", "--junitxml=junit.xml")
    assert 0 == done.returncode, done.stdout
    said = properties(project)
    assert {"eval_loss", "pass_rate[negation]"} == set(said)
    assert ["1.44", "1.44"] == [values["eval_loss"] for values in said.values()]


def test_verdict_of_the_regression_gate(gated: Project) -> None:
    """The gate's item has the verdict, and for each metric its change, p and detectable drop."""
    gated.rate(WORSE)
    gated.run("--ftloop", "--junitxml=junit.xml").assert_outcomes(failed=1)
    (values,) = properties(gated).values()
    assert "regressed" == values["regression verdict"]
    assert re.fullmatch(r"00\d-[0-9a-f]{8}", values["regression baseline"])
    for metric in ("eval_loss", "pass_rate"):
        change, p, drop = (
            float(values[f"regression {metric} {what}"]) for what in ("change", "p", "detectable")
        )
        assert (0 <= p <= 1, drop >= 0) == (True, True)
        assert (change > 0) == (metric == "eval_loss")
    assert {*LOOP, *METRICS} <= set(values)


AGAIN = """\
import pytest
from _pytest.runner import runtestprotocol

pytest_plugins = ["tests.plugin.fake_runner"]


def pytest_runtest_protocol(item, nextitem):
    item.user_properties.append(("mine", "kept"))
    runtestprotocol(item, nextitem=nextitem, log=False)  # as pytest-rerunfailures does
"""


def test_an_item_that_runs_again(gated: Project) -> None:
    """Each property stands once, with the last value, however often an item is run (reruns)."""
    gated.write(
        "x.ftloop.yaml",
        (gated.path / "x.ftloop.yaml")
        .read_text()
        .replace("regression: {}", "regression: {}\n  eval_loss: '<= 9'"),
    )
    gated.write("conftest.py", AGAIN)
    gated.run("--ftloop", "--junitxml=junit.xml")
    said = properties(gated)
    assert {"regression", "eval_loss"} == set(said)
    assert all("kept" == values["mine"] for values in said.values())


def test_names_are_safe(project: Project) -> None:
    """A tag's control characters and markup leave the file well-formed, also as property names."""
    tag = '<b>&"\\e[31m\\u202e'
    project.write(
        "eval.jsonl",
        (project.path / "eval.jsonl").read_text().replace("negation", '<b>&\\"\\u001b[31m\\u202e'),
    )
    text = (project.path / "x.ftloop.yaml").read_text(encoding="utf-8")
    key = f'"pass_rate[{tag}]"'.replace('&"', '&\\"')
    project.write("x.ftloop.yaml", text.replace("pass_rate[negation]", key))
    done = project.run("--ftloop", "--junitxml=junit.xml")
    done.assert_outcomes(passed=2)
    (name,) = {n for said in properties(project).values() for n in said} - {*LOOP, *METRICS}
    assert r'pass_rate[<b>&"\x1b[31m\u202e]' == name


def test_verdict_without_a_comparison() -> None:
    """Where nothing was compared, the verdict alone is told."""
    from pytest_ftloop.gate.verdict import Verdict

    verdict = Verdict("not comparable", ok=True, because="no version", candidate="001-aaaaaaaa")
    rule = Regression("regression[a\x01]")
    assert [(r"regression[a\x01] verdict", "not comparable")] == verdict_properties(verdict, rule)
