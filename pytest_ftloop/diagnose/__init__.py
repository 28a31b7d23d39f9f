"""Diagnose one iteration: from its evidence to findings, each with figures and a remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import SEVERITIES
from pytest_ftloop.diagnose.evidence import Evidence

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Finding

__all__ = ["Evidence", "by_severity", "diagnose"]

_CURVE = {
    *("diverged", "not-learning", "underfit", "oscillation", "overfitting", "overconfidence"),
    *("converged", "capacity", "plateau", "worse-answers"),
    *("impossible-loss", "memorising", "zero-loss"),
}
_EXAMPLES = {"no-lift", "unlearned", "failing-slice", "confusion", "mislabelled"}
SUPPRESSES = {
    "no-signal": {"non-finite"} | _CURVE | _EXAMPLES,
    "non-finite": _CURVE | _EXAMPLES,
    "diverged": (_CURVE - {"diverged"}) | _EXAMPLES,
    "oscillation": {"not-learning", "underfit", "capacity", "converged", "worse-answers"},
    "impossible-loss": {"underfit", "converged", "memorising"},
    "zero-loss": {"converged", "overfitting", "underfit"},
    "not-learning": (_CURVE - {"diverged", "impossible-loss", "not-learning", "oscillation"})
    | _EXAMPLES,
    "overfitting": {"underfit", "capacity", "worse-answers"},
    "overconfidence": {"converged"},
    "worse-answers": {"underfit", "converged"},
    "underfit": {"capacity", "no-lift"},
    "capacity": {"converged"},
    "plateau": {"converged"},
}
"""The findings that each cause hides. They are its symptoms: the shape of a broken run's curve, or
which examples its model fails, says nothing more, and a remedy for them would be the wrong one."""


OF_TRAINING = frozenset(
    {"truncated-labels", "unlearnt-end", "prompt-in-loss", "split-prompt", "mislabelled"}
)
"""The findings that rest on what a log does not hold of a training: its rows as trl prepared them,
and how each was learned."""


def diagnose(evidence: Evidence, of_data: tuple[Finding, ...] | None = None) -> tuple[Finding, ...]:
    """All findings, errors first, then in the order of the rules, without symptoms of others.

    `of_data` are the findings of `data.before_training`, if known: they take the longest to find.
    """
    # Thirty modules: judging a log reads findings, and makes none.
    from pytest_ftloop.diagnose import chain, curves, data, dynamics, failing, lift, wiring

    found = [finding for rule in wiring.RULES if (finding := rule(evidence))]
    in_data = data.findings(evidence, of_data)
    found += in_data
    # Before the curves, as wrong labels that are memorised look like overfitting there. If the
    # data shows them already, the losses add nothing.
    if not any(finding.kind == "mislabelled" for finding in in_data):
        found += dynamics.findings(evidence)
    found += [
        finding
        for rule in (*curves.RULES, *chain.RULES, *lift.RULES)
        if (finding := rule(evidence))
    ]
    found += failing.findings(evidence)
    symptoms = {kind for finding in found for kind in SUPPRESSES.get(finding.kind, ())}
    # What the data shows holds however the training went.
    causes = [f for f in found if f in in_data or f.kind not in symptoms]
    return by_severity(causes)


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings, errors first and infos last; within one severity the order stays."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
