"""Diagnosis: from what one iteration showed to findings, each with its evidence and remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.diagnose.curves import RULES
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.watch import Watch

if TYPE_CHECKING:
    from pytest_ftloop.records import Finding

__all__ = ["Evidence", "Watch", "diagnose"]

_SEVERITIES = ("error", "warning", "info")

# A root cause makes its symptoms meaningless: what a broken run's curve looks like says nothing.
_CURVE = {"diverged", "not-learning", "underfit", "oscillation", "overfitting", "plateau"}
SUPPRESSES = {
    "no-signal": {"non-finite"} | _CURVE,
    "non-finite": _CURVE,
    "diverged": _CURVE - {"diverged"},
    "oscillation": {"not-learning", "underfit"},
    "not-learning": {"underfit", "overfitting", "plateau"},
    "overfitting": {"underfit"},
}


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """All findings, errors first, then in the order of the rules; symptoms of another left out."""
    found = [finding for rule in RULES if (finding := rule(evidence))]
    symptoms = {kind for finding in found for kind in SUPPRESSES.get(finding.kind, ())}
    causes = [finding for finding in found if finding.kind not in symptoms]
    return tuple(sorted(causes, key=lambda finding: _SEVERITIES.index(finding.severity)))
