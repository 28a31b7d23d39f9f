"""Credentials in a loop file, in places that the log would keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.credentials import is_credential, is_credential_name, texts_with_credentials
from pytest_ftloop.core.errors import ConfigError

if TYPE_CHECKING:
    from pytest_ftloop.core.errors import Locate


def credentials_elsewhere(values: Mapping[str, Any], locate: Locate) -> Iterator[ConfigError]:
    """Credentials in a place that the log keeps: anything but an argument that takes one.

    Those are the arguments with such a name, and what is nested in one (`model_init_kwargs`).
    """
    groups = {group: values.get(group) for group in ("lora", "training")}
    others = {key: value for key, value in values.items() if key not in groups}
    for group, stated in groups.items():
        for name, value in stated.items() if isinstance(stated, Mapping) else ():
            if not isinstance(value, Mapping) and not is_credential_name(str(name)):
                others[f"{group}.{name}"] = value
    found = list(texts_with_credentials(others))
    policy = section.get("policy") if isinstance(section := values.get("loop"), Mapping) else None
    for number, entry in enumerate(policy) if isinstance(policy, list) else ():
        for name, value in entry.items() if isinstance(entry, Mapping) else ():
            key = f"loop.policy[{number}].{name}"
            if is_credential(str(name), value) and key not in found:
                found.append(key)
    for key in found:
        yield ConfigError(
            f"{key}: found a credential, which the log would keep",
            where=locate(key.partition("[")[0]),
            cure="Remove it and set it in the environment, as HF_TOKEN for the hub: a loop file is "
            "committed.",
        )
