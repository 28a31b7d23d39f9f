"""No argument of SFTConfig or LoraConfig puts a credential into a record or a page."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig
from trl import SFTConfig

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import LoopConfig, checked
from pytest_ftloop.core.credentials import is_credential_name
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.log.writing import to_yaml
from pytest_ftloop.loop.local_backend import LocalBackend
from pytest_ftloop.report.card import Facts, model_card
from pytest_ftloop.report.show import show_iteration
from tests.fakes import fake_iteration

SECRET = "hf_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7"
WORD = "open-sesame"

VALUES: tuple[Any, ...] = (
    *(SECRET, [SECRET], {"x": SECRET}, {"token": WORD}, {"x": {"api_key": WORD}}),
    *(f"https://me:{WORD}@host", f"HF_TOKEN={WORD}", f"Authorization: Basic {WORD}"),
    *({"headers": {"Authorization": WORD}}, {"env": {"WANDB_API_KEY": WORD}}),
    *([{"token": WORD}], {"x": [{"y": {"password": WORD}}]}, {"url": f"https://me:{WORD}@host"}),
)
"""By form and by name; as a text, in a list, nested, in a list of mappings."""

ARGUMENTS = [
    (group, field.name)
    for group, config in (("lora", LoraConfig), ("training", SFTConfig))
    for field in fields(config)
]


def read(group: str, name: str, value: Any) -> LoopConfig:
    """A loop file that states one argument."""
    values = {"data": {"train": "t.jsonl", "eval": "e.jsonl"}, group: {name: value}}
    return checked(values, {}, folder=Path(), source="x.ftloop.yaml", name="x")


def read_or_error(group: str, name: str, value: Any) -> LoopConfig | str:
    """The same, or the text of the error."""
    try:
        return read(group, name, value)
    except ConfigError as error:
        return str(error)


def kept(config: LoopConfig) -> str:
    """All that is written or shown of a record with these settings."""
    iteration = replace(fake_iteration(1), settings=config.settings)
    shown = show_iteration(iteration, {}, 200, unicode=True)
    return to_yaml(iteration, "") + shown + model_card(iteration, Facts("a base"))


@pytest.mark.parametrize(("group", "name"), ARGUMENTS)
def test_no_argument_keeps_a_credential(group: str, name: str) -> None:
    """As a text, in a list, nested by its form and nested by its name: left out, or an error."""
    for value in VALUES:
        config = read_or_error(group, name, value)
        if isinstance(config, str):
            assert f"{group}.{name}" in config
            assert SECRET not in config
            continue
        assert SECRET not in kept(config)
        assert f":{WORD}@" not in kept(config)
        assert WORD not in kept(config)
        assert value == getattr(config.with_credentials(config.settings), group)[name]


def test_the_arguments_that_take_a_credential() -> None:
    """Those of this trl and peft: a new one is found by its name, no other is taken for one."""
    assert ["hub_token"] == [name for _, name in ARGUMENTS if is_credential_name(name)]


def test_a_config_object_keeps_none(tmp_path: Path) -> None:
    """A loop that is made in Python of a SFTConfig with a token."""
    training = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, hub_token=WORD)
    config = from_python(
        folder=tmp_path, source="t.py", name="x", train=[{}], eval=[{}], training=training
    )
    assert WORD not in kept(config)
    assert WORD == config.with_credentials(config.settings).training["hub_token"]


def test_an_error_of_a_library_shows_none(tmp_path: Path) -> None:
    """Even one that has no form to be known by: the loop's own are known."""
    config = read("training", "model_init_kwargs", {"token": WORD})
    config = replace(config, model=str(tmp_path), folder=tmp_path)
    backend = LocalBackend(config, None, Silent())  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught, backend._without_credentials():
        raise ConfigError(f"401 for {WORD}", cure=f"Renew {WORD}.")
    assert "401 for ***\n  Renew ***." == str(caught.value)
