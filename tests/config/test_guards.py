"""Guards, and the gates that a test decides, in a loop file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.config.gates import DEFAULT_FORGETTING, Forgetting, Lift
from pytest_ftloop.config.loop_config import LoopConfig, checked
from pytest_ftloop.core.errors import ConfigError

GUARDS = {"general": "g.jsonl", "sums": {"source": "s.jsonl", "scoring": {"scorer": "contains"}}}

JUDGE = {"url": "host:8000/v1", "model": "m", "rubric": "r"}


def read(gates: dict[str, Any], guards: Any = None) -> LoopConfig:
    data = {"train": "a.jsonl", "eval": "b.jsonl"} | ({"guards": guards} if guards else {})
    values = {"data": data, "gates": gates}
    return checked(values, {}, folder=Path(), source="s.ftloop.yaml", name="s")


@pytest.mark.parametrize(
    ("name", "condition", "metric", "bound", "text"),
    [
        ("lift", ">= 10 points", "pass_rate", 0.1, "lift >= 10 points"),
        ("lift", " >=1 point", "pass_rate", 0.01, "lift >= 1 points"),
        ("lift[eval_loss]", ">= 0.5", "eval_loss", 0.5, "lift[eval_loss] >= 0.5"),
        ("lift[token_accuracy]", ">= 2.5 points", "token_accuracy", 0.025, None),
    ],
)
def test_lift(name: str, condition: str, metric: str, bound: float, text: str | None) -> None:
    """A lift is in points of a rate, and in nats of a loss."""
    (gate,) = read({name: condition}).gates
    assert isinstance(gate, Lift)
    assert (metric, bound, None) == (gate.metric, gate.bound, gate.tag)
    assert text in (None, gate.text)
    assert () == read({name: condition}).thresholds


@pytest.mark.parametrize(
    ("gates", "guards", "message"),
    [
        ({"lift": ">= 0.1"}, None, "wanted >= and a number and points"),
        ({"lift": "<= 10 points"}, None, "wanted >= and a number and points"),
        ({"lift": 10}, None, "found 10"),
        ({"lift": ">= 200 points"}, None, "wanted a gain from 0 to 100"),
        ({"lift[eval_loss]": ">= 5 points"}, None, 'such as ">= 0.5"'),
        ({"lift[overfit_gap]": ">= 5"}, None, "a metric of examples in brackets"),
        ({"lift[negation]": ">= 5 points"}, None, "a metric of examples in brackets"),
        ({"forgetting": {}}, None, "the loop has no guards"),
        ({"forgetting[other]": {}}, GUARDS, "no guard is called 'other'"),
        ({"forgetting": {"against": ["bas"]}}, GUARDS, "wanted 'base' or 'baseline', found 'bas'"),
        ({"forgetting": {"metrics": ["overfit_gap"]}}, GUARDS, "found 'overfit_gap'"),
        ({"forgetting": 3}, GUARDS, "wanted keys such as {alpha: 0.01}"),
        ({"guard.other.eval_loss": "<= 3"}, GUARDS, "no guard is called 'other'"),
        ({"guard.general.overfit_gap": "<= 3"}, GUARDS, "a guard has no metric 'overfit_gap'"),
        ({"guard.general.eval_loss": ">= 3"}, GUARDS, "lower is better"),
        ({}, {"a.b": "g.jsonl"}, "wanted a name of letters, digits, '-' and '_', found 'a.b'"),
        ({}, {"a/b": "g.jsonl"}, "found 'a/b'"),
        ({}, {"a": {"source": "g.jsonl", "scoring": {"scorer": "no"}}}, "unknown scorer 'no'"),
        ({}, {"a": {"source": "g.jsonl", "scoring": {"judge": JUDGE}}}, "the URL of an endpoint"),
        ({}, {"a": {"source": "g.jsonl", "scorin": {}}}, "unknown key 'scorin' in data.guards.a"),
    ],
)
def test_mistakes(gates: dict[str, Any], guards: Any, message: str) -> None:
    """A mistake says what was wanted and what was found."""
    with pytest.raises(ConfigError) as caught:
        read(gates, guards)
    assert message in str(caught.value)


def test_forgetting_is_judged_wherever_guards_are_stated() -> None:
    """Without guards nothing is judged, with guards the default gate, unless one is stated."""
    assert () == read({}).forgetting
    assert (DEFAULT_FORGETTING,) == read({}, GUARDS).forgetting
    stated = read({"forgetting[sums]": {"alpha": 0.05, "against": ["base"]}}, GUARDS).forgetting
    assert (Forgetting("forgetting[sums]", alpha=0.05, against=("base",)),) == stated
    assert "sums" == stated[0].guard


def test_sources_and_scoring() -> None:
    """A guard is a source, or a source with a scoring of its own."""
    general, sums = read({}, GUARDS).guards
    assert ("general", "g.jsonl", None) == (general.name, general.source, general.scoring)
    assert sums.scoring is not None
    assert ("sums", "s.jsonl", "contains") == (sums.name, sums.source, sums.scoring.scorer)
