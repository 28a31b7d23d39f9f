"""The inputs of a loop for a command that reads: nothing of the user's code is imported.

The hash of a scorer's source is all that a judge needs of it. Rows that a function makes can't be
had without running it: what the log says of them counts, and a note says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.tags import check_tags
from pytest_ftloop.core.metrics import GUARD
from pytest_ftloop.core.records import DataSet, Example, Iteration, SeedRun, Settings
from pytest_ftloop.data.identity import iteration_fingerprint
from pytest_ftloop.data.sources import functions_in
from pytest_ftloop.log.writing import rounded
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.seeds import with_seed
from pytest_ftloop.train.task import Guard

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.config.sources import GuardSource
    from pytest_ftloop.log import ImprovementLog


@dataclass(frozen=True)
class LoggedInputs(Inputs):
    """The inputs of a loop with a data function, as far as its log tells them.

    `known` are the fingerprints that the log has for the data, and `trained` the identities of the
    weights, by what they are without the data (`_key`): only of these it can be said that they are
    up to date.
    """

    known: Mapping[str, str] = field(default_factory=dict, repr=False)
    trained: Mapping[str, str] = field(default_factory=dict, repr=False)

    def fingerprint(self, config: LoopConfig, settings: Settings) -> str:  # noqa: ARG002
        """The logged fingerprint; for other settings one that no log has."""
        scorings = {name: of["scoring"] for name, of in self.guard_identities.items()}
        key = _key(self.model, settings, self.scoring, self.tokenizer, scorings)
        return self.known.get(key, key)

    def weights(self, settings: Settings) -> str:
        """The logged identity of the weights; for other settings one that no log has."""
        key = _key(self.model, settings, {}, self.tokenizer, {})
        return self.trained.get(key) or key


def read_inputs(config: LoopConfig, log: ImprovementLog) -> Inputs:
    """A loop's inputs without importing its scorer or running its data functions.

    Raises `DataError` or `ConfigError` like `Inputs.of`, and `LogError` for a damaged log.
    """
    sources = [config.train, *(guard.source for guard in config.guards)]
    sources += [] if config.split is not None else [config.eval]
    functions = [name for source in sources for name in functions_in(source, config.folder)]
    if not functions:
        return _with_unread(Inputs.of(config, None, imports=False))
    logged = log.read()
    like = _alike(config, logged)
    train, eval_ = (_data_set(like, role) for role in ("train", "eval"))
    check_tags(
        (*config.gates, *config.regressions),
        eval_.tags,
        config.source,
        tagged_by=config.columns.tags,
    )
    same = [i for i in logged if like and _hashes(i.data) == _hashes(like.data)]
    inputs = LoggedInputs.identified(
        config,
        train,
        eval_,
        None,
        tuple(_guard(config, stated, like) for stated in config.guards),
        imports=False,
        known=dict(_known(same, log)),
        trained=dict(_trained(same, log)),
    )
    note = (
        f"the data function {' and '.join(functions)} was not run: all rows are taken to be those "
        "of the log, which pytest --ftloop checks"
    )
    return _with_unread(replace(inputs, notes=(*inputs.notes, note)))


def _with_unread(inputs: Inputs) -> Inputs:
    """The inputs with a note on each metric whose logged figure is taken as it is."""
    notes = [
        f"the metric {name} is what the log says: {metric.unread} runs in pytest --ftloop-replay"
        for name, metric in inputs.set_metrics.items()
        if metric.unread
    ]
    return replace(inputs, notes=(*inputs.notes, *notes))


def _alike(config: LoopConfig, logged: Sequence[Iteration]) -> Iteration | None:
    """The iteration whose data is taken for the loop's: the last with its settings, or the last."""
    own = [i for i in logged if _of_settings(i.settings) == _of_settings(config.settings)]
    return next(reversed(own or logged), None)


def _data_set(iteration: Iteration | None, role: str) -> DataSet:
    """What a record says of a data set. The rows of the train set are not known."""
    facts = iteration.data.get(role, {}) if iteration else {}
    rows = iteration.examples if iteration and role == "eval" else ()
    examples = tuple(
        Example(row.id, row.content, {}, row.tags, expected=row.expected) for row in rows
    )
    return DataSet(role, str(facts.get("source", "")), examples, str(facts.get("sha256", "")))


def _guard(config: LoopConfig, stated: GuardSource, iteration: Iteration | None) -> Guard:
    """A guard without its rows. Whether it is scored like the eval set only its rows would tell."""
    guard = Guard(stated.name, _data_set(iteration, f"{ROLE}{stated.name}"), stated.scoring)
    facts = iteration.data.get(guard.role, {}) if iteration else {}
    is_scored = stated.scoring is None and facts.get("scoring") is not None
    return replace(guard, scoring=config.scoring) if is_scored else guard


ROLE = f"{GUARD}."
"""How the name of a guard's rows in a record begins: see `Guard.role`."""


def _known(same: Sequence[Iteration], log: ImprovementLog) -> Iterator[tuple[str, str]]:
    """The fingerprints of what was trained on the same rows, and of their groups, by `_key`."""
    for iteration in same:
        seedless = {k: v for k, v in iteration.settings.training.items() if k != "seed"}
        group = replace(iteration.settings, training=seedless)
        yield _key_of(iteration, group), iteration.group or iteration.fingerprint
    for of, run in _seed_runs(same, log):
        yield _key_of(of, with_seed(of.settings, run.seed)), run.fingerprint
    for iteration in same:
        yield _key_of(iteration, iteration.settings), iteration.fingerprint


def _trained(same: Sequence[Iteration], log: ImprovementLog) -> Iterator[tuple[str, str]]:
    """The identities of the weights, by what they are without the data."""
    for of, run in _seed_runs(same, log):
        yield _key_of_weights(of, with_seed(of.settings, run.seed)), run.weights
    for iteration in same:
        yield _key_of_weights(iteration, iteration.settings), iteration.weights


def _seed_runs(
    same: Sequence[Iteration], log: ImprovementLog
) -> Iterator[tuple[Iteration, SeedRun]]:
    """The runs of these iterations with other seeds, each with its iteration."""
    by_id = {iteration.id: iteration for iteration in same}
    for run in log.view.seed_runs():
        if run.role != "baseline" and run.iteration in by_id:
            yield by_id[run.iteration], run


def _key_of_weights(iteration: Iteration, settings: Settings) -> str:
    return _key(iteration.model, settings, {}, iteration.facts.get("tokenizer") or {}, {})


def _key_of(iteration: Iteration, settings: Settings) -> str:
    tokenizer = iteration.facts.get("tokenizer") or {}
    guards = {
        role.removeprefix(ROLE): facts.get("scoring")
        for role, facts in iteration.data.items()
        if role.startswith(ROLE)
    }
    return _key(iteration.model, settings, iteration.scoring, tokenizer, guards)


def _key(
    model: str,
    settings: Settings,
    scoring: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    guards: Mapping[str, Any],
) -> str:
    """The fingerprint without the data, of settings as a record keeps them."""
    none = DataSet("", "", (), "")
    kept = rounded(settings), rounded(scoring)
    return iteration_fingerprint(
        model, *kept, none, none, 0, rounded(tokenizer), {"scorings": rounded(guards)}
    )


def _of_settings(settings: Settings) -> str:
    return _key("", settings, {}, {}, {})


def _hashes(data: Mapping[str, Mapping[str, Any]]) -> Mapping[str, object]:
    return {role: facts.get("sha256") for role, facts in data.items()}
