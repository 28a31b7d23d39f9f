"""pytest-ftloop: the fine-tuning loop as a test. Names are resolved on first access, so that
importing the package (every pytest run does) costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Adjustment": "core.records",
    "Decision": "core.records",
    "Example": "core.records",
    "ExampleResult": "core.records",
    "Figure": "loop.result",
    "Finding": "core.records",
    "FtloopError": "core.errors",
    "Iteration": "core.records",
    "LoopConfig": "config.loop_config",
    "LoopResult": "loop.result",
    "Options": "loop.options",
    "read_loop_file": "config.loop_config",
    "Loop": "loop.loop",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
