"""Check an export: measure it on the loop's eval set, and compare with the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.config.scoring import needs_generation
from pytest_ftloop.core.cache import adapter_hash
from pytest_ftloop.core.errors import ConfigError, DataError, FtloopError, TrainingError
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.evaluate.recheck import EXACT, ROUNDED, Comparison, Tolerance, compare
from pytest_ftloop.evaluate.scored import scored_by_output
from pytest_ftloop.evaluate.served import answers_of
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.judging import recall

if TYPE_CHECKING:
    from pytest_ftloop.core.endpoint import Endpoint
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.core.records import Example, ExampleResult, Iteration, Settings
    from pytest_ftloop.evaluate.scored import UserScorer
    from pytest_ftloop.loop.workspace import Logged
    from pytest_ftloop.train.afresh import Measured
    from pytest_ftloop.train.task import Task

MOST_TOKENS = 512
"""Most new tokens of an answer where the loop file sets no limit, as after training."""


@dataclass(frozen=True)
class Checked:
    """What one check of an export found.

    `what` is the adapter, the merged model or the endpoint, `how` what it was measured with. A
    `comparison` of None means that there was nothing to compare: `problems` says why.
    """

    what: str
    how: str
    tolerance: Tolerance
    comparison: Comparison | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Stated:
    """The tolerances that the user stated: a share of the examples, nats per token."""

    flips: float | None = None
    loss: float | None = None

    def over(self, default: Tolerance) -> Tolerance:
        """The default with what is stated in its place."""
        return replace(
            default,
            flips=default.flips if self.flips is None else self.flips,
            loss=default.loss if self.loss is None else self.loss,
        )


@dataclass(frozen=True)
class Recheck:
    """The eval examples that are compared: as in the log (`before`), and how to score them again.

    `settings` are the iteration's, but that the loop file says whether code of the model may run.
    `notes` say what is not compared. `guard` names the guard whose rows these are, in place of the
    eval set's.
    """

    before: tuple[ExampleResult, ...]
    task: Task
    settings: Settings
    notes: tuple[str, ...] = ()
    guard: str = ""

    @property
    def is_asked(self) -> bool:
        """Whether an endpoint can be asked for all that these rows are scored by."""
        scoring = self.task.scoring
        plain = not (scoring.is_sampled or scoring.generation)
        return plain and needs_generation(scoring) and self.task.scorer is not None

    @classmethod
    def all_of(cls, iteration: Iteration, logged: Logged) -> tuple[Recheck, ...]:
        """The logged examples that the loop still holds, scored as it says: eval set, then guards.

        Raises `FtloopError` if there is none of the eval set, or no loop file.
        """
        if logged.config is None:
            raise ConfigError(
                "--check needs the loop file: it has the eval set and the scorer",
                cure="A loop made in Python has none. Else name it: ftloop export ITERATION FILE.",
            )
        inputs = Inputs.of(logged.config, _same_outputs(iteration))
        recall(inputs, logged.log, Silent())
        settings = _with_trust(iteration.settings, trusted=logged.trusts(iteration))
        task = replace(inputs.task(logged.config), train_sample=())
        of_eval = cls._of(iteration.examples, task, settings)
        if of_eval is None:
            raise DataError(
                f"no example of iteration {iteration.name} is in the eval set any more",
                where=logged.config.locate("data.eval"),
                cure="Check the iteration with the eval set that it was measured on.",
            )
        guards = (
            cls._of(iteration.guards.get(guard.name, ()), guard.within(task), settings, guard.name)
            for guard in inputs.guards
        )
        return (of_eval, *(guard for guard in guards if guard is not None))

    @classmethod
    def _of(
        cls, results: Sequence[ExampleResult], task: Task, settings: Settings, guard: str = ""
    ) -> Recheck | None:
        """The logged results of the task's rows, scored again; None if it has none of them."""
        pairs = _shared(results, task.eval.examples)
        if not pairs:
            return None
        before = tuple(result for result, _ in pairs)
        examples = tuple(example for _, example in pairs)
        if task.scorer is not None:
            before = scored_by_output(before, examples, task.scorer, task.scoring.scorer)
        alone = [len(all_) - len(pairs) for all_ in (results, task.eval.examples)]
        notes = tuple(_notes(task.scoring.scorer, len(pairs), *alone, guard=guard))
        task = replace(task, eval=replace(task.eval, examples=examples), guards=())
        return cls(before, task, settings, notes, guard)


def check_folder(
    iteration: Iteration,
    recheck: Recheck,
    folder: Path,
    progress: Progress,
    stated: Stated,
    *,
    merged: bool = False,
) -> Checked:
    """Load the adapter in `folder`, or the merged model there, and compare it with the log.

    A model that can't be loaded is a failed check, no error. Raises `TrainingError` if the training
    extra is not installed.
    """
    try:
        from pytest_ftloop.train.afresh import measure_afresh
    except ImportError as error:
        raise TrainingError(
            f"--check needs the training extra: {error.name or error} is not installed",
            cure='pip install "pytest-ftloop[train]", or ask a server: --check-endpoint URL.',
        ) from None
    what = ("merged model" if merged else "adapter") + _of_guard(recheck)
    try:
        found = measure_afresh(folder, recheck.settings, recheck.task, progress, merged=merged)
    except FtloopError as error:
        problems = (error.message, *_other_weights(folder, iteration, merged))
        return Checked(what, "", EXACT, None, problems)
    tolerance = stated.over(_default(found, iteration))
    comparison = compare(recheck.before, found.examples)
    problems = comparison.problems(tolerance)
    if problems:
        problems = (*problems, *_other_weights(folder, iteration, merged))
    return Checked(what, f"{found.device}, {found.precision}", tolerance, comparison, problems)


def check_endpoint(
    endpoint: Endpoint, recheck: Recheck, progress: Progress, stated: Stated
) -> Checked:
    """Ask an endpoint the eval set's prompts, and compare the scored answers with the log.

    Raises `ConfigError` if the loop's scorer reads no text, `EndpointError`.
    """
    task = recheck.task
    if not needs_generation(task.scoring) or task.scorer is None:
        raise ConfigError(
            f"the scorer {task.scoring.scorer!r} reads the model's probabilities, and an endpoint "
            "gives only text",
            cure="Check the exported folder instead: --check.",
        )
    if task.scoring.is_sampled or task.scoring.generation:
        raise ConfigError(
            "the loop samples its outputs, or states scoring.generation, and an endpoint is asked "
            "for greedy answers",
            cure="Check the exported folder instead: --check.",
        )
    longest = max(len(result.expected) for result in recheck.before)
    outputs = answers_of(endpoint, task.eval.examples, _limit(recheck), progress)
    answered = [
        replace(result, output=_same_length(output, result.output, longest))
        for result, output in zip(recheck.before, outputs, strict=True)
    ]
    after = scored_by_output(answered, task.eval.examples, task.scorer, task.scoring.scorer)
    tolerance = stated.over(ROUNDED)
    comparison = compare(recheck.before, after, losses=False)
    how = f"{endpoint.model} at {endpoint.url}"
    return Checked(
        f"endpoint{_of_guard(recheck)}", how, tolerance, comparison, comparison.problems(tolerance)
    )


def _of_guard(recheck: Recheck) -> str:
    return f", guard {recheck.guard}" if recheck.guard else ""


def _with_trust(settings: Settings, *, trusted: bool) -> Settings:
    return replace(settings, training={**settings.training, "trust_remote_code": trusted})


def _other_weights(folder: Path, iteration: Iteration, merged: bool) -> Iterator[str]:
    """Why an adapter may differ from the log: its file is not the one that was measured.

    By itself it is no fault: weights can be saved again.
    """
    if iteration.adapter and not merged and adapter_hash(folder) != iteration.adapter:
        yield f"the file of its weights is not the one that iteration {iteration.name} measured"


def _same_outputs(iteration: Iteration) -> UserScorer:
    """Stands for pytest's scoring hook: an example passes if its output is the logged one."""
    sets = (iteration.examples, *iteration.guards.values())
    logged = {(result.content, result.output) for results in sets for result in results}
    return lambda example, output: (example.content, output) in logged


def _shared(
    results: Sequence[ExampleResult], examples: Sequence[Example]
) -> list[tuple[ExampleResult, Example]]:
    """Each result with the example of equal content; several of one content in their order."""
    waiting: dict[str, list[Example]] = {}
    for example in reversed(examples):
        waiting.setdefault(example.content, []).append(example)
    return [(r, waiting[r.content].pop()) for r in results if waiting.get(r.content)]


def _notes(scorer: str, shared: int, only_log: int, only_rows: int, *, guard: str) -> Iterator[str]:
    if only_log or only_rows:
        rows = f"guard {guard}" if guard else "eval set"
        yield (
            f"compared are the {shared} examples that log and {rows} share; {only_log} are only "
            f"in the log, {only_rows} only in the {rows}"
        )
    if scorer == "hook":
        yield "the scorer hook needs pytest: here an example passes if its output is the logged one"


def _default(found: Measured, iteration: Iteration) -> Tolerance:
    logged = iteration.environment
    same = (logged.get("precision"), logged.get("device")) == (found.precision, found.device)
    return EXACT if same and found.precision == "fp32" else ROUNDED


def _limit(recheck: Recheck) -> int:
    """The limit of new tokens: as many as the longest text of the log has characters.

    Without the tokenizer its tokens can't be counted; a token has one character or more.
    """
    texts = [text for result in recheck.before for text in (result.expected, result.output)]
    most = min(max(8, *map(len, texts)), MOST_TOKENS)
    return recheck.task.scoring.max_new_tokens or most


def _same_length(answer: str, logged: str, longest: int) -> str:
    """The answer; of one that begins with an output that was cut in the log, no more than that.

    An output was cut if it is longer than the `longest` expected text: training generates half as
    much again. Shorter ones ended by themselves, and so must the answer.
    """
    was_cut = len(logged) > longest
    return logged if was_cut and answer.startswith(logged) else answer
