"""Outputs that should be JSON and are not, told apart from those with wrong values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding

if TYPE_CHECKING:
    from pytest_ftloop.diagnose.evidence import Evidence

VALID, FIELDS = "score.valid", "score.fields"
"""The scores of the scorer `json`."""

LEAST_SHARE = 0.05
"""Least share of outputs that are not JSON. Fewer are single failures, like any others."""


def findings(e: Evidence) -> tuple[Finding, ...]:
    """Outputs that are not JSON: `invalid-json`.

    Signal: at least `LEAST_SHARE` of the outputs have the score `score.valid` 0, and at least two
    of them. The message has the share of right fields among the others, which says whether the
    form or the values are the fault. Only of the scorer `json`.
    """
    rows = [row for row in e.results if VALID in row.scores]
    invalid = [row for row in rows if row.scores[VALID] == 0]
    if len(invalid) < max(2, LEAST_SHARE * len(rows)):
        return ()
    valid = [row.scores.get(FIELDS, 0.0) for row in rows if row.scores[VALID] > 0]
    right = sum(valid) / len(valid) if valid else 0.0
    among = f"of the others {right:.0%} of the fields are right" if valid else "none is"
    finding = Finding(
        kind="invalid-json",
        severity="warning",
        message=f"{len(invalid)} of {len(rows)} outputs are not JSON ({invalid[0].id}); {among}.",
        evidence={
            "invalid": len(invalid),
            "outputs": len(rows),
            "fields": round(right, 6),
            "first": invalid[0].id,
        },
        remedy=(
            "Look at where they end: raise scoring.max_new_tokens if they are cut, and check that "
            "completions end with the closing bracket and nothing after it. Else train longer."
        ),
    )
    return (finding,)
