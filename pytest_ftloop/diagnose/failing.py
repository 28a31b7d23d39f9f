"""Which examples fail and what they share: slices, confusions, courses over the iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.diagnose import confusions, courses, slices

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Finding
    from pytest_ftloop.diagnose.evidence import Evidence


def findings(e: Evidence) -> tuple[Finding, ...]:
    """What it finds, the most telling first."""
    return (*slices.findings(e), *confusions.findings(e), *courses.findings(e))
