"""Other settings written into the text of a loop file; the rest of it stays, byte for byte.

There are three edits: a value is replaced within its line, settings are added to a section, and a
missing section is added. They write whatever a policy changes. Anything else (a value over several
lines, an anchor, an alias, a setting to remove) has to be changed by hand, and the error says what.
The edited text is read again before it is returned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from pytest_ftloop.config import loop_yaml
from pytest_ftloop.config.sections import DEFAULT_LORA, DEFAULT_TRAINING
from pytest_ftloop.core.errors import ConfigError, Location
from pytest_ftloop.core.records import Settings

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"lora": DEFAULT_LORA, "training": DEFAULT_TRAINING}
"""The sections of settings, and what a loop trains with where the section is missing."""

_LINE_BREAK = re.compile(r"\r\n|\r|\n")

_PLAIN_TEXT = re.compile(r"[A-Za-z_](?:[\w./:@+-]*\w)?", re.ASCII)
"""Text that needs no quotes unless it is one of `_WORDS`: no number begins with a letter."""

_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
"""Words that YAML 1.1 or 1.2 reads as a boolean or as nothing."""


class _Edit(NamedTuple):
    """`text[start:end]` becomes `new`."""

    start: int
    end: int
    new: str


def with_settings(text: str, settings: Settings, where: str) -> str:
    """The text of a loop file, changed so that `lora:` and `training:` state exactly `settings`.

    `where` is the file as errors show it. A value that equals the wanted one (2e-4 and 0.0002)
    stays as it is written, and a missing section stays missing where the defaults are wanted.
    Raises `ConfigError` with everything that has to be changed by hand.
    """
    mark, body = ("\ufeff", text[1:]) if text.startswith("\ufeff") else ("", text)
    values, lines = loop_yaml.parse(body, where)
    if not isinstance(values, dict):
        raise ConfigError("wanted a loop's keys (data, training, ...)", where=Location(where, 1))
    for group in _DEFAULTS:
        if not isinstance(values.get(group, {}), dict):
            raise ConfigError(
                f"{group}: wanted keys with values", where=Location(where, lines[group])
            )
    root = loop_yaml.compose(body, where)
    edits = list(_edits(body, root, values, settings))
    by_hand = [setting for setting, edit in edits if edit is None]
    if not by_hand:
        after = _applied(body, dict.fromkeys(edit for _, edit in edits if edit is not None))
        if _reads_as(after, values, settings, where):
            return mark + after
        by_hand = [setting for setting, _ in edits]
    raise _by_hand(by_hand, values, settings, lines, where)


def changes(before: Settings, after: Settings) -> tuple[tuple[str, Any, Any], ...]:
    """Each setting that differs: its dotted name, and from what to what (None: not stated)."""
    return tuple(
        (f"{group}.{name}", old.get(name), new.get(name))
        for group in _DEFAULTS
        for old, new in [(getattr(before, group), getattr(after, group))]
        for name in _changed(old, new)
    )


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name in {**old, **new}
        if (name in old) != (name in new) or not _same(old[name], new[name])
    ]


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal as settings: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


# which edits are needed


def _edits(
    text: str, root: Any, values: Mapping[str, Any], settings: Settings
) -> Iterator[tuple[str, _Edit | None]]:
    """Each setting or section that changes, with its edit; None: it has to be changed by hand."""
    sections = {key.value: (key, value) for key, value in root.value}
    for group, default in _DEFAULTS.items():
        wanted = getattr(settings, group)
        if group in values:
            for name, edit in _in_section(text, sections.get(group), values[group], wanted):
                yield f"{group}.{name}", edit
        elif not _same(default, wanted):
            names = list(sections)
            above = next((name for name in ("lora", "data") if name in sections), names[-1])
            entry = f"{group}: {_written(wanted)}"
            yield group, _added(text, root, [entry], names.index(above))


def _in_section(
    text: str, pair: tuple[Any, Any] | None, now: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Iterator[tuple[str, _Edit | None]]:
    """The edits within a section; `pair` is its key and value, None if a merge key brings it in."""
    changed = _changed(now, wanted)
    if pair is None or pair[1].anchor or pair[1].start_mark.index < pair[0].end_mark.index:
        yield from ((name, None) for name in changed)  # shared by an alias: *name, or &name
        return
    section = pair[1]
    stated = {key.value: (key, value) for key, value in section.value}
    new = [name for name in changed if name not in stated]
    added = _added(text, section, [f"{_text(name)}: {_written(wanted.get(name))}" for name in new])
    for name in changed:
        if name not in wanted:
            yield name, None
        elif name in stated:
            yield name, _replaced(text, *stated[name], wanted[name])
        else:
            yield name, added


# the edits


def _replaced(text: str, key: Any, value: Any, new: Any) -> _Edit | None:
    """Another value in the place of one that is written within a line; else None."""
    start, end = value.start_mark.index, _end(value, key.end_mark.index)
    old = text[start:end]
    is_block = value.id != "scalar" and not value.flow_style
    if end is None or is_block or value.anchor or old[0] == "!" or _LINE_BREAK.search(old):
        return None
    return _Edit(start, end, _written(new, old))


def _added(text: str, mapping: Any, entries: Sequence[str], after: int = -1) -> _Edit | None:
    """Entries added after one of a mapping (by its index), written as that one is; else None."""
    if not mapping.value:
        start = mapping.start_mark.index + 1
        return _Edit(start, start, ", ".join(entries)) if text[start - 1] == "{" else None
    key, value = mapping.value[after]
    end = _end(value, key.end_mark.index)
    if end is None:
        return None
    if mapping.flow_style:
        return _Edit(end, end, "".join(f", {entry}" for entry in entries))
    start = key.start_mark.index
    indent = _LINE_BREAK.split(text[:start])[-1]
    if indent.strip(" "):
        return None
    line_break = _LINE_BREAK.search(text, end)
    if line_break is None:
        first = _LINE_BREAK.search(text)
        before = first.group() if first else "\n"
        return _Edit(len(text), len(text), "".join(f"{before}{indent}{e}" for e in entries))
    at = line_break.end()
    return _Edit(at, at, "".join(f"{indent}{entry}{line_break.group()}" for entry in entries))


def _end(node: Any, after: int) -> int | None:
    """Where a value ends in the text; `after` is where what precedes it ends.

    None for an alias, a value that is not written, and text that `|` or `>` begins (the YAML
    library counts what follows it, too).
    """
    start, end = node.start_mark.index, node.end_mark.index
    if not after <= start < end:
        return None
    if node.id == "scalar":
        return None if node.style in ("|", ">") else int(end)
    if node.flow_style:
        return int(end)
    last = node.value[-1]
    return _end(last, start) if node.id == "sequence" else _end(last[1], last[0].end_mark.index)


def _applied(text: str, edits: Iterable[_Edit]) -> str:
    """The text with the edits made; two at one place stay in their order."""
    parts, done = [], 0
    for start, end, new in sorted(edits, key=lambda edit: edit.start):
        parts += [text[done:start], new]
        done = end
    return "".join(parts) + text[done:]


def _reads_as(text: str, before: Mapping[str, Any], settings: Settings, where: str) -> bool:
    """Whether the text states the settings, and all else that it stated before."""
    try:
        values, _ = loop_yaml.parse(text, where)
    except ConfigError:
        return False
    wanted = {group: getattr(settings, group) for group in _DEFAULTS}
    return isinstance(values, dict) and _same({**_DEFAULTS, **values}, {**before, **wanted})


def _by_hand(
    by_hand: Iterable[str],
    values: Mapping[str, Any],
    settings: Settings,
    lines: Mapping[str, int],
    where: str,
) -> ConfigError:
    """The error for what is changed by hand: its line, its value now and the value to write."""
    now, wanted = _dotted(values), _dotted(vars(settings))
    messages = []
    for setting in by_hand:
        if setting not in wanted:
            todo = f"is {_written(now[setting])} and should not be stated: remove it by hand"
        elif setting not in now:
            todo = f"is not stated and should be {_written(wanted[setting])}: add it by hand"
        else:
            old = _written(now[setting])
            todo = f"is {old} and should be {_written(wanted[setting], old)}: change it by hand"
        line = lines.get(setting) or lines.get(setting.partition(".")[0]) or 1
        messages.append(f"{Location(where, line)}: {setting} {todo}")
    return ConfigError(
        "\n".join(messages),
        cure="Only a value in one line, without an anchor or alias, is edited for you. "
        "The file is unchanged.",
    )


def _dotted(groups: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of settings and the settings in them, by their dotted names."""
    stated = {group: groups[group] for group in _DEFAULTS if group in groups}
    inner = {f"{group}.{name}": v for group, part in stated.items() for name, v in part.items()}
    return {**stated, **inner}


# values as people write them


def _written(value: Any, old: str = "") -> str:
    """A JSON value as YAML in one line, which readers of 1.1 and 1.2 read alike.

    A number is written as the `old` one was: 0.0002 or 2.0e-4.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(k)}: {_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return _number(value, old)
    return json.dumps(value)


def _number(value: float, old: str) -> str:
    number = Decimal(repr(value))
    if value == 0 or _is_decimal(value, old):
        return f"{number:f}"
    digits, _, exponent = f"{number.normalize():e}".partition("e")
    return f"{digits}{'' if '.' in digits else '.0'}e{exponent}"


def _is_decimal(value: float, old: str) -> bool:
    if re.fullmatch(r"[-+]?\d*\.\d+", old):
        return 1e-9 < abs(value) < 1e9
    return "e" not in old.lower() and 1e-3 <= abs(value) < 1e6


def _text(value: str) -> str:
    if _PLAIN_TEXT.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"
