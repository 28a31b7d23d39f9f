"""Several loops in one table: which base, at what cost, how far behind the best beyond noise."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from pytest_ftloop.core.printable import printable_json
from pytest_ftloop.gate.verdict import amount_text, p_text
from pytest_ftloop.report.escape import one_line, shorten, visible
from pytest_ftloop.report.layout import Column, paragraph, table
from pytest_ftloop.report.markdown import inert, markdown_table
from pytest_ftloop.report.phrases import MISSING, duration_text, figure_text, format_start, plural
from pytest_ftloop.report.text import WIDTH

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.gate.ranking import Ranking, Standing
    from pytest_ftloop.report.table import Format

BEST, OTHER_SET, ELSEWHERE = "best", "another eval set", "another environment"
"""Said of the loop that leads, and of those that nothing can be compared with."""


@dataclass(frozen=True)
class Row:
    """One loop of the table, as plain values: texts are visible, missing figures None.

    `behind`, `se` and `detectable` are in the unit of `metric`. `said` is how it compares with the
    best in a few words, `why` the reason where it does not; only those of one `group` are compared.
    `seconds` are those of the best
    iteration, `seconds_in_all` and `tokens_in_all` of all trainings in the log.
    """

    loop: str
    iteration: str
    base: str
    train: str
    settings: str
    group: int
    examples: int
    metric: str
    untrained: float | None
    figure: float | None
    seeds: int
    place: str
    behind: float | None
    se: float | None
    p: float | None
    detectable: float | None
    said: str
    why: str
    eval_loss: float | None
    pass_rate: float | None
    seconds: float
    seconds_in_all: float
    tokens_in_all: int
    device_memory_mib: float


def ranking_rows(rankings: Sequence[Ranking]) -> list[Row]:
    """A row per loop, the largest ranking first, each from its best loop down."""
    found, named = ordered(rankings), _naming(rankings)
    return [
        _row(number, ranking, standing, apart(ranking, found[0]), named(standing))
        for number, ranking in enumerate(found, start=1)
        for standing in ranking.standings
    ]


def format_ranking(rankings: Sequence[Ranking], form: Format, width: int = WIDTH) -> str:
    """The table in one of the formats of `ftloop log`."""
    match form:
        case "csv":
            return _csv(ranking_rows(rankings))
        case "json":
            rows = [asdict(row) for row in ranking_rows(rankings)]
            return printable_json(json.dumps(rows, indent=2, allow_nan=False)) + "\n"
        case "markdown":
            return ranking_markdown(rankings)
        case "text":
            return "\n".join(ranking_lines(rankings, width)) + "\n"


def ranking_lines(rankings: Sequence[Ranking], width: int = WIDTH) -> list[str]:
    """Title, table and notes for a terminal."""
    if not rankings:
        return ["no loop has an iteration yet: pytest --ftloop trains the first"]
    rows = ranking_rows(rankings)
    columns = [
        Column((head, below), cells, right=right, drop=drop, least=least)
        for (head, below, right, drop, least), cells in _cells(rows)
        if any(cells)
    ]
    notes = [line for n in notes_of(rankings) for line in paragraph(n, width, "  ", "    ")]
    return [shorten(title_of(rankings), width), *table(columns, width), *notes]


def ranking_markdown(rankings: Sequence[Ranking]) -> str:
    """Title, table and notes in Markdown, in which text of users is inert."""
    if not rankings:
        return f"{ranking_lines(rankings)[0]}\n"
    found = [(spec, cells) for spec, cells in _cells(ranking_rows(rankings)) if any(cells)]
    heads = [" ".join(filter(None, spec[:2])).replace("- ", "") for spec, _ in found]
    rows = [*zip(*([shorten(cell, 200) for cell in cells] for _, cells in found), strict=True)]
    right = [place for place, (spec, _) in enumerate(found) if spec[2]]
    notes = "".join(f"\n- {inert(note)}" for note in notes_of(rankings))
    text = f"{inert(title_of(rankings))}\n\n{markdown_table(heads, rows, right)}\n"
    return f"{text}{notes}\n" if notes else text


def title_of(rankings: Sequence[Ranking]) -> str:
    """`3 loops by pass_rate on 120 examples`."""
    first = ordered(rankings)[0]
    count = sum(len(ranking.standings) for ranking in rankings)
    if len(first.standings) == 1:
        if count == 1:
            return f"1 loop on {plural(first.examples, 'example')}"
        return f"{count} loops, no two of one eval set and environment: not compared"
    said = f"{plural(len(first.standings), 'loop')} by {visible(first.metric)}"
    others = count - len(first.standings)
    more = f"; {others} more on another eval set or in another environment"
    return f"{said} on {plural(first.examples, 'example')}{more if others else ''}"


def apart(ranking: Ranking, first: Ranking) -> str:
    """Why the loops of a ranking are not in the first one; empty for the first itself."""
    if ranking is first:
        return ""
    return ELSEWHERE if ranking.eval_set == first.eval_set else OTHER_SET


def notes_of(rankings: Sequence[Ranking]) -> list[str]:
    """What the table alone does not say: what is proven, why a loop is not compared, the cost."""
    found, named = ordered(rankings), _naming(rankings)
    notes = []
    for ranking in found:
        how = apart(ranking, found[0])
        if how and len(ranking.standings) > 1:
            names = ", ".join(map(named, ranking.standings))
            notes.append(f"{names}: {how}, so compared among themselves.")
        notes += _notes(ranking, named)
    return notes


_Named = Callable[["Standing"], str]


def _naming(rankings: Sequence[Ranking]) -> _Named:
    """What each loop is called: of two with one name also by the best iteration's."""
    names = Counter(s.entry.loop for ranking in rankings for s in ranking.standings)

    def named(standing: Standing) -> str:
        entry = standing.entry
        name = visible(entry.loop)
        return f"{name} {visible(entry.best.name)}" if names[entry.loop] > 1 else name

    return named


def _notes(ranking: Ranking, named: _Named) -> list[str]:
    first, *others = ranking.standings
    leader = named(first)
    behind, tied, left = (
        [s for s in others if s.place == place] for place in ("behind", "tied", "not compared")
    )
    notes = []
    if behind:
        names = ", ".join(map(named, behind))
        notes.append(f"{leader} is ahead of {names} beyond noise (paired test, p corrected).")
    equal = [s for s in tied if s.change and s.change.test.change == 0]
    notes += [f"{leader} and {', '.join(map(named, equal))} are equal."] if equal else []
    if tied := [s for s in tied if s not in equal]:
        least = [s.change.test.detectable for s in tied if s.change]
        found = amount_text(ranking.metric, max(least)) if all(map(math.isfinite, least)) else ""
        from_ = f"; a difference is found from {found} on" if found else ""
        notes.append(
            f"Not proven: that {leader} is better than {', '.join(map(named, tied))}{from_}."
        )
    if (behind or tied) and not ranking.calibrated:
        notes.append(
            "The seed noise of these loops is not measured, so it is assumed: ftloop calibrate "
            "on each of them measures it."
        )
    notes += [f"{named(s)} is not compared: {visible(s.why)}." for s in left]
    return [*notes, *_cheapest(first, [*equal, *tied], named)]


def _cheapest(first: Standing, tied: Sequence[Standing], named: _Named) -> list[str]:
    """The least expensive loop of those that are not proven worse, if that is not the best."""
    cheapest = min((first, *tied), key=lambda s: s.entry.best.cost.seconds)
    if cheapest is first:
        return []
    took, best = (duration_text(s.entry.best.cost.seconds) for s in (cheapest, first))
    name = named(cheapest)
    return [f"The cheapest that is not proven worse: {name}, {took} against {best} of training."]


def _row(
    number: int,
    ranking: Ranking,
    standing: Standing,
    how: str,
    name: str,
) -> Row:
    entry, change = standing.entry, standing.change
    best, metric, cost = entry.best, ranking.metric, entry.cost
    alone = len(ranking.standings) == 1
    return Row(
        loop=name,
        iteration=visible(best.name),
        base=base_text(best.model),
        train=_train_text(best),
        settings=format_start(best.settings).removeprefix("start: "),
        group=number,
        examples=len(best.examples),
        metric=visible(metric),
        untrained=_finite(entry.base.metrics.get(metric)) if entry.base else None,
        figure=_finite(entry.figure(metric)),
        seeds=entry.seeds,
        place="alone" if alone else standing.place,
        behind=_finite(change.test.change) if change else None,
        se=_finite(change.test.se) if change else None,
        p=_finite(standing.p),
        detectable=_finite(change.test.detectable) if change else None,
        said=(how or MISSING) if alone else _said(ranking, standing),
        why=visible(standing.why),
        eval_loss=_finite(best.metrics.get("eval_loss")),
        pass_rate=_finite(best.metrics.get("pass_rate")),
        seconds=round(best.cost.seconds, 1),
        seconds_in_all=round(cost.seconds, 1),
        tokens_in_all=cost.tokens,
        device_memory_mib=round(best.cost.device_memory_mib, 1),
    )


def _said(ranking: Ranking, standing: Standing) -> str:
    """`best`, `3.4 points, p 0.0004`, `3.4 points, not proven`, `nothing`, `not compared`."""
    change = standing.change
    if standing.place == "leads" or change is None:
        return BEST if standing.place == "leads" else "not compared"
    if change.test.change == 0:
        return "nothing"
    by = amount_text(ranking.metric, change.test.change)
    if standing.place == "behind":
        return f"{by}, p {p_text(standing.p)}"
    return f"{by}, not proven"


def base_text(model: str) -> str:
    """A base model's identity for people: `Qwen/Qwen2.5-0.5B`, `tiny`, `folder 3fa9c1d2`."""
    kind, _, name = model.partition(":")
    if kind == "hub" and name:
        return one_line(name, 60)
    return one_line(f"{kind} {name[:8]}" if kind in {"folder", "live"} else kind, 60)


def _train_text(best: Iteration) -> str:
    """`560 rows, e6a32bfc`: the size of the train set, and what tells it from another one."""
    facts = best.data.get("train", {})
    rows, sha = facts.get("rows"), str(facts.get("sha256", ""))[:4]
    parts = ["" if rows is None else f"{rows} rows", sha]
    return visible(", ".join(filter(None, parts)))


_Spec = tuple[str, str, bool, int, int | None]
"""A column's header of two lines, whether it is right-aligned, when it is dropped, its least."""


def _cells(rows: Sequence[Row]) -> Iterable[tuple[_Spec, list[str]]]:
    """The table's columns; one that says the same of all loops is left out."""
    metric = rows[0].metric
    yield ("", "loop", False, 0, 12), [row.loop for row in rows]
    yield ("", "base", False, 0, 12), [row.base for row in rows]
    yield ("train", "rows", False, 4, None), _if_they_differ([row.train for row in rows])
    yield ("", "settings", False, 7, None), _if_they_differ([row.settings for row in rows])
    yield ("un-", "trained", True, 5, None), _figures(rows, "untrained")
    yield (*_head(metric), True, 0, None), _figures(rows, "figure")
    yield ("behind", "the best by", False, 0, None), [row.said for row in rows]
    for name in ("eval_loss", "pass_rate"):
        if any(row.metric != name for row in rows):
            cells = [figure_text(name, getattr(row, name)) for row in rows]
            yield (*_head(name), True, 3, None), cells
    yield ("time of", "the best", True, 1, None), [duration_text(row.seconds) for row in rows]
    yield ("in", "all", True, 2, None), [duration_text(row.seconds_in_all) for row in rows]
    memory = [f"{row.device_memory_mib:,.0f} MiB" if row.device_memory_mib else "" for row in rows]
    yield ("device", "memory", True, 6, None), memory


def _head(metric: str) -> tuple[str, str]:
    first, _, second = metric.rpartition("_")
    return first, second


def _figures(rows: Sequence[Row], field: str) -> list[str]:
    values = [getattr(row, field) for row in rows]
    if all(value is None for value in values):
        return [""] * len(rows)
    return [
        figure_text(row.metric, value) if value is not None else MISSING
        for row, value in zip(rows, values, strict=True)
    ]


def _if_they_differ(cells: list[str]) -> list[str]:
    return cells if len(set(cells)) > 1 else [""] * len(cells)


def _csv(rows: Sequence[Row]) -> str:
    from pytest_ftloop.report.table import inert_cell

    target = io.StringIO()
    writer = csv.DictWriter(target, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: inert_cell(v) for k, v in asdict(row).items()} for row in rows)
    return target.getvalue()


def ordered(rankings: Sequence[Ranking]) -> list[Ranking]:
    """The rankings in the order of the table: that of the most loops first."""
    return sorted(rankings, key=lambda ranking: -len(ranking.standings))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
