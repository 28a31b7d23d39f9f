"""Trainer states that can't be used, and coarse logs."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_ftloop.core.errors import DataError
from pytest_ftloop.diagnose.any_trainer.adapter_file import WEIGHTS
from pytest_ftloop.diagnose.any_trainer.found import STATE
from pytest_ftloop.diagnose.any_trainer.trainer_state import (
    TrainerRun,
    findings_of,
    read_state,
)
from pytest_ftloop.diagnose.windows import FIRST_STEPS
from tests.diagnose.trainer_state_cases import REAL, Put, healthy

# --- what can't be used --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "wanted JSON"),
        ('{"log_history": [{"step"', "wanted JSON"),
        ("[]", "with log_history, found a list"),
        ('{"r": 8}', "with log_history, found none"),
        ('{"log_history": {}}', "log_history: wanted a list, found an object"),
        ('{"log_history": [], "global_step": 0}', "log_history is empty"),
        ('{"log_history": [{"step": 1}]}', "neither a loss nor an eval loss"),
        ('{"log_history": [3]}', "log_history[0]: wanted an object, found 3"),
        ('{"log_history": [{"loss": 1.0}]}', "log_history[0].step: wanted a number of steps"),
        ('{"log_history": [{"loss": 1.0, "step": -1}]}', "found -1"),
        ('{"log_history": [{"loss": "1.0", "step": 1}]}', "log_history[0].loss: wanted a number"),
        ('{"log_history": [{"loss": true, "step": 1}]}', "wanted a number, found True"),
        ("[" * 100_000, "JSON that can't be read"),
        ('{"log_history": ' + "9" * 5000 + "}", "found "),  # Python reads it, or refuses to
    ],
)
def test_unusable(tmp_path: Path, text: str, phrase: str) -> None:
    """What is no state says what was wanted, found and where, and what to name instead."""
    path = tmp_path / STATE
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_state(path)
    said = str(caught.value)
    assert STATE in said.splitlines()[0]
    assert phrase in said
    assert len(said.splitlines()) == 2


def test_no_text(tmp_path: Path) -> None:
    """A file that is no text says so; one that is gone too."""
    path = tmp_path / "training_args.bin"
    path.write_bytes(b"\x80\x02\xff\xfe")
    with pytest.raises(DataError, match="found text that is not UTF-8"):
        read_state(path)
    with pytest.raises(DataError, match="can't be read: No such file"):
        read_state(tmp_path / "gone.json")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 58011\n"


def test_a_git_lfs_pointer(tmp_path: Path) -> None:
    """A state that git left as a pointer says what fetches it."""
    path = tmp_path / STATE
    path.write_text(POINTER)
    with pytest.raises(DataError, match=r"a Git LFS pointer(.|\n)*git lfs pull"):
        read_state(path)


def test_an_adapter_that_is_a_pointer(put: Put) -> None:
    """The curves are diagnosed, and a note says what fetches the adapter."""
    path = put(*healthy())
    (path.parent / WEIGHTS).write_text(POINTER)
    assert any("Git LFS pointer" in note for note in read_state(path).notes)


def test_a_byte_order_mark(put: Put) -> None:
    """A file that some editor saved with one is read."""
    path = put(*healthy())
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert 100 == len(read_state(path).steps)


NUMBERS = st.one_of(
    st.floats(), st.integers(), st.just(0), st.floats(0, 20), st.none(), st.booleans(), st.text()
)


KEYS = st.sampled_from(
    [
        *("loss", "grad_norm", "learning_rate", "epoch", "train_runtime", "eval_loss"),
        *("eval_a_loss", "eval_a_runtime", "eval_accuracy", "eval_mean_token_accuracy"),
        *("eval_wer", "eval_runtime", "eval_samples_per_second", "reward", "objective/kl"),
        *("frac_reward_zero_std", "rewards/margins", "rewards/x/mean", "step"),
    ]
)

LOGGED = (
    *("eval_accuracy", "eval_wer", "eval_f1", "eval_runtime", "eval_samples_per_second"),
    *("mean_token_accuracy", "reward", "reward_std", "frac_reward_zero_std", "objective/kl"),
    *("completions/clipped_ratio", "rewards/margins", "rewards/accuracies", "rewards/x/mean"),
)
"""Names of figures that some rule reads, and that may have any value."""


LIKELY = st.one_of(st.floats(0, 20), st.floats())


SOUND = st.fixed_dictionaries(
    {"step": st.integers(0, 60)},
    optional={
        "loss": LIKELY,
        "grad_norm": LIKELY,
        "learning_rate": LIKELY,
        "epoch": st.floats(),
        "eval_loss": LIKELY,
        **{name: st.floats(0, 1) | NUMBERS for name in LOGGED},
        "eval_accuracy": st.floats(),
    },
)

STATES = st.fixed_dictionaries(
    {},
    optional={
        "global_step": NUMBERS,
        "max_steps": NUMBERS,
        "best_metric": LIKELY | NUMBERS,
        "best_global_step": st.integers(0, 60) | NUMBERS,
        "best_model_checkpoint": st.sampled_from(["out/checkpoint-10", "x"]) | NUMBERS,
    },
)


ANYTHING = st.recursive(
    NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=5
)


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    history=st.lists(SOUND, max_size=60) | ANYTHING | st.lists(st.dictionaries(KEYS, NUMBERS)),
    state=STATES,
)
def test_any_state(put: Put, history: Any, state: dict[str, Any]) -> None:
    """Whatever a state says: findings, or a `DataError`; never anything else."""
    path = put(**(state | {"log_history": history}))
    try:
        run = read_state(path)
    except DataError:
        return
    for finding in findings_of(run):
        assert finding.message.endswith(".")


# --- logging_steps -------------------------------------------------------------------------------


def logged_every(every: int, losses: list[float], evals: dict[int, float]) -> TrainerRun:
    """A run of which each entry is the mean of `every` steps, as a trainer with logging_steps."""
    ends = range(every, len(losses) + 1, every)
    of = read_state(REAL / "sft.json")
    first, point = of.steps[0], of.evals[""][0]
    return replace(
        of,
        steps=tuple(replace(first, step=n, loss=fmean(losses[n - every : n])) for n in ends),
        evals={
            "": tuple(replace(point, step=n, epoch=n / 300, eval_loss=x) for n, x in evals.items())
        },
        step=len(losses),
        epochs=4.0,
    )


def course(seed: int, rise: float = 0.0, floor: float = 0.5, noise: float = 0.25) -> list[float]:
    """1,200 noisy train losses that fall from 3 in 100 or 300 steps; later they may rise."""
    draw = random.Random(seed)
    fast, sigma = draw.choice([30, 100]), draw.uniform(0.03, noise)
    means = [
        floor + (3 - floor) * math.exp(-n / fast) + rise * max(0, n - 600) / 600
        for n in range(1200)
    ]
    return [mean * math.exp(draw.gauss(-(sigma**2) / 2, sigma)) for mean in means]


@pytest.mark.parametrize("every", [1, 5, 10, 25, 50, 100])
@pytest.mark.parametrize(
    ("evals", "shape", "expected"),
    [
        ((0.6, 0.56, 0.55, 0.55), {}, set()),
        ((0.9, 0.8, 1.0, 1.3), {}, {"overfitting"}),
        ((0.6, 0.56, 0.9, 1.3), {"rise": 0.6}, {"oscillation", "diverged"}),
        ((0.6, 0.56, 3.0, 6.0), {"rise": 6.0}, {"diverged"}),
        ((3.0, 2.99, 2.99, 2.98), {"floor": 2.98, "noise": 0.03}, {"not-learning"}),
    ],
    ids=["healthy", "overfitting", "both-rise", "diverged", "flat"],
)
def test_logging_steps_do_not_matter(
    every: int, evals: tuple[float, ...], shape: dict[str, float], expected: set[str]
) -> None:
    """Entries that are means of several steps give the alarms of the run itself, or none.

    Of a flat log that begins late it can't be told whether it learned before.
    """
    if every > FIRST_STEPS and "floor" in shape:
        expected = set()
    for seed in range(20):
        points = {300 * n: loss for n, loss in enumerate(evals, start=1)}
        run = logged_every(every, course(seed, **shape), points)
        alarms = {found.kind for found in findings_of(run) if found.severity != "info"}
        assert alarms <= expected
        assert bool(alarms) is bool(expected)
