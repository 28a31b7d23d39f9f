"""Gates and `loop.metric` on scores: known for the built-in scorers, tried for a user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.core.errors import ConfigError
from tests.loop.loop_cases import config, run

if TYPE_CHECKING:
    from pathlib import Path

F1, JSON = {"scorer": "f1"}, {"scorer": "json"}


@pytest.mark.parametrize(
    "stated",
    [
        {"scoring": F1, "gates": {"score": ">= 50%"}},
        {"scoring": JSON, "gates": {"score.fields[x]": ">= 0.5", "score.valid": "> 0"}},
        {"scoring": JSON, "gates": {"regression": {"metrics": ["score.fields"]}}},
        {"scoring": JSON, "loop": {"metric": "score.fields"}},
        {"scoring": F1, "gates": {"lift[score]": ">= 5 points"}},
    ],
)
def test_scores_that_are_given(stated: Any, tmp_path: Path) -> None:
    """Thresholds, tags, percentages, the regression gate and the metric take them."""
    assert config(tmp_path, **stated).scoring.scorer == stated["scoring"]["scorer"]


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"gates": {"score": ">= 0.5"}}, "gate score: .* 'exact' gives no score"),
        ({"scoring": F1, "gates": {"score.f1": ">= 0.5"}}, "gate score.f1: .* 'f1' gives score"),
        (
            {"scoring": JSON, "gates": {"score.field": ">= 0.5"}},
            r"'json' gives score\.fields, score\.valid\n  Did you mean 'score.fields'",
        ),
        (
            {"scoring": JSON, "gates": {"regression": {"metrics": ["score.x"]}}},
            "gate regression: wanted score.x",
        ),
        ({"scoring": F1, "loop": {"metric": "score.x"}}, r"loop\.metric: wanted score\.x"),
        ({"loop": {"metric": "accuracy"}}, r"loop\.metric: wanted eval_loss, pass_rate or a score"),
        ({"scoring": F1, "gates": {"score": "<= 0.5"}}, "higher is better for score"),
        ({"scoring": F1, "gates": {"score": ">= 5"}}, "wanted a share from 0 to 1"),
        (
            {"scoring": {"scorer": "regex", "pattern": "a"}, "data": {"answers": "a"}},
            r"data\.answers is for exact, contains, json, number, f1, rouge",
        ),
    ],
)
def test_scores_that_are_not_given(stated: Any, message: str, tmp_path: Path) -> None:
    """A score that the scorer does not give is an error before anything is trained."""
    if "data" in stated:
        from pytest_ftloop.config.loop_config import read_loop_file

        file = tmp_path / "s.ftloop.yaml"
        file.write_text(
            "data: {train: a.jsonl, eval: b.jsonl, answers: a}\n"
            "scoring: {scorer: regex, pattern: a}\n"
        )
        with pytest.raises(ConfigError, match=message):
            read_loop_file(file)
        return
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **stated)


@pytest.mark.parametrize(
    ("returned", "gate", "message"),
    [
        ("{'fields': 1.0}", "score.fields", ""),
        ("{'fields': 1.0}", "score.field", r"gives score\.fields\n  Did you mean 'score.fields'"),
        ("0.5", "score.fields", "gives score"),
        ("True", "score", ""),
    ],
)
def test_scores_of_a_user(returned: str, gate: str, message: str, tmp_path: Path) -> None:
    """A user's scorer is tried on a row before the first training."""
    name = tmp_path.name  # another module for each case
    (tmp_path / f"{name}.py").write_text(f"def f(output): return {returned}\n")
    own = config(tmp_path, scoring={"scorer": f"{name}:f"}, gates={gate: ">= 0.5"}, iterations=1)
    if not message:
        assert 1 == len(run(own)[1].runs)
        return
    with pytest.raises(ConfigError, match=message):
        run(own)
