"""The interface of a policy: from the chain so far to the next settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pytest_ftloop.adjust.state import DEFAULTS, NOTHING, Known
from pytest_ftloop.core.records import Adjustment, Iteration


@dataclass(frozen=True)
class Proposal:
    """The next adjustments, relative to `parent`; without any, `because` is the reason."""

    parent: Iteration
    adjustments: tuple[Adjustment, ...]
    because: str = ""


class Policy(Protocol):
    """Proposes what is trained next.

    An `exhaustive` policy follows its own plan: only the limits end the loop, not gates that hold
    or a plateau.
    """

    @property
    def exhaustive(self) -> bool:
        """Whether only the limits end the loop."""

    def propose(self, chain: Sequence[Iteration], metric: str, known: Known = NOTHING) -> Proposal:
        """What to train after this chain; `metric` decides which iteration is best."""


def changes(parent: Iteration, wanted: Mapping[str, Any], because: str) -> tuple[Adjustment, ...]:
    """The adjustments from the parent's settings to `wanted`, by dotted name."""
    made = []
    for setting, after in wanted.items():
        before = parent.settings.get(setting)
        before = DEFAULTS.get(setting) if before is None else before
        if after != before:
            made.append(Adjustment(setting, before, after, because))
    return tuple(made)
