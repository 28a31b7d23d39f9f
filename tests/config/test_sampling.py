"""The keys of `scoring` for sampling and generation, and gates on pass@k."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.data.identity import scoring_identity
from tests.config.config_cases import DATA

if TYPE_CHECKING:
    from tests.config.config_cases import Write


def test_sampling_keys(write: Write) -> None:
    """The keys are read, and outputs are sampled where several or a temperature are stated."""
    text = "scoring: {samples: 5, temperature: 0.7, top_p: 0.9, seed: 3, generation: {top_k: 20}}\n"
    scoring = read_loop_file(write("a.ftloop.yaml", DATA + text)).scoring
    assert (5, 0.7, 0.9, 3) == (scoring.samples, scoring.temperature, scoring.top_p, scoring.seed)
    assert {"top_k": 20} == scoring.generation
    assert scoring.is_sampled


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("{top_p: 0.9}", "scoring top_p has no effect on greedy outputs"),
        ("{seed: 1}", "scoring seed has no effect on greedy outputs"),
        ("{generation: {top_k: 5}}", "scoring generation.top_k has no effect on greedy outputs"),
        ("{generation: {temperature: 0.5}}", "can't state temperature\n  Set scoring.temperature."),
        ("{generation: {do_sample: true}}", "can't state do_sample\n  Set scoring.temperature."),
        ("{samples: 2, generation: {num_beams: 4}}", "num_beams is no sampling"),
        ("{samples: 0}", "scoring.samples: wanted"),
        ("{temperature: 0}", "scoring.temperature: wanted"),
        ("{scorer: choice, samples: 2}", "scoring samples is for scorers of generated text"),
        (
            "{scorer: loss, threshold: 1, generation: {num_beams: 2}}",
            "scoring generation is for scorers of generated text",
        ),
    ],
)
def test_mistakes(write: Write, stated: str, message: str) -> None:
    """What has no effect or contradicts is an error that says what to state."""
    with pytest.raises(ConfigError) as caught:
        read_loop_file(write("a.ftloop.yaml", f"{DATA}scoring: {stated}\n"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("samples", "gate", "message"),
    [
        (5, '"pass@5": ">= 90%"', ""),
        (5, '"pass^3[x]": ">= 0.5"', ""),
        (5, 'regression: {metrics: ["pass@5", pass_rate]}', ""),
        (5, '"pass@6": ">= 90%"', "pass@6 is not recorded with scoring.samples 5\n  With so many"),
        (1, '"pass@2": ">= 90%"', "pass@2 is not recorded with scoring.samples 1\n  Set scoring"),
        (5, 'regression: {metrics: ["pass@9"]}', "gate regression: pass@9 is not recorded"),
    ],
)
def test_gates_on_sampled_metrics(write: Write, samples: int, gate: str, message: str) -> None:
    """A gate may name the k that are recorded, and no other."""
    text = f"{DATA}scoring: {{samples: {samples}}}\ngates: {{{gate}}}\n"
    path = write("a.ftloop.yaml", text)
    if not message:
        config = read_loop_file(path)
        assert 1 == len((*config.gates, *config.regressions))
        return
    with pytest.raises(ConfigError) as caught:
        read_loop_file(path)
    assert message in str(caught.value)


def test_greedy_outputs_keep_their_identity() -> None:
    """A loop that samples nothing has the scoring identity that it had; one that does, another."""
    assert {"scorer": "exact"} == scoring_identity(Scoring(), Path())
    sampled = Scoring(samples=3, generation={"top_k": 5})
    found = scoring_identity(sampled, Path())
    assert {"scorer": "exact", "samples": 3, "generation": {"top_k": 5}} == found
