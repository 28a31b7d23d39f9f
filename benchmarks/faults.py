"""`make bench-faults`: is a planted fault among the first findings, a healthy run without error?

Each fault is made as a user would make it: in the rows, the settings, the template or the machine.
The product's own loop then trains the embedded base model on it. The right finding should be among
the first two of the last iteration. Healthy runs, with varied tasks, seeds and settings, should
have no error. Thresholds are chosen by each kind's first variant, so the share is also printed
without these.

    python benchmarks/faults.py [--kept DIR] [--first-seed N] [--only KIND ...] [--verbose]
    python benchmarks/faults.py --held-out [narrow|wide|tiny] [--foreign]

Trainings are kept in a folder: a second run only diagnoses them again. `--held-out` takes a base
and a task that no rule was mended on. `--foreign` writes each run as another trainer would have
logged it (coarse, without evaluations, with another metric), and counts what `ftloop diagnose`
finds in it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bases import BASES, base
from faults_cases import Case, healthy
from faults_held_out import healthy_held_out, of_held_out
from faults_machines import MACHINES, model_folder
from faults_rows import of_data, of_examples, of_wiring
from faults_settings import of_chains, of_one_run
from foreign_logs import findings_by_form
from kept import VERSIONS, KeptBackend

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.records import Finding, HoldoutUse, Iteration
from pytest_ftloop.loop.inputs import data_facts
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.report.markdown import markdown_table

FIRST = 2
"""The first so many findings of a run are read; the right one should be among them."""

CURVES = {
    *("non-finite", "diverged", "oscillation", "not-learning", "no-signal", "underfit"),
    *("overfitting", "converged"),
}
"""The planted kinds that a log of losses shows, without data and chain."""


def main() -> None:
    """Train what is not kept, diagnose all, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kept", type=Path, default=Path(".bench/faults"), help="the trainings")
    parser.add_argument("--first-seed", type=int, default=0, help="of data and trainings")
    parser.add_argument("--only", nargs="*", metavar="KIND", help='planted kinds, or "healthy"')
    parser.add_argument("--verbose", action="store_true", help="print each run's findings")
    parser.add_argument("--smoke", action="store_true", help="a few steps of two cases, as a test")
    parser.add_argument(
        "--held-out", nargs="?", choices=BASES, const="narrow", help="a base and a new task"
    )
    parser.add_argument("--foreign", action="store_true", help="as logs of other trainers, too")
    chosen = parser.parse_args()
    player, seed = Player(chosen.kept), chosen.first_seed
    cases = [*faults(seed), *healthy(seed)]
    if chosen.held_out:
        unseen = chosen.held_out
        cases = [*of_held_out(seed, unseen), *healthy_held_out(seed, unseen)]
    if chosen.smoke:
        kind = "mislabelled" if chosen.held_out else "eval-worn-out"
        cases = [of_kind(kind, cases), of_kind("", cases)]
        cases = [shortened(case) for case in cases]
    outcomes: list[Outcome] = []
    for case in cases:
        if chosen.only and (case.planted or "healthy") not in chosen.only:
            continue
        outcome = Outcome(case, *player.findings(case, foreign=chosen.foreign))
        outcomes.append(outcome)
        if chosen.verbose or (case.planted and not outcome.right):
            show(outcome)
    planted = [outcome for outcome in outcomes if outcome.case.planted]
    kinds = dict.fromkeys(outcome.case.planted for outcome in planted)
    firsts = [next(o for o in planted if o.case.planted == kind) for kind in kinds]
    print(table(planted))
    print(f"\nRight among the first {FIRST}: {share(planted)}", end="; ")
    print(f"without each kind's first: {share([o for o in planted if o not in firsts])}.\n")
    print(of_healthy([outcome for outcome in outcomes if not outcome.case.planted]))
    if chosen.foreign:
        print(f"\n{of_foreign(outcomes)}")
    print(f"\n{player.trained} trained now, the others read.", file=sys.stderr)


def faults(first: int) -> Iterator[Case]:
    """Every planted fault, with data and trainings drawn from this seed on."""
    yield from of_one_run(first)
    yield from of_chains(first)
    yield from of_wiring(first)
    yield from of_data(first)
    yield from of_examples(first)


def of_kind(planted: str, cases: Sequence[Case]) -> Case:
    """The first case of a kind."""
    return next(case for case in cases if case.planted == planted)


def shortened(case: Case) -> Case:
    """The case with a step for each epoch, and eight eval rows: its findings mean nothing.

    Cases that differ in their epochs alone stay different trainings.
    """
    before = tuple(shortened(earlier) for earlier in case.before)
    steps = case.training["num_train_epochs"]
    return replace(case.but(max_steps=steps), eval=case.eval[:8], before=before)


class Player:
    """Runs each case's loops, with trainings that are kept in a folder."""

    def __init__(self, kept: Path) -> None:
        self.kept = kept
        self.trained = 0

    def findings(
        self, case: Case, *, foreign: bool = False
    ) -> tuple[Sequence[Finding], Mapping[str, Sequence[Finding]]]:
        """What the last iteration of the case's last loop finds; and what its foreign logs show."""
        with tempfile.TemporaryDirectory() as folder:
            for earlier in case.before:
                self._play(earlier, folder)
            last = self._play(case, folder, opens=False)
            if not foreign or not last.steps:
                return last.findings, {}
            planned = max(step.step for step in last.steps)
            forms = findings_by_form(tuple(last.steps), tuple(last.evals), planned, Path(folder))
            return last.findings, forms

    def _play(self, case: Case, folder: str, *, opens: bool = True) -> Iteration:
        config = self._config(case, folder)
        backend = KeptBackend(
            self.kept / VERSIONS, config, planted=case.machine, machine=MACHINES[case.machine]
        )
        loop = Loop(config, Options(iterations=1 + len(case.policy)), backend=backend)
        last = loop.run().chain[-1]
        if opens:
            open_holdout(loop, backend, last)
        self.trained += backend.trained
        return last

    def _config(self, case: Case, folder: str) -> LoopConfig:
        return from_python(
            folder=Path(folder),
            source="benchmark",
            name="case",
            model=base(case.model)
            if case.model in BASES
            else str(model_folder(case.model, self.kept)),
            train=list(case.train),
            eval=list(case.eval),
            holdout=list(case.holdout) or None,
            lora=dict(case.lora),
            training=dict(case.training),
            scoring={"scorer": "exact"},
            gates=dict(case.gates),
            loop={"patience": 99, "policy": list(case.policy) or "rules"},
        )


def open_holdout(loop: Loop, backend: KeptBackend, done: Iteration) -> None:
    """Log what the holdout shows of an iteration, as the loop does for an accepted one."""
    assert backend.holdout is not None
    results = backend.trial(done.settings).holdout
    loop.log.append_holdout_use(
        HoldoutUse(
            loop=loop.config.name,
            iteration=done.id,
            fingerprint=done.fingerprint,
            scoring=done.scoring,
            data=data_facts(backend.holdout),
            metrics={"eval_loss": token_mean_loss(results)},
            environment=done.environment,
            examples=results,
        )
    )


@dataclass(frozen=True)
class Outcome:
    """The findings of a case, and those in each form of its log as another trainer's."""

    case: Case
    findings: Sequence[Finding]
    foreign: Mapping[str, Sequence[Finding]] = field(default_factory=dict)

    @property
    def first(self) -> list[str]:
        """The kinds that are read."""
        return [finding.kind for finding in self.findings[:FIRST]]

    @property
    def right(self) -> bool:
        """Whether the planted kind is among them."""
        return self.place < FIRST

    @property
    def place(self) -> int:
        """The index of the planted kind, or of one that is equally right; `FIRST` if missing."""
        return next((place for place, kind in enumerate(self.first) if kind in self.kinds), FIRST)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The planted kind and those that are equally right."""
        return (self.case.planted, *self.case.also)


def table(outcomes: Sequence[Outcome]) -> str:
    """Per planted kind: how often it is first, second or missing, and which others are read."""
    heads = ["planted", "runs", "named first", "second", "not", "others among the first two"]
    rows = []
    for kind in dict.fromkeys(outcome.case.planted for outcome in outcomes):
        some = [outcome for outcome in outcomes if outcome.case.planted == kind]
        places = [o.place for o in some]
        others = Counter(other for o in some for other in o.first if other != kind)
        counts = [str(places.count(place)) for place in range(FIRST + 1)]
        shown = ", ".join(f"`{other}` {count}" for other, count in others.most_common())
        rows.append([f"`{kind}`", str(len(some)), *counts, shown])
    return markdown_table(heads, rows, right=range(1, 5), escape=str, compact=True)


def share(outcomes: Sequence[Outcome]) -> str:
    """How many of them are right."""
    right = sum(outcome.right for outcome in outcomes)
    return f"{right} of {len(outcomes)} ({right / max(len(outcomes), 1):.1%})"


def of_healthy(outcomes: Sequence[Outcome]) -> str:
    """How many healthy runs have findings of each severity, and which."""
    rows = []
    for severity in ("error", "warning", "info"):
        kinds = [[f.kind for f in o.findings if f.severity == severity] for o in outcomes]
        counts = Counter(kind for of_run in kinds for kind in set(of_run))
        shown = ", ".join(f"`{kind}` {count}" for kind, count in counts.most_common()) or "-"
        rows.append([severity, f"{sum(map(bool, kinds))} of {len(outcomes)}", shown])
    heads = ["healthy runs with", "runs", "findings"]
    return markdown_table(heads, rows, right=[1], escape=str, compact=True)


def of_foreign(outcomes: Sequence[Outcome]) -> str:
    """Per form of the log: planted faults of curves that are found, healthy runs with a finding."""
    of_curves = [o for o in outcomes if o.case.planted in CURVES and o.foreign]
    fine = [o for o in outcomes if not o.case.planted and o.foreign]
    rows = []
    for form in dict.fromkeys(form for o in outcomes for form in o.foreign):
        right = sum(any(f.kind in o.kinds for f in o.foreign[form]) for o in of_curves)
        counts = [
            sum(any(f.severity == severity for f in o.foreign[form]) for o in fine)
            for severity in ("error", "warning")
        ]
        shown = [f"{right} of {len(of_curves)}", *(f"{count} of {len(fine)}" for count in counts)]
        rows.append([form, *shown])
    heads = ["log", "planted in curves, found", "healthy with an error", "with a warning"]
    return markdown_table(heads, rows, right=range(1, 4), escape=str, compact=True)


def show(outcome: Outcome) -> None:
    """One run's findings, in their order."""
    print(f"{outcome.case.planted or 'healthy'}: {outcome.case.what}", file=sys.stderr)
    for finding in outcome.findings:
        print(f"    {finding.severity}: {finding.kind}: {finding.message}", file=sys.stderr)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
