"""What pytest prints about loops, sent from xdist workers to the process that prints.

News travels with pytest's test reports, so it consists of plain values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.git import ignored_by_git
from pytest_ftloop.plugin.compared import compared_lines
from pytest_ftloop.report.gate_changes import change_lines
from pytest_ftloop.report.screen import run_parts, screen, verdict_parts
from pytest_ftloop.report.to_commit import files_to_commit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.config.gates import Regression
    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.loop.result import LoopResult

News = Mapping[str, Any]
Key = tuple[str, str]
"""A loop's log folder and the name of its first iteration: one log may hold several loops."""


def key_of(result: LoopResult) -> Key:
    """What tells a loop's news from those of others."""
    return (str(result.log_folder), result.chain[0].name)


def news_of_run(result: LoopResult, file: str, verbosity: int, width: int) -> News:
    """A loop that ran. `file` is empty for a loop made in Python."""
    new = len(result.written)
    ignored = ignored_by_git(files_to_commit(result))
    run = run_parts(result, verbosity, width, ignored=ignored)
    told = {"best": result.best.name, "metric": result.metric, "eval_set": eval_set_of(result)}
    return news_of_changes(result, width) | told | {"new": new, "run": run, "file": file}


def eval_set_of(result: LoopResult) -> str:
    """What tells the loop's eval set from another one; of a record without a hash, the loop."""
    sha = result.best.data.get("eval", {}).get("sha256")
    return str(sha or result.log_folder)


def news_of_changes(result: LoopResult, width: int) -> dict[str, Any]:
    """What changed in the loop's gates, as far as the result knows."""
    changes = change_lines(result.gate_changes, width)
    return {"loop": result.loop, "key": key_of(result), "changes": changes}


def news_of_verdict(
    result: LoopResult,
    rule: Regression,
    verdict: Verdict,
    notes: Sequence[str],
    width: int,
) -> News:
    """The verdict of one regression gate, and the notes that judging added."""
    parts = verdict_parts(result, rule, verdict, notes, width)
    return news_of_changes(result, width) | {"gate": rule.name, "verdict": parts}


@dataclass
class Board:
    """Collects the news of all loops in the process that prints it."""

    runs: dict[Key, News] = field(default_factory=dict)
    verdicts: dict[Key, dict[str, News]] = field(default_factory=dict)
    changes: dict[Key, list[str]] = field(default_factory=dict)

    def add(self, news: Iterable[News]) -> None:
        """Add news. If several processes ran a loop, the one that trained most of it counts."""
        for one in news:
            folder, start = one["key"]  # a list, if it comes from an xdist worker
            key = (folder, start)
            if one["changes"]:
                self.changes[key] = one["changes"]
            if "verdict" in one:
                self.verdicts.setdefault(key, {})[one["gate"]] = one["verdict"]
            if "run" not in one:
                continue
            known = self.runs.get(key)
            if known is None or one["new"] >= known["new"]:
                self.runs[key] = one

    def compared(self, verbosity: int, width: int) -> list[str]:
        """The table of the loops that were measured on one eval set."""
        return compared_lines([news for _, news in sorted(self.runs.items())], verbosity, width)

    def sections(self, verbosity: int, width: int) -> Iterable[tuple[str, list[str]]]:
        """Each loop's name and lines."""
        for key, news in sorted(self.runs.items()):
            verdicts = [*self.verdicts.get(key, {}).values()]
            lines = screen(news["run"], verdicts, self.changes.get(key, []), verbosity, width)
            yield news["loop"], lines
