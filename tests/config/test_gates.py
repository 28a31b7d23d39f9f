"""What a gate's text means, and how a gate judges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.gates import Gate, parse_gate
from pytest_ftloop.config.tags import check_tags
from pytest_ftloop.core.errors import ConfigError, Location
from pytest_ftloop.core.metrics import METRICS
from pytest_ftloop.gate.thresholds import GateResult, check_gates

WHERE = Location("sentiment.ftloop.yaml", 9)
RATES = {"pass_rate", "token_accuracy"}


def message(name: str, condition: str, value: float | None) -> str:
    figures = {} if value is None else {name: value}
    return check_gates([parse_gate(name, condition)], figures)[0].message


# parse_gate


@pytest.mark.parametrize(
    ("name", "condition", "wanted"),
    [
        ("eval_loss", "<= 3.4", Gate("eval_loss", "<=", 3.4)),
        ("overfit_gap", " <0.3 ", Gate("overfit_gap", "<", 0.3)),
        ("overfit_gap", "<= -.05", Gate("overfit_gap", "<=", -0.05)),
        ("perplexity", "<1e2", Gate("perplexity", "<", 100.0)),
        ("pass_rate", ">= 90%", Gate("pass_rate", ">=", 0.9)),
        ("pass_rate", ">= 28.9 %", Gate("pass_rate", ">=", 0.289)),
        ("token_accuracy", "> .5", Gate("token_accuracy", ">", 0.5)),
        ("pass_rate[a b]", ">= 1", Gate("pass_rate[a b]", ">=", 1.0)),
    ],
)
def test_parse_gate(name: str, condition: str, wanted: Gate) -> None:
    """An operator and a number make a gate; rates may be percentages, to the exact float."""
    assert wanted == parse_gate(name, condition)


def test_gate_has_its_parts() -> None:
    """A gate knows its metric, tag, text and line."""
    gate = parse_gate("pass_rate[negation]", ">= 80%", WHERE)
    assert ("pass_rate", "negation", "pass_rate[negation] >= 0.8", 9) == (
        gate.metric,
        gate.tag,
        gate.text,
        gate.line,
    )
    assert (None, "eval_loss <= 3") == (
        Gate("eval_loss", "<=", 3.0).tag,
        Gate("eval_loss", "<=", 3.0).text,
    )


@st.composite
def gates(draw: st.DrawFn) -> Gate:
    metric = draw(st.sampled_from(sorted(METRICS)))
    tag = draw(st.none() | st.text(min_size=1))
    ops = [">", ">="] if METRICS[metric].better == "higher" else ["<", "<="]
    low, high = (0, 1) if metric in RATES else (None, None)
    bound = draw(st.floats(low, high, allow_nan=False, allow_infinity=False)) + 0.0
    name = metric if tag is None else f"{metric}[{tag}]"
    return Gate(name, draw(st.sampled_from(ops)), bound, draw(st.none() | st.integers(1)))


@given(gates())
def test_text_is_read_back(gate: Gate) -> None:
    """A gate's text parses to the same gate, bit for bit."""
    condition = gate.text.removeprefix(gate.name)
    assert gate == parse_gate(gate.name, condition, Location("f", gate.line))


@given(gates())
def test_bound_shown_is_read_back(gate: Gate) -> None:
    """The condition that a message shows is the gate's own, percentages included."""
    shown = GateResult(gate, 0.5, passed=True).message.rpartition(", wanted ")[2]
    assert gate == parse_gate(gate.name, shown, Location("f", gate.line))


@given(st.sampled_from(sorted(METRICS)), st.text() | st.from_regex(r"[<>=]{0,2} ?[-+.\d%e]*"))
def test_any_text_is_a_gate_or_a_config_error(name: str, condition: str) -> None:
    """Whatever text is written, the answer is a gate with a finite bound or a ConfigError."""
    try:
        gate = parse_gate(name, condition, WHERE)
    except ConfigError:
        return
    assert math.isfinite(gate.bound)


def test_unknown_metric_is_guessed() -> None:
    """A misspelt metric names the place and guesses what was meant."""
    with pytest.raises(ConfigError) as caught:
        parse_gate("eval_los", "<= 3", WHERE)
    assert (
        "sentiment.ftloop.yaml:9: gate eval_los: unknown metric 'eval_los'\n"
        "  Did you mean 'eval_loss'?" == str(caught.value)
    )


def test_regression_is_no_threshold() -> None:
    """The gate against the last committed version is another kind: it has no bound."""
    with pytest.raises(ConfigError, match="unknown metric 'regression'"):
        parse_gate("regression", "<= 0.1")


@pytest.mark.parametrize("name", ["pass_rate[", "pass_rate[]", "pass_rate[a] "])
def test_malformed_tag(name: str) -> None:
    """A bracket that is not closed, or empty, is refused with an example."""
    with pytest.raises(ConfigError, match=r"such as pass_rate\[negation\]"):
        parse_gate(name, ">= 0.9")


@pytest.mark.parametrize(
    ("condition", "found", "cure"),
    [
        (3.5, "3.5 (float)", 'Write eval_loss: "<= 3.5".'),
        (3, "3 (int)", 'Write eval_loss: "<= 3".'),
        (True, "True (bool)", 'Write eval_loss: "<= 3.4".'),
        (math.nan, "nan (float)", 'Write eval_loss: "<= 3.4".'),
        (10**400, " (int)", 'Write eval_loss: "<= 3.4".'),
        (None, "None (NoneType)", 'Write eval_loss: "<= 3.4".'),
        (["<= 3"], "['<= 3'] (list)", 'Write eval_loss: "<= 3.4".'),
        ("3.4", "'3.4'", 'Write eval_loss: "<= 3.4".'),
        ("", "''", 'Write eval_loss: "<= 3.4".'),
        ("== 3.4", "'== 3.4'", 'Write eval_loss: "<= 3.4".'),
        ("<= three", "'<= three'", 'Write eval_loss: "<= 3.4".'),
        ("<= 3,4", "'<= 3,4'", 'Write eval_loss: "<= 3.4".'),
        ("<= nan", "'<= nan'", 'Write eval_loss: "<= 3.4".'),
        ("<= inf", "'<= inf'", 'Write eval_loss: "<= 3.4".'),
        ("<= 1e999", "'<= 1e999'", 'Write eval_loss: "<= 3.4".'),
        ("<=", "'<='", 'Write eval_loss: "<= 3.4".'),
    ],
)
def test_malformed_condition(condition: object, found: str, cure: str) -> None:
    """The error says what was wanted, what was found, and what to write."""
    with pytest.raises(ConfigError, match="wanted <= or < and a number, such as") as caught:
        parse_gate("eval_loss", condition, WHERE)
    assert caught.value.message.endswith(found)
    assert (WHERE, cure) == (caught.value.where, caught.value.cure)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_operator_against_the_direction(metric: str) -> None:
    """A gate that asks for worse figures is a mistake: the error turns the operator round."""
    better = METRICS[metric].better
    wrong, right = ("<= 0.5", ">= 0.5") if better == "higher" else (">= 0.5", "<= 0.5")
    with pytest.raises(ConfigError, match=f"{better} is better for {metric}") as caught:
        parse_gate(f"{metric}[x]", wrong)
    assert f'Write {metric}[x]: "{right}".' == caught.value.cure


@pytest.mark.parametrize(
    ("condition", "cure"),
    [
        (">= 90", "Did you mean 0.9 or 90%?"),
        ("> 87.5", "Did you mean 0.875 or 87.5%?"),
        (">= 101%", 'Write pass_rate: ">= 0.9".'),
        (">= -0.1", 'Write pass_rate: ">= 0.9".'),
    ],
)
def test_rate_outside_0_to_1(condition: str, cure: str) -> None:
    """A rate's bound is a share; a percentage without its sign is guessed."""
    with pytest.raises(ConfigError, match="wanted a share from 0 to 1") as caught:
        parse_gate("pass_rate", condition)
    assert cure == caught.value.cure


def test_percentage_of_a_loss() -> None:
    """A percentage makes no sense for a loss."""
    with pytest.raises(
        ConfigError, match="only pass_rate, token_accuracy and scores can be in percent"
    ):
        parse_gate("eval_loss", "<= 3%")


def test_bare_rate_above_1_is_not_proposed() -> None:
    """The cure for a bare number is itself a valid gate."""
    with pytest.raises(ConfigError) as caught:
        parse_gate("pass_rate", 90)
    assert 'Write pass_rate: ">= 0.9".' == caught.value.cure


# judge


@pytest.mark.parametrize(
    ("name", "condition", "value", "passed"),
    [
        ("eval_loss", "<= 3.4", 3.4, True),
        ("eval_loss", "< 3.4", 3.4, False),
        ("pass_rate", ">= 90%", 0.9, True),
        ("pass_rate", "> 90%", 0.9, False),
        ("pass_rate", ">= 90%", np.float64(0.95), True),
        ("eval_loss", "<= 3.4", math.nan, False),
        ("pass_rate", ">= 0", math.nan, False),
        ("overfit_gap", "<= 0.3", -math.inf, False),
        ("perplexity", "<= 9", math.inf, False),
    ],
)
def test_judge(name: str, condition: str, value: float, passed: bool) -> None:
    """A gate passes by its operator; a figure that is not finite fails."""
    result = check_gates([parse_gate(name, condition)], {name: value})[0]
    assert passed is result.passed


def test_judge_missing() -> None:
    """A missing metric is a failure, and the results keep the gates' order."""
    some = [Gate("pass_rate[x]", ">=", 0.0), Gate("eval_loss", "<=", 3.0)]
    assert (GateResult(some[0], None, False), GateResult(some[1], 2.0, True)) == check_gates(
        some, {"eval_loss": 2.0, "pass_rate": 1.0}
    )


@pytest.mark.parametrize(
    ("name", "condition", "value", "wanted"),
    [
        ("eval_loss", "<= 3.4", 3.5123, "eval_loss 3.5123, wanted <= 3.4"),
        ("eval_loss", "<= 3.4", 3.0, "eval_loss 3.0000, wanted <= 3.4"),
        ("pass_rate", ">= 0.9", 0.875, "pass_rate 87.5%, wanted >= 90%"),
        ("pass_rate[a]", ">= 28.9%", 0.0, "pass_rate[a] 0.0%, wanted >= 28.9%"),
        ("eval_loss", "<= 3.4", 3.400004, "eval_loss 3.400004, wanted <= 3.4"),
        ("pass_rate", ">= 90%", 0.8996, "pass_rate 89.96%, wanted >= 90%"),
        ("pass_rate", ">= 66.66%", 0.666667, "pass_rate 66.7%, wanted >= 66.66%"),
        ("pass_rate", "> 66.6%", 0.6664, "pass_rate 66.64%, wanted > 66.6%"),
        ("eval_loss", "<= 3.4", math.nan, "eval_loss nan, wanted <= 3.4"),
        ("perplexity", "<= 9", math.inf, "perplexity inf, wanted <= 9"),
        ("pass_rate[x]", ">= 0", None, "pass_rate[x] is missing: no eval example is tagged 'x'"),
        ("eval_loss", "<= 3", None, "eval_loss is missing: the iteration did not record it"),
        (
            "overfit_gap[x]",
            "<= 3",
            None,
            "overfit_gap[x] is missing: no eval example, or none of the train sample, is tagged"
            " 'x'",
        ),
    ],
)
def test_message(name: str, condition: str, value: float | None, wanted: str) -> None:
    """One line; a figure near the bound has the digits it takes to agree with the verdict."""
    assert wanted == message(name, condition, value)


@given(gates(), st.floats(0, 1))
def test_message_agrees_with_the_verdict(gate: Gate, value: float) -> None:
    """The figure that a message shows passes or fails as the gate did."""
    result = check_gates([gate], {gate.name: value})[0]
    figure = result.message.removeprefix(gate.name).split(",")[0]
    shown = parse_gate(gate.name, f"{gate.op} {figure}").bound
    assert result.passed == check_gates([gate], {gate.name: shown})[0].passed


# check_tags


def test_check_tags() -> None:
    """Tags that occur are accepted, and gates without a tag need none."""
    check_tags([Gate("pass_rate[a]", ">=", 0.5), Gate("eval_loss", "<=", 3.0)], iter("ab"), "f")
    check_tags([Gate("eval_loss", "<=", 3.0)], [], "f")


def test_check_tags_guesses() -> None:
    """A tag that no eval example has is a ConfigError with file, line and a guess."""
    with pytest.raises(ConfigError) as caught:
        check_tags([Gate("pass_rate[negatoin]", ">=", 0.5, 4)], ["negation", "short"], "s.yaml")
    assert (
        "s.yaml:4: gate pass_rate[negatoin]: no eval example is tagged 'negatoin'\n"
        "  Did you mean 'negation'?" == str(caught.value)
    )


def test_check_tags_without_any() -> None:
    """Where nothing is tagged, that is said."""
    with pytest.raises(ConfigError, match="No eval example has a tag"):
        check_tags([Gate("pass_rate[a]", ">=", 0.5)], [], "s.yaml")


def test_check_tags_names_the_columns() -> None:
    """All gates on unknown tags are told at once; without a near tag, where tags come from."""
    gates = [Gate("pass_rate[zzz]", ">=", 0.5, 4), Gate("eval_loss[yyy]", "<=", 3.0, 5)]
    columns = ["id", "prompt", "completion", "label", "topic"]
    with pytest.raises(ConfigError) as caught:
        check_tags(gates, ["new", "old"], "s.yaml", tagged_by=["label"], columns=columns)
    assert (
        "s.yaml:4: gate pass_rate[zzz]: no eval example is tagged 'zzz'\n"
        "  The tags: new, old. Tags are read from label (data.tags). Further columns: topic; "
        "data: {tags: topic} reads one.\n"
        "s.yaml:5: gate eval_loss[yyy]: no eval example is tagged 'yyy'\n" in str(caught.value)
    )
