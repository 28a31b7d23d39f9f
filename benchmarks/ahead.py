"""`make bench-ahead`: what it brings to train on a guess what the rules may ask for next.

From starts that are wrong in one thing, the rules have 1 + 4 iterations; trainings are real, one at
a time. From their seconds follows when each iteration would be in the log: in turn, and with `N`
workers of which the idle ones train guesses (`loop.parallel`). The log is the same, so at equal
steps both are equal. What differs is the wall time, and how far each is at a given time.

    python benchmarks/ahead.py [hotel library ...] [--base narrow] [--kept DIR] [--workers N]

`make bench-parallel` measures the same with real workers.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import policy
from bases import BASES

from pytest_ftloop import adjust
from pytest_ftloop.core.records import Iteration
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.report.markdown import markdown_table

GRID = policy.Plan(rates=(1e-3, 4e-3, 1.6e-2), epochs=(3, 8))
"""The grid that says which learning rate is right; the starts are wrong from there."""


@dataclass(frozen=True)
class Line:
    """One start: its chain, which of the guesses were right, and when iterations were in the log.

    `in_turn` and `ahead` are seconds after the start, for each iteration.
    """

    name: str
    chain: tuple[Iteration, ...]
    right: tuple[bool, ...]
    in_turn: tuple[float, ...]
    ahead: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The wall time of the whole chain with guesses, as a share of that in turn."""
        return self.ahead[-1] / self.in_turn[-1]

    def best_at(self, seconds: float, ends: Sequence[float]) -> float:
        """The lowest eval loss that is in the log after so many seconds."""
        done = [i for i, end in zip(self.chain, ends, strict=True) if end <= seconds]
        return min((i.metrics["eval_loss"] for i in done), default=float("inf"))


def line_of(start: policy.Start, chain: tuple[Iteration, ...], workers: int) -> Line:
    """What a chain of the rules would have taken with guesses."""
    seconds = [iteration.cost.seconds for iteration in chain]
    right = tuple(
        _is_guessed(chain[:n], chain[n], chain[n + 1], workers - 1)
        for n in range(1, len(chain) - 1)
    )
    ends: list[float] = []
    for n, needed in enumerate(seconds):
        now = ends[-1] if ends else 0.0
        # A right guess was begun when the iteration before it was.
        begun = ends[-2] if n > 1 and right[n - 2] else now
        ends.append(max(now, begun + needed))
    in_turn = [sum(seconds[: n + 1]) for n in range(len(seconds))]
    name = f"{start.task.name}: {start.name}"
    return Line(name, chain, right, tuple(in_turn), tuple(ends))


def _is_guessed(known: Sequence[Iteration], first: Iteration, then: Iteration, most: int) -> bool:
    """Whether the iteration `then` is guessed while `first` is trained."""
    guessed = adjust.guess(adjust.Rules(), known, first.settings, "eval_loss", most)
    return adjust.canonical(then.settings) in map(adjust.canonical, guessed)


def lines(trainer: policy.Trainer, chosen: argparse.Namespace) -> Iterator[Line]:
    """Every start of the tasks asked for."""
    for task in [policy.small_task()] if chosen.smoke else policy.tasks_of(chosen):
        best, _ = policy.grid(trainer, task, policy.SMOKE if chosen.smoke else GRID)
        starts = policy.starts_of(task, best)
        for start in starts[:1] if chosen.smoke else starts:
            with tempfile.TemporaryDirectory() as folder:
                config = policy.config_of(start.task, start.settings, Path(folder), policy="rules")
                backend = trainer.backend(start.task)
                count = 3 if chosen.smoke else policy.Plan.iterations
                chain = Loop(config, Options(iterations=count), backend=backend).run().chain
            yield line_of(start, chain, chosen.workers)


def report(found: Sequence[Line], workers: int) -> Iterator[str]:
    """The table, and what follows from it."""
    heads = ["start", "iterations", "guesses right", "in turn, s", f"{workers} workers, s", "ratio"]
    rows = [
        [
            line.name,
            str(len(line.chain)),
            f"{sum(line.right)} of {len(line.right)}",
            f"{line.in_turn[-1]:.1f}",
            f"{line.ahead[-1]:.1f}",
            f"{line.ratio:.2f}",
        ]
        for line in found
    ]
    yield markdown_table(heads, rows, right=range(1, len(heads)), escape=str, compact=True)
    yield ""
    right, of = sum(sum(line.right) for line in found), sum(len(line.right) for line in found)
    yield f"Guesses right: {right} of {of}."
    yield (
        f"Wall time: {statistics.median(line.ratio for line in found):.2f} of that in turn (median "
        f"of {len(found)} starts), {sum(line.ahead[-1] for line in found):.0f} s against "
        f"{sum(line.in_turn[-1] for line in found):.0f} s of all."
    )
    better = worse = 0
    for line in found:  # when the chain is complete with workers
        now = line.ahead[-1]
        ahead, in_turn = line.best_at(now, line.ahead), line.best_at(now, line.in_turn)
        better, worse = better + (ahead < in_turn), worse + (ahead > in_turn)
    yield (
        f"At equal wall time (when the chain is complete with workers), the best eval loss in the "
        f"log is lower for {better} of {len(found)} starts, and higher for {worse}."
    )


def main() -> None:
    """Play the rules from every start, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help="routing, hotel, library, banking (with --csv)")
    parser.add_argument("--base", choices=BASES, default="tiny", help="the base model")
    parser.add_argument("--kept", type=Path, default=Path(".bench/policy"), help="the trainings")
    parser.add_argument("--csv", type=Path, help="of banking: a file with text,category")
    parser.add_argument("--workers", type=int, default=2, help="that train at once (default: 2)")
    parser.add_argument("--smoke", action="store_true", help="a few steps from one start")
    chosen = parser.parse_args()
    found = list(lines(policy.Trainer(chosen.kept), chosen))
    print("\n".join(report(found, chosen.workers)))


if __name__ == "__main__":
    main()
