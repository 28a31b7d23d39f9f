"""The key `loop.run_on`: which engine runs the workers of a loop, and with what options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

RAY = "ray"
"""The engine that comes with the plugin. All others are a user's own."""

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_NAME = re.compile(r"[A-Za-z_][\w-]*")


def checked_engine(stated: object) -> object:
    """Check what `loop.run_on` states: one message, in place of one for each of its two forms."""
    if stated is None:
        return None
    name, options = _parts(stated)
    wanted = "loop.run_on: wanted ray, the name of a plugin's engine, or module:function"
    if not isinstance(name, str):
        raise ValueError(f"{wanted}, or one of these with its options, found {stated!r}")
    if not (_NAME.fullmatch(name) or FUNCTION.fullmatch(name)):
        raise ValueError(f"{wanted}, found {name!r}")
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ValueError(
            f"loop.run_on.{name}: wanted options by name, such as "
            f"{{num_cpus: 1, num_gpus: 1}}, found {options!r}"
        )
    return stated


def engine_in(
    stated: str | Mapping[str, Mapping[str, Any] | None] | None,
) -> tuple[str, dict[str, Any]]:
    """The name of an engine, empty if there is none, and its options."""
    name, options = _parts(stated or "")
    return str(name), dict(options)


def _parts(stated: Any) -> tuple[object, Any]:
    """The name and the options; None for the name if it is no name, nor one name with options."""
    if isinstance(stated, Mapping) and len(stated) == 1:
        ((name, options),) = stated.items()
        return name, {} if options is None else options
    return (stated, {}) if isinstance(stated, str) else (None, {})
