"""The report of a pull request: what it says, what it cuts, and that its texts do nothing."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.report.pull_request import (
    LoopOutcome,
    of,
    render,
)
from pytest_ftloop.report.pull_request.model import OUTCOMES

if TYPE_CHECKING:
    from pathlib import Path
from tests.report.pull_request_cases import failed, judged, text_of


def without_thresholds(loop: LoopOutcome) -> LoopOutcome:
    return replace(loop, result=replace(loop.result, gates=()))


# --- what it says --------------------------------------------------------------------------------


def test_verdict_comes_first() -> None:
    """The first line says the verdict on all loops, and each loop's heading its own."""
    lines = text_of(judged("one"), judged("two", "improved"), failed("three", is_stale=True)).split(
        "\n"
    )
    assert (
        "## \u274c ftloop: 3 loops: 1 regressed, 1 log out of date, 1 threshold failed" == lines[0]
    )
    assert [
        "### \u274c one: regressed",
        "### \u274c two: threshold failed",
        "### \u274c three: log out of date",
    ] == [line for line in lines if line.startswith("### ")]


def test_everything_of_a_loop_is_said() -> None:
    """Gates, figures with marks, iterations, findings, settings, examples, curve, holdout, cost."""
    text = text_of(judged())
    for part in (
        "Iteration 002-`00000002` of word.ftloop.yaml, against 001-`00000001` at word..",
        "- \u274c regression: regressed: word.\n",
        "- \u274c pass_rate&#91;word&#93; 50.0%, wanted >= 90%\n- \u2705 eval_loss 0.7500, wanted",
        "|  | metric | baseline | now | change | p | detectable |",
        "| ! | eval_loss | 0.9000 | 0.8000 | -0.1000 | 0.003 | 0.0331 |",
        "| ? | pass_rate | 90.0% | 80.0% | -10.0 points | 0.003 | 3.3 points |",
        "| + | pass_rate&#91;word&#93; |",
        "- note: word.",
        "- note: holdout: eval_loss 0.5000; opened 2 times",
        "| # | change | train loss | eval loss | gap | pass rate | decision |",
        "| 2 (best) | word word -> word | 0.7125 | 0.7500 | 0.0375 | 50.0% | stop: word |",
        "- info word-2 (new): word\n  - evidence: word word\n  - remedy: by hand: word.\n",
        "- info word-1 (gone): word\n",
        "| setting changed | before | now |",
        "| training.learning_rate | 5e-4 | 1e-3 |",
        '**3 of 3 examples that passed now fail; all of them answer "word"**\n\n'
        "| id | tags | prompt | expected | before | now |",
        '| word0 | word | "word" | "word" | "word" | "word" |',
        "<details><summary>1 more broken</summary>",
        "<details><summary>notes, iterations, findings</summary>",
        "<details><summary>3 examples fixed</summary>",
        "Cost: 10.0 s, 100 steps, 20000 tokens; baseline 10.0 s, 100 steps, 20000 tokens.",
        "`+` proven better, `!` proven worse, `?` inconclusive: could be worse",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("loop", "icon"),
    [
        (judged(kind="improved"), "\u274c"),
        (without_thresholds(judged(kind="improved")), "\u2705"),
        (without_thresholds(judged(kind="inconclusive")), "\u26a0\ufe0f"),
        (failed(), "\u274c"),
    ],
)
def test_icon(loop: LoopOutcome, icon: str) -> None:
    """What fails, what holds, and what could be better are told apart at first sight."""
    assert text_of(loop).startswith(f"## {icon} ftloop: ")


def test_first_version_is_no_warning() -> None:
    """Where nothing was committed before, nothing can have got worse."""
    first = without_thresholds(
        judged(kind="not comparable", baseline=None, against="", changes=(), tags=(), runs=())
    )
    result = replace(first.result, baseline=None, holdout=None)
    assert text_of(replace(first, result=result)).startswith("## \u2705 ftloop: not comparable")


def test_outcome_is_the_worst() -> None:
    """The report's outcome is that of its worst loop, and every outcome has its rank."""
    assert len(set(OUTCOMES)) == len(OUTCOMES)
    assert "regressed" == of([judged(kind="improved"), judged(), failed(is_stale=True)]).outcome
    assert "error" == of([judged(), failed()]).outcome


def test_what_to_do_stands_below_the_gates() -> None:
    """Of a regressed loop: the sentence, commands that name its file, and what to try next."""
    text = text_of(judged())
    gates, _, rest = text.partition("**What to do**\n\n")
    lines = rest.split("\n\n")[0].splitlines()
    assert "\u274c regression: regressed" in gates
    assert [
        "- set training.learning_rate back to 5e-4, set training.x back to word.",
        "- only if eval_loss 0.8000 in place of 0.9000 is intended, accept it and commit:",
        "  - ftloop accept best word.ftloop.yaml --baseline",
    ] == [line.partition(" --log")[0] for line in (lines[0], *lines[-2:])]
    assert lines[1].startswith(("- or, to go on from this version, try", "- the loop has nothing"))
    held = judged(kind="improved")
    assert held.result is not None
    held = replace(held, result=replace(held.result, gates=()))
    assert "**What to do**" not in text_of(held)


def test_error_is_said_once_and_in_sentences() -> None:
    """A loop that could not be judged: its file once, what is wrong, and what to do."""
    error = ConfigError("x.ftloop.yaml: the log is out of date", cure="Run it.")
    text = text_of(replace(failed(), source="x.ftloop.yaml", error=error))
    assert "\nx.ftloop.yaml: the log is out of date. Run it.\n" in text
    text = text_of(replace(failed(), source="y.ftloop.yaml", error=error))
    assert "\nLoop file y.ftloop.yaml: x.ftloop.yaml: the log" in text


def test_trained_in_this_job() -> None:
    """A log that was made in the job is not committed yet: it says so."""
    assert "commit the log" in text_of(replace(judged(), trained=True))


# --- what it cuts --------------------------------------------------------------------------------


def test_comment_stays_below_the_limit() -> None:
    """3 loops of 5,000 examples that all flipped, with long outputs, fit; the verdicts stay."""
    loops = [judged(f"{name} {'word ' * 200}", count=5_000, loop=name) for name in "abc"]
    text = text_of(*loops)
    assert len(text) <= len(text.encode()) < 65_536
    assert 3 == len(re.findall(r"^### \u274c [abc]: regressed$", text, re.MULTILINE))
    assert "Cut for length: fixed examples" in text
    assert 3 == text.count("**5000 of 5000 examples that passed now fail; ")
    assert 3 == text.count("```mermaid"), "cut though there is room"


def test_least_important_goes_first() -> None:
    """With ever less room the parts go one after another, and none comes back."""
    loops = [judged(f"{name}{'word ' * 60}", count=12, loop=name) for name in "abc"]
    marks = {
        "fixed": "examples fixed</summary>",
        "chart": "```mermaid",
        "iterations": "| # | change",
        "findings": "**Findings**",
        "broken": '"**\n\n| id',
        "settings": "| setting changed",
        "figures": "| metric |",
        "verdicts": "### ",
    }
    gone: list[str] = []
    report = of(loops)
    limit = len(render(report, 10**7).encode())
    while limit > 700:
        limit = limit * 8 // 10
        text = render(report, limit)
        assert len(text.encode()) < limit
        assert {0, 3} >= {text.count(mark) for mark in marks.values()}, "not alike in all loops"
        now = [name for name, mark in marks.items() if mark not in text]
        assert set(gone) <= set(now)
        gone += [name for name in now if name not in gone]
    assert list(marks) == gone


def test_what_is_cut_is_said() -> None:
    """The note names what was cut, and where all of it can be read."""
    text = render(of([judged("word " * 50, count=50)]), 20_000, "the job summary")
    said = re.search(r"^Cut for length: (.+); see the job summary\.$", text, re.MULTILINE)
    assert said is not None
    assert {"fixed examples", "broken examples"} <= set(said[1].split(", "))
    assert "Cut for length" not in render(of([judged()]))


def test_many_loops() -> None:
    """Of more loops than have room the worst are named, the others counted."""
    loops = [judged(f"loop{n}", "unchanged") for n in range(300)] + [judged("bad")]
    report = of(loops)
    assert 101 == report.left_out
    text = render(report, 5_000)
    assert "- \u274c bad: regressed" in text
    assert re.search(r"^And \d+ loops more: \d+ threshold failed\.$", text, re.MULTILINE)
    assert len(text.encode()) < 5_000


def test_figures_without_bound(tmp_path: Path) -> None:
    """Diverged, missing and huge figures are said briefly."""
    loop = judged()
    best = replace(
        loop.result.best,
        metrics={"eval_loss": math.nan, "pass_rate": math.inf, "train_loss": 1e300},
    )
    text = text_of(replace(loop, result=replace(loop.result, chain=(best,), best=best)))
    assert "| 1e+300 | nan | - | inf% |" in text
