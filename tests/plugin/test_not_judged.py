"""A pytest run names the loops with a log at the base that it did not judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import BETTER, GATED, WORSE

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

NOT_JUDGED = "x: has a log at *, and nothing judges it now (improvement_log/x)"
IN_PYTHON = """\
def test_m(ftloop):
    ftloop(
        train="train.jsonl", eval="eval.jsonl", training={{"learning_rate": {rate}}},
        gates={gates}, loop={{"iterations": 1}},
    ).run()
"""


@pytest.fixture
def committed(gated: Project) -> Project:
    """The loop x, trained and committed, and a test beside it."""
    gated.run("--ftloop")
    gated.write("checks/test_a.py", "def test_a():\n    pass\n")
    gated.commit()
    return gated


@pytest.mark.parametrize("args", [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)])
def test_testpaths(committed: Project, args: tuple[str, ...]) -> None:
    """A loop outside testpaths is named and fails a replay, which else would say nothing."""
    committed.write("pytest.ini", "[pytest]\ntestpaths = checks\n")
    done = committed.run_alone("--ftloop-replay", *args)
    assert pytest.ExitCode.TESTS_FAILED == done.returncode
    assert "1 passed" in done.stdout
    assert "x: has a log at HEAD (" in done.stdout
    assert "and nothing judges it now (improvement_log/x)" in done.stdout
    assert "pytest searched its testpaths only: checks" in done.stdout


def test_training_elsewhere(committed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that trains is no gate on a developer's machine; in CI it is one."""
    committed.write("pytest.ini", "[pytest]\ntestpaths = checks\n")
    assert 0 == committed.run("--ftloop").ret
    monkeypatch.setenv("CI", "true")
    result = committed.run("--ftloop")
    assert pytest.ExitCode.TESTS_FAILED == result.ret
    result.stdout.fnmatch_lines([NOT_JUDGED])


@pytest.mark.parametrize("args", [("checks/test_a.py",), ("x.ftloop.yaml",)])
def test_files_that_were_asked_for(committed: Project, args: tuple[str, ...]) -> None:
    """Whoever names files gets these, and hears of nothing else."""
    result = committed.run("--ftloop-replay", *args)
    assert 0 == result.ret
    assert "not judged" not in result.stdout.str()


def test_folders_that_were_asked_for(committed: Project) -> None:
    """Whoever names folders hears of the loops elsewhere, and passes without them."""
    result = committed.run("--ftloop-replay", "checks")
    assert 0 == result.ret
    said = "improvement_log/x: not judged, it is outside of what was named on the command line"
    result.stdout.fnmatch_lines([said])


@pytest.mark.parametrize("args", [("-k", "test_a"), ("-m", "not ftloop")])
def test_deselected(committed: Project, args: tuple[str, ...]) -> None:
    """What was deselected is named; that was the user's choice, so it passes."""
    result = committed.run("--ftloop-replay", *args)
    assert 0 == result.ret
    result.stdout.fnmatch_lines(["x.ftloop.yaml: not judged, its tests were deselected"])


def test_deleted(committed: Project) -> None:
    """A loop file that is gone, its log left, fails."""
    (committed.path / "x.ftloop.yaml").unlink()
    result = committed.run("--ftloop-replay")
    assert pytest.ExitCode.TESTS_FAILED == result.ret
    result.stdout.fnmatch_lines([NOT_JUDGED])


@pytest.mark.parametrize("args", [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)])
def test_a_loop_file_with_mistakes(committed: Project, args: tuple[str, ...]) -> None:
    """It is one error; that nothing judges its log would send the user elsewhere."""
    text = GATED.replace("regression: {}", "regression: {alpha: 2}")
    assert text != GATED
    committed.write("x.ftloop.yaml", text)
    done = committed.run_alone("--ftloop-replay", *args)
    assert 0 != done.returncode
    assert "gates.regression.alpha: wanted less than 0.5, found 2" in done.stdout
    assert "nothing judges" not in done.stdout


def test_plain_pytest_says_nothing(committed: Project) -> None:
    """Without --ftloop nothing is asked and nothing is said."""
    committed.write("pytest.ini", "[pytest]\ntestpaths = checks\n")
    assert "not judged" not in committed.run().stdout.str()


def test_renamed_is_judged(committed: Project) -> None:
    """A renamed loop is compared with its old log, which then is judged."""
    (committed.path / "x.ftloop.yaml").rename(committed.path / "y.ftloop.yaml")
    committed.edit("y.ftloop.yaml", "1.0e-3", BETTER)
    committed.run("--ftloop", "-v")
    result = committed.run("--ftloop-replay", "-v")
    assert 0 == result.ret
    assert "not judged" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*y continues x: *"])


# one rule for pytest and ftloop gate


def test_replay_without_a_regression_gate(committed: Project) -> None:
    """A loop that states no regression gate is judged by the default one, as ftloop gate does."""
    committed.write("x.ftloop.yaml", GATED.replace("regression: {}", "eval_loss: '<= 9'"))
    committed.rate(WORSE)
    committed.run("--ftloop")
    result = committed.run("--ftloop-replay", "-v")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["x.ftloop.yaml::regression FAILED*", "regression: regressed *"])


def test_no_second_gate(committed: Project) -> None:
    """One that states a gate keeps to it, also if that is for a tag only."""
    committed.edit("x.ftloop.yaml", "regression: {}", "regression[negation]: {}")
    committed.run("--ftloop-replay", "x.ftloop.yaml").assert_outcomes(passed=1)


@pytest.mark.parametrize("gates", ['{"regression": {}}', '{"eval_loss": "<= 9"}'])
@pytest.mark.parametrize("rate", [WORSE, BETTER])
def test_a_loop_in_python_that_asserts_nothing(gated: Project, gates: str, rate: str) -> None:
    """In a replay the test of a loop that got worse fails, whatever it asserts."""
    (gated.path / "x.ftloop.yaml").unlink()
    gated.write("test_m.py", IN_PYTHON.format(rate="1.0e-3", gates=gates))
    gated.run("--ftloop")
    gated.commit()
    gated.write("test_m.py", IN_PYTHON.format(rate=rate, gates=gates))
    gated.run("--ftloop")
    result = gated.run("--ftloop-replay")
    if rate == BETTER:
        result.assert_outcomes(passed=1)
    else:
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["regression: regressed against HEAD *"])


FIXTURE = """\
import pytest

@pytest.fixture
def best(ftloop):
    return ftloop(
        name="m", train="train.jsonl", eval="eval.jsonl", training={{"learning_rate": {rate}}},
        gates={{"regression": {{}}}}, loop={{"iterations": 1}},
    ).run()

def test_m(best):
    assert best.eval_loss < 9
"""
LENIENT = {
    "in a fixture": FIXTURE,
    "expected to fail": "import pytest\n\n@pytest.mark.xfail\n"
    + IN_PYTHON.replace(".run()", '.run()\n    assert "worse" == "fine"'),
    "skips itself": "import pytest\n\n" + IN_PYTHON + "    pytest.skip('slow')\n",
}


@pytest.mark.parametrize("how", LENIENT)
def test_a_loop_in_python_whose_test_is_lenient(gated: Project, how: str) -> None:
    """In a replay a loop that got worse fails wherever it ran, whatever becomes of its test."""
    (gated.path / "x.ftloop.yaml").unlink()
    gates = '{"regression": {}}'
    gated.write("test_m.py", LENIENT[how].format(rate="1.0e-3", gates=gates))
    gated.run("--ftloop")
    gated.commit()
    assert pytest.ExitCode.OK == gated.run("--ftloop-replay").ret
    gated.write("test_m.py", LENIENT[how].format(rate=WORSE, gates=gates))
    gated.run("--ftloop")
    result = gated.run("--ftloop-replay")
    assert pytest.ExitCode.TESTS_FAILED == result.ret
    result.stdout.fnmatch_lines(["regression: regressed against HEAD *"])


@pytest.mark.parametrize("how", ["deleted", "skipped"])
def test_a_loop_in_python_that_does_not_run(gated: Project, how: str) -> None:
    """Its log at the base is missed, whether the test is gone or skipped."""
    (gated.path / "x.ftloop.yaml").unlink()
    text = IN_PYTHON.format(rate="1.0e-3", gates="{}")
    gated.write("test_m.py", text)
    gated.write("test_a.py", "def test_a():\n    pass\n")
    gated.run("--ftloop")
    gated.commit()
    if how == "deleted":
        (gated.path / "test_m.py").unlink()
    else:
        gated.write("test_m.py", f"import pytest\n\n\n@pytest.mark.skip\n{text}")
    result = gated.run("--ftloop-replay")
    assert pytest.ExitCode.TESTS_FAILED == result.ret
    result.stdout.fnmatch_lines(["m: has a log at HEAD *, and nothing judges it now *"])


# two loops, one log


@pytest.mark.parametrize(
    ("option", "name"), [("--ftloop", "x"), ("--ftloop", "X"), ("--ftloop-replay", "x")]
)
def test_one_log_for_two_loops(gated: Project, option: str, name: str) -> None:
    """Both fail, neither trains, each names the other; on some systems X and x are one folder."""
    gated.write("y.ftloop.yaml", f"name: {name}\n{GATED}")
    result = gated.run(option)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*wanted a log for each loop, found two loops that write *"])
    assert [] == gated.trained()


def test_one_log_for_loops_made_in_python(gated: Project) -> None:
    """A test whose loop has the name of a loop file, or of another test file's, fails."""
    made = IN_PYTHON.format(rate="1.0e-3", gates="{}")
    gated.write("test_a.py", made)
    gated.write("test_b.py", made)
    gated.write("test_x.py", made.replace("test_m", "test_x"))
    result = gated.run("--ftloop")
    result.assert_outcomes(passed=2, failed=2)
    said = "wanted a log for each loop, found two loops that write improvement_log/"
    result.stdout.fnmatch_lines(
        [
            f"test_b.py: {said}m: this one and test_a.py",
            f"test_x.py: {said}x: this one and x.ftloop.yaml",
        ]
    )


def test_a_base_that_is_missing(committed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the base can't be read, nobody knows what should have been judged: that fails."""
    committed.write("pytest.ini", "[pytest]\ntestpaths = checks\n")
    monkeypatch.setenv("GITHUB_BASE_REF", "nowhere")
    result = committed.run("--ftloop-replay")
    assert pytest.ExitCode.TESTS_FAILED == result.ret
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*its target branch 'nowhere' was not fetched*"])
