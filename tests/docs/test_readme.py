"""README and tour show the quickstart as its file and its log have it."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.config.loop_config import read_loop_file as read_loop
from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.report.screen import result_screen
from tests.docs.pages import LOGGED, QUICKSTART, ROOT, TEXTS
from tests.fake_backend import FakeBackend
from tests.loop.loop_cases import config as fake_loop

if TYPE_CHECKING:
    from collections.abc import Iterable


def marked(comment: str) -> str:
    """The block after a comment in the README or the tour."""
    found = re.search(
        rf"<!-- {re.escape(comment)} -->\n```\w+\n(.*?)^```$",
        TEXTS["README.md"] + TEXTS["docs/tour.md"],
        re.DOTALL | re.MULTILINE,
    )
    assert found, comment
    return found[1]


def test_readme_has_the_loop_file() -> None:
    """The README shows the quickstart's loop file as it is."""
    name = "examples/quickstart/sentiment.ftloop.yaml"
    assert (ROOT / name).read_text(encoding="utf-8").strip() == marked(f"file: {name}").strip()


@pytest.mark.skipif(not LOGGED, reason="the quickstart has no committed log")
def test_readme_has_the_logged_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quickstart's output in the README is that of its committed log, except for `[...]`."""
    monkeypatch.chdir(ROOT)
    loop = read_loop(Path("examples/quickstart/sentiment.ftloop.yaml"))

    def plainly(lines: Iterable[str]) -> list[str]:
        """Without the marks of what was trained then, and the spacing they need."""
        bare = (" ".join(line.lstrip("*+ ").split()) for line in lines)
        return [line for line in bare if line not in {"best", "best + trained now", ""}]

    result = Loop(loop, Options(replay=True)).run()
    result = replace(result, trained=tuple(iteration.id for iteration in result.chain))
    said = "\n".join([*plainly(result_screen(result, width=80)), ""])
    shown = marked("output: quickstart").split("\n")
    first = next(i for i, line in enumerate(shown) if "untrained base" in line)
    last = next(i for i, line in enumerate(shown) if line.startswith("to commit"))
    assert last - first > 10
    parts = "\n".join([*plainly(shown[first:last]), ""]).split("[...]\n")
    for part in filter(None, parts):
        _, found, said = said.partition(part)
        assert found, f"not in the summary, or not in this order: {part}"


@pytest.mark.skipif(not LOGGED, reason="the quickstart has no committed log")
def test_readme_has_the_logged_failure() -> None:
    """The failing gate in the tour shows the figure of the quickstart's committed log."""
    best = ImprovementLog(QUICKSTART / "improvement_log" / "sentiment").read()[-1]
    figure = f"{100 * best.metrics['pass_rate[negation]']:.1f}%"
    shown = marked("output: failing gate")
    assert re.search(rf"^  pass_rate\[negation\] +{figure} +>= 75% ", shown, re.MULTILINE)
    assert f"best {best.name}: 1 of 6 gates failed" in shown


@pytest.mark.skipif(not LOGGED, reason="the quickstart has no committed log")
def test_readme_test_passes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's test of the quickstart passes on its committed log."""
    monkeypatch.delenv("CI", raising=False)
    shutil.copytree(QUICKSTART, pytester.path, dirs_exist_ok=True)
    pytester.makepyfile(test_readme=marked("runs: with the quickstart's log"))
    result = pytester.runpytest_inprocess(
        "-W", "ignore::pytest.PytestAssertRewriteWarning", "--ftloop-replay", "test_readme.py"
    )
    result.assert_outcomes(passed=1)


def test_stale_log_is_said_as_shown(tmp_path: Path) -> None:
    """The README's message of an outdated log is the real one, except for names and a rate."""
    config = fake_loop(tmp_path)
    Loop(config, backend=FakeBackend()).run()
    changed = fake_loop(tmp_path, rate=3e-4)
    with pytest.raises(FtloopError) as caught:
        Loop(changed, Options(replay=True)).run()
    said = re.sub(r"log of \w+|\d{3}-\w{8}|\de-4 ", "_", str(caught.value)).replace(
        f"{config.source}: ", ""
    )
    assert re.sub(r"\s+", " ", said) in re.sub(
        r"\s+", " ", re.sub(r"log of \w+|\d{3}-\w{8}|\de-4 ", "_", TEXTS["README.md"])
    )


def test_readme_is_short() -> None:
    """The README is read in five minutes: fewer than 1,200 words, code and outputs included."""
    assert len(TEXTS["README.md"].split()) < 1200
