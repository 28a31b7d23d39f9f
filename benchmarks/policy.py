"""`make bench-policy`: does adjusting pay, against what people would do instead?

From starts that are wrong in one thing, the rule policy has 1 + 4 iterations. Random search, two of
Optuna's samplers, and halving the learning rate each time then get at least as many training steps
from the same start. What counts is the loss on a holdout that none of them sees, of the iteration
that each would choose by its eval loss; the measure is the best of a wide grid of learning rates
and epochs on the same rows. Every loop is the product's own; trainings are real, and kept in a
folder, so that a second run only reads.

    python benchmarks/policy.py [hotel banking] [--csv FILE] [--kept DIR] [--early]
    python benchmarks/policy.py library --base narrow    # a task and a base of no rule

`banking` are seven intents of banking77 (PolyAI, CC-BY-4.0), of a CSV file that the user has.
"""

from __future__ import annotations

import argparse
import itertools
import math
import pickle
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tasks
from bases import BASES, base
from kept import VERSIONS, KeptBackend, Trial

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.core.records import EvalPoint, Iteration, Settings
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.report.markdown import markdown_table
from pytest_ftloop.train.early_end import Pace

TINY_ROWS = 32
MOST_EPOCHS = 20


@dataclass(frozen=True)
class Plan:
    """How much is compared: a grid, iterations of the rules, seeds to measure the noise of.

    `starts` are indices of `starts_of`, `others` names of `policies`.
    """

    starts: Sequence[int] = range(12)
    others: Sequence[str] = ("random", "TPE", "GP", "halving")
    seeds: int = 5
    iterations: int = 5
    rates: Sequence[float] = (3e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3e-2)
    epochs: Sequence[float] = (1, 2, 3, 5, 8, 12, MOST_EPOCHS)


SMOKE = Plan((0,), ("random", "halving"), seeds=2, iterations=2, rates=(4e-3,), epochs=(1, 2))
"""The smallest comparison, for a test; its figures mean nothing."""


def settings(rate: float, epochs: float, **more: Any) -> Settings:
    """Common LoRA settings, with this learning rate and these epochs."""
    lora = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "lora_dropout": 0.0}
    training = {
        "learning_rate": float(f"{rate:.3g}"),
        "num_train_epochs": epochs,
        "per_device_train_batch_size": 8,
        "activation_checkpointing": False,
    }
    for name, value in more.items():
        (lora if name in {"r", "lora_alpha", "lora_dropout"} else training)[name] = value
    return Settings(lora=lora, training=training)


class Trainer:
    """Trains each settings of each task once, whichever loop asks."""

    def __init__(self, kept: Path) -> None:
        self.kept = kept
        self._backends: dict[str, KeptBackend] = {}

    @property
    def trained(self) -> int:
        """How many trainings were not kept yet."""
        return sum(backend.trained for backend in self._backends.values())

    def backend(self, task: tasks.Task) -> KeptBackend:
        """The backend of all loops of a task."""
        if task.name not in self._backends:
            folder = self.kept / VERSIONS / task.name
            config = config_of(task, settings(1e-3, 1), Path.cwd())
            self._backends[task.name] = KeptBackend(folder, config)
        return self._backends[task.name]

    def trial(self, task: tasks.Task, wanted: Settings) -> Trial:
        """The trial of these settings."""
        return self.backend(task).trial(wanted)


def config_of(task: tasks.Task, start: Settings, folder: Path, **loop: Any) -> LoopConfig:
    """The task as a loop that starts with these settings."""
    return from_python(
        folder=folder,
        source="benchmark",
        name=task.name,
        model=task.model,
        train=list(task.train),
        eval=list(task.eval),
        holdout=list(task.holdout),
        lora=dict(start.lora),
        training=dict(start.training),
        scoring={"scorer": "loss", "threshold": 0.5},
        loop={"patience": 99, **loop},
    )


# --- starts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Settings that are wrong in one thing, on a task's rows."""

    name: str
    task: tasks.Task
    settings: Settings
    searched: tuple[str, ...] = ()


def starts_of(task: tasks.Task, best: Settings) -> list[Start]:
    """The starts of a task; `best` are the grid's best settings on its rows."""
    rate, small = best.training["learning_rate"], task.smaller(TINY_ROWS)
    wrong_rate = {
        f"learning rate {'/' if times < 1 else 'x'} {max(times, 1 / times):.0f}": settings(
            times * rate, 3
        )
        for times in (1 / 100, 1 / 30, 1 / 10, 1 / 3, 3, 10, 30)
    }
    return [
        *(Start(name, task, wanted) for name, wanted in wrong_rate.items()),
        Start("1 epoch", task, settings(rate, 1)),
        Start("20 epochs", task, settings(rate, 20)),
        Start("rank 1", task, settings(rate, 3, r=1, lora_alpha=2), ("lora.r", "lora.lora_alpha")),
        Start("dropout 0.5", task, settings(rate, 3, lora_dropout=0.5), ("lora.lora_dropout",)),
        Start(f"{TINY_ROWS} rows", small, settings(rate, 3)),
    ]


def grid(trainer: Trainer, task: tasks.Task, plan: Plan) -> tuple[Settings, Trial]:
    """The settings with the lowest eval loss of the grid, and their trial."""
    wanted = [settings(rate, epochs) for epochs in plan.epochs for rate in plan.rates]
    tried = [(s, trainer.trial(task, s)) for s in wanted]
    return min(tried, key=lambda pair: eval_loss(pair[1]))


def eval_loss(trial: Trial) -> float:
    """The loss that every policy chooses by; infinite for a run that has none."""
    losses = [p.eval_loss for p in trial.run.training.evals if math.isfinite(p.eval_loss)]
    return min(losses, default=math.inf)


# --- what is compared ----------------------------------------------------------------------------


def space(start: Start) -> dict[str, Any]:
    """What the samplers search: learning rate, epochs, and what else is wrong at the start."""
    found: dict[str, Any] = {
        "training.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
        "training.num_train_epochs": {"low": 1, "high": MOST_EPOCHS, "log": True},
    }
    wider = {
        "lora.r": {"low": 1, "high": 64, "log": True},
        "lora.lora_alpha": {"low": 2, "high": 128, "log": True},
        "lora.lora_dropout": {"low": 0.0, "high": 0.5},
    }
    return found | {name: wider[name] for name in start.searched}


def policies(start: Start, seed: int) -> dict[str, Any]:
    """The loop section's policy of each alternative; Optuna models from the second proposal on."""

    def sampler(name: str, **options: Any) -> dict[str, Any]:
        return {"sampler": name, "seed": seed, "space": space(start), "options": options}

    rate = start.settings.training["learning_rate"]
    halved = [{"training.learning_rate": float(f"{rate / 2**n:.3g}")} for n in range(1, 40)]
    return {
        "random": sampler("RandomSampler"),
        "TPE": sampler("TPESampler", n_startup_trials=2),
        "GP": sampler("GPSampler", n_startup_trials=2),
        "halving": halved,
    }


@dataclass(frozen=True)
class Outcome:
    """What a policy reached from a start, the steps it used, and its iterations."""

    holdout_loss: float
    steps: int
    chain: tuple[Iteration, ...]


def play(trainer: Trainer, start: Start, policy: Any, limit: int, steps: int = 0) -> Outcome:
    """Run the loop from a start: `limit` iterations, and on until at least `steps` are used."""
    with tempfile.TemporaryDirectory() as folder:
        while True:
            config = config_of(start.task, start.settings, Path(folder), policy=policy)
            backend = trainer.backend(start.task)
            result = Loop(config, Options(iterations=limit), backend=backend).run()
            used = sum(iteration.cost.steps for iteration in result.chain)
            if used >= steps or len(result.chain) < limit:
                break
            limit += 1
        best = trainer.trial(start.task, result.best.settings)
    return Outcome(best.holdout_loss, used, result.chain)


def seed_noise(trainer: Trainer, task: tasks.Task, wanted: Settings, seeds: int) -> float:
    """Standard deviation of the holdout loss over seeds, as a share of its mean."""
    losses = [
        trainer.trial(task, Settings(wanted.lora, {**wanted.training, "seed": 42 + n})).holdout_loss
        for n in range(seeds)
    ]
    return statistics.stdev(losses) / statistics.fmean(losses)


# --- tables ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One start's losses on the holdout: at the start, of the grid, and of each policy."""

    start: Start
    first: float
    grid: float
    noise: float
    steps: int
    rules: float
    others: Mapping[str, float]

    @property
    def closed(self) -> float:
        """Share of the distance from the start to the grid's best that the rules closed.

        NaN where there is none to speak of: the start is within the seed's noise of that best.
        """
        way = self.first - self.grid
        return (self.first - self.rules) / way if way > self.noise * self.grid else math.nan

    @property
    def near(self) -> bool:
        """Whether the rules end within the seed's noise of the grid's best, or below."""
        return self._at_most(self.grid, self.noise * math.sqrt(2))

    def at_least(self, other: str) -> bool:
        """Whether the rules are ahead of another policy, or equal within the seed's noise.

        The noise is that of a difference of two runs.
        """
        return self._at_most(self.others[other], self.noise * math.sqrt(2))

    def at_least_strictly(self, other: str) -> bool:
        """The same by the noise of one run."""
        return self._at_most(self.others[other], self.noise)

    def _at_most(self, loss: float, noise: float) -> bool:
        return self.rules <= loss * (1 + noise)


def lines(trainer: Trainer, task: tasks.Task, plan: Plan) -> Iterator[Line]:
    """A task's starts, each with what every policy reached from it."""
    best, _ = grid(trainer, task, plan)
    starts = {n: start for n, start in enumerate(starts_of(task, best)) if n in plan.starts}
    parts = {start.task.name: start.task for start in starts.values()}
    grids = {name: grid(trainer, part, plan) for name, part in parts.items()}
    noise = {
        name: seed_noise(trainer, part, grids[name][0], plan.seeds) for name, part in parts.items()
    }
    for number, start in starts.items():
        ours = play(trainer, start, "rules", plan.iterations)
        theirs = {
            name: play(trainer, start, policy, 1, ours.steps).holdout_loss
            for name, policy in policies(start, seed=1000 * number).items()
            if name in plan.others
        }
        line = Line(
            start=start,
            first=trainer.trial(start.task, start.settings).holdout_loss,
            grid=grids[start.task.name][1].holdout_loss,
            noise=noise[start.task.name],
            steps=ours.steps,
            rules=ours.holdout_loss,
            others=theirs,
        )
        print(f"  {task.name}: {start.name}: {_share(line)}", file=sys.stderr, flush=True)
        yield line


def report(found: Sequence[Line], others: Sequence[str]) -> Iterator[str]:
    """The table, and how often the rules reach the grid's best and beat the others."""
    heads = ["task", "start", "steps", "start's loss", "grid's best", "rules", "closed", *others]
    rows = []
    for line in found:
        figures = [line.first, line.grid, line.rules]
        cells = [line.start.task.name, line.start.name, str(line.steps)]
        cells += [f"{figure:.3f}" for figure in figures] + [_share(line)]
        for name in others:
            mark = "" if line.at_least(name) else " (ahead)"
            cells.append(f"{line.others[name]:.3f}{mark}")
        rows.append(cells)
    yield markdown_table(heads, rows, right=range(2, len(heads)), escape=str, compact=True)
    yield ""
    count, with_a_way = len(found), [line for line in found if not math.isnan(line.closed)]
    closed = sum(line.closed >= 0.95 for line in with_a_way)
    yield f"95% closed: {closed} of the {len(with_a_way)} starts that have a way to go."
    near = sum(line.near for line in found)
    yield f"Within the seed's noise of the grid's best, or below: {near} of {count}."
    for name in others:
        ahead = sum(line.at_least(name) for line in found)
        strictly = sum(line.at_least_strictly(name) for line in found)
        yield (
            f"Ahead of {name}, or equal within the seed's noise: {ahead} of {count} "
            f"({strictly} by the noise of one run)."
        )
    noises = {line.start.task.name: line.noise for line in found}
    yield "Seed noise (standard deviation of the holdout loss): " + ", ".join(
        f"{name} {noise:.1%}" for name, noise in noises.items()
    )


def _share(line: Line) -> str:
    return "-" if math.isnan(line.closed) else f"{line.closed:.0%}"


def early_ends(kept: Path) -> Iterator[str]:
    """What `Pace` would end, with each kept run of a task compared with each other as the best."""
    worse = better = ended = wrong = saved = planned = 0
    for folder in sorted(path for path in (kept / VERSIONS).iterdir() if path.is_dir()):
        runs = [pickle.loads(file.read_bytes()) for file in sorted(folder.glob("*.pickle"))]
        sound = [trial for trial in runs if math.isfinite(eval_loss(trial))]
        for best, run in itertools.permutations(sound, 2):
            pace = Pace(best.run.training.evals, best.run.training.planned_steps, eval_loss(best))
            gains, evals = eval_loss(run) < eval_loss(best), run.run.training.evals
            steps = run.run.training.planned_steps
            better, worse, planned = better + gains, worse + (not gains), planned + steps
            at = _ended_at(pace, evals, steps)
            if at is not None:
                ended, wrong, saved = ended + (not gains), wrong + gains, saved + steps - at.step
    yield f"Ended of {worse:,} runs that end worse than the best: {ended:,} ({ended / worse:.0%})."
    yield f"Ended of {better:,} that would have been better: {wrong:,}."
    yield f"Steps saved: {saved:,} of {planned:,} ({saved / planned:.1%})."


def _ended_at(pace: Pace, evals: Sequence[EvalPoint], steps: int) -> EvalPoint | None:
    points = (p for n, p in enumerate(evals) if pace.hopeless(evals[: n + 1], steps))
    return next(points, None)


def main() -> None:
    """Play every start of the tasks asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help="routing, hotel, library, banking (with --csv)")
    parser.add_argument("--base", choices=BASES, default="tiny", help="the base model")
    parser.add_argument("--kept", type=Path, default=Path(".bench/policy"), help="the trainings")
    parser.add_argument("--csv", type=Path, help="of banking: a file with text,category")
    parser.add_argument("--seeds", type=int, default=Plan.seeds, help="to measure the noise by")
    parser.add_argument(
        "--starts", type=int, nargs="*", default=Plan.starts, metavar="N", help="of each, 0 to 11"
    )
    parser.add_argument("--others", nargs="*", default=Plan.others)
    parser.add_argument("--early", action="store_true", help="which kept runs would end early")
    parser.add_argument("--smoke", action="store_true", help="a few steps from one start")
    chosen = parser.parse_args()
    if chosen.early:
        print("\n".join(early_ends(chosen.kept)))
        return
    trainer = Trainer(chosen.kept)
    plan = SMOKE if chosen.smoke else Plan(chosen.starts, chosen.others, chosen.seeds)
    found: list[Line] = []
    for task in [small_task()] if chosen.smoke else tasks_of(chosen):
        found += lines(trainer, task, plan)
    print("\n".join(report(found, plan.others)))


def tasks_of(chosen: argparse.Namespace) -> Iterator[tasks.Task]:
    """The tasks asked for, on the base asked for."""
    for task in _tasks_of(chosen):
        if chosen.base == "tiny":
            yield task
        else:
            yield replace(task, name=f"{task.name}-{chosen.base}", model=base(chosen.base))


def _tasks_of(chosen: argparse.Namespace) -> Iterator[tasks.Task]:
    for name in chosen.tasks or (["hotel", "banking"] if chosen.csv else ["hotel"]):
        if name == "banking":
            if chosen.csv is None:
                sys.exit("banking: wanted --csv FILE, banking77's train.csv")
            yield tasks.banking(chosen.csv, INTENTS)
        else:
            made = {"routing": tasks.routing, "hotel": tasks.hotel, "library": tasks.library}
            yield made[name]()


def small_task() -> tasks.Task:
    """Sixteen rows of `hotel`."""
    task = tasks.hotel(16, 8)
    return replace(task, name="hotel-16", holdout=task.holdout[:8])


INTENTS = (
    "card_payment_not_recognised",
    "top_up_limits",
    "Refund_not_showing_up",
    "lost_or_stolen_card",
    "declined_cash_withdrawal",
    "transfer_into_account",
    "transfer_not_received_by_recipient",
)
"""Of banking77, drawn at random; none of those by which rules were chosen or mended."""


if __name__ == "__main__":
    main()
