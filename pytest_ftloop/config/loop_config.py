"""A loop's configuration, from a `*.ftloop.yaml` file or from Python.

All mistakes in a loop file are reported together, each with its line and the nearest valid name,
those under `lora:` and `training:` (see `arguments`) too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pytest_ftloop.config import loop_yaml
from pytest_ftloop.config.arguments import in_one, of_settings
from pytest_ftloop.config.gates import (
    DEFAULT_FORGETTING,
    Forgetting,
    Gate,
    Lift,
    Regression,
    check_guards,
    check_sampled,
    check_scores,
    implied_metric,
)
from pytest_ftloop.config.mistakes import config_errors, found_text
from pytest_ftloop.config.scoring import ANSWERED, Scoring, scores_of
from pytest_ftloop.config.sections import DataSection, LoopFile, LoopSection, SplitSection
from pytest_ftloop.config.set_metrics import check_metrics, metrics_by_name
from pytest_ftloop.config.sources import Columns, GuardSource, plain_source
from pytest_ftloop.config.stated_credentials import credentials_elsewhere
from pytest_ftloop.config.stated_gates import StatedGates, gates_in
from pytest_ftloop.config.stated_scoring import columns_read, guards_in, scoring_in
from pytest_ftloop.core.bounds import MOST_BYTES_OF_LOOP_FILE, read_bytes
from pytest_ftloop.core.chain import chosen_by
from pytest_ftloop.core.credentials import joined, parted
from pytest_ftloop.core.errors import (
    ConfigError,
    Locate,
    Location,
    did_you_mean,
    shown_path,
    system_errors_told,
)
from pytest_ftloop.core.labelled import with_labelled_only
from pytest_ftloop.core.metrics import is_score
from pytest_ftloop.core.ranks import with_processes
from pytest_ftloop.core.records import LOOP_NAME, MOST_BYTES_OF_NAME, Iteration, Settings

NOT_FROM_A_LOG = frozenset(
    {
        "trust_remote_code",
        "code_revision",
        "push_to_hub",
        "hub_model_id",
        "hub_private_repo",
        "hub_revision",
        "hub_strategy",
        "output_dir",
        "resume_from_checkpoint",
    }
)
"""Arguments of SFTConfig and `from_pretrained` that run code, publish, or read and write files."""


@dataclass(frozen=True)
class LoopConfig:
    """The checked configuration of one loop.

    `model`, `train`, `eval` and `holdout` may be live objects in a loop from Python. `tokenizer` is
    a loop file's section of that name, or the live tokenizer of a live model. Relative paths start
    from `folder`, which also contains `improvement_log/`. `lines` maps a dotted key to its
    line in the loop file, and `""` to the first line. `metrics` are those of the whole eval set:
    the user's name, and what it is (a built-in name or module:function).
    `guards` are the rows that must not get worse, which `forgetting` judges: by the default gate if
    the loop states none.

    `settings` hold no credential, so that whatever is made of them (fingerprint, record, report)
    holds none. `credentials` are those that were stated among them, for the training alone.
    """

    name: str
    folder: Path
    source: str
    model: Any
    tokenizer: Any
    train: Any
    eval: Any
    split: SplitSection | None
    columns: Columns
    train_sample: int
    settings: Settings
    scoring: Scoring
    gates: tuple[Gate, ...]
    regressions: tuple[Regression, ...]
    holdout: Any
    loop: LoopSection
    metrics: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)
    guards: tuple[GuardSource, ...] = ()
    forgetting: tuple[Forgetting, ...] = ()
    credentials: Settings = field(default=Settings({}, {}), repr=False)

    @property
    def thresholds(self) -> tuple[Gate, ...]:
        """The gates on the figures of the iteration alone."""
        return tuple(gate for gate in self.gates if not isinstance(gate, Lift))

    @property
    def comparisons(self) -> tuple[Regression, ...]:
        """The gates that compare with other models: regression and forgetting."""
        return (*self.regressions, *self.forgetting)

    def with_credentials(self, settings: Settings) -> Settings:
        """Settings of this loop with its credentials: to train with, never to write."""
        return Settings(
            lora=joined(settings.lora, self.credentials.lora),
            training=joined(settings.training, self.credentials.training),
        )

    def only_it_decides(self, settings: Settings) -> Settings:
        """Settings from a log, with what only the loop file may decide taken from this one.

        A log may be a stranger's: it can't make a training run a repository's code or publish.
        """
        training = {k: v for k, v in settings.training.items() if k not in NOT_FROM_A_LOG}
        stated = {k: v for k, v in self.settings.training.items() if k in NOT_FROM_A_LOG}
        if isinstance(kwargs := training.get("model_init_kwargs"), Mapping):
            ours = self.settings.training.get("model_init_kwargs") or {}
            kept = {k: v for k, v in kwargs.items() if k not in NOT_FROM_A_LOG}
            kept |= {k: v for k, v in ours.items() if k in NOT_FROM_A_LOG}
            stated["model_init_kwargs"] = kept
        return Settings(lora=settings.lora, training={**training, **stated})

    def metric_of(self, chain: Sequence[Iteration]) -> str:
        """What the best iteration of a chain is chosen by, and the best point of its next one.

        The loop file's metric; else that of the logged chain; else what the thresholds are about.
        """
        if self.loop.metric is not None:
            return self.loop.metric
        return chosen_by(chain[-1]) if chain else implied_metric(self.gates)

    @property
    def file(self) -> Path:
        """The loop file; only for a loop that was read from one (`lines` is not empty)."""
        return self.folder / Path(self.source).name

    def locate(self, key: str) -> Location | None:
        """The place of a dotted key in the loop file, or of the nearest section above it."""
        while key:
            if key in self.lines:
                return Location(self.source, self.lines[key])
            key = key.rpartition(".")[0]
        return Location(self.source) if self.lines else None


@system_errors_told()
def read_loop_file(path: Path) -> LoopConfig:
    """Read and check a loop file. Raises `ConfigError` with every mistake found."""
    shown = shown_path(path)
    values, lines = loop_yaml.read(path, shown)
    return checked(values, lines, folder=path.parent, source=shown, name=loop_name(path.name))


def loop_name(file: str) -> str:
    """The name of a loop whose file does not state one: the file's, without its endings."""
    for suffix in (*loop_yaml.SUFFIXES, ".yaml"):
        file = file.removesuffix(suffix)
    return file


def likely_name(path: Path) -> str:
    """The name of the loop in a file that may have mistakes."""
    content = b""
    with suppress(OSError):  # then only its own name is known
        content = read_bytes(path, MOST_BYTES_OF_LOOP_FILE)
    return likely_name_in(content, path.name)


def likely_name_in(content: bytes, file: str) -> str:
    """The name of the loop in a file with this content and name, which may have mistakes."""
    with suppress(ConfigError, UnicodeDecodeError):
        values, _ = loop_yaml.parse(content.decode(), file)
        if isinstance(values, dict) and isinstance(name := values.get("name"), str):
            return name
    return loop_name(file)


def checked(
    values: Any, lines: Mapping[str, int], *, folder: Path, source: str, name: str
) -> LoopConfig:
    """The configuration in a loop file's values. Raises `ConfigError` with every mistake."""

    def locate(key: str) -> Location:
        while key and key not in lines:
            key = key.rpartition(".")[0]
        return Location(source, lines.get(key))

    if not isinstance(values, dict):
        raise ConfigError(
            f"wanted a loop's keys (data, training, gates, ...), found {found_text(values)}",
            where=locate(""),
            cure="'ftloop init' writes a loop file to start from.",
        )
    mistakes: list[ConfigError] = []
    parsed: LoopFile | None = None
    try:
        parsed = LoopFile.model_validate(values)
    except ValidationError as error:
        mistakes += config_errors(error, locate)
    metrics = metrics_by_name(values.get("metrics"))
    gates, wrong = gates_in(values, metrics, locate)
    mistakes += wrong
    stated_scoring, wrong = scoring_in(values.get("scoring", {}), locate)
    mistakes += wrong
    scoring = stated_scoring or Scoring()
    if stated_scoring is not None:
        mistakes += check_metrics(metrics, scoring, locate)
    name = stated if isinstance(stated := values.get("name"), str) else name
    # A section without a mistake is checked in full, also where another one has some.
    with_data = parsed or _alone(data=_section(values, "data"))
    with_loop = parsed or _alone(data=_SOME_DATA, loop=_section(values, "loop"))
    of_data = None if with_data is None else with_data.data
    of_loop = None if with_loop is None else with_loop.loop
    mistakes += _wrong_names(name, of_data, locate)
    guards: tuple[GuardSource, ...] = ()
    if of_data is not None:
        if parsed is not None:
            mistakes += _unread_answers(of_data, scoring, locate)
        guards, wrong = guards_in(of_data, locate)
        names = [guard.name for guard in guards]
        mistakes += [*wrong, *check_guards((*gates.thresholds, *gates.forgetting), names, source)]
    mistakes += credentials_elsewhere(values, locate)
    policy = of_loop.policy if of_loop else _section(values, "loop").get("policy")
    mistakes += of_settings(_section(values, "lora"), _section(values, "training"), policy, locate)
    if of_loop is not None:
        mistakes += _wrong_metric(of_loop.metric, metrics, locate)
    metric = parsed.loop.metric if parsed is not None else None
    mistakes += _unscored(gates, metric, scoring, source, locate if parsed is not None else None)
    if mistakes:
        raise in_one(mistakes)
    assert parsed is not None
    settings, credentials = zip(parted(parsed.lora), parted(parsed.training), strict=True)
    return LoopConfig(
        name=name,
        folder=folder,
        source=source,
        model=parsed.model,
        tokenizer=parsed.tokenizer,
        train=plain_source(parsed.data.train),
        eval=plain_source(parsed.data.eval),
        split=parsed.data.split,
        columns=_columns(parsed, columns_read(scoring, folder)),
        train_sample=parsed.data.train_sample,
        settings=with_labelled_only(
            with_processes(Settings(*settings), parsed.loop.processes),
            on=parsed.loop.labelled_only,
        ),
        scoring=scoring,
        gates=tuple(gates.thresholds),
        regressions=tuple(gates.regressions),
        holdout=plain_source(parsed.data.holdout),
        loop=parsed.loop,
        metrics=metrics,
        lines=lines,
        credentials=Settings(*credentials),
        guards=guards,
        forgetting=tuple(gates.forgetting) or ((DEFAULT_FORGETTING,) if guards else ()),
    )


def _columns(parsed: LoopFile, read: frozenset[str] | None) -> Columns:
    data = parsed.data
    return Columns(
        id=data.id,
        tags=(data.tags,) if isinstance(data.tags, str) else tuple(data.tags),
        text=str(parsed.training.get("dataset_text_field", "text")),
        keep=(data.keep,) if isinstance(data.keep, str) else tuple(data.keep),
        answers=data.answers,
        read=read,
        template=data.chat_template_kwargs,
        tools=data.tools,
    )


def _wrong_names(name: str, data: DataSection | None, locate: Locate) -> Iterator[ConfigError]:
    """Names of the loop and its guards that files can't have."""
    named = {"name": name}
    if data is not None:
        named |= {f"data.guards.{guard}": guard for guard in data.guards}
    for key, word in named.items():
        if len(word.encode(errors="replace")) > MOST_BYTES_OF_NAME:
            yield ConfigError(
                f"name {word[:40]!r}... is longer than {MOST_BYTES_OF_NAME} bytes",
                where=locate(key),
                cure="Files are named after it: use a shorter one.",
            )
    if not re.fullmatch(LOOP_NAME, name):
        yield ConfigError(
            f"name {name!r} is not a valid folder name on every system",
            where=locate("name"),
            cure="Use letters, digits, '-', '_' and '.'; begin and end with a letter or digit.",
        )


def _unread_answers(data: DataSection, scoring: Scoring, locate: Locate) -> Iterator[ConfigError]:
    """Acceptable answers for a scorer that does not ask for them."""
    if data.answers is not None and scoring.scorer not in ANSWERED:
        yield ConfigError(
            f"data.answers is for {', '.join(ANSWERED)}, but the scorer is {scoring.scorer!r}",
            where=locate("data.answers"),
            cure="Leave it out; a function of your own reads the column from its row.",
        )


def _unscored(
    stated: StatedGates, metric: str | None, scoring: Scoring, source: str, locate: Locate | None
) -> Iterator[ConfigError]:
    """Gates on scores that the scorer does not give, and on samples that are not taken.

    Scores are checked where the whole file is read: `locate` is None where it is not.
    """
    gates: tuple[Gate | Regression, ...] = (*stated.thresholds, *stated.regressions)
    given = scores_of(scoring)
    try:
        if given is not None and locate is not None:
            check_scores(gates, metric, given, scoring, locate)
    except ConfigError as error:
        yield error
    try:
        check_sampled(gates, scoring.samples, source)
    except ConfigError as error:
        yield error


def _wrong_metric(
    metric: str | None, of_the_set: Collection[str], locate: Locate
) -> Iterator[ConfigError]:
    """A metric that iterations can't be chosen by."""
    known = {"eval_loss", "pass_rate", *of_the_set}
    if metric is not None and metric not in known and not is_score(metric):
        yield ConfigError(
            f"loop.metric: wanted {', '.join(sorted(known))} or a score, found {metric!r}",
            where=locate("loop.metric"),
            cure=did_you_mean(metric, known),
        )


_SOME_DATA = {"train": "-", "eval": "-"}
"""What a file needs that states another section only."""


def _alone(**sections: Any) -> LoopFile | None:
    """A file that states these sections only; None if there is a mistake in them."""
    try:
        return LoopFile.model_validate(sections)
    except ValidationError:
        return None


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section with keys; empty if it is none, which is a mistake by itself."""
    section = values.get(name)
    return section if isinstance(section, Mapping) else {}
