"""The reference's keys, scorers, metrics and settings are those of the code."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.gates import OPERATORS
from pytest_ftloop.config.scoring import _OPTIONS, SCORERS
from pytest_ftloop.config.sections import (
    DEFAULT_LORA,
    DEFAULT_TRAINING,
    ForgettingSection,
    LoopFile,
    RegressionSection,
)
from pytest_ftloop.core.metrics import METRICS
from pytest_ftloop.gate.verdict import FAILING, Kind
from pytest_ftloop.loop.result import LoopResult
from tests.docs.pages import PAGES, REFERENCE, TEXTS, names, section, tables, ticked

if TYPE_CHECKING:
    from collections.abc import Iterator


def loop_keys(model: type[BaseModel] = LoopFile, above: str = "") -> dict[str, Any]:
    """Every dotted key of a loop file, with its field."""
    keys: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        keys[f"{above}{name}"] = field
        for part, between in sections(field.annotation):
            keys |= loop_keys(part, f"{above}{name}.{between}")
    return keys


def sections(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """The sections within a field's type; those of a mapping are below any name, `*`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    below = "*." if typing.get_origin(annotation) is dict else ""
    for part in typing.get_args(annotation):
        for section_, between in sections(part):
            yield section_, below + between


def test_loop_file_keys() -> None:
    """The table has each key of a loop file, at any depth, and no other."""
    documented = names(tables(section(REFERENCE, "Loop file"))[0])
    assert sorted(loop_keys()) == sorted(documented)


def test_loop_file_defaults() -> None:
    """A key's default that is a number, text or flag is the one in the table."""
    rows = {
        name: row for row in tables(section(REFERENCE, "Loop file"))[0] for name in names([row])
    }
    shown = {bool: lambda v: str(v).lower(), str: lambda v: f"`{v}`", int: str}
    plain = {
        key: field.default for key, field in loop_keys().items() if type(field.default) in shown
    }
    assert len(plain) > 8
    assert {key: shown[type(v)](v) for key, v in plain.items()} == {k: rows[k][2] for k in plain}


def test_loop_file_keys_that_are_required() -> None:
    """The required keys are those that the table calls required."""
    rows = tables(section(REFERENCE, "Loop file"))[0]
    assert {key for key, field in loop_keys().items() if field.is_required()} == set(
        names([row for row in rows if row[2].startswith("required")])
    )


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_key_that_does_not_exist(page: str) -> None:
    """Each dotted key of a loop file that a page names exists, below lora and training too."""
    from peft import LoraConfig
    from trl import SFTConfig

    known = {f"lora.{field.name}" for field in dataclasses.fields(LoraConfig)} | {"lora.init_from"}
    known |= {f"training.{field.name}" for field in dataclasses.fields(SFTConfig)} | set(
        loop_keys()
    )
    pattern = re.compile(r"(?:data|scoring|loop|lora|training)\.[\w.]+")
    named = {span for span in ticked(TEXTS[page]) if pattern.fullmatch(span)}
    assert set() == {name for name in named if not name.endswith(".py")} - known


def test_scorers() -> None:
    """The table has each scorer with its own options, and no other."""
    rows = tables(section(REFERENCE, "Scorers"))[0]
    assert {name: set(_OPTIONS.get(name, ())) for name in SCORERS} == {
        ticked(row[0])[0]: set(ticked(row[2])) for row in rows
    }


def test_metrics() -> None:
    """The table has each metric in its order, with the direction in which it is better."""
    rows = tables(section(REFERENCE, "Gates"))[0]
    assert [(m.name, m.better) for m in METRICS.values()] == [(names([r])[0], r[1]) for r in rows]


def test_keys_of_the_gate_regression() -> None:
    """The table has each key of the regression gate with its default, and no other."""
    rows = tables(section(REFERENCE, "The gate regression"))[0]
    assert list(RegressionSection.model_fields) == names(rows)
    said = {names([row])[0]: YAML(typ="safe").load(row[2].strip("`")) for row in rows}
    assert RegressionSection.model_validate({}).model_dump() == said


def test_keys_of_the_gate_forgetting() -> None:
    """The table has what the forgetting gate has besides the regression gate, with its default."""
    rows = tables(section(REFERENCE, "The gate forgetting"))[0]
    said = {names([row])[0]: YAML(typ="safe").load(row[2].strip("`")) for row in rows}
    defaults = ForgettingSection.model_validate({}).model_dump()
    assert {key: defaults[key] for key in said} == said
    assert {"metrics", "against"} == set(said)
    rest = {key: value for key, value in defaults.items() if key != "against"}
    assert RegressionSection.model_validate({}).model_dump() == rest


def test_verdicts() -> None:
    """The table has each verdict, and whether it fails."""
    rows = {
        names([row])[0]: row[2] for row in tables(section(TEXTS["docs/gate.md"], "Verdicts"))[0]
    }
    assert set(typing.get_args(Kind)) == set(rows)
    assert set(FAILING) == {kind for kind, fails in rows.items() if fails == "yes"}
    (choice,) = typing.get_args(RegressionSection.model_fields["fail_on"].annotation)
    accepted = {kind.replace("-", " ") for kind in typing.get_args(choice)}
    assert accepted == {kind for kind, fails in rows.items() if fails == "when asked to"}


def test_operators() -> None:
    """Each operator of a gate is named."""
    assert set(OPERATORS) == {s for s in ticked(section(REFERENCE, "Gates")) if s[0] in "<>=!"}


SET_BESIDE = ("report_to",)
"""Settings of the table whose value the trainer gets."""


def settings_tables() -> tuple[list[list[str]], list[list[str]]]:
    first, second = tables(section(REFERENCE, "Settings"))
    return first, second


def loop_yaml(text: str) -> Any:
    """A value as a loop file has it: YAML 1.2, in which no is a text."""
    return YAML(typ="safe", pure=True).load(text)


def test_default_settings() -> None:
    """The defaults for a loop without lora or training are shown as a loop file has them."""
    (lora, training, *_), _ = settings_tables()
    assert dict(DEFAULT_LORA) == loop_yaml(ticked(lora[1])[0])
    assert dict(DEFAULT_TRAINING) == loop_yaml(ticked(training[1])[0])


def test_refused_settings() -> None:
    """All refused settings, and those that only the loop reads, are named."""
    from pytest_ftloop.config.old_names import REFUSED
    from pytest_ftloop.train.arguments import OWN

    assert {f"training.{name}" for name in REFUSED} == set(names(settings_tables()[1]))
    named = set(ticked(section(REFERENCE, "Settings")))
    assert set() == {f"training.{name}" for name in OWN} - named


def test_settings_that_the_loop_sets(tmp_path: Path) -> None:
    """The settings that the loop adds to the user's are those on the page, and no other."""
    from trl import SFTConfig

    from pytest_ftloop.core.records import Settings
    from pytest_ftloop.train.arguments import lora_config, sft_config

    text = section(REFERENCE, "Settings")
    rows = {names([row])[0]: row[1].strip("`") for row in settings_tables()[0]}
    said = {name: loop_yaml(rows[f"training.{name}"]) for name in SET_BESIDE}
    for span in ticked(text[text.index("Always") : text.index("Refused")]):
        said |= loop_yaml(span)
    stated = {"use_cpu": True, "bf16": False}
    expected = SFTConfig(output_dir=str(tmp_path), **stated, **said)
    actual = sft_config(Settings({}, dict(stated)), str(tmp_path), lambda _: None)
    assert dataclasses.asdict(expected) == dataclasses.asdict(actual)
    assert rows["lora.task_type"] == lora_config(Settings({}, {}), lambda _: None).task_type


def test_arguments_of_the_fixture() -> None:
    """The table has each argument that ftloop() takes, and no other."""
    known = set(from_python.__kwdefaults__ or {}) | {"name"}
    assert known == set(names(tables(section(REFERENCE, "Python"))[0]))


def test_attributes_of_the_result() -> None:
    """The table has each public attribute of a loop's result, and no other."""
    fields = {field.name for field in dataclasses.fields(LoopResult)}
    public = fields | {name for name in vars(LoopResult) if not name.startswith("_")}
    table = tables(section(REFERENCE, "Python"))[1]
    assert public == {name.partition("(")[0] for name in names(table)}
