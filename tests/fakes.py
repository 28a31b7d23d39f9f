"""Fake records for tests: everything has a sensible default, a test names only what it is about."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.metrics import best_metrics
from pytest_ftloop.core.noise import SeedNoise
from pytest_ftloop.core.records import (
    Adjustment,
    Cost,
    Decision,
    EvalPoint,
    Evaluation,
    ExampleResult,
    Finding,
    HoldoutUse,
    Iteration,
    Judgement,
    SeedRun,
    Settings,
    StepLog,
    Training,
)
from pytest_ftloop.log.writing import tag_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence


def fake_steps(
    losses: Iterable[float],
    grad_norms: Iterable[float | None] | float | None = 1.0,
    learning_rate: float = 1e-3,
) -> tuple[StepLog, ...]:
    """One step a loss, numbered from 1; one gradient norm for all, or one each."""
    losses = list(losses)
    if grad_norms is None or isinstance(grad_norms, (int, float)):
        grad_norms = [grad_norms] * len(losses)
    return tuple(
        StepLog(step=number, loss=loss, grad_norm=norm, learning_rate=learning_rate)
        for number, (loss, norm) in enumerate(zip(losses, grad_norms, strict=True), start=1)
    )


def fake_evals(
    losses: Sequence[float], steps: int = 100, epochs: float = 2.0, accuracy: float = 0.5
) -> tuple[EvalPoint, ...]:
    """Evaluation points spread evenly over `steps` steps and `epochs` epochs."""
    return tuple(
        EvalPoint(
            step=round(steps * number / len(losses)),
            epoch=epochs * number / len(losses),
            eval_loss=loss,
            token_accuracy=accuracy,
        )
        for number, loss in enumerate(losses, start=1)
    )


def fake_training(
    losses: Iterable[float] | None = None,
    evals: Sequence[float | EvalPoint] = (2.0, 1.5, 1.4, 1.38),
    *,
    steps: tuple[StepLog, ...] | None = None,
    epochs: float = 2.0,
    **fields: Any,
) -> Training:
    """A healthy run of 100 steps; `losses` are its train losses, `evals` its eval losses."""
    if steps is None:
        steps = fake_steps(
            [1.3 + 3 * math.exp(-n / 15) for n in range(100)] if losses is None else losses
        )
    points = tuple(point for point in evals if isinstance(point, EvalPoint)) or fake_evals(
        [loss for loss in evals if not isinstance(loss, EvalPoint)], len(steps), epochs
    )
    finite = [point for point in points if math.isfinite(point.eval_loss)]
    defaults: dict[str, Any] = {
        "steps": steps,
        "evals": points,
        "planned_steps": len(steps),
        "best_step": min(finite, key=lambda point: point.eval_loss).step if finite else 0,
        "steps_per_epoch": max(1, round(len(steps) / epochs)),
        "trainable_parameters": 100_000,
        "labelled_tokens": 2_000,
        "vocabulary": 4096,
        "adapter_moved": True,
    }
    return Training(**(defaults | fields))


def fake_metrics(
    eval_loss: float = 1.0, train_loss: float | None = None, pass_rate: float = 0.5, **more: float
) -> dict[str, float]:
    """Every metric; the train loss is a little below the eval loss unless given."""
    train_loss = 0.95 * eval_loss if train_loss is None else train_loss
    return {
        "eval_loss": eval_loss,
        "train_loss": train_loss,
        "overfit_gap": eval_loss - train_loss,
        "pass_rate": pass_rate,
        "token_accuracy": 0.8,
        "perplexity": math.exp(min(eval_loss, 100)),
        **more,
    }


def fake_finding(kind: str = "underfit", severity: str = "info", **fields: Any) -> Finding:
    """A finding of one kind."""
    defaults: dict[str, Any] = {
        "message": f"It is {kind}.",
        "evidence": {},
        "remedy": "Do something.",
        "tunable": kind != "no-signal",
    }
    return Finding(kind=kind, severity=severity, **(defaults | fields))  # type: ignore[arg-type]


def fake_example(id: str = "e1", passed: bool | None = True, **fields: Any) -> ExampleResult:  # noqa: A002
    """One scored example."""
    defaults: dict[str, Any] = {
        "content": f"content-{id}",
        "tags": (),
        "loss": 2.0,
        "tokens": 4,
        "correct": 3,
        "expected": "yes",
        "output": "yes" if passed else "no",
    }
    return ExampleResult(id=id, passed=passed, **(defaults | fields))


def fake_iteration(
    number: int = 1,
    *,
    metrics: Mapping[str, float] | None = None,
    lora: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    findings: Sequence[Finding] = (),
    adjustments: Sequence[Adjustment] = (),
    examples: Sequence[ExampleResult] = (),
    **fields: Any,
) -> Iteration:
    """One record of the log; `lora` and `training` are its settings."""
    run = fake_training()
    metrics = fake_metrics() if metrics is None else metrics
    settings = Settings(
        lora={"r": 8, "lora_alpha": 16} if lora is None else dict(lora),
        training=(
            {"learning_rate": 2e-4, "num_train_epochs": 2} if training is None else dict(training)
        ),
    )
    defaults: dict[str, Any] = {
        "loop": "sentiment",
        "id": f"{number:08x}",
        "fingerprint": f"{number:08x}" + "0" * 56,
        "parent": f"{number - 1:08x}" if number > 1 else None,
        "model": "tiny",
        "scoring": {"scorer": "exact"},
        "data": {"train": {"rows": 400, "sha256": "a" * 64}, "eval": {"rows": 100}},
        "final": metrics,
        "base": fake_metrics(5.6, pass_rate=0.0),
        "facts": {
            "steps": len(run.steps),
            "planned_steps": run.planned_steps,
            "best_step": run.best_step,
            "steps_per_epoch": run.steps_per_epoch,
            "trainable_parameters": run.trainable_parameters,
        },
        "steps": run.steps,
        "evals": run.evals,
        "failing": tuple(row.id for row in examples if row.passed is False),
        "decision": Decision(action="stop", kind="", because=""),
        "environment": {"device": "cpu", "torch": "2.13.0"},
        "cost": Cost(seconds=10.0, steps=len(run.steps), tokens=20_000),
    }
    return Iteration(
        number=number,
        metrics=metrics,
        settings=settings,
        findings=tuple(findings),
        adjustments=tuple(adjustments),
        examples=tuple(examples),
        **(defaults | fields),
    )


def fake_table(
    losses: Iterable[float],
    failing: Collection[int] = (),
    *,
    tokens: int = 4,
    tags: Mapping[str, Collection[int]] | None = None,
    start: int = 0,
) -> tuple[ExampleResult, ...]:
    """One example a loss (per token), named e000, e001, ...; `failing` and `tags` by position."""
    tags = tags or {}
    return tuple(
        fake_example(
            f"e{start + n:03d}",
            n not in failing,
            loss=loss * tokens,
            tokens=tokens,
            tags=tuple(tag for tag, places in tags.items() if n in places),
        )
        for n, loss in enumerate(losses)
    )


def fake_measured(
    number: int, examples: Sequence[ExampleResult], *, seed: int = 42, **fields: Any
) -> Iteration:
    """An iteration whose figures are those of its examples; a group of its own unless named."""
    figures = best_metrics(Evaluation(tuple(examples), (), (), math.nan))
    told = {name: value for name, value in figures.items() if math.isfinite(value)}
    gap = {"overfit_gap": 0.1, "train_loss": told.get("eval_loss", 0.0) - 0.1}
    eval_ = {"rows": len(examples), "sha256": f"{number:016x}"}
    defaults: dict[str, Any] = {
        "metrics": told | gap,
        "training": {"learning_rate": number * 1e-4, "seed": seed},
        "data": {"train": {"rows": 400, "sha256": "a" * 16}, "eval": eval_},
        "group": f"group-{number}",
    }
    return fake_iteration(number, examples=examples, **(defaults | fields))


def fake_seed_run(
    iteration: Iteration,
    seed: int,
    examples: Sequence[ExampleResult] | None = None,
    **fields: Any,
) -> SeedRun:
    """An iteration trained again with another seed; with the same examples unless given."""
    rows = tuple(iteration.examples if examples is None else examples)
    figures = best_metrics(Evaluation(rows, (), (), math.nan))
    defaults: dict[str, Any] = {
        "loop": iteration.loop,
        "iteration": iteration.id,
        "role": "gate",
        "fingerprint": f"{seed:032x}{iteration.id:0>32}",
        "group": iteration.group,
        "scoring": iteration.scoring,
        "data": iteration.data,
        "metrics": dict(iteration.metrics)
        | {name: value for name, value in figures.items() if math.isfinite(value)},
        "environment": iteration.environment,
        "cost": iteration.cost,
    }
    return SeedRun(seed=seed, examples=rows, **(defaults | fields))


def fake_noise(**sds: float) -> dict[str, SeedNoise]:
    """The measured seed noise by metric, as standard deviations known from a thousand runs."""
    return {metric: SeedNoise(sd * sd, 0.0, 1000) for metric, sd in sds.items()}


def fake_judgement(
    candidate: Iteration | str, *over: Judgement, kind: str = "improved", **fields: Any
) -> Judgement:
    """A passing judgement in the place of others; its tag is of what it says, as in a log."""
    id_ = candidate if isinstance(candidate, str) else candidate.id
    defaults: dict[str, Any] = {
        "loop": "sentiment",
        "baseline": over[0].candidate if over else None,
        "by": "gate",
        "passed": kind not in {"regressed", "incomplete"},
        "because": "",
        "over": tuple(judgement.name for judgement in over),
        "tag": tag_of(f"{id_} {kind} {[judgement.name for judgement in over]}", 8),
    }
    return Judgement(candidate=id_, kind=kind, **(defaults | fields))


def fake_holdout_use(
    iteration: Iteration, examples: Sequence[ExampleResult], **fields: Any
) -> HoldoutUse:
    """The holdout opened for an iteration."""
    figures = best_metrics(Evaluation(tuple(examples), (), (), math.nan))
    defaults: dict[str, Any] = {
        "loop": iteration.loop,
        "iteration": iteration.id,
        "fingerprint": iteration.fingerprint,
        "scoring": iteration.scoring,
        "data": {"source": "holdout.jsonl", "rows": len(examples), "sha256": "b" * 16},
        "metrics": {name: value for name, value in figures.items() if math.isfinite(value)},
        "environment": iteration.environment,
    }
    return HoldoutUse(examples=tuple(examples), **(defaults | fields))
