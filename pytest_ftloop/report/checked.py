"""The result of an export's check as text: one line per check, then the examples that flipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.report.escape import one_line, quoted, quoted_pair, visible
from pytest_ftloop.report.layout import Column, table
from pytest_ftloop.report.phrases import plural

if TYPE_CHECKING:
    from pytest_ftloop.evaluate.recheck import Flip
    from pytest_ftloop.loop.checked_export import Checked

MOST_FLIPS = 20
"""Flipped examples that are listed."""

MOST_WORDS = 60
"""Columns of a text in the list."""


def check_lines(checked: Checked, width: int) -> list[str]:
    """The lines of one check."""
    held = "FAILED" if checked.problems else "ok"
    how = f" ({visible(checked.how)})" if checked.how else ""
    if checked.comparison is None:
        said = "; ".join(map(visible, checked.problems))
        return [f"{checked.what}{how}: {held}: {said}"]
    said = "; ".join(map(visible, checked.problems)) or _as_logged(checked)
    return [f"{checked.what}{how}: {held}: {said}", *_flips(checked.comparison.flips, width)]


def _as_logged(checked: Checked) -> str:
    """`120 examples as logged: 0 flipped (tolerance 0%), ...`."""
    comparison, tolerance = checked.comparison, checked.tolerance
    assert comparison is not None
    parts = [
        f"{len(comparison.flips)} flipped (tolerance {100 * tolerance.flips:g}%)",
        f"{plural(comparison.changed, 'output')} changed",
    ]
    if comparison.worst is not None:
        parts.append(
            f"losses within {comparison.worst.size:.2g} nats per token "
            f"(tolerance {tolerance.loss:g})"
        )
    return f"{plural(comparison.examples, 'example')} as logged: {', '.join(parts)}"


def _flips(flips: tuple[Flip, ...], width: int) -> list[str]:
    if not flips:
        return []
    shown = flips[:MOST_FLIPS]
    outputs = [quoted_pair(flip.before, flip.after, MOST_WORDS) for flip in shown]
    columns = (
        Column(("", "id"), [one_line(flip.id, 24) for flip in shown]),
        Column(("", "now"), ["passes" if flip.passed else "fails" for flip in shown]),
        Column(("", "expected"), [quoted(flip.expected, MOST_WORDS) for flip in shown], least=12),
        Column(("", "output in the log"), [before for before, _ in outputs], least=12),
        Column(("", "output now"), [after for _, after in outputs], least=12),
    )
    _, *rows = table(columns, width - 2)  # the first line of the header is empty
    more = len(flips) - len(shown)
    return [f"  {row}" for row in rows] + ([f"  and {more} more"] if more else [])
