"""The HTML report's files and `ftloop report`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("plotly")
from pytest_ftloop import Loop, Options, read_loop_file
from pytest_ftloop.cli import main
from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop.local_backend import LocalBackend
from pytest_ftloop.loop.replay import gated, replay
from pytest_ftloop.report.html import page
from pytest_ftloop.report.html.gather import of_result, write_report
from pytest_ftloop.report.html.page import render
from tests.loops import WORSE

if TYPE_CHECKING:
    from pytest_ftloop.loop.result import LoopResult
    from tests.loops import Loops
from tests.gitfakes import isolate
from tests.report.html_cases import Page, status_of

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart" / "sentiment.ftloop.yaml"


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI the clone of this repository may be a shallow one, in which nothing can be compared."""
    isolate(monkeypatch)


# --- files and the command -----------------------------------------------------------------------


def quickstart() -> LoopResult:
    return Loop(read_loop_file(QUICKSTART), Options(replay=True)).run()


def test_quickstart(tmp_path: Path) -> None:
    """The quickstart's committed log gives a page with its iterations, examples and prompts."""
    file = tmp_path / "reports" / "page.html"
    write_report([quickstart()], file)
    parsed = Page(file.read_text(encoding="utf-8"))
    data = parsed.data()
    numbers = [str(iteration.number) for iteration in quickstart().chain]
    assert numbers == [it["label"] for it in data["iterations"]][-len(numbers) :]
    assert 120 == len(data["examples"]["ids"])
    assert "negation" in data["examples"]["tagNames"]
    assert any("sentiment:" in text for text in data["examples"]["texts"])
    assert [["<=", 0.38]] == data["metrics"]["eval_loss"]["gates"]
    assert [file] == list(file.parent.iterdir())


def test_a_report_writes_nothing_into_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged for a report may neither train, nor log a verdict, nor open the holdout."""

    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("a report trained or wrote")

    for name in ("append", "append_judgement", "append_seed_run", "append_holdout_use"):
        monkeypatch.setattr(ImprovementLog, name, forbidden)
    for name in ("train", "measure"):
        monkeypatch.setattr(LocalBackend, name, forbidden)
    result = replay(gated(read_loop_file(QUICKSTART)), Options())
    assert of_result(result).verdicts[0][1].ok


def test_the_page_has_the_verdict_that_the_command_gives(
    loops: Loops,
) -> None:
    """`--fail-on` fails what it names, on the page as in the exit code; a regression always."""
    loops.version()
    for rate, kind in ((WORSE, "regressed"), ("9.9e-4", "inconclusive")):
        loops.write(rate=rate)
        loops.train()
        config = read_loop_file(loops.root / "x.ftloop.yaml")
        plain = of_result(replay(gated(config), Options()))
        strict = of_result(replay(gated(config), Options(), frozenset({"inconclusive"})))
        assert kind == plain.verdicts[0][1].kind
        assert (kind == "regressed") == (status_of(plain) == ("Failed", "bad"))
        assert ("Failed", "bad") == status_of(strict)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`ftloop report` writes the file that is named, and says so."""
    file = tmp_path / "x.html"
    assert 0 == main(["report", str(QUICKSTART), "-o", str(file)])
    assert re.fullmatch(r"wrote .*x\.html: 1 loop, \d\.\d MB\n", capsys.readouterr().out)
    assert "sentiment" in Page(file.read_text(encoding="utf-8")).text


def test_command_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without -o the file is ftloop-report.html, here."""
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["report", str(QUICKSTART)])
    assert ["ftloop-report.html"] == [path.name for path in tmp_path.iterdir()]


def copied(tmp_path: Path) -> Path:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(QUICKSTART.parent, folder)
    return folder


def test_an_outdated_log_is_shown_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the settings changed since, the page has what is logged and says that it is old."""
    file = copied(tmp_path) / QUICKSTART.name
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("num_train_epochs: 6", "num_train_epochs: 7"), encoding="utf-8")
    page_file = tmp_path / "x.html"
    assert 0 == main(["report", str(file), "-o", str(page_file)])
    assert "is out of date" in capsys.readouterr().err
    said = Page(page_file.read_text(encoding="utf-8")).text
    assert "is out of date" in said
    assert "\\n" not in said  # a note of several lines is as many paragraphs
    assert "Not judged 5 gates were not judged" in said
    assert "no gates" not in said


def test_a_loop_made_in_python_is_shown(tmp_path: Path) -> None:
    """A log without a loop file is in the page too, alone or beside others."""
    folder = copied(tmp_path)
    (folder / QUICKSTART.name).unlink()
    page_file = tmp_path / "x.html"
    assert 0 == main(["report", str(folder), "-o", str(page_file)])
    parsed = Page(page_file.read_text(encoding="utf-8"))
    assert 120 == len(parsed.data()["examples"]["ids"])
    assert "sentiment" in parsed.text


def test_nothing_to_report_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without loop files and logs is an error, and no file is written."""
    assert 2 == main(["report", str(tmp_path), "-o", str(tmp_path / "x.html")])
    assert "no loop file" in capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder in the file's place is an error that names it."""
    assert 2 == main(["report", str(QUICKSTART), "-o", str(tmp_path)])
    assert "the report can't be written" in capsys.readouterr().err


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the libraries one line says what to install."""
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == "plotly" else object())
    with pytest.raises(FtloopError) as caught:
        render([])
    assert 'the HTML report needs plotly\n  pip install "pytest-ftloop[report]"' == str(
        caught.value
    )
