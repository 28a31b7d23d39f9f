"""Diagnosis: from what one iteration showed to findings, each with its evidence and remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import SEVERITIES
from pytest_ftloop.diagnose import chain, curves, data, dynamics, failing, wiring
from pytest_ftloop.diagnose.data import before_training
from pytest_ftloop.diagnose.evidence import Evidence

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Finding

__all__ = ["Evidence", "before_training", "by_severity", "diagnose"]

# A root cause makes its symptoms meaningless: what a broken run's curve looks like says nothing.
_CURVE = {
    *("diverged", "not-learning", "underfit", "oscillation", "overfitting", "overconfidence"),
    *("converged", "capacity", "plateau"),
}
# Nor which examples such a model fails.
_EXAMPLES = {"failing-slice", "confusion", "mislabelled"}
SUPPRESSES = {
    "no-signal": {"non-finite"} | _CURVE | _EXAMPLES,
    "non-finite": _CURVE | _EXAMPLES,
    "diverged": (_CURVE - {"diverged"}) | _EXAMPLES,
    "oscillation": {"not-learning", "underfit", "capacity"},
    "not-learning": (_CURVE - {"diverged", "not-learning", "oscillation"}) | _EXAMPLES,
    "overfitting": {"underfit", "capacity"},
    "underfit": {"capacity"},
    "capacity": {"converged"},
    "plateau": {"converged"},
}


def diagnose(evidence: Evidence, of_data: tuple[Finding, ...] | None = None) -> tuple[Finding, ...]:
    """All findings, errors first, then in the order of the rules; symptoms of another left out.

    `of_data` are those of the data, where they are known already: they take the longest to find.
    """
    found = [finding for rule in wiring.RULES if (finding := rule(evidence))]
    found += data.findings(evidence, of_data)
    found += dynamics.findings(evidence)  # before the curves: wrong labels look like overfitting
    found += [finding for rule in (*curves.RULES, *chain.RULES) if (finding := rule(evidence))]
    found += failing.findings(evidence)
    symptoms = {kind for finding in found for kind in SUPPRESSES.get(finding.kind, ())}
    causes = [finding for finding in found if finding.kind not in symptoms]
    return by_severity(causes)


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings; those of one severity in the order in which they come."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
