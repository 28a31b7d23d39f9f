"""The key `metrics` of a loop file: metrics of the whole eval set, by the user's name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import ConfigError, Locate, did_you_mean
from pytest_ftloop.core.metrics import METRICS
from pytest_ftloop.core.sampled import SCORE
from pytest_ftloop.core.set_metrics import BUILT_IN

_NAME = re.compile(r"[A-Za-z_]\w*")

RESERVED = frozenset({*METRICS, SCORE, "guard", "lift", "forgetting", "regression"})
"""Names that mean something else in a gate."""


def metrics_by_name(stated: object) -> dict[str, str]:
    """What is stated as name -> built-in name or module:function. A list names built-in ones.

    Empty for what is neither: that mistake is reported with those of the other keys.
    """
    listed = {name: name for name in stated} if isinstance(stated, list) else stated
    if not isinstance(listed, Mapping):
        return {}
    return {k: v for k, v in listed.items() if isinstance(k, str) and isinstance(v, str)}


def check_metrics(
    metrics: Mapping[str, str], scoring: Scoring, locate: Locate
) -> Iterator[ConfigError]:
    """The mistakes in the metrics' names and definitions, and in their place beside the scorer."""
    for name, kind in metrics.items():
        where = locate(f"metrics.{name}") or locate("metrics")
        if ":" not in kind and kind not in BUILT_IN:
            yield ConfigError(
                f"metrics: unknown metric {kind!r}",
                where=where,
                cure=f"{did_you_mean(kind, BUILT_IN)} One of your own is named "
                "{my_metric: module:function}.",
            )
        elif not _NAME.fullmatch(name):
            yield ConfigError(
                f"metrics: wanted a name of letters, digits and '_', found {name!r}",
                where=where,
                cure="Write metrics: {my_metric: module:function}." if ":" in name else "",
            )
        elif name in RESERVED:
            yield ConfigError(
                f"metrics: the name {name!r} has another meaning in gates",
                where=where,
                cure="Choose another name.",
            )
    if metrics and scoring.scorer == "loss":
        yield ConfigError(
            "metrics read outputs, but the scorer 'loss' generates none",
            where=locate("metrics"),
            cure="Use another scorer, or leave out metrics.",
        )
