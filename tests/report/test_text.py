"""The terminal text of a loop's result."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_ftloop.core.errors import relative_path
from pytest_ftloop.core.records import Decision, Example
from pytest_ftloop.report.escape import columns_of
from pytest_ftloop.report.progress_text import progress_line
from pytest_ftloop.report.text import (
    example_lines,
    failing_examples,
    failing_lines,
    finding_lines,
    findings_lines,
    found_lines,
    headline,
    iterations_table,
    next_lines,
    summary,
)
from pytest_ftloop.report.to_commit import commit_lines
from tests.fakes import fake_example, fake_finding, fake_iteration, fake_metrics
from tests.report.fakes_report import (
    LOG,
    OVERFITTING,
    fake_chain,
    fake_result,
    fake_rows,
    fake_single,
    nan_result,
)
from tests.report.hostile import NASTY, hostile_results

if TYPE_CHECKING:
    from pytest_ftloop.loop.result import LoopResult

CWD = Path("/repo/log")
SHOW = f"ftloop show 3 {relative_path(fake_result().log_folder)}"
COMMAND = "  git add "


# iterations_table


def test_table_shows_all_columns_where_there_is_room() -> None:
    """One row an iteration: change, figures, differences, decision; best and trained marked."""
    lines = iterations_table(fake_result(), 140).splitlines()
    assert "*+  3  ab12cd33  num_train_epochs 1 -> 3" == lines[4][:40]
    assert "1.1000  1.2900  -0.3100  0.1900  75.0%  +20.0  adjust" == lines[4][-53:]
    assert " +  4  ab12cd34  r 8 -> 16, lora_dropout default -> 0.1" == lines[5][:55]
    assert "0.9000  1.3600  +0.0700  0.4600  70.0%   -5.0  stop: plateau" == lines[5][-60:]
    assert (
        "*  best   +  trained now   +/-  from the row above   gap  eval - train loss" == lines[-1]
    )


def test_table_drops_columns_at_80() -> None:
    """At 80 columns change, losses and pass rate with their differences are left."""
    lines = iterations_table(fake_result(), 80).splitlines()
    assert ["#", "change", "loss", "+/-", "gap", "rate", "+/-"] == lines[1].split()
    assert "*+  3  num_train_epochs 1 -> 3" == lines[4][:30]
    assert all(len(line) <= 80 for line in lines)


def test_table_of_an_up_to_date_loop_says_nothing_of_training() -> None:
    """The legend names only marks that occur."""
    table = iterations_table(fake_result(trained=()))
    assert "*  best   +/-  from the row above   gap  eval - train loss" == table.splitlines()[-1]
    assert "+  3" not in table


def test_table_shows_missing_and_nan_figures() -> None:
    """A figure that was not recorded is a dash, a NaN says so, and differences stay empty."""
    first, second = fake_chain()[:2]
    figures = {"eval_loss": math.nan, "train_loss": 1.0}
    chain = (first, replace(second, metrics=figures))
    row = iterations_table(fake_result(chain), 140).splitlines()[3]
    assert ["1.0000", "nan", "-", "-", "-", "-", "adjust"] == row.split()[-7:]


# findings


def test_found_lines() -> None:
    """Errors and warnings, a paragraph each, with remedies; infos are for later."""
    told = [
        fake_finding("leak", "error", message="In\tboth.", remedy="Take them out."),
        fake_finding("duplicates", "warning", message="Twice.", remedy="Remove them."),
        fake_finding("small-eval-set", "info"),
    ]
    assert [
        r"ftloop topic: error leak: In\tboth. Take",
        "  them out.",
        "ftloop topic: warning duplicates: Twice.",
        "  Remove them.",
    ] == found_lines("topic", told, 42)


def test_finding_lines() -> None:
    """Severity, kind and message; then the evidence and the remedy."""
    assert [
        "  warning overfitting: The eval loss rose from 1.290 (step 66) to 1.360 while the train",
        "    loss went on falling.",
        "    evidence: eval_lowest 1.29, eval_last 1.36, best_step 66",
        "    remedy: Halve the learning rate, or train fewer epochs.",
    ] == finding_lines(OVERFITTING, 88)


def test_finding_that_is_not_tuned_around_says_so() -> None:
    """A data or wiring fault is for the user to mend, perhaps by a setting."""
    finding = fake_finding("no-signal", "error")
    finding = replace(finding, tunable=False)
    assert "    remedy: by hand: Do something." == finding_lines(finding)[-1]


def test_findings_of_best_and_last_are_said_once() -> None:
    """What the last iteration shares with the best is not repeated; the rest is."""
    chain = fake_chain()
    assert "findings of iteration 003-ab12cd33 (best):" == findings_lines(fake_result())[0]
    assert not [line for line in findings_lines(fake_result()) if "(last)" in line]
    other = replace(chain[-1], findings=(OVERFITTING, fake_finding("plateau")))
    lines = findings_lines(fake_result((*chain[:-1], other)))
    assert [
        "findings of iteration 004-ab12cd34 (last):",
        "  info plateau: It is plateau.",
    ] == lines[-3:-1]


def test_findings_of_an_iteration_both_best_and_last() -> None:
    """One heading where best and last are the same; nothing where there are no findings."""
    assert "findings of iteration 001-00000001 (best and last):" == findings_lines(nan_result())[0]
    assert [] == findings_lines(fake_single())


# failing examples


def test_failing_examples() -> None:
    """Count, share and tags; then the worst, with prompt, expected and actual output."""
    assert [
        "failing examples: 5 of 20 (25.0%); negation 3 of 10",
        "  e01 [negation, short]  loss 2.4375 per token",
        r'    prompt    "Review e01:\nnot good at all.\nSentiment:"',
        '    expected  "negative"',
        '    actual    "positive"',
        f"  ... and 4 more: {SHOW}",
    ] == failing_examples(fake_result(), 1).splitlines()


def test_no_failing_examples_is_no_text() -> None:
    """A loop in which everything passes says nothing."""
    result = fake_result(fake_chain(fake_rows(failing=0)))
    assert "" == failing_examples(result, 3)


def test_failing_examples_without_their_file() -> None:
    """The ids in the record are shown where the examples can't be."""
    iteration = fake_iteration(3, failing=("a", "b\x1b", "c"))
    assert [
        r"3 failing examples: a, b\x1b",
        "  ... and 1 more: ftloop show 3 x",
    ] == failing_lines(iteration, (), {}, most=2, where="ftloop show 3 x")


def test_example_without_prompt_or_output() -> None:
    """Where nothing was loaded or generated only the title is shown."""
    row = fake_example(passed=False, expected="", output="")
    assert ["  e1  loss 0.5000 per token"] == example_lines(row)


def test_example_of_the_text_form_shows_its_text() -> None:
    """The `text` form has no prompt: the text itself stands for it."""
    example = Example("e1", "", {"text": "Once upon a time"})
    row = fake_example(passed=False, expected="", output="")
    assert '    prompt    "Once upon a time"' == example_lines(row, example)[1]


def test_example_with_empty_output_and_nan_loss() -> None:
    """An empty output is seen as such; a loss without tokens is not a number."""
    lines = example_lines(fake_example(passed=False, output="", tokens=0))
    assert ["  e1  loss nan per token", '    expected  "yes"', '    actual    ""'] == lines


def test_long_prompt_keeps_its_start_and_its_end() -> None:
    """Prompts often start alike, so the middle is left out."""
    example = Example("e1", "", {}, prompt="Classify. " * 20 + "bad film")
    prompt = example_lines(fake_example(), example, 60)[1]
    assert ("Classify.", 'bad film"', 60) == (prompt[15:24], prompt[-9:], len(prompt))


# summary


def test_summary_in_full() -> None:
    """Headline, failed gates, reason, table, findings, 3 examples, what is next, what to commit."""
    lines = summary(fake_result(), 0, 100, CWD)
    assert [
        "sentiment: 4 iterations (2 trained, 25.0 s), best 003-ab12cd33, "
        "eval_loss 1.2900, pass_rate 75.0%",
        "  FAILED eval_loss 1.2900, wanted <= 1.2",
        "  FAILED pass_rate 75.0%, wanted >= 90%",
        "  FAILED pass_rate[negation] 60.0%, wanted >= 80%",
        "  stop: plateau: The last 2 iterations did not improve eval_loss.",
        "",
    ] == lines[:6]
    assert f"  ... and 2 more: {SHOW}" in lines
    assert [
        "would be tried next if the loop continued:",
        "  learning_rate 1e-3 -> 5e-4: it overfits",
        "",
        "to commit (4 files):",
        "  git add improvement_log/sentiment",
    ] == lines[-5:]


def test_summary_with_verbosity_shows_all_failing_examples() -> None:
    """-v: none is left out."""
    lines = summary(fake_result(), 1, 100, CWD)
    assert ["e01", "e02", "e03", "e04", "e05"] == [
        line.split()[0] for line in lines if "per token" in line
    ]
    assert not [line for line in lines if "ftloop show" in line]


def test_quiet_summary_is_headline_and_failed_gates() -> None:
    """-q: nothing else."""
    assert [
        "sentiment: 4 iterations (2 trained, 25.0 s), best 003-ab12cd33, stop: plateau",
        "  FAILED eval_loss 1.2900, wanted <= 1.2",
        "  FAILED pass_rate 75.0%, wanted >= 90%",
        "  FAILED pass_rate[negation] 60.0%, wanted >= 80%",
    ] == summary(fake_result(), -1, 80)


def test_summary_of_a_loop_up_to_date_whose_gates_hold() -> None:
    """Nothing trained, nothing to commit; held gates take one line."""
    held = tuple(replace(gate, passed=True) for gate in fake_result().gates)
    lines = summary(fake_result(trained=(), gates=held), 0, 100, CWD)
    assert "sentiment: 4 iterations (up to date), best 003-ab12cd33" == lines[0][:55]
    assert "  3 thresholds hold" == lines[1]
    assert not [line for line in lines if "git add" in line]


def test_summary_of_what_was_restored() -> None:
    """It is told apart from what was trained, and is to be committed; notes are never left out."""
    ids = [iteration.id for iteration in fake_chain()]
    result = fake_result(trained=tuple(ids[3:]), restored=tuple(ids[2:3]), notes=("a \x1b[31m",))
    lines = summary(result, 0, 100, CWD)
    assert "sentiment: 4 iterations (1 trained, 12.5 s, 1 restored)" == lines[0][:55]
    assert any(line.startswith("*  best   +  trained now   =  restored, not") for line in lines)
    alone = summary(fake_result(trained=(), restored=tuple(ids[2:])), 0, 100, CWD)
    assert ("sentiment: 4 iterations (2 restored)", "to commit (4 files):") == (
        alone[0][:36],
        alone[-2],
    )
    (note,) = [line for line in summary(result, -1, 100) if "note" in line]
    assert note.startswith("  note: a ")
    assert "\x1b" not in note


def test_headline_leaves_out_what_does_not_fit() -> None:
    """The best iteration is always named."""
    assert "sentiment: 4 iterations (2 trained, 25.0 s), best 003-ab12cd33" == headline(
        fake_result(), 70
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hostile_results(), st.integers(20, 140), st.integers(-1, 1))
def test_summary_survives_hostile_text(result: LoopResult, width: int, verbosity: int) -> None:
    """Every line is printable, ASCII but for users' letters, and within the width."""
    for line in summary(result, verbosity, width, CWD):
        assert line.isprintable()
        assert columns_of(line) <= width or line.startswith(COMMAND) or "ftloop show " in line


def test_summary_is_ascii() -> None:
    """What the tool itself says can be printed anywhere."""
    assert all(line.isascii() for line in summary(fake_result(), 1, 100, CWD))


# next and commit


def test_next_lines_of_a_loop_that_goes_on() -> None:
    """The adjustments with their reasons; nothing where none is proposed."""
    wanted = ["next:", "  learning_rate 2e-4 -> 1e-3: the train loss hardly fell"]
    assert wanted == next_lines(fake_chain()[0])
    assert [] == next_lines(fake_iteration(decision=Decision("stop", "gates", "All hold.")))


def test_what_is_not_expected_to_be_better_is_not_proposed() -> None:
    """A loop whose thresholds hold proposes nothing, though its policy has a next move."""
    decision = replace(fake_chain()[0].decision, action="stop", kind="gates")
    assert fake_chain()[0].decision.next
    assert [] == next_lines(fake_iteration(decision=decision))


def test_commit_lines_name_files_that_fit_on_a_line() -> None:
    """Paths are relative to the current folder, and quoted for the shell."""
    result = fake_result(files=(LOG / "a b.yaml", Path("/repo/x.ftloop.yaml")))
    assert [
        "to commit (2 files):",
        "  git add 'improvement_log/sentiment/a b.yaml' ../x.ftloop.yaml",
    ] == commit_lines(result, 100, CWD)


def test_commit_lines_never_add_more_than_the_log() -> None:
    """A long list is shortened to the log's folder, files outside it are still named."""
    files = (*fake_result().files, Path("/repo/log/sentiment.ftloop.yaml"))
    assert (
        "  git add sentiment.ftloop.yaml improvement_log/sentiment"
        == commit_lines(fake_result(files=files), 100, CWD)[1]
    )


def test_commit_lines_of_files_that_git_ignores() -> None:
    """Where `git add` would refuse files, they are named by kind, with what shows the rules."""
    files = fake_result().files
    records = "  records: a clone has no log, so nothing is compared and all is trained again"
    tables = "  tables of examples: a clone finds the log damaged"
    for ignored, kinds in (
        (files[:1], [records]),
        (files[1:2], [tables]),
        (files, [records, tables]),
    ):
        paths = " ".join(f"improvement_log/sentiment/{file.name}" for file in ignored[:2])
        assert [
            "git ignores files of the log, so that no commit has them:",
            *kinds,
            "mend the rules, which this shows:",
            f"  git check-ignore -v {paths}",
        ] == commit_lines(fake_result(), 100, CWD, ignored)
    assert [] == commit_lines(fake_result(trained=()), 100, CWD, files)


# progress


@pytest.mark.parametrize(
    ("width", "wanted"),
    [
        (80, "sentiment  iteration 2/4  step 31/66 [====>     ] loss 1.234  0:12 left"),
        (70, "sentiment  iteration 2/4  step 31/66  loss 1.234  0:12 left"),
        (50, "iteration 2/4  step 31/66  loss 1.234  0:12 left"),
        (40, "step 31/66  loss 1.234  0:12 left"),
        (10, "step 31/66"),
        (6, "ste..."),
    ],
)
def test_progress_line(width: int, wanted: str) -> None:
    """One line; a narrow one says less."""
    assert wanted == progress_line("sentiment", "iteration 2/4", 31, 66, 1.234, 10.6, width=width)


@pytest.mark.parametrize(
    ("step", "elapsed_s", "wanted"),
    [
        (0, 0.0, "0:00"),
        (66, 75.0, "1:15"),
        (33, 5000.0, "1:23:20 left"),
        (22, 5.0, "0:10 left"),
    ],
)
def test_progress_line_time(step: int, elapsed_s: float, wanted: str) -> None:
    """The time left is estimated once a step is done; at the end the time taken is shown."""
    line = progress_line("sentiment", "iteration 1/1", step, 66, math.nan, elapsed_s)
    assert wanted == line.rpartition("loss nan  ")[2]


@given(NASTY, st.integers(0, 9999), st.integers(0, 9999), st.floats(), st.integers(1, 120))
def test_progress_line_fits(loop: str, step: int, steps: int, loss: float, width: int) -> None:
    """Whatever the loop is called and the loss has become."""
    line = progress_line(loop, "iteration 1/4", step, steps, loss, 1.0, width=width)
    assert line.isprintable()
    assert columns_of(line) <= width


def test_table_of_a_diverged_iteration_stays_readable() -> None:
    """An astronomic loss does not push the other columns out."""
    chain = (fake_iteration(metrics=fake_metrics(1e300)),)
    lines = iterations_table(fake_result(chain), 80).splitlines()
    assert "1e+300" in lines[-2]
    assert all(len(line) <= 80 for line in lines)
