"""A page of the report in headless Chromium, and what it asked for or complained of.

FTLOOP_CHROMIUM names the browser; else one on the PATH, or the one that playwright installed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium(installed: str) -> str | None:
    """The browser to use; None where there is none."""
    if named := os.environ.get("FTLOOP_CHROMIUM"):
        return named
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found or (installed if Path(installed).is_file() else None)


@dataclass
class Opened:
    """A page in the browser, and all that it asked for or complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def ids(self) -> list[str]:
        """The examples shown, in order."""
        return [
            row.get_attribute("data-id") or "" for row in self.page.query_selector_all("[data-id]")
        ]

    def column(self, name: str) -> list[str]:
        """A column's cells as they read."""
        cells: list[str] = self.page.eval_on_selector_all(
            f".list tbody .c-{name}",
            "all => all.map(c => [...c.childNodes].filter(n => n.className !== 'label')"
            ".map(n => n.textContent).join(''))",
        )
        return cells

    def count(self) -> str:
        return (self.page.text_content(".count") or "").split(" examples")[0]

    def shown(self) -> int:
        """How many examples were found, on all pages."""
        text = self.count()
        return 0 if text == "None" else int(text.split(" of ")[1].replace(",", ""))

    def sort(self, name: str) -> None:
        self.page.click(f'[data-sort="{name}"]')

    def draw_all(self) -> None:
        """Scroll through, so that each plot is drawn."""
        for figure in self.page.query_selector_all(".plot"):
            figure.scroll_into_view_if_needed()
        self.page.wait_for_function(
            "document.querySelectorAll('.plot').length ==="
            "document.querySelectorAll('.plot.js-plotly-plot').length"
        )
