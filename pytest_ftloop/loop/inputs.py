"""The inputs of a loop, loaded and checked: its examples, base model identity and scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.arguments import old_names
from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.config.scoring import SCORE_HOOK, Scoring, needs_generation
from pytest_ftloop.config.sections import TokenizerSection
from pytest_ftloop.config.sources import GuardSource
from pytest_ftloop.config.stated_scoring import columns_read
from pytest_ftloop.config.tags import check_tags
from pytest_ftloop.core.chat import ASKING, answers
from pytest_ftloop.core.credentials import names_in
from pytest_ftloop.core.errors import DataError
from pytest_ftloop.core.records import DataSet, Evaluation, Iteration, Settings
from pytest_ftloop.core.set_metrics import SetMetric
from pytest_ftloop.data import examples as data
from pytest_ftloop.data.files import check_files_exist
from pytest_ftloop.data.forms import is_of_messages
from pytest_ftloop.data.identity import (
    base_fingerprint,
    guard_identity,
    iteration_fingerprint,
    metrics_identity,
    model_identity,
    rows_for_model,
    scoring_identity,
    tokenizer_identity,
    weights_fingerprint,
)
from pytest_ftloop.data.sources import describe
from pytest_ftloop.evaluate.scored import Scorer, UserScorer
from pytest_ftloop.evaluate.scorers import load_scorer
from pytest_ftloop.evaluate.set_metrics import load_set_metrics
from pytest_ftloop.train.task import INIT_FROM, Guard, Start, Task, train_sample

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Inputs:
    """A loop's examples, the identities of its base model and of its scoring, and its scorer.

    `tokenizer` is what the loop file changes in the base model's, empty if nothing. Without a
    `scorer` it is scored without text. `set_metrics` are its metrics of the whole eval set. `notes`
    say what an identity does not cover. `guards` are the rows that must not get worse,
    `guard_identities` what decides their figures, by guard. `start` is the adapter that trainings
    go on from, if `lora.init_from` names one (see `warm_start`).
    """

    train: DataSet
    eval: DataSet
    model: str
    scoring: Mapping[str, Any]
    scorer: Scorer | None
    notes: tuple[str, ...] = ()
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    set_metrics: Mapping[str, SetMetric] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()
    guard_identities: Mapping[str, Any] = field(default_factory=dict)
    start: Start | None = None

    @classmethod
    def of(cls, config: LoopConfig, hook: UserScorer | None, *, imports: bool = True) -> Inputs:
        """Load and check the inputs, as far as that needs no torch. `hook` is the scorer `hook`.

        Without `imports` nothing is to be scored: of a user's scorer only the source is read.
        """
        check_files_exist(config)
        where = config.locate("data.train")
        # What only scorers read is needed of train rows that an eval set is split off.
        columns = config.columns if config.split else replace(config.columns, read=frozenset())
        train = data.load(config.train, "train", config.folder, columns, where)
        if config.split is not None:
            train, eval_ = data.split_off(train, config.split.fraction, config.split.seed)
        else:
            where = config.locate("data.eval")
            eval_ = data.load(config.eval, "eval", config.folder, config.columns, where)
        check_forms(config, train, eval_)
        check_tags(
            (*config.gates, *config.regressions),
            eval_.tags,
            config.source,
            tagged_by=config.columns.tags,
            columns=eval_.columns,
        )
        scorer = None  # `loss` and `choice` read no text
        if needs_generation(config.scoring):
            _check_prompts(eval_)
        if needs_generation(config.scoring) and (imports or not is_own(config.scoring)):
            scorer = load_scorer(
                config.scoring, hook, folder=config.folder, where=config.locate("scoring.scorer")
            )
            if config.scoring.scorer in {"contains", "regex", "json", "number"}:
                for example in eval_.examples:
                    scorer(example, "")  # an example that can't be scored raises before training
        guards = tuple(_guard(config, stated, hook, imports=imports) for stated in config.guards)
        return cls.identified(config, train, eval_, scorer, guards, imports=imports)

    @classmethod
    def identified(
        cls,
        config: LoopConfig,
        train: DataSet,
        eval_: DataSet,
        scorer: Scorer | None,
        guards: tuple[Guard, ...],
        *,
        imports: bool = True,
        **more: Any,
    ) -> Self:
        """The inputs with these rows, and with the identities of all else."""
        folder = config.folder
        section = config.tokenizer if isinstance(config.tokenizer, TokenizerSection) else None
        template = config.settings.training.get("chat_template_path")
        scoring = scoring_identity(config.scoring, folder)
        return cls(
            train,
            eval_,
            model_identity(config.model, folder, config.tokenizer),
            scoring | metrics_identity(config.metrics, folder),
            scorer,
            (*_unseen(scoring), *_committed_credentials(config), *_old_names(config)),
            tokenizer_identity(section, template, folder),
            load_set_metrics(
                config.metrics, eval_.examples, folder, config.locate, imports=imports
            ),
            guards,
            {
                guard.name: guard_identity(
                    guard.rows, scoring_identity(guard.scoring, folder) if guard.scoring else None
                )
                for guard in guards
            },
            **more,
        )

    def with_logged_model(self, config: LoopConfig, logged: Sequence[Iteration]) -> Self:
        """These inputs with the logged identity of a model folder that is not on this machine.

        A job that judges a log needs no weights. The identity is that of the iteration with the
        loop's own settings, data and scoring; else, if only a record of this folder is there, its.
        """
        name = model_name(config)
        if name is None or self.model.startswith("folder:"):
            return self
        fitting = [i for i in logged if i.model.startswith("folder:") and _fits(i, name)]
        fingerprints = {
            model: replace(self, model=model).fingerprint(config, config.settings)
            for model in dict.fromkeys(iteration.model for iteration in fitting)
        }
        same = [i for i in fitting if fingerprints[i.model] == i.fingerprint]
        found = next(reversed(same or [i for i in fitting if "model" in i.facts]), None)
        if found is None:
            return self
        note = (
            f"the model folder {config.model} is not here: its identity is taken from the log "
            f"(iteration {found.name})"
        )
        return replace(self, model=found.model, notes=(*self.notes, note))

    def fingerprint(self, config: LoopConfig, settings: Settings) -> str:
        """The fingerprint of an iteration: of everything that determines weights and figures."""
        return iteration_fingerprint(
            self.model,
            settings,
            self.scoring,
            self.train,
            self.eval,
            config.train_sample,
            self.tokenizer,
            self.guard_identities,
        )

    def base_fingerprint(self, settings: Settings) -> str:
        """The fingerprint of a measurement of the untrained base, for these settings."""
        return base_fingerprint(
            self.model, settings, self.scoring, self.eval, self.tokenizer, self.guard_identities
        )

    @property
    def measured_data(self) -> Mapping[str, Mapping[str, Any]]:
        """What a record holds of the eval set and of the guards, by role."""
        guards = {}
        for guard in self.guards:
            scoring = self.guard_identities[guard.name]["scoring"]
            guards[guard.role] = {**data_facts(guard.rows), "scoring": scoring}
        return {"eval": data_facts(self.eval), **guards}

    def weights(self, settings: Settings) -> str:
        """The identity of the weights that these settings train, whatever measures them."""
        return weights_fingerprint(self.model, settings, self._rows_for_model, self.tokenizer)

    @cached_property
    def _rows_for_model(self) -> str:
        return rows_for_model(self.train)

    def task(self, config: LoopConfig) -> Task:
        """The task that every run of the loop trains on and is measured by."""
        expected = dict.fromkeys((e.expected or "").strip() for e in self.train.examples)
        return Task(
            train=self.train,
            eval=self.eval,
            train_sample=train_sample(self.train, config.train_sample),
            scoring=config.scoring,
            scorer=self.scorer,
            candidates=config.scoring.choices or tuple(expected),
            locate=config.locate,
            guards=self.guards,
            start=self.start,
            set_metrics=self.set_metrics,
        )

    def own_settings(self, config: LoopConfig) -> Settings:
        """The loop file's settings, with the hash of the adapter that its `init_from` names."""
        if self.start is None:
            return config.settings
        lora = {**config.settings.lora, INIT_FROM: self.start.adapter}
        return replace(config.settings, lora=lora)

    def group(self, config: LoopConfig, settings: Settings) -> str:
        """The fingerprint without the seed. Runs that share it differ by chance alone."""
        training = {name: value for name, value in settings.training.items() if name != "seed"}
        return self.fingerprint(config, replace(settings, training=training))


def _guard(
    config: LoopConfig, stated: GuardSource, hook: UserScorer | None, *, imports: bool
) -> Guard:
    """The rows of one guard, and how they are scored.

    Without a scoring of its own a guard of prompts is scored as the eval set, where that reads
    outputs; any other is measured by its loss alone.
    """
    where = config.locate(f"data.guards.{stated.name}")
    role = f"guard {stated.name}"
    columns = replace(config.columns, another_task=True)
    if stated.scoring is not None:
        columns = replace(columns, read=columns_read(stated.scoring, config.folder))
    rows = data.load(stated.source, role, config.folder, columns, where)
    has_prompt = rows.examples[0].prompt is not None
    scoring = stated.scoring
    if scoring is None and has_prompt and needs_generation(config.scoring):
        scoring = config.scoring
    if scoring is None:
        return Guard(stated.name, rows)
    own = f"data.guards.{stated.name}.scoring"
    where = config.locate("scoring.scorer" if stated.scoring is None else own)
    if scoring.scorer != "loss":
        if not has_prompt:
            raise DataError(
                f"the scorer {scoring.scorer!r} needs prompt and completion, or messages; the "
                f"rows of the guard {stated.name} have neither",
                where=where,
                cure="Leave out its scoring: its loss is measured.",
            )
        _check_answers(rows)
    scorer = None
    if needs_generation(scoring):
        _check_prompts(rows)
        if imports or not is_own(scoring):
            scorer = load_scorer(scoring, hook, folder=config.folder, where=where)
    return Guard(stated.name, rows, scoring, scorer)


def is_own(scoring: Scoring) -> bool:
    """Whether a scoring is by the user's own code."""
    return scoring.scorer == "hook" or ":" in scoring.scorer


def model_name(config: LoopConfig) -> str | None:
    """How the loop names its model, if that may be a folder: without a machine's own paths."""
    if not isinstance(config.model, str) or config.model == "tiny":
        return None
    return describe(config.model, config.folder)


def model_facts(config: LoopConfig, inputs: Inputs) -> Mapping[str, Any]:
    """What a record holds of base and start besides identities: a folder's name, the tokenizer."""
    name = {"model": model_name(config)} if inputs.model.startswith("folder:") else {}
    start = {INIT_FROM: inputs.start.as_fact()} if inputs.start else {}
    tokenizer = {"tokenizer": dict(inputs.tokenizer)} if inputs.tokenizer else {}
    return {**name, **tokenizer, **start}


def _fits(iteration: Iteration, name: str) -> bool:
    """Whether an iteration's base model can be the folder of this name."""
    return bool(iteration.facts.get("model", name) == name)  # older records do not name it


def _unseen(scoring: Mapping[str, Any]) -> tuple[str, ...]:
    if scoring["scorer"] != "hook" or "source" in scoring:
        return ()
    return (
        f"no conftest.py from the loop's folder upwards defines {SCORE_HOOK}: a change of the "
        "scoring can't be seen, and pass rates are compared as if there were none",
    )


def _committed_credentials(config: LoopConfig) -> tuple[str, ...]:
    """A note for credentials in a loop file; in Python they may come from anywhere."""
    given = config.credentials
    names = list(names_in({"lora": given.lora, "training": given.training}))
    if not names or not config.lines:
        return ()
    return (
        f"{config.source} holds credentials ({', '.join(names)}), which are used and written "
        "nowhere: set them in the environment, as HF_TOKEN for the hub, and renew what was "
        "committed",
    )


def _old_names(config: LoopConfig) -> tuple[str, ...]:
    """A note for each argument of a loop file that has a new name."""
    if not config.lines:
        return ()
    return tuple(old_names(config.settings.training, "training", config.locate))


def data_facts(set_: DataSet) -> Mapping[str, Any]:
    """What a record holds of a data set: its source, the number of rows, a hash of the rows."""
    return {"source": set_.source, "rows": len(set_.examples), "sha256": set_.sha256[:16]}


def data_of(
    config: LoopConfig, inputs: Inputs, evaluation: Evaluation
) -> Mapping[str, Mapping[str, Any]]:
    """What a record holds of the data.

    `sampled` are the train rows whose loss was measured, `max_new_tokens` is the limit of outputs.
    """
    train = {**data_facts(inputs.train), "sampled": sampled(config, inputs.train)}
    return with_limit({"train": train, **inputs.measured_data}, evaluation)


def with_limit(
    data: Mapping[str, Mapping[str, Any]], evaluation: Evaluation
) -> Mapping[str, Mapping[str, Any]]:
    """What a record holds of the data, with the limit of the outputs that were generated.

    Where none are yet, nothing is said of a limit, also where `data` is another record's.
    """
    if not evaluation.max_new_tokens:
        if all(row.passed is not None for row in evaluation.examples):
            return data
        of_eval = {key: value for key, value in data["eval"].items() if key != "max_new_tokens"}
        return {**data, "eval": of_eval}
    return {**data, "eval": {**data["eval"], "max_new_tokens": evaluation.max_new_tokens}}


def sampled(config: LoopConfig, train: DataSet) -> int:
    """The number of train rows whose loss is measured."""
    return min(config.train_sample, len(train.examples))


def check_forms(config: LoopConfig, train: DataSet, eval_: DataSet) -> None:
    """Raise `DataError` if the two sets have different columns, or there is nothing to score."""
    for name, stated in (
        ("chat_template_kwargs", bool(config.columns.template)),
        ("tools", config.columns.tools is not None),
    ):
        if stated and not is_of_messages(train.examples[0].row):
            raise DataError(
                f"data.{name} is for rows of messages, and these are of another form",
                where=config.locate(f"data.{name}"),
                cure=f"Leave out {name}, or give the rows messages.",
            )
    has_prompt = [set_.examples[0].prompt is not None for set_ in (train, eval_)]
    if has_prompt[0] != has_prompt[1]:
        raise DataError(
            "train and eval set have different columns: "
            f"{', '.join(train.examples[0].row)} and {', '.join(eval_.examples[0].row)}",
            where=eval_.examples[0].where,
            cure="Give both the same columns.",
        )
    if not has_prompt[1] and config.scoring.scorer != "loss":
        raise DataError(
            f"the scorer {config.scoring.scorer!r} needs prompt and completion, or messages; the "
            f"eval set is {'tokens' if 'input_ids' in eval_.examples[0].row else 'plain text'}"
            f"{_unread(eval_)}",
            where=config.locate("scoring") or eval_.examples[0].where,
            cure="Give prompt and completion: a function makes them of other columns, data: "
            "{train: my_rows:train, eval: my_rows:held_out}. Or use scoring: {scorer: loss, "
            "threshold: 2.0}.",
        )
    if config.scoring.scorer != "loss":
        _check_answers(eval_)


def _unread(rows: DataSet) -> str:
    """The columns of rows of text that are not read, in which the answer may be."""
    unread = [name for name in rows.columns if name not in {*rows.examples[0].row, "id", "tags"}]
    return f", and the columns {', '.join(unread)} are not read" if unread else ""


def _check_answers(eval_: DataSet) -> None:
    """Raise `DataError` for a conversation that does not end with the model's turn."""
    for example in eval_.examples:
        last = next(reversed(answers(example.row)), None)
        if last is not None and last["role"] in ASKING:
            raise DataError(
                f"the last message of example {example.id!r} is by {last['role']!r}, so there is "
                "no answer to score",
                where=example.where,
                cure="End with the assistant's answer, or use the scorer 'loss'.",
            )


def _check_prompts(eval_: DataSet) -> None:
    for example in eval_.examples:
        if not (example.prompt or "").strip():
            raise DataError(
                f"the prompt of example {example.id!r} is empty: nothing can be generated from it",
                where=example.where,
                cure="Give it a prompt, or use the scorer 'loss' or 'choice'.",
            )
