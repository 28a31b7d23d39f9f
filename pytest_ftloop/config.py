"""A loop's configuration, from a `*.ftloop.yaml` file or from Python.

Every mistake in a loop file is reported at once, each with its line and the nearest valid name.
The names and types under `lora:` and `training:` are peft's and trl's own; they are checked when
those are imported, before anything is trained or written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from pytest_ftloop.data import Columns
from pytest_ftloop.errors import ConfigError, Location, did_you_mean
from pytest_ftloop.errors import shown_path as shown_path  # imported from here too
from pytest_ftloop.gates import Gate, Regression, parse_gate, regression_tag
from pytest_ftloop.metrics import split_name
from pytest_ftloop.objects import stated_settings
from pytest_ftloop.records import Settings
from pytest_ftloop.scorers import Scoring, check_scoring

SUFFIXES = (".ftloop.yaml", ".ftloop.yml")

DEFAULT_LORA: Mapping[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
"""Used when a loop states no `lora` at all; one that states any gets peft's defaults beside it."""

DEFAULT_TRAINING: Mapping[str, Any] = {"learning_rate": 2e-4, "num_train_epochs": 1}
"""Used when a loop states no `training` at all. LoRA learns little at trl's default rate, 2e-5."""


SETTING_GROUPS = ("lora.", "training.")
"""What the dotted name of a setting begins with."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Fraction = Annotated[float, Field(gt=0, lt=1)]


class HubSource(_Section):
    """A data set on the hub, or a local folder in its layout."""

    hub: str = Field(description="owner/name, or a folder")
    split: str | None = Field(None, description="the split; by default that of the role")
    name: str | None = Field(None, description="the configuration, where there are several")
    revision: str | None = Field(None, description="a commit, so that the data can't move")


class SplitSection(_Section):
    """An eval set split off the train set."""

    fraction: Fraction = Field(description="share of the train rows, between 0 and 1")
    seed: int = Field(0, description="which rows: the same seed, the same rows")


class DataSection(_Section):
    """Where the examples come from."""

    train: str | HubSource = Field(
        description="jsonl, json, csv or parquet file, a hub id, or module:function"
    )
    eval: str | HubSource | None = Field(None, description="likewise; or use split")
    split: SplitSection | None = Field(None, description="split an eval set off the train set")
    holdout: str | HubSource | None = Field(
        None,
        description="examples that no decision ever sees; measured once an iteration is accepted",
    )
    id: str | None = Field(
        None, description="column with the example's id; by default id, else the content's hash"
    )
    tags: str | list[str] = Field("tags", description="column or columns with tags")
    train_sample: int = Field(
        256, ge=1, description="train examples measured again in eval mode for train_loss"
    )

    @model_validator(mode="after")
    def _one_eval_set(self) -> DataSection:
        if self.eval is None and self.split is None:
            raise ValueError(
                "no eval set: add eval, or split one off with split: {fraction: 0.1, seed: 0}"
            )
        if self.eval is not None and self.split is not None:
            raise ValueError("both eval and split: the eval set is either given or split off")
        return self


class ScoringSection(_Section):
    """How an example passes."""

    scorer: str = Field(
        "exact",
        description="loss, exact, contains, regex, choice, json, hook, or module:function",
    )
    max_new_tokens: int | None = Field(None, ge=1, description="limit of the greedy generation")
    threshold: float | None = Field(
        None, description="for loss: the highest passing loss per token"
    )
    pattern: str | None = Field(
        None, description="for regex; by default the expected text is the pattern"
    )
    choices: list[str] | None = Field(
        None, description="for choice: the candidates; by default the train set's expected texts"
    )
    ignore_case: bool = Field(False, description="for exact, contains and regex")


class SpaceSection(_Section):
    """A setting's range for a sampler: low and high, or choices."""

    low: int | float | None = Field(None, description="the lowest value")
    high: int | float | None = Field(None, description="the highest value")
    log: bool = Field(False, description="search it on a logarithmic scale")
    choices: list[Any] | None = Field(None, description="the values to choose from")

    @model_validator(mode="after")
    def _range_or_choices(self) -> SpaceSection:
        if self.choices is not None:
            if not self.choices or self.low is not None or self.high is not None or self.log:
                raise ValueError("wanted low and high (and log), or choices with a value at least")
        elif self.low is None or self.high is None or not 0 < self.high - self.low < math.inf:
            raise ValueError("wanted low and a higher high, or choices")
        elif self.log and self.low <= 0:
            raise ValueError(f"log: wanted low above 0, found {self.low}")
        return self


class SamplerSection(_Section):
    """Optuna as the policy."""

    sampler: str = Field(description="a sampler of optuna.samplers, such as TPESampler")
    space: dict[str, SpaceSection] = Field(
        min_length=1, description="the settings to search, by their dotted names"
    )
    seed: int = Field(0, description="the sampler's seed")
    options: dict[str, Any] = Field(
        default_factory=dict, description="further arguments of the sampler, passed through"
    )

    @model_validator(mode="after")
    def _settings(self) -> SamplerSection:
        _check_setting_names(self.space)
        return self


def _kind_of_policy(stated: object) -> str | None:
    """Which form of a policy is meant, so that its own mistakes are reported."""
    if isinstance(stated, str):
        return "<text>"
    if isinstance(stated, list):
        return "<list>"
    return "<sampler>" if isinstance(stated, Mapping | SamplerSection) else None


class LoopSection(_Section):
    """How the loop goes on and when it stops."""

    iterations: int = Field(4, ge=1, description="iterations at most")
    patience: int = Field(2, ge=1, description="iterations without improvement before it stops")
    metric: Literal["eval_loss", "pass_rate"] = Field(
        "eval_loss", description="by which the best iteration is chosen"
    )
    time_budget_s: float | None = Field(
        None, gt=0, description="no iteration is begun that would end after it"
    )
    seeds: int = Field(
        1, ge=1, le=100, description="seeds with which the best iteration is trained"
    )
    policy: Annotated[
        Annotated[str, Tag("<text>")]
        | Annotated[list[dict[str, Any]], Tag("<list>")]
        | Annotated[SamplerSection, Tag("<sampler>")],
        Discriminator(_kind_of_policy),
    ] = Field(
        "rules",
        description="what is trained next: rules, a list of settings, an Optuna sampler, or "
        "module:function",
    )

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, policy: Any) -> Any:
        if isinstance(policy, str) and policy != "rules" and ":" not in policy:
            raise ValueError(
                f"loop.policy: wanted rules, module:function, a list of settings or an Optuna "
                f"sampler, found {policy!r}"
            )
        if isinstance(policy, list):
            if not policy or not all(policy):
                raise ValueError("loop.policy: wanted a list of settings, found an empty one")
            for entry in policy:
                _check_setting_names(entry)
        return policy

    @property
    def limit(self) -> int:
        """Iterations at most; a list of settings is gone through where no number is stated."""
        return self.iterations if self.gone_through is None else 1 + len(self.gone_through)

    @property
    def gone_through(self) -> list[dict[str, Any]] | None:
        """The list of settings that no number of iterations cuts short, if that is the policy."""
        is_cut = "iterations" in self.model_fields_set
        return self.policy if isinstance(self.policy, list) and not is_cut else None


def _check_setting_names(names: Mapping[str, Any]) -> None:
    for name in names:
        if not name.startswith(SETTING_GROUPS):
            raise ValueError(
                f"loop.policy: wanted settings by their dotted names, such as "
                f"training.learning_rate, found {name!r}"
            )


class RegressionSection(_Section):
    """The gate regression: not worse than the last committed version."""

    alpha: float = Field(0.01, gt=0, lt=0.5, description="highest probability of a false alarm")
    max_regression: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="a drop, as a share of the loss or of 1, that must be ruled out; where it is "
        "not, the verdict is inconclusive",
    )
    min_regression: float = Field(
        0.01, ge=0, lt=1, description="a smaller drop never fails, however sure it is"
    )
    metrics: list[Literal["eval_loss", "pass_rate", "token_accuracy", "overfit_gap"]] = Field(
        ["eval_loss", "pass_rate"], min_length=1, description="the metrics that decide"
    )
    fail_on: list[Literal["inconclusive", "not-comparable"]] = Field(
        default_factory=list, description="verdicts that fail beside regressed and incomplete"
    )


class LoopFile(_Section):
    """A pytest-ftloop loop: one fine-tuning goal."""

    name: str | None = Field(None, description="the loop's name; by default the file's")
    model: str = Field(
        "tiny",
        min_length=1,
        description="a hub id (id@revision), a folder, or tiny, the embedded base model",
    )
    data: DataSection
    lora: dict[str, Any] = Field(
        default_factory=lambda: dict(DEFAULT_LORA), description="arguments of peft.LoraConfig"
    )
    training: dict[str, Any] = Field(
        default_factory=lambda: dict(DEFAULT_TRAINING), description="arguments of trl.SFTConfig"
    )
    scoring: ScoringSection = Field(default_factory=lambda: ScoringSection.model_validate({}))
    gates: dict[str, Any] = Field(
        default_factory=dict, description='conditions such as eval_loss: "<= 3.4"'
    )
    loop: LoopSection = Field(default_factory=lambda: LoopSection.model_validate({}))


@dataclass(frozen=True)
class LoopConfig:
    """One loop, checked. `model`, `train`, `eval` and `holdout` may be live objects when it comes
    from Python.

    `folder` is what relative paths start from, and where `improvement_log/` lies. `lines` maps a
    dotted key to its line in the loop file (and `""` to the first).
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
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)

    @property
    def file(self) -> Path:
        """The loop file. Only of a loop that was read from one (`lines` is not empty)."""
        return self.folder / Path(self.source).name

    def locate(self, key: str) -> Location | None:
        """Where a dotted key, or the nearest section above it, stands in the loop file."""
        while key:
            if key in self.lines:
                return Location(self.source, self.lines[key])
            key = key.rpartition(".")[0]
        return Location(self.source) if self.lines else None


def read_loop_file(path: Path) -> LoopConfig:
    """Read and check a loop file. Raises `ConfigError` with every mistake found."""
    shown = shown_path(path)
    values, lines = _read_yaml(path, shown)
    name = path.name
    for suffix in (*SUFFIXES, ".yaml"):
        name = name.removesuffix(suffix)
    return _checked(values, lines, folder=path.parent, source=shown, name=name)


def from_python(
    *,
    folder: Path,
    source: str,
    name: str,
    model: Any = "tiny",
    tokenizer: Any = None,
    train: Any = None,
    eval: Any = None,  # noqa: A002 - the loop file's own key
    holdout: Any = None,
    lora: Any = None,
    training: Any = None,
    data: Mapping[str, Any] | None = None,
    scoring: Mapping[str, Any] | str | None = None,
    gates: Mapping[str, Any] | None = None,
    loop: Mapping[str, Any] | None = None,
) -> LoopConfig:
    """The same loop from Python: the sections of a loop file, or the ecosystem's own objects.

    `model` may be a loaded model (with its `tokenizer`), `train`, `eval` and `holdout` any iterable
    of rows (a `datasets.Dataset`), `lora` a LoraConfig, `training` an SFTConfig. `data` takes the
    other keys of the loop file's data section (split, id, tags, train_sample).
    """
    if tokenizer is not None and isinstance(model, str | Path):
        raise ConfigError(
            f"tokenizer goes with a loaded model; model is {str(model)!r}, which has its own",
            cure="Load the model too, or leave the tokenizer out.",
        )
    # An iterator is read once, a loop may be run twice.
    train, eval, holdout = (  # noqa: A001
        list(s) if isinstance(s, Iterator) else s for s in (train, eval, holdout)
    )
    live = {"model": model, "train": train, "eval": eval, "holdout": holdout}
    values: dict[str, Any] = {
        "name": name,
        "data": {**(data or {})},
        "gates": dict(gates or {}),
        "loop": dict(loop or {}),
    }
    if isinstance(model, str | Path):
        values["model"] = str(model)
    for role, source_ in (("train", train), ("eval", eval), ("holdout", holdout)):
        if source_ is not None:
            _refuse_splits(role, source_, source)
            plain = isinstance(source_, str | Path | dict)
            values["data"][role] = str(source_) if isinstance(source_, Path) else source_
            if not plain:
                values["data"][role] = "live"
    if lora is not None:
        values["lora"] = stated_settings("lora", lora, source)
    if training is not None:
        values["training"] = stated_settings("training", training, source)
    if scoring is not None:
        values["scoring"] = {"scorer": scoring} if isinstance(scoring, str) else dict(scoring)
    config = _checked(values, {}, folder=folder, source=source, name=name)
    changes = {
        key: value
        for key, value in live.items()
        if value is not None and not isinstance(value, str | Path | dict)
    }
    return replace(config, tokenizer=tokenizer, **changes)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a loop file, for editors."""
    schema = LoopFile.model_json_schema()
    # What `gates` refers to: a section of its own, since its name may carry a tag.
    schema["$defs"]["RegressionSection"] = RegressionSection.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _checked(
    values: Any, lines: Mapping[str, int], *, folder: Path, source: str, name: str
) -> LoopConfig:
    def locate(key: str) -> Location:
        while key and key not in lines:
            key = key.rpartition(".")[0]
        return Location(source, lines.get(key))

    if not isinstance(values, dict):
        raise ConfigError(
            f"wanted a loop's keys (data, training, gates, ...), found {_found(values)}",
            where=locate(""),
            cure="'ftloop init' writes a loop file to start from.",
        )
    mistakes: list[ConfigError] = []
    parsed: LoopFile | None = None
    try:
        parsed = LoopFile.model_validate(values)
    except ValidationError as error:
        mistakes += _mistakes(error, locate)
    gates, regressions = [], []
    for key, condition in (values.get("gates") or {}).items() if _is_gates(values) else ():
        name_, at = str(key), locate(f"gates.{key}")
        try:
            if split_name(name_)[0] == "regression":
                regressions.append(_regression(name_, condition, locate))
            else:
                gates.append(parse_gate(name_, condition, at))
        except ConfigError as error:
            mistakes.append(error)
        except ValidationError as error:
            mistakes += _mistakes(error, locate, f"gates.{name_}")
    scoring = Scoring()
    # Also when another section has a mistake; one in this section is reported already.
    with suppress(ValidationError):
        section = ScoringSection.model_validate(values.get("scoring", {})).model_dump()
        scoring = Scoring(**{**section, "choices": tuple(section["choices"] or ())})
        try:
            check_scoring(scoring, where=locate("scoring.scorer"))
        except ConfigError as error:
            mistakes.append(error)
    name = stated if isinstance(stated := values.get("name"), str) else name
    if not re.fullmatch(r"\w([\w.-]*\w)?", name):
        mistakes.append(
            ConfigError(
                f"name {name!r} can't be a folder's name everywhere",
                where=locate("name"),
                cure="Use letters, digits, '-', '_' and '.', a letter or digit first and last.",
            )
        )
    if parsed is not None:
        mistakes += _not_finite(parsed, locate)
    if mistakes:
        first, *others = sorted(mistakes, key=lambda e: (e.where and e.where.line) or 0)
        if others:
            raise ConfigError("\n".join(str(mistake) for mistake in (first, *others)))
        raise first
    assert parsed is not None
    data = parsed.data
    tags = (data.tags,) if isinstance(data.tags, str) else tuple(data.tags)
    return LoopConfig(
        name=name,
        folder=folder,
        source=source,
        model=parsed.model,
        tokenizer=None,
        train=_plain(data.train),
        eval=_plain(data.eval),
        split=data.split,
        columns=Columns(
            id=data.id, tags=tags, text=str(parsed.training.get("dataset_text_field", "text"))
        ),
        train_sample=data.train_sample,
        settings=Settings(lora=parsed.lora, training=parsed.training),
        scoring=scoring,
        gates=tuple(gates),
        regressions=tuple(regressions),
        holdout=_plain(data.holdout),
        loop=parsed.loop,
        lines=lines,
    )


def _regression(name: str, stated: object, locate: Any) -> Regression:
    """The gate that `regression: {alpha: 0.01}` states; nothing, or true, takes the defaults."""
    where = locate(f"gates.{name}")
    regression_tag(name, where)
    if not isinstance(stated, Mapping) and stated not in (None, True):
        raise ConfigError(
            f"gate {name}: wanted keys such as {{alpha: 0.01}}, found {_found(stated)}",
            where=where,
            cure=f"Write {name}: {{}} for the defaults.",
        )
    section = RegressionSection.model_validate(stated if isinstance(stated, Mapping) else {})
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


def _read_yaml(path: Path, shown: str) -> tuple[Any, dict[str, int]]:
    """The file's values, and the line of each dotted key. YAML 1.2: `2e-4` is a number."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import RoundTripConstructor
    from ruamel.yaml.error import MarkedYAMLError

    class Constructor(RoundTripConstructor):
        """Dates stay text, as in YAML 1.2."""

    Constructor.add_constructor(
        "tag:yaml.org,2002:timestamp", lambda loader, node: loader.construct_scalar(node)
    )
    yaml = YAML(typ="rt", pure=True)
    yaml.Constructor = Constructor
    try:
        text = path.read_text(encoding="utf-8-sig")
        tree = yaml.load(text)
        return _unwrapped(tree), {"": 1, **dict(_lines(tree, ""))}
    except OSError as error:
        near = path.parent.glob("*.y*ml") if path.parent.is_dir() else ()
        names = [p.name for p in near if p.name.endswith(SUFFIXES)]
        raise ConfigError(
            f"can't be read: {error.strerror}",
            where=Location(shown),
            cure=did_you_mean(path.name, names) if names and not path.exists() else "",
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"not UTF-8: byte {error.start} is {error.object[error.start]:#04x}",
            where=Location(shown, line),
            cure="Save the file as UTF-8.",
        ) from None
    except MarkedYAMLError as error:
        problem = " ".join((error.problem or str(error)).split())
        marks = [error.problem_mark, error.context_mark]
        if "end of stream" in problem:  # what was opened matters, not where the file ends
            marks.reverse()
        mark = marks[0] or marks[1]
        raise ConfigError(
            f"not YAML: {problem}",
            where=Location(shown, mark.line + 1 if mark else 1),
            cure=next((cure for sign, cure in _YAML_CURES.items() if sign in problem), ""),
        ) from None
    except Exception as error:  # noqa: BLE001 - the YAML library raises many kinds
        reason = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(f"not YAML: {reason[0]}", where=Location(shown, 1)) from None


_YAML_CURES = {
    "duplicate key": "Keep one of the two.",
    "'\\t'": "YAML indents with spaces, not tabs.",
    "another document": "Remove the line with ---: a loop file holds one loop.",
    "end of stream": "A quote or bracket is not closed.",
    "chomping": 'Quote conditions that begin with >, as in pass_rate: ">= 0.9".',
}
"""What to do about a YAML library's message, by a part of it."""


def _lines(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, dict):
        # What a merge key (<<) brought in has no line here: its section's stands for it.
        places = getattr(getattr(node, "lc", None), "data", None) or {}
        for key, value in node.items():
            dotted = f"{prefix}{key}"
            if key in places:
                yield dotted, places[key][0] + 1
            yield from _lines(value, f"{dotted}.")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _lines(value, f"{prefix}{number}.")


def _unwrapped(node: Any) -> Any:
    """Plain Python values in place of the YAML library's own types."""
    if isinstance(node, dict):
        return {str(key): _unwrapped(value) for key, value in node.items()}
    if isinstance(node, list | set):
        return [_unwrapped(value) for value in node]
    if type(node).__name__ == "ScalarBoolean":  # an anchored one; a subclass of int
        return bool(node)
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    if node is not None:
        raise ValueError(f"a value with a tag is not read: {node}")
    return node


def _not_finite(parsed: LoopFile, locate: Any) -> Iterator[ConfigError]:
    stated = [
        (f"{g}.{name}", v) for g in ("lora", "training") for name, v in getattr(parsed, g).items()
    ]
    if isinstance(parsed.loop.policy, list):
        for number, entry in enumerate(parsed.loop.policy):
            stated += [(f"loop.policy.{number}.{name}", value) for name, value in entry.items()]
    for key, value in stated:
        if isinstance(value, float) and not math.isfinite(value):
            yield ConfigError(f"{key}: wanted a finite number, found {value}", where=locate(key))


def _mistakes(error: ValidationError, locate: Any, above: str = "") -> Iterator[ConfigError]:
    """One `ConfigError` for each thing pydantic found, in a user's words.

    `above` is the dotted key of the section that was validated, where it is not the whole file.
    """
    seen: set[str] = set()
    for item in error.errors():
        if item["loc"][-1] == "str" and isinstance(item["input"], Mapping | list):
            continue  # not the branch of the union that was meant: the other one has more to say
        inner = [str(part) for part in item["loc"] if not _is_branch(part)]
        path = [*([above] if above else []), *inner]
        key = ".".join(path)
        # A value that fits no branch of a union is reported once, not once a branch.
        if key in seen:
            continue
        seen.add(key)
        if item["type"] == "extra_forbidden":
            section = ".".join(path[:-1])
            yield ConfigError(
                f"unknown key {path[-1]!r}" + (f" in {section}" if section else ""),
                where=locate(key),
                cure=did_you_mean(path[-1], _known_keys(path[:-1])),
            )
        elif item["type"] == "missing":
            yield ConfigError(f"{key} is missing", where=locate(key), cure=_example_of(key))
        elif item["type"] == "value_error":
            yield ConfigError(str(item["ctx"]["error"]), where=locate(key))
        else:
            found = item["input"]
            cure = ""
            if item["type"] == "literal_error" and isinstance(found, str):
                cure = did_you_mean(found, re.findall(r"'([\w-]+)'", item["ctx"]["expected"]))
            yield ConfigError(
                f"{key}: wanted {_wanted(key, item)}, found {_found(found)}",
                where=locate(key),
                cure=cure,
            )


_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le} or less",
    "too_short": "one or more",
}
"""pydantic's kinds of mistake in a user's words; its own are taken for others."""


def _wanted(key: str, item: Any) -> str:
    if key in {"data.train", "data.eval", "data.holdout"}:
        return "a file, a hub id, module:function or {hub: ..., split: ...}"
    if key == "loop.policy":
        return "rules, module:function, a list of settings or an Optuna sampler"
    if key == "data.tags":
        return "a column or a list of columns"
    if key == "data.split.fraction":
        return "a number between 0 and 1"
    wanted: str = _WANTED.get(item["type"], item["msg"].removeprefix("Input should be "))
    return wanted.format(**item.get("ctx", {}))


def _found(value: Any) -> str:
    """A value as a loop file would show it, cut short."""
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_BRANCHES = {"str", "HubSource", "list[str]", "<text>", "<list>", "<sampler>", "int", "float"}


def _is_branch(part: Any) -> bool:
    """Whether a part of pydantic's location names a union's branch, not a key of the file."""
    return part in _BRANCHES or isinstance(part, int)


def _known_keys(path: list[str]) -> list[str]:
    model: Any = LoopFile
    for part in path:
        if part.startswith(SETTING_GROUPS):
            return list(SpaceSection.model_fields)
        model = {
            "data": DataSection,
            "split": SplitSection,
            "scoring": ScoringSection,
            "loop": LoopSection,
            "policy": SamplerSection,
            "train": HubSource,
            "eval": HubSource,
            "holdout": HubSource,
        }.get(part, RegressionSection if part.startswith("gates.regression") else model)
    return list(model.model_fields)


def _example_of(key: str) -> str:
    return {
        "data": "data: {train: data/train.jsonl, eval: data/eval.jsonl}",
        "data.train": "train: data/train.jsonl",
        "data.split.fraction": "split: {fraction: 0.1, seed: 0}",
    }.get(key, "")


def _is_gates(values: Mapping[str, Any]) -> bool:
    return isinstance(values.get("gates"), Mapping)


def _plain(source: str | HubSource | None) -> Any:
    return source.model_dump(exclude_none=True) if isinstance(source, HubSource) else source


def _refuse_splits(role: str, given: Any, source: str) -> None:
    if isinstance(given, dict) and type(given).__name__.endswith("DatasetDict"):
        raise ConfigError(
            f"{role}: wanted one split, found a {type(given).__name__} of {', '.join(given)}",
            where=Location(source),
            cure=f"Pass one of them: {role}=data[{next(iter(given), 'train')!r}].",
        )
