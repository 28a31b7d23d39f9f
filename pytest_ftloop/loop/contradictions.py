"""Whether the records of a chain say what the loop's inputs, and their parents, say they must.

The hash in its name shows that a record is as it was written. These checks find one that was
written, or renamed to fit its hash, by hand: what it claims is not what a training here would give.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_ftloop.log.files import damaged
from pytest_ftloop.log.writing import rounded
from pytest_ftloop.loop.seeds import with_seed

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import Iteration, SeedRun, Settings
    from pytest_ftloop.log import ImprovementLog
    from pytest_ftloop.loop.inputs import Inputs


def check_chain(
    chain: Sequence[Iteration], config: LoopConfig, inputs: Inputs, log: ImprovementLog
) -> None:
    """Raise a `LogError` for the first record of the chain that contradicts the loop or its parent.

    The chain starts at the loop file's own settings; its parents may be anywhere in the log.
    """
    logged = {iteration.id: iteration for iteration in log.read()} if chain else {}
    scoring = rounded(inputs.scoring)
    rooted: set[str] = set()  # those of which no ancestor descends from them
    for number, iteration in enumerate(chain):
        stated = config.settings if number == 0 else iteration.settings
        said = (
            *_of_inputs(iteration, inputs, scoring),
            *_of_settings(iteration, stated, config, inputs),
            *_of_ancestors(iteration, logged, rooted),
            *_of_parent(iteration, logged, config, inputs),
        )
        rooted.add(iteration.id)
        for why in said:
            raise damaged(log.shown(iteration), why)
    own = {iteration.id: iteration for iteration in chain}
    for run in log.view.seed_runs() if chain else ():
        # A baseline's run has the fingerprint of the commit that it was trained from.
        if run.iteration in own and run.role != "baseline":
            for why in _of_seed_run(run, own[run.iteration], config, inputs):
                raise damaged(log.shown(run), why)


def check_set_metrics(iteration: Iteration, inputs: Inputs, log: ImprovementLog) -> None:
    """Raise a `LogError` where a metric of the set is not what the table's outputs give.

    The log alone can't tell that of a user's function, or of a library's metric.
    """
    for name, metric in inputs.set_metrics.items():
        found, value = iteration.metrics.get(name, math.nan), metric.of(iteration.examples)
        if not math.isclose(found, value, rel_tol=1e-5, abs_tol=1e-5):
            raise damaged(
                log.shown(iteration),
                f"it says {name} {found}, but its outputs give {value:.6f} (a function must give "
                "the same each time)",
            )


def _of_inputs(iteration: Iteration, inputs: Inputs, scoring: Mapping[str, Any]) -> Iterator[str]:
    """What the record says of model, data and scoring that is not the loop's."""
    if iteration.model != inputs.model:
        yield f"it says model {iteration.model}; by its fingerprint it is {inputs.model}"
    guards = ((guard.role, guard.rows) for guard in inputs.guards)
    for role, set_ in (("train", inputs.train), ("eval", inputs.eval), *guards):
        facts = iteration.data.get(role, {})
        sha256, rows = str(facts.get("sha256", "")), facts.get("rows")
        if not sha256 or not set_.sha256.startswith(sha256):
            wanted = set_.sha256[:16]
            yield f"it says data.{role}.sha256 {sha256}; by its fingerprint it is {wanted}"
        # Without rows it is a function's, of which only the log is known (see `reading`).
        if set_.examples and rows != len(set_.examples):
            yield f"it says data.{role}.rows {rows}; by its fingerprint it is {len(set_.examples)}"
    if iteration.scoring != scoring:
        found, wanted = _shown(iteration.scoring), _shown(scoring)
        yield f"it says scoring {found}; by its fingerprint it is {wanted}"


def _of_settings(
    iteration: Iteration, stated: Settings, config: LoopConfig, inputs: Inputs
) -> Iterator[str]:
    """Settings that are not those of the fingerprint. `stated` are they before any rounding."""
    fingerprint = inputs.fingerprint(config, stated)
    if stated is not iteration.settings:
        as_logged = inputs.fingerprint(config, rounded(stated))
        if inputs.fingerprint(config, iteration.settings) != as_logged:
            yield "its settings are not those of its fingerprint, which the loop file states"
    elif fingerprint != iteration.fingerprint:
        yield "its settings are not those of its fingerprint"
    # Without a seed among the settings both are one.
    group = inputs.group(config, stated) if "seed" in stated.training else fingerprint
    if iteration.group and iteration.group != group:
        yield f"it says group {iteration.group}; by its settings it is {group}"
    weights = inputs.weights(stated)
    if iteration.weights and iteration.weights != weights:
        yield f"it says weights {iteration.weights}; by its settings they are {weights}"


def _of_seed_run(
    run: SeedRun, iteration: Iteration, config: LoopConfig, inputs: Inputs
) -> Iterator[str]:
    """A run that is not of its iteration's settings with its seed."""
    settings = with_seed(iteration.settings, run.seed)
    if run.fingerprint != (wanted := inputs.fingerprint(config, settings)):
        yield (
            f"it says fingerprint {run.fingerprint}; {iteration.name} with seed {run.seed} has "
            f"{wanted}"
        )
    if run.group not in (iteration.group, inputs.group(config, settings)):
        yield f"it says group {run.group}; that of {iteration.name} is {iteration.group}"
    if run.weights and run.weights != (weights := inputs.weights(settings)):
        yield f"it says weights {run.weights}; {iteration.name} with seed {run.seed} has {weights}"


def _of_parent(
    iteration: Iteration, logged: Mapping[str, Iteration], config: LoopConfig, inputs: Inputs
) -> Iterator[str]:
    """Settings that are not the parent's with the adjustments; no parent, but adjustments."""
    parent = logged.get(iteration.parent or "")
    if iteration.parent is None and iteration.adjustments:
        yield "it has adjustments, but no parent"
    if parent is None:
        return
    try:
        adjusted = parent.settings.adjusted(iteration.adjustments)
    except KeyError as error:
        yield f"it has adjustments of unknown settings: {error}"
        return
    if adjusted == iteration.settings:
        return
    if inputs.fingerprint(config, adjusted) != inputs.fingerprint(config, iteration.settings):
        yield (
            f"its settings are not those of its parent {parent.name} with its adjustments "
            f"({', '.join(a.setting for a in iteration.adjustments) or 'none'})"
        )


def _of_ancestors(
    iteration: Iteration, logged: Mapping[str, Iteration], rooted: Collection[str]
) -> Iterator[str]:
    """A parent that is the iteration itself, or comes from it by parents in the log."""
    seen: set[str] = set()
    above = logged.get(iteration.parent or "")
    while above is not None and above.id not in seen and above.id not in rooted:
        if above.id == iteration.id:
            yield f"it says parent {iteration.parent}, which descends from it"
            return
        seen.add(above.id)
        above = logged.get(above.parent or "")


def _shown(scoring: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in scoring.items())
