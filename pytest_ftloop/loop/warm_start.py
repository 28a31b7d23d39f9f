"""`lora.init_from`: which adapter the trainings of a loop go on from, and where it is.

The loop file names it as people do (`best`, `baseline`, an iteration, a folder). The settings of a
loop have the hash of its weights in that place, so fingerprint and record depend on the weights and
not on the name. Once a chain has started, the log says what the name meant then: a better iteration
that comes out of it does not make the log out of date.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.cache import ADAPTER_CONFIG, adapter_at_hand, adapter_hash
from pytest_ftloop.core.chain import best_of, named
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.files import plain_files
from pytest_ftloop.core.records import ended_as_hopeless
from pytest_ftloop.data.identity import model_path
from pytest_ftloop.data.sources import describe
from pytest_ftloop.gate.judgements import baseline_of
from pytest_ftloop.train.task import INIT_FROM, Start

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.log import ImprovementLog
    from pytest_ftloop.loop.inputs import Inputs

WANTED = "best, baseline, an iteration of the log or the folder of an adapter"
"""What `lora.init_from` may be."""


def warm_started(
    config: LoopConfig, inputs: Inputs, log: ImprovementLog
) -> tuple[LoopConfig, Inputs]:
    """The loop with the adapter's hash among its settings, and inputs that know where it is.

    Both stay as they are without `lora.init_from`. Raises `ConfigError` if it names no adapter.
    """
    stated = config.settings.lora.get(INIT_FROM)
    if stated is None:
        return config, inputs
    if not isinstance(stated, str | int) or isinstance(stated, bool) or not str(stated):
        raise _mistake(config, f"wanted {WANTED}, found {stated!r}")
    logged = log.read()
    start = _as_logged(config, inputs, logged) or _found(config, inputs, log, str(stated))
    inputs = replace(inputs, start=start)
    return replace(config, settings=inputs.own_settings(config)), inputs


def _as_logged(config: LoopConfig, inputs: Inputs, logged: Sequence[Iteration]) -> Start | None:
    """What the name meant when the loop's chain in the log began; None if there is none."""
    stated = str(config.settings.lora[INIT_FROM])
    for iteration in reversed(logged):
        fact = iteration.facts.get(INIT_FROM, {})
        if stated not in (fact.get("stated"), fact.get("adapter")):  # ftloop accept writes a hash
            continue
        adapter, name = str(fact.get("adapter")), str(fact.get("stated"))
        start = Start(stated, adapter, str(fact.get("of")))
        settings = replace(inputs, start=start).own_settings(config)
        if inputs.fingerprint(config, settings) == iteration.fingerprint:
            return replace(start, folder=next(_folders(config, name, adapter, logged), None))
    return None


def _found(config: LoopConfig, inputs: Inputs, log: ImprovementLog, stated: str) -> Start:
    """The adapter that a name means now."""
    logged = log.read()
    path = _folder_named(config, stated)
    if (path / ADAPTER_CONFIG).is_file():
        plain_files(path)
        return Start(stated, adapter_hash(path), describe(str(stated), config.folder), path)
    iteration = _iteration(config, inputs, log, stated)
    if not iteration.adapter:
        raise _mistake(
            config,
            f"no adapter of iteration {iteration.name} was saved",
            cure="Train it again (pytest --ftloop-retrain), or name another.",
        )
    if iteration.model != inputs.model:
        raise _mistake(
            config,
            f"the adapter of iteration {iteration.name} is of another base ({iteration.model}); "
            f"the loop's is {inputs.model}",
            cure="Name an iteration of this base, or set the model that it was trained on.",
        )
    folder = next(_folders(config, stated, iteration.adapter, logged), None)
    return Start(stated, iteration.adapter, iteration.name, folder)


def _iteration(config: LoopConfig, inputs: Inputs, log: ImprovementLog, stated: str) -> Iteration:
    """The iteration that a name means now."""
    logged = log.read()
    whole = [i for i in logged if i.adapter and not ended_as_hopeless(i)]
    found: Sequence[Iteration]
    if stated == "best":
        ours = [i for i in whole if i.model == inputs.model]
        # Figures on other eval rows say nothing about which is better: the latest rows count.
        alike = [i for i in ours if _eval_rows(i) == _eval_rows(ours[-1])]
        found = [best_of(alike, config.metric_of(alike))] if alike else []
    elif stated == "baseline":
        metric = config.metric_of(logged) if logged else None
        baseline = baseline_of(logged, log.view.judgements(), metric)
        found = [baseline] if baseline else []
    else:
        found = named(logged, stated) or [i for i in logged if i.adapter == stated]
    if len({i.adapter for i in found}) == 1:
        return found[0]
    there = ", ".join(i.name for i in (found or logged)) or "none"
    raise _mistake(
        config,
        f"wanted {WANTED}, found {stated!r}, which names {len(found) or 'no'} "
        f"iteration{'' if len(found) == 1 else 's'}",
        cure=f"The iterations in the log: {there}. A folder needs {ADAPTER_CONFIG}, as peft and "
        "ftloop export write it.",
    )


def _folders(
    config: LoopConfig, stated: str, adapter: str, logged: Sequence[Iteration]
) -> Iterator[Path]:
    """The folders on this machine that hold the adapter of this hash."""
    path = _folder_named(config, stated)
    if (path / ADAPTER_CONFIG).is_file() and adapter_hash(path) == adapter:
        yield path
    for iteration in logged:
        if iteration.adapter == adapter and (folder := adapter_at_hand(iteration)):
            yield folder


def _folder_named(config: LoopConfig, stated: str) -> Path:
    return model_path(stated, config.folder)


def _eval_rows(iteration: Iteration) -> Any:
    return iteration.data.get("eval", {}).get("sha256")


def _mistake(config: LoopConfig, said: str, cure: str = "") -> ConfigError:
    return ConfigError(
        f"lora.{INIT_FROM}: {said}", where=config.locate(f"lora.{INIT_FROM}"), cure=cure
    )
