"""The rules over the wiring, on counts alone; tests/training/test_wiring.py counts for real."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.records import Finding, Wiring
from pytest_ftloop.diagnose import Evidence, diagnose
from pytest_ftloop.diagnose.wiring import RULES, before_training
from tests.fakes import fake_metrics, fake_training


def wiring(**fields: Any) -> Wiring:
    """A healthy wiring of 100 rows, of which a test changes what it is about."""
    healthy: dict[str, Any] = {
        "examples": 400,
        "dropped": 0,
        "sampled": 100,
        "generates": True,
        "ended": 100,
        "masked_ends": 0,
        "cut": 0,
        "lost_ends": 0,
        "labels": 1000,
        "lost_labels": 0,
        "prompt_labels": 0,
        "split_prompts": 0,
        "max_length": 1024,
    }
    return Wiring(**(healthy | fields))


def findings(of: Wiring | None, **metrics: float) -> list[Finding]:
    """What the rules find."""
    figures = fake_metrics(**metrics)
    evidence = Evidence.of(fake_training(wiring=of), figures, figures, 5.0)
    return [finding for rule in RULES if (finding := rule(evidence))]


def test_healthy_or_unknown_wiring_has_no_finding() -> None:
    """All ends learned and nothing cut, or nothing known: nothing to say."""
    assert [] == findings(wiring())
    assert [] == findings(None)
    assert [] == findings(wiring(sampled=0, ended=0, labels=0))


@pytest.mark.parametrize(
    ("fields", "severity"),
    [
        ({"ended": 50}, None),
        ({"ended": 49}, "warning"),
        ({"ended": 0}, "error"),
        ({"ended": 0, "generates": False}, None),
    ],
)
def test_unlearnt_end(fields: dict[str, Any], severity: str | None) -> None:
    """Rows without an end matter where text is generated: an error where no row has one."""
    found = findings(wiring(**fields), pass_rate=0.1)
    assert severity == (found[0].severity if found else None)
    if severity:
        assert "no token that ends an answer is trained on" in found[0].message


def test_unlearnt_end_of_a_model_that_passes() -> None:
    """Where most examples pass all the same, it is no error: the loop may go on."""
    assert ["warning"] == [f.severity for f in findings(wiring(ended=0), pass_rate=0.6)]


def test_before_training_the_end_may_still_be_learned() -> None:
    """Without a pass rate it is a warning; the other findings are those of after training."""
    assert () == before_training(wiring())
    assert ["warning"] == [f.severity for f in before_training(wiring(ended=0))]
    cut = wiring(ended=40, cut=60, lost_ends=60, prompt_labels=900)
    assert findings(cut, pass_rate=0.1) == list(before_training(cut))
    assert ["error", "warning"] == [f.severity for f in before_training(cut)]


def test_masked_ends_name_the_pad_token() -> None:
    """Only where the collator took the ends' labels is the pad token blamed."""
    by_pad, by_template = (findings(wiring(ended=0, masked_ends=n))[0] for n in (100, 0))
    assert "the pad token is the end token" in by_pad.message
    assert "Give the tokenizer a pad token of its own." == by_pad.remedy
    assert "pad token" not in by_template.message + by_template.remedy


@pytest.mark.parametrize(
    ("fields", "severity"),
    [
        ({"cut": 20, "lost_labels": 40}, None),
        ({"cut": 20, "lost_labels": 50}, "warning"),
        ({"cut": 1, "lost_ends": 1, "ended": 99, "lost_labels": 1}, "warning"),
        ({"cut": 60, "lost_ends": 60, "ended": 40, "lost_labels": 300}, "error"),
        ({"cut": 60, "lost_ends": 60, "ended": 40, "generates": False}, "warning"),
        ({"dropped": 3}, None),
        ({"dropped": 4}, "warning"),
        ({"dropped": 201}, "error"),
    ],
)
def test_truncated_labels(fields: dict[str, Any], severity: str | None) -> None:
    """Lost labels, ends and examples are counted; an error where most are lost."""
    found = findings(wiring(**fields), pass_rate=0.1)
    assert ([("truncated-labels", severity)] if severity else []) == [
        (f.kind, f.severity) for f in found
    ]
    if "dropped" in fields and severity:
        assert f"dropped {fields['dropped']} of 400 train examples" in found[0].message


@pytest.mark.parametrize(("prompt_labels", "said"), [(500, False), (501, True)])
def test_prompt_in_loss(prompt_labels: int, said: bool) -> None:
    """Prompts in the loss are a warning where they are most of it."""
    found = findings(wiring(prompt_labels=prompt_labels))
    assert ([("prompt-in-loss", "warning")] if said else []) == [
        (f.kind, f.severity) for f in found
    ]


def test_split_prompt() -> None:
    """Prompts with other last tokens than at inference are a warning where most rows have them."""
    assert ["split-prompt"] == [f.kind for f in findings(wiring(split_prompts=51))]
    assert [] == findings(wiring(split_prompts=50))


@pytest.mark.parametrize(
    ("layers", "said", "remedy"),
    [
        (("wte", "lm_head"), "as wte and lm_head are not trained", "Add wte and lm_head to"),
        (("lm_head",), "as lm_head is not trained", "Add lm_head to"),
    ],
)
def test_untrained_tokens(layers: tuple[str, ...], said: str, remedy: str) -> None:
    """Added tokens are named, up to eight of them, with the layers to train."""
    tokens = tuple(f"<|{number}|>" for number in range(10))
    (found,) = findings(wiring(untrained_tokens=tokens, untrained_layers=layers))
    assert ("untrained-tokens", "warning") == (found.kind, found.severity)
    assert said in found.message
    assert found.message.endswith("<|6|>, <|7|> and 2 more.")
    assert f"{remedy} lora.modules_to_save." == found.remedy
    (few,) = findings(wiring(untrained_tokens=tokens[:1], untrained_layers=layers))
    assert few.message.endswith("are not trained: <|0|>." if layers[1:] else "trained: <|0|>.")


def test_the_cause_comes_before_its_symptoms() -> None:
    """Of equal severity, what the wiring shows stands before what the curves show."""
    training = fake_training(wiring=wiring(prompt_labels=900), evals=(2.0, 1.0, 1.5, 2.0))
    evidence = Evidence.of(training, fake_metrics(), fake_metrics(), 5.0)
    assert ["prompt-in-loss", "overfitting"] == [f.kind for f in diagnose(evidence)][:2]


@given(st.lists(st.integers(0, 100), min_size=10, max_size=10), st.booleans())
def test_any_counts_are_judged(counts: list[int], generates: bool) -> None:
    """Whatever the counts, no rule fails, and each finding is untunable and has its figures."""
    names = (
        *("examples", "dropped", "sampled", "ended", "masked_ends", "cut", "lost_ends"),
        *("lost_labels", "prompt_labels", "split_prompts"),
    )
    fields = dict(zip(names, counts, strict=True))
    found = findings(wiring(**fields, labels=counts[8] + counts[7], generates=generates))
    for finding in found:
        assert not finding.tunable
        assert finding.evidence
        assert finding.remedy
