"""Base models of other sizes than the embedded one, made by its recipe on its corpus.

No threshold of a rule was chosen on them.
"""

from __future__ import annotations

from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.recipe import Recipe

BASES = {
    "tiny": Recipe(),
    "narrow": Recipe(width=96, layers=3, seed=1),
    "wide": Recipe(width=192, layers=4, heads=6, seed=2),
}
"""By name: the embedded one (about a million parameters), one of half its size, one of twice."""


def base(name: str) -> str:
    """What a loop file states as `model` for the base of this name, made when first asked for."""
    if name == "tiny":
        return name
    from pytest_ftloop.train.tiny import tiny_folder

    return str(tiny_folder(Silent(), BASES[name]))
