"""The HTML report in headless Chromium: clicked through, with nothing loaded and no error."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.report.fakes_html import HOSTILE, big_report, odd_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

    from pytest_ftloop.report.html.loop_report import LoopReport
    from tests.report.chromium import Opened

pytest.importorskip("jinja2")
pytest.importorskip("plotly")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.slow

OPENS_IN_S = 2.0
LARGEST_MB = 10.0


@pytest.fixture(scope="module")
def loop() -> LoopReport:
    return big_report(120, 5)


def outcomes(loop: LoopReport, before: int, after: int) -> dict[str, set[str]]:
    """The ids by outcome, from the records."""
    old = {row.id: row.passed for row in loop.iterations[before].examples}
    new = {row.id: row.passed for row in loop.iterations[after].examples}
    return {
        "failed": {i for i in new if not new[i]},
        "passed": {i for i in new if new[i]},
        "broken": {i for i in new if old[i] and not new[i]},
        "fixed": {i for i in new if not old[i] and new[i]},
    }


def test_sorting(loop: LoopReport, open_page: Callable[..., Opened]) -> None:
    """A click on a heading sorts by it, a second one the other way round; numbers as numbers."""
    opened = open_page([loop])
    opened.sort("loss")
    losses = [float(cell) for cell in opened.column("loss")]
    assert sorted(losses, reverse=True) == losses
    worst = max(loop.best.examples, key=lambda row: row.mean_loss)
    assert worst.id == opened.ids()[0]
    opened.sort("loss")
    losses = [float(cell) for cell in opened.column("loss")]
    assert sorted(losses) == losses
    assert "ascending" == opened.page.get_attribute(".c-loss[aria-sort]", "aria-sort")
    opened.sort("id")
    assert opened.ids() == sorted(opened.ids())
    opened.sort("id")
    assert "ticket-00119" == opened.ids()[0]


def test_sorting_by_keyboard(loop: LoopReport, open_page: Callable[..., Opened]) -> None:
    """A heading that was sorted by with the keyboard keeps the focus."""
    opened = open_page([loop])
    opened.page.focus('[data-sort="id"]')
    opened.page.keyboard.press("Enter")
    assert "id" == opened.page.evaluate("document.activeElement.dataset.sort")
    opened.page.keyboard.press("Enter")
    assert "ticket-00119" == opened.ids()[0]


def test_filters(loop: LoopReport, open_page: Callable[..., Opened]) -> None:
    """Outcome, tag and text filter together; each outcome says how many there are."""
    opened = open_page([loop])
    before = loop.iterations.index(loop.baseline) if loop.baseline else 0
    found = outcomes(loop, before, loop.iterations.index(loop.best))
    for outcome, ids in found.items():
        button = f'[data-outcome="{outcome}"]'
        assert str(len(ids)) == opened.page.text_content(f"{button} b")
        opened.page.click(button)
        assert "true" == opened.page.get_attribute(button, "aria-pressed")
        assert set(opened.ids()) <= ids
        assert len(ids) == opened.shown()
    opened.page.click('[data-outcome="failed"]')
    opened.page.select_option(".tag", label="negation")
    rows = {row.id: row for row in loop.best.examples}
    both = {id_ for id_ in found["failed"] if "negation" in rows[id_].tags}
    assert both == set(opened.ids())
    some = sorted(both)[0]
    opened.page.fill(".search", rows[some].output.upper())
    assert some in opened.ids()
    opened.page.fill(".search", "nothing has this text")
    assert 0 == opened.shown()
    assert "No example matches." in (opened.page.text_content(".rows") or "")


def test_any_two_iterations(loop: LoopReport, open_page: Callable[..., Opened]) -> None:
    """The outputs side by side are those of the two iterations that were chosen."""
    opened = open_page([loop])
    opened.page.select_option(".before", "0")
    opened.page.select_option(".after", "2")
    opened.sort("id")
    first, third = ({r.id: r for r in loop.iterations[n].examples} for n in (0, 2))
    ids = opened.ids()
    assert 50 == len(ids)
    assert [first[id_].output for id_ in ids] == opened.column("before")
    assert [third[id_].output for id_ in ids] == opened.column("after")
    assert [loop.prompts[id_, first[id_].content] for id_ in ids] == opened.column("prompt")
    assert len(outcomes(loop, 0, 2)["fixed"]) == int(
        opened.page.text_content('[data-outcome="fixed"] b') or ""
    )
    assert "before: 1" == opened.page.text_content('[data-sort="before"]')


def test_pages(loop: LoopReport, open_page: Callable[..., Opened]) -> None:
    """Each example is on one of the pages, and a filter goes back to the first."""
    opened = open_page([loop])
    opened.sort("id")
    seen = opened.ids()
    for _ in range(2):
        opened.page.click(".next")
        seen += opened.ids()
    assert sorted(row.id for row in loop.best.examples) == seen
    assert opened.page.is_disabled(".next")
    opened.page.click('[data-outcome="passed"]')
    assert opened.count().startswith("1\u2013")


def test_texts_can_be_opened(loop: LoopReport, open_page: Callable[..., Opened]) -> None:
    """A long text is cut on the page until it is opened."""
    opened = open_page([loop])
    more = opened.page.query_selector(".more")
    assert more is not None
    box = "tr:has(.more) .c-prompt .text"
    before = opened.page.eval_on_selector(box, "e => e.clientHeight")
    more.click()
    assert "true" == more.get_attribute("aria-expanded")
    assert opened.page.eval_on_selector(box, "e => e.clientHeight") >= before
    assert opened.page.eval_on_selector(box, "e => e.scrollHeight <= e.clientHeight + 1")


def test_plots(loop: LoopReport, open_page: Callable[..., Opened]) -> None:
    """Plots are drawn when they come into view; a click hides an iteration's curves."""
    opened = open_page([loop])
    assert not opened.page.query_selector('[data-plot="eval"].js-plotly-plot')
    opened.draw_all()
    curves = "document.querySelectorAll('[data-plot=train] .scatterlayer .trace').length"
    assert 5 == opened.page.evaluate(curves)
    opened.page.click(".legend button >> nth=0")
    assert 4 == opened.page.evaluate(curves)
    assert opened.page.query_selector('[data-plot="loss"] .scatterlayer .js-fill')
    assert "gate <= 0.42" in (opened.page.text_content('[data-plot="loss"]') or "")
    is_log = opened.page.is_checked(".log")
    opened.page.click(".log")
    kind = opened.page.evaluate("document.querySelector('[data-plot=train]').layout.yaxis.type")
    assert ("linear" if is_log else "log") == kind


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme(scheme: str, loop: LoopReport, open_page: Callable[..., Opened]) -> None:
    """The page begins as the system prefers, the button turns it, and text stays readable."""
    opened = open_page([loop], color_scheme=scheme)
    other = {"light": "dark", "dark": "light"}[scheme]
    theme = "document.documentElement.dataset.theme"
    for expected in (scheme, other):
        assert expected == opened.page.evaluate(theme)
        for name in ("text", "muted", "good", "bad", "warn", "accent"):
            assert contrast(opened.page, name) >= 4.5, (expected, name)
        opened.page.click("#theme")
    assert scheme == opened.page.evaluate(theme)


def contrast(page: Page, name: str) -> float:
    """The contrast of a colour of the theme on the page and on its cards, the lower one."""

    def luminance(variable: str) -> float:
        colour: str = page.evaluate(
            f"getComputedStyle(document.documentElement).getPropertyValue('--{variable}').trim()"
        )
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def ratio(one: float, other: float) -> float:
        return (max(one, other) + 0.05) / (min(one, other) + 0.05)

    return min(ratio(luminance(name), luminance(on)) for on in ("bg", "surface"))


def test_phone(loop: LoopReport, open_page: Callable[..., Opened]) -> None:
    """At a phone's width nothing sticks out, and sorting has a control of its own."""
    opened = open_page([loop], viewport={"width": 390, "height": 844})
    opened.draw_all()
    assert 390 == opened.page.evaluate("document.documentElement.scrollWidth")
    opened.page.select_option(".sort", "loss")
    losses = [float(cell) for cell in opened.column("loss")]
    assert sorted(losses, reverse=True) == losses
    assert opened.page.is_visible(".list .label")


def test_hostile_texts_are_inert(open_page: Callable[..., Opened]) -> None:
    """No text of 200 runs, loads, links or hides anything, in the table and in the plots too."""
    opened = open_page([odd_report(HOSTILE), big_report(20, 2)])
    page = opened.page
    opened.draw_all()
    seen: list[str] = []
    for _ in range(20):
        seen += opened.column("prompt")
        for row in page.query_selector_all(".loop:first-of-type .legend button"):
            row.hover()
        if page.is_disabled(".next"):
            break
        page.click(".next >> nth=0")
    assert None is page.evaluate("window.pwned ?? null")
    for element in ("iframe", "main img", "main link", "main base", "main b > b", ".rows a"):
        assert [] == page.query_selector_all(element), element
    assert 1 == len(page.query_selector_all("style[media], head > style:first-of-type"))
    for text in HOSTILE:
        if text.isprintable():
            assert text in seen, text
    assert any(r"\u202egnp.exe" in text for text in seen)
    label = page.text_content('[data-plot="loss"] .xaxislayer-above')
    assert label == "1" + "2"


def test_plot_labels_are_texts(open_page: Callable[..., Opened]) -> None:
    """What plotly would read as markup is shown in a plot as it is written."""
    made = big_report(20, 2)
    ids = ("<b>x", "&lt;", "<br>")
    # Of one number, so that the label names the id too.
    chain = tuple(replace(made.best, number=1, id=id_, fingerprint=id_) for id_ in ids)
    opened = open_page([replace(made, iterations=chain, best=chain[0], baseline=None)])
    opened.draw_all()
    ticks = opened.page.query_selector_all('[data-plot="pass_rate"] .xtick text')
    assert [f"1 {id_}" for id_ in ids] == [tick.text_content() for tick in ticks]
    assert [] == opened.page.query_selector_all(".xtick tspan")


def test_print(loop: LoopReport, open_page: Callable[..., Opened]) -> None:
    """On paper the page is light, all that was folded is open, and the controls are gone."""
    opened = open_page([loop], color_scheme="dark")
    opened.draw_all()
    page = opened.page
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert "light" == page.evaluate("document.documentElement.dataset.theme")
    assert 0 == len(page.query_selector_all("details:not([open])"))
    assert not page.is_visible(".controls")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert "dark" == page.evaluate("document.documentElement.dataset.theme")


def test_big_loops_open_quickly(open_page: Callable[..., Opened], tmp_path: Path) -> None:
    """5,000 examples x 10 iterations: below 10 MB, and open in less than 2 seconds."""
    big = big_report(5000, 10)
    assert 10 * 5000 == sum(len(iteration.examples) for iteration in big.iterations)
    took_s = []
    for _ in range(3):
        opened = open_page([big])
        mark = "performance.getEntriesByName('ftloop-open')[0].startTime"
        took_s.append(opened.page.evaluate(mark) / 1000)
    assert min(took_s) < OPENS_IN_S, took_s
    assert (tmp_path / "report.html").stat().st_size < LARGEST_MB * 1e6
    opened.sort("prompt")
    opened.page.fill(".search", "refund")
    assert 0 < opened.shown() < 5000
