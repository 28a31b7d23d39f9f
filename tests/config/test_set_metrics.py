"""The key `metrics` of a loop file, and gates on what it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.errors import ConfigError
from tests.config.config_cases import DATA

if TYPE_CHECKING:
    from tests.config.config_cases import Write


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ("[macro_f1, bleu]", {"macro_f1": "macro_f1", "bleu": "bleu"}),
        ("{intents: macro_f1, mine: scoring:f}", {"intents": "macro_f1", "mine": "scoring:f"}),
        ("null", {}),
    ],
)
def test_metrics_by_name(write: Write, stated: str, found: dict[str, str]) -> None:
    """A list names built-in metrics; a mapping gives each a name of the user's."""
    assert found == read_loop_file(write("a.ftloop.yaml", f"{DATA}metrics: {stated}\n")).metrics


@pytest.mark.parametrize(
    ("stated", "line", "message"),
    [
        ("[macro_f]", 2, "unknown metric 'macro_f'\n  Did you mean 'macro_f1'?"),
        ("[mine:f]", 2, "wanted a name of letters, digits and '_', found 'mine:f'"),
        ("{pass_rate: mcc}", 2, "the name 'pass_rate' has another meaning in gates"),
        ("{score: mcc}", 2, "the name 'score' has another meaning in gates"),
        ("{a-b: mcc}", 2, "wanted a name of letters, digits and '_', found 'a-b'"),
        ("3", 2, "metrics: wanted"),
        ("{f: 3}", 2, "metrics.f: wanted text"),
        ("[mcc]\nscoring: {scorer: loss, threshold: 2}", 2, "metrics read outputs"),
    ],
)
def test_mistake_in_metrics(write: Write, stated: str, line: int, message: str) -> None:
    """A mistake in the metrics is an error with its line and what is valid."""
    with pytest.raises(ConfigError) as caught:
        read_loop_file(write("a.ftloop.yaml", f"{DATA}metrics: {stated}\n"))
    assert f"a.ftloop.yaml:{line}: " in str(caught.value)
    assert message in str(caught.value)


def test_gates_on_metrics_of_the_set(write: Write) -> None:
    """A threshold, by tag too, and the regression gate may name the loop's own metrics."""
    gates = '{f1: ">= 0.8", "f1[x]": ">= 0.5", regression: {metrics: [f1, eval_loss]}}'
    text = f"{DATA}metrics: {{f1: macro_f1}}\ngates: {gates}\n"
    config = read_loop_file(write("a.ftloop.yaml", text))
    assert ["f1 >= 0.8", "f1[x] >= 0.5"] == [gate.text for gate in config.gates]
    assert ("f1", "eval_loss") == config.regressions[0].metrics


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ('{f1: "<= 0.8"}', "gate f1: higher is better for f1"),
        ('{f2: ">= 0.8"}', "gate f2: unknown metric 'f2'"),
        ("{regression: {metrics: [f2]}}", "gate regression: unknown metric 'f2'"),
        ("{regression: {metrics: [perplexity]}}", "unknown metric 'perplexity'"),
        ('{"mine[x]": ">= 0.8"}', "is computed of the whole eval set only"),
        ('{"regression[x]": {metrics: [mine]}}', "is computed of the whole eval set only"),
    ],
)
def test_mistake_in_a_gate(write: Write, gates: str, message: str) -> None:
    """A gate on an unknown metric, in the wrong direction or of a tag that it lacks is an error."""
    text = f"{DATA}metrics: {{f1: macro_f1, mine: m:f}}\ngates: {gates}\n"
    with pytest.raises(ConfigError) as caught:
        read_loop_file(write("a.ftloop.yaml", text))
    assert message in str(caught.value)
