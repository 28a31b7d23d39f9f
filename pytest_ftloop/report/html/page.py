"""One self-contained page: template, style, script, data and the plotting library in one file.

The page's security policy forbids all requests, and all scripts except the two whose hashes it
contains: a script in a model's output would not run even if it were not escaped.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.core.metrics import own_metrics, split_name
from pytest_ftloop.core.printable import escaped
from pytest_ftloop.report.html.examples import columns
from pytest_ftloop.report.html.loop_report import LoopReport, Shown, shown
from pytest_ftloop.report.html.noise import Spread, spreads
from pytest_ftloop.report.html.overview import overview_view
from pytest_ftloop.report.html.views import loop_view
from pytest_ftloop.report.phrases import TERMS, format_changes

if TYPE_CHECKING:
    from jinja2 import Template

REPORT_EXTRA = ("jinja2", "plotly")
PLOTTED = ("eval_loss", "train_loss", "pass_rate", "overfit_gap", "token_accuracy")

_JSON_IN_DOUBT = re.compile(r"[<>&]|[^\x20-\x7e]+")


def render(loops: Sequence[LoopReport], version: str = "") -> str:
    """The page of these loops. The same records give the same page."""
    check_extra()
    from markupsafe import Markup

    script, plotly = _asset("page.js"), _plotly()
    return _template().render(
        loops=[loop_view(loop, index) for index, loop in enumerate(loops)],
        overview=overview_view(loops) if len(loops) > 1 else None,
        terms=TERMS,
        data=[Markup(to_script_json(loop_data(loop))) for loop in loops],
        style=Markup(_asset("page.css")),
        script=Markup(script),
        plotly=Markup(plotly.packed),
        script_hashes=Markup(f"'{_hash(script)}' '{plotly.hash}'"),
        version=version,
    )


@functools.cache
def _template() -> Template:
    """The compiled template: compiling takes longer than a page of a few iterations."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def inert(value: Any) -> Any:
        """Escape controls and bidirectional marks; jinja's autoescaping handles HTML."""
        return value if isinstance(value, Markup) else _printable(str(value))

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(_asset("page.html.j2"))


def check_extra() -> None:
    """Raise a `FtloopError` with the command that installs a missing library."""
    if missing := [name for name in REPORT_EXTRA if find_spec(name) is None]:
        raise FtloopError(
            f"the HTML report needs {' and '.join(missing)}",
            cure='pip install "pytest-ftloop[report]"',
        )


def loop_data(report: LoopReport) -> dict[str, Any]:
    """The data for the page's script: curves, metrics with their noise, the examples."""
    every = shown(report)
    with_examples = [place for place, it in enumerate(every) if it.has_examples]
    tables = [it.iteration if it.has_examples else None for it in every]
    before, after = _compared(every, with_examples)
    own = own_metrics(it.iteration.metrics for it in every)
    return {
        "iterations": [_curves(report, it) for it in every],
        "metrics": {name: _metric(name, report, every) for name in (*PLOTTED, *own)},
        "before": before,
        "after": after,
        "examples": columns(tables, report.prompts, report.seed_runs),
    }


def to_script_json(value: Any) -> str:
    """JSON for a script element, which nothing in it can end. NaN and infinity become null."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _JSON_IN_DOUBT.sub(_inert_json, text)


def _inert_json(match: re.Match[str]) -> str:
    """What may end a script, and what is obeyed rather than seen, as JSON's own escapes."""
    found = match[0]
    if found in ("<", ">", "&"):
        return f"\\u{ord(found):04x}"
    if found.isprintable():
        return found
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in found)


def _curves(report: LoopReport, it: Shown) -> dict[str, Any]:
    iteration = it.iteration
    best_step = iteration.facts.get("best_step")
    return {
        "label": it.label,
        "name": iteration.name,
        "change": format_changes(iteration, report.iterations),
        "best": it.is_best,
        "baseline": it.is_baseline,
        "untrained": iteration.is_untrained,
        "outside": it.is_outside,
        "sameEvalSet": it.same_eval_set,
        "train": [[step.step for step in iteration.steps], [s.loss for s in iteration.steps]],
        "eval": [[p.step for p in iteration.evals], [p.eval_loss for p in iteration.evals]],
        "bestStep": best_step if isinstance(best_step, int) else None,
    }


def _metric(name: str, report: LoopReport, every: Sequence[Shown]) -> dict[str, Any]:
    """One metric over the iterations, with the noise of the seed and the gates that judge it."""
    iterations = [it.iteration for it in every]
    noise = spreads(name, iterations, report.iterations, report.seed_runs)
    gates = [gate.gate for gate in report.gates if split_name(gate.gate.name) == (name, None)]
    return {
        "values": [iteration.metrics.get(name) for iteration in iterations],
        "noise": [_spread(spread) for spread in noise],
        "gates": [[gate.op, gate.bound] for gate in gates],
    }


def _spread(spread: Spread | None) -> dict[str, Any] | None:
    if spread is None:
        return None
    return {"mean": spread.mean, "sd": spread.sd, "runs": list(spread.values)}


def _compared(every: Sequence[Shown], with_examples: Sequence[int]) -> tuple[int, int]:
    """The two iterations whose examples are compared at first: the baseline and the best.

    Without a baseline: the earliest iteration before the best one, else any other one.
    """
    best = next((p for p in with_examples if every[p].is_best), with_examples[-1])
    others = [place for place in with_examples if place != best]
    baseline = next((place for place in others if every[place].is_baseline), None)
    earlier = [place for place in others if place < best]
    return baseline if baseline is not None else (earlier or others or [best])[0], best


class _Plotly:
    """The plotting library, packed; the page unpacks it when a plot comes into view."""

    def __init__(self, source: str) -> None:
        self.hash = _hash(source)
        # Without the time of packing, the same library gives the same page.
        self.packed = base64.b64encode(gzip.compress(source.encode(), 9, mtime=0)).decode()


@functools.cache
def _plotly() -> _Plotly:
    from plotly.offline import get_plotlyjs

    return _Plotly(get_plotlyjs())


def _hash(script: str) -> str:
    """A script's hash for a security policy, with line ends as a browser reads them."""
    text = script.replace("\r\n", "\n").replace("\r", "\n")
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _asset(name: str) -> str:
    return (files("pytest_ftloop.report.html") / name).read_text(encoding="utf-8")


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else escaped(c) for c in text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
