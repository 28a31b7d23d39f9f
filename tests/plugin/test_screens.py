"""What a run prints of each loop: once, on one screen, with commands that run as printed."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.report.brief import CAUSE_LINES
from tests.plugin.conftest import BETTER, TRAIN, WORSE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Project

FAILED = pytest.ExitCode.TESTS_FAILED

SIX = """\
data: {train: train.jsonl, eval: eval.jsonl}
lora: {r: 8, lora_alpha: 16}
training: {learning_rate: 2.0e-4, num_train_epochs: 2}
gates:
  eval_loss: "<= 0.9"
  overfit_gap: "<= 0.01"
  pass_rate: ">= 0.9"
  pass_rate[negation]: ">= 0.8"
  token_accuracy: ">= 0.99"
  perplexity: "<= 2"
  train_loss: "<= 9"
loop: {iterations: 2, patience: 9}
"""
"""Six of these seven gates fail."""


@pytest.fixture(autouse=True)
def terminal_of_80_columns(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def section(result: pytest.RunResult, name: str = "ftloop x") -> list[str]:
    """The lines under the heading of a loop."""
    _, _, rest = result.stdout.str().partition(f" {name} -")
    lines = rest.partition("\n=")[0].splitlines()[1:]
    return [line for line in lines if line]


def shown(result: pytest.RunResult) -> list[str]:
    """All that pytest printed, but for the lines about plugins and versions."""
    return result.stdout.str().splitlines()


def test_up_to_date_and_all_holds_is_one_line_per_loop(project: Project) -> None:
    """Two loops with nothing to train and nothing failed are two lines under one heading."""
    project.write("y.ftloop.yaml", (project.path / "x.ftloop.yaml").read_bytes())
    project.run("--ftloop")
    result = project.run("--ftloop")
    result.assert_outcomes(passed=4)
    lines = section(result, "ftloop")
    assert 2 == len(lines)
    for name, line in zip("xy", lines, strict=True):
        assert line.startswith(f"{name}: 3 iterations (up to date), best 003-")
        assert ": 2 gates hold, eval_loss 1.4400" in line
        assert len(line) <= 80
    assert 1 == result.stdout.str().count("- ftloop -")


def test_the_only_version_is_one_line(gated: Project) -> None:
    """A regression gate that has no other version to compare with adds no line."""
    result = gated.run("--ftloop")
    result.assert_outcomes(passed=1)
    (line,) = section(result, "ftloop")
    assert re.match(r"x: \d iterations? \(up to date\), best 00\d-.*: 1 gate holds, ", line)


def test_another_version_in_the_log_is_one_line(
    gated: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an up-to-date log was compared with, where nothing states it, is part of the line."""
    gated.rate(BETTER)
    gated.run("--ftloop").assert_outcomes(passed=1)
    gated.commit()
    monkeypatch.setenv("COLUMNS", "120")
    result = gated.run("--ftloop")
    result.assert_outcomes(passed=1)
    (line,) = section(result, "ftloop")
    assert re.search(r"1 gate holds, improved against HEAD\^ \([0-9a-f]{7}\)", line)
    assert "nothing states where this change starts" in gated.run("--ftloop", "-v").stdout.str()


def test_trained_and_all_holds_is_one_screen(project: Project) -> None:
    """Headline, table, at most three findings, the next step: under 25 lines."""
    result = project.run("--ftloop")
    result.assert_outcomes(passed=2)
    lines = section(result)
    assert len(lines) < 25
    assert lines[0].startswith("x: 3 iterations (3 trained, 3.0 s), best 003-")
    assert "loss" in lines[1] + lines[2]
    assert sum(bool(re.match(r"  (info|warning|error) ", line)) for line in lines) <= 3
    assert ["to commit (6 files):", "  git add improvement_log/x"] == lines[-2:]
    assert all(len(line) <= 80 for line in lines if not line.startswith("  "))


def test_six_failing_gates_are_told_once(project: Project) -> None:
    """Gates with distances, two examples, one advice, the rest by commands: under 40 lines."""
    project.write("x.ftloop.yaml", SIX)
    project.run("--ftloop")
    result = project.run("--ftloop")
    assert (6, 1) == (result.parseoutcomes()["failed"], result.parseoutcomes()["passed"])
    assert len(shown(result)) < 40
    lines = section(result)
    assert lines[0].startswith("x: 2 iterations (up to date), best 002-")
    assert lines[0].endswith(": 6 of 7 gates failed")
    assert ["failed", "gate", "found", "wanted", "missed", "by"] == lines[1].split()
    assert ["eval_loss", "1.6800", "<=", "0.9", "0.7800"] == lines[2].split()
    assert ["pass_rate", "60.0%", ">=", "90%", "30.0", "points"] == lines[4].split()
    text = "\n".join(lines)
    assert 1 == text.count("2 of 2 failing examples:")
    assert 2 == text.count('    "what is ')
    assert 1 == text.count("try next: learning_rate 1e-3 -> 5e-3")
    assert "FAILURES" not in result.stdout.str()
    assert 6 == result.stdout.str().count("FAILED x.ftloop.yaml::")


@pytest.mark.parametrize("option", ["-v", "-rA"])
def test_everything_on_request(project: Project, option: str) -> None:
    """-v and -rA show the whole text of each failed gate."""
    project.write("x.ftloop.yaml", SIX)
    text = project.run("--ftloop", option).stdout.str()
    assert "= FAILURES =" in text
    for gate in ("eval_loss", "overfit_gap", "pass_rate", "perplexity"):
        assert f"history of {gate}:" in text


def test_junit_has_the_whole_text(project: Project) -> None:
    """What the terminal leaves out stays in the report of each gate."""
    project.write("x.ftloop.yaml", SIX)
    project.run("--ftloop", "--junitxml", "../junit.xml")
    suite = ElementTree.parse(project.path.parent / "junit.xml").getroot()[0]
    texts = [str(failure.text) for failure in suite.iter("failure")]
    assert 6 == len(texts)
    assert all("history of " in text and "what is 0?" in text for text in texts)


def test_quiet_is_a_line_per_gate(project: Project) -> None:
    """-q: each gate with its figure, and nothing else of the loop."""
    project.write("x.ftloop.yaml", SIX)
    project.run("--ftloop")
    lines = shown(project.run("--ftloop", "-q"))
    told = [line for line in lines if re.match(r"(ok    |FAILED) x: ", line)]
    assert 7 == len(told)
    assert "FAILED x: eval_loss 1.6800, wanted <= 0.9" == told[0]
    assert told[-1].startswith("ok     x: train_loss ")
    assert not any("ftloop x" in line for line in lines)


def test_an_error_of_all_gates_is_told_once(project: Project) -> None:
    """A log that is out of date fails each gate, and is explained once."""
    result = project.run("--ftloop-replay")
    assert FAILED == result.ret
    assert 1 == result.stdout.str().count("the improvement log of x is out of date: it is empty\n")


@pytest.mark.parametrize("verbosity", ["", "-v", "-rA"])
def test_a_mistake_found_at_run_time_is_told_by_one_gate(project: Project, verbosity: str) -> None:
    """The other gates fail too and name the one that tells it: on screen, and in JUnit."""
    project.write("x.ftloop.yaml", SIX)
    project.write("eval.jsonl", '{"id": "e1", "messages": "x"}\n')
    result = project.run("--ftloop", "--junitxml=out.xml", *filter(None, [verbosity]))
    result.assert_outcomes(failed=7)
    mistake = "wanted a list of messages in messages, found str"
    failures = result.stdout.str().partition("= FAILURES =")[2].partition("short test summary")[0]
    assert 1 == failures.count(mistake)
    assert (6 if verbosity else 0) == failures.count("not judged: x has an error, see eval_loss")
    told = [
        element.text or ""
        for element in ElementTree.parse(project.path / "out.xml").iter("failure")
    ]
    assert [1, 0, 0, 0, 0, 0, 0] == [text.count(mistake) for text in told]
    assert 6 == sum("see eval_loss" in text for text in told)


def relabel(project: Project) -> None:
    """Put another answer into one of the train rows."""
    rows = [{**row, "completion": " other"} if row["id"] == "t1" else row for row in TRAIN]
    project.write_rows("train.jsonl", rows)


def test_regression_begins_with_what_changed(gated: Project) -> None:
    """Settings, then data with the row before and after, then the figures, then what broke."""
    gated.rate(WORSE)
    relabel(gated)
    result = gated.run("--ftloop")
    result.assert_outcomes(failed=1)
    lines = section(result)
    text = "\n".join(lines)
    in_order = [
        ": its gate failed",
        "what this change did, against HEAD (",
        "  training.learning_rate 1e-3 -> 2e-4",
        "  data.train 6 rows: 1 relabelled",
        '    t1 relabelled "c1" -> "other", "p1"',
        "regression: regressed against HEAD (",
        '3 of 3 examples that passed now fail; all of them answer "wrong"; 2 of them:',
        "what to do: restore data.train, set training.learning_rate back to 1e-3:\n  git checkout ",
        "only if eval_loss 2.0000 in place of 1.6800 is intended, accept it and commit:",
        "for the rest, run again with -v, or:",
    ]
    assert 1 == text.count("  ftloop diff x.ftloop.yaml")
    places = [text.find(part) for part in in_order]
    assert -1 not in places, text
    assert sorted(places) == places
    assert len(lines) < 25


def commands(result: pytest.RunResult) -> list[list[str]]:
    """The ftloop commands that were printed, each on a line of its own."""
    lines = dict.fromkeys(result.stdout.str().splitlines())
    return [shlex.split(line)[1:] for line in lines if line.startswith("  ftloop ")]


@pytest.mark.parametrize("count", [1, 2])
def test_printed_commands_run(gated: Project, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Each command runs as printed, beside one loop or several."""
    if count == 2:
        gated.write("sub/y.ftloop.yaml", (gated.path / "x.ftloop.yaml").read_bytes())
        for name in ("train.jsonl", "eval.jsonl"):
            gated.write(f"sub/{name}", (gated.path / name).read_bytes())
        gated.run("--ftloop", "sub")
        gated.commit()
    gated.rate(WORSE)
    printed = commands(gated.run("--ftloop"))
    assert {"show", "diff", "accept"} <= {command[0] for command in printed}
    monkeypatch.chdir(gated.path)
    for command in printed:
        assert 0 == main(command), command


@pytest.mark.slow
def test_workers_tell_a_loop_once(project: Project) -> None:
    """With xdist the gates of a loop may be judged by several workers: it is told once."""
    project.write("x.ftloop.yaml", SIX)
    project.run("--ftloop")
    text = project.run_alone("--ftloop", "-n", "2").stdout
    assert 1 == text.count(": 6 of 7 gates failed")
    assert 1 == text.count("try next: ")
    assert "FAILURES" not in text


def test_without_a_terminal_each_iteration_has_two_lines(project: Project) -> None:
    """Into a file an iteration is told when it begins and when it ends, with its figures."""
    text = project.run_alone("--ftloop").stdout
    for number, figures in ((1, "eval_loss 2.0000"), (2, "eval_loss 1.6800")):
        assert f"ftloop x: iteration {number}/3 begins\n" in text
        assert re.search(rf"ftloop x: iteration {number}/3 done in [\d.]+ s, {figures}, pass", text)


def test_log_folder_elsewhere(project: Project, tmp_path: Path) -> None:
    """With --ftloop-log the commands name that folder."""
    project.edit("x.ftloop.yaml", "<= 1.9", "<= 0.1")
    printed = commands(project.run("--ftloop", "--ftloop-log", str(tmp_path / "logs")))
    assert printed
    assert all(str(command[-1]).endswith("logs/x") for command in printed if command[0] == "show")


def test_what_a_screen_leaves_out_is_counted(gated: Project) -> None:
    """Of a long list of changes the loosened gates stay, and a line says how much there is more."""
    loop_file = gated.path / "x.ftloop.yaml"
    text = loop_file.read_text()
    more = "".join(f"  {name}: '<= 9'\n" for name in ("train_loss", "perplexity", "overfit_gap"))
    gates = "gates:\n  eval_loss: '<= 1.9'\n  regression: {}\n"
    gated.write("x.ftloop.yaml", edited(text, gates))
    gated.run("--ftloop")
    gated.commit()
    gates = f"gates:\n  eval_loss: '<= 1.95'\n{more}  regression: {{}}\n"
    gated.write("x.ftloop.yaml", edited(text, gates))
    gated.rate(WORSE)
    for name in ("train.jsonl", "eval.jsonl"):
        rows = (gated.path / name).read_text().splitlines()
        gated.write(name, "".join(f"{row}\n" for row in rows[1:]))
    lines = section(gated.run("--ftloop"))
    first = lines.index(next(line for line in lines if line.startswith("what this change did")))
    cause = lines[first : first + CAUSE_LINES]
    assert any(line.startswith("    loosened eval_loss: <= 1.9 -> <= 1.95") for line in cause)
    assert re.fullmatch(r"  \.\.\. and \d+ more lines: ftloop diff x\.ftloop\.yaml", cause[-1])


def test_what_is_said_of_several_verdicts_is_said_once(gated: Project) -> None:
    """Two gates compare the same version on the same examples: one note below both."""
    text = (gated.path / "x.ftloop.yaml").read_text()
    gated.write(
        "x.ftloop.yaml", edited(text, "gates:\n  regression: {}\n  regression[negation]: {}\n")
    )
    gated.run("--ftloop")
    gated.commit()
    gated.rate(WORSE)
    rows = (gated.path / "eval.jsonl").read_text().splitlines()
    gated.write("eval.jsonl", "".join(f"{row}\n" for row in rows[:-1]))
    lines = section(gated.run("--ftloop"))
    note = (
        f"  note: eval set changed: {len(rows) - 1} of {len(rows) - 1} examples compared (1 gone)"
    )
    assert [note] == [line for line in lines if "eval set changed" in line]


def edited(text: str, gates: str) -> str:
    """A loop file with other gates."""
    return re.sub(r"gates:.*?(?=^\w)", gates, text, flags=re.DOTALL | re.MULTILINE)
