"""The loops of a pytest run that were measured on one eval set, in one table at its end.

Such are the loops of a test that is parametrised over base models or data sets. They are read from
their logs, because each may have run in another xdist worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.log import ImprovementLog

if TYPE_CHECKING:
    from pytest_ftloop.gate.ranking import Entry


def compared_lines(runs: Iterable[Mapping[str, Any]], verbosity: int, width: int) -> list[str]:
    """A table of the loops that share an eval set with another one; empty if none does.

    Of loop files that were all up to date only with -v: a run in which nothing happened says one
    line per loop. With -q there is none.
    """
    known = list(runs)
    is_news = any(news["new"] or not news["file"] for news in known)
    if verbosity < 0 or not (is_news or verbosity > 0):
        return []
    counts = Counter(news["eval_set"] for news in known)
    shared = [news for news in known if counts[news["eval_set"]] > 1]
    if not shared:
        return []
    from pytest_ftloop.gate.ranking import rank
    from pytest_ftloop.report.ranking import ranking_lines

    try:
        rankings = rank(entry for news in shared if (entry := _entry(news)))
    except FtloopError as error:  # the log changed since the loop ran
        return [f"the loops can't be compared: {error}"]
    found = [ranking for ranking in rankings if len(ranking.standings) > 1]
    return ranking_lines(found, width) if found else []


def _entry(news: Mapping[str, Any]) -> Entry | None:
    """A loop that ran; None if another run has replaced its log since."""
    from pytest_ftloop.gate.ranking import Entry

    view = ImprovementLog(Path(news["key"][0])).view
    best = next((it for it in view.iterations() if it.name == news["best"]), None)
    return Entry.of(view, best, news["metric"]) if best else None
