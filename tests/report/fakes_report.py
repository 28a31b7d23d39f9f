"""A fake loop with everything a report shows: four iterations, findings, failing examples."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.gates import parse_gate
from pytest_ftloop.core.chain import best_of
from pytest_ftloop.core.records import Adjustment, Cost, Decision, Example
from pytest_ftloop.gate.thresholds import check_gates
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop.result import LoopResult
from tests.fakes import fake_example, fake_finding, fake_iteration, fake_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_ftloop.core.records import ExampleResult, Iteration

LOG = Path("/repo/log/improvement_log/sentiment")
GATES = {"eval_loss": "<= 1.2", "pass_rate": ">= 0.9", "pass_rate[negation]": ">= 0.8"}

FASTER = Adjustment("training.learning_rate", 2e-4, 1e-3, "the train loss hardly fell")
LONGER = Adjustment("training.num_train_epochs", 1, 3, "the run ended while still improving")
WIDER = Adjustment("lora.r", 8, 16, "few parameters")
DROPOUT = Adjustment("lora.lora_dropout", None, 0.1, "it overfits")

OVERFITTING = fake_finding(
    "overfitting",
    "warning",
    message=(
        "The eval loss rose from 1.290 (step 66) to 1.360 while the train loss went on falling."
    ),
    evidence={"eval_lowest": 1.29, "eval_last": 1.36, "best_step": 66},
    remedy="Halve the learning rate, or train fewer epochs.",
)


def fake_rows(failing: int = 5, of: int = 20) -> tuple[ExampleResult, ...]:
    """Scored examples, the first ones failing; every second one is tagged negation."""
    return tuple(
        fake_example(
            f"e{number:02d}",
            number > failing,
            tags=("negation", "short") if number % 2 else ("short",),
            loss=10.0 - number / 4,
            expected="negative" if number <= failing else "yes",
            output="positive" if number <= failing else "yes",
        )
        for number in range(1, of + 1)
    )


def fake_prompts(rows: Iterable[ExampleResult]) -> dict[str, Example]:
    """The examples that the rows are results of."""
    return {
        row.id: Example(
            id=row.id,
            content=row.content,
            row={"prompt": f"Review {row.id}:\nnot good at all.\nSentiment:"},
            prompt=f"Review {row.id}:\nnot good at all.\nSentiment:",
            expected=row.expected,
        )
        for row in rows
    }


def fake_chain(rows: tuple[ExampleResult, ...] | None = None) -> tuple[Iteration, ...]:
    """Four iterations of one loop: two gains, then a loss; the third is the best."""
    rows = fake_rows() if rows is None else rows
    changes = ((), (FASTER,), (LONGER,), (WIDER, DROPOUT))
    figures = ((2.1, 2.05, 0.35), (1.6, 1.5, 0.55), (1.29, 1.1, 0.75), (1.36, 0.9, 0.7))
    nexts = ((FASTER,), (LONGER,), (WIDER, DROPOUT), ())
    settings = {"learning_rate": 2e-4, "num_train_epochs": 1}
    chain = []
    for number, (adjustments, (loss, train, rate), following) in enumerate(
        zip(changes, figures, nexts, strict=True), start=1
    ):
        for adjustment in adjustments:
            group, _, name = adjustment.setting.partition(".")
            settings |= {name: adjustment.after} if group == "training" else {}
        chain.append(
            fake_iteration(
                number,
                id=f"ab12cd3{number}",
                parent=f"ab12cd3{number - 1}" if number > 1 else None,
                metrics=fake_metrics(loss, train, rate, **{"pass_rate[negation]": rate - 0.15}),
                training=settings,
                adjustments=adjustments,
                examples=rows,
                findings=[OVERFITTING] if number >= 3 else [],
                decision=Decision(
                    action="adjust", kind="", because="it hardly fell", next=following
                ),
                cost=Cost(seconds=12.5, steps=66, tokens=20_000),
                tag=f"77e{number}",
            )
        )
    chain[-1] = replace(
        chain[-1],
        decision=Decision(
            "stop",
            "plateau",
            "The last 2 iterations did not improve eval_loss.",
            (Adjustment("training.learning_rate", 1e-3, 5e-4, "it overfits"),),
        ),
    )
    return tuple(chain)


def fake_result(chain: tuple[Iteration, ...] | None = None, **fields: Any) -> LoopResult:
    """The result of the fake loop: the last two iterations trained now, all its gates failing."""
    chain = fake_chain() if chain is None else chain
    best = best_of(chain, "eval_loss")
    defaults: dict[str, Any] = {
        "loop": "sentiment",
        "source": "sentiment.ftloop.yaml",
        "chain": chain,
        "best": best,
        "gates": check_gates([parse_gate(n, c) for n, c in GATES.items()], best.metrics),
        "trained": tuple(iteration.id for iteration in chain[2:]),
        "log_folder": LOG,
        "files": tuple(path for it in chain[2:] for path in ImprovementLog(LOG).files(it)),
        "examples": fake_prompts(best.examples),
    }
    return LoopResult(**(defaults | fields))


def fake_single(**fields: Any) -> LoopResult:
    """A loop of one iteration."""
    return fake_result((fake_iteration(examples=fake_rows(), **fields),))


def nan_result() -> LoopResult:
    """A loop whose only iteration became NaN."""
    return fake_single(
        metrics=fake_metrics(math.nan),
        findings=[fake_finding("non-finite", "error", message="The train loss became NaN.")],
    )
