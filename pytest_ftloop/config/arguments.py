"""The arguments under `lora:` and `training:`: names, types and bounds, checked without torch.

Where the installed peft, trl and transformers are those that `known_arguments` was made from, all
mistakes are found when the loop file is read. With other versions the same functions check against
the libraries' own classes, before anything is trained.
"""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, Union

from pytest_ftloop.config.old_names import ALIASES, REFUSED, RENAMED
from pytest_ftloop.core.credentials import HIDDEN, is_credential
from pytest_ftloop.core.errors import ConfigError, Locate, did_you_mean

CONFIGS = {"lora": "LoraConfig", "training": "SFTConfig"}
"""The class that takes the arguments of a section."""

OF_OURS = frozenset({("lora", "init_from")})
"""Keys of a section that are a loop's own, and checked elsewhere."""

_ANY_FROM_ONE, _ANY_FROM_ZERO, _SHARE = (1.0, math.inf), (0.0, math.inf), (0.0, 1.0)

LIMITS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "lora": {"r": _ANY_FROM_ONE, "lora_dropout": _SHARE},
    "training": {
        "per_device_train_batch_size": _ANY_FROM_ONE,
        "per_device_eval_batch_size": _ANY_FROM_ONE,
        "gradient_accumulation_steps": _ANY_FROM_ONE,
        "torch_empty_cache_steps": _ANY_FROM_ONE,
        "seed": _ANY_FROM_ZERO,
        "data_seed": _ANY_FROM_ZERO,
        "learning_rate": _ANY_FROM_ZERO,
        "weight_decay": _ANY_FROM_ZERO,
        "warmup_steps": _ANY_FROM_ZERO,
        "adam_epsilon": _ANY_FROM_ZERO,
        "adam_beta1": _SHARE,
        "adam_beta2": _SHARE,
    },
}
"""Lowest and highest value of arguments, by section.

The libraries refuse other values when the base is loaded, one at a time and without the line; a
negative dropout they take for none.
"""

AMOUNTS = frozenset(LIMITS["training"]) | {"num_train_epochs", "max_steps"}
"""Arguments of SFTConfig that are numbers also where they are quoted: 'nan' is one to trl."""


@dataclass(frozen=True)
class Stated:
    """One argument that a loop states, and its dotted key in the loop file."""

    group: str
    name: str
    value: Any
    key: str

    @property
    def setting(self) -> str:
        """The dotted setting, such as `training.learning_rate`."""
        return f"{self.group}.{self.name}"

    @property
    def shown(self) -> str:
        """The value as errors show it."""
        return HIDDEN if is_credential(self.name, self.value) else f"{self.value!r:.60}"


@functools.cache
def known(group: str) -> Mapping[str, Any] | None:
    """The types of a section's arguments by name; None if other versions are installed.

    The versions fit if their major and minor numbers are the table's. Without the libraries nothing
    is known: the log that is judged may be from newer ones.
    """
    from importlib.metadata import PackageNotFoundError, version

    from pytest_ftloop.config import known_arguments

    table = {"lora": known_arguments.Lora, "training": known_arguments.Training}[group]
    libraries = {"lora": ("peft",), "training": ("trl", "transformers")}[group]
    for library in libraries:
        try:
            installed = version(library)
        except PackageNotFoundError:
            return None
        if installed.split(".")[:2] != known_arguments.VERSIONS[library].split(".")[:2]:
            return None
    return typing.get_type_hints(table)


def mistakes(
    stated: Mapping[str, Any],
    group: str,
    hints: Mapping[str, Any] | None,
    locate: Locate,
    above: str = "",
) -> Iterator[ConfigError]:
    """One error for each wrong argument of a section.

    `hints` are the types by name, None if they are not known. `above` is the dotted key that holds
    the arguments, if that is not the section itself.
    """
    for name, value in stated.items():
        if (group, name) in OF_OURS:
            continue
        one = Stated(group, name, value, f"{above or group}.{name}")
        wrong = _refused(one) or _unknown(one, hints) or _of_another_type(one, hints)
        wrong = wrong or _out_of_bounds(one)
        if wrong:
            message, cure = wrong
            yield ConfigError(message, where=locate(one.key), cure=cure)


_Wrong = tuple[str, str] | None
"""A message and its cure."""


def _refused(one: Stated) -> _Wrong:
    if one.group != "training" or one.name not in REFUSED:
        return None
    return f"{one.setting} can't be set: {REFUSED[one.name]}", "Remove the line."


def _unknown(one: Stated, hints: Mapping[str, Any] | None) -> _Wrong:
    cure = RENAMED[one.group].get(one.name, "")
    if hints is None:  # an old name has gone from every version that a loop trains with
        names: Mapping[str, Any] = {} if cure else {one.name: None}
    else:
        names = hints
    if one.name in names:
        return None
    near = get_close_matches(one.name, names, n=1, cutoff=0.85)
    cure = cure or ("" if near else belongs(one.name, one.group)) or did_you_mean(one.name, names)
    return f"{one.setting} is not an argument of {CONFIGS[one.group]}", cure


def _of_another_type(one: Stated, hints: Mapping[str, Any] | None) -> _Wrong:
    from pydantic import ValidationError

    hint = (hints or {}).get(one.name)
    adapter = None if hint is None else adapter_of(hint)
    if adapter is None:
        return None
    try:
        adapter.validate_python(one.value)
    except ValidationError as error:
        names = _names_in(hint)
        if names and isinstance(one.value, str):
            cure = did_you_mean(one.value, names)
        else:
            within = ".".join(str(part) for part in error.errors()[0]["loc"] if _is_key(part))
            cure = f"{within}: {error.errors()[0]['msg']}." if within in _keys(one.value) else ""
        return f"{one.setting}: wanted {wanted(hint)}, found {one.shown}", cure
    return None


def _is_key(part: Any) -> bool:
    return isinstance(part, str) and part.isidentifier()


def _keys(value: Any) -> frozenset[str]:
    return frozenset(value) if isinstance(value, Mapping) else frozenset()


def _out_of_bounds(one: Stated) -> _Wrong:
    value = one.value
    is_amount = isinstance(value, float) or (one.group == "training" and one.name in AMOUNTS)
    if is_amount and not math.isfinite(as_number(value) or 0):
        return f"{one.setting}: wanted a finite number, found {value}", ""
    if one.setting == "training.seed" and type(value) is not int:  # more seeds are the next numbers
        return f"{one.setting}: wanted a whole number, found {value!r}", ""
    number, limits = as_number(value), LIMITS[one.group].get(one.name)
    if number is None or limits is None or limits[0] <= number <= limits[1]:
        return None
    return f"{one.setting}: wanted {_range_text(*limits)}, found {value}", ""


def _range_text(low: float, high: float) -> str:
    if high == math.inf:
        return "0 or more" if low == 0 else f"at least {low:g}"
    return f"{low:g} to {high:g}"


def as_number(value: Any) -> float | None:
    """A value as a number, also a quoted one; None if it is none."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
    except OverflowError:  # a whole number of Python
        return math.inf


def no_training(training: Mapping[str, Any], locate: Locate) -> Iterator[ConfigError]:
    """A mistake if nothing would be trained: a positive max_steps overrides num_train_epochs."""
    epochs, steps = (as_number(training.get(k)) for k in ("num_train_epochs", "max_steps"))
    if epochs is not None and epochs <= 0 and (steps is None or steps <= 0):
        yield ConfigError(
            f"training.num_train_epochs: wanted more than 0, found {training['num_train_epochs']}",
            where=locate("training.num_train_epochs"),
        )


def of_settings(
    lora: Mapping[str, Any], training: Mapping[str, Any], policy: object, locate: Locate
) -> Iterator[ConfigError]:
    """One error for each mistake in a loop's settings, and in those that its policy can choose.

    What a policy's function returns can't be checked in advance.
    """
    hints = {group: known(group) for group in CONFIGS}
    yield from mistakes(lora, "lora", hints["lora"], locate)
    yield from mistakes(training, "training", hints["training"], locate)
    yield from no_training(training, locate)
    seen: set[str] = set()
    for key, changed in of_policy(policy):
        for setting, value in changed.items():
            group, _, name = setting.partition(".")
            if group not in CONFIGS:  # a mistake by itself
                continue
            above = f"loop.policy.{key}.{group}"
            for wrong in mistakes({name: value}, group, hints[group], locate, above):
                if str(wrong) not in seen:
                    seen.add(str(wrong))
                    yield wrong


def of_policy(policy: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the settings that a policy can choose, each with its key in the loop file.

    Of a sampler's ranges these are the ends.
    """
    from pytest_ftloop.config.sections import SamplerSection

    if isinstance(policy, list):
        entries = enumerate(policy)
        yield from ((str(number), entry) for number, entry in entries if isinstance(entry, Mapping))
    elif isinstance(policy, SamplerSection):
        for setting, range_ in policy.space.items():
            for value in range_.choices or (range_.low, range_.high):
                yield "space", {setting: value}


def in_one(mistakes: Iterable[ConfigError]) -> ConfigError:
    """All mistakes as one error, by line."""
    first, *others = sorted(mistakes, key=lambda e: (e.where and e.where.line) or 0)
    if others:
        return ConfigError("\n".join(str(mistake) for mistake in (first, *others)))
    return first


def old_names(stated: Mapping[str, Any], group: str, locate: Locate) -> Iterator[str]:
    """A note for each argument under an old name that still works."""
    for name in stated:
        if name in ALIASES[group]:
            where = locate(f"{group}.{name}")
            at = f"{where}: " if where else ""
            yield f"{at}{group}.{name} is an old name: write {ALIASES[group][name]}"


def belongs(name: str, group: str = "") -> str:
    """Where a name belongs that is unknown in the section `group`; empty if nowhere."""
    from pytest_ftloop.config import known_arguments
    from pytest_ftloop.config.sections import LoopFile, LoopSection, ScoringSection

    tables = {"training": known_arguments.Training, "lora": known_arguments.Lora}
    for other, table in tables.items():
        if other != group and name in table.__annotations__ and name not in REFUSED:
            return f"It is an argument of {CONFIGS[other]}: write it under {other}."
        if not group and name in RENAMED[other]:
            return f"It belongs under {other}. {RENAMED[other][name]}"
    if group and name in LoopFile.model_fields:
        return f"It is a key of the loop file: write it at the top, not under {group}."
    sections = {"loop": LoopSection.model_fields, "scoring": ScoringSection.model_fields}
    found = [section for section, keys in sections.items() if section != group and name in keys]
    return f"It is a key of {found[0]}: write it there." if found else ""


@functools.lru_cache(maxsize=512)
def adapter_of(hint: Any) -> Any:
    """A check for values of a type, as pydantic's TypeAdapter; None for a type it can't check."""
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticUserError, TypeError):
        return None  # the config class itself may check it


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "nothing",
    dict: "keys with values",
    list: "a list",
}


def wanted(hint: Any) -> str:
    """A type in words: `a number or nothing`."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        parts = list(dict.fromkeys(wanted(part) for part in typing.get_args(hint)))
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"
    if origin is Literal:
        values = [repr(value) for value in typing.get_args(hint)]
        if len(values) > 8:
            return f"one of {len(values)} names, such as {values[0]}"
        return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} or {values[-1]}"
    if origin is list:
        inner = typing.get_args(hint)[0]
        return {int: "a list of whole numbers", str: "a list of texts"}.get(inner, "a list")
    return _WORDS.get(origin or hint, "keys with values")


def _names_in(hint: Any) -> list[str]:
    """The texts that a type lists."""
    if typing.get_origin(hint) is Literal:
        return [value for value in typing.get_args(hint) if isinstance(value, str)]
    parts = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else ()
    return [name for part in parts for name in _names_in(part)]


def hints_of(config: type) -> dict[str, Any]:
    """The types of the arguments of LoraConfig or SFTConfig, as far as a loop file can state them.

    An enum is the names of its members, a text with choices these, a further config class keys
    with values.
    """
    import dataclasses

    hints = typing.get_type_hints(config)
    found = {}
    for argument in dataclasses.fields(config):
        if not argument.init:
            continue
        hint = _stateable(hints[argument.name])
        if argument.name == "peft_type":  # any text is taken, and the class sets its own
            hint = Union[str, None]  # noqa: UP007
        choices = argument.metadata.get("choices")
        if choices:
            names: Any = Literal[tuple(choices)]
            hint = Union[names, None] if type(None) in typing.get_args(hint) else names  # noqa: UP007
        found[argument.name] = hint
    return found


def _stateable(hint: Any) -> Any:
    import enum

    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        enums = [p for p in parts if isinstance(p, type) and issubclass(p, enum.Enum)]
        kept = [p for p in parts if not (enums and p is str)]
        return Union[tuple(_stateable(part) for part in kept)]  # noqa: UP007
    if origin is Literal and any("[" in str(part) for part in parts):
        return str  # peft's placeholder for any number: pissa_niter_[number of iters]
    if origin in (list, tuple):
        inner = tuple(_stateable(part) for part in parts)
        return list[inner[0] if len(set(inner)) == 1 else Any]  # type: ignore[misc]
    if origin is None and isinstance(hint, type):
        if issubclass(hint, enum.Enum):
            return Literal[tuple(str(member.value) for member in hint)]
        return hint if hint in _WORDS else dict
    return hint
