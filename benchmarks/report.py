"""The HTML report of 5,000 examples x 10 iterations: size, and time to write and to open it.

    python benchmarks/report.py                            # a table of figures
    python benchmarks/report.py --picture docs/report.png  # the README's picture: the quickstart's

Needs the dev extra, and Chromium on the PATH or named by FTLOOP_CHROMIUM. Opened: the page is
parsed and laid out, and the table of examples is made. Drawn: the first plots are there too, for a
reader who scrolls to them at once.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import sync_playwright  # noqa: E402

from pytest_ftloop import Options, read_loop_file  # noqa: E402
from pytest_ftloop.loop.replay import gated, replay  # noqa: E402
from pytest_ftloop.report.html.gather import write_page, write_report  # noqa: E402
from pytest_ftloop.report.markdown import markdown_table  # noqa: E402
from tests.report.chromium import find_chromium  # noqa: E402
from tests.report.fakes_html import big_report  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZES = ((100, 3), (1000, 10), (5000, 10), (5000, 12))
"""Examples and iterations."""
RUNS = 5
WIDTH, HEIGHT = 1240, 1490
"""Of the picture, in pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write a picture instead")
    parser.add_argument("--smoke", action="store_true", help="the smallest report, opened once")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        file = Path(folder) / "report.html"
        if arguments.picture:
            picture(browser, file, arguments.picture)
        else:
            figures(browser, file, *((SIZES[:1], 1) if arguments.smoke else (SIZES, RUNS)))


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = find_chromium(playwright.chromium.executable_path)
        if path is None:
            sys.exit("no Chromium: install one, or name it by FTLOOP_CHROMIUM")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def figures(browser: Browser, file: Path, sizes: Sequence[tuple[int, int]], runs: int) -> None:
    """Print one row per size."""
    rows = []
    for examples, iterations in sizes:
        loop = big_report(examples, iterations)
        start = time.perf_counter()
        write_page([loop], file)
        written_s = time.perf_counter() - start
        opened_s, drawn_s = zip(*(opened(browser, file) for _ in range(runs)), strict=True)
        seconds = (written_s, median(opened_s), median(drawn_s))
        size_mb = f"{file.stat().st_size / 1e6:.1f}"
        rows.append([f"{examples:,} x {iterations}", size_mb, *(f"{s:.2f}" for s in seconds)])
    heads = ["examples x iterations", "file, MB", "written, s", "opened, s", "drawn, s"]
    print(markdown_table(heads, rows, right=range(1, 5)))


def opened(browser: Browser, file: Path) -> tuple[float, float]:
    """Seconds from the request to the table of examples, and to the first plots."""
    page = browser.new_page()
    page.goto(file.as_uri())
    page.wait_for_selector("[data-id]")
    opened_ms: float = page.evaluate("performance.getEntriesByName('ftloop-open')[0].startTime")
    page.evaluate(
        "document.querySelector('[data-plot=loss]').scrollIntoView({behavior: 'instant'})"
    )
    page.wait_for_selector("[data-plot=loss] .scatterlayer")
    drawn_ms: float = page.evaluate("performance.now()")
    page.close()
    return opened_ms / 1000, drawn_ms / 1000


def picture(browser: Browser, file: Path, to: Path) -> None:
    """The top of the quickstart's report."""
    loop = read_loop_file(ROOT / "examples" / "quickstart" / "sentiment.ftloop.yaml")
    write_report([replay(gated(loop), Options())], file)
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1)
    page.goto(file.as_uri())
    for plot in page.query_selector_all(".plot"):
        plot.scroll_into_view_if_needed()
        page.wait_for_timeout(200)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(200)
    page.screenshot(path=to)
    if pngquant := shutil.which("pngquant"):  # 256 colours: a third of the size
        subprocess.run([pngquant, "--force", "--strip", "--output", to, "256", to], check=True)
    print(f"wrote {to}: {to.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
