"""`make bench-policy`: does adjusting pay, against what people would do instead?

From starts that are wrong in one thing, the rule policy has 1 + 4 iterations. Random search, two of
Optuna's samplers, and halving the learning rate each time then get at least as many training steps
from the same start. What counts is the loss on a holdout that none of them sees, of the iteration
that each would choose by its eval loss; the measure is the best of a wide grid of learning rates
and epochs on the same rows. Every loop is the product's own; trainings are real, and kept in a
folder, so that a second run only reads.

    python benchmarks/policy.py [hotel banking] [--csv FILE] [--kept DIR] [--early]

`banking` are seven intents of banking77 (PolyAI, CC-BY-4.0), of a CSV file that the user has.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import pickle
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tasks

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.core.files import write_atomically
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import DataSet, EvalPoint, Iteration, Settings
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.report.markdown import markdown_table
from pytest_ftloop.train.early_end import Pace

RATES = (3e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3e-2)
EPOCHS = (1, 2, 3, 5, 8, 12, 20)
ITERATIONS = 5
TINY_ROWS = 32
VERSIONS = "-".join(f"{name}{version(name)}" for name in ("torch", "transformers", "trl", "peft"))
"""What was trained with others is trained again."""


def settings(rate: float, epochs: float, **more: Any) -> Settings:
    """LoRA as most would begin, at this learning rate and for these epochs."""
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


@dataclass(frozen=True)
class Trial:
    """One training of a task, kept: what the loop gets of it, and the loss on the holdout."""

    run: Any
    holdout_loss: float


class Trainer:
    """Trains each settings of each task once, whoever asks."""

    def __init__(self, kept: Path) -> None:
        self.kept = kept
        self.trained = 0
        self._runners: dict[str, Any] = {}

    def trial(self, task: tasks.Task, wanted: Settings, name: str = "trial") -> Trial:
        """The trial of these settings."""
        path = self._path(task, wanted)
        if not path.is_file():
            self._train(task, wanted, path, name)
        return Trial(*pickle.loads(path.read_bytes()))  # written by this very program

    def runner(self, task: tasks.Task) -> Any:
        """What a loop is given in place of the runner that trains each time."""

        return lambda *_: lambda wanted, *_, **__: self.trial(task, wanted).run

    def _train(self, task: tasks.Task, wanted: Settings, path: Path, name: str) -> None:
        from pytest_ftloop.loop.backend import lora_measure, lora_runner

        config = config_of(task, wanted, Path.cwd())
        inputs = Inputs.of(config, None)
        if task.name not in self._runners:
            self._runners[task.name] = lora_runner(inputs, config, Silent())
        with tempfile.TemporaryDirectory() as folder:
            adapter = Path(folder)
            run = self._runners[task.name](wanted, adapter, None, name=name)
            loss = math.nan
            if run.training.best_step:
                held = DataSet("holdout", "", _examples(config, task), "")
                results = lora_measure(inputs, config, held, wanted, adapter, Silent())
                loss = token_mean_loss(results)
        self.trained += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, pickle.dumps((run, loss)))

    def _path(self, task: tasks.Task, wanted: Settings) -> Path:
        said = json.dumps(
            [task.model, task.train, task.eval, task.holdout, wanted.lora, wanted.training],
            sort_keys=True,
        )
        return (
            self.kept
            / VERSIONS
            / task.name
            / f"{hashlib.sha256(said.encode()).hexdigest()[:20]}.pickle"
        )


def config_of(task: tasks.Task, start: Settings, folder: Path, **loop: Any) -> LoopConfig:
    """The task as a loop that starts with these settings."""
    return from_python(
        folder=folder,
        source="benchmark",
        name=task.name,
        model=task.model,
        train=list(task.train),
        eval=list(task.eval),
        lora=dict(start.lora),
        training=dict(start.training),
        scoring={"scorer": "loss", "threshold": 0.5},
        loop={"iterations": ITERATIONS, "patience": 99, **loop},
    )


def _examples(config: LoopConfig, task: tasks.Task) -> Any:
    return Inputs.of(replace(config, eval=list(task.holdout)), None).eval.examples


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


def grid(trainer: Trainer, task: tasks.Task) -> tuple[Settings, Trial]:
    """The settings with the lowest eval loss of the grid, and what they gave."""
    wanted = [settings(rate, epochs) for epochs in EPOCHS for rate in RATES]
    tried = [(s, trainer.trial(task, s)) for s in wanted]
    return min(tried, key=lambda pair: eval_loss(pair[1]))


def eval_loss(trial: Trial) -> float:
    """The loss that everyone here chooses by; infinite for a run that has none."""
    losses = [p.eval_loss for p in trial.run.training.evals if math.isfinite(p.eval_loss)]
    return min(losses, default=math.inf)


# --- what is compared ----------------------------------------------------------------------------


def space(start: Start) -> dict[str, Any]:
    """What the samplers search: learning rate and epochs, and what else is wrong at the start."""
    found: dict[str, Any] = {
        "training.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
        "training.num_train_epochs": {"low": 1, "high": max(EPOCHS), "log": True},
    }
    wider = {
        "lora.r": {"low": 1, "high": 64, "log": True},
        "lora.lora_alpha": {"low": 2, "high": 128, "log": True},
        "lora.lora_dropout": {"low": 0.0, "high": 0.5},
    }
    return found | {name: wider[name] for name in start.searched}


def policies(start: Start, seed: int) -> dict[str, Any]:
    """The loop section's policy of each alternative; Optuna's model from the second trial on."""

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
    """What a policy reached from a start."""

    holdout_loss: float
    steps: int
    chain: tuple[Iteration, ...]


def play(trainer: Trainer, start: Start, policy: Any, steps: int | None) -> Outcome:
    """Run the loop from a start: `ITERATIONS`, or until at least as many steps are used."""
    with tempfile.TemporaryDirectory() as folder:
        limit = ITERATIONS if steps is None else 1
        while True:
            config = config_of(start.task, start.settings, Path(folder), policy=policy)
            runner = trainer.runner(start.task)
            result = Loop(config, Options(iterations=limit), runner=runner).run()
            used = sum(iteration.cost.steps for iteration in result.chain)
            if steps is None or used >= steps or len(result.chain) < limit:
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


# --- what is said --------------------------------------------------------------------------------


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

        That is how far two runs lie apart of which each has the noise of one.
        """
        return self._at_most(self.others[other], self.noise * math.sqrt(2))

    def at_least_strictly(self, other: str) -> bool:
        """The same by the noise of one run alone."""
        return self._at_most(self.others[other], self.noise)

    def _at_most(self, loss: float, noise: float) -> bool:
        return self.rules <= loss * (1 + noise)


def lines(
    trainer: Trainer, task: tasks.Task, others: Sequence[str], seeds: int, which: Sequence[int]
) -> Iterator[Line]:
    """A task's starts, played."""
    best, _ = grid(trainer, task)
    starts = {n: start for n, start in enumerate(starts_of(task, best)) if n in which}
    parts = {start.task.name: start.task for start in starts.values()}
    grids = {name: grid(trainer, part) for name, part in parts.items()}
    noise = {name: seed_noise(trainer, part, grids[name][0], seeds) for name, part in parts.items()}
    for number, start in starts.items():
        ours = play(trainer, start, "rules", None)
        theirs = {
            name: play(trainer, start, policy, ours.steps).holdout_loss
            for name, policy in policies(start, seed=1000 * number).items()
            if name in others
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
    """The table, and how often the rules reach and beat what."""
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
    """What `Pace` would end: every kept run of a task held against every other as the best."""
    worse = better = ended = wrong = saved = planned = 0
    for folder in sorted(path for path in (kept / VERSIONS).iterdir() if path.is_dir()):
        runs = [Trial(*pickle.loads(f.read_bytes())) for f in sorted(folder.glob("*.pickle"))]
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
    parser.add_argument("tasks", nargs="*", help="routing, hotel, banking (with --csv)")
    parser.add_argument("--kept", type=Path, default=Path(".bench/policy"), help="the trainings")
    parser.add_argument("--csv", type=Path, help="of banking: a file with text,category")
    parser.add_argument("--seeds", type=int, default=5, help="to measure the seed's noise")
    parser.add_argument(
        "--starts",
        type=int,
        nargs="*",
        default=range(12),
        metavar="N",
        help="of each task's 0 to 11",
    )
    parser.add_argument("--others", nargs="*", default=["random", "TPE", "GP", "halving"])
    parser.add_argument("--early", action="store_true", help="what of the kept runs is ended early")
    chosen = parser.parse_args()
    if chosen.early:
        print("\n".join(early_ends(chosen.kept)))
        return
    trainer = Trainer(chosen.kept)
    found: list[Line] = []
    for name in chosen.tasks or (["hotel", "banking"] if chosen.csv else ["hotel"]):
        made = {
            "routing": tasks.routing,
            "hotel": tasks.hotel,
            "banking": lambda: tasks.banking(chosen.csv, INTENTS),
        }[name]()
        found += lines(trainer, made, chosen.others, chosen.seeds, chosen.starts)
    print("\n".join(report(found, chosen.others)))


INTENTS = (
    "card_payment_not_recognised",
    "top_up_limits",
    "Refund_not_showing_up",
    "lost_or_stolen_card",
    "declined_cash_withdrawal",
    "transfer_into_account",
    "transfer_not_received_by_recipient",
)
"""Of banking77, drawn at random: none of those on which rules were chosen or mended."""

if __name__ == "__main__":
    main()
