"""What a policy is: from the chain so far to the next settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pytest_ftloop.adjust.state import DEFAULTS, NOTHING, Known
from pytest_ftloop.core.records import Adjustment, Iteration


@dataclass(frozen=True)
class Proposal:
    """The next adjustments, relative to `parent`; where there are none, `because` says why."""

    parent: Iteration
    adjustments: tuple[Adjustment, ...]
    because: str = ""


class Policy(Protocol):
    """Says what is trained next.

    `exhaustive`: it has a plan of its own to go through, so neither gates that hold nor a plateau
    end the loop, only its limits.
    """

    @property
    def exhaustive(self) -> bool:
        """Whether it is gone through to its end."""

    def propose(self, chain: Sequence[Iteration], metric: str, known: Known = NOTHING) -> Proposal:
        """What comes after the chain, of which the best by `metric` counts."""


def changes(parent: Iteration, wanted: Mapping[str, Any], because: str) -> tuple[Adjustment, ...]:
    """The adjustments that bring the parent to the settings `wanted`, by their dotted names."""
    made = []
    for setting, after in wanted.items():
        before = parent.settings.get(setting)
        before = DEFAULTS.get(setting) if before is None else before
        if after != before:
            made.append(Adjustment(setting, before, after, because))
    return tuple(made)
