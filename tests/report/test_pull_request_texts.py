"""No user's text does anything in a pull request's report; its data and its chart."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pytest_ftloop.cli.gate import loop_lines
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.report.escape import visible
from pytest_ftloop.report.pull_request import (
    LIMIT,
    LoopOutcome,
    from_json,
    of,
    render,
    to_json,
)
from pytest_ftloop.report.pull_request.curve import curve_of, mermaid
from pytest_ftloop.report.pull_request.model import MOST_EXAMPLES
from pytest_ftloop.report.table import as_csv, as_markdown, log_rows
from tests.fakes import fake_evals, fake_iteration, fake_steps
from tests.report.hostile import hostile_results
from tests.report.hostile_texts import TEXTS

if TYPE_CHECKING:
    from pathlib import Path
from tests.report.pull_request_cases import change, failed, iteration, judged, rows, text_of

SURROGATE = re.compile("[\ud800-\udfff]")  # no data file with one is read


MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def shown(text: str) -> str:
    return ascii(text)[:40]


# --- no text does anything -----------------------------------------------------------------------


def structure(text: str) -> list[tuple[str, str, int]]:
    """The tokens of Markdown, but for plain text."""
    tokens = []
    for token in MARKDOWN.parse(text):
        tokens.append((token.type, token.tag, token.level))
        if token.type in {"html_block", "fence"}:
            tokens.append((token.content, token.info, 0))
        inside = (child for child in token.children or () if not is_text(child))
        tokens += [(child.type, child.content, child.level) for child in inside]
    return tokens


def is_text(child: Token) -> bool:
    """Whether it is text, or a word of a text that a code host would read, put into code."""
    return child.type == "text" or (
        child.type == "code_inline" and bool(WORDS.fullmatch(child.content))
    )


WORDS = re.compile(r"(@|#|GH|:|www|[0-9a-f]{7,})+", re.IGNORECASE)


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
    calm_tags, wild_tags = (
        [tag for tag in Tags(MARKDOWN.render(text)).found if tag[0] not in {"code", "/code"}]
        for text in (calm, wild)
    )
    assert calm_tags == wild_tags
    assert [] == [said for said in plain_texts(wild) if ACTIVE.search(said)]
    assert "".join(line for line in wild.split("\n")).isprintable()
    assert calm.count("\n") == wild.count("\n")


def test_hostile_text_is_shown() -> None:
    """What is made inert reads as it was written, and can be copied: no character is added."""
    text = "<b>`@team` #1 **x** | y https://x.y 003-3fa9c1d2 e@1234567"
    page = MARKDOWN.render(text_of(judged(text)))
    shown = html.unescape(re.sub("</?code>", "", page))
    assert f"<td>{text}</td>" in html.unescape(shown)
    assert page.isascii() or "\u200b" not in page


@pytest.mark.parametrize(
    "blank",
    [
        "\u200b",
        "\u200d",
        "\ufeff",
        "\u00ad",
        "\u3164",
        "\u2800",
        "\u034f",
        "\u180b",
        "\ufe0f",
        "\U000e0101",
        "\u115f",
        "\uffa0",
    ],
)
def test_what_is_invisible_in_an_id_is_shown(blank: str) -> None:
    """Two ids that look alike are told apart in the comment."""
    text = text_of(judged(f"e{blank}1"))
    assert blank not in text
    assert ascii(blank)[1:-1].replace("\\", "&#92;") in text


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
    content = change(of([judged()]), "schema_version", 6).replace(b'"loops"', b'"new"')
    with pytest.raises(ConfigError, match=r"schema 6.*reads schema 5\n.*Update pytest-ftloop"):
        from_json(content)


def test_older_data_is_read() -> None:
    """A report of schema 1, which knows nothing of changed gates and of a key, is read."""
    record = json.loads(to_json(of([judged()])))
    record["schema_version"] = 1
    for loop in record["loops"]:
        del loop["gate_changes"]
        for key in ("passed", "alike", "output"):
            del loop["broken"][key]
    read = from_json(json.dumps(record).encode())
    assert ((), "") == (read.loops[0].gate_changes.changes, read.loops[0].gate_changes.unknown)
    assert "**3 examples broken**" in render(read)


# --- the chart -----------------------------------------------------------------------------------


def test_curve_is_thinned() -> None:
    """The chart has the evaluation points of a run, with the mean train loss up to each."""
    steps = fake_steps([5 - n / 1000 for n in range(4_000)])
    curve = curve_of(fake_iteration(steps=steps, evals=fake_evals((3.0, 2.0, 2.5, 2.4), 4_000)))
    assert curve is not None
    assert (1_000, 4_000) == (curve.start, curve.end)
    assert (3.0, 2.0, 2.5, 2.4) == curve.evals
    assert pytest.approx([4.5, 3.5, 2.5, 1.5], abs=0.01) == curve.train


@pytest.mark.parametrize("count", [3, 40, 41, 400])
def test_chart_states_only_what_was_measured(count: int) -> None:
    """Of any number of points every value is one that was measured, and there are at most 40."""
    evals = fake_evals([3 - n / count for n in range(count)], 10 * count)
    curve = curve_of(fake_iteration(steps=fake_steps([2.0] * 10 * count), evals=evals))
    assert curve is not None
    assert {*curve.evals} <= {point.eval_loss for point in evals}
    assert 3 <= len(curve.evals) <= 40
    assert {2.0} == {*curve.train}


@pytest.mark.parametrize(
    "fields",
    [
        {"evals": ()},
        {"steps": ()},
        {"evals": fake_evals((math.nan, math.nan))},
        {"evals": fake_evals((1e9, math.inf))},
        {"evals": fake_evals((2.0,)), "base": {}},
        {"evals": fake_evals((2.0,))},
        {"evals": fake_evals((2.0, 1.0))},
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
