"""Rules on failing examples: what they share, and how they changed over the iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.diagnose import confusions, courses, invalid_json, slices

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Finding
    from pytest_ftloop.diagnose.evidence import Evidence


def findings(e: Evidence) -> tuple[Finding, ...]:
    """All findings on failing examples, the most informative first."""
    return (
        *slices.findings(e),
        *confusions.findings(e),
        *courses.findings(e),
        *invalid_json.findings(e),
    )
