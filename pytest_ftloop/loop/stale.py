"""Why a log is out of date: what differs from the iteration that is nearest to the loop's state."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.scoring import SCORE_HOOK
from pytest_ftloop.core.errors import StaleLogError
from pytest_ftloop.core.metrics import GUARD, number_text
from pytest_ftloop.core.neutral import NEUTRAL
from pytest_ftloop.core.records import ended_as_hopeless, is_unscored
from pytest_ftloop.log import FOLDER
from pytest_ftloop.log.writing import rounded
from pytest_ftloop.loop.changed_data import data_text
from pytest_ftloop.loop.inputs import model_name

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.loop.inputs import Inputs

MOST = 8
"""Differences that are listed: after so many it is another loop, and the settings tell little."""

_LONGEST = 60


@dataclass(frozen=True)
class Difference:
    """One matter in which the loop is not what an iteration was trained with.

    `what` is settings, data, scoring or model. `text` says it in a line; that of data sets is made
    by `data_text`, since it may have to read old versions.
    """

    what: str
    text: str
    role: str = ""


def stale_error(
    config: LoopConfig, inputs: Inputs, logged: Sequence[Iteration], prospect: str = ""
) -> StaleLogError:
    """The error for a log that lacks the loop file's own settings, with the reasons.

    `prospect` says what a run would have to do, if that is not to train.
    """
    return StaleLogError(
        f"the improvement log of {config.name} is out of date: "
        + "\n    ".join(_reasons(config, inputs, logged)),
        where=config.locate("name"),
        cure=f"Run pytest --ftloop and commit {FOLDER}/. {prospect}".strip(),
    )


def _reasons(config: LoopConfig, inputs: Inputs, logged: Sequence[Iteration]) -> list[str]:
    """In a word what changed, then a line for each difference."""
    if not logged:
        return ["it is empty"]
    # Of equally near ones the last that a loop file had the settings of: `min` takes the first.
    all_found = [(list(_differences(config, inputs, it)), it) for it in reversed(logged)]
    found, nearest = min(all_found, key=lambda pair: (len(pair[0]), pair[1].parent is not None))
    if not found and is_unscored(nearest):
        return [f"iteration {nearest.name} was trained, but is not scored"]
    if not found and ended_as_hopeless(nearest):
        return [f"iteration {nearest.name} was ended early, and no loop can start from it"]
    if not found:
        return [
            f"something that records do not hold changed since iteration {nearest.name} "
            "(data.train_sample, or the version of pytest-ftloop)"
        ]
    kinds = list(dict.fromkeys(difference.what for difference in found))
    what = " and ".join(filter(None, [", ".join(kinds[:-1]), kinds[-1]]))
    lines = [
        data_text(config, inputs, nearest, difference.role) if difference.role else difference.text
        for difference in found[:MOST]
    ]
    more = [f"and {len(found) - MOST} more"] if len(found) > MOST else []
    return [f"{what} changed since iteration {nearest.name}", *lines, *more]


def _differences(config: LoopConfig, inputs: Inputs, of: Iteration) -> Iterator[Difference]:
    for group in ("lora", "training"):
        before, after = getattr(of.settings, group), getattr(config.settings, group)
        for name in sorted({*before, *after} - NEUTRAL):
            if before.get(name) != after.get(name) or (name in before) != (name in after):
                text = f"{group}.{name} {_shown(before, name)} -> {_shown(after, name)}"
                yield Difference("settings", text)
    for set_ in (inputs.train, inputs.eval):
        if of.data.get(set_.role, {}).get("sha256") != set_.sha256[:16]:
            yield Difference("data", "", set_.role)
    yield from _of_guards(inputs, of)
    same_scorer = of.scoring.get("scorer") == inputs.scoring.get("scorer")
    for name in sorted({*of.scoring, *inputs.scoring}):
        # Another scorer has other code, of course.
        counts = name != "source" or same_scorer
        if counts and of.scoring.get(name) != inputs.scoring.get(name):
            yield Difference("scoring", _scoring_text(of.scoring, inputs.scoring, name))
    if of.model != inputs.model:
        before, after = _model(of.model, of.facts.get("model")), _model(inputs.model, None)
        if inputs.model.startswith("folder:"):
            after = _model(inputs.model, model_name(config))
        elif "model" in of.facts and inputs.model.startswith("hub:"):
            after += " (no folder of this name is here)"
        yield Difference("model", f"model {before} -> {after}")


def _of_guards(inputs: Inputs, of: Iteration) -> Iterator[Difference]:
    """Guards that came, went, or have other rows or another scoring than those of an iteration."""
    now = inputs.measured_data
    for role in sorted({*of.data, *now}):
        if not role.startswith(f"{GUARD}."):
            continue
        old, new = of.data.get(role), now.get(role)
        name = f"data.guards.{role.removeprefix(f'{GUARD}.')}"
        if old is None or new is None:
            yield Difference("data", f"{name} {'added' if old is None else 'removed'}")
        elif old.get("sha256") != new["sha256"]:
            yield Difference("data", f"{name} {old.get('rows', '?')} -> {new['rows']} rows")
        elif old.get("scoring") != rounded(new["scoring"]):
            yield Difference("scoring", f"{name}: its scoring changed")


def _scoring_text(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> str:
    if name != "source":
        return f"scoring.{name} {_shown(before, name)} -> {_shown(after, name)}"
    scorer = after.get("scorer")
    code = f"the code of {SCORE_HOOK if scorer == 'hook' else scorer}"
    if name not in before:
        return f"scoring: {code} was not recorded"
    return f"scoring: {code}, or a local module that it imports, changed"


def _model(identity: str, name: object) -> str:
    kind, _, what = identity.partition(":")
    if kind == "hub":
        return what
    short = f"{kind}:{what[:8]}"
    return f"{name} ({short})" if name else short


def _shown(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "not set"
    value = values[name]
    if isinstance(value, float) and math.isfinite(value):
        return number_text(value)
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
