"""One advice: a finding's remedy in the light of what the loop does next, and what to try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.adjust.state import ANSWERED
from pytest_ftloop.report.escape import visible
from pytest_ftloop.report.layout import paragraph
from pytest_ftloop.report.phrases import format_change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import Adjustment, Decision, Finding
    from pytest_ftloop.loop.result import LoopResult


def remedy_of(finding: Finding, decision: Decision | None = None) -> str:
    """What to do about a finding, with who does it: `the loop: ...` or `by hand: ...`.

    Of a finding that the policy answers, the policy's own step is stated (`decision` is that after
    the iteration), and never another one beside it. A run of another trainer has no decision. The
    text is not escaped.
    """
    if decision is None:
        return finding.remedy if finding.tunable else by_hand(finding.remedy)
    if finding.kind not in ANSWERED or not finding.tunable:
        return by_hand(finding.remedy)
    steps = steps_text(decision.next)
    if decision.action == "adjust" and steps:
        return f"the loop changes next: {steps}"
    if decision.kind == "gates":
        return "the loop changes nothing for it: the thresholds hold"
    if steps:
        return f"the loop would change next: {steps}"
    return by_hand(finding.remedy, "nothing left that the loop would change; ")


def proposed(decision: Decision) -> tuple[Adjustment, ...]:
    """What is shown as the next adjustments: none where nothing better is expected of them."""
    return () if decision.kind == "gates" else decision.next


def by_hand(remedy: str, first: str = "") -> str:
    """A remedy that is not the loop's to apply; empty without one."""
    return f"by hand: {first}{remedy}" if remedy else ""


def steps_text(adjustments: Sequence[Adjustment]) -> str:
    """`learning_rate 0.01 -> 3.1e-3, lora_dropout 0.05 -> 0.1`."""
    return ", ".join(map(format_change, adjustments))


def advice_lines(result: LoopResult, width: int) -> list[str]:
    """What to try where thresholds fail: the loop's next step, else the first remedy by hand."""
    last, best = result.chain[-1], result.best
    fault = next((f for f in best.findings if f.severity == "error" and not f.tunable), None)
    if fault is not None:
        return paragraph(f"fix first, by hand: {visible(fault.remedy)}", width, "", "  ")
    if last.decision.next:
        because = last.decision.next[0].because
        why = f": {visible(because)}" if because else ""
        return paragraph(f"try next: {steps_text(last.decision.next)}{why}", width, "", "  ")
    because = visible(last.decision.because) or "the policy proposes nothing"
    lines = paragraph(f"the loop has nothing left to try: {because}", width, "", "  ")
    remedies = (f.remedy for f in best.findings if f.kind not in ANSWERED and f.remedy)
    if remedy := next(remedies, ""):
        lines += paragraph(visible(by_hand(remedy)), width, "", "  ")
    return lines
