"""The end of a pytest run shows what a change did to its gates, and never praises a failed one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.cli import main
from tests.plugin.conftest import WORSE

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

LOOSE = "  regression: {min_regression: 0.5}\n  eval_loss: '<= 9'\n"
TEST = "def test_x(ftloop):\n    best = ftloop('x.ftloop.yaml').run()\n    assert best.verdict.ok\n"
HOLDS = re.compile(r"\b(all|every)\b[^.\n]*\bhold", re.IGNORECASE)


def gates(project: Project, text: str) -> None:
    project.edit("x.ftloop.yaml", "  regression: {}\n", text)


@pytest.mark.parametrize(
    ("how", "arguments"),
    [
        ("loop file", ["--ftloop"]),
        ("loop file", ["--ftloop-replay"]),
        pytest.param("loop file", ["--ftloop", "-n1"], marks=pytest.mark.slow),
        pytest.param("test", ["--ftloop"], marks=pytest.mark.slow),
        ("test", ["--ftloop-replay"]),
        pytest.param("test", ["--ftloop", "-n1"], marks=pytest.mark.slow),
    ],
)
def test_the_summary_shows_it(gated: Project, arguments: list[str], how: str) -> None:
    """Before and after, above the loop's summary; with xdist once, and from the fixture too."""
    if "-n1" in arguments:
        pytest.importorskip("xdist")
    gates(gated, LOOSE)
    gated.write("test_x.py", TEST)
    only = ["x.ftloop.yaml"] if how == "loop file" else ["test_x.py"]
    done = gated.run_alone(*arguments, *only)
    assert 0 == done.returncode
    out = done.stdout
    assert 1 == out.count("gates changed since HEAD (")
    assert "\n  loosened regression.min_regression: 0.01 -> 0.5\n" in out
    assert "\n  changed eval_loss: not set -> <= 9\n" in out
    assert out.index("gates changed") < out.index("x: 1 iteration (")


def test_nothing_is_shown_where_nothing_changed(gated: Project) -> None:
    """The usual run has no word of it."""
    assert "changed since" not in gated.run("--ftloop").stdout.str()


def test_the_regression_gate_was_removed(gated: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that no gate compares any more: shown in a replay and in CI, where it matters."""
    gates(gated, "  eval_loss: '<= 9'\n")
    assert "changed since" not in gated.run("--ftloop").stdout.str()
    assert "loosened regression: alpha 0.01" in gated.run("--ftloop-replay").stdout.str()
    monkeypatch.setenv("CI", "true")
    assert "loosened regression: alpha 0.01" in gated.run("--ftloop").stdout.str()


@pytest.mark.parametrize(
    "command",
    [["run"], ["run", "--replay"], ["gate"], ["gate", "--report-only"], ["ci"], ["report"], None],
)
def test_a_failed_gate_is_never_followed_by_praise(
    gated: Project, command: list[str] | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """The threshold holds and the regression gate fails: no output says that all gates hold."""
    gates(gated, "  regression: {}\n  eval_loss: '<= 9'\n")
    gated.commit()
    gated.rate(WORSE)
    out = gated.run("--ftloop").stdout.str()
    if command is not None:
        capfd.readouterr()
        main(command)
        said = capfd.readouterr()
        out = said.out + said.err
        for file in gated.path.rglob("*.[mh][dt]*"):
            out += re.sub("<script.*?</script>", "", file.read_text(encoding="utf-8"), flags=re.S)
    assert [] == HOLDS.findall(out)
