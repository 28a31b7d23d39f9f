"""What a loop's run gives back: the chain of iterations, the best of them, its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.chain import worst
from pytest_ftloop.core.errors import FtloopError, did_you_mean
from pytest_ftloop.core.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_ftloop.core.records import Example, ExampleResult, Finding, Iteration
    from pytest_ftloop.gate.holdout import HoldoutReport
    from pytest_ftloop.gate.thresholds import GateResult
    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.log import ImprovementLog


class Figure(float):
    """A metric's value that knows where it comes from, so that a failing assert can explain it."""

    name: str
    result: LoopResult

    def __new__(cls, value: float, name: str, result: LoopResult) -> Figure:
        """A float with the metric's name (`pass_rate[negation]`) and the result it belongs to."""
        figure = super().__new__(cls, value)
        figure.name = name
        figure.result = result
        return figure

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        """A copy, or what travels to another process, is the plain number."""
        return float, (float(self),)


@dataclass(frozen=True)
class LoopResult:
    """One loop's iterations as they stand in the log, and what the gates say of the best one.

    `chain` holds the iterations that start from the loop file's own settings, in order of number.
    `trained` are the ids trained now, `restored` those that an earlier run trained and that were
    taken from where it kept them (the others were up to date). `notes` is what else is to be told
    of kept records. `files` are what to commit.
    `examples` are the eval examples by id, for their prompts; empty when they were not loaded.
    `regressions` are the loop's gates against the last committed version. `Loop.judge` adds a
    verdict for each, the baseline of the comparison (None where there is none), and what the
    holdout shows where it was opened. `log` is the log that all this was read from.
    """

    loop: str
    source: str
    chain: tuple[Iteration, ...]
    best: Iteration
    gates: tuple[GateResult, ...]
    trained: tuple[str, ...]
    log_folder: Path
    files: tuple[Path, ...]
    examples: Mapping[str, Example] = field(default_factory=dict, repr=False)
    adapter: Path | None = None
    restored: tuple[str, ...] = ()
    notes: Sequence[str] = ()
    regressions: tuple[Regression, ...] = ()
    verdicts: tuple[tuple[Regression, Verdict], ...] = field(default=(), repr=False)
    baseline: Iteration | None = field(default=None, repr=False)
    holdout: HoldoutReport | None = field(default=None, repr=False)
    log: ImprovementLog | None = field(default=None, repr=False, compare=False)

    @property
    def verdict(self) -> Verdict:
        """The verdict against the last committed version, on the whole eval set.

        By the loop's own `regression` gate, else by the defaults. A `FtloopError` for a result that
        was not judged yet.
        """
        found = next((verdict for rule, verdict in self.verdicts if rule.tag is None), None)
        if found is None:
            raise FtloopError(
                f"the result of {self.loop} has no verdict: it was not compared with the last "
                "committed version",
                cure="Add `regression: {}` to its gates, or ask for it: verdict = loop.judge().",
            )
        return found

    @property
    def eval_loss(self) -> Figure:
        """Exact token-mean loss over the eval set."""
        return self.figure("eval_loss")

    @property
    def train_loss(self) -> Figure:
        """Token-mean loss over a sample of the train set, in eval mode."""
        return self.figure("train_loss")

    @property
    def overfit_gap(self) -> Figure:
        """eval_loss - train_loss."""
        return self.figure("overfit_gap")

    @property
    def pass_rate(self) -> Figure:
        """Share of the eval examples that passed, 0 to 1."""
        return self.figure("pass_rate")

    @property
    def token_accuracy(self) -> Figure:
        """Share of labelled tokens that are the most likely one."""
        return self.figure("token_accuracy")

    @property
    def perplexity(self) -> Figure:
        """exp(eval_loss)."""
        return self.figure("perplexity")

    @property
    def findings(self) -> Sequence[Finding]:
        """What the diagnosis says of the best iteration."""
        return self.best.findings

    @property
    def failing(self) -> tuple[ExampleResult, ...]:
        """The eval examples that did not pass, the highest loss first."""
        return worst(self.best.examples)

    def slice(self, tag: str) -> Slice:
        """The figures of the examples with this tag."""
        return Slice(self, tag)

    def figure(self, name: str) -> Figure:
        """A metric of the best iteration by name, `pass_rate` or `pass_rate[tag]`."""
        if name not in self.best.metrics:
            raise FtloopError(
                f"the best iteration {self.best.name} has no figure {name!r}",
                cure=did_you_mean(name, self.best.metrics),
            )
        return Figure(self.best.metrics[name], name, self)


@dataclass(frozen=True)
class Slice:
    """The figures of one tag's examples: `slice("negation").pass_rate`."""

    result: LoopResult
    tag: str

    def __getattr__(self, name: str) -> Figure:
        """A metric of the slice."""
        if name not in METRICS:
            raise AttributeError(f"a slice has no {name!r}. {did_you_mean(name, METRICS)}")
        return self.result.figure(f"{name}[{self.tag}]")
