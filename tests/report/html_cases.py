"""What the tests of `html` share."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("plotly")
from pytest_ftloop.report.html.gather import of_result
from pytest_ftloop.report.html.loop_report import LoopReport
from pytest_ftloop.report.html.views import loop_view
from tests.report.fakes_report import fake_chain, fake_result


class Page(HTMLParser):
    """A parsed page: its elements in order, its text, and the content of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.policy = ""
        self._in = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            attrs, before = self.scripts[-1]
            self.scripts[-1] = (attrs, before + data)
        elif self._in != "style" and data.strip():
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def shape(self) -> list[tuple[str, list[str]]]:
        """Elements and the names of their attributes: all that a text must not change."""
        return [(tag, sorted(attrs)) for tag, attrs in self.elements]

    def data(self, index: int = 0) -> dict[str, Any]:
        """The data of one loop."""
        found: dict[str, Any] = next(
            json.loads(text) for attrs, text in self.scripts if attrs.get("id") == f"data-{index}"
        )
        return found


# --- status --------------------------------------------------------------------------------------


def status(**fields: Any) -> tuple[str, str]:
    chain = fake_chain()
    made = of_result(fake_result(chain, gates=()))
    return status_of(replace(made, **({"is_gated": True} | fields)))


def status_of(report: LoopReport) -> tuple[str, str]:
    view = loop_view(report, 0)["status"]
    return view["word"], view["tone"]
