"""Policies of the user: a function or pytest hook, or a fixed list of settings."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_ftloop.adjust.policy import Policy, Proposal, changes
from pytest_ftloop.adjust.state import NOTHING, Known, canonical, parent_of_next
from pytest_ftloop.config.sections import SETTING_GROUPS
from pytest_ftloop.core.credentials import is_credential
from pytest_ftloop.core.errors import ConfigError, Location
from pytest_ftloop.core.functions import described, raised_at
from pytest_ftloop.core.records import Iteration, Settings

Adjust = Callable[[Sequence[Iteration]], object]

PARAMETERS = ("chain",)
"""The arguments of a user's policy function."""


@dataclass(frozen=True)
class Function:
    """Settings that a user's code returns, relative to the best iteration so far.

    `adjust` takes the chain, oldest iteration first, and returns a mapping of dotted settings to
    new values. An empty mapping ends the loop; None leaves the decision to `otherwise`.
    """

    name: str
    adjust: Adjust
    otherwise: Policy | None = None
    where: Location | None = None
    exhaustive: bool = False

    def propose(self, chain: Sequence[Iteration], metric: str, known: Known = NOTHING) -> Proposal:
        """The settings that the user's code returns. Raises `ConfigError` if it fails."""
        wanted = self._asked(chain)
        if wanted is None and self.otherwise is not None:
            return self.otherwise.propose(chain, metric, known)
        parent = parent_of_next(chain, metric)
        if not wanted:
            return Proposal(parent, (), f"{self.name} has no more settings to try.")
        made = changes(parent, wanted, f"returned by {self.name}")
        again = canonical(parent.settings.adjusted(made))
        for iteration in chain:
            if canonical(iteration.settings) == again:
                because = (
                    f"{self.name} returned the settings of iteration {iteration.number} again."
                )
                return Proposal(parent, (), because)
        return Proposal(parent, made)

    def _asked(self, chain: Sequence[Iteration]) -> Mapping[str, Any] | None:
        try:
            # A copy, so that changes by the user's code don't reach the log.
            wanted = self.adjust(copy.deepcopy(tuple(chain)))
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"policy {self.name} raised {described(error)} after iteration {chain[-1].name}",
                where=self.where,
                cure=f"It was raised at {raised_at(error)}. The iterations so far are in the log.",
            ) from error
        if wanted is None:
            return None
        if not isinstance(wanted, Mapping):
            raise self._mistake(f"wanted a mapping of settings, found {type(wanted).__name__}")
        for name in wanted:
            if not str(name).startswith(SETTING_GROUPS):
                raise self._mistake(f"wanted names such as training.learning_rate, found {name!r}")
            if is_credential(str(name), wanted[name]):
                raise self._mistake(f"{name}: found a credential, which the log would keep")
        try:
            plain = json.loads(json.dumps(dict(wanted), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise self._mistake(f"wanted numbers, text, lists or dicts: {error}") from None
        return dict(plain)

    def _mistake(self, text: str) -> ConfigError:
        return ConfigError(
            f"policy {self.name}: {text}",
            where=self.where,
            cure='Return settings by name, such as {"training.learning_rate": 1e-3}, or {} to end '
            "the loop.",
        )


def settings_of(first: Iteration, entries: Sequence[Mapping[str, Any]]) -> list[Settings]:
    """The settings for each entry of a list; `first` is the loop's first iteration."""
    return [first.settings.adjusted(changes(first, entry, "")) for entry in entries]


@dataclass(frozen=True)
class Listed:
    """A list of settings, each relative to the loop file's, so that its effect is seen alone."""

    entries: tuple[Mapping[str, Any], ...]
    exhaustive: bool = True

    def propose(
        self,
        chain: Sequence[Iteration],
        metric: str,  # noqa: ARG002 - a list does not depend on results
        known: Known = NOTHING,  # noqa: ARG002
    ) -> Proposal:
        """The first entry whose settings the chain has not tried."""
        first = chain[0]
        tried = {canonical(iteration.settings) for iteration in chain}
        settings = settings_of(first, self.entries)
        for number, (entry, result) in enumerate(zip(self.entries, settings, strict=True), start=1):
            if canonical(result) not in tried:
                because = f"entry {number} of {len(self.entries)} in the loop file's list"
                return Proposal(first, changes(first, entry, because))
        return Proposal(first, (), "All settings in the loop file's list were tried.")
