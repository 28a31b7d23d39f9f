"""Real A/A: the quickstart trained with 20 seeds, and judged pairwise by the real command.

    python benchmarks/real_gate.py [--runs DIR] [--quick] [--train-only] [--markdown FILE]

First the runs are trained, each through the project's own loop with a log of its own (20 seeds of
the accepted settings, 9 of each planted fault; about half an hour of one core; what DIR holds is
not trained again). Then each comparison is a git repository: its commit holds the baseline's loop
file, data and log, its working tree the candidate's on top, and `ftloop gate --json` says what it
says (in this process, to spare thousands of interpreter starts; some are repeated in a process of
their own, and must say the same). Every verdict is kept in DIR/judged.jsonl.

Nothing changed: each ordered pair of the 20 seeds. The candidate states a setting that is the
default (lora.bias: none), so that its settings are another group's, as with an innocent change;
its training is the same to the last bit, which is checked. Beside it the candidates of which the
seed alone was changed: the log knows those for A/A.

Escalation is the tool's: where one seed is in doubt (p <= 20%), two more seeds of the candidate are
in the log, and that verdict counts. Exits 1 when a call ends with neither 0 nor 1, or its
repetition says something else.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pytest_ftloop.gate.judging import IN_DOUBT, SEEDS_IN_DOUBT

from pytest_ftloop.cli import main as ftloop
from pytest_ftloop.config.loop_config import LoopConfig, read_loop_file
from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.noise import Prior, SeedNoise, pool, replicates
from pytest_ftloop.core.records import ID_LENGTH, Iteration, SeedRole, SeedRun, Settings
from pytest_ftloop.core.runs import EXAMPLE_METRICS, differences
from pytest_ftloop.gate.statistic import paired_test
from pytest_ftloop.gate.student_t import survival
from pytest_ftloop.log import FOLDER, ImprovementLog
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.seeds import CALIBRATION_SEEDS, with_seed
from pytest_ftloop.report.markdown import markdown_table

QUICKSTART = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
NAME = "sentiment"
ACCEPTED = {"learning_rate": 3e-3, "num_train_epochs": 6}
"""What `ftloop accept 3` writes into the quickstart's file."""
DRAWN = 20240601
"""Random seed of the planted faults: one data set a fault, whatever the training's seed."""
STATED_DEFAULT = {"bias": "none"}
"""A setting of the adapter that changes nothing but the fingerprint and the group."""
PAIRS = 8
ALPHA = 0.01
REPEATED = 997
"""One of so many comparisons is repeated in a process of its own."""

Rows = list[dict[str, Any]]
Trained = Mapping[str, Mapping[int, Iteration]]


def main() -> int:
    """Train what is not there yet, judge all pairs, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where the runs are kept")
    parser.add_argument("--quick", action="store_true", help="three seeds of each")
    parser.add_argument("--train-only", action="store_true", help="judge nothing yet")
    parser.add_argument("--markdown", type=Path, help="write the tables between its marks")
    chosen = parser.parse_args()
    folder = (chosen.runs or cache_folder() / "real-gate").absolute()
    plan = Plan(3, 3, 2) if chosen.quick else Plan()
    trained = train(plan, folder)
    if chosen.train_only:
        return 0
    with tempfile.TemporaryDirectory(prefix="ftloop-real-gate-") as made:
        kept = "judged-quick.jsonl" if chosen.quick else "judged.jsonl"
        court = Court(Path(made), folder / kept)
        lines = list(report(plan, trained, {v.name: v.inputs(folder) for v in VARIANTS}, court))
    if chosen.quick:
        lines.append("A quick test: the logs hold fewer runs than they are named for.")
    print("\n".join(lines))
    if chosen.markdown:
        write_between_marks(chosen.markdown, lines)
    return 1 if court.errors else 0


@dataclass(frozen=True)
class Plan:
    """How many seeds: of the unchanged settings, of each fault, and of the former as baselines."""

    unchanged: int = 20
    faulty: int = 9
    baselines: int = 6

    def seeds(self, variant: Variant) -> range:
        """The training seeds of a variant."""
        if variant is RESTATED:
            return range(1, 2)
        if variant is UNCHANGED:
            return range(1, self.unchanged + 1)
        return range(101, 101 + self.faulty)

    def others(self, *but: int) -> list[int]:
        """The other unchanged seeds, in an order drawn for these."""
        others = [seed for seed in self.seeds(UNCHANGED) if seed not in but]
        random.Random(f"{DRAWN} {but}").shuffle(others)
        return others


# --- training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """The quickstart with its accepted settings, and perhaps something that was changed.

    `rows` makes the train set from the quickstart's.
    """

    name: str
    shown: str
    lora: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    rows: Callable[[Rows], Rows] = list

    @cached_property
    def settings(self) -> Settings:
        """The settings, without a seed."""
        stated = read_loop_file(QUICKSTART / f"{NAME}.ftloop.yaml").settings
        training = {**stated.training, **ACCEPTED, **self.training}
        return Settings({**stated.lora, **self.lora}, training)

    @cached_property
    def data(self) -> dict[str, str]:
        """The train and the eval set, by path."""
        train, eval_ = ((QUICKSTART / name).read_text("utf-8") for name in DATA)
        rows = self.rows([json.loads(line) for line in train.splitlines()])
        return dict(
            zip(DATA, ("".join(json.dumps(row) + "\n" for row in rows), eval_), strict=True)
        )

    def inputs(self, folder: Path) -> tuple[LoopConfig, Inputs]:
        """The loop and its data, as `folder` holds them."""
        config = read_loop_file(folder / self.name / LOOP_FILE)
        return config, Inputs.of(config, None)

    def files(self, seed: int) -> dict[str, str]:
        """The loop file with a seed, and its data."""
        return {LOOP_FILE: loop_text(with_seed(self.settings, seed)), **self.data}


DATA = ("data/train.jsonl", "data/eval.jsonl")
LOOP_FILE = f"{NAME}.ftloop.yaml"


def loop_text(settings: Settings) -> str:
    """A loop file with these settings, judged by nothing but the regression gate."""
    return (
        "model: tiny\n"
        f"data: {{train: {DATA[0]}, eval: {DATA[1]}}}\n"
        f"lora: {json.dumps(dict(settings.lora))}\n"
        f"training: {json.dumps(dict(settings.training))}\n"
        "scoring: {scorer: exact}\n"
        "gates: {regression: {}}\n"
        "loop: {iterations: 1}\n"
    )


def flipped(share: float) -> Callable[[Rows], Rows]:
    """A share of the rows gets the other label."""

    def rows(right: Rows) -> Rows:
        chosen = set(random.Random(DRAWN).sample(range(len(right)), round(share * len(right))))
        other = {" positive": " negative", " negative": " positive"}
        return [
            {**row, "completion": other[row["completion"]]} if i in chosen else row
            for i, row in enumerate(right)
        ]

    return rows


def half(rows: Rows) -> Rows:
    """Half of the rows, in their order."""
    kept = random.Random(DRAWN).sample(range(len(rows)), len(rows) // 2)
    return [rows[i] for i in sorted(kept)]


UNCHANGED = Variant("unchanged", "nothing changed")
FAULTS = (
    Variant("flipped-10", "10% of the train labels wrong", rows=flipped(0.10)),
    Variant("flipped-25", "25% of the train labels wrong", rows=flipped(0.25)),
    Variant("half", "half of the train set gone", rows=half),
    Variant("slow", "learning rate x 0.1", training={"learning_rate": 3e-4}),
)
RESTATED = Variant("restated", "a default stated", lora=STATED_DEFAULT)
VARIANTS = (UNCHANGED, *FAULTS, RESTATED)


def train(plan: Plan, folder: Path) -> Trained:
    """The trained iterations by variant and seed; those in the folder are not trained again."""
    for variant in VARIANTS:
        for name, text in variant.files(0).items():
            path = folder / variant.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_text("utf-8") != text:
                path.write_text(text, "utf-8")
    runs = [(variant, seed) for variant in VARIANTS for seed in plan.seeds(variant)]
    trained: dict[str, dict[int, Iteration]] = {}
    seconds: list[float] = []
    for done, (variant, seed) in enumerate(runs, 1):
        started = time.perf_counter()
        config = read_loop_file(folder / variant.name / LOOP_FILE)
        config = replace(config, settings=with_seed(variant.settings, seed))
        options = Options(explore=False, log_folder=folder / variant.name / f"seed-{seed}")
        result = Loop(config, options).run()
        trained.setdefault(variant.name, {})[seed] = result.best
        if result.trained:
            seconds.append(time.perf_counter() - started)
            left = (len(runs) - done) * fmean(seconds)
            loss, rate = result.best.metrics["eval_loss"], result.best.metrics["pass_rate"]
            told(
                f"{variant.name} seed {seed}: loss {loss:.4f}, pass rate {rate:.1%}, "
                f"{seconds[-1]:.0f} s; {done} of {len(runs)}, about {left / 60:.0f} min left"
            )
    (seed,) = plan.seeds(RESTATED)
    if trained[RESTATED.name][seed].metrics != trained[UNCHANGED.name][seed].metrics:
        sys.exit(f"stating {STATED_DEFAULT} changed the training: this is no A/A")
    return trained


# --- records -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """A variant's settings with any seed, as what was trained becomes records of a log."""

    variant: Variant
    config: LoopConfig
    inputs: Inputs

    def iteration(self, trained: Iteration, number: int) -> Iteration:
        """The record of an iteration with the seed that was trained."""
        settings = with_seed(self.variant.settings, trained.seed)
        fingerprint = self.inputs.fingerprint(self.config, settings)
        return replace(
            trained,
            number=number,
            id=fingerprint[:ID_LENGTH],
            fingerprint=fingerprint,
            settings=settings,
            group=self.inputs.group(self.config, settings),
        )

    def seed_runs(
        self, of: Iteration, trained: Iterable[Iteration], role: SeedRole
    ) -> list[SeedRun]:
        """More seeds of one of this variant's iterations."""
        runs = []
        for other in trained:
            known = self.iteration(other, 0)
            runs.append(seed_run(other, of.id, role, known.fingerprint, known.group))
        return runs


def seed_run(trained: Iteration, of: str, role: SeedRole, fingerprint: str, group: str) -> SeedRun:
    """What was trained as one more seed of another iteration."""
    return SeedRun(
        loop=trained.loop,
        iteration=of,
        seed=trained.seed,
        role=role,
        fingerprint=fingerprint,
        group=group,
        scoring=trained.scoring,
        data=trained.data,
        metrics=trained.metrics,
        environment=trained.environment,
        cost=trained.cost,
        examples=trained.examples,
    )


def earlier(trained: Sequence[Iteration], group: str) -> list[SeedRun]:
    """Seeds of an earlier version, whose iteration is not in the log any more."""
    of = digest(group)[:ID_LENGTH]
    return [seed_run(t, of, "calibration", digest(f"{group} {t.seed}"), group) for t in trained]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- judging -------------------------------------------------------------------------------------


Record = Iteration | SeedRun
FilesOf = dict[str, str]


@dataclass(frozen=True)
class Side:
    """What a commit or a working tree holds: loop file, data, and records beside earlier ones."""

    files: FilesOf
    records: Sequence[Record]


@dataclass(frozen=True)
class Answer:
    """What `ftloop gate` said."""

    code: int
    verdict: Mapping[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the gate failed."""
        return self.code == 1

    @property
    def in_doubt(self) -> bool:
        """Whether the tool would train more seeds, as `judging.is_in_doubt` says."""
        judged = (*self.verdict["changes"], *self.verdict["slide"])
        return any(survival(c["change"] / c["se"], c["df"]) <= IN_DOUBT for c in judged)


class Court:
    """A git repository in which one comparison after the other is laid out and judged."""

    def __init__(self, folder: Path, kept: Path) -> None:
        self.root, self.scratch = folder / "repository", ImprovementLog(folder / "scratch")
        self.kept = kept.open("w", encoding="utf-8")
        self.calls, self.repeated, self.errors = 0, 0, list[str]()
        self._there: FilesOf = {}
        self._committed: FilesOf | None = None
        self._records: dict[tuple[object, ...], FilesOf] = {}
        self.root.mkdir(parents=True)
        alone_with_git(folder)
        self._git("init", "-q", "-b", "main")

    def judge(self, scene: str, before: Side, after: Side) -> Answer:
        """Commit one side, put the other on top, and ask the real command."""
        committed = {**before.files, **self._log(before.records)}
        if committed != self._committed:
            self._lay(committed)
            self._git("add", "-A")
            self._git("commit", "-q", "--allow-empty", "-m", scene)
            self._committed = committed
        self._lay({**committed, **after.files, **self._log(after.records)})
        code, out, error = self._asked()
        self.calls += 1
        if code not in (0, 1):
            self.errors.append(f"{scene}: exit code {code}: {error or out}")
            told(self.errors[-1])
            return Answer(code, {"kind": "error", "changes": (), "slide": ()})
        (said,) = json.loads(out)
        verdict = said["verdicts"][0]
        if self.calls % REPEATED == 2:
            self._repeat(scene, code, out)
        print(json.dumps({"scene": scene, "code": code, **verdict}), file=self.kept, flush=True)
        return Answer(code, verdict)

    def _asked(self) -> tuple[int, str, str]:
        out, error = io.StringIO(), io.StringIO()
        here = Path.cwd()
        os.chdir(self.root)
        try:
            with redirect_stdout(out), redirect_stderr(error):
                code = ftloop(["gate", "--json"])
        finally:
            os.chdir(here)
        return code, out.getvalue(), error.getvalue()

    def _repeat(self, scene: str, code: int, out: str) -> None:
        command = [sys.executable, "-m", "pytest_ftloop", "gate", "--json"]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        self.repeated += 1
        if (done.returncode, done.stdout) != (code, out):
            self.errors.append(f"{scene}: a process of its own says otherwise: {done.stdout}")

    def _lay(self, files: FilesOf) -> None:
        for name in self._there.keys() - files.keys():
            (self.root / name).unlink()
        for name, text in files.items():
            if self._there.get(name) != text:
                path = self.root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
        self._there = files

    def _log(self, records: Iterable[Record]) -> FilesOf:
        return {name: text for r in records for name, text in self._files_of(r).items()}

    def _files_of(self, record: Record) -> FilesOf:
        """A record's two files, as the log itself writes them."""
        alone = record.number if isinstance(record, Iteration) else (record.iteration, record.role)
        key = (alone, record.fingerprint, record.group)
        if key not in self._records:
            log = self.scratch
            if isinstance(record, Iteration):
                written: Record = log.append(record)
            else:
                written = log.append_seed_run(record)
            self._records[key] = {
                f"{FOLDER}/{NAME}/{path.relative_to(log.folder)}": path.read_text("utf-8")
                for path in log.files(written)
            }
        return self._records[key]

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True)


def alone_with_git(folder: Path) -> None:
    """Neither the user's git, nor a CI system's pull request, has a say in what follows."""
    for name in [n for n in os.environ if n == "CI" or n.startswith(("GIT_", "GITHUB_", "CI_"))]:
        del os.environ[name]
    someone = {"NAME": "benchmark", "EMAIL": "benchmark@example.org", "DATE": "2024-06-01T00:00Z"}
    for role in ("AUTHOR", "COMMITTER"):
        os.environ |= {f"GIT_{role}_{what}": value for what, value in someone.items()}
    config = folder / "gitconfig"
    config.write_text("[gc]\n\tauto = 0\n", "utf-8")
    os.environ |= {"GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_NOSYSTEM": "1"}


@dataclass
class Tally:
    """What was said in one cell of a table."""

    one: list[Answer] = field(default_factory=list)
    settled: list[Answer] = field(default_factory=list)

    def add(
        self, court: Court, scene: str, before: Side, after: Side, more: Sequence[Record]
    ) -> None:
        """Judge with one seed of the candidate, and with more where that is in doubt."""
        first = court.judge(scene, before, after)
        self.one.append(first)
        if first.in_doubt and more:
            again = replace(after, records=[*after.records, *more])
            self.settled.append(court.judge(f"{scene}, {1 + len(more)} seeds", before, again))
        else:
            self.settled.append(first)

    @property
    def runs(self) -> float:
        """The candidate's runs, on average."""
        return 1 + (SEEDS_IN_DOUBT - 1) * fmean(answer.in_doubt for answer in self.one)

    @property
    def n(self) -> int:
        """How many comparisons."""
        return len(self.one)


# --- the tables ----------------------------------------------------------------------------------


def report(
    plan: Plan, trained: Trained, inputs: Mapping[str, tuple[LoopConfig, Inputs]], court: Court
) -> Iterator[str]:
    """All tables, as lines of Markdown."""
    started = time.perf_counter()
    known = {v.name: Known(v, *inputs[v.name]) for v in VARIANTS}
    yield from noise(trained)
    yield from false_alarms(plan, trained, known, court)
    yield from found(plan, trained, known, court)
    runs = [run for by_seed in trained.values() for run in by_seed.values()]
    yield ""
    yield (
        f"{len(runs)} runs trained in {sum(run.cost.seconds for run in runs):.0f} s, "
        f"{court.calls} calls of ftloop gate in {time.perf_counter() - started:.0f} s; "
        f"{court.repeated} repeated in a process of their own, {len(court.errors)} errors. "
        f"{said_environment(runs[0].environment)}"
    )
    yield from (f"- {error.splitlines()[0]}" for error in court.errors[:10])


def said_environment(environment: Mapping[str, str]) -> str:
    """`Trained on: cpu, 1 threads, torch 2.13.0+cpu, ...`."""
    parts = (environment["device"], f"{environment['threads']} threads")
    versions = (f"{name} {environment[name]}" for name in ("torch", "transformers", "trl", "peft"))
    return f"Trained on: {', '.join((*parts, *versions))}."


def noise(trained: Trained) -> Iterator[str]:
    """What the seed alone does, and what each fault does on average."""
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
            before = Side(UNCHANGED.files(a), [old, *log])
            after = Side(RESTATED.files(b), [new])
            cells[name].add(court, f"A/A {a} -> {b}, log: {name}", before, after, more)
        for name, log in zip(SEED_ALONE, ([], calibrated), strict=True):
            before, after = (
                Side(UNCHANGED.files(a), [old, *log]),
                Side(UNCHANGED.files(b), [itself]),
            )
            alone[name].add(court, f"A/A by seed alone {a} -> {b}, log: {name}", before, after, [])
        clock.tick()
    yield from heading(
        f"False alarms: {len(pairs)} ordered pairs of {len(runs)} runs with nothing changed"
    )
    heads = [
        "the log holds", "baseline seeds", "one seed fails", "95% interval", "with escalation",
        "95% interval", "candidate runs", "said improved", "inconclusive", "a tag said worse",
        "train_loss or overfit_gap said worse",
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
        said = ", ".join(f"{a} -> {b} ({n} logs)" for (a, b), n in failing_pairs.most_common(12))
        yield f"Pairs that fail with escalation: {said}."


def found(plan: Plan, trained: Trained, known: Mapping[str, Known], court: Court) -> Iterator[str]:
    """Each planted fault against several baselines."""
    runs, base = trained[UNCHANGED.name], known[UNCHANGED.name]
    baselines = list(runs)[: plan.baselines]
    yield from heading("Planted faults found")
    heads = [
        "fault", "the log holds", "baseline seeds", "one seed fails", "95% interval",
        "with escalation", "95% interval", "candidate runs", "said improved", "n",
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
                        before = Side(UNCHANGED.files(a), [old, *seeds, *log])
                        after = Side(fault.files(candidate.seed), [new])
                        scene = f"{fault.name} {a} ({k} seeds) -> {candidate.seed}, log: {name}"
                        cells[name, k].add(court, scene, before, after, more)
                clock.tick()
        for (name, k), cell in cells.items():
            failing = (*shares(a.failed for a in cell.one), *shares(a.failed for a in cell.settled))
            improved = f"{percent(share(cell.settled, 'improved'))}%"
            rows.append([fault.shown, name, k, *failing, f"{cell.runs:.2f}", improved, cell.n])
    yield from table(heads, rows)


def following(runs: Mapping[int, Iteration], seed: int) -> list[Iteration]:
    """The two seeds after one, as the tool takes them, going round."""
    seeds = list(runs)
    place = seeds.index(seed)
    return [runs[seeds[(place + i) % len(seeds)]] for i in range(1, SEEDS_IN_DOUBT)]


def two_by_two(runs: Sequence[Iteration]) -> Iterator[tuple[Iteration, Iteration]]:
    return zip(runs[::2], runs[1::2], strict=False)


def pair_name(pair: Sequence[Iteration]) -> str:
    return "pair " + " ".join(str(run.seed) for run in pair)


def paired_t(before: Iteration, after: Iteration) -> bool:
    """The paired t-test over examples at 1%: the gate's without any seed noise."""
    loss = EXAMPLE_METRICS["eval_loss"]
    values = [loss.values(sorted_rows(run)) for run in (before, after)]
    told_ = differences([new - old for old, new in zip(*values, strict=True)])
    test = paired_test(told_, 1, 1, SeedNoise(0.0, 0.0, 0), Prior(0.0, 1.0), ALPHA)
    return test.p_worse <= ALPHA


def sorted_rows(run: Iteration) -> list[Any]:
    return sorted(run.examples, key=lambda row: row.id)


def tolerance(before: Iteration, after: Iteration) -> bool:
    """Fails when the loss rose by more than 2%."""
    return after.metrics["eval_loss"] > 1.02 * before.metrics["eval_loss"]


def points(before: Iteration, after: Iteration) -> bool:
    """Fails when the pass rate fell by more than 2 points."""
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
        self.started = self.said = time.perf_counter()

    def tick(self) -> None:
        """One more is done; say so now and then."""
        self.done += 1
        now = time.perf_counter()
        if now - self.said > 20 or self.done == self.total:
            self.said = now
            left = (now - self.started) / self.done * (self.total - self.done)
            told(f"{self.what}: {self.done} of {self.total}, about {left / 60:.1f} min left")


def share(answers: Sequence[Answer], kind: str) -> float:
    return fmean(answer.verdict["kind"] == kind for answer in answers)


def beside(answers: Sequence[Answer]) -> Iterator[str]:
    """What else was said of unchanged models: of the verdict, a tag, a figure of whole runs."""
    for kind in ("improved", "inconclusive"):
        yield f"{percent(share(answers, kind))}%"
    for told_beside in ("tags", "runs"):
        worse = [
            any(change["kind"] == "regressed" for change in answer.verdict.get(told_beside, ()))
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


def told(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def write_between_marks(file: Path, lines: list[str]) -> None:
    """Replace what stands between the two marks; everything else stays."""
    first, last = "<!-- real gate -->", "<!-- end real gate -->"
    before, found_first, rest = file.read_text("utf-8").partition(first)
    _, found_last, after = rest.partition(last)
    if not found_first or not found_last:
        sys.exit(f"{file}: wanted the marks {first} and {last}")
    body = "\n".join(lines).strip()
    file.write_text(f"{before}{first}\n{body}\n{last}{after}", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
