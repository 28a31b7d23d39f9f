"""The report of a pull request: what it says, what it cuts, and that its texts do nothing."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pytest_ftloop.cli.gate import loop_lines
from pytest_ftloop.config.gates import Gate, Regression
from pytest_ftloop.core.errors import ConfigError, StaleLogError
from pytest_ftloop.core.records import Adjustment, Decision, Example, ExampleResult, Iteration
from pytest_ftloop.gate.statistic import PairedTest
from pytest_ftloop.gate.thresholds import check_gates
from pytest_ftloop.gate.verdict import Change, Verdict
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.report.escape import visible
from pytest_ftloop.report.pull_request import (
    LIMIT,
    LoopOutcome,
    PullRequestReport,
    from_json,
    of,
    render,
    to_json,
)
from pytest_ftloop.report.pull_request.curve import curve_of, mermaid
from pytest_ftloop.report.pull_request.model import MOST_EXAMPLES, OUTCOMES
from pytest_ftloop.report.table import as_csv, as_markdown, log_rows
from tests.fakes import fake_evals, fake_finding, fake_iteration, fake_metrics, fake_steps
from tests.report.fakes_report import fake_result
from tests.report.hostile import hostile_results
from tests.report.hostile_texts import TEXTS

if TYPE_CHECKING:
    from pathlib import Path

SURROGATE = re.compile("[\ud800-\udfff]")  # no data file with one is read
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
TEST = PairedTest(0.05, 0.01, 30.0, 0.008, 5, 0.01, 200, 1, 3)


def shown(text: str) -> str:
    return ascii(text)[:40]


# --- a loop with everything, each text of users the same -----------------------------------------


def rows(text: str, count: int, output: str) -> tuple[ExampleResult, ...]:
    """Scored examples; their ids differ in the end, so that they are as many whatever the text."""
    return tuple(
        ExampleResult(
            f"{text}{number}", f"c{number}", (text,), 2.0, 4, 3, bool(number % 2), text, output
        )
        for number in range(count)
    )


def iteration(number: int, text: str, count: int = 3, rate: float = 1e-3) -> Iteration:
    adjusted = Adjustment(f"lora.{text}", text, text, text) if number > 1 else None
    return fake_iteration(
        number,
        metrics=fake_metrics(1.5 / number, **{f"pass_rate[{text}]": 0.5}),
        training={"learning_rate": rate, "x": text * number},
        adjustments=[adjusted] if adjusted else [],
        examples=rows(text, count, text),
        findings=[
            fake_finding(f"{text}-{number}", message=text, remedy=f"{text}.", evidence={text: text})
        ],
        model=text,
        decision=Decision("stop", text, text),
        scoring={text: text},
    )


def verdict(kind: str, text: str, ids: tuple[str, ...] = (), **fields: Any) -> Verdict:
    def change(metric: str, mark: Any) -> Change:
        return Change(metric, 0.9, 0.8, TEST, 0.003, mark)

    return Verdict(
        **{
            "kind": kind,
            "ok": kind != "regressed",
            "because": f"{text}.",
            "candidate": "002-00000002",
            "baseline": "001-00000001",
            "against": f"{text}.",
            "changes": (change("eval_loss", "regressed"), change("pass_rate", "inconclusive")),
            "tags": (change(f"pass_rate[{text}]", "improved"),),
            "runs": (change("overfit_gap", "unchanged"),),
            "fixed": ids,
            "broken": ids,
            "notes": (f"{text}.",),
            **fields,
        }
    )


def judged(
    text: str = "word",
    kind: str = "regressed",
    count: int = 3,
    loop: str | None = None,
    **fields: Any,
) -> LoopOutcome:
    """A loop of two iterations against a baseline, all its texts `text`."""
    old, new = iteration(1, text, count, 5e-4), iteration(2, text, count)
    ids = tuple(row.id for row in new.examples)
    said = verdict(kind, text, ids, **fields)
    holdout = SimpleNamespace(
        metrics={"eval_loss": 0.5}, gains=(), uses=2, alarm=False, eval_set_is_worn=False,
        holdout_is_worn=False, reference=None,
    )  # fmt: skip
    prompts = {row.id: Example(row.id, row.content, {}, (), text, text) for row in new.examples}
    gates = check_gates(
        [Gate(f"pass_rate[{text}]", ">=", 0.9, 3), Gate("eval_loss", "<=", 9.0, 2)], new.metrics
    )
    result = fake_result(
        (old, new),
        loop=text,
        source=f"{text}.ftloop.yaml",
        best=new,
        gates=gates,
        trained=(),
        files=(),
        examples=prompts,
        verdicts=((Regression(line=7), said),),
        baseline=old,
        holdout=holdout,
    )
    name = text if loop is None else loop
    return LoopOutcome(name, result.source, result)


def failed(text: str = "word", *, is_stale: bool = False) -> LoopOutcome:
    error = StaleLogError(text, cure=f"{text}.") if is_stale else ConfigError(f"{text}.")
    return LoopOutcome(text, f"{text}.ftloop.yaml", error=error, is_stale=is_stale)


def without_thresholds(loop: LoopOutcome) -> LoopOutcome:
    return replace(loop, result=replace(loop.result, gates=()))


def text_of(*loops: LoopOutcome, limit: int = LIMIT) -> str:
    return render(of(loops), limit)


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
        "Iteration 002-000000&#8203;02 of word.ftloop.yaml, against 001-000000&#8203;01 at word..",
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
        "- info word-2 (new): word\n  - evidence: word word\n  - remedy: word.\n",
        "- info word-1 (gone): word\n",
        "| setting changed | before | now |",
        "| training.learning_rate | 5e-4 | 1e-3 |",
        "<details><summary>3 examples broken</summary>",
        "<details><summary>3 examples fixed</summary>",
        "```mermaid\n",
        "Cost: 10.0 s, 100 steps, 20000 tokens; baseline 10.0 s, 100 steps, 20000 tokens.",
        "`+` proven better",
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
    assert 3 == text.count("<summary>5000 examples broken</summary>")
    assert 3 == text.count("```mermaid"), "cut though there is room"


def test_least_important_goes_first() -> None:
    """With ever less room the parts go one after another, and none comes back."""
    loops = [judged(f"{name}{'word ' * 60}", count=12, loop=name) for name in "abc"]
    marks = {
        "fixed": "examples fixed</summary>",
        "chart": "```mermaid",
        "iterations": "| # | change",
        "findings": "**Findings**",
        "broken": "examples broken</summary>",
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


# --- no text does anything -----------------------------------------------------------------------


def structure(text: str) -> list[tuple[str, str, int]]:
    """The tokens of Markdown, but for plain text."""
    tokens = []
    for token in MARKDOWN.parse(text):
        tokens.append((token.type, token.tag, token.level))
        if token.type in {"html_block", "fence"}:
            tokens.append((token.content, token.info, 0))
        inside = (child for child in token.children or () if child.type != "text")
        tokens += [(child.type, child.content, child.level) for child in inside]
    return tokens


class Tags(HTMLParser):
    """The tags of a page, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, Any]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, attrs))

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"/{tag}", None))

    def handle_comment(self, data: str) -> None:
        self.found.append(("comment", data))


ACTIVE = re.compile(
    r"@\w|#\d|\bGH-|://|\bwww\.|:[\w+-]+:|(?<![0-9A-Za-z])[0-9a-f]{7,40}(?![0-9A-Za-z])",
    re.IGNORECASE,
)
"""What a code host looks for in the text that Markdown leaves."""


def plain_texts(text: str) -> list[str]:
    return [
        child.content
        for token in MARKDOWN.parse(text)
        for child in token.children or ()
        if child.type == "text"
    ]


@pytest.mark.parametrize("text", [text for text in TEXTS if text], ids=shown)
def test_hostile_text_changes_nothing(text: str) -> None:
    """Whatever the text of names, prompts, outputs, tags and reasons: the same tokens and tags."""
    calm, wild = (
        render(from_json(to_json(of([judged(t), failed(t)])).encode()), 10**6)
        for t in ("word", text)
    )
    assert structure(calm) == structure(wild)
    assert Tags(MARKDOWN.render(calm)).found == Tags(MARKDOWN.render(wild)).found
    assert [] == [said for said in plain_texts(wild) if ACTIVE.search(said)]
    assert "".join(line for line in wild.split("\n")).isprintable()
    assert calm.count("\n") == wild.count("\n")


def test_hostile_text_is_shown() -> None:
    """What is made inert still reads as it was written."""
    text = "<b>`@team` #1 **x** | y https://x.y"
    shown = html.unescape(MARKDOWN.render(text_of(judged(text)))).replace("\u200b", "")
    assert f"<td>{text}</td>" in html.unescape(shown)


@settings(max_examples=30, deadline=None)
@given(hostile_results())
def test_any_result_is_reported(result: Any) -> None:
    """Whatever a log holds there is a report, it reads back, and every line of it is printable."""
    report = of([LoopOutcome(result.loop, result.source, result)])
    again = from_json(to_json(report).encode())
    assert report == again
    text = render(again)
    assert text.replace("\n", "").isprintable()
    assert len(text.encode()) < LIMIT


@pytest.mark.parametrize("text", TEXTS, ids=shown)
def test_hostile_text_on_the_terminal(text: str) -> None:
    """No text moves the cursor, ends a line or hides: each line is printable."""
    loop = judged(text)
    lines = "\n".join(loop_lines(loop.result, 100)).split("\n")
    assert [] == [line for line in lines if not line.isprintable()]


@pytest.mark.parametrize("text", TEXTS, ids=shown)
def test_hostile_text_in_tables(text: str) -> None:
    """A row stays a row, in CSV and Markdown, and no cell is a formula."""
    chain = log_rows(judged(text).result.chain)
    cells = list(csv.reader(io.StringIO(as_csv(chain))))
    assert [len(cells[0])] * 3 == [len(row) for row in cells]
    assert [] == [
        c
        for row in cells
        for c in row
        if c[:1] in tuple("=+@") or (c[:1] == "-" and not is_number(c))
    ]
    assert structure(as_markdown(log_rows(judged("word").result.chain))) == structure(
        as_markdown(chain)
    )


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("text", [t for t in TEXTS if not SURROGATE.search(t)], ids=shown)
def test_hostile_text_in_the_log(text: str, tmp_path: Path) -> None:
    """A record reads back as it was written: no text ends a key, a row or a file."""
    log = ImprovementLog(tmp_path / "improvement_log" / "topic")
    written = log.append(replace(iteration(1, text), loop="topic", id="00000001"))
    (read,) = log.read()
    assert written == read
    assert [visible(row.output) for row in rows(text, 3, text)] == [
        visible(r.output) for r in read.examples
    ]
    assert len(rows(text, 3, text)) == len(read.examples)


# --- the data ------------------------------------------------------------------------------------


def test_data_reads_back() -> None:
    """What is written is read, bounded, and renders to the same."""
    report = of([judged(count=200), failed(), failed(is_stale=True)])
    again = from_json(to_json(report).encode())
    assert report == again
    assert render(report) == render(again)
    assert (200, MOST_EXAMPLES) == (
        again.loops[0].broken.total,
        len(again.loops[0].broken.examples),
    )


def change(report: PullRequestReport, path: str, value: Any) -> bytes:
    """The report's JSON with one value replaced."""
    data = json.loads(to_json(report))
    at = data
    *above, last = path.split(".")
    for key in above:
        at = at[int(key)] if key.isdigit() else at[key]
    at[last] = value
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("unknown", 1),
        ("loops.0.unknown", 1),
        ("loops.0.loop", "x" * 201),
        ("loops.0.loop", 1),
        ("loops.0.loop", "\ud83d"),
        ("loops.0.stale", "true"),
        ("loops.0.cost.steps", 10**30),
        ("loops.0.cost.steps", -1),
        ("loops.0.cost.steps", 1.5),
        ("loops.0.cost.seconds", float("nan")),
        ("loops.0.cost.seconds", "NaN"),
        ("loops.0.curve.train", [1.0]),
        ("loops.0.curve.train", [1.0] * 61),
        ("loops.0.curve.evals", [1e300, 1.0]),
        ("loops.0.verdicts.0.kind", "fine"),
        ("loops.0.findings.0.severity", "::error::"),
        ("loops.0.broken.examples", [{}] * 51),
        ("loops", [{}]),
        ("loops", None),
        ("schema_version", "1"),
        ("schema_version", 0),
    ],
)
def test_data_that_is_refused(path: str, value: Any) -> None:
    """Anything unknown, of another type or beyond its bounds is refused, with where it is."""
    with pytest.raises(ConfigError, match=r"not a report of ftloop ci: ") as caught:
        from_json(change(of([judged()]), path, value))
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b'"x"']
)
def test_data_that_is_none(content: bytes) -> None:
    """What is no report at all is refused likewise."""
    with pytest.raises(ConfigError, match="not a report of ftloop ci"):
        from_json(content)


def test_newer_data_is_refused() -> None:
    """A report of a newer schema names the cure, whatever else is new in it."""
    content = change(of([judged()]), "schema_version", 2).replace(b'"loops"', b'"new"')
    with pytest.raises(ConfigError, match=r"schema 2.*reads schema 1\n.*Update pytest-ftloop"):
        from_json(content)


# --- the chart -----------------------------------------------------------------------------------


def test_curve_is_thinned() -> None:
    """A long run has a few points, evenly spaced, from the first evaluation to the last step."""
    steps = fake_steps([5 - n / 1000 for n in range(4_000)])
    curve = curve_of(fake_iteration(steps=steps, evals=fake_evals((3.0, 2.0, 2.5, 2.4), 4_000)))
    assert curve is not None
    assert (1_000, 4_000, 40, 40) == (curve.start, curve.end, len(curve.train), len(curve.evals))
    assert [3.0, 2.4] == [curve.evals[0], curve.evals[-1]]
    assert pytest.approx(5 - 2.5, abs=0.1) == curve.train[19]


@pytest.mark.parametrize(
    "fields",
    [
        {"evals": ()},
        {"steps": ()},
        {"evals": fake_evals((math.nan, math.nan))},
        {"evals": fake_evals((1e9, math.inf))},
        {"evals": fake_evals((2.0,)), "base": {}},
    ],
)
def test_curve_of_too_little(fields: dict[str, Any]) -> None:
    """There is no chart of what was not measured, or has diverged."""
    assert curve_of(fake_iteration(**fields)) is None


@given(
    st.lists(st.floats(), min_size=1, max_size=90), st.lists(st.floats(), min_size=1, max_size=9)
)
def test_chart_is_numbers(train: list[float], evals: list[float]) -> None:
    """Whatever was measured, the chart has our words and plain numbers only."""
    run = fake_iteration(steps=fake_steps(train), evals=fake_evals(evals, len(train)))
    curve = curve_of(run)
    number = r"-?\d+(?:\.\d+)?"
    for line in mermaid(curve)[2:] if curve else ():
        assert re.fullmatch(
            rf'    (x-axis "step"|y-axis "loss") {number} --> {number}'
            rf"|    line \[{number}(, {number})+\]",
            line,
        )
