"""`ftloop schema`."""

from __future__ import annotations

import json
import re

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.config.schema import loop_file_schema
from tests.cli.cli_cases import Capture

# schema


def test_schema_is_printed(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """One JSON document of draft 2020-12; without the train extra lora and training are open."""
    monkeypatch.setattr("pytest_ftloop.config.schema.TRAIN_EXTRA", ("no_such_module",))
    assert 0 == main(["schema"])
    schema = json.loads(capsys.readouterr().out)
    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]
    groups = {"data", "lora", "training", "scoring", "metrics", "gates", "loop"}
    assert {"name", "model", "tokenizer", *groups} == set(schema["properties"])
    assert schema["properties"]["lora"].get("additionalProperties", True)
    assert "properties" not in schema["properties"]["training"]


@pytest.mark.parametrize(
    ("key", "condition", "good"),
    [
        ("eval_loss", "<= 3.4", True),
        ("eval_loss[a b]", "< 1e-2", True),
        ("pass_rate[negation]", ">=90%", True),
        ("eval_loss", ">= 3.4", False),
        ("pass_rate", "0.9", False),
        ("pass_rat", ">= 0.9", False),
        ("pass_rate[]", ">= 0.9", False),
    ],
)
def test_schema_of_gates(
    key: str, condition: str, good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate's key is a metric or one of a tag, its condition goes in the metric's direction."""
    monkeypatch.setattr("pytest_ftloop.config.schema.TRAIN_EXTRA", ("no_such_module",))
    gates = loop_file_schema()["properties"]["gates"]
    assert gates["additionalProperties"] is False
    fitting = [v for pattern, v in gates["patternProperties"].items() if re.search(pattern, key)]
    assert good == any(re.search(value["pattern"], condition) for value in fitting)


@pytest.mark.slow
def test_schema_knows_peft_and_trl() -> None:
    """With the train extra every argument is there with type and default, and no other name."""
    from peft import LoraConfig
    from trl import SFTConfig

    from pytest_ftloop.config.old_names import REFUSED
    from pytest_ftloop.train.arguments import field_names

    schema = json.loads(json.dumps(loop_file_schema(), allow_nan=False))
    lora, training = schema["properties"]["lora"], schema["properties"]["training"]
    assert field_names(LoraConfig) | {"init_from"} == set(lora["properties"])
    assert field_names(SFTConfig) - set(REFUSED) == set(training["properties"])
    assert lora["additionalProperties"] is training["additionalProperties"] is False
    assert ("integer", 8) == tuple(lora["properties"]["r"][k] for k in ("type", "default"))
    rate = training["properties"]["learning_rate"]
    assert ("number", SFTConfig.learning_rate) == (rate["type"], rate["default"])
    references = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema)))
    assert references <= set(schema["$defs"])
