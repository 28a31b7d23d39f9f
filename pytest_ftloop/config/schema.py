"""The JSON schema of a loop file, for editors; with the train extra of its arguments too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

TRAIN_EXTRA = ("torch", "transformers", "trl", "peft", "datasets")


def loop_file_schema() -> dict[str, Any]:
    """The JSON schema of a loop file; with the train extra also of what peft and trl accept."""
    from pytest_ftloop.config.sections import json_schema

    schema = json_schema()
    properties = schema["properties"]
    properties["gates"] |= _gates_schema()
    if not missing_of_extra():
        from peft import LoraConfig
        from trl import SFTConfig

        shared = schema.setdefault("$defs", {})
        properties["lora"] |= _arguments_schema(LoraConfig, "lora", (), shared)
        properties["training"] |= _arguments_schema(SFTConfig, "training", REFUSED, shared)
    return schema


def _gates_schema() -> dict[str, Any]:
    """The keys of `gates`: a metric, or a metric of a tag; the condition is of its direction."""
    from pytest_ftloop.core.metrics import METRICS

    patterns: dict[str, Any] = {}
    for better, sign in (("lower", "<"), ("higher", ">")):
        names = "|".join(metric.name for metric in METRICS.values() if metric.better == better)
        patterns[rf"^({names})(\[.+\])?$"] = {
            "type": "string",
            "pattern": rf"^\s*{sign}=?\s*[-+]?[0-9.]",
            "description": f"{better} is better",
        }
    patterns[r"^regression(\[.+\])?$"] = {
        "anyOf": [{"$ref": "#/$defs/RegressionSection"}, {"const": True}, {"type": "null"}]
    }
    return {"patternProperties": patterns, "additionalProperties": False}


def _arguments_schema(
    config: type, group: str, refused: Iterable[str], shared: dict[str, Any]
) -> dict[str, Any]:
    """The fields of a config dataclass as properties; what types refer to goes to `shared`."""
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
    """A type's schema; `{}`, any value, for a type that has none."""
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
    """`{"default": ...}` where the field has one that JSON can say."""
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
    """Which libraries of the train extra are not installed; none is imported."""
    from importlib.util import find_spec

    return [name for name in TRAIN_EXTRA if find_spec(name) is None]


REFUSED = {
    "auto_find_batch_size": "after an out-of-memory error the iteration goes on from its last "
    "evaluation point with half the batch and twice the accumulation steps",
    "load_best_model_at_end": "an iteration's result already is its best evaluation point",
    "resume_from_checkpoint": "every iteration starts from the clean base model",
    "eval_delay": "eval_strategy and eval_steps say where the eval set is measured",
    "eval_on_start": "the untrained base is always measured, once a loop",
    "eval_packing": "the eval set is never packed: every example has figures of its own",
    "push_to_hub": "an iteration is an experiment; publish the adapter of the best one yourself",
    "deepspeed": "a loop trains in this one process, on one device",
    "fsdp": "a loop trains in this one process, on one device",
    "do_eval": "the eval set is evaluated at every evaluation point",
    "metric_for_best_model": "the best evaluation point is the one with the lowest eval loss",
    "greater_is_better": "the best evaluation point is the one with the lowest eval loss",
}
"""Settings of SFTConfig that the loop does itself, and what it does."""
