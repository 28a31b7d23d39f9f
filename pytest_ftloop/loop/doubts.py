"""What speaks against an iteration: its loop has moved on, or it fails the loop's gates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_ftloop.core.chain import chain_from
from pytest_ftloop.core.runs import why_incomplete
from pytest_ftloop.gate.lift import LiftTests

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.loop.workspace import Logged


def doubts(iteration: Iteration, logged: Logged) -> Iterator[str]:
    """Why the iteration should not be used as it is, one sentence each; none if nothing is wrong.

    A loop made in Python has no file to compare with: of it only the log is judged.
    """
    config, inputs = logged.config, logged.inputs
    if config is not None and inputs is None:
        yield "The loop's data can't be loaded, so it is not known whether it is out of date."
    elif config is not None and iteration.id not in {
        known.id for known in chain_from(logged.iterations, logged.start)
    }:
        yield (
            "It is out of date: the settings, data, scoring or model of the loop file have "
            "changed since."
        )
    if why := why_incomplete(iteration):
        yield f"It is incomplete: {why}."
    if config is not None:
        for result in LiftTests.of(logged.log.view).check(config.gates, iteration):
            if not result.passed:
                yield f"A threshold of its loop does not hold: {result.message}."
    judged = [j for j in logged.log.view.judgements() if j.candidate == iteration.id]
    if judged and not any(judgement.passed for judgement in judged):
        yield f"The regression gate failed: {judged[-1].kind}: {judged[-1].because}."
