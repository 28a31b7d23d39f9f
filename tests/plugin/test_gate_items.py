"""A loop file under --ftloop: its gates are test items, and every option does what it says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

CHAIN = ["x 0.0002", "x 0.001", "x 0.005"]
"""What the fake runner trains for `x.ftloop.yaml`: loop and learning rate."""

NODES = ["x.ftloop.yaml::eval_loss", "x.ftloop.yaml::pass_rate[negation]"]
PATTERNS = [node.replace("[", "[[]") for node in NODES]


def failing(project: Project) -> None:
    """Make the second gate fail."""
    project.edit("x.ftloop.yaml", "iterations: 3", "iterations: 2")


# items


def test_one_item_a_gate(project: Project) -> None:
    """Each gate is an item named after it; the loop is trained once for all of them."""
    result = project.run("--ftloop", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"{pattern} PASSED*" for pattern in PATTERNS])
    assert CHAIN == project.trained()
    assert 6 == len(project.log())


def test_one_gate_by_its_node_id(project: Project) -> None:
    """A node id selects one gate, brackets and all."""
    project.run("--ftloop", NODES[1]).assert_outcomes(passed=1)
    project.run("--ftloop", "x.ftloop.yaml").assert_outcomes(passed=2)
    assert CHAIN == project.trained()


def test_yml_and_names_with_dots(project: Project) -> None:
    """Both suffixes are collected; the log's folder has the loop's name."""
    project.write("a.b.ftloop.yml", (project.path / "x.ftloop.yaml").read_bytes())
    project.run("--ftloop", "a.b.ftloop.yml").assert_outcomes(passed=2)
    assert {"a.b"} == {name.partition("/")[0] for name in project.log()}


def test_loop_without_gates(project: Project) -> None:
    """A loop without gates has one item that says that it completes."""
    project.edit(
        "x.ftloop.yaml", 'gates:\n  eval_loss: "<= 1.9"\n  pass_rate[negation]: ">= 0.8"\n', ""
    )
    result = project.run("--ftloop", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["x.ftloop.yaml::completes PASSED*"])
    assert CHAIN == project.trained()


def test_collect_only(project: Project) -> None:
    """--collect-only lists the gates; nothing is trained or written, and no data is read."""
    (project.path / "train.jsonl").unlink()
    before = project.files()
    result = project.run("--ftloop", "--collect-only", "-q")
    result.stdout.fnmatch_lines(PATTERNS)
    assert (0, [], before) == (result.ret, project.trained(), project.files())


@pytest.mark.parametrize(("word", "count"), [("eval_loss", 1), ("negation", 1), ("x", 2)])
def test_select_by_keyword(project: Project, word: str, count: int) -> None:
    """-k selects gates by their names and by the loop's."""
    project.run("--ftloop", "-k", word).assert_outcomes(passed=count, deselected=2 - count)


def test_deselected_gates_train_nothing(project: Project) -> None:
    """A loop all of whose gates are deselected is not trained."""
    before = project.files()
    result = project.run("--ftloop", "-k", "nothing")
    assert (pytest.ExitCode.NO_TESTS_COLLECTED, []) == (result.ret, project.trained())
    assert before == project.files()


def test_first_failure_ends_the_run(project: Project) -> None:
    """-x stops after the first failed gate, and the summary is still printed."""
    failing(project)
    project.edit("x.ftloop.yaml", "<= 1.9", "<= 1.0")
    result = project.run("--ftloop", "-x")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["-*- ftloop x -*-", "x: 2 iterations (2 trained*"])


def test_last_failed(project: Project) -> None:
    """--lf runs the gates that failed, and no other."""
    failing(project)
    project.run("--ftloop").assert_outcomes(passed=1, failed=1)
    result = project.run("--ftloop", "--lf", "-v")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*rerun previous 1 failure", f"{PATTERNS[1]} FAILED*"])


def test_quiet_and_verbose(project: Project) -> None:
    """-q prints a line per gate; -v lists all failing examples."""
    failing(project)
    rows = [
        {"id": f"n{n}", "prompt": f"q{n}", "completion": "c", "tags": "negation"} for n in "abcd"
    ]
    project.write_rows("eval.jsonl", rows)
    project.edit("x.ftloop.yaml", "<= 1.9", "<= 1.7")

    def summary(*args: str) -> list[str]:
        text = project.run("--ftloop", *args).stdout.str().partition(" ftloop x ")[2]
        return text.partition("short test summary info")[0].splitlines()[1:-1]

    quiet = project.run("--ftloop", "-q").stdout.str().splitlines()
    assert "FAILED x: eval_loss 1.8000, wanted <= 1.7" in quiet
    assert "FAILED x: pass_rate[negation] 0.0%, wanted >= 80%" in quiet
    assert "2 of 4 failing examples:" in summary()
    for id_ in ("na", "nb", "nc", "nd"):
        assert any(line.startswith(f"  {id_} [negation]") for line in summary("-v"))


def test_junit_xml(project: Project) -> None:
    """JUnit counts a failed gate as a failure, with its message, figure and iteration."""
    failing(project)
    project.run("--ftloop", "--junitxml", "../junit.xml")
    suite = ElementTree.parse(project.path.parent / "junit.xml").getroot()[0]
    assert ("2", "1", "0") == tuple(suite.attrib[key] for key in ("tests", "failures", "errors"))
    good, bad = suite.findall("testcase")
    assert ("x.ftloop.yaml", "pass_rate[negation]") == (bad.attrib["classname"], bad.attrib["name"])
    failure = bad.find("failure")
    assert failure is not None
    assert failure.attrib["message"].startswith("pass_rate[negation] 0.0%, wanted >= 80%")
    assert "what is 0?" in str(failure.text)
    for case, name, figure in ((good, "eval_loss", "1.68"), (bad, "pass_rate[negation]", "0.0")):
        properties = {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
        assert figure == properties[name]
        assert re.fullmatch(r"002-[0-9a-f]{8}", properties["ftloop_iteration"])


def test_two_loops_are_two_summaries(project: Project) -> None:
    """Loops of several files are trained and summed up each for itself."""
    project.write("y.ftloop.yaml", (project.path / "x.ftloop.yaml").read_bytes())
    result = project.run("--ftloop")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["-*- ftloop x -*-", "x: 3 *", "-*- ftloop y -*-", "y: 3 *"])
    assert [*CHAIN, *(line.replace("x", "y") for line in CHAIN)] == project.trained()


def test_started_from_elsewhere(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever pytest is started, the log lies beside the loop file and the commands find it."""
    (project.path / "deep").mkdir()
    monkeypatch.chdir(project.path / "deep")
    result = project.run("--ftloop", "../x.ftloop.yaml", "--rootdir=..")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["  git add ../improvement_log/x"])
    assert 6 == len(project.log())


@pytest.mark.parametrize("args", [("-p", "no:terminal"), ("-p", "no:capture"), ("-W", "error")])
def test_other_ways_to_run(project: Project, args: tuple[str, ...]) -> None:
    """Loops run without a reporter, without capturing, and where each warning is an error."""
    done = project.run_alone("--ftloop", *args)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert 6 == len(project.log())


def test_bug_is_not_trained_again(project: Project) -> None:
    """What breaks a loop breaks each of its gates, with a traceback, and is tried once."""
    project.write(
        "conftest.py",
        (project.path / "conftest.py").read_text()
        + "import tests.plugin.fake_runner as fake\n"
        + "note = fake.note_training\n"
        + "def bug(*args):\n    note(*args)\n    raise RuntimeError('boom')\n"
        + "fake.note_training = bug\n",
    )
    result = project.run("--ftloop")
    result.assert_outcomes(failed=2)
    assert ["x 0.0002"] == project.trained()
    assert 2 == len(re.findall(r"^E +RuntimeError: boom", result.stdout.str(), re.MULTILINE))
    assert "was interrupted" not in result.stdout.str()


# up to date


def test_second_run_is_up_to_date(project: Project) -> None:
    """A second run trains nothing, changes no file, and says that it is up to date."""
    project.run("--ftloop")
    before = project.files()
    result = project.run("--ftloop")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["x: 3 iterations (up to date), best 003-*"])
    result.stdout.no_fnmatch_line("to commit*")
    assert (CHAIN, before) == (project.trained(), project.files())


@pytest.mark.parametrize("option", ["--ftloop", "--ftloop-replay"])
def test_up_to_date_run_imports_no_torch(project: Project, option: str) -> None:
    """Without the fake runner a run of what is logged needs no torch, to its very end."""
    project.run("--ftloop")
    project.write(
        "conftest.py",
        "import sys\n\ndef pytest_unconfigure():\n"
        "    heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets', 'numpy'}\n"
        "    print('imported:', *heavy & set(sys.modules))\n",
    )
    done = project.run_alone(option)
    assert 0 == done.returncode, done.stdout
    assert "imported:" == done.stdout.splitlines()[-1].strip()


# options


@pytest.mark.parametrize(("number", "expected"), [("1", 1), ("2", 2), ("5", 5)])
def test_iterations_option(project: Project, number: str, expected: int) -> None:
    """--ftloop-iterations overrides the file's number, up and down."""
    project.edit("x.ftloop.yaml", "<= 1.9", "<= 0.1")
    project.run("--ftloop", "--ftloop-iterations", number)
    assert expected == len(project.trained())


@pytest.mark.parametrize("number", ["0", "-1", "2.5", "many"])
def test_iterations_option_refuses(project: Project, number: str) -> None:
    """A number of iterations that can't be meant is a usage error that says what is wanted."""
    result = project.run("--ftloop", f"--ftloop-iterations={number}")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    assert (
        "argument --ftloop-iterations: wanted a whole number, 1 or more, "
        f"found '{number}'" in result.stderr.str()
    )


def test_log_option(project: Project) -> None:
    """--ftloop-log DIR holds the log, relative to where pytest was started, and is taken up."""
    result = project.run("--ftloop", "--ftloop-log", "logs/here")
    result.stdout.fnmatch_lines(["  git add logs/here/x"])
    assert (6, {}) == (len(project.files("logs/here/x")), project.log())
    project.run("--ftloop", "--ftloop-log", "logs/here").assert_outcomes(passed=2)
    assert CHAIN == project.trained()


def test_retrain_option(project: Project) -> None:
    """--ftloop-retrain implies --ftloop, trains all again and writes the same bytes."""
    project.run("--ftloop")
    before = project.files()
    result = project.run("--ftloop-retrain")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["x: 3 iterations (3 trained, *"])
    assert ([*CHAIN, *CHAIN], before) == (project.trained(), project.files())


def test_replay_option(project: Project) -> None:
    """--ftloop-replay implies --ftloop and judges what is logged, without training."""
    project.run("--ftloop")
    before = project.files()
    project.run("--ftloop-replay").assert_outcomes(passed=3)  # also of a regression gate
    project.edit("x.ftloop.yaml", "<= 1.9", "<= 1.0")
    result = project.run("--ftloop-replay", "--ftloop-iterations", "3")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["  eval_loss *1.4400 *<= 1 *0.4400"])
    assert (CHAIN, before.keys()) == (project.trained(), project.files().keys())


@pytest.mark.parametrize("logged", [True, False], ids=["settings changed", "no log"])
def test_replay_of_a_stale_log(project: Project, logged: bool) -> None:
    """--ftloop-replay of a log that is out of date fails each gate and says what to run."""
    if logged:
        project.run("--ftloop")
        project.edit("x.ftloop.yaml", "r: 8", "r: 4")
    trained, before = project.trained(), project.files()
    result = project.run("--ftloop-replay")
    result.assert_outcomes(failed=3)
    since = "settings changed since iteration 00?-*" if logged else "it is empty*"
    result.stdout.fnmatch_lines(
        [
            f"*the improvement log of x is out of date: {since}",
            "  Run pytest --ftloop and commit improvement_log/.",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert (trained, before) == (project.trained(), project.files())


def test_replay_and_retrain_exclude_each_other(project: Project) -> None:
    """Both options together are a usage error."""
    result = project.run("--ftloop-replay", "--ftloop-retrain")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["*--ftloop-retrain and --ftloop-replay can't be combined*"])


@pytest.mark.parametrize(("value", "expected"), [("true", 1), ("1", 1), ("", 3), ("false", 3)])
def test_nothing_is_explored_in_ci(
    project: Project, monkeypatch: pytest.MonkeyPatch, value: str, expected: int
) -> None:
    """Where the CI variable is set only the loop file's own settings are trained."""
    monkeypatch.setenv("CI", value)
    project.run("--ftloop")
    assert CHAIN[:expected] == project.trained()


def test_iterations_option_in_ci(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """--ftloop-iterations explores also where the CI variable is set."""
    monkeypatch.setenv("CI", "true")
    project.run("--ftloop", "--ftloop-iterations", "2")
    assert CHAIN[:2] == project.trained()
