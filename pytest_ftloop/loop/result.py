"""The result of a loop: its chain of iterations, the best one, and that one's figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_ftloop.config.gates import Forgetting, Regression
from pytest_ftloop.core.chain import worst
from pytest_ftloop.core.errors import FtloopError, did_you_mean
from pytest_ftloop.core.metrics import METRICS
from pytest_ftloop.core.sampled import SCORE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_ftloop.core.data_changes import DataChange
    from pytest_ftloop.core.records import Example, ExampleResult, Finding, Iteration
    from pytest_ftloop.gate.baseline import Baseline
    from pytest_ftloop.gate.gate_changes import GateChanges
    from pytest_ftloop.gate.holdout import HoldoutReport
    from pytest_ftloop.gate.thresholds import GateResult
    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.log import ImprovementLog


class Figure(float):
    """A metric's value with its name and result, from which a failing assert explains it."""

    name: str
    result: LoopResult

    def __new__(cls, value: float, name: str, result: LoopResult) -> Figure:
        """Make a figure of the metric `name`, such as `pass_rate[negation]`."""
        figure = super().__new__(cls, value)
        figure.name = name
        figure.result = result
        return figure

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        """Pickle as a plain number: another process has no use for the whole result."""
        return float, (float(self),)


@dataclass(frozen=True)
class LoopResult:
    """One loop's chain of iterations in the log, the best one, and how the gates judge it.

    `chain` starts at the iteration with the loop file's own settings. `gates` are the checked
    thresholds. `trained` are the ids of iterations that this run trained, `restored` of those it
    took from an earlier run's store, `evaluated` of those it evaluated again without training; the
    others were up to date. `notes` are messages about stored records. `is_finished`: the loop goes
    on only if it is asked to (`Planner.goes_on`). `metric` is what the best one is chosen by.
    `files` are the files of the chain, to commit. `examples` are the eval examples by id, for their
    prompts. `adapter` is the best iteration's folder in the cache, None if it is not there.

    `regressions` are the loop's regression gates, `forgetting` those on its guards. `Loop.judge`
    adds a verdict for each, the baseline (None: there is none), the `standard` that it was found
    in, the holdout's report if the holdout was opened, and how the gates differ from those at the
    baseline's commit (None: not compared), and how the data sets do. `log` is the log that
    everything was read from.

    It has more than ten methods because each metric is a property: tests read `best.eval_loss`.
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
    evaluated: tuple[str, ...] = ()
    notes: Sequence[str] = ()
    is_finished: bool = False
    metric: str = "eval_loss"
    regressions: tuple[Regression, ...] = ()
    forgetting: tuple[Forgetting, ...] = ()
    base: Iteration | None = field(default=None, repr=False)
    verdicts: tuple[tuple[Regression, Verdict], ...] = field(default=(), repr=False)
    baseline: Iteration | None = field(default=None, repr=False)
    standard: Baseline | None = field(default=None, repr=False, compare=False)
    holdout: HoldoutReport | None = field(default=None, repr=False)
    gate_changes: GateChanges | None = field(default=None, repr=False)
    data_changes: tuple[DataChange, ...] = field(default=(), repr=False)
    log: ImprovementLog | None = field(default=None, repr=False, compare=False)

    @property
    def written(self) -> tuple[str, ...]:
        """The ids of the iterations that this run wrote to the log."""
        return (*self.trained, *self.restored, *self.evaluated)

    @property
    def comparisons(self) -> tuple[Regression, ...]:
        """The gates that compare with other models: regression and forgetting."""
        return (*self.regressions, *self.forgetting)

    @property
    def verdict(self) -> Verdict:
        """The verdict against the last committed version, on the whole eval set.

        It is that of the loop's `regression` gate, or of the default one. Raises `FtloopError` if
        the result has not been judged.
        """
        found = next((verdict for rule, verdict in self.verdicts if rule.tag is None), None)
        if found is None:
            raise FtloopError(
                f"the result of {self.loop} has no verdict: it was not compared with the last "
                "committed version",
                cure="Add `regression: {}` to its gates, or call judge(): verdict = loop.judge().",
            )
        return found

    @property
    def eval_loss(self) -> Figure:
        """Mean loss per token of the eval set, in nats."""
        return self.figure("eval_loss")

    @property
    def train_loss(self) -> Figure:
        """Mean loss per token of a sample of the train set, in eval mode, in nats."""
        return self.figure("train_loss")

    @property
    def overfit_gap(self) -> Figure:
        """eval_loss - train_loss, in nats."""
        return self.figure("overfit_gap")

    @property
    def pass_rate(self) -> Figure:
        """Fraction of the eval examples that passed, 0 to 1."""
        return self.figure("pass_rate")

    @property
    def token_accuracy(self) -> Figure:
        """Fraction of the labelled tokens that the model ranks first, 0 to 1."""
        return self.figure("token_accuracy")

    @property
    def perplexity(self) -> Figure:
        """exp(eval_loss)."""
        return self.figure("perplexity")

    @property
    def findings(self) -> Sequence[Finding]:
        """The findings of the diagnosis on the best iteration."""
        return self.best.findings

    @property
    def failing(self) -> tuple[ExampleResult, ...]:
        """The eval examples that did not pass, the highest loss first."""
        return worst(self.best.examples)

    @property
    def metrics(self) -> Mapping[str, Figure]:
        """Every figure of the best iteration by name, `score.fields[negation]` included."""
        return {name: Figure(value, name, self) for name, value in self.best.metrics.items()}

    def score(self, name: str = "") -> Figure:
        """The mean of the scorer's score, or of the one that it calls `name`, 0 to 1."""
        return self.figure(f"{SCORE}.{name}" if name else SCORE)

    def slice(self, tag: str) -> Slice:
        """The figures of the examples with the tag `tag`."""
        return Slice(self, tag)

    def figure(self, name: str) -> Figure:
        """A metric of the best iteration by name, such as `pass_rate` or `pass_rate[tag]`."""
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

    def score(self, name: str = "") -> Figure:
        """As `LoopResult.score`, of the slice's examples."""
        return self.result.figure(f"{SCORE}.{name}[{self.tag}]" if name else f"{SCORE}[{self.tag}]")

    def __getattr__(self, name: str) -> Figure:
        """A metric of the slice by name."""
        if name not in METRICS:
            raise AttributeError(f"a slice has no metric {name!r}. {did_you_mean(name, METRICS)}")
        return self.result.figure(f"{name}[{self.tag}]")
