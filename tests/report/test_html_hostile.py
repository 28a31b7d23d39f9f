"""Hostile texts in the HTML report."""

from __future__ import annotations

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("plotly")
from pytest_ftloop.report.html.page import render
from tests.report.fakes_html import HOSTILE, odd_report
from tests.report.html_cases import Page

# --- hostile texts -------------------------------------------------------------------------------


def test_hostile_texts_do_not_change_the_page() -> None:
    """Whatever the texts are, the page's elements and attributes are those of plain ones."""
    assert len(HOSTILE) > 200
    plain = [f"plain {number}" for number in range(len(HOSTILE))]
    hostile_page = Page(render([odd_report(HOSTILE)]))
    assert Page(render([odd_report(plain)])).shape == hostile_page.shape
    names = {name for _, attrs in hostile_page.elements for name in attrs}
    assert [] == [name for name in names if name.startswith("on")]
    assert 1 == sum(not attrs for attrs, _ in hostile_page.scripts)


def test_hostile_texts_arrive_whole() -> None:
    """The data holds each text as it was written, control characters and all."""
    texts = Page(render([odd_report(HOSTILE)])).data()["examples"]["texts"]
    assert set() == set(HOSTILE) - set(texts)


def test_no_control_or_direction_mark_is_in_the_text() -> None:
    """In the page's own text nothing can turn the direction or move the cursor."""
    text = Page(render([odd_report(HOSTILE)])).text
    assert [] == [c for c in text if not c.isprintable()]
    assert r"\u202egnp.exe" in text
