"""What a backend is asked besides the settings: the keywords of `Backend.train`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Run
    from pytest_ftloop.train.early_end import Pace


class Named(TypedDict):
    """The keyword that every training has: `name` identifies the run in experiment trackers."""

    name: str


class How(Named, total=False):
    """The keywords of one training.

    `adapter` is the folder of this machine to save the best point to: the holdout and `ftloop
    export` read it there. Without a `base_eval_loss` (nats per token) the untrained base is
    measured first, and is in `Evaluation.base`. With `pace`, a run that can no longer reach it is
    ended early. The best point is chosen by `metric`, without one by the eval loss. `keep` is
    called with the run as far as it is known before outputs are generated, and again before they
    are scored: what comes then may fail or be interrupted.
    """

    adapter: Path | None
    base_eval_loss: float | None
    pace: Pace | None
    metric: str
    keep: Callable[[Run], object] | None
