"""The JSON schema of a loop file, for editors, and what the train extra adds to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

TRAIN_EXTRA = ("torch", "transformers", "trl", "peft", "datasets")
"""The libraries of the train extra that a loop imports."""


INIT_FROM = {
    "init_from": {
        "type": ["string", "integer"],
        "description": "the adapter to go on from: best, baseline, an iteration or a folder",
    }
}
"""The key of `lora` that is no argument of LoraConfig."""


def loop_file_schema() -> dict[str, Any]:
    """The JSON schema of a loop file; with the train extra, also of peft's and trl's settings."""
    from pytest_ftloop.config.old_names import REFUSED
    from pytest_ftloop.config.sections import json_schema

    schema = json_schema()
    properties = schema["properties"]
    properties["gates"] |= _gates_schema()
    if not missing_of_extra():
        from peft import LoraConfig
        from trl import SFTConfig

        shared = schema.setdefault("$defs", {})
        properties["lora"] |= _arguments_schema(LoraConfig, "lora", (), shared)
        properties["lora"]["properties"] |= INIT_FROM
        properties["training"] |= _arguments_schema(SFTConfig, "training", REFUSED, shared)
    return schema


def _gates_schema() -> dict[str, Any]:
    """The keys of `gates`: metrics, with or without a tag; conditions in the metric's direction."""
    from pytest_ftloop.core.metrics import METRICS

    patterns: dict[str, Any] = {}
    for better, sign in (("lower", "<"), ("higher", ">")):
        names = "|".join(metric.name for metric in METRICS.values() if metric.better == better)
        patterns[rf"^({names})(\[.+\])?$"] = {
            "type": "string",
            "pattern": rf"^\s*{sign}=?\s*[-+]?[0-9.]",
            "description": f"{better} is better",
        }
    patterns[r"^(score(\.[\w.-]+)?|pass[@^][1-9][0-9]*)(\[.+\])?$"] = {
        "type": "string",
        "pattern": r"^\s*>=?\s*[-+]?[0-9.]",
        "description": "higher is better",
    }
    patterns[r"^regression(\[.+\])?$"] = {
        "anyOf": [{"$ref": "#/$defs/RegressionSection"}, {"const": True}, {"type": "null"}]
    }
    patterns[r"^forgetting(\[.+\])?$"] = {
        "anyOf": [{"$ref": "#/$defs/ForgettingSection"}, {"const": True}, {"type": "null"}]
    }
    patterns[r"^lift(\[.+\])?$"] = {
        "type": "string",
        "pattern": r"^\s*>=\s*[0-9.]",
        "description": "what must be gained over the untrained base: points of a rate, or nats",
    }
    guard = r"^guard\.[A-Za-z0-9_-]+\."
    for names, sign in (("eval_loss|perplexity", "<"), (r"pass_rate|token_accuracy|score.*", ">")):
        patterns[rf"{guard}({names})$"] = {
            "type": "string",
            "pattern": rf"^\s*{sign}=?\s*[-+]?[0-9.]",
            "description": "of a guard's rows",
        }
    return {"patternProperties": patterns, "additionalProperties": False}


def _arguments_schema(
    config: type, group: str, refused: Iterable[str], shared: dict[str, Any]
) -> dict[str, Any]:
    """The fields of a config dataclass as properties; definitions they refer to go to `shared`."""
    from typing import get_type_hints

    hints = get_type_hints(config)
    properties = {}
    for argument in dataclasses.fields(config):
        if argument.init and argument.name not in refused:
            made = _type_schema(hints[argument.name], group)
            for name, definition in made.pop("$defs", {}).items():
                shared[f"{group}.{name}"] = definition
            properties[argument.name] = made | _default_of(argument) | _help_of(argument)
    return {"properties": properties, "additionalProperties": False}


def _type_schema(hint: Any, group: str) -> dict[str, Any]:
    """The schema of a type; `{}`, which accepts any value, for a type without one."""
    from pydantic import TypeAdapter

    template = f"#/$defs/{group}.{{model}}"
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(
            hint, config=ConfigDict(arbitrary_types_allowed=True)
        )
        return adapter.json_schema(ref_template=template)
    except (PydanticUserError, TypeError):
        return {}


def _default_of(argument: Any) -> dict[str, Any]:
    """`{"default": ...}` if the field has a default that JSON can express."""
    import enum
    import json

    value = argument.default
    if value is dataclasses.MISSING and argument.default_factory is not dataclasses.MISSING:
        value = argument.default_factory()
    if isinstance(value, enum.Enum):
        value = value.value
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return {}
    return {"default": value}


def _help_of(argument: Any) -> dict[str, str]:
    text = argument.metadata.get("help")
    if not isinstance(text, str):
        return {}
    return {"description": " ".join(text.replace("%%", "%").split())}  # %% is argparse's %


def missing_of_extra() -> list[str]:
    """The libraries of the train extra that are not installed; none is imported."""
    from importlib.util import find_spec

    return [name for name in TRAIN_EXTRA if find_spec(name) is None]
