"""How far a judge agrees with people: on rows with human grades, and with itself in another order.

The judge's own error rate belongs beside each figure that rests on it (Zheng et al. 2023, "Judging
LLM-as-a-judge": judges favour a position, length, and themselves).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pytest_ftloop.core.errors import DataError, Location
from pytest_ftloop.evaluate.judge import Case, JudgeScorer

LEAST_KAPPA = 0.6
"""Below this, agreement is moderate at best by the usual scale (Landis & Koch 1977)."""

MOST_FLIPS = 0.1
"""The largest share of verdicts that may change with the order of the texts. A judge that is blind
to the order changes none; a tenth moves a pass rate by up to ten points, which is more than most
gates allow."""

Z = 1.959964
"""The 97.5% point of the normal distribution, for two-sided intervals of 95%."""


@dataclass(frozen=True)
class Graded:
    """A row with a human grade: the case, and whether a person passes the output."""

    case: Case
    passes: bool


@dataclass(frozen=True)
class Agreement:
    """What a judge says of graded rows.

    Of `rows` the judge agrees on `agreed`. Of `failing`, which people fail, it passes
    `false_passes`; of `passing` it fails `false_fails`. `compared` rows have an expected answer;
    with the order of the texts swapped, `flips` of them change their verdict.
    """

    rows: int
    agreed: int
    failing: int
    false_passes: int
    passing: int
    false_fails: int
    compared: int
    flips: int

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance (Cohen 1960). NaN where one verdict is all."""
        by_people = self.passing / self.rows
        by_judge = (self.passing - self.false_fails + self.false_passes) / self.rows
        chance = by_people * by_judge + (1 - by_people) * (1 - by_judge)
        return math.nan if chance == 1 else (self.agreed / self.rows - chance) / (1 - chance)

    @property
    def is_doubtful(self) -> bool:
        """Whether figures by this judge should not be relied on."""
        flips = self.compared > 0 and self.flips / self.compared > MOST_FLIPS
        return self.kappa < LEAST_KAPPA or flips

    @property
    def text(self) -> str:
        """`the judge agrees with 41 of 50 human grades (82%, 95% interval 69 to 90%); ...`."""
        parts = [
            f"the judge agrees with {_share(self.agreed, self.rows, 'human grades')}",
            f"false passes {_share(self.false_passes, self.failing)}",
            f"false fails {_share(self.false_fails, self.passing)}",
        ]
        if not math.isnan(self.kappa):
            parts.append(f"kappa {self.kappa:.2f}")
        if self.compared:
            swapped = _share(self.flips, self.compared)
            parts.append(f"verdicts that change when output and expected answer swap: {swapped}")
        return "; ".join(parts)

    def as_record(self) -> dict[str, int]:
        """The counts as plain values, for a record's facts."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Agreement:
        """The agreement of `as_record`."""
        return cls(**record)


def agreement(scorer: JudgeScorer, graded: Sequence[Graded]) -> Agreement:
    """Ask the judge for each row, and for those with an expected answer in the other order, too."""
    swapped = [replace(row.case, output_first=True) for row in graded if row.case.expected]
    scorer.ask([*(row.case for row in graded), *swapped])
    verdicts = [_passes(scorer, row.case) for row in graded]
    human = [row.passes for row in graded]
    pairs = list(zip(human, verdicts, strict=True))
    flips = [_passes(scorer, case) != _passes(scorer, _turned(case)) for case in swapped]
    return Agreement(
        rows=len(pairs),
        agreed=sum(person == judge for person, judge in pairs),
        failing=human.count(False),
        false_passes=pairs.count((False, True)),
        passing=human.count(True),
        false_fails=pairs.count((True, False)),
        compared=len(swapped),
        flips=sum(flips),
    )


def graded_rows(
    rows: Iterable[tuple[Mapping[str, Any], Location | None]],
    scorer: JudgeScorer,
    where: Location | None,
) -> tuple[Graded, ...]:
    """The rows of `judge_check`: prompt, output, perhaps expected, and grade or pass.

    Raises `DataError` for a row without them, or a grade off the judge's scale.
    """
    found = tuple(_graded(row, place or where, scorer) for row, place in rows)
    if not found:
        raise DataError("judge_check has no rows", where=where)
    return found


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share (Wilson 1927); 0 to 1 without any observation."""
    if of == 0:
        return 0.0, 1.0
    z, share = Z, hits / of
    widening = 1 + z * z / of
    centre = (share + z * z / (2 * of)) / widening
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / widening
    return max(0.0, centre - half), min(1.0, centre + half)


def _share(hits: int, of: int, what: str = "") -> str:
    if of == 0:
        return "none of 0"
    low, high = wilson(hits, of)
    words = f"{hits} of {of}{f' {what}' if what else ''}"
    return f"{words} ({hits / of:.0%}, 95% interval {100 * low:.0f} to {high:.0%})"


def _passes(scorer: JudgeScorer, case: Case) -> bool:
    return scorer.verdict(scorer.score(case))


def _turned(case: Case) -> Case:
    return replace(case, output_first=not case.output_first)


def _graded(row: Mapping[str, Any], where: Location | None, scorer: JudgeScorer) -> Graded:
    texts = {name: row.get(name) for name in ("prompt", "output")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise DataError(
                f"judge_check: wanted a text in {name}, found {type(text).__name__}", where=where
            )
    expected = str(row.get("expected") or "").strip()
    case = Case(str(texts["prompt"]), expected, str(texts["output"]), where=where)
    return Graded(replace(case, name="a row of judge_check"), _human(row, where, scorer))


def _human(row: Mapping[str, Any], where: Location | None, scorer: JudgeScorer) -> bool:
    """Whether a person passes the row: by its `pass`, or by its `grade` as for the judge's."""
    if isinstance(row.get("pass"), bool):
        return bool(row["pass"])
    low, high = scorer.judge.scale
    try:
        grade = float(row.get("grade", math.nan))
    except (TypeError, ValueError):
        grade = math.nan
    if not low <= grade <= high:
        raise DataError(
            f"judge_check: wanted pass (true or false), or a grade from {low:g} to {high:g}; found "
            f"{row.get('pass', row.get('grade'))!r}",
            where=where,
        )
    return scorer.verdict(scorer.judge.score(grade))
