"""The gate `regression` under pytest: what it is compared with, and what becomes of the verdict."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from pytest_ftloop.core import git, git_memory
from tests.gitfakes import GitRepo, isolate
from tests.plugin.conftest import BETTER, GATED, IN_DOUBT, WORSE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Project
from tests.plugin.regression_cases import FAILED, gates, judged, log_of

READS_A_COMMIT = {"ls-tree", "cat-file"}
"""What a comparison asks git, and the hint of what to commit does not."""
ASKS_FOR_VERDICT = """
def test_x(ftloop):
    verdict = ftloop("x.ftloop.yaml").judge()
    assert verdict.ok, verdict
"""
USES_VERDICT = """\
def test_x(ftloop):
    best = ftloop("x.ftloop.yaml").run()
    assert best.verdict.ok, best.verdict
"""


def verdict_files(project: Project) -> list[str]:
    return [name for name in project.log() if "/verdicts/" in name]


@pytest.fixture
def git_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands of git that are run from here on."""
    calls: list[str] = []
    real = git_memory.run_git
    # What an earlier test asked of an equal commit is not known here.
    monkeypatch.setattr(git_memory, "_LASTING", {})
    monkeypatch.setattr(git_memory, "_BLOBS", {})

    def noted(folder: Path, *arguments: str, **options: Any) -> Any:
        calls.append(arguments[0])
        return real(folder, *arguments, **options)

    for module in (git, git_memory):
        monkeypatch.setattr(module, "run_git", noted)
    return calls


# nothing to compare with


@pytest.mark.parametrize(
    ("commits", "said"),
    [
        (None, " is not in a git repository, "),
        (0, "regression: not comparable: the git repository has no commit yet, "),
        (1, "regression: not comparable against HEAD ("),
    ],
    ids=["no repository", "no commit", "no log"],
)
def test_first_version(
    project: Project, monkeypatch: pytest.MonkeyPatch, commits: int | None, said: str
) -> None:
    """Where no version was committed the gate passes and says why, in a strict loop too."""
    isolate(monkeypatch)
    project.write("x.ftloop.yaml", GATED)
    if commits is not None:
        gates(project, "  regression: {fail_on: [not-comparable]}\n")
        GitRepo.init(project.path)
    if commits:
        project.commit()
    result = project.run("--ftloop")
    result.assert_outcomes(passed=1)
    text = " ".join(result.stdout.str().split())
    assert said in text
    assert "so there is nothing to compare with yet" in text
    assert ([] if commits is None else [("first", True)]) == judged(project)


def test_strict_without_a_repository(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that fails on what can't be compared fails outside any repository."""
    isolate(monkeypatch)
    project.write("x.ftloop.yaml", GATED)
    gates(project, "  regression: {fail_on: [not-comparable]}\n")
    result = project.run("--ftloop")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*is not in a git repository*"])


def test_log_that_is_not_committed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a log that is there but in no commit it is said that it is not committed."""
    isolate(monkeypatch)
    project.write("x.ftloop.yaml", GATED)
    GitRepo.init(project.path).commit()
    result = project.run("--ftloop")
    text = " ".join(result.stdout.str().split())
    assert re.search(
        r"no log of x at HEAD \([0-9a-f]{7}\); improvement_log/x is not committed,", text
    )


# the verdicts


def test_unchanged(gated: Project) -> None:
    """The committed version itself is unchanged; nothing is trained or written."""
    before = gated.files()
    result = gated.run("--ftloop", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "-*- ftloop x -*-",
            "regression: unchanged against HEAD (*): it is the version committed at HEAD *",
        ]
    )
    assert ([], before) == (gated.trained(), gated.files())


def test_regressed(gated: Project) -> None:
    """A proven drop fails with its figures, the broken examples, and what to do about it."""
    gated.rate(WORSE)
    result = gated.run("--ftloop", "-v")
    assert FAILED == result.ret
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "regression: regressed against HEAD (*): eval_loss 1.6800 -> 2.0000 (+0.3200, mean *",
            "iteration 002-* against 001-*; gate at x.ftloop.yaml:5",
            "  !  eval_loss *1.6800 *2.0000 *+0.3200 *<.0001 *",
            'broken: 3 of 3 examples that passed now fail; all of them answer "wrong"',
            '    prompt    "what is 2?"',
            '    expected  "answer 2"',
            '    actual    "wrong"',
            "all that changed: ftloop diff x.ftloop.yaml",
            "what to do: set training.learning_rate back to 1e-3.",
            "only if eval_loss 2.0000 in place of 1.6800 is intended, accept it and commit:",
            "  ftloop accept best x.ftloop.yaml --baseline",
            "  git add improvement_log/x",
            "FAILED x.ftloop.yaml::regression - regression: regressed against HEAD (*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert [("first", True), ("regressed", False)] == judged(gated)


def test_regressed_twice(gated: Project) -> None:
    """A candidate that failed fails again, is not trained again, and is judged in one file."""
    gated.rate(WORSE)
    gated.run("--ftloop").assert_outcomes(failed=1)
    trained, before = gated.trained(), gated.files()
    gated.run("--ftloop").assert_outcomes(failed=1)
    assert (trained, before) == (gated.trained(), gated.files())


def test_improved(gated: Project) -> None:
    """A proven gain passes, is said with its figures, and is judged in one file."""
    gated.rate(BETTER)
    for _ in range(2):
        result = gated.run("--ftloop", "-v")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(
            [
                "regression: improved against HEAD (*): eval_loss 1.6800 -> 1.4400 (-0.2400), p *",
                "  +  eval_loss *",
            ]
        )
    assert [("first", True), ("improved", True)] == judged(gated)
    assert ["x 0.0016"] == gated.trained()


def test_next_baseline_is_what_passed(gated: Project) -> None:
    """Once committed, the version that passed is what the next one is compared with."""
    gated.rate(BETTER)
    gated.run("--ftloop")
    gated.commit()
    gated.rate("1.0e-3")
    result = gated.run("--ftloop", "-v")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["iteration 001-* against 002-*; gate at *"])


def test_failed_version_is_no_baseline(gated: Project) -> None:
    """A version that failed stays none to compare with, committed or not."""
    gated.rate(WORSE)
    gated.run("--ftloop")
    gated.commit()
    result = gated.run("--ftloop", "-v")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["iteration 002-* against 001-*; gate at *"])


def test_inconclusive_passes_unless_asked(gated: Project) -> None:
    """What is neither proven nor ruled out passes; with fail_on it fails, and says the cure."""
    gated.rate("9.9e-4")
    result = gated.run("--ftloop", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["regression: inconclusive against HEAD *"])
    gates(gated, "  regression: {fail_on: [inconclusive]}\n")
    result = gated.run("--ftloop", "-v")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["what to do: train more seeds; *", "  ftloop calibrate x.ftloop.yaml"]
    )


def test_gate_of_a_tag(gated: Project) -> None:
    """`regression[tag]` judges the tag's examples, beside the gate of the whole set."""
    gates(gated, "  regression: {}\n  regression[negation]: {metrics: [eval_loss]}\n")
    gated.rate(BETTER)
    result = gated.run("--ftloop", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "regression: improved against HEAD *",
            "regression[[]negation[]]: improved against HEAD *",
            "  +  eval_loss[[]negation[]] *1.8000 *1.5600 *",
        ]
    )
    assert [("first", True), ("improved", True)] == judged(gated)


def test_adjusted_baseline_names_the_cure(gated: Project) -> None:
    """Where the baseline's settings were found by adjusting, the failure tells to accept them."""
    gated.edit("x.ftloop.yaml", "iterations: 1", "iterations: 2")
    gated.rate(WORSE)
    gated.run("--ftloop", "--ftloop-iterations", "2")
    gated.commit()
    gated.edit("x.ftloop.yaml", "iterations: 2", "iterations: 1")
    gated.rate("2.1e-4")
    gated.run("--ftloop").stdout.fnmatch_lines(["*what to do: *"])


def test_junit_xml(gated: Project) -> None:
    """JUnit has the failure's text, and the verdict as a property."""
    gated.rate(WORSE)
    gated.run("--ftloop", "--junitxml", "../junit.xml")
    suite = ElementTree.parse(gated.path.parent / "junit.xml").getroot()[0]
    assert ("1", "1", "0") == tuple(suite.attrib[key] for key in ("tests", "failures", "errors"))
    (case,) = suite.findall("testcase")
    assert ("x.ftloop.yaml", "regression") == (case.attrib["classname"], case.attrib["name"])
    failure = case.find("failure")
    assert failure is not None
    assert failure.attrib["message"].startswith("regression: regressed against HEAD")
    assert "what is 2?" in str(failure.text)
    properties = {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
    assert "regressed" == properties["regression verdict"]
    assert re.fullmatch(r"002-[0-9a-f]{8}", properties["ftloop_iteration"])


def test_from_a_test(gated: Project) -> None:
    """`best.verdict.ok` in a test is judged by the loop's gate; a failing assert explains it."""
    gated.write("test_x.py", USES_VERDICT)
    gated.run("--ftloop", "test_x.py").assert_outcomes(passed=1)
    gated.rate(WORSE)
    result = gated.run("--ftloop", "test_x.py")
    result.assert_outcomes(failed=1)
    said = (
        "regressed: eval_loss 1.6800 -> 2.0000 (+0.3200, mean of 3 seeds against 1 run), p < 0.0001"
    )
    result.stdout.fnmatch_lines(
        [
            f"E * AssertionError: {said}",
            "regression: regressed against HEAD (*",
            'broken: 3 of 3 examples that passed now fail; all of them answer "wrong"',
            f"FAILED test_x.py::test_x - AssertionError: {said[:20]}*",
        ]
    )
    assert [("first", True), ("regressed", False)] == judged(gated)


def test_from_a_test_without_the_gate(gated: Project) -> None:
    """A loop without the gate is judged by its defaults, when `judge()` asks for its verdict."""
    gates(gated, "  eval_loss: '<= 9'\n")
    gated.write("test_x.py", ASKS_FOR_VERDICT)
    gated.rate(WORSE)
    gated.run("--ftloop", "x.ftloop.yaml").assert_outcomes(passed=1)
    assert [("first", True)] == judged(gated)
    result = gated.run("--ftloop", "test_x.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["regression: regressed against HEAD *"])


def test_result_that_was_not_judged(gated: Project) -> None:
    """A result has no verdict where nothing was compared: the error says how to get one."""
    gates(gated, "  eval_loss: '<= 9'\n")
    gated.write("test_x.py", USES_VERDICT)
    result = gated.run("--ftloop", "test_x.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the result of x has no verdict*", "*verdict = loop.judge()*"])


def test_test_that_fails_otherwise(gated: Project) -> None:
    """A gate that fails is explained below any test of its loop that fails, one that holds not."""
    gated.write("test_x.py", "def test_x(ftloop):\n    ftloop('x.ftloop.yaml').run()\n    assert 0")
    gated.run("--ftloop", "test_x.py").stdout.no_fnmatch_line("regression: *")
    gated.rate(WORSE)
    gated.run("--ftloop", "test_x.py").stdout.fnmatch_lines(["regression: regressed *"])


# what did not run is not judged


@pytest.mark.parametrize(
    "args",
    [("-k", "eval_loss"), ("--deselect", "x.ftloop.yaml::regression"), ("--collect-only",)],
    ids=["-k", "--deselect", "--collect-only"],
)
def test_gate_that_does_not_run(
    gated: Project, git_calls: list[str], args: tuple[str, ...]
) -> None:
    """A gate that is deselected is not judged: no verdict is written, no commit is read."""
    gates(gated, "  regression: {}\n  eval_loss: '<= 9'\n")
    gated.rate(WORSE)
    before = verdict_files(gated)
    result = gated.run("--ftloop", *args)
    assert (0, set()) == (result.ret, READS_A_COMMIT & set(git_calls))
    assert before == verdict_files(gated)
    assert ([] if "--collect-only" in args else ["x 0.0002"]) == gated.trained()
    result.stdout.no_fnmatch_line("regression: *against*")


def test_last_failed(gated: Project, git_calls: list[str]) -> None:
    """--lf of another gate does not judge this one."""
    gates(gated, "  regression: {}\n  eval_loss: '<= 0.1'\n")
    gated.run("--ftloop").assert_outcomes(passed=1, failed=1)
    assert set(git_calls) >= READS_A_COMMIT
    git_calls.clear()
    gated.run("--ftloop", "--lf").assert_outcomes(failed=1)
    assert [] == git_calls


def test_loop_without_the_gate(
    project: Project, monkeypatch: pytest.MonkeyPatch, git_calls: list[str]
) -> None:
    """A loop without a regression gate reads no commit; up to date, it asks git nothing."""
    project.run("--ftloop").assert_outcomes(passed=2)
    assert set() == READS_A_COMMIT & set(git_calls)
    git_calls.clear()
    project.run("--ftloop").assert_outcomes(passed=2)
    assert [] == git_calls


# replay


@pytest.mark.parametrize("rate", [WORSE, BETTER])
def test_replay_judges_and_writes_nothing(gated: Project, rate: str) -> None:
    """A replay gives the verdict that was logged, from the log alone, and leaves no file."""
    gated.rate(rate)
    before = gated.run("--ftloop", "-v")
    for path in (gated.path / "improvement_log/x/verdicts").iterdir():
        if "kind: first" not in path.read_text():
            path.unlink()
    trained, files = gated.trained(), gated.files()
    result = gated.run("--ftloop-replay", "-v")
    assert before.ret == result.ret
    assert (trained, files) == (gated.trained(), gated.files())
    lines = [line for line in before.stdout.lines if line.startswith("regression: ")]
    assert lines[:1] == [n for n in result.stdout.lines if n.startswith("regression: ")][:1]


def test_replay_without_the_seeds_that_decide(gated: Project) -> None:
    """A candidate in doubt is incomplete, and fails, where nothing may be trained."""
    gated.rate(IN_DOUBT)
    gated.run("--ftloop", "-k", "nothing")
    gates(gated, "  eval_loss: '<= 9'\n")
    gated.run("--ftloop")
    gated.edit("x.ftloop.yaml", "  eval_loss: '<= 9'\n", "  regression: {}\n")
    result = gated.run("--ftloop-replay", "-v")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["regression: incomplete against HEAD *", "*1 of the 3 seeds*"])
    assert ["x 0.00088"] == gated.trained()


@pytest.mark.parametrize("rate", ["1.0e-3", BETTER])
def test_replay_is_light(gated: Project, rate: str) -> None:
    """A replayed regression gate needs no torch, numpy, pandas or scipy, to its very end."""
    gated.rate(rate)
    gated.run("--ftloop")
    gated.write(
        "conftest.py",
        "import sys\n\ndef pytest_unconfigure():\n"
        "    heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets', 'numpy', 'pandas',"
        " 'scipy'}\n"
        "    print('imported:', *heavy & set(sys.modules))\n",
    )
    done = gated.run_alone("--ftloop-replay", "-v")
    assert 0 == done.returncode, done.stdout
    assert "against HEAD" in done.stdout
    assert "imported:" == done.stdout.splitlines()[-1].strip()


# seeds


def test_candidate_in_doubt_gets_two_seeds(gated: Project) -> None:
    """Where one seed can't tell, two more are trained and logged, once."""
    gated.rate(IN_DOUBT)
    result = gated.run("--ftloop")
    assert ["x 0.00088", "x 0.00088 seed 43", "x 0.00088 seed 44"] == gated.trained()
    assert [43, 44] == [run.seed for run in log_of(gated).seed_runs()]
    assert ["gate"] * 2 == [run.role for run in log_of(gated).seed_runs()]
    before = gated.log()
    again = gated.run("--ftloop")
    assert (3, before) == (len(gated.trained()), gated.log())
    assert result.ret == again.ret


def test_seeds_that_clear_a_candidate(gated: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drop that is the first seed's alone does not fail the gate."""
    monkeypatch.setenv("FAKE_NOISE", "-0.03")
    gates(gated, "  regression: {max_regression: 0.1, metrics: [eval_loss]}\n")
    gated.rate(IN_DOUBT)
    gated.run("--ftloop").assert_outcomes(passed=1)
    assert 3 == len(gated.trained())


def test_seeds_of_the_loop(gated: Project) -> None:
    """loop: {seeds: 3} trains the best iteration three times; the second run finds them all."""
    gated.edit("x.ftloop.yaml", "iterations: 1", "iterations: 1, seeds: 3")
    gated.run("--ftloop").assert_outcomes(passed=1)
    assert ["x 0.001 seed 43", "x 0.001 seed 44"] == gated.trained()
    before = gated.files()
    gated.run("--ftloop").assert_outcomes(passed=1)
    gated.run("--ftloop-replay").assert_outcomes(passed=1)
    assert (2, before) == (len(gated.trained()), gated.files())


def test_replay_with_missing_seeds(gated: Project) -> None:
    """Seeds that the loop asks for and the log lacks are an incomplete log, with the cure."""
    gated.edit("x.ftloop.yaml", "iterations: 1", "iterations: 1, seeds: 3")
    before = gated.files()
    result = gated.run("--ftloop-replay")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "x.ftloop.yaml:6: the improvement log of x is incomplete: iteration 001-* has 1 of 3 "
            "seeds",
            "  Run pytest --ftloop and commit improvement_log/.",
        ]
    )
    assert ([], before) == (gated.trained(), gated.files())


@pytest.mark.slow
def test_one_worker_trains_the_seeds(gated: Project) -> None:
    """Two processes that judge one candidate in doubt train its seeds once."""
    pytest.importorskip("xdist")
    gates(gated, "  regression: {}\n  regression[negation]: {}\n  train_loss: '<= 9'\n")
    gated.rate(IN_DOUBT)
    done = gated.run_alone("-n", "2", "--ftloop", FAKE_STEP_S="0.002")
    assert 0 == done.returncode, done.stdout
    assert ["x 0.00088", "x 0.00088 seed 43", "x 0.00088 seed 44"] == sorted(gated.trained())
    assert 1 == done.stdout.count("- ftloop x -")
    assert 1 == done.stdout.count("\nregression: inconclusive against HEAD (")
    assert [("first", True), ("inconclusive", True)] == judged(gated)
