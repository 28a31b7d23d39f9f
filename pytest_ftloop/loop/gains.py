"""What an iteration gained over the untrained base, and what it cost: for the diagnosis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.gates import DEFAULT_FORGETTING
from pytest_ftloop.core.pairing import paired
from pytest_ftloop.core.runs import groups_of, runs_of
from pytest_ftloop.core.untrained import base_of
from pytest_ftloop.diagnose.evidence import Forgotten, Lifted
from pytest_ftloop.gate.compare import Side
from pytest_ftloop.gate.forgetting import Reference, judge_guards
from pytest_ftloop.gate.lift import LiftTests

if TYPE_CHECKING:
    from pytest_ftloop.config.gates import Forgetting
    from pytest_ftloop.core.records import ExampleResult, Iteration
    from pytest_ftloop.log import LogView


def compared_with_base(
    view: LogView, draft: Iteration, parent: Iteration | None, rules: Sequence[Forgetting]
) -> Mapping[str, Any]:
    """The fields of `Evidence` on the base and the guards. `rules` are the forgetting gates."""
    found = base_of(view.bases(), draft)
    base = found.as_iteration() if found else None
    passes = [row for row in base.examples if row.passed] if base else []
    return {
        "lifted": tuple(_lifted(LiftTests.of(view), draft)) if base else (),
        "base_passes": len(passes),
        "broken_of_base": _broken(passes, draft.examples),
        "forgotten": tuple(_forgotten(view, draft, base, parent, rules)) if draft.guards else (),
    }


def _lifted(tests: LiftTests, draft: Iteration) -> Iterator[Lifted]:
    metrics = ["eval_loss"] if draft.scoring.get("scorer") == "loss" else ["pass_rate", "eval_loss"]
    for metric in metrics:
        gain = tests.gain(metric, draft)
        if not isinstance(gain, str):
            change = gain.change
            yield Lifted(metric, change.baseline, change.candidate, gain.lift, gain.p(0.0))


def _broken(passes: Sequence[ExampleResult], now: Sequence[ExampleResult]) -> tuple[str, ...]:
    """The ids of the examples that the base passes and that fail now, paired by content."""
    pairs, _, _ = paired(passes, now, lambda row: row.content)
    return tuple(sorted(row.id for _, row in pairs if row.passed is False))


def _forgotten(
    view: LogView,
    draft: Iteration,
    base: Iteration | None,
    parent: Iteration | None,
    rules: Sequence[Forgetting],
) -> Iterator[Forgotten]:
    """What is proven worse of the guards, by each of the loop's gates on them."""
    iterations, seed_runs = view.iterations(), view.seed_runs()
    groups = groups_of(iterations, seed_runs)
    references = []
    if base is not None:
        references.append(Reference("base", Side(base, (base,))))
    if parent is not None and parent.guards:
        references.append(Reference("parent", Side(parent, runs_of(parent, iterations, seed_runs))))
    seen: set[tuple[str, str]] = set()
    for rule in rules or (DEFAULT_FORGETTING,):
        verdict = judge_guards(Side(draft, (draft,)), references, groups, rule)
        for change in verdict.changes:
            if change.kind == "regressed" and (change.metric, change.against) not in seen:
                seen.add((change.metric, change.against))
                figures = change.baseline, change.candidate
                yield Forgotten(change.metric, change.against, *figures, change.p)
