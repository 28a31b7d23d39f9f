"""Records as JSON text."""

from __future__ import annotations

import json
from dataclasses import asdict
from types import MappingProxyType

import pytest

from pytest_ftloop.core.json_text import json_text
from tests.fakes import fake_iteration


@pytest.mark.parametrize("sort_keys", [False, True])
def test_it_is_the_text_of_asdict(sort_keys: bool) -> None:
    """At any depth, with every field and no cached value; a mapping of any kind is an object."""
    iteration = fake_iteration(1)
    assert iteration.settings.get("lora.r")
    wanted = json.dumps(asdict(iteration), sort_keys=sort_keys)
    assert wanted == json_text(iteration, sort_keys=sort_keys)
    assert f'{{"a": [{wanted}]}}' == json_text(
        MappingProxyType({"a": (iteration,)}), sort_keys=sort_keys
    )


def test_what_is_no_record_is_refused() -> None:
    """As JSON's own writer refuses it: a set, or a class in place of a record."""
    for value in ({1}, type(fake_iteration(1))):
        with pytest.raises(TypeError, match="wanted a record"):
            json_text({"a": value})
