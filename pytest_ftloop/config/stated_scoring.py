"""The scoring that a loop file states, for the eval set and for guards, with its mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pytest_ftloop.config.judge import Judge
from pytest_ftloop.config.scoring import SCORE_HOOK, Scoring, check_scorer, check_scoring
from pytest_ftloop.config.sections import DataSection, GuardSection, ScoringSection
from pytest_ftloop.config.sources import GuardSource, plain_source
from pytest_ftloop.core.columns_read import function_columns, hook_columns
from pytest_ftloop.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_ftloop.core.errors import Locate


def scoring_in(stated: Any, locate: Locate) -> tuple[Scoring | None, list[ConfigError]]:
    """The scoring of the eval set, and the mistakes that only all of its keys show.

    None if a key by itself is a mistake: that is reported with those of all sections, but for the
    name of the scorer.
    """
    try:
        scoring = _scoring_of(ScoringSection.model_validate(stated))
    except ValidationError:
        scorer = stated.get("scorer") if isinstance(stated, Mapping) else None
        return None, _unknown_scorer(scorer, locate)
    return scoring, _mistakes(scoring, "scoring", "scoring.scorer", locate)


def guards_in(
    data: DataSection, locate: Locate
) -> tuple[tuple[GuardSource, ...], list[ConfigError]]:
    """The loop's guards, and the mistakes in their scoring."""
    found, mistakes = [], []
    for name, stated in data.guards.items():
        scoring, section = None, f"data.guards.{name}.scoring"
        if isinstance(stated, GuardSection) and stated.scoring is not None:
            scoring = _scoring_of(stated.scoring)
            mistakes += _mistakes(scoring, section, section, locate)
        source = stated.source if isinstance(stated, GuardSection) else stated
        found.append(GuardSource(name, plain_source(source), scoring))
    return tuple(found), mistakes


def columns_read(scoring: Scoring, folder: Path) -> frozenset[str] | None:
    """The columns of a row that a user's scorer reads, None for any; those of no other scorer."""
    if scoring.scorer == "hook":
        return hook_columns(SCORE_HOOK, folder)
    return function_columns(scoring.scorer, folder) if ":" in scoring.scorer else frozenset()


def _scoring_of(section: ScoringSection) -> Scoring:
    """The scoring that a section states; with a judge the scorer need not be named."""
    stated = section.model_dump()
    stated["choices"] = tuple(stated["choices"] or ())
    if judge := stated["judge"]:
        stated["judge"] = Judge(**{**judge, "scale": tuple(judge["scale"])})
        if "scorer" not in section.model_fields_set:
            stated["scorer"] = "judge"
    return Scoring(**stated)


def _mistakes(scoring: Scoring, section: str, key: str, locate: Locate) -> list[ConfigError]:
    """The first mistake in a scoring, told at this key; or in the URL of its judge."""
    try:
        check_scoring(scoring, where=locate(key))
        if scoring.judge is not None:
            from pytest_ftloop.core.endpoint import checked_url  # it imports urllib

            checked_url(scoring.judge.url, locate(f"{section}.judge.url"))
    except ConfigError as error:
        return [error]
    return []


def _unknown_scorer(stated: Any, locate: Locate) -> list[ConfigError]:
    """The mistake in the name of the scorer, of a section that has others."""
    try:
        if isinstance(stated, str):
            check_scorer(stated, locate("scoring.scorer"))
    except ConfigError as error:
        return [error]
    return []
