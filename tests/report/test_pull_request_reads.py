"""A stranger reads only the comment: what changed, what broke, what to do, and what words mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_ftloop.gate.gate_changes import GateChanges
from pytest_ftloop.gate.rule_changes import GateChange
from pytest_ftloop.report.phrases import TERMS
from pytest_ftloop.report.pull_request import LoopOutcome
from tests.fakes import fake_finding
from tests.report.markdown_rows import rows_of
from tests.report.pull_request_cases import TEST, judged, text_of


def with_result(loop: LoopOutcome, **fields: Any) -> LoopOutcome:
    return replace(loop, result=replace(loop.result, **fields))


def answering(output: str, expected: str = "yes", was: str = "yes") -> LoopOutcome:
    """A loop whose examples all broke: each answers the same now."""
    loop = judged()
    assert loop.result is not None
    old, new = (
        tuple(
            replace(row, expected=expected, output=text, passed=passed, content=f"c{row.id}")
            for row in loop.result.best.examples
        )
        for text, passed in ((was, True), (output, False))
    )
    best = replace(loop.result.best, examples=new)
    baseline = replace(loop.result.baseline, examples=old)
    return with_result(loop, best=best, chain=(loop.result.chain[0], best), baseline=baseline)


@pytest.mark.parametrize(
    ("output", "cell"),
    [
        ("wrong", '"wrong"'),
        ("passed", '"passed"'),
        ("", '""'),
        ("  ", '"  "'),
        (" no", '" no"'),
        ("a\nb", '"a&#92;nb"'),
        ('say "no"', '"say "no""'),
    ],
)
def test_texts_are_in_quotes(output: str, cell: str) -> None:
    """An output, expected or prompt can't be read as a word of ours, nor as a missing cell."""
    text = text_of(answering(output, expected=output, was=output))
    (row,) = [row for row in rows_of(text) if row[0] == "word0"][:1]
    assert ["word0", "word", '"word"', cell, cell, cell] == row


def test_what_broke_comes_before_what_to_do_and_is_said_once() -> None:
    """Cause, gates, what broke in one sentence, what to do, figures; the rest is folded."""
    text = text_of(answering("wrong"))
    said = '**3 of 3 examples that passed now fail; all of them answer "wrong"**'
    parts = ("| setting changed", "- \u274c regression", said, "**What to do**", "| metric |")
    places = [text.find(part) for part in parts]
    assert -1 not in places
    assert sorted(places) == places
    assert 1 == text.count(said)
    assert 2 == text[: text.index("<details>")].count('| "wrong" |')


def test_no_text_of_the_sentence_has_any_effect() -> None:
    """The common answer is a text of the model, and inert in the sentence too."""
    text = text_of(answering("<b>@team</b> **x**"))
    assert 'all of them answer "&#60;b>`@`team&#60;/b> &#42;&#42;x&#42;&#42;"**\n' in text


GATE = GateChange("eval_loss", "<= 0.2", "<= 9", loosened=True, held=False, figure="0.7500")
RULE = GateChange("regression.alpha", "0.01", "0.001", loosened=True)
HELD = replace(GATE, held=True)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            (GATE,),
            [
                "- \u26a0\ufe0f eval_loss 0.7500, wanted &#60;= 9; holds at the new bound only, "
                "fails the old &#60;= 0.2",
                "- \u2705 regression: unchanged: word.",
            ],
        ),
        (
            (RULE,),
            [
                "- \u26a0\ufe0f regression: unchanged: word.; loosened in this change: alpha 0.01 "
                "-> 0.001",
                "- \u2705 eval_loss 0.7500, wanted &#60;= 9",
            ],
        ),
        (
            (HELD,),
            [
                "- \u2705 regression: unchanged: word.",
                "- \u2705 eval_loss 0.7500, wanted &#60;= 9",
            ],
        ),
    ],
    ids=["threshold", "rule", "holds by both"],
)
def test_a_loosened_gate_has_no_plain_tick(
    changes: tuple[GateChange, ...], lines: list[str]
) -> None:
    """A tick that the change itself made possible says so; the doubtful ones come first."""
    loop = judged(kind="unchanged")
    gates = tuple(gate for gate in loop.result.gates if gate.gate.name == "eval_loss")
    loop = with_result(loop, gates=gates, gate_changes=GateChanges("main", changes))
    text = text_of(loop)
    marks = ("- \u26a0\ufe0f", "- \u2705")
    assert lines == [line for line in text.splitlines() if line.startswith(marks)]
    assert text.startswith("## \u26a0\ufe0f ftloop: unchanged, gate loosened\n")
    assert "**Gate changed** since main." in text
    assert "- approve only if the loosened gate is intended (" in text


def test_several_are_gates() -> None:
    """The plural is for several."""
    text = text_of(with_result(judged(), gate_changes=GateChanges("main", (GATE, RULE))))
    assert text.startswith("## \u274c ftloop: regressed, gates loosened\n")
    assert "**Gates changed** since main." in text


@pytest.mark.parametrize(
    ("fields", "said", "not_said"),
    [
        ({}, ["- `!` proven worse, `?` inconclusive", "- p: ", "- detectable: ", "- seeds: "], []),
        ({"changes": ()}, [], ["proven worse", "- p: ", "- detectable: ", "- seeds: "]),
        ({"runs": (), "tags": ()}, ["- `!` proven worse"], ["proven better"]),
        (
            {"seeds": 1},
            ["- p: ", "- detectable: "],
            ["- seeds: ", "Now and baseline:", "thresholds are checked on one run"],
        ),
    ],
    ids=["all", "no figures", "marks", "one run"],
)
def test_only_the_words_that_occur_are_explained(
    fields: dict[str, Any], said: list[str], not_said: list[str]
) -> None:
    """Below the first table of figures, a line per word; none about what is not there."""
    loop = judged()
    verdict = replace(loop.result.verdicts[0][1], common=40, total=48)
    if fields.pop("seeds", 0):
        test = replace(TEST, k_baseline=1, k_candidate=1)
        fields["changes"] = tuple(replace(change, test=test) for change in verdict.changes)
    elif fields == {}:
        verdict = replace(verdict, runs=(), tags=())
    if fields.get("changes") == ():
        fields |= {"runs": (), "tags": ()}
    verdict = replace(verdict, **fields)
    text = text_of(with_result(loop, verdicts=((loop.result.verdicts[0][0], verdict),)))
    for part in said:
        assert f"\n{part}" in text
    for part in not_said:
        assert part not in text
    measured = "Both were measured on 40 of 48 eval examples."
    assert (measured in text) is bool(verdict.changes)
    assert text.index(f"gap: {TERMS['gap']}.") > text.index("| # | change |")


def test_unchanged_is_said() -> None:
    """A stranger looks for what changed; where nothing did, the comment says it."""
    loop = judged()
    same = replace(loop.result.baseline, settings=loop.result.best.settings)
    assert "Unchanged: " not in text_of(loop)
    text = text_of(with_result(loop, baseline=same))
    assert "\n\nUnchanged: settings, data, model and scoring.\n\n" in text


def test_faults_are_in_the_open() -> None:
    """What to do first is about an error, which is not folded away."""
    loop = judged()
    fault = fake_finding("leak", "error", message="34 rows leak.", remedy="Remove them.")
    best = replace(loop.result.best, findings=(fault,))
    text = text_of(with_result(loop, best=best, chain=(loop.result.chain[0], best)))
    open_, _, _ = text.partition("<details>")
    assert "**Faults**\n\n- error leak: 34 rows leak.\n" in open_
    assert open_.index("34 rows leak") < open_.index("Remove them.")
