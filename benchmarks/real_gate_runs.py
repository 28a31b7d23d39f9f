"""The runs of real_gate.py: what is trained, and how it becomes records of a log."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from pytest_ftloop.config.loop_config import LoopConfig, read_loop_file
from pytest_ftloop.core.records import ID_LENGTH, Iteration, SeedRole, SeedRun, Settings
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.seeds import with_seed

QUICKSTART = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
NAME = "sentiment"
ACCEPTED = {"learning_rate": 3e-3, "num_train_epochs": 6}
"""What the quickstart's loop once found. Kept, so that figures stay comparable."""
DRAWN = 20240601
"""Random seed of the planted faults: one data set per fault, whatever the training's seed."""
STATED_DEFAULT = {"bias": "none"}
"""A setting of the adapter that changes nothing but the fingerprint and the group."""
Rows = list[dict[str, Any]]
Trained = Mapping[str, Mapping[int, Iteration]]


@dataclass(frozen=True)
class Plan:
    """How many seeds: of the unchanged settings, of each fault, and of the former as baselines.

    With `max_steps` every training stops after so many.
    """

    unchanged: int = 20
    faulty: int = 9
    baselines: int = 6
    max_steps: int | None = None

    @property
    def variants(self) -> tuple[Variant, ...]:
        """What is trained."""
        cut = {} if self.max_steps is None else {"max_steps": self.max_steps}
        return tuple(replace(v, training={**v.training, **cut}) for v in VARIANTS)

    def seeds(self, variant: Variant) -> range:
        """The training seeds of a variant."""
        if variant.name == RESTATED.name:
            return range(1, 2)
        if variant.name == UNCHANGED.name:
            return range(1, self.unchanged + 1)
        return range(101, 101 + self.faulty)

    def others(self, *but: int) -> list[int]:
        """The other unchanged seeds, in an order drawn for these."""
        others = [seed for seed in self.seeds(UNCHANGED) if seed not in but]
        random.Random(f"{DRAWN} {but}").shuffle(others)
        return others


@dataclass(frozen=True)
class Variant:
    """The quickstart with its accepted settings, and perhaps something that was changed.

    `shown` is what the tables call it. `rows` makes the train set from the quickstart's.
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
    """A loop file with these settings, and the regression gate alone."""
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
    """A function that gives a share of the rows the other label."""

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
    for variant in plan.variants:
        for name, text in variant.files(0).items():
            path = folder / variant.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_text("utf-8") != text:
                path.write_text(text, "utf-8")
    runs = [(variant, seed) for variant in plan.variants for seed in plan.seeds(variant)]
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
            tell(
                f"{variant.name} seed {seed}: loss {loss:.4f}, pass rate {rate:.1%}, "
                f"{seconds[-1]:.0f} s; {done} of {len(runs)}, about {left / 60:.0f} min left"
            )
    (seed,) = plan.seeds(RESTATED)
    if trained[RESTATED.name][seed].metrics != trained[UNCHANGED.name][seed].metrics:
        sys.exit(f"stating {STATED_DEFAULT} changed the training: this is no A/A")
    return trained


@dataclass(frozen=True)
class Known:
    """A variant with its loop file and data: makes records of a log from what was trained."""

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
            weights=self.inputs.weights(settings),
        )

    def seed_runs(
        self, of: Iteration, trained: Iterable[Iteration], role: SeedRole
    ) -> list[SeedRun]:
        """What was trained, as more seeds of one of this variant's iterations."""
        runs = []
        for other in trained:
            known = self.iteration(other, 0)
            run = seed_run(other, of.id, role, known.fingerprint, known.group)
            runs.append(replace(run, weights=known.weights))
        return runs


def seed_run(trained: Iteration, of: str, role: SeedRole, fingerprint: str, group: str) -> SeedRun:
    """What was trained, as one more seed of the iteration with the id `of`; weights not named."""
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
    """Seeds of an earlier version, whose iteration is no longer in the log."""
    of = digest(group)[:ID_LENGTH]
    return [seed_run(t, of, "calibration", digest(f"{group} {t.seed}"), group) for t in trained]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tell(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)
