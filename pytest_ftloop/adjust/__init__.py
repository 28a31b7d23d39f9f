"""The policy: from the findings and the chain so far to the next settings, or a reason to stop.

Every move starts from the best iteration so far, changes one setting (or two that belong together),
gives its reason, stays within bounds, and never repeats settings that the chain tried. The learning
rate comes first, on a logarithmic scale: rates that diverged are a ceiling, rates that learned
nothing a floor, and between a lower and a higher rate that were worse it narrows in on the best.
"""

from __future__ import annotations

from pytest_ftloop.adjust.decide import Limits, decide, fault_in
from pytest_ftloop.adjust.foresee import foresee
from pytest_ftloop.adjust.function import settings_of
from pytest_ftloop.adjust.guess import guess
from pytest_ftloop.adjust.policy import Policy, Proposal
from pytest_ftloop.adjust.rules import Rules
from pytest_ftloop.adjust.state import DEFAULTS, Known, canonical, parent_of_next

__all__ = [
    "DEFAULTS",
    "Known",
    "Limits",
    "Policy",
    "Proposal",
    "Rules",
    "canonical",
    "decide",
    "fault_in",
    "foresee",
    "guess",
    "parent_of_next",
    "settings_of",
]
