"""Try scorers that may fail, in plain Python, before anything is loaded, measured or trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.config.gates import Gate, Regression, check_scores
from pytest_ftloop.core.sampled import SCORE
from pytest_ftloop.evaluate.scored import scored_alike
from pytest_ftloop.loop.inputs import is_own

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.config.scoring import Scoring
    from pytest_ftloop.core.records import Example
    from pytest_ftloop.evaluate.scored import Scorer
    from pytest_ftloop.loop.inputs import Inputs


def try_scorers(config: LoopConfig, inputs: Inputs) -> None:
    """Try the scorers of the eval set and of the guards: the user's own, and rouge's package.

    Raises `ScoringError` for one that fails, `ConfigError` for a package that is missing, or a gate
    on a score that the eval set's scorer does not give.
    """
    for guard in inputs.guards:
        if guard.scoring is not None:
            _tried(guard.scorer, guard.scoring, guard.rows.examples)
    given = _tried(inputs.scorer, config.scoring, inputs.eval.examples)
    if given is not None and is_own(config.scoring):
        gates: tuple[Gate | Regression, ...] = (*config.gates, *config.regressions)
        check_scores(gates, config.loop.metric, given, config.scoring, config.locate)


def _tried(
    scorer: Scorer | None, scoring: Scoring, examples: Sequence[Example]
) -> Collection[str] | None:
    """The scores that a scorer gives; None for one that is not tried.

    It gets a perfect answer and an empty one to the longest row, the first and the last.
    """
    if scorer is None or not (is_own(scoring) or scoring.scorer == "rouge"):
        return None
    longest = max(examples, key=lambda e: len(e.prompt_text) + len(e.expected or ""))
    rows = {e.id: e for e in (longest, examples[0], examples[-1])}.values()
    pairs = [(row, output) for row in rows for output in ((row.expected or "").strip(), "")]
    found = [scorer(row, output) for row, output in pairs]
    alike = scored_alike(found, [row for row, _ in pairs], scoring.scorer)
    return alike[0].scores or {SCORE: 1.0}  # a yes may be a number for another row
