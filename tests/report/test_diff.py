"""`ftloop diff` answers on one screen: better or worse, where, why, at what price."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.records import Cost, Example, Settings
from pytest_ftloop.core.runs import groups_of, runs_of
from pytest_ftloop.gate.compare import Side, compare
from pytest_ftloop.gate.difference import Difference, difference, setting_changes
from pytest_ftloop.report.as_json.items import diff_item
from pytest_ftloop.report.diff import as_markdown, as_text, to_json
from pytest_ftloop.report.escape import columns_of
from tests.fakes import fake_example, fake_finding, fake_measured, fake_seed_run, fake_table
from tests.report.hostile import FIGURES, NASTY, hostile_results
from tests.report.markdown_rows import rows_of

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.loop.result import LoopResult

TAGS = {"negation": range(0, 40, 2)}
OLD = fake_measured(
    1,
    fake_table([1 + n / 100 for n in range(40)], [0, 1], tags=TAGS),
    findings=[fake_finding("underfit")],
    cost=Cost(10.0, 60, 20_000),
)
NEW = fake_measured(
    2,
    fake_table([1.4 + n / 90 for n in range(40)], range(1, 30), tags=TAGS),
    findings=[fake_finding("overfitting", "warning", message="The eval loss rose again.")],
    cost=Cost(25.0, 120, 40_000, 812.3),
    training={"learning_rate": 1e-3, "seed": 42},
)
EXAMPLES = {
    f"e{n:03d}": Example(f"e{n:03d}", "", {}, prompt=f"Review {n}:\nnot good at all.")
    for n in range(40)
}


def diff_of(new: Iteration = NEW, old: Iteration = OLD) -> Difference:
    seed_runs = [fake_seed_run(old, seed) for seed in range(43, 48)]
    new_side, old_side = (
        Side(iteration, runs_of(iteration, [old, new], seed_runs)) for iteration in (new, old)
    )
    verdict = compare(new_side, old_side, None, groups_of([old, new], seed_runs), Regression())
    return difference(old, new, replace(verdict, against="main (1a2b3c4)"), EXAMPLES)


@pytest.mark.parametrize("width", [60, 100])
def test_one_screen(width: int) -> None:
    """What the change did comes first, then figures, broken and fixed, findings, cost."""
    text = as_text(diff_of(), width)
    lines = text.splitlines()
    assert "sentiment: regressed" == lines[0]
    assert f"  {NEW.name} against {OLD.name} (main (1a2b3c4))" in text
    heads = [line.split(":")[0] for line in lines if line and line[0] != " "]
    assert [
        "sentiment",
        "what this change did, against main (1a2b3c4)",
        "broken",
        "fixed",
        "new findings",
        "findings that are gone",
        "cost",
    ] == heads
    assert "  training.learning_rate 1e-4 -> 1e-3" in lines
    assert "  ... and 26 more: ftloop diff --all" in lines
    assert "  e002 [negation]" in lines
    assert all(columns_of(line) <= width for line in lines)
    assert len(lines) < 75


def test_before_and_now_of_an_example() -> None:
    """Prompt, what is expected, what was said and what is said now."""
    lines = as_text(diff_of()).splitlines()
    start = lines.index("  e002 [negation]")
    assert [
        '    prompt    "Review 2:\\nnot good at all."',
        '    expected  "yes"',
        '    before    "yes"',
        '    now       "no"',
    ] == lines[start + 1 : start + 5]


def test_all_of_them() -> None:
    """With --all every example, and no word of more."""
    lines = as_text(diff_of(), most=None).splitlines()
    assert 28 + 1 == sum(line.startswith("    now ") for line in lines)
    assert not any("more" in line for line in lines)
    assert 28 + 1 == sum(
        row[0].startswith("e0") for row in rows_of(as_markdown(diff_of(), most=None))
    )


def test_price() -> None:
    """Time, steps and tokens beside what they were; memory where there is a device."""
    cost = "25.0 s (before 10.0 s), 120 steps (60), 40000 tokens (20000), 812 MiB (0)"
    assert f"cost: {cost}" == as_text(diff_of()).splitlines()[-1]
    assert f"Cost: {cost}" == as_markdown(diff_of()).splitlines()[-1]


def test_nothing_changed() -> None:
    """The same settings say so, and no part is empty."""
    same = fake_measured(1, OLD.examples, findings=OLD.findings)
    text = as_text(diff_of(same))
    assert "unchanged, against main (1a2b3c4): settings, data, model and scoring" in text
    assert "broken" not in text
    assert "findings" not in text
    assert "\n\n\n" not in text


def test_settings_that_differ() -> None:
    """Stated settings, scoring, model and data by their content; where a file lies is no change."""
    new = replace(
        OLD,
        settings=Settings({"r": 16, "lora_alpha": 16}, {"learning_rate": 1e-4, "seed": 42}),
        model="gpt2",
        scoring={"scorer": "contains"},
        data={
            "train": {"source": "elsewhere.jsonl", "rows": 400, "sha256": "a" * 16},
            "eval": {"rows": 41, "sha256": "c" * 16},
        },
    )
    assert ["lora.r", "data.eval", "model", "scoring.scorer"] == [
        change.name for change in setting_changes(OLD, new)
    ]
    assert () == setting_changes(OLD, replace(OLD, number=7))
    gone = replace(OLD, settings=Settings({}, OLD.settings.training))
    (change,) = [c for c in setting_changes(OLD, gone) if c.name == "lora.r"]
    assert (8, None) == (change.before, change.after)
    assert "  lora.r 8 -> not set" in as_text(diff_of(gone))


def test_flips_of_examples_that_are_gone() -> None:
    """An id that one side lacks, after the eval set changed, is passed over."""
    new = fake_measured(2, NEW.examples[5:])
    verdict = replace(diff_of().verdict, broken=("e001", "e007"))
    found = difference(OLD, new, verdict, {})
    assert ["e007"] == [flip.id for flip in found.broken]
    assert found.broken[0].prompt is None
    assert "prompt" not in as_text(found)


# Markdown


def test_markdown_for_a_pull_request() -> None:
    """A heading, three tables, the broken and fixed examples folded away."""
    text = as_markdown(diff_of())
    assert text.startswith("### sentiment: regressed\n")
    rows = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    assert 4 == sum(token.type == "table_open" for token in rows)
    said = 'broken: 28 of 38 examples that passed now fail; all of them answer "no"'
    assert f"\n{said}\n\n<details>" in text
    assert "- p: chance of so large a change where nothing changed.\n" in text
    assert ["!", "pass_rate", "95.0%", "27.5%", "-67.5 points"] in [
        row[:5] for row in rows_of(text)
    ]
    assert ["training.learning_rate", "1e-4", "1e-3"] in rows_of(text)


def test_backslash_is_doubled_once() -> None:
    """A setting with a backslash reads as in the terminal."""
    new = replace(NEW, settings=Settings({"r": 8}, {"learning_rate": "a\\b"}))
    assert "a\\\\b" in as_text(diff_of(new))
    assert "a&#92;&#92;b" in [row[-1] for row in rows_of(as_markdown(diff_of(new)))]


ACTIVE = (
    "<img src=x onerror=alert(1)> [a](http://x.y) `code` **b** @team #12 GH-1 |x|\n# head "
    "https://x.y www.x.y </details> ![i](j) \x1b[31m \u202e ~~s~~ $m$ :tada:"
)


def hostile_diff(text: str) -> Difference:
    """A difference whose every text is this."""
    rows = [
        [
            fake_example(
                f"{text}{n}", n != flipped, tags=(text,), expected=text, output=f"{text} {flipped}"
            )
            for n in range(3)
        ]
        for flipped in (0, 1)
    ]
    old, new = (
        fake_measured(
            number,
            rows[number - 1],
            loop=text,
            id=text,
            model=f"{text} {number}",
            scoring={text: number},
            lora={text: f"{text} {number}"},
            findings=[
                replace(fake_finding(f"{text} {number}"), message=text, severity=text)  # type: ignore[arg-type]
            ],
            cost=Cost(1.0, text, text),  # type: ignore[arg-type]
            data={text: {"rows": text, "sha256": f"{number}"}},
        )
        for number in (1, 2)
    )
    sides = [Side(it, (it,)) for it in (new, old)]
    verdict = compare(*sides, None, (), Regression())
    ids = tuple(row.id for row in new.examples)
    verdict = replace(
        verdict, because=text, against=text, notes=(text,), broken=ids[:2], fixed=ids[2:]
    )
    return difference(old, new, verdict, dict.fromkeys(ids, Example("", "", {}, prompt=text)))


@pytest.mark.parametrize("text", [ACTIVE, *ACTIVE.split(" ")], ids=ascii)
def test_hostile_text_is_inert_in_markdown(text: str) -> None:
    """No HTML, link, image, code, emphasis or heading but ours, and nobody is mentioned."""
    markdown = as_markdown(hostile_diff(text))
    assert_inert(markdown)


MARKS = ("+", "!", "?")
"""The legend's own code."""


WORDS = re.compile(r"(@|#|GH|:|www)+", re.IGNORECASE)
"""What a code host would read in a text, put into code."""


def assert_inert(markdown: str) -> None:
    allowed = {"<details>", "<summary>", "</summary>", "</details>"}
    seen = []
    for token in MarkdownIt("gfm-like", {"linkify": False}).parse(markdown):
        for part in (token, *(token.children or ())):
            if part.type in {"html_block", "html_inline"}:
                seen += [f"<{tag.partition('>')[0]}>" for tag in part.content.split("<")[1:]]
            assert part.type not in {
                "link_open",
                "image",
                "code_block",
                "fence",
                "em_open",
                "strong_open",
                "s_open",
                "blockquote_open",
                "hr",
            }, part
            if part.type == "code_inline":
                assert part.content in MARKS or WORDS.fullmatch(part.content)
            if part.type == "heading_open":
                assert part.map == [0, 1]
            if part.type == "text":
                assert "@t" not in part.content
    assert set(seen) <= allowed
    assert markdown.replace("\n", "").isprintable()


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=50)
@given(NASTY, FIGURES, st.sampled_from([60, 100]))
def test_any_text(text: str, figure: float, width: int) -> None:
    """Whatever the texts and figures are: lines that fit, inert Markdown, JSON that is JSON."""
    diff = hostile_diff(text)
    changes = tuple(
        replace(change, baseline=figure, candidate=-figure) for change in diff.verdict.changes
    )
    diff = replace(diff, verdict=replace(diff.verdict, changes=changes))
    for line in as_text(diff, width).split("\n"):
        assert line.isprintable()
        assert columns_of(line) <= width
    assert_inert(as_markdown(diff))
    json.loads(to_json(diff_item(diff, "x", 0)), parse_constant=refuse)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=30)
@given(hostile_results())
def test_hostile_records(result: LoopResult) -> None:
    """Two iterations of a log that somebody else wrote."""
    old, new = result.chain[0], result.chain[-1]
    verdict = compare(Side(new, (new,)), Side(old, (old,)), None, (), Regression())
    ids = tuple(row.id for row in new.examples)
    diff = difference(old, new, replace(verdict, broken=ids), {})
    for line in as_text(diff, 60).split("\n"):
        assert line.isprintable()
        assert columns_of(line) <= 60
    assert_inert(as_markdown(diff))
    json.loads(to_json(diff_item(diff, "x", 0)), parse_constant=refuse)


# JSON


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not in JSON")


def test_json_has_everything() -> None:
    """Nothing is cut, and every part is there."""
    record = json.loads(to_json(diff_item(diff_of(), "x", 0)), parse_constant=refuse)
    assert [
        "command",
        "schema",
        "loop",
        "source",
        "exit_code",
        "error",
        "before",
        "after",
        "against",
        "verdict",
        "gate_changes",
        "not_tested",
        "settings",
        "data",
        "fixed",
        "broken",
        "came",
        "went",
        "cost",
    ] == list(record)
    assert (28, ["overfitting"], ["underfit"]) == (
        len(record["broken"]),
        record["came"],
        record["went"],
    )
    assert {"name": "training.learning_rate", "before": 1e-4, "after": 1e-3} in record["settings"]
    assert "yes" == record["broken"][0]["before"]


def test_json_without_nan() -> None:
    """What is not finite is null, at any depth; the rest stays as it is."""
    record = {"a": math.nan, "b": [math.inf, {"c": (-math.inf, 1.5, "NaN", None, True)}]}
    assert {"a": None, "b": [None, {"c": [None, 1.5, "NaN", None, True]}]} == json.loads(
        to_json(record), parse_constant=refuse
    )
