"""The rules over the data: each finds its fault, and healthy data has none."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.gates import Regression, parse_gate
from pytest_ftloop.core.records import Example
from pytest_ftloop.diagnose import diagnose
from pytest_ftloop.diagnose.affixes import (
    edges,
    fixed_prefix,
    fixed_suffix,
    missing_prefix,
    missing_suffix,
)
from pytest_ftloop.diagnose.data import RULES, before_training
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.naming import quoted
from tests.diagnose.fakes_data import EVAL, LABELS, TRAIN, edited, examples, found
from tests.fakes import fake_metrics, fake_training


def test_healthy_data_has_no_finding() -> None:
    """A set of labels, its eval set and the usual gates: nothing to say."""
    gates = (parse_gate("pass_rate", ">= 80%"), parse_gate("eval_loss", "<= 1"), Regression())
    assert {} == found(TRAIN, EVAL, *gates)


def test_no_data_no_finding() -> None:
    """Evidence without examples, as curves of another trainer come, has no finding of data."""
    evidence = Evidence.of(fake_training(), fake_metrics(), fake_metrics(), 5.0)
    assert [] == [rule(evidence) for rule in RULES if rule(evidence)]


def test_known_findings_are_not_looked_for_again() -> None:
    """What was found before training is in the iteration's findings, before those of its curves."""
    leaked = EVAL[:30] + TRAIN[:70]
    known = before_training(examples(TRAIN), examples(leaked))
    training = fake_training(evals=(2.0, 1.0, 1.5, 2.0))
    both = {"train": examples(TRAIN), "eval": examples(leaked)}
    evidence = Evidence.of(training, fake_metrics(), fake_metrics(), 5.0, **both)
    kinds = [finding.kind for finding in diagnose(evidence, known)]
    assert kinds == [finding.kind for finding in diagnose(evidence)]
    assert ["leak", "overfitting"] == kinds[:2]
    assert "leak" not in [finding.kind for finding in diagnose(evidence, ())]


# --- templates -----------------------------------------------------------------------------------


def ended(rows_: list[dict[str, Any]], end: str) -> list[dict[str, Any]]:
    return edited(rows_, len(rows_), prompt=lambda p: p.replace("\nintent:", end))


@pytest.mark.parametrize(
    "end", ["\nlabel:", "", " intent:", "\nintent: ", "\nintent:\n", " ->", "\n\n### Answer:"]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_prompts_that_end_otherwise(end: str, swapped: bool) -> None:
    """Prompts of one set end otherwise than all of the other's: an error, whichever is which."""
    sets = (TRAIN, ended(EVAL, end))
    finding = found(*(sets[::-1] if swapped else sets))["template-mismatch"]
    assert ("error", False) == (finding.severity, finding.tunable)
    assert finding.message.startswith(("The train prompts end with", "The eval prompts end with"))


def test_some_prompts_of_another_template() -> None:
    """Where some eval prompts have the template after all, it is a warning with their share."""
    mixed = ended(EVAL[:60], "\nlabel:") + EVAL[60:]
    finding = found(TRAIN, mixed)["template-mismatch"]
    assert "warning" == finding.severity
    assert (
        finding.message
        == r"The train prompts end with '\nintent:'; only 40% of the eval prompts do."
    )
    assert {} == found(TRAIN, ended(EVAL[:40], "\nlabel:") + EVAL[40:])


def chats(rows_: list[dict[str, Any]], system: str = "") -> list[dict[str, Any]]:
    said = [{"role": "system", "content": system}] if system else []
    return [
        {
            "id": row["id"],
            "messages": [
                *said,
                {"role": "user", "content": row["prompt"].removesuffix("\nintent:")},
                {"role": "assistant", "content": row["completion"].strip()},
            ],
        }
        for row in rows_
    ]


def test_system_message_in_one_set_only() -> None:
    """A system message that the other set lacks, or another one, is another template."""
    system = "You name the intent."
    assert {} == found(chats(TRAIN, system), chats(EVAL, system))
    for other in ("", "You are a helpful assistant."):
        finding = found(chats(TRAIN, system), chats(EVAL, other))["template-mismatch"]
        assert finding.message.startswith("The train prompts begin with 'system: You name the int")
        assert "error" == finding.severity


def test_questions_are_no_template() -> None:
    """That one set's texts are all questions, and not the other's, is no template."""
    asked = [{**row, "prompt": f"{row['prompt'][:-8].rstrip('?!')}?\nintent:"} for row in TRAIN]
    said = [{**row, "prompt": f"{row['prompt'][:-8].rstrip('?!')}.\nintent:"} for row in EVAL]
    assert {} == found(asked, said)
    bare = [[{**r, "prompt": r["prompt"][:-8]} for r in rows_] for rows_ in (asked, said)]
    assert {} == found(*bare)


@pytest.mark.parametrize(
    ("completion", "words"),
    [
        (
            lambda c: c.strip(),
            "The train completions begin with ' '; none of the eval completions do.",
        ),
        (lambda c: f"{c}.", "The train completions end without marks or spaces"),
        (lambda c: f'{{"intent": "{c.strip()}"}}', "The train completions begin with ' '"),
    ],
)
def test_completions_of_another_form(completion: Any, words: str) -> None:
    """Marks and spaces around the completions that differ between the sets are a warning."""
    finding = found(TRAIN, edited(EVAL, 100, completion=completion))["template-mismatch"]
    assert "warning" == finding.severity
    assert finding.message.startswith(words)


def test_few_rows_tell_no_template() -> None:
    """Under 10 examples a common end may be chance."""
    assert {} == found(TRAIN, ended(EVAL[:9], "\nlabel:"))
    assert ["template-mismatch"] == list(found(TRAIN, ended(EVAL[:10], "\nlabel:")))


@given(st.lists(st.text("ab\n:", max_size=6), min_size=1), st.floats(0.05, 1.0))
def test_fixed_affixes_are_what_so_many_have(texts: list[str], share: float) -> None:
    """At least that share of the texts has the affix; one longer by a character fewer have."""
    for affix, has in ((fixed_prefix, str.startswith), (fixed_suffix, str.endswith)):
        part = affix(texts, share)
        assert sum(has(text, part) for text in texts) >= share * len(texts)
        for longer in {text[: len(part) + 1] for text in texts if len(text) > len(part)}:
            if affix is fixed_prefix:
                assert sum(text.startswith(longer) for text in texts) < share * len(texts)


@given(st.text("ab:", max_size=6), st.lists(st.text("ab:", max_size=6), min_size=1))
def test_missing_affixes_are_what_half_lack(affix: str, texts: list[str]) -> None:
    """Half of the texts have what is not missing, and it is part of the affix."""
    missing = missing_prefix(affix, texts)
    assert affix.endswith(missing)
    kept = affix.removesuffix(missing) if missing else affix
    assert 2 * sum(text.startswith(kept) for text in texts) >= len(texts)
    assert missing == missing_suffix(affix[::-1], [text[::-1] for text in texts])[::-1]


def test_edges() -> None:
    """The marks around a text; a text of marks alone is both."""
    assert [(' {"', '"}'), ("", ""), ("??", "??"), ("", "")] == [
        edges(text) for text in (' {"a"}', "a b", "??", "")
    ]


# --- rows of one set -----------------------------------------------------------------------------


def test_empty_completions() -> None:
    """White space is no completion; a few are a warning, half of a set an error."""
    finding = found(edited(TRAIN, 10, completion=" "), EVAL)["empty-completions"]
    assert ("warning", 10) == (finding.severity, finding.evidence["train_examples"])
    assert "10 of 200 train examples (1-000, 1-001, 1-002, ...)" in finding.message
    half = found(TRAIN, edited(EVAL, 50, completion="\n"))["empty-completions"]
    assert ("error", 50) == (half.severity, half.evidence["eval_examples"])
    assert "empty-completions" not in found(edited(TRAIN, 1, completion=" "), EVAL)


@pytest.mark.parametrize("nothing", ["\u200b", " \ufeff\u200d ", "\x00", "\u3000"])
def test_completions_that_show_nothing(nothing: str) -> None:
    """Zero width and control characters alone are no completion, nor are they labels."""
    kinds = found(edited(TRAIN, 120, completion=nothing), EVAL)
    assert ("error", 120) == (
        kinds["empty-completions"].severity,
        kinds["empty-completions"].evidence["train_examples"],
    )
    assert "unseen-labels" not in kinds
    joined = edited(TRAIN, 120, completion=" \u0d28\u0d4d\u200d")  # a letter is shown
    assert "empty-completions" not in found(joined, EVAL)


# --- whatever the data ---------------------------------------------------------------------------

TEXTS = st.text(max_size=12) | st.sampled_from(["a", "b", " a", "\n", "a:\nb:"])


@given(
    st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=40),
    st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=40),
)
def test_any_data_is_judged(train: list[tuple[str, str]], eval_: list[tuple[str, str]]) -> None:
    """Whatever the texts, findings are short, plain and untunable, and the same each time."""
    sets = [
        tuple(
            Example(f"i{n}", "", {"prompt": p, "completion": c}, (), p, c)
            for n, (p, c) in enumerate(rows_)
        )
        for rows_ in (train, eval_)
    ]
    findings = before_training(sets[0], sets[1], (Regression(),))
    assert findings == before_training(sets[0], sets[1], (Regression(),))
    for finding in findings:
        assert not finding.tunable
        assert len(finding.message) < 500
        assert all(isinstance(value, int | float | str) for value in finding.evidence.values())


HOSTILE = "\U000e0001\x1b\u202e\n" * 1250


def test_hostile_data_is_told_shortly() -> None:
    """Ids, tags and labels of thousands of characters, or of such as show as codes, are cut."""
    long = [
        [row | {"id": f"{row['id']}{HOSTILE}", "tags": [HOSTILE]} for row in rows_]
        for rows_ in (TRAIN, EVAL)
    ]
    strange = edited(long[1], 40, completion=f" x{HOSTILE[:56]}x")
    again = [{**row, "id": f"x{row['id']}", "completion": f" {LABELS[0]}"} for row in long[0]]
    # One word decides the label, but the first 80 labels of the train set are drawn at random.
    cued = [
        [
            row | {"prompt": f"{LABELS[n % 4][::-1]} {row['prompt']}", "completion": LABELS[n % 4]}
            for n, row in enumerate(some)
        ]
        for some in long
    ]
    draw = random.Random(0)
    mislabelled = (edited(cued[0], 80, completion=lambda _: draw.choice(LABELS)), cued[1])
    sets = [
        (long[0] + again, strange),  # contradictions, unseen labels
        (long[0], long[1][:20] + long[0][:20]),  # leak
        (long[0] + [{**r, "prompt": r["prompt"].upper()} for r in long[1]], long[1]),  # near
        (edited(long[0], 190, completion=f"x{HOSTILE[:56]}x"), long[1]),  # one label
        (edited(long[0], 100, completion=" "), long[1]),
        (long[0], edited(long[1], 100, prompt=lambda p: f"{p}{HOSTILE}:")),  # template
        (long[0], long[1][:5]),
        mislabelled,
    ]
    kinds = set()
    gates = [parse_gate(f"pass_rate[{HOSTILE}]", ">= 90%"), parse_gate("eval_loss", "<= 1")]
    for train, eval_ in sets:
        for finding in found(train, eval_, *gates).values():
            kinds.add(finding.kind)
            ids = len(str(finding.evidence.get("ids", "")))
            assert ids < 20 * 75
            assert len(finding.message) - ids < 500
            figures = {**finding.evidence, "ids": ""}
            assert all(len(str(value)) < 200 for value in figures.values())
    assert {rule.__name__.replace("_", "-") for rule in RULES} == kinds


@given(st.text(max_size=100), st.booleans())
def test_quoted_texts_are_short(text: str, keep_end: bool) -> None:
    """A text is quoted in 60 characters at most, whole where it fits."""
    said = quoted(text, keep_end=keep_end)
    assert len(said) <= 60
    if len(text) <= 40 and len(repr(text)) <= 60:
        assert repr(text) == said
