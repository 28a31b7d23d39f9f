"""Parse a record's YAML into plain data. Size and depth are limited; an error names its line.

PyYAML takes 5 ms for a record of 10 kB, and a replay reads one per iteration. So a text in the
shape that we write is read line by line in 0.7 ms; any other text, edited or damaged, through
PyYAML's events in 2.4 ms. Both give the same: PyYAML's own resolver decides in either what a plain
scalar is (a number, a text, null). The parsers in Rust and C++ take 0.5 to 0.7 ms too, but read
YAML 1.2, in which 1e5 is a number and not an id.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, cast

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from pytest_ftloop.core.bounds import (
    MOST_BYTES_OF_RECORD,
    MOST_DIGITS,
    MOST_LEVELS,
    MOST_VALUES,
    BoundError,
    check_digits,
    check_float,
)

Scalar = str | int | float | bool | None
"""What an unquoted scalar may be."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG = "tag:yaml.org,2002:"
_RESOLVER: Any = Resolver()
_SCALARS: Any = {
    f"{_TAG}str": SafeConstructor.construct_yaml_str,
    f"{_TAG}null": SafeConstructor.construct_yaml_null,
    f"{_TAG}bool": SafeConstructor.construct_yaml_bool,
    f"{_TAG}int": SafeConstructor.construct_yaml_int,
    f"{_TAG}float": SafeConstructor.construct_yaml_float,
}
"""What a plain scalar may be. A date or a merge key (`<<`) is never written."""

_NUMBERS = frozenset({f"{_TAG}int", f"{_TAG}float"})

# The shape that we write. Text of any other shape goes to PyYAML.
_PRINTABLE = re.compile(
    "[\n -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]+"
)
_NUMBER = rf"-?(?:0|[1-9][0-9]{{,{MOST_DIGITS - 1}}})(?:\.[0-9]+(?:e[-+][0-9]+)?)?"
_ROW = rf"\[{_NUMBER}(?:,[ ]{_NUMBER})*\]"
_LINE = re.compile(
    rf"""
    ^([ ]*)(?:
      -[ ]({_ROW}(?:\n\1-[ ]{_ROW})*)$  # rows of numbers
    | (-[ ])?('[0-9]{{1,15}}'|[^\W\d][\w./\[\]\ -]{{0,99}}(?<![ ])):  # a key (a step is quoted),
      # and unless a block follows its value,
      (?:[ ](.+(?:\n\1(?(3)[ ][ ])[ ][ ].+)*))?$  # which may be broken
    | -[ ](.+)$  # an item of a list
    | .*$  # none of ours
    )
    """,
    re.VERBOSE | re.MULTILINE,
)
_A_NUMBER = re.compile(_NUMBER)
_QUOTED = re.compile(r"'(?:[^']|'')*'")
_PLAIN = re.compile(r"-?[\w./(][^:#]*(?:(?::(?! )|(?<! )#)[^:#]*)*(?<![ :])")
_PLAIN_ITEM = re.compile(r"-?[\w./(][^,:?#\[\]{}]*(?<! )")
_ITEM = rf"'(?:[^']|'')*'|{_PLAIN_ITEM.pattern}"
_ITEMS = re.compile(rf"\[(?:(?:{_ITEM})(?:, (?:{_ITEM}))*)?\]")
_AN_ITEM = re.compile(_ITEM)

# The unquoted scalars of other writers.
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_AN_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_A_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?")
_AN_INT_OF_1_2 = re.compile(r"[-+]?[0-9]+")
_A_FLOAT_OF_1_2 = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


KeyPath = tuple[str | int, ...]
"""Where a value is: the keys and list indexes that lead to it."""


class TextError(ValueError):
    """A text is not what was wanted: why, of which key and at which line where that is known."""

    def __init__(self, why: str, line: int | None = None, path: KeyPath = ()) -> None:
        self.why = f"{shown(path)}: {why}" if path else why
        self.line = line
        super().__init__(self.why)


class _OtherShapeError(Exception):
    """A text is not as we write it; PyYAML may read it all the same."""


def read(text: str) -> dict[str, Any]:
    """The keys and values of a text: None, bool, int, float, str, lists of them and dicts by str.

    A `TextError` for what is no YAML, or no mapping at its top, and for what no record has: anchors
    and aliases, tags, dates, keys stated twice or that are no text, and what is beyond the limits
    of `core.bounds`.
    """
    _check_size(text)
    try:
        return _as_written(text)
    except (_OtherShapeError, ValueError):
        return _mapping(_document(text, _resolved))


def readings(text: str) -> Iterator[dict[str, Any]]:
    """What a text that another program wrote may say, the likeliest first.

    YAML 1.1, in which we write, quotes `'yes'` and `'1:30'` and leaves `1e5` bare; in YAML 1.2 it
    is the other way round. So a bare word that one of them takes for a text is a text; or, in the
    second reading, whatever YAML 1.2 takes for a number is one.
    """
    _check_size(text)
    for resolve in (_text_if_in_doubt, _number_if_in_doubt):
        yield _mapping(_document(text, resolve))


def _check_size(text: str) -> None:
    if len(text) > MOST_BYTES_OF_RECORD:
        raise TextError(f"wanted at most {MOST_BYTES_OF_RECORD} characters, found {len(text)}")


def _mapping(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise TextError(f"wanted keys and values, found {kind(found)}")
    return found


def kind(value: object) -> str:
    """What a value is, in the words of messages."""
    match value:
        case dict():
            return "keys and values"
        case list():
            return "a list"
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
    return _cut(repr(value), 60)


def shown(path: KeyPath) -> str:
    """A path as people write it, `curve.train[3]`; a key that can't be printed is quoted."""
    steps = [
        f"[{step}]" if isinstance(step, int) else f".{step if step.isprintable() else repr(step)}"
        for step in path
    ]
    return _cut("".join(steps)[1:], 200)


def line_of(text: str, path: KeyPath) -> int | None:
    """The line of a key or item of a text that can be read, or of what is nearest above it."""
    node: Any = yaml.compose(text, Loader=_Loader)
    line = None
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            found = (node.value[step],) * 2 if step < len(node.value) else None
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


# the shape that we write


def _as_written(text: str) -> dict[str, Any]:
    """The keys and values of a text of our shape, by the column that each line starts at."""
    if not (text.endswith("\n") and _PRINTABLE.fullmatch(text)):
        raise _OtherShapeError
    root: dict[str, Any] = {}
    open_: list[tuple[int, Any]] = [(0, root)]  # what holds the line at hand, outermost first
    at, holder = 0, cast("Any", root)
    waiting = ""  # the key of the innermost that has no value yet
    for indent, rows, dash, key, value, item in _LINE.findall(text, 0, len(text) - 1):
        column = len(indent)
        in_list = not key or dash
        if waiting:
            if column != (at if in_list else at + 2) or len(open_) >= MOST_LEVELS:
                raise _OtherShapeError
            above, holder[waiting] = holder, [] if in_list else {}
            at, holder = column, above[waiting]
            open_.append((at, holder))
            waiting = ""
        while at > column or (at == column and not in_list and type(holder) is list):
            open_.pop()
            at, holder = open_[-1]
        if at != column or (type(holder) is list) != bool(in_list):
            raise _OtherShapeError
        if not key:
            if rows:
                holder += json.loads(f"[{rows}]".replace(f"\n{indent}- ", ","))
            elif item:
                holder.append(_value(item))
            else:
                raise _OtherShapeError
            continue
        if dash:
            holder.append({})
            at, holder = column + 2, holder[-1]
            open_.append((at, holder))
        name = key[1:-1] if key[0] == "'" else key
        if name in holder or (name is key and type(_resolved(key)) is not str):
            raise _OtherShapeError
        if value:
            holder[name] = _value(value)
        else:
            waiting = name
    if waiting:
        raise _OtherShapeError
    return root


def _value(written: str) -> Any:
    """The value behind a key or dash."""
    if _A_NUMBER.fullmatch(written):
        return float(written) if "." in written else int(written)
    if "\n" in written:
        written = _on_one_line(written)
    if written[0] == "[":
        return _items(written)
    if _QUOTED.fullmatch(written) or _PLAIN.fullmatch(written):
        return _scalar(written)
    if written == "{}":
        return {}
    raise _OtherShapeError


def _on_one_line(written: str) -> str:
    """A value that was broken between words."""
    first, *others = (line.strip(" ") for line in written.split("\n"))
    if not all(others):  # an empty line stands for a break of the text itself
        raise _OtherShapeError
    return " ".join([first, *others])


def _items(written: str) -> list[Any]:
    """The items of a list; most often ids of examples, which are nearly the same in all records."""
    if written[-1] == "]" and "'" not in written:
        return list(map(_plain_item, written[1:-1].split(", "))) if len(written) > 2 else []
    if not _ITEMS.fullmatch(written):
        raise _OtherShapeError
    return [_scalar(item) for item in _AN_ITEM.findall(written)]


@lru_cache(maxsize=8192)
def _plain_item(written: str) -> Any:
    """An unquoted item of a list."""
    if not _PLAIN_ITEM.fullmatch(written):
        raise _OtherShapeError
    return _resolved(written)


def _scalar(written: str) -> Any:
    if written[0] == "'":
        return written[1:-1].replace("''", "'")
    return _resolved(written)


@lru_cache(maxsize=8192)
def _resolved(plain: str) -> Any:
    """What an unquoted scalar is, as PyYAML says."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, plain, (True, False))
    if tag not in _SCALARS:
        raise TextError(
            f"wanted a text, a number, true, false or null, found {kind(plain)} without quotes"
        )
    try:
        if tag in _NUMBERS:
            check_digits(plain)
        found = _SCALARS[tag](SafeConstructor(), yaml.ScalarNode(tag, plain))
        if tag in _NUMBERS:
            check_float(found)
        return found
    except BoundError as error:
        raise TextError(str(error)) from None
    except ValueError:  # such as 0b_
        raise TextError(f"wanted a number, found {kind(plain)}") from None


def _text_if_in_doubt(plain: str) -> Scalar:
    """What an unquoted scalar is in YAML 1.1 and 1.2 alike; else a text."""
    if plain in _WORDS:
        return _WORDS[plain]
    if _AN_INT.fullmatch(plain):
        return _number(int, plain)
    return _number(float, plain) if _A_FLOAT.fullmatch(plain) else plain


def _number_if_in_doubt(plain: str) -> Scalar:
    """What an unquoted scalar is in YAML 1.2."""
    if plain in _WORDS:
        return _WORDS[plain]
    if _AN_INT_OF_1_2.fullmatch(plain):
        return _number(int, plain)
    return _number(float, plain) if _A_FLOAT_OF_1_2.fullmatch(plain) else plain


def is_number_elsewhere(plain: str) -> bool:
    """Whether YAML 1.2 takes this for a number where it is not quoted."""
    return bool(_AN_INT_OF_1_2.fullmatch(plain) or _A_FLOAT_OF_1_2.fullmatch(plain))


def _number(of: type[int] | type[float], plain: str) -> int | float:
    try:
        check_digits(plain)
    except BoundError as error:
        raise TextError(str(error)) from None
    return of(plain)


# any other shape


def _document(text: str, resolve: Callable[[str], Any]) -> Any:
    """The one document of a text; `resolve` says what an unquoted scalar is."""
    try:
        events = yaml.parse(text, Loader=_Loader)
        next(events)  # the start of the stream
        if isinstance(next(events), yaml.StreamEndEvent):
            return None
        found = _node(next(events), _bounded(events), (), resolve)
        next(events)  # the end of the document
        if not isinstance(event := next(events), yaml.StreamEndEvent):
            raise TextError("wanted one document, found a second one", _line(event))
        return found
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise TextError(why, mark.line + 1 if mark else None) from None


def _bounded(events: Iterator[Any]) -> Iterator[Any]:
    """The events, as long as they are not more than a record has values."""
    for number, event in enumerate(events):
        if number > MOST_VALUES:
            raise TextError(f"wanted at most {MOST_VALUES} values, found more", _line(event))
        yield event


def _node(event: Any, events: Iterator[Any], path: KeyPath, resolve: Callable[[str], Any]) -> Any:
    """The value that starts with an event."""

    def error(why: str) -> TextError:
        return TextError(why, event.start_mark.line + 1, path)

    if event.anchor is not None:
        raise error("wanted no anchors and aliases (& and *), which no record has")
    if event.tag is not None:
        raise error(f"wanted no tags, which no record has, found {kind(event.tag)}")
    if isinstance(event, yaml.ScalarEvent):
        if not event.implicit[0]:
            return event.value
        try:
            return resolve(event.value)
        except TextError as mistake:
            raise error(mistake.why) from None
    if len(path) >= MOST_LEVELS:
        raise TextError(f"wanted at most {MOST_LEVELS} levels, found more", _line(event))
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(event, events, (*path, len(items)), resolve))
        return items
    mapping: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        if isinstance(event, yaml.CollectionStartEvent):  # nested ones would have no end
            key: Any = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        else:
            key = _node(event, events, path, resolve)
        if not isinstance(key, str):
            raise error(f"wanted a text as key, found {kind(key)}")
        if key in mapping:
            raise error(f"wanted each key once, found {kind(key)} twice")
        mapping[key] = _node(next(events), events, (*path, key), resolve)
    return mapping


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _line(event: Any) -> int:
    return cast("int", event.start_mark.line) + 1
