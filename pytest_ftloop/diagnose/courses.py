"""Courses of the eval examples over a chain's iterations: broken, flaky, never passed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from pytest_ftloop.core.chain import best_of
from pytest_ftloop.core.metrics import figure_of
from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.groups import listed

if TYPE_CHECKING:
    from pytest_ftloop.core.records import ExampleResult
    from pytest_ftloop.diagnose.evidence import Evidence

CHANGES = 2
"""Changes of passed and failed that make an example flaky: it came back to what it was."""

FLAKY_SHARE = 0.05
"""Of all examples: fewer flaky ones are not worth a word."""

IDS = 10
"""Ids that a finding names."""


@dataclass(frozen=True)
class Course:
    """Whether one example passed, in each iteration that scored it; the last one is this one."""

    id: str
    passed: tuple[bool, ...]

    @property
    def changes(self) -> int:
        """How often it went from passed to failed, or back."""
        return sum(before != after for before, after in pairwise(self.passed))


def findings(e: Evidence) -> tuple[Finding, ...]:
    """Broken, never passed, flaky: of each a finding, if there are any."""
    if not e.history:
        return ()
    earlier = [_scored(e.results_of(iteration)) for iteration in e.history]
    courses = courses_of(e.results, earlier)
    found = (broken(e, earlier), never_passed(courses), flaky(courses))
    return tuple(finding for finding in found if finding)


def courses_of(
    results: Sequence[ExampleResult], earlier: Sequence[dict[tuple[str, str], bool]]
) -> tuple[Course, ...]:
    """Of each scored example, matched by id and content, by id."""
    scored = sorted(_scored(results).items())
    return tuple(
        Course(key[0], (*(old[key] for old in earlier if key in old), passed))
        for key, passed in scored
    )


def broken(e: Evidence, earlier: Sequence[dict[tuple[str, str], bool]]) -> Finding | None:
    """Examples that passed in the best iteration before this one and now fail.

    Signal: passed there, failed here; those fixed are counted too. Threshold: one broken example.
    Source: none needed, it is a count. Minimum data: one earlier iteration with a figure of the
    loop's metric that scored some of the same examples. NaN: no figure that could be.
    """
    best = best_of(e.history, e.metric)
    if not math.isfinite(figure_of(best.metrics, e.metric)):
        return None
    before = next(rows for i, rows in zip(e.history, earlier, strict=True) if i is best)
    now = {key: passed for key, passed in _scored(e.results).items() if key in before}
    broke = sorted(id_ for (id_, c), passed in now.items() if not passed and before[id_, c])
    fixed = sorted(id_ for (id_, c), passed in now.items() if passed and not before[id_, c])
    if not broke:
        return None
    ids = listed(broke, IDS)
    return Finding(
        kind="broken",
        severity="info",
        message=(
            f"Against iteration {best.number}, the best before, {_examples(len(broke))} broke and "
            f"{len(fixed)} {'was' if len(fixed) == 1 else 'were'} fixed: {ids}."
        ),
        evidence={
            "iteration": best.number,
            "broken": len(broke),
            "fixed": len(fixed),
            "examples": len(now),
            "ids": ids,
            "fixed_ids": listed(fixed, IDS),
        },
        remedy="Look at what broke: what the last adjustment gained is paid with these.",
    )


def never_passed(courses: Sequence[Course]) -> Finding | None:
    """Examples that passed in no iteration of the chain.

    Signal: failed in every iteration that scored them. Threshold: one such example. Source: none
    needed, it is a count. Minimum data: two iterations that scored it; some example passed, or it
    is the model that fails. NaN: no figure that could be.
    """
    known = [course for course in courses if len(course.passed) >= 2]
    never = [course for course in known if not any(course.passed)]
    if not never or len(never) == len(known):
        return None
    return _of_courses(
        "never-passed",
        never,
        known,
        "passed in none of",
        "No setting mended these: check what they expect, then add train examples like them.",
    )


def flaky(courses: Sequence[Course]) -> Finding | None:
    """Examples that pass in one iteration, fail in another, and then pass again, or the reverse.

    Signal: two changes over the chain, or more. Threshold: 5% of the examples, so that a few at
    the edge are not worth a word. Source: practice. Minimum data: three iterations that scored
    them. NaN: no figure that could be.
    """
    known = [course for course in courses if len(course.passed) > CHANGES]
    unsteady = [course for course in known if course.changes >= CHANGES]
    if not unsteady or len(unsteady) < FLAKY_SHARE * len(known):
        return None
    unsteady.sort(key=lambda course: (-course.changes, course.id))
    return _of_courses(
        "flaky",
        unsteady,
        known,
        "passed and failed in turns over",
        "Their result is chance: more examples like them, or a gate with several seeds.",
    )


def _of_courses(
    kind: str, found: Sequence[Course], known: Sequence[Course], did: str, remedy: str
) -> Finding:
    ids = listed([course.id for course in found], IDS)
    iterations = max(len(course.passed) for course in found)
    return Finding(
        kind=kind,
        severity="info",
        message=f"{len(found)} of {_examples(len(known))} {did} {iterations} iterations: {ids}.",
        evidence={
            kind.replace("-", "_"): len(found),
            "examples": len(known),
            "iterations": iterations,
            "ids": ids,
        },
        remedy=remedy,
    )


def _scored(results: Sequence[ExampleResult]) -> dict[tuple[str, str], bool]:
    return {(r.id, r.content): r.passed for r in results if r.passed is not None}


def _examples(count: int) -> str:
    return f"{count} example" if count == 1 else f"{count} examples"
