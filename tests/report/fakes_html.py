"""Loops for the HTML report: a big one with everything on it, and one with only hostile texts."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.gates import parse_gate
from pytest_ftloop.core.records import (
    Adjustment,
    Cost,
    Decision,
    EvalPoint,
    ExampleResult,
    SeedRun,
    StepLog,
)
from pytest_ftloop.gate.statistic import PairedTest
from pytest_ftloop.gate.thresholds import check_gates
from pytest_ftloop.gate.verdict import Change, Verdict
from pytest_ftloop.report.html.loop_report import LoopReport
from tests.fakes import fake_finding, fake_iteration, fake_metrics
from tests.report.hostile_texts import TEXTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import Iteration

TAGS = ("billing", "delivery", "negation", "refund", "sarcasm", "urgent", "long", "code")
WORDS = [
    "the",
    "parcel",
    "came",
    "two",
    "days",
    "late",
    "and",
    "nobody",
    "at",
    "the",
    "desk",
    "could",
    "say",
    "why",
    "the",
    "courier",
    "had",
    "left",
    "it",
    "with",
    "a",
    "neighbour",
    "who",
    "was",
    "away",
    "so",
    "please",
    "send",
    "the",
    "refund",
    "to",
    "my",
    "account",
    "or",
    "call",
    "me",
    "back",
    "before",
    "friday",
    "thank",
    "you",
    "for",
    "your",
    "patience",
    "with",
    "all",
    "of",
    "this",
    "it",
    "is",
    "not",
    "what",
    "we",
    "had",
    "agreed",
    "on",
]

HOSTILE = (
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    '"><svg onload=window.pwned=1>',
    "' onmouseover='window.pwned=1",
    "<!--<script>",
    "]]>--><b>bold</b>",
    "<a href='javascript:window.pwned=1'>click</a>",
    "<style>*{display:none}</style>",
    "<iframe src='https://example.com/'></iframe>",
    "<link rel=stylesheet href=https://example.com/x.css>",
    "<base href=https://example.com/>",
    "<meta http-equiv=refresh content='0;url=https://example.com/'>",
    "{{ 7*7 }}{% raw %}${7*7}%{x}",
    "&lt;b&gt;&amp;&#60;script&#62;",
    "\u202egnp.exe\u2066\u2069",
    "a\u2028b\u2029c",
    "\x00\x01\x1b[31mred\x7f",
    "\ud83d lone",
    "\u200b\u200d\ufeffzero width",
    "x\r\ny\tz",
    "\\u003cscript\\u003e",
    "\U0001f600" * 20,
    "long" * 500,
    *(text for text in TEXTS if text.strip() and text != "<style>*{display:none}</style>"),
)
"""None is blank or there twice: a page leaves such texts out."""


def big_report(examples: int = 5000, iterations: int = 10, seeds: int = 4) -> LoopReport:
    """A loop of many examples and iterations that learn; the best has seed runs. Always the same.

    Prompts are of 12 to 60 words, outputs of 4 to 25; most failing outputs are unlike all others.
    """
    chance = random.Random(3)
    ids = [f"ticket-{number:05d}" for number in range(examples)]
    prompts = [_words(chance, 12, 60) for _ in ids]
    expected = [_words(chance, 4, 25) for _ in ids]
    ability = [chance.gauss(0, 1.2) for _ in ids]
    tags = [tuple(sorted(chance.sample(TAGS, chance.choice((0, 1, 1, 2))))) for _ in ids]

    def results(skill: float) -> tuple[ExampleResult, ...]:
        rows = []
        for place, id_ in enumerate(ids):
            passed = skill + ability[place] + chance.gauss(0, 0.15) > 0
            said = expected[place] if passed else _words(chance, 4, 25)
            tokens = len(expected[place].split()) + 3
            loss = tokens * math.exp(-0.4 * (skill + ability[place]) + chance.gauss(0, 0.1)) / 3
            rows.append(
                ExampleResult(
                    id=id_,
                    content=f"{place:012x}",
                    tags=tags[place],
                    loss=round(loss, 6),
                    tokens=tokens,
                    correct=tokens - 1 if passed else tokens // 2,
                    passed=passed,
                    expected=expected[place],
                    output=said,
                )
            )
        return tuple(rows)

    skills = [-1.2, -0.6, 0.0, 0.3, 0.15, 0.6, 0.8, 0.75, 0.9, 0.7][:iterations]
    skills += [0.8] * (iterations - len(skills))
    chain = [_iteration(number, results(s), s) for number, s in enumerate(skills, 1)]
    best = max(chain, key=lambda it: it.metrics["pass_rate"])
    skill = skills[best.number - 1]
    runs = tuple(
        _seed_run(best, 42 + n, results(skill + chance.gauss(0, 0.25))) for n in range(1, seeds)
    )
    conditions = {"eval_loss": "<= 0.42", "pass_rate": ">= 60%", "pass_rate[negation]": ">= 70%"}
    return LoopReport(
        loop="support-tickets",
        source="loops/support-tickets.ftloop.yaml",
        iterations=tuple(chain),
        best=best,
        chain=frozenset(it.id for it in chain),
        baseline=chain[max(len(chain) - 4, 0)],
        gates=check_gates([parse_gate(n, c) for n, c in conditions.items()], best.metrics),
        verdicts=(("regression", fake_verdict(chain[max(len(chain) - 4, 0)], best)),),
        seed_runs=runs,
        prompts={(i, f"{n:012x}"): p for n, (i, p) in enumerate(zip(ids, prompts, strict=True))},
    )


BASES = {
    "tickets-qwen": ("hub:Qwen/Qwen2.5-0.5B", 7, 2.0),
    "tickets-smollm": ("hub:HuggingFaceTB/SmolLM2-360M", 6, 1.0),
    "tickets-gpt2": ("hub:gpt2", 3, 0.4),
    "tickets-gpt2-clean": ("hub:gpt2", 4, 0.5),
    "invoices": ("hub:gpt2", 3, 0.4),
}
"""Base model, iterations and cost of five loops: the more iterations, the better the best one."""


def five_loops(examples: int = 120) -> list[LoopReport]:
    """Three bases and another train set on one eval set, and a loop of another eval set."""
    return [
        _of_base(big_report(examples, iterations), name, model, cost)
        for name, (model, iterations, cost) in BASES.items()
    ]


def _of_base(report: LoopReport, name: str, model: str, cost: float) -> LoopReport:
    rows = {"train": 900 if "clean" in name else 1000, "eval": len(report.best.examples)}
    data = {role: {"rows": n, "sha256": f"{n:x}{role}{name[:3]}"} for role, n in rows.items()}
    mark = "" if name.startswith("tickets") else "other"

    def examples(of: Iteration | SeedRun) -> tuple[ExampleResult, ...]:
        return tuple(replace(row, content=f"{mark}{row.content}") for row in of.examples)

    def iteration(it: Iteration) -> Iteration:
        spent = replace(it.cost, seconds=cost * it.cost.seconds)
        return replace(it, loop=name, model=model, data=data, cost=spent, examples=examples(it))

    chain = {it.id: iteration(it) for it in report.iterations}
    first = chain[report.iterations[0].id]
    low = tuple(
        replace(row, passed=row.id.endswith("0"), loss=3.0 * row.tokens) for row in first.examples
    )
    figures = {n: v for n, v in _metrics(low).items() if n not in {"train_loss", "overfit_gap"}}
    untrained = replace(
        first,
        number=0,
        id="0" * 8,
        fingerprint="0" * 64,
        group="",
        examples=low,
        metrics=figures,
        steps=(),
        evals=(),
        findings=(),
        decision=Decision("stop", "base", ""),
    )
    runs = [replace(run, data=data, examples=examples(run)) for run in report.seed_runs]
    return replace(
        report,
        loop=name,
        source=f"loops/{name}.ftloop.yaml",
        iterations=(untrained, *chain.values()),
        best=chain[report.best.id],
        baseline=chain[report.baseline.id] if report.baseline else None,
        seed_runs=tuple(runs),
    )


def fake_verdict(before: Iteration, after: Iteration, **fields: Any) -> Verdict:
    """A verdict with a figure of each kind."""

    def change(metric: str, old: float, new: float, kind: Any, worse: float) -> Change:
        test = PairedTest(worse, 0.006, 40.0, 0.004, 6, 0.01, len(after.examples), 1, 3)
        return Change(metric, old, new, test, 0.0004 if kind != "unchanged" else 0.4, kind)

    old, new = before.metrics, after.metrics
    defaults: dict[str, Any] = {
        "kind": "improved",
        "ok": True,
        "because": "eval_loss fell by more than chance explains; nothing got worse",
        "candidate": after.name,
        "baseline": before.name,
        "against": "main (30f61fc)",
        "changes": (
            change("eval_loss", old["eval_loss"], new["eval_loss"], "improved", -0.04),
            change("pass_rate", old["pass_rate"], new["pass_rate"], "unchanged", -0.002),
        ),
        "tags": (change("pass_rate[sarcasm]", 0.61, 0.55, "inconclusive", 0.06),),
        "common": len(after.examples),
        "total": len(after.examples),
        "notes": ("the baseline has one seed: its noise is taken from the candidate's",),
    }
    return Verdict(**(defaults | fields))


def odd_report(texts: Sequence[str]) -> LoopReport:
    """A loop in which a user, a model or a data file wrote these texts wherever they can."""
    rows = tuple(
        ExampleResult(
            id=f"{number:03d}{text}",
            content=str(number),
            tags=(text,) if text else (),
            loss=2.0,
            tokens=2,
            correct=1,
            passed=number % 2 == 0,
            expected=text,
            output=f"{text}?",
        )
        for number, text in enumerate(texts)
    )
    nasty = texts[0]
    adjustment = Adjustment(f"lora.{nasty}", texts[1], texts[2], texts[3])
    findings = [
        replace(
            fake_finding("overfitting", "warning"),
            kind=text,
            message=text,
            remedy=text,
            evidence={text: text},
        )
        for text in texts[:20]
    ]
    chain = tuple(
        replace(
            fake_iteration(
                number,
                examples=rows if number == 1 else tuple(_flipped(row) for row in rows),
                metrics=fake_metrics(
                    2.0 / number, 1.0, 0.5, **{f"pass_rate[{text}]": 0.5 for text in texts}
                ),
                findings=findings,
                adjustments=[adjustment],
            ),
            loop=nasty,
            id=texts[number],
            model=nasty,
            parent=texts[6],
            environment={"device": nasty, nasty: nasty},
            scoring={"scorer": nasty, nasty: nasty},
            data={"eval": {"rows": 3, "sha256": "0"}, nasty: {"rows": nasty, "sha256": nasty}},
            decision=Decision("adjust", nasty, nasty, (adjustment,)),
        )
        for number in (1, 2)
    )
    gates = check_gates([parse_gate("eval_loss", "<= 0.1")], chain[-1].metrics)
    gates = tuple(replace(g, gate=replace(g.gate, name=f"pass_rate[{nasty}]")) for g in gates)
    verdict = fake_verdict(*chain, because=nasty, against=nasty, notes=tuple(texts[:20]))
    return LoopReport(
        loop=nasty,
        source=nasty,
        iterations=chain,
        best=chain[-1],
        baseline=chain[0],
        gates=gates,
        verdicts=((f"regression[{nasty}]", verdict),),
        prompts={(row.id, row.content): row.expected for row in rows},
        note=nasty,
    )


def _flipped(row: ExampleResult) -> ExampleResult:
    return replace(row, passed=not row.passed, output=f"!{row.expected}")


def _words(chance: random.Random, least: int, most: int) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(least, most)))


def _iteration(number: int, rows: tuple[ExampleResult, ...], skill: float) -> Iteration:
    metrics = _metrics(rows)
    end = metrics["eval_loss"]
    steps = tuple(
        StepLog(
            25 * n, end * (0.85 + 3 * math.exp(-n / 9) + 0.05 * math.sin(n * number)), 1.0, 1e-3
        )
        for n in range(1, 65)
    )
    evals = tuple(
        EvalPoint(200 * n, n / 2, end * (1 + math.exp(-n / 1.5) + max(0, n - 6) * 0.02), 0.8)
        for n in range(1, 9)
    )
    rate = Adjustment("training.learning_rate", 1e-4 * number, 1e-4 * (number + 1), "it may gain")
    return fake_iteration(
        number,
        id=f"{number * 2654435761 % 2**32:08x}",
        fingerprint=f"{number * 2654435761 % 2**32:08x}" + "0" * 56,
        group=f"group-{number}",
        metrics=metrics,
        training={"learning_rate": 1e-4 * number, "num_train_epochs": 1 + number // 4},
        adjustments=[rate] if number > 1 else [],
        examples=rows,
        findings=[
            fake_finding(
                "overfitting",
                "warning",
                message="The eval loss rose from 0.41 (step 1200) to 0.43.",
                evidence={"best_step": 1200, "last_step": 1600},
                remedy="Halve the learning rate, or train fewer epochs.",
            )
        ]
        if skill > 0.5
        else [],
        steps=steps,
        evals=evals,
        facts={"best_step": 1200},
        decision=Decision("adjust", "", "a higher learning rate may gain more", (rate,)),
        cost=Cost(840.0 + number, 1600, 2_400_000, 11_264.0),
    )


def _metrics(rows: Sequence[ExampleResult]) -> dict[str, float]:
    def share(of: Sequence[ExampleResult]) -> float:
        return sum(row.passed is True for row in of) / len(of) if of else math.nan

    loss = math.fsum(row.loss for row in rows) / sum(row.tokens for row in rows)
    by_tag = {f"pass_rate[{t}]": share([r for r in rows if t in r.tags]) for t in TAGS}
    return fake_metrics(loss, 0.9 * loss, share(rows), **by_tag)


def _seed_run(of: Iteration, seed: int, rows: tuple[ExampleResult, ...]) -> SeedRun:
    return SeedRun(
        loop=of.loop,
        iteration=of.id,
        seed=seed,
        role="calibration",
        fingerprint=f"{seed:064x}",
        group=of.group,
        scoring=of.scoring,
        data=of.data,
        metrics=_metrics(rows),
        environment=of.environment,
        cost=of.cost,
        examples=rows,
    )
