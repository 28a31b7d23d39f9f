"""The setting `loop.labelled_only`: whether training projects labelled positions alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Settings

LABELLED_ONLY = "labelled_only"
"""The key of the settings' group `training` that holds it. SFTConfig has none such."""


def with_labelled_only(settings: Settings, *, on: bool) -> Settings:
    """The settings with it: rounding may differ, so it is part of what determines the weights.

    Off it is left out, as in the logs of loops that do not know it.
    """
    if not on:
        return settings
    return replace(settings, training={**settings.training, LABELLED_ONLY: True})


def is_labelled_only(settings: Settings) -> bool:
    """Whether a run of these settings projects labelled positions alone."""
    return bool(settings.training.get(LABELLED_ONLY))
