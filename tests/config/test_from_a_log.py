"""What a log may not decide: a stranger's record runs no code, publishes nothing, opens no file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.loop_config import NOT_FROM_A_LOG, LoopConfig, checked
from pytest_ftloop.core.records import Settings


def loop(**training: Any) -> LoopConfig:
    """A loop file with these arguments of SFTConfig, whether or not that accepts them."""
    values = {"data": {"train": "t.jsonl", "eval": "e.jsonl"}, "training": {}}
    config = checked(values, {}, folder=Path(), source="x.ftloop.yaml", name="x")
    return replace(config, settings=Settings({}, training))


def decided(config: LoopConfig, **training: Any) -> dict[str, Any]:
    """What is trained with of settings from a log."""
    return dict(config.only_it_decides(Settings({}, training)).training)


@pytest.mark.parametrize("name", sorted(NOT_FROM_A_LOG))
def test_only_the_loop_file_decides(name: str) -> None:
    """Whatever the record says, stated or not, also among the arguments that load the model."""
    assert {"seed": 1} == decided(loop(), seed=1, **{name: True})
    assert {"seed": 1, name: True} == decided(loop(**{name: True}), seed=1)
    nested = {"model_init_kwargs": {"dtype": "auto", name: True}}
    assert {"model_init_kwargs": {"dtype": "auto"}} == decided(loop(), **nested)
    stated = loop(model_init_kwargs={name: True})
    assert nested == decided(stated, model_init_kwargs={"dtype": "auto"})


names = st.sampled_from([*sorted(NOT_FROM_A_LOG), "learning_rate", "seed", "optim"])
settings = st.dictionaries(names, st.integers(1, 3) | st.booleans(), max_size=5)


@given(settings, settings)
def test_all_else_is_the_logs(own: dict[str, Any], logged: dict[str, Any]) -> None:
    """Nothing else changes: losses are those of the logged settings."""
    own = {name: value for name, value in own.items() if name != "seed"}
    found = decided(loop(**own), **logged)
    assert {k: v for k, v in own.items() if k in NOT_FROM_A_LOG} == {
        k: v for k, v in found.items() if k in NOT_FROM_A_LOG
    }
    assert {k: v for k, v in logged.items() if k not in NOT_FROM_A_LOG} == {
        k: v for k, v in found.items() if k not in NOT_FROM_A_LOG
    }
