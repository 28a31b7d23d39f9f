"""A fixed list of settings, as a person would write it, each tried once and in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_ftloop.adjust.policy import Proposal, changes
from pytest_ftloop.adjust.state import NOTHING, Known, canonical
from pytest_ftloop.records import Iteration, Settings


def settings_of(first: Iteration, entries: Sequence[Mapping[str, Any]]) -> list[Settings]:
    """The settings that each entry of a list stands for; `first` is the loop's start."""
    return [first.settings.adjusted(changes(first, entry, "")) for entry in entries]


@dataclass(frozen=True)
class Listed:
    """Each entry changes the loop file's own settings, so its effect is seen by itself."""

    entries: tuple[Mapping[str, Any], ...]
    exhaustive: bool = True

    def propose(
        self,
        chain: Sequence[Iteration],
        metric: str,  # noqa: ARG002 - what a list holds does not depend on what was reached
        known: Known = NOTHING,  # noqa: ARG002
    ) -> Proposal:
        """The first entry whose settings the chain has not tried."""
        first = chain[0]
        tried = {canonical(iteration.settings) for iteration in chain}
        settings = settings_of(first, self.entries)
        for number, (entry, result) in enumerate(zip(self.entries, settings, strict=True), start=1):
            if canonical(result) not in tried:
                because = f"number {number} of {len(self.entries)} in the loop file's list"
                return Proposal(first, changes(first, entry, because))
        return Proposal(first, (), "The loop file's list of settings is through.")
