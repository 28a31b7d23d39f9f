"""The HTML report as it is laid out in Chromium: nothing squeezed, nothing over anything else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.report.fakes_html import big_report, fake_verdict, five_loops

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ftloop.report.html.loop_report import LoopReport
    from tests.report.chromium import Opened

pytest.importorskip("jinja2")
pytest.importorskip("plotly")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.slow

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}}
DESK: dict[str, Any] = {"viewport": {"width": 1240, "height": 900}}

BROKEN_WORDS = """() => {
  const found = new Set();
  const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode;
    if (!node.parentElement.checkVisibility()) continue;
    for (const match of node.data.matchAll(/[A-Za-z0-9%]{2,18}/g)) {
      const range = document.createRange();
      range.setStart(node, match.index);
      range.setEnd(node, match.index + match[0].length);
      const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
      if (lines.size > 1) found.add(match[0]);
    }
  }
  return [...found];
}"""
"""Words of a table's usual length whose letters are on two lines."""

BROKEN_LABELS = """() => [...document.querySelectorAll("[data-label]")].flatMap((cell) => {
  const probe = document.createElement("span");
  const own = getComputedStyle(cell, "::before");
  if (own.content === "none") return [];
  const words = cell.dataset.label.split(/[ _]/);
  probe.textContent = words.sort((one, other) => other.length - one.length)[0];
  Object.assign(probe.style, { font: own.font, position: "absolute", whiteSpace: "nowrap" });
  document.body.append(probe);
  const wanted = probe.getBoundingClientRect().width;
  probe.remove();
  return parseFloat(own.width) + 0.5 < wanted ? [cell.dataset.label] : [];
})"""
"""Names of figures that are narrower than their longest word."""

OVERLAPS = """() => [...document.querySelectorAll(".plot")].flatMap((plot) => {
  const frame = plot.getBoundingClientRect();
  const texts = [...plot.querySelectorAll(".annotation-text, .xtick text, .ytick text")];
  const boxes = texts.map((text) => [text.textContent, text.getBoundingClientRect()]);
  const found = boxes.flatMap(([name, a], n) => boxes.slice(n + 1)
    .filter(([, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2)
    .map(([other]) => `${plot.dataset.plot}: ${name} over ${other}`));
  const cut = boxes.filter(([, a]) => a.left < frame.left - 1 || a.right > frame.right + 1)
    .map(([name]) => `${plot.dataset.plot}: ${name} is cut`);
  return [...found, ...cut];
})"""


def regressed() -> LoopReport:
    """A loop that a regression gate fails, with a base far above what it was trained to."""
    made = five_loops()[1]
    assert made.baseline is not None
    verdict = fake_verdict(
        made.baseline,
        made.best,
        kind="regressed",
        ok=False,
        because="eval_loss 0.3530 -> 0.4021 (+0.0491), p 0.0004",
    )
    decided = replace(
        verdict.changes[0],
        kind="inconclusive",
        decide="3 seeds per side or 800 examples would decide",
    )
    verdict = replace(verdict, changes=(decided, *verdict.changes[1:]))
    return replace(made, verdicts=(("regression", verdict),))


PAGES: dict[str, Callable[[], list[LoopReport]]] = {
    "regressed": lambda: [regressed()],
    "five loops": five_loops,
}


@pytest.mark.parametrize("width", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_squeezed(
    page: str, width: dict[str, Any], open_page: Callable[..., Opened]
) -> None:
    """No word and no figure's name is broken by letter, and the page is not scrolled sideways."""
    opened = open_page(PAGES[page](), **width)
    wanted = width["viewport"]["width"]
    assert wanted == opened.page.evaluate("document.documentElement.scrollWidth")
    assert [] == opened.page.evaluate(BROKEN_WORDS)
    assert [] == opened.page.evaluate(BROKEN_LABELS)


def test_wide_tables_are_cards_on_a_phone(open_page: Callable[..., Opened]) -> None:
    """All of a row is in view at 390 pixels: verdict and decision at full width, no wide table."""
    opened = open_page(five_loops(), **PHONE)
    boxes = opened.page.evaluate(
        "[...document.querySelectorAll('.stack td, .stack tbody th')].map(c => {"
        "const b = c.getBoundingClientRect(); return [c.textContent, b.left, b.right] })"
    )
    assert boxes
    assert [] == [text for text, left, right in boxes if left < 0 or right > 390]
    widths = opened.page.eval_on_selector_all(".stack .wide", "all => all.map(c => c.clientWidth)")
    assert min(widths) > 290


@pytest.mark.parametrize("width", [PHONE, DESK], ids=["phone", "desk"])
def test_labels_of_plots_stand_apart(
    width: dict[str, Any], open_page: Callable[..., Opened]
) -> None:
    """Names, gates, ticks and the far base's figure neither cover each other nor are cut."""
    tight = regressed()
    gates = [replace(g, gate=replace(g.gate, bound=0.3)) for g in tight.gates[:1]]
    opened = open_page([replace(tight, gates=(*gates, *tight.gates[1:]))], **width)
    opened.draw_all()
    assert [] == opened.page.evaluate(OVERLAPS)
    texts = opened.page.text_content('[data-plot="loss"]') or ""
    for said in ("gate <= 0.3", "eval loss", "train loss", "3.0000 \u2191"):
        assert said in texts, said


def test_bars_have_one_scale(open_page: Callable[..., Opened]) -> None:
    """A bar is as long as its share says, in every column and every row."""
    opened = open_page(five_loops(), **DESK)
    bars = opened.page.eval_on_selector_all(
        ".tags .rate:not(.none)",
        "all => all.map(c => [parseFloat(getComputedStyle(c).backgroundSize),"
        "parseFloat(c.style.getPropertyValue('--share'))])",
    )
    scale = {round(px / share) for px, share in bars if share > 0.05}
    assert 1 == len(scale), scale
    lengths = opened.page.eval_on_selector_all(".bar", "all => all.map(b => b.clientWidth)")
    assert 5 == len(lengths)
    assert 1 == len(set(lengths))


def test_a_baseline_of_another_commit_is_no_start(open_page: Callable[..., Opened]) -> None:
    """It is a point beside the line, and no iteration is compared with it."""
    made = big_report(20, 3)
    other = replace(made.iterations[0], metrics={**made.best.metrics, "eval_loss": 0.9}, number=7)
    opened = open_page([replace(made, baseline=replace(other, fingerprint="f" * 64))])
    opened.draw_all()
    lines = opened.page.evaluate(
        "document.querySelector('[data-plot=pass_rate]').data"
        ".filter(t => t.mode === 'lines+markers').map(t => t.y)"
    )
    assert [None] == [line[0] for line in lines]
    assert not opened.page.query_selector_all(".iterations tbody tr:nth-child(2) .delta")


def test_plots_of_own_metrics(open_page: Callable[..., Opened]) -> None:
    """A metric that only this loop has is drawn like the others."""
    made = big_report(20, 3)
    chain = tuple(replace(it, metrics={**it.metrics, "wer": 0.2}) for it in made.iterations)
    opened = open_page([replace(made, iterations=chain, best=chain[-1], baseline=None)])
    opened.draw_all()
    assert opened.page.query_selector('[data-plot="wer"] .scatterlayer .points')


def test_print_has_every_example(open_page: Callable[..., Opened]) -> None:
    """On paper all examples are there, their texts whole; then the page is as before."""
    opened = open_page([big_report(120, 3)])
    page = opened.page
    assert 50 == len(opened.ids())
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert 120 == len(opened.ids())
    cut = page.eval_on_selector_all(
        ".list .text", "all => all.filter(e => e.scrollHeight > e.clientHeight + 1).length"
    )
    assert 0 == cut
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert 50 == len(opened.ids())


def test_loops_are_beside_each_other(open_page: Callable[..., Opened]) -> None:
    """One table: the best first, base and tuned figure, how far behind; each leads to its loop."""
    opened = open_page(five_loops(), **DESK)
    rows = opened.page.eval_on_selector_all(
        ".loops tbody tr", "all => all.map(r => r.innerText.replace(/\\s+/g, ' '))"
    )
    assert "4 loops by eval_loss on 120 examples" in (opened.page.text_content("#overview") or "")
    assert "tickets-qwen" in rows[0]
    assert "Qwen/Qwen2.5-0.5B" in rows[0]
    assert "3.0000" in rows[0]
    assert "best" in rows[0]
    assert any("not proven" in row for row in rows)
    assert "another eval set" in rows[-1]
    opened.page.click(".loops a >> text=tickets-gpt2-clean")
    assert opened.page.url.endswith("#loop-3")
