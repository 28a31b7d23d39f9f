"""Markdown shows what users wrote, and does nothing with it; a table keeps its cells."""

from __future__ import annotations

import html
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from wcwidth import wcswidth

from pytest_ftloop.report.escape import one_line, visible
from pytest_ftloop.report.markdown import inert, markdown_table
from tests.report.hostile_texts import TEXTS
from tests.report.writings import WRITINGS

ANYTHING = st.text(st.characters())  # lone surrogates too
MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})
CODE = re.compile(r"`([^`]+)`")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("learning_rate 2e-4 -> 1e-3", "learning_rate 2e-4 -> 1e-3"),
        ("a|b", "a&#124;b"),
        ("<img src=x>", "&#60;img src=x>"),
        ("> quote", "&#62; quote"),
        ("`code` *bold* _it_", "&#96;code&#96; &#42;bold&#42; &#95;it&#95;"),
        ("[link](x)", "&#91;link&#93;(x)"),
        ("thanks @someone", "thanks `@`someone"),
        ("fixes #12, GH-3", "fixes `#`12, `GH`-3"),
        ("https://x.y www.x.y", "https`:`//x.y `www`.x.y"),
        ("&lt; &#64;", "&#38;lt; &#38;`#`64;"),
        (":tada:", "`:`tada:"),
        ("@@#@ `@`", "`@@#@` &#96;`@`&#96;"),
        ("a\nb", "a&#92;nb"),
        ("$x$ ~~y~~", "&#36;x&#36; &#126;&#126;y&#126;&#126;"),
    ],
)
def test_inert(text: str, wanted: str) -> None:
    """Structure becomes entities; what makes mentions, references and links becomes code."""
    assert wanted == inert(one_line(text, 200))


@given(ANYTHING)
def test_any_text_becomes_inert(text: str) -> None:
    """No pipe, tag, backtick, newline, or mention gets through, raw or as an entity."""
    cell = inert(one_line(text, 200))
    plain = CODE.sub("\x00", cell)
    assert not set(plain) & set("|<`*[]~$\\\n\r")
    assert cell.isprintable()
    shown = html.unescape(plain)
    assert "@" not in shown
    assert "#" not in shown
    assert "://" not in shown


@given(ANYTHING)
def test_inert_text_shows_the_text(text: str) -> None:
    """Rendered it is the visible text, character by character: an id can be copied."""
    for on_a_host in (False, True):
        cell = inert(one_line(text, 200), on_a_host=on_a_host)
        assert one_line(text, 200) == html.unescape(cell.replace("`", ""))


def rendered(table: str) -> list[list[str]]:
    """The cells of the one table in a Markdown text, as a reader sees them."""
    tokens = MARKDOWN.parse(table)
    assert ("table_open", "table_close") == (tokens[0].type, tokens[-1].type)
    cells = [t for before, t in pairwise(tokens) if before.type in {"th_open", "td_open"}]
    texts = [html.unescape(CODE.sub(r"\1", cell.content)) for cell in cells]
    width = sum(token.type == "th_open" for token in tokens)
    return [texts[start : start + width] for start in range(0, len(texts), width)]


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_table_keeps_its_cells(text: str, compact: bool) -> None:
    """Whatever the cells hold, each is one cell of the table and reads as it was."""
    rows = [[visible(text), "1"], ["word", visible(text)]]
    table = markdown_table(["a", "b"], rows, compact=compact)
    assert 4 == len(table.splitlines())
    wanted = [["a", "b"], *([cell.strip() for cell in row] for row in rows)]
    assert wanted == rendered(table)


def test_table_aligns() -> None:
    """Figures stand right, in the raw text as in the rendered one; none is read as a number."""
    table = markdown_table(["metric", "now"], [["eval_loss", "1e-05"], ["n", "0.10"]], right=[1])
    assert [
        "| metric    |   now |",
        "|:----------|------:|",
        "| eval_loss | 1e-05 |",
        "| n         |  0.10 |",
    ] == table.splitlines()
    assert [
        "| metric | now |",
        "| --- | ---: |",
        "| eval_loss | 1e-05 |",
    ] == markdown_table(["metric", "now"], [["eval_loss", "1e-05"]], [1], compact=True).splitlines()


@pytest.mark.parametrize("compact", [False, True])
def test_table_without_rows(compact: bool) -> None:
    """The headers alone are a table."""
    assert [["a", "b"]] == rendered(markdown_table(["a", "b"], [], compact=compact))


@pytest.mark.parametrize("writing", WRITINGS.values(), ids=WRITINGS)
def test_raw_table_does_not_lean(writing: tuple[str, ...]) -> None:
    """In a terminal every row ends alike, whichever script its texts are in."""
    table = markdown_table(["text", "n"], [[visible(text), "1"] for text in writing], right=[1])
    assert 1 == len({wcswidth(line) for line in table.splitlines()})
    assert [[visible(text), "1"] for text in writing] == rendered(table)[1:]
