"""TORCH: keep a run's last evaluation point in the cache, so that a killed run goes on from there.

A point is the trainer's checkpoint (adapter, optimiser, random states) and what was observed until
then. There is one per run; it replaces the one before it as a whole, and is removed when the run is
done. On the CPU the rest of the run is the same to the bit.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pytest_ftloop.core.bounds import MOST_BYTES, read_bytes, read_json
from pytest_ftloop.core.cache import ID_OF_WEIGHTS, unfinished_folder
from pytest_ftloop.core.files import replacing
from pytest_ftloop.core.json_text import json_text
from pytest_ftloop.core.leftovers import is_leftover
from pytest_ftloop.core.records import BaseResults, EvalPoint, ExampleResult, Settings
from pytest_ftloop.core.sums import SUMS, damaged_file, write_sums
from pytest_ftloop.train.task import Task

FORMAT = 2
"""Version of a point's files. One of another version counts as absent."""

MOST = 8
"""Points that are kept of runs that nobody went on with; the oldest are removed."""

POINT, CHECKPOINT, BEST = "point.json", "checkpoint", "best.safetensors"


@dataclass(frozen=True)
class Point:
    """What was observed of a run until a step, of so many `steps`, but for its weights.

    `seconds` and `tokens` are its cost so far. `candidates` are the eval loss and results of the
    points that may be the best, by step; `passes` the train losses as `TrainLosses` has them.
    `untrained` is what the base gave. The hashes of all files are kept with them.
    """

    format: int
    step: int
    steps: int
    seconds: float
    tokens: int
    evals: tuple[EvalPoint, ...]
    best_step: int
    best: tuple[ExampleResult, ...]
    candidates: Mapping[int, tuple[float, tuple[ExampleResult, ...]]]
    passes: tuple[tuple[int, str, float, int, int], ...]
    untrained: BaseResults | None


@dataclass(frozen=True)
class Unfinished:
    """The place of one run's last evaluation point. `started` is the run's, in perf_counter's s."""

    folder: Path
    started: float
    keeps_base: bool

    @classmethod
    def of(
        cls,
        weights: str,
        settings: Settings,
        task: Task,
        metric: str,
        environment: Mapping[str, str],
        started: float,
    ) -> Unfinished:
        """The place of the run of these `weights`, measured by this task in this environment."""
        identity = {
            "format": FORMAT,
            "version": version("pytest-ftloop"),
            "weights": weights,
            "training": dict(settings.training),
            "eval": [(e.id, e.content, e.tags) for e in task.eval.examples],
            "guards": [(guard.name, guard.rows.sha256) for guard in task.guards],
            "scoring": repr((task.scoring, [guard.scoring for guard in task.guards])),
            "metric": metric,
            "environment": dict(environment),
        }
        text = json.dumps(identity, sort_keys=True, default=str)
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        folder = unfinished_folder() / f"{weights[:ID_OF_WEIGHTS]}-{name}"
        return cls(folder, started, not _scores_by_code(task))

    def point(self) -> Point | None:
        """The point, if there is one that is whole."""
        try:
            said = read_json(read_bytes(self.folder / POINT, MOST_BYTES))
            point = TypeAdapter(Point).validate_python(said)
        except (OSError, ValueError, ValidationError):
            return None
        is_whole = (self.folder / SUMS).is_file() and not damaged_file(self.folder)
        if not is_whole or point.format != FORMAT:
            return None
        with suppress(OSError):  # of a read-only cache nothing is removed
            self.folder.touch()  # it is in use, so not the oldest that another process removes
        return point

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        """Weights that `keep` wrote."""
        return dict(load_file(self.folder / name))

    def keep(
        self, point: Point, checkpoint: Path, weights: Mapping[str, Mapping[str, torch.Tensor]]
    ) -> None:
        """Keep a point with the trainer's checkpoint and further weights by their file.

        `point.seconds` are those of processes before this one. A cache that is full is no reason to
        stop.
        """
        with suppress(OSError, SafetensorError):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder) as making:
                shutil.copytree(checkpoint, making / CHECKPOINT)
                for name, tensors in weights.items():
                    save_file(dict(tensors), making / name)
                point = replace(
                    point,
                    seconds=point.seconds + time.perf_counter() - self.started,
                    untrained=point.untrained if self.keeps_base else None,
                )
                (making / POINT).write_text(json_text(point), encoding="utf-8")
                write_sums(making)
            self._remove_oldest()

    def remove(self) -> None:
        """Remove the point: its run is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_oldest(self) -> None:
        points = (path for path in self.folder.parent.iterdir() if not is_leftover(path.name))
        others = sorted(points, key=lambda path: path.stat().st_mtime)
        for path in others[:-MOST]:
            shutil.rmtree(path, ignore_errors=True)


def candidate_file(step: int) -> str:
    """The file of the weights of an evaluation point that may be the best."""
    return f"candidate-{step}.safetensors"


def _scores_by_code(task: Task) -> bool:
    """Whether the base's scores are by code of the user's, or a judge: these may have changed."""
    scorings = [task.scoring, *(guard.scoring for guard in task.guards if guard.scoring)]
    return any(s.scorer == "hook" or ":" in s.scorer or s.judge is not None for s in scorings)
