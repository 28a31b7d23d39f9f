"""The documentation's pages, and reading their Markdown."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pytest_ftloop"
QUICKSTART = ROOT / "examples" / "quickstart"
LOGGED = (QUICKSTART / "improvement_log").is_dir()

PAGES = (
    *("README.md", "CHANGELOG.md", ".github/CONTRIBUTING.md", "docs/tour.md"),
    *("docs/reference.md", "docs/log.md", "docs/diagnosis.md", "docs/training.md", "docs/gate.md"),
    *("docs/comparison.md", "docs/evaluation.md"),
    *("docs/github.md", "docs/benchmarks.md", "docs/appendix.md"),
)
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
REFERENCE, LOG, DIAGNOSIS = (TEXTS[f"docs/{name}.md"] for name in ("reference", "log", "diagnosis"))


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert found, heading
    rest = text[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def ticked(text: str) -> list[str]:
    """The code spans, in order."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(text))


def tables(text: str) -> list[list[list[str]]]:
    """The tables: rows of cells, without the header."""
    runs = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    rows = [[row.strip("|").split("|") for row in run.strip().split("\n")] for run in runs]
    return [[[cell.strip() for cell in cells] for cells in table[2:]] for table in rows]


def names(table: list[list[str]], column: int = 0) -> list[str]:
    """The code spans of one column."""
    return [name for row in table for name in ticked(row[column])]


def words(spans: list[str]) -> list[str]:
    """Options without what they take: `--log DIR` is `--log`."""
    return [span.split()[0] for span in spans]
