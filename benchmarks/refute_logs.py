"""The logs of refute.py, all in the form of a `trainer_state.json`: made up, recorded or kept."""

from __future__ import annotations

import json
import math
import pickle
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

State = dict[str, Any]

TESTS = Path(__file__).parents[1] / "tests" / "diagnose"

STRIDES = (1, 2, 4)
"""A kept training is replayed with each evaluation, with every second and with every fourth."""


@dataclass(frozen=True)
class Log:
    """A run's log: what its trainer's state holds."""

    name: str
    state: State

    @property
    def evals(self) -> list[tuple[int, float]]:
        """(index in the log, loss) of each evaluation."""
        history = self.state["log_history"]
        return [(n, entry["eval_loss"]) for n, entry in enumerate(history) if "eval_loss" in entry]

    def until(self, index: int) -> State:
        """The state as it was after that evaluation; what the best is was not known yet."""
        history = self.state["log_history"][: self.evals[index][0] + 1]
        unknown = {"best_metric": None, "best_model_checkpoint": None, "best_global_step": None}
        last = history[-1]
        at = {"global_step": last["step"], "epoch": last.get("epoch")}
        return {**self.state, **unknown, **at, "log_history": history}


def stored(folder: Path) -> Iterator[Log]:
    """Every state below a folder that has at least two finite eval losses."""
    for path in sorted(folder.rglob("trainer_state.json")):
        try:
            state = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError):
            continue
        log = Log(str(path.parent.relative_to(folder)), state)
        losses = [loss for _, loss in log.evals]
        if len(losses) > 1 and all(map(math.isfinite, losses)):
            yield log


def recorded() -> Iterator[Log]:
    """The runs that were recorded for the tests of the diagnosis."""
    yield from (
        Log(path.stem, json.loads(path.read_text()))
        for path in sorted((TESTS / "trainer_states").glob("*.json"))
        if path.stem != "two_eval_sets"
    )
    for file in ("real_curves", "real_runs"):
        for name, run in json.loads((TESTS / f"{file}.json").read_text()).items():
            rate = run.get("rate", 1e-3)
            for stride in STRIDES:
                yield logged(
                    f"{file} {name}, stride {stride}",
                    run["losses"],
                    [(step, epoch, loss) for step, epoch, loss, *_ in run["evals"]],
                    [rate * (1 - n / len(run["losses"])) for n in range(len(run["losses"]))],
                    stride,
                )


def kept(folder: Path) -> Iterator[Log]:
    """The trainings of a `kept.KeptBackend`, each with every evaluation, and more coarsely."""
    for path in sorted(folder.rglob("*.pickle")):
        training = pickle.loads(path.read_bytes()).run.training  # written by kept.py
        evals = [(point.step, point.epoch, point.eval_loss) for point in training.evals]
        if len(evals) < 2 or not all(math.isfinite(loss) for *_, loss in evals):
            continue
        for stride in STRIDES:
            yield logged(
                f"{path.stem}, stride {stride}",
                [step.loss for step in training.steps],
                evals,
                [step.learning_rate for step in training.steps],
                stride,
            )


def logged(
    name: str,
    losses: Sequence[float],
    evals: Sequence[tuple[int, float, float]],
    rates: Sequence[float],
    stride: int,
) -> Log:
    """A run as a trainer logs it that evaluates `stride` times more rarely.

    `losses` and `rates` are those of each step, `evals` (step, epoch, loss). With a stride of 1
    each step is logged, else the mean over the steps since the last evaluation that is left.
    """
    left = evals[stride - 1 :: stride]
    rows = max(1, left[0][0] // 2) if stride > 1 and left else 1
    per_epoch = left[-1][0] / left[-1][1] if left and left[-1][1] else len(losses)
    history: list[dict[str, Any]] = [
        {
            "step": step,
            "epoch": step / per_epoch,
            "loss": fmean(losses[step - rows : step]),
            "learning_rate": rates[step - 1],
        }
        for step in range(rows, len(losses) + 1, rows)
    ]
    history += [
        {"step": step, "epoch": epoch, "eval_loss": loss, "eval_runtime": 1.0}
        for step, epoch, loss in left
    ]
    history.sort(key=lambda entry: (entry["step"], "eval_loss" in entry))
    return Log(
        name,
        {
            "global_step": len(losses),
            "max_steps": len(losses),
            "epoch": len(losses) / per_epoch,
            "log_history": history,
        },
    )


# --- made up -------------------------------------------------------------------------------------

Curve = Callable[[float], tuple[float, float]]
"""The train and eval loss without noise, at a share of the run."""


def made_up(count: int, seed: int = 0) -> Iterator[Log]:
    """Logs of many shapes, in turns; schedule, number of points and noise are drawn.

    They are drawn so that no shape fits one rule: floors of 0.003 to 2 nats, eval noise of 0.1 to
    6%, 4 to 40 evaluations, 8 to 160 logged losses, train sets that are easier or harder.
    """
    for number in range(count):
        draw = random.Random(f"refute-{seed}-{number}")
        shape = list(SHAPES)[number % len(SHAPES)]
        curve = SHAPES[shape](draw)
        steps = 10 * draw.choice((16, 40, 120, 400))
        points, rows = draw.choice((4, 6, 10, 20, 40)), draw.choice((8, 12, 40, 160))
        epochs, noise = draw.choice((1, 2, 3, 5, 10)), draw.choice((0.001, 0.005, 0.02, 0.06))
        batch = draw.choice((0.02, 0.1, 0.3)) * math.sqrt(rows / steps)
        schedule = draw.choice(("linear", "cosine", "constant"))
        history: list[dict[str, Any]] = []
        for n in range(1, rows + 1):
            share = n / rows
            loss = curve(share)[0] * math.exp(draw.gauss(0, batch))
            rate = 2e-4 * rate_at(share, schedule)
            history.append(entry(steps, share, epochs, loss=loss, learning_rate=rate))
        for n in range(1, points + 1):
            loss = curve(n / points)[1] * math.exp(draw.gauss(0, noise))
            history.append(entry(steps, n / points, epochs, eval_loss=loss, eval_runtime=1.0))
        history.sort(key=lambda of: (of["step"], "eval_loss" in of))
        name = f"{shape} {number}: {points} points, noise {noise:.1%}, {schedule}"
        state = {"global_step": steps, "max_steps": steps, "epoch": epochs}
        yield Log(name, {**state, "log_history": history})


def entry(steps: int, share: float, epochs: int, **figures: float) -> dict[str, Any]:
    """A log entry at a share of the run."""
    return {"step": max(1, round(share * steps)), "epoch": share * epochs, **figures}


def rate_at(share: float, schedule: str) -> float:
    """The learning rate over its highest."""
    if schedule == "constant":
        return 1.0
    return 1 - share if schedule == "linear" else (1 + math.cos(math.pi * share)) / 2


def falls(draw: random.Random) -> Curve:
    """Train and eval fall to their floors."""
    start, floor = draw.uniform(1.2, 5), draw.choice((0.003, 0.05, 0.3, 0.8))
    harder, speed = draw.uniform(0.9, 1.4), draw.choice((2, 5, 10, 20))

    def at(share: float) -> tuple[float, float]:
        level = floor + (1 - floor) * math.exp(-speed * share)
        return start * level, start * level * harder

    return at


def overfits(draw: random.Random) -> Curve:
    """The eval loss turns and rises, the train loss falls on."""
    at_fall, turn, rise = falls(draw), draw.uniform(0.1, 0.7), draw.uniform(0.1, 1.5)

    def at(share: float) -> tuple[float, float]:
        train, _ = at_fall(share)
        lowest = at_fall(min(share, turn))[1]
        return train * (1 - 0.5 * share), lowest * (1 + rise * max(0.0, share - turn))

    return at


def warms(draw: random.Random) -> Curve:
    """The warmup first destroys, then the run relearns what it lost and more."""
    at_fall, height, width = falls(draw), draw.uniform(0.05, 0.8), draw.uniform(0.05, 0.3)

    def at(share: float) -> tuple[float, float]:
        train, eval_ = at_fall(max(0.0, share - width))
        bump = 1 + height * math.exp(-(((share - width) / width) ** 2) * 2)
        return train * bump, eval_ * bump

    return at


def falls_again(draw: random.Random) -> Curve:
    """A plateau, then a second fall: a rate that drops by steps, or a skill learned late."""
    at_fall, when, depth = falls(draw), draw.uniform(0.3, 0.8), draw.uniform(0.1, 0.5)

    def at(share: float) -> tuple[float, float]:
        train, eval_ = at_fall(share)
        fall = 1 - depth / (1 + math.exp(-(share - when) / 0.03))
        return train * fall, eval_ * fall

    return at


def both_rise(draw: random.Random) -> Curve:
    """Too high a rate: train and eval rise together, for good."""
    at_fall, turn, rise = falls(draw), draw.uniform(0.1, 0.6), draw.uniform(0.3, 2)

    def at(share: float) -> tuple[float, float]:
        train, eval_ = at_fall(min(share, turn))
        factor = 1 + rise * max(0.0, share - turn)
        return train * factor, eval_ * factor

    return at


def gap_widens(draw: random.Random) -> Curve:
    """Train falls far below eval, which falls slowly on."""
    at_fall, gap, slope = falls(draw), draw.uniform(1.3, 4), draw.uniform(0, 0.15)

    def at(share: float) -> tuple[float, float]:
        train, _ = at_fall(share)
        return train / (1 + (gap - 1) * share), at_fall(min(share, 0.4))[0] * (1 - slope * share)

    return at


SHAPES: Mapping[str, Callable[[random.Random], Curve]] = {
    shape.__name__: shape for shape in (falls, overfits, warms, falls_again, both_rise, gap_widens)
}
