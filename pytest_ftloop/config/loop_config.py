"""A loop's configuration, from a `*.ftloop.yaml` file or from Python.

All mistakes in a loop file are reported together, each with its line and the nearest valid name,
those under `lora:` and `training:` (see `arguments`) too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
    check_compared,
    check_guards,
    check_sampled,
    check_scores,
    forgetting_guard,
    implied_metric,
    parse_gate,
    regression_tag,
)
from pytest_ftloop.config.judge import Judge
from pytest_ftloop.config.mistakes import config_errors, found_text
from pytest_ftloop.config.scoring import (
    ANSWERED,
    SCORE_HOOK,
    Scoring,
    check_scorer,
    check_scoring,
    scores_of,
)
from pytest_ftloop.config.sections import (
    DataSection,
    ForgettingSection,
    GuardSection,
    HubSource,
    LoopFile,
    LoopSection,
    PartSection,
    RegressionSection,
    ScoringSection,
    SplitSection,
)
from pytest_ftloop.config.set_metrics import check_metrics, metrics_by_name
from pytest_ftloop.core.bounds import MOST_BYTES_OF_LOOP_FILE, read_bytes
from pytest_ftloop.core.chain import chosen_by
from pytest_ftloop.core.columns_read import function_columns, hook_columns
from pytest_ftloop.core.credentials import (
    is_credential,
    is_credential_name,
    joined,
    parted,
    texts_with_credentials,
)
from pytest_ftloop.core.errors import (
    ConfigError,
    Locate,
    Location,
    did_you_mean,
    shown_path,
    system_errors_told,
)
from pytest_ftloop.core.labelled import with_labelled_only
from pytest_ftloop.core.metrics import is_score, split_name
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


def _unknown_scorer(stated: Any, locate: Callable[[str], Location]) -> list[ConfigError]:
    """The mistake in the name of the scorer, of a section that has others."""
    try:
        if isinstance(stated, str):
            check_scorer(stated, locate("scoring.scorer"))
    except ConfigError as error:
        return [error]
    return []


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
    gates, regressions, forgetting = [], [], []
    metrics = metrics_by_name(values.get("metrics"))
    for key, condition in (values.get("gates") or {}).items() if _is_gates(values) else ():
        name_, at = str(key), locate(f"gates.{key}")
        try:
            if split_name(name_)[0] == "regression":
                regressions.append(_regression(name_, condition, locate, metrics))
            elif split_name(name_)[0] == "forgetting":
                forgetting.append(_forgetting(name_, condition, locate))
            else:
                gates.append(parse_gate(name_, condition, at, metrics))
        except ConfigError as error:
            mistakes.append(error)
        except ValidationError as error:
            mistakes += config_errors(error, locate, f"gates.{name_}")
    scoring = Scoring()
    # Also if another section has a mistake. Mistakes in this one are reported above.
    try:
        scoring = scoring_of(ScoringSection.model_validate(values.get("scoring", {})))
    except ValidationError:
        mistakes += _unknown_scorer(_section(values, "scoring").get("scorer"), locate)
    else:
        try:
            check_scoring(scoring, where=locate("scoring.scorer"))
            _check_url(scoring.judge, locate("scoring.judge.url"))
        except ConfigError as error:
            mistakes.append(error)
        mistakes += check_metrics(metrics, scoring, locate)
    name = stated if isinstance(stated := values.get("name"), str) else name
    named = {"name": name}
    # A section without a mistake is checked in full, also where another one has some.
    with_data = parsed or _alone(data=_section(values, "data"))
    with_loop = parsed or _alone(data=_SOME_DATA, loop=_section(values, "loop"))
    of_data = None if with_data is None else with_data.data
    of_loop = None if with_loop is None else with_loop.loop
    if of_data is not None:
        named |= {f"data.guards.{guard}": guard for guard in of_data.guards}
    for key, word in named.items():
        if len(word.encode(errors="replace")) > MOST_BYTES_OF_NAME:
            why = f"name {word[:40]!r}... is longer than {MOST_BYTES_OF_NAME} bytes"
            cure = "Files are named after it: use a shorter one."
            mistakes.append(ConfigError(why, where=locate(key), cure=cure))
    if not re.fullmatch(LOOP_NAME, name):
        mistakes.append(
            ConfigError(
                f"name {name!r} is not a valid folder name on every system",
                where=locate("name"),
                cure="Use letters, digits, '-', '_' and '.'; begin and end with a letter or digit.",
            )
        )
    guards: tuple[GuardSource, ...] = ()
    if of_data is not None:
        if parsed is not None and of_data.answers is not None and scoring.scorer not in ANSWERED:
            mistakes.append(
                ConfigError(
                    f"data.answers is for {', '.join(ANSWERED)}, but the scorer is "
                    f"{scoring.scorer!r}",
                    where=locate("data.answers"),
                    cure="Leave it out; a function of your own reads the column from its row.",
                )
            )
        guards, wrong = _guards(of_data, locate)
        names = [guard.name for guard in guards]
        mistakes += [*wrong, *check_guards((*gates, *forgetting), names, source)]
    mistakes += _credentials_elsewhere(values, locate)
    lora, training = (_section(values, group) for group in ("lora", "training"))
    policy = of_loop.policy if of_loop else _section(values, "loop").get("policy")
    mistakes += of_settings(lora, training, policy, locate)
    if of_loop is not None:
        mistakes += _wrong_metric(of_loop.metric, metrics, locate)
    if parsed is not None:
        given = scores_of(scoring)
        if given is not None:
            try:
                check_scores((*gates, *regressions), parsed.loop.metric, given, scoring, locate)
            except ConfigError as error:
                mistakes.append(error)
    try:
        check_sampled((*gates, *regressions), scoring.samples, source)
    except ConfigError as error:
        mistakes.append(error)
    if mistakes:
        raise in_one(mistakes)
    assert parsed is not None
    data = parsed.data
    tags = (data.tags,) if isinstance(data.tags, str) else tuple(data.tags)
    settings, credentials = zip(parted(parsed.lora), parted(parsed.training), strict=True)
    return LoopConfig(
        name=name,
        folder=folder,
        source=source,
        model=parsed.model,
        tokenizer=parsed.tokenizer,
        train=_plain(data.train),
        eval=_plain(data.eval),
        split=data.split,
        columns=Columns(
            id=data.id,
            tags=tags,
            text=str(parsed.training.get("dataset_text_field", "text")),
            keep=(data.keep,) if isinstance(data.keep, str) else tuple(data.keep),
            answers=data.answers,
            read=columns_read(scoring, folder),
            template=data.chat_template_kwargs,
            tools=data.tools,
        ),
        train_sample=data.train_sample,
        settings=with_labelled_only(
            with_processes(Settings(*settings), parsed.loop.processes),
            on=parsed.loop.labelled_only,
        ),
        scoring=scoring,
        gates=tuple(gates),
        regressions=tuple(regressions),
        holdout=_plain(data.holdout),
        loop=parsed.loop,
        metrics=metrics,
        lines=lines,
        credentials=Settings(*credentials),
        guards=guards,
        forgetting=tuple(forgetting) or ((DEFAULT_FORGETTING,) if guards else ()),
    )


_SOME_DATA = {"train": "-", "eval": "-"}
"""What a file needs that states another section only."""


def _alone(**sections: Any) -> LoopFile | None:
    """A file that states these sections only; None if there is a mistake in them."""
    try:
        return LoopFile.model_validate(sections)
    except ValidationError:
        return None


def _guards(data: DataSection, locate: Any) -> tuple[tuple[GuardSource, ...], list[ConfigError]]:
    """The loop's guards, and the mistakes in their scoring."""
    found, mistakes = [], []
    for name, stated in data.guards.items():
        scoring = None
        if isinstance(stated, GuardSection) and stated.scoring is not None:
            scoring = scoring_of(stated.scoring)
            try:
                check_scoring(scoring, where=locate(f"data.guards.{name}.scoring"))
                _check_url(scoring.judge, locate(f"data.guards.{name}.scoring.judge.url"))
            except ConfigError as error:
                mistakes.append(error)
        source = stated.source if isinstance(stated, GuardSection) else stated
        found.append(GuardSource(name, _plain(source), scoring))
    return tuple(found), mistakes


def _check_url(judge: Judge | None, where: Location | None) -> None:
    """Raise a ConfigError for a judge whose URL is not that of an endpoint."""
    if judge is not None:
        from pytest_ftloop.core.endpoint import checked_url  # it imports urllib

        checked_url(judge.url, where)


def scoring_of(section: ScoringSection) -> Scoring:
    """The scoring that a section states; with a judge the scorer need not be named."""
    stated = section.model_dump()
    stated["choices"] = tuple(stated["choices"] or ())
    if judge := stated["judge"]:
        stated["judge"] = Judge(**{**judge, "scale": tuple(judge["scale"])})
        if "scorer" not in section.model_fields_set:
            stated["scorer"] = "judge"
    return Scoring(**stated)


def _forgetting(name: str, stated: object, locate: Any) -> Forgetting:
    """The gate that `forgetting: {alpha: 0.01}` states; null and true mean the defaults."""
    where = locate(f"gates.{name}")
    forgetting_guard(name, where)
    if not isinstance(stated, Mapping) and stated not in (None, True):
        raise ConfigError(
            f"gate {name}: wanted keys such as {{alpha: 0.01}}, found {found_text(stated)}",
            where=where,
            cure=f"Write {name}: {{}} for the defaults.",
        )
    section = ForgettingSection.model_validate(stated if isinstance(stated, Mapping) else {})
    return Forgetting(
        name=name,
        alpha=section.alpha,
        max_regression=section.max_regression,
        min_regression=section.min_regression,
        metrics=tuple(dict.fromkeys(section.metrics)),
        fail_on=tuple(kind.replace("-", " ") for kind in section.fail_on),
        line=where.line,
        against=tuple(dict.fromkeys(section.against)),
    )


def _regression(
    name: str, stated: object, locate: Any, of_the_set: Mapping[str, str]
) -> Regression:
    """The gate that `regression: {alpha: 0.01}` states; null and true mean the defaults."""
    where = locate(f"gates.{name}")
    regression_tag(name, where)
    if not isinstance(stated, Mapping) and stated not in (None, True):
        raise ConfigError(
            f"gate {name}: wanted keys such as {{alpha: 0.01}}, found {found_text(stated)}",
            where=where,
            cure=f"Write {name}: {{}} for the defaults.",
        )
    section = RegressionSection.model_validate(stated if isinstance(stated, Mapping) else {})
    check_compared(name, section.metrics, of_the_set, locate(f"gates.{name}.metrics"))
    kinds = [kind.replace("-", " ") for kind in section.fail_on]
    return Regression(
        name=name,
        alpha=section.alpha,
        max_regression=section.max_regression,
        min_regression=section.min_regression,
        metrics=tuple(dict.fromkeys(section.metrics)),
        fail_on=tuple(kinds),
        line=where.line,
    )


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


def columns_read(scoring: Scoring, folder: Path) -> frozenset[str] | None:
    """The columns of a row that a user's scorer reads, None for any; those of no other scorer."""
    if scoring.scorer == "hook":
        return hook_columns(SCORE_HOOK, folder)
    return function_columns(scoring.scorer, folder) if ":" in scoring.scorer else frozenset()


def _credentials_elsewhere(values: Mapping[str, Any], locate: Any) -> Iterator[ConfigError]:
    """Credentials in a place that the log keeps: anything but an argument that takes one.

    Those are the arguments with such a name, and what is nested in one (`model_init_kwargs`).
    """
    groups = {group: values.get(group) for group in ("lora", "training")}
    others = {key: value for key, value in values.items() if key not in groups}
    for group, stated in groups.items():
        for name, value in stated.items() if isinstance(stated, Mapping) else ():
            if not isinstance(value, Mapping) and not is_credential_name(str(name)):
                others[f"{group}.{name}"] = value
    found = list(texts_with_credentials(others))
    policy = section.get("policy") if isinstance(section := values.get("loop"), Mapping) else None
    for number, entry in enumerate(policy) if isinstance(policy, list) else ():
        for name, value in entry.items() if isinstance(entry, Mapping) else ():
            key = f"loop.policy[{number}].{name}"
            if is_credential(str(name), value) and key not in found:
                found.append(key)
    for key in found:
        yield ConfigError(
            f"{key}: found a credential, which the log would keep",
            where=locate(key.partition("[")[0]),
            cure="Remove it and set it in the environment, as HF_TOKEN for the hub: a loop file is "
            "committed.",
        )


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section with keys; empty if it is none, which is a mistake by itself."""
    section = values.get(name)
    return section if isinstance(section, Mapping) else {}


def _is_gates(values: Mapping[str, Any]) -> bool:
    return isinstance(values.get("gates"), Mapping)


def _plain(source: Any) -> Any:
    """A stated source as the data room reads it."""
    if isinstance(source, HubSource):
        return source.model_dump(exclude_none=True)
    if isinstance(source, list):
        return Mixture(tuple(_part(part) for part in source))
    return source


def _part(part: Any) -> tuple[Any, float]:
    if isinstance(part, PartSection):
        return _plain(part.source), part.weight
    return _plain(part), 1.0


@dataclass(frozen=True)
class Mixture:
    """Several sources as one: each with the number of times that its rows are taken per epoch."""

    parts: tuple[tuple[Any, float], ...]


@dataclass(frozen=True)
class GuardSource:
    """Where a guard's rows come from. Without a `scoring` they are scored like the eval set.

    `source` is as for the eval set; it may be a live object in a loop from Python.
    """

    name: str
    source: Any
    scoring: Scoring | None = None


def sources_in(source: Any) -> tuple[Any, ...]:
    """The sources of a mixture, or the one source."""
    return tuple(part for part, _ in source.parts) if isinstance(source, Mixture) else (source,)


@dataclass(frozen=True)
class Columns:
    """The columns of a data set that hold ids, tags and text, and those kept for scorers.

    Without `id`, ids come from a column of that name if there is one, else from the content. `keep`
    are named in the loop file; `read` are those that the user's scorer reads by its source, None
    for any. `answers` holds the acceptable answers besides the expected text. `template` and
    `tools` are the arguments of the chat template for all rows that lack their own. Rows of
    `another_task`, a guard's, need not have the columns.
    """

    id: str | None = None
    tags: tuple[str, ...] = ("tags",)
    text: str = "text"
    keep: tuple[str, ...] = ()
    answers: str | None = None
    read: frozenset[str] | None = frozenset()
    another_task: bool = False
    template: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tools: list[dict[str, Any]] | None = field(default=None, hash=False)
