"""`make bench-refute`: does what comes later refute a finding? A replay over training logs.

At each evaluation point of a log the run is diagnosed as if it had been looked at then. What the
log holds after that point shows whether the finding was right:

- `overfitting` and `converged` are refuted if the eval loss later falls more than 2% below its
  lowest so far;
- a run whose eval loss ends over 10% above its lowest, and stays there, did overfit (or was driven
  too fast): the share that is named at its end is the detection;
- `plateau` is replayed at each iteration of made-up chains. It names the settings that were changed
  in vain, and is refuted if more changes of these alone gain over 2%, without the seed's noise.

    python benchmarks/refute.py [--kept DIR] [--states DIR] [--logs N] [--verbose]

The logs: made-up ones of many shapes, strides and noises; the runs recorded for the tests; the
trainings that `make bench-faults` and others keep (`--kept`), each as its own trainer would have
logged it and as coarsely as others do; and any folder of `trainer_state.json` files (`--states`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from refute_chains import Chain, made_up_chains, said_of, template
from refute_logs import Log, kept, made_up, recorded, stored

from pytest_ftloop.core.errors import DataError
from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.any_trainer.trainer_state import findings_of, read_state
from pytest_ftloop.report.markdown import markdown_table

REFUTED = 0.02
"""Relative fall of the loss below its lowest so far that refutes "it gets no better"."""

ENDED_WORSE = 0.1
"""Relative rise of the last eval losses above the lowest: in hindsight the run got worse."""

CLAIMS = ("overfitting", "converged")
"""Findings that claim the eval loss will get no better."""

NAMED = frozenset({"overfitting", "overconfidence", "oscillation", "diverged", "non-finite"})
"""Kinds that name a run which got worse."""


@dataclass
class Tally:
    """What one group of logs showed.

    `spoke` and `refuted` count evaluation points by kind, `ends` the logs of which it is said at
    the end. `worse` logs got worse, and are `named` so by kind.
    """

    logs: int = 0
    points: int = 0
    spoke: Counter[str] = field(default_factory=Counter)
    refuted: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    worse: int = 0
    named: Counter[str] = field(default_factory=Counter)


def main() -> None:
    """Replay all logs, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kept", type=Path, action="append", default=[], help="kept trainings")
    parser.add_argument("--states", type=Path, action="append", default=[], help="trainer states")
    parser.add_argument("--logs", type=int, default=400, help="made-up logs")
    parser.add_argument("--verbose", action="store_true", help="print what was refuted")
    chosen = parser.parse_args()
    groups: dict[str, Iterable[Log]] = {
        "made up": made_up(chosen.logs),
        "recorded": recorded(),
        **{f"kept in {folder.name}": kept(folder) for folder in chosen.kept},
        **{f"states in {folder.name}": stored(folder) for folder in chosen.states},
    }
    tallies = {name: replayed(logs, verbose=chosen.verbose) for name, logs in groups.items()}
    print(table(tallies))
    print()
    print(detection(tallies))
    print()
    print(of_chains(made_up_chains(chosen.logs)))


def of_chains(chains: Iterable[Chain]) -> str:
    """Per shape of chain: at how many iterations `plateau` spoke, and how often it was refuted.

    It speaks of the settings that it names: only more changes of these can refute it.
    """
    model = template()
    tallies: dict[str, Tally] = {}
    for chain in chains:
        tally = tallies.setdefault(chain.shape, Tally())
        tally.logs += 1
        for count in range(3, len(chain.measured)):
            tally.points += 1
            if named := said_of(model, chain.measured[:count], chain.settings[:count]):
                tally.spoke["plateau"] += 1
                tally.refuted["plateau"] += chain.gains(count, named) > REFUTED
        tally.ends["plateau"] += bool(said_of(model, chain.measured, chain.settings))
    return table(tallies, ("plateau",), of="chains")


def replayed(logs: Iterable[Log], *, verbose: bool) -> Tally:
    """Diagnose each log at each of its evaluation points."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        for log in logs:
            losses = [loss for _, loss in log.evals]
            tally.logs += 1
            for index in range(len(losses) - 1):
                tally.points += 1
                found = diagnosed(log.until(index), Path(folder))
                for kind in {f.kind for f in found} & {*CLAIMS}:
                    tally.spoke[kind] += 1
                    lowest, later = min(losses[: index + 1]), min(losses[index + 1 :])
                    if later < (1 - REFUTED) * lowest:
                        tally.refuted[kind] += 1
                        if verbose:
                            show(log, index, next(f for f in found if f.kind == kind))
            found = diagnosed(log.state, Path(folder))
            tally.ends.update({f.kind for f in found} & {*CLAIMS})
            if ended_worse(losses):
                tally.worse += 1
                kinds = [f.kind for f in found if f.kind in NAMED]
                tally.named[kinds[0] if kinds else "nothing"] += 1
                if verbose and not kinds:
                    print(f"missed: {log.name}: {shown(losses)}", file=sys.stderr)
    return tally


def diagnosed(state: dict[str, object], folder: Path) -> Sequence[Finding]:
    """The findings on a state, read as any trainer's file is."""
    path = folder / "trainer_state.json"
    path.write_text(json.dumps(state))
    try:
        return findings_of(read_state(path))
    except DataError:
        return ()


def ended_worse(losses: Sequence[float]) -> bool:
    """Whether the last quarter of the points, at least two, stands well above the lowest."""
    last = losses[-max(2, len(losses) // 4) :]
    return len(losses) > 2 and min(last) > (1 + ENDED_WORSE) * min(losses)


def table(tallies: dict[str, Tally], claims: Sequence[str] = CLAIMS, of: str = "logs") -> str:
    """Per group and kind: at how many points it spoke, and how many of these were refuted."""
    rows = []
    for name, tally in tallies.items():
        for kind in claims:
            spoke, refuted = tally.spoke[kind], tally.refuted[kind]
            share = f"{refuted / spoke:.1%}" if spoke else "-"
            counts = [tally.logs, tally.points, spoke, refuted, tally.ends[kind]]
            logs, points, *others, ends = map(str, counts)
            rows.append([name, logs, points, f"`{kind}`", *others, share, ends])
    heads = ["of", of, "points", "finding", "spoke", "refuted", "share", "at ends"]
    return markdown_table(heads, rows, right=(1, 2, 4, 5, 6, 7), escape=str, compact=True)


def detection(tallies: dict[str, Tally]) -> str:
    """Per group: of the runs that ended worse, what their end is called."""
    rows = []
    for name, tally in tallies.items():
        found = tally.worse - tally.named["nothing"]
        kinds = ", ".join(f"`{kind}` {count}" for kind, count in tally.named.most_common())
        rows.append([name, str(tally.worse), str(found), kinds])
    heads = ["logs", "ended worse", "named", "as"]
    return markdown_table(heads, rows, right=(1, 2), escape=str, compact=True)


def show(log: Log, index: int, finding: Finding) -> None:
    """One refuted finding, with the curve so far and after."""
    losses = [loss for _, loss in log.evals]
    print(
        f"{log.name}: {finding.kind}: {finding.message}\n"
        f"    {shown(losses[: index + 1])} | {shown(losses[index + 1 :])}",
        file=sys.stderr,
    )


def shown(losses: Sequence[float]) -> str:
    """The losses, at most the last sixteen."""
    return " ".join(f"{loss:.4g}" for loss in losses[-16:])


if __name__ == "__main__":
    main()
