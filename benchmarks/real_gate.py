"""Real A/A: the quickstart trained with 20 seeds, and judged pairwise by the real command.

    python benchmarks/real_gate.py [--runs DIR] [--quick] [--train-only]

First the runs are trained, each through the project's own loop with a log of its own: 20 seeds of
the accepted settings, 9 of each planted fault; about half an hour of one core. What DIR holds is
not trained again. Then each comparison is a git repository: its commit holds the baseline's loop
file, data and log, its working tree the candidate's on top, and `ftloop gate --json` gives the
verdict (in this process, to spare thousands of interpreter starts; some are repeated in a process
of their own, which must print the same). Every verdict is kept in DIR/judged.jsonl.

Nothing changed: each ordered pair of the 20 seeds. The candidate states a setting that is the
default (lora.bias: none), so that its settings are another group's, as with an innocent change;
its training is the same to the last bit, which is checked. Beside it the candidates whose seed
alone was changed: the log uses those for A/A.

Escalation is the tool's: where one seed is in doubt (p <= 20%), two more seeds of the candidate are
in the log, and that verdict counts. Before, the gate may end with 3, to ask for these seeds: that
is no failure of the model. Exits 1 when a call ends otherwise with neither 0 nor 1, or its
repetition prints something else.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from real_gate_court import Answer, Court, Side, Tally
from real_gate_runs import (
    FAULTS,
    RESTATED,
    UNCHANGED,
    Known,
    Plan,
    Trained,
    earlier,
    tell,
    train,
)

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.noise import Prior, SeedNoise, pool, replicates
from pytest_ftloop.core.records import Iteration, SeedRun
from pytest_ftloop.core.runs import EXAMPLE_METRICS, differences
from pytest_ftloop.gate.comparison import SEEDS_IN_DOUBT
from pytest_ftloop.gate.statistic import paired_test
from pytest_ftloop.loop.seeds import CALIBRATION_SEEDS
from pytest_ftloop.report.markdown import markdown_table

PAIRS = 8
ALPHA = 0.01


def main() -> int:
    """Train what is not there yet, judge all pairs, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where the runs are kept")
    parser.add_argument("--quick", action="store_true", help="three seeds of each")
    parser.add_argument("--smoke", action="store_true", help="the same, with two steps each")
    parser.add_argument("--train-only", action="store_true", help="judge nothing yet")
    chosen = parser.parse_args()
    folder = (chosen.runs or cache_folder() / "real-gate").absolute()
    if chosen.smoke:
        folder, plan = folder / "smoke", Plan(3, 3, 2, max_steps=2)
    else:
        plan = Plan(3, 3, 2) if chosen.quick else Plan()
    trained = train(plan, folder)
    if chosen.train_only:
        return 0
    few = chosen.quick or chosen.smoke
    with tempfile.TemporaryDirectory(prefix="ftloop-real-gate-") as made:
        court = Court(Path(made), folder / ("judged-quick.jsonl" if few else "judged.jsonl"))
        known = {v.name: Known(v, *v.inputs(folder)) for v in plan.variants}
        for line in report(plan, trained, known, court):
            print(line, flush=True)
    if few:
        print("A quick test: the logs hold fewer runs than they are named for.")
    return 1 if court.errors else 0


def report(plan: Plan, trained: Trained, known: Mapping[str, Known], court: Court) -> Iterator[str]:
    """All tables, as lines of Markdown."""
    started = time.perf_counter()
    yield from noise(trained)
    yield from false_alarms(plan, trained, known, court)
    yield from found(plan, trained, known, court)
    runs = [run for by_seed in trained.values() for run in by_seed.values()]
    yield ""
    yield (
        f"{len(runs)} runs trained in {sum(run.cost.seconds for run in runs):.0f} s, "
        f"{court.calls} calls of ftloop gate in {time.perf_counter() - started:.0f} s; "
        f"{court.repeated} repeated in a process of their own, {len(court.errors)} errors. "
        f"{shown_environment(runs[0].environment)}"
    )
    yield from (f"- {error.splitlines()[0]}" for error in court.errors[:10])


def shown_environment(environment: Mapping[str, str]) -> str:
    """`Trained on: cpu, 1 threads, torch 2.13.0+cpu, ...`."""
    parts = (environment["device"], f"{environment['threads']} threads")
    versions = (f"{name} {environment[name]}" for name in ("torch", "transformers", "trl", "peft"))
    return f"Trained on: {', '.join((*parts, *versions))}."


def noise(trained: Trained) -> Iterator[str]:
    """The spread over the seeds, and the mean change by each fault."""
    yield from heading("The runs: figures of the eval set over the seeds, and the mean change")
    rows: list[Sequence[object]] = []
    usual = {name: figures(trained[UNCHANGED.name], name) for name in ("eval_loss", "pass_rate")}
    level = fmean(usual["eval_loss"])
    for variant in (UNCHANGED, *FAULTS):
        losses = figures(trained[variant.name], "eval_loss")
        rates = figures(trained[variant.name], "pass_rate")
        changes = ("", "")
        if variant is not UNCHANGED:
            points = 100 * (fmean(rates) - fmean(usual["pass_rate"]))
            changes = (f"{100 * (fmean(losses) / level - 1):+.1f}%", f"{points:+.1f} points")
        rows.append(
            [
                variant.shown,
                len(losses),
                f"{fmean(losses):.4f}",
                f"{stdev(losses):.4f} ({100 * stdev(losses) / fmean(losses):.1f}%)",
                changes[0],
                f"{100 * fmean(rates):.1f}%",
                f"{100 * stdev(rates):.1f} points",
                changes[1],
            ]
        )
    heads = ["train runs", "seeds", "eval loss", "sd", "change", "pass rate", "sd", "change"]
    yield from table(heads, rows)
    yield ""
    for name, unit in (("eval_loss", level), ("pass_rate", 1.0)):
        metric = EXAMPLE_METRICS[name]
        group = replicates(
            [metric.values(sorted_rows(r)) for r in trained[UNCHANGED.name].values()]
        )
        yield (
            f"{name}: the sd of a run's mean is {100 * math.sqrt(group.run_variance) / unit:.2f}%, "
            f"the seed x example interaction alone would make it "
            f"{100 * math.sqrt(group.interaction / group.n) / unit:.2f}% if examples were "
            f"independent; the gate's seed noise is the difference of the squares, "
            f"{100 * math.sqrt(max(pool([group]).variance, 0.0)) / unit:.2f}%."
        )


def figures(runs: Mapping[int, Iteration], name: str) -> list[float]:
    return [run.metrics[name] for run in runs.values()]


LOGS = {
    "nothing else": "1",
    "5 seeds of an earlier version": "1",
    "the baseline calibrated": str(CALIBRATION_SEEDS),
    "8 A/A pairs of earlier versions": "1",
}
"""What the log holds beside the two iterations, and the baseline's seeds."""
SEED_ALONE = {"nothing else": "1", "5 seeds of these settings": "6"}


def false_alarms(
    plan: Plan, trained: Trained, known: Mapping[str, Known], court: Court
) -> Iterator[str]:
    """Each ordered pair of the unchanged runs, by what the log holds."""
    runs, cells = trained[UNCHANGED.name], {name: Tally() for name in LOGS}
    alone = {name: Tally() for name in SEED_ALONE}
    base, same = known[UNCHANGED.name], known[RESTATED.name]
    pairs = [(a, b) for a in runs for b in runs if a != b]
    clock = Clock("unchanged pairs", len(pairs))
    for a, b in pairs:
        others = [runs[seed] for seed in plan.others(a, b)]
        calibrating, paired = others[2:7], others[2 : 2 + 2 * PAIRS]
        old, new, itself = (
            base.iteration(runs[a], 1),
            same.iteration(runs[b], 2),
            base.iteration(runs[b], 2),
        )
        more = same.seed_runs(new, others[:2], "gate")
        calibrated = base.seed_runs(old, calibrating, "calibration")
        logs: dict[str, list[SeedRun]] = {
            "nothing else": [],
            "5 seeds of an earlier version": earlier(calibrating, "earlier"),
            "the baseline calibrated": calibrated[: CALIBRATION_SEEDS - 1],
            "8 A/A pairs of earlier versions": [
                run for pair in two_by_two(paired) for run in earlier(pair, pair_name(pair))
            ],
        }
        for name, log in logs.items():
            before = Side(base.variant.files(a), [old, *log])
            after = Side(same.variant.files(b), [new])
            cells[name].add(court, f"A/A {a} -> {b}, log: {name}", before, after, more)
        for name, log in zip(SEED_ALONE, ([], calibrated), strict=True):
            before, after = (
                Side(base.variant.files(a), [old, *log]),
                Side(base.variant.files(b), [itself]),
            )
            alone[name].add(court, f"A/A by seed alone {a} -> {b}, log: {name}", before, after, [])
        clock.tick()
    yield from heading(
        f"False alarms: {len(pairs)} ordered pairs of {len(runs)} runs with nothing changed"
    )
    heads = [
        "the log holds", "baseline seeds", "one seed fails", "95% interval", "with escalation",
        "95% interval", "candidate runs", "improved", "inconclusive", "a tag regressed",
        "train_loss or overfit_gap regressed",
    ]  # fmt: skip
    rows: list[Sequence[object]] = []
    for name, cell in cells.items():
        failing = (*shares(a.failed for a in cell.one), *shares(a.failed for a in cell.settled))
        rows.append([name, LOGS[name], *failing, f"{cell.runs:.2f}", *beside(cell.settled)])
    for name, cell in alone.items():
        ones = shares(answer.failed for answer in cell.one)
        seeds = SEED_ALONE[name]
        what = f"{name}; the seed alone was changed"
        rows.append([what, seeds, *ones, "", "", "", *beside(cell.one)])
    for name, rival in RIVALS.items():
        ones = shares(rival(runs[a], runs[b]) for a, b in pairs)
        rows.append([f"(for comparison: {name})", "1", *ones, *[""] * 7])
    yield from table(heads, rows)
    yield ""
    yield (
        "Binomial intervals (Wilson); the pairs share their runs and are not independent, so the "
        "true intervals are wider. At most half of the ordered pairs can fail."
    )
    failing_pairs = Counter(
        pair
        for cell in cells.values()
        for pair, answer in zip(pairs, cell.settled, strict=True)
        if answer.failed
    )
    if failing_pairs:
        shown = ", ".join(f"{a} -> {b} ({n} logs)" for (a, b), n in failing_pairs.most_common(12))
        yield f"Pairs that fail with escalation: {shown}."


def found(plan: Plan, trained: Trained, known: Mapping[str, Known], court: Court) -> Iterator[str]:
    """Each planted fault against several baselines."""
    runs, base = trained[UNCHANGED.name], known[UNCHANGED.name]
    baselines = list(runs)[: plan.baselines]
    yield from heading("Planted faults found")
    heads = [
        "fault", "the log holds", "baseline seeds", "one seed fails", "95% interval",
        "with escalation", "95% interval", "candidate runs", "improved", "n",
    ]  # fmt: skip
    rows: list[Sequence[object]] = []
    clock = Clock("faulty pairs", len(FAULTS) * len(baselines) * plan.faulty)
    for fault in FAULTS:
        faulty, them = trained[fault.name], known[fault.name]
        cells = {(log, k): Tally() for log in list(LOGS)[:2] for k in (1, 3)}
        for a in baselines:
            others = [runs[seed] for seed in plan.others(a)]
            old = base.iteration(runs[a], 1)
            logs: tuple[list[SeedRun], ...] = ([], earlier(others[2:7], "earlier"))
            for candidate in faulty.values():
                new = them.iteration(candidate, 2)
                more = them.seed_runs(new, following(faulty, candidate.seed), "gate")
                for name, log in zip(list(LOGS)[:2], logs, strict=True):
                    for k in (1, 3):
                        seeds = base.seed_runs(old, others[: k - 1], "gate")
                        before = Side(base.variant.files(a), [old, *seeds, *log])
                        after = Side(them.variant.files(candidate.seed), [new])
                        scene = f"{fault.name} {a} ({k} seeds) -> {candidate.seed}, log: {name}"
                        cells[name, k].add(court, scene, before, after, more)
                clock.tick()
        for (name, k), cell in cells.items():
            failing = (*shares(a.failed for a in cell.one), *shares(a.failed for a in cell.settled))
            improved = f"{percent(share(cell.settled, 'improved'))}%"
            rows.append([fault.shown, name, k, *failing, f"{cell.runs:.2f}", improved, cell.n])
    yield from table(heads, rows)


def following(runs: Mapping[int, Iteration], seed: int) -> list[Iteration]:
    """The runs of the two seeds after one, as the tool takes them; the first follows the last."""
    seeds = list(runs)
    place = seeds.index(seed)
    return [runs[seeds[(place + i) % len(seeds)]] for i in range(1, SEEDS_IN_DOUBT)]


def two_by_two(runs: Sequence[Iteration]) -> Iterator[tuple[Iteration, Iteration]]:
    return zip(runs[::2], runs[1::2], strict=False)


def pair_name(pair: Sequence[Iteration]) -> str:
    return "pair " + " ".join(str(run.seed) for run in pair)


def paired_t(before: Iteration, after: Iteration) -> bool:
    """Whether the paired t-test over examples fails it at 1%: the gate's without any seed noise."""
    loss = EXAMPLE_METRICS["eval_loss"]
    values = [loss.values(sorted_rows(run)) for run in (before, after)]
    changes = differences([new - old for old, new in zip(*values, strict=True)])
    test = paired_test(changes, 1, 1, SeedNoise(0.0, 0.0, 0), Prior(0.0, 1.0), ALPHA)
    return test.p_worse <= ALPHA


def sorted_rows(run: Iteration) -> list[Any]:
    return sorted(run.examples, key=lambda row: row.id)


def tolerance(before: Iteration, after: Iteration) -> bool:
    """Whether the loss rose by more than 2%."""
    return after.metrics["eval_loss"] > 1.02 * before.metrics["eval_loss"]


def points(before: Iteration, after: Iteration) -> bool:
    """Whether the pass rate fell by more than 2 points."""
    return after.metrics["pass_rate"] < before.metrics["pass_rate"] - 0.02


RIVALS: Mapping[str, Callable[[Iteration, Iteration], bool]] = {
    "paired t-test of the loss over the examples alone, 1%": paired_t,
    "tolerance of 2% of the loss": tolerance,
    "tolerance of 2 points of the pass rate": points,
}


class Clock:
    """Progress with the time left."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.started = self.shown = time.perf_counter()

    def tick(self) -> None:
        """One more is done; print it every 20 s, and the last."""
        self.done += 1
        now = time.perf_counter()
        if now - self.shown > 20 or self.done == self.total:
            self.shown = now
            left = (now - self.started) / self.done * (self.total - self.done)
            tell(f"{self.what}: {self.done} of {self.total}, about {left / 60:.1f} min left")


def share(answers: Sequence[Answer], kind: str) -> float:
    return fmean(answer.kind == kind for answer in answers)


def beside(answers: Sequence[Answer]) -> Iterator[str]:
    """The share of each other verdict, and of tags and of figures of whole runs that regressed."""
    for kind in ("improved", "inconclusive"):
        yield f"{percent(share(answers, kind))}%"
    for part in ("tags", "runs"):
        worse = [
            any(change["kind"] == "regressed" for change in answer.verdict.get(part, ()))
            for answer in answers
        ]
        yield f"{percent(fmean(worse))}%"


def shares(outcomes: Iterable[bool]) -> tuple[str, str]:
    """A share in percent with its count, and its interval."""
    all_ = list(outcomes)
    count, n = sum(all_), len(all_)
    low, high = wilson(count, n)
    return f"{percent(count / n)}% ({count})", f"{percent(low)} to {percent(high)}%"


def wilson(count: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95% interval of a binomial share."""
    centre, spread = count + z * z / 2, z * math.sqrt(count * (n - count) / n + z * z / 4)
    return max(0.0, (centre - spread) / (n + z * z)), min(1.0, (centre + spread) / (n + z * z))


def heading(text: str) -> tuple[str, ...]:
    return "", f"**{text}**", ""


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table of our own words."""
    texts = (map(str, row) for row in rows)
    return markdown_table(headers, [[*row] for row in texts], escape=str, compact=True).splitlines()


def percent(part: float) -> str:
    return f"{100 * part:.1f}".removesuffix(".0")


if __name__ == "__main__":
    sys.exit(main())
