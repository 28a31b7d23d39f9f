"""The policy: from the findings and the chain so far to the next settings, or a reason to stop.

Every move starts from the best iteration so far, changes one setting (two where they belong
together), says why, stays within bounds, and never gives settings that the chain already tried.
The learning rate comes first, in log space: what diverged is a ceiling, what learned nothing a
floor, and once both sides of the optimum are known the geometric middle is next.
"""

from __future__ import annotations

from pytest_ftloop.adjust.decide import Limits, decide
from pytest_ftloop.adjust.function import settings_of
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
    "parent_of_next",
    "settings_of",
]
