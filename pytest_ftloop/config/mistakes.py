"""Turn pydantic's validation errors into `ConfigError`s, each with its line and cure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from pytest_ftloop.config.arguments import belongs
from pytest_ftloop.config.sections import (
    SETTING_GROUPS,
    DataSection,
    ForgettingSection,
    GuardSection,
    HubSource,
    LoopFile,
    LoopSection,
    PartSection,
    RegressionSection,
    SamplerSection,
    ScoringSection,
    SpaceSection,
    SplitSection,
    TokenizerSection,
)
from pytest_ftloop.core.errors import ConfigError, did_you_mean


def config_errors(error: ValidationError, locate: Any, above: str = "") -> Iterator[ConfigError]:
    """One `ConfigError` per mistake that pydantic found, in the user's words.

    `above` is the dotted key of the section that was validated, if that is not the whole file.
    """
    seen: set[str] = set()
    for item in error.errors():
        if item["loc"][-1] == "str" and isinstance(item["input"], Mapping | list):
            continue  # the user meant the other branch of the union, whose error is clearer
        inner = [str(part) for part in item["loc"] if not _is_branch(part)]
        path = [*([above] if above else []), *inner]
        key = ".".join(path)
        # A value that fits no branch of a union is reported once, not once per branch.
        if key in seen:
            continue
        seen.add(key)
        if item["type"] == "extra_forbidden":
            section = ".".join(path[:-1])
            yield ConfigError(
                f"unknown key {path[-1]!r}" + (f" in {section}" if section else ""),
                where=locate(key),
                cure=_cure_of_key(path[-1], path[:-1]),
            )
        elif item["type"] == "missing":
            yield ConfigError(f"{key} is missing", where=locate(key), cure=_example_of(key))
        elif item["type"] == "value_error":
            yield ConfigError(str(item["ctx"]["error"]), where=locate(key))
        else:
            found = item["input"]
            cure = ""
            if item["type"] == "literal_error" and isinstance(found, str):
                cure = did_you_mean(found, re.findall(r"'([\w-]+)'", item["ctx"]["expected"]))
            yield ConfigError(
                f"{key}: wanted {_wanted(key, item)}, found {found_text(found)}",
                where=locate(key),
                cure=cure,
            )


def _cure_of_key(name: str, path: list[str]) -> str:
    """The section that an unknown key belongs to, unless a known one is spelt nearly alike."""
    known = _known_keys(path)
    if get_close_matches(name, known, n=1, cutoff=0.85):
        return did_you_mean(name, known)
    return (belongs(name, path[0] if path else "")) or did_you_mean(name, known)


_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le} or less",
    "too_short": "one or more",
}
"""pydantic's kinds of mistake in the user's words; other kinds keep pydantic's message."""


def _wanted(key: str, item: Any) -> str:
    if key in {"data.train", "data.eval", "data.holdout", "data.train.source"}:
        one = "a file, a hub id, module:function or {hub: ..., split: ...}"
        return f"{one}, or a list of them" if key == "data.train" else one
    if key == "tokenizer.add_special_tokens":
        return "a list of tokens, or tokens by role ({pad_token: ...})"
    if key == "loop.policy":
        return "rules, module:function, a list of settings or an Optuna sampler"
    if key in {"data.tags", "data.keep"}:
        return "a column or a list of columns"
    if key == "data.split.fraction":
        return "a number between 0 and 1"
    wanted: str = _WANTED.get(item["type"], item["msg"].removeprefix("Input should be "))
    return wanted.format(**item.get("ctx", {}))


def found_text(value: Any) -> str:
    """A value as a loop file writes it, shortened to 60 characters."""
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_BRANCHES = frozenset(
    {"str", "HubSource", "list[str]", "dict[str,any]", "int", "float"}
    | {"<text>", "<list>", "<sampler>", "<hub>", "<part>", "<by name>", "<number>"}
)
"""How pydantic names the branches of the unions in `sections`."""


def _is_branch(part: Any) -> bool:
    """Whether a part of pydantic's location is the branch of a union or an index, not a key."""
    return part in _BRANCHES or isinstance(part, int)


def _gate(part: str) -> Any:
    """The section of a gate with keys; None for another part of a path."""
    if part.startswith("gates.forgetting"):
        return ForgettingSection
    return RegressionSection if part.startswith("gates.regression") else None


def _known_keys(path: list[str]) -> list[str]:
    model: Any = LoopFile
    for part in path:
        if model is DataSection and path[:2] == ["data", "guards"]:
            model = GuardSection if part != "guards" else model
            continue
        if part.startswith(SETTING_GROUPS):
            return list(SpaceSection.model_fields)
        model = {
            "data": DataSection,
            "tokenizer": TokenizerSection,
            "split": SplitSection,
            "scoring": ScoringSection,
            "loop": LoopSection,
            "policy": SamplerSection,
            "train": PartSection if model is DataSection else HubSource,
            "source": HubSource,
            "eval": HubSource,
            "holdout": HubSource,
        }.get(part, _gate(part) or model)
    hub = list(HubSource.model_fields) if model is PartSection else []
    return [*model.model_fields, *hub]


def _example_of(key: str) -> str:
    return {
        "data": "data: {train: data/train.jsonl, eval: data/eval.jsonl}",
        "data.train": "train: data/train.jsonl",
        "data.split.fraction": "split: {fraction: 0.1, seed: 0}",
    }.get(key, "")
