"""Loops of one eval set in one table at the end of the pytest run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

BASES = """
import pytest

@pytest.mark.parametrize("rate", [5e-4, 1.5e-3, 1.6e-3])
def test_base(ftloop, rate):
    loop = ftloop(
        train="train.jsonl", eval="eval.jsonl", training={"learning_rate": rate},
        loop={"iterations": 1},
    )
    assert loop.run().eval_loss < 9
"""


def test_a_parametrised_test_gives_one_table(project: Project) -> None:
    """Three loops of one test are compared at the end, the best first; also when up to date."""
    (project.path / "x.ftloop.yaml").unlink()
    project.write("test_x.py", BASES)
    for _ in range(2):
        done = project.run("--ftloop")
        done.assert_outcomes(passed=3)
        done.stdout.fnmatch_lines(
            [
                "*- ftloop: loops compared -*",
                "3 loops by eval_loss on * examples",
                "*",
                "loop * base *",
                "base-0.0016 * best *",
                "base-0.0015 *, not proven *",
                "base-0.0005 *",
            ]
        )
        assert 1 == done.stdout.str().count("loops compared")


def test_workers_give_one_table(project: Project) -> None:
    """The table is made where it is printed, of loops that ran in several processes."""
    pytest.importorskip("xdist")
    (project.path / "x.ftloop.yaml").unlink()
    project.write("test_x.py", BASES)
    done = project.run_alone("--ftloop", "-n", "2")
    assert 0 == done.returncode, done.stdout
    assert 1 == done.stdout.count("3 loops by eval_loss on ")


def test_no_table_of_what_cannot_be_compared(project: Project) -> None:
    """One loop, two that are up to date, or on different eval sets give no table; nor does -q."""
    assert "loops compared" not in project.run("--ftloop").stdout.str()
    text = (project.path / "x.ftloop.yaml").read_text(encoding="utf-8")
    project.write("y.ftloop.yaml", text)
    assert "loops compared" not in project.run("--ftloop", "-q").stdout.str()
    assert "loops compared" not in project.run("--ftloop").stdout.str()
    assert "loops compared" in project.run("--ftloop", "-v").stdout.str()
    rows = (project.path / "eval.jsonl").read_text(encoding="utf-8")
    project.write("other.jsonl", rows.replace('"prompt": "', '"prompt": "other '))
    project.write("y.ftloop.yaml", text.replace("eval.jsonl", "other.jsonl"))
    assert "loops compared" not in project.run("--ftloop").stdout.str()
