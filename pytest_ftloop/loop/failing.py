"""Which gates fail of an iteration, by the log alone: what an acceptance by hand accepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_ftloop.config.gates import DEFAULT_REGRESSION, Forgetting
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.metrics import guard_and_metric
from pytest_ftloop.gate.comparison import Comparison
from pytest_ftloop.gate.lift import LiftTests
from pytest_ftloop.gate.search import find_baseline
from pytest_ftloop.gate.verdict import p_text
from pytest_ftloop.loop.acceptance import sought
from pytest_ftloop.loop.base_version import with_base_version

if TYPE_CHECKING:
    from pytest_ftloop.config.gates import Regression
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.loop.workspace import Logged


def failing_gates(iteration: Iteration, logged: Logged) -> tuple[str, ...]:
    """Each gate that an iteration fails, in a line: `forgetting[general] fails (p 0.0001)`.

    Trains nothing and imports none of the user's code. Raises `FtloopError` where the gates can't
    be judged.
    """
    config, inputs, log = logged.config, logged.inputs, logged.log
    if config is None or inputs is None:
        raise ConfigError("the loop file, or its data, can't be read")
    checked = LiftTests.of(log.view).check(config.gates, iteration)
    thresholds = [f"{result.message} fails" for result in checked if not result.passed]
    baseline = find_baseline(sought(config, log, iteration), None)
    baseline = with_base_version(config, inputs, baseline, iteration, log.read())
    comparison = Comparison(log, iteration, baseline, set_metrics=inputs.set_metrics)
    rules = (*(config.regressions or (DEFAULT_REGRESSION,)), *config.forgetting)
    verdicts = [(rule, comparison.verdict(rule)) for rule in rules]
    failed = [text for rule, v in verdicts if not v.ok for text in _texts(rule, v)]
    # A gate on one guard and the gate on all may say the same.
    return tuple(dict.fromkeys((*thresholds, *failed)))


def _texts(rule: Regression, verdict: Verdict) -> Iterator[str]:
    """What a verdict that does not pass says: per guard, if it is of a gate on all guards."""
    regressed = [c for c in (*verdict.changes, *verdict.slide) if c.kind == "regressed"]
    if verdict.kind != "regressed" or not regressed:
        yield f"{rule.name} is {verdict.kind} ({verdict.because})"
        return
    smallest: dict[str, float] = {}
    for change in regressed:
        guarded = guard_and_metric(change.metric) if isinstance(rule, Forgetting) else None
        name = f"forgetting[{guarded[0]}]" if guarded else rule.name
        smallest[name] = min(change.p, smallest.get(name, change.p))
    for name, p in smallest.items():
        yield f"{name} fails (p {p_text(p)})"
