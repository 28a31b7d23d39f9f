"""The browser that several files of this room use; skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.report.chromium import Opened, find_chromium

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from playwright.sync_api import Browser

    from pytest_ftloop.report.html.loop_report import LoopReport


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        found = find_chromium(playwright.chromium.executable_path)
        if found is None:
            pytest.skip("no Chromium: install one, or name it by FTLOOP_CHROMIUM")
        # A container's root has no sandbox; the page is our own.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Write and open a page of these loops; at the end nothing was loaded or complained of."""
    made: list[Opened] = []

    def opened(loops: Sequence[LoopReport], **context: Any) -> Opened:
        from pytest_ftloop.report.html.gather import write_page

        file = tmp_path / "report.html"
        write_page(loops, file)
        opened = Opened(browser.new_context(**context).new_page())
        own = file.as_uri()
        page = opened.page
        page.on("request", lambda request: opened.requests.append(request.url))
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on("dialog", lambda dialog: opened.complaints.append(dialog.message))
        page.on(
            "console",
            lambda said: (
                opened.complaints.append(said.text) if said.type in {"error", "warning"} else None
            ),
        )
        page.goto(own)
        # A loop far below the table of all loops is made when it is scrolled to.
        page.evaluate("document.querySelector('article').scrollIntoView({behavior: 'instant'})")
        page.wait_for_selector("[data-id]")
        made.append(opened)
        return opened

    yield opened
    for one in made:
        loaded = [url for url in one.requests if not url.startswith(("file:", "data:", "blob:"))]
        assert [] == loaded
        assert 1 == sum(url.startswith("file:") for url in one.requests)
        assert [] == one.complaints
        one.page.context.close()
