"""The pages of diagnosis and adjustment list what the rules and the policy have."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import sys
from typing import TYPE_CHECKING, Any

from pytest_ftloop.adjust import decide, state
from pytest_ftloop.diagnose import (
    chain,
    confusions,
    courses,
    curves,
    dynamics,
    invalid_json,
    lift,
    slices,
    wiring,
)
from pytest_ftloop.diagnose import data as diagnose_data
from pytest_ftloop.diagnose.any_trainer import advice, incomparable, preferences, rewards
from pytest_ftloop.report.phrases import _STOPS
from tests.docs.pages import DIAGNOSIS, TEXTS, names, section, tables, ticked

if TYPE_CHECKING:
    from collections.abc import Callable


def test_finding_kinds() -> None:
    """The table has each kind of finding with its severity, and each has a source."""
    every = (*curves.RULES, *chain.RULES)
    homes = dict.fromkeys(sys.modules[rule.__module__] for rule in every)
    sources_of = "".join(map(inspect.getsource, homes))
    made = re.findall(r'kind="([\w-]+)",\s*severity="(\w+)"', sources_of)
    rules = {rule.__name__.replace("_", "-") for rule in every}
    (signals,) = tables(section(DIAGNOSIS, "Findings"))
    (sources,) = tables(section(TEXTS["docs/appendix.md"], "Where the thresholds come from"))
    assert rules == {kind for kind, _ in made}
    assert set(made) == {(names([row])[0], row[1].partition(",")[0]) for row in signals}
    assert rules == set(names(sources))


def test_finding_kinds_of_base_and_guards() -> None:
    """The table has each rule on the base and the guards with its severity, in order."""
    (rows,) = tables(section(DIAGNOSIS, "Base and guards"))
    kinds = [rule.__name__.replace("_", "-") for rule in lift.RULES]
    assert kinds == names(rows)
    said = [row[1] for row in rows]
    assert [severities(rule) for rule in lift.RULES] == [{severity} for severity in said]


def severities(rule: Callable[..., Any]) -> set[str]:
    """Those that a rule, or what it calls to make its finding, may give."""
    tree = ast.parse(inspect.getsource(sys.modules[rule.__module__]))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found, todo = set(), [rule.__name__]
    for name in todo:
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.keyword) and node.arg == "severity":
                constants = [n for n in ast.walk(node) if isinstance(n, ast.Constant)]
                found |= {n.value for n in constants} & {"error", "warning", "info"}
            called = isinstance(node, ast.Call) and getattr(node.func, "id", "")
            todo += [called] if called in functions and called not in todo else []
    return found


def test_finding_kinds_of_data_and_wiring() -> None:
    """The table has each rule over data and wiring, in order, with every severity it may give."""
    rules = (*wiring.RULES, *diagnose_data.RULES)
    rows = tables(section(DIAGNOSIS, "Data and wiring"))[0]
    assert [rule.__name__.replace("_", "-") for rule in rules] == names(rows)
    homes = dict.fromkeys(sys.modules[rule.__module__] for rule in rules)
    sources = "".join(map(inspect.getsource, homes))
    assert set(names(rows)) == set(re.findall(r'kind="([\w-]+)"', sources))
    said = [set(re.findall(r"\b(error|warning|info)\b", row[1])) for row in rows]
    assert [severities(rule) for rule in rules] == said


def test_finding_kinds_of_examples() -> None:
    """The other table has each kind that is found by looking at the examples."""
    sources = [inspect.getsource(module) for module in (dynamics, slices, confusions, courses)]
    made = re.findall(r'kind="([\w-]+)",\s*severity="(\w+)"', "".join(sources))
    severity = re.findall(r'kind=kind,\s*severity="(\w+)"', sources[-1])
    made += [(kind, *severity) for kind in re.findall(r'_of_courses\(\s*"([\w-]+)"', sources[-1])]
    last = inspect.getsource(invalid_json)
    made += re.findall(r'kind="([\w-]+)",\s*severity="(\w+)"', last)
    rows = tables(section(DIAGNOSIS, "Failing examples"))[0]
    assert made == [(names([row])[0], re.split("[,;]", row[1])[0]) for row in rows]


def test_finding_kinds_of_other_trainers() -> None:
    """The tables have each kind that only another trainer's run can have, with its severity."""
    for table, modules in zip(
        tables(section(DIAGNOSIS, "Another trainer's run")),
        ((incomparable, advice), (rewards, preferences)),
        strict=True,
    ):
        sources = "".join(map(inspect.getsource, modules))
        made = re.findall(r'kind="([\w-]+)",\s*severity="(\w+)"', sources)
        assert set(made) == {(names([row])[0], row[1]) for row in table}


def test_stop_reasons() -> None:
    """The table has each stop reason, in order, and its name in the summary."""
    asked = re.findall(r'Decision\(\s*"stop",\s*"(\w+)"', inspect.getsource(decide))
    rows = tables(section(DIAGNOSIS, "Stop reasons"))[0]
    assert asked == [names([row])[0] for row in rows]
    assert dict(_STOPS) == {names([row])[0]: names([row], 2)[0] for row in rows}


def test_bounds() -> None:
    """Each setting that the policy moves is in the table, with its bounds."""
    rows = {row[0]: row[1] for row in tables(section(DIAGNOSIS, "Adjustments"))[1]}
    text = " ".join(itertools.chain(*rows.items()))
    assert set() == set(state.DEFAULTS) - set(ticked(text))
    assert f"{', '.join(map(str, state.DROPOUTS))}" == rows[f"`{state.DROPOUT}`"]
    assert f"{', '.join(map(str, state.DECAYS))}" == rows[f"`{state.DECAY}`"]
    numbers = {
        key: re.findall(r"[\d.]+e-\d|\d+", rows[f"`{key}`"]) for key in (state.RATE, state.RANK)
    }
    assert list(state.RATES) == [float(number) for number in numbers[state.RATE]]
    assert list(state.RANKS) == [int(number) for number in numbers[state.RANK]]
    assert f"up to {state.MOST_EPOCHS};" in rows[f"`{state.EPOCHS}`"]
