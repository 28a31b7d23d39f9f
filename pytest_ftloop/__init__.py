"""pytest-ftloop: the fine-tuning loop as a test. Names are resolved on first access, so that
importing the package (every pytest run does) costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Adjustment": "records",
    "Decision": "records",
    "Example": "records",
    "ExampleResult": "records",
    "Figure": "result",
    "Finding": "records",
    "FtloopError": "errors",
    "Iteration": "records",
    "LoopConfig": "config",
    "LoopResult": "result",
    "Options": "loop",
    "read_loop_file": "config",
    "Loop": "loop",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
