"""Python's garbage collector, which otherwise searches the imported modules again and again."""

from __future__ import annotations

import gc
from functools import cache


@cache
def keep_imports() -> None:
    """Leave what is there now out of all later searches: modules stay until the process ends.

    To be called once the imports are done. Reading a long log makes many objects, each of which
    brings the next search nearer.
    """
    gc.freeze()
