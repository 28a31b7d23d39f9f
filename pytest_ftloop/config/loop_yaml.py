"""Reading the YAML of a loop file: its values, and the line of each key.

The version is YAML 1.2, in which `2e-4` is a number and `no` a text. `loop_config` checks what is
read here, `edit` changes the text; both read it with the functions of this module.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.bounds import (
    MOST_BYTES_OF_LOOP_FILE,
    BoundError,
    check_digits,
    check_float,
    read_bytes,
    size_text,
)
from pytest_ftloop.core.errors import ConfigError, Location, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = (".ftloop.yaml", ".ftloop.yml")
"""How the name of a loop file ends."""

_TAG = "tag:yaml.org,2002:"
"""What the tags of YAML's own types begin with."""
MERGE = f"{_TAG}merge"
"""The tag of the key `<<`, which brings in the keys of another mapping."""

_CURES = {
    "duplicate key": "Keep one of the two.",
    "'\\t'": "YAML indents with spaces, not tabs.",
    "another document": "Remove the line with ---: a loop file holds one loop.",
    "end of stream": "A quote is not closed.",
    "<stream end>": "A bracket is not closed.",
    "but got '['": 'Within braces, quote a key with brackets: "pass_rate[short]": ">= 0.9".',
    "expected ','": "A comma or a closing bracket is missing before it.",
    "chomping": 'Quote conditions that begin with >, as in pass_rate: ">= 0.9".',
}
"""The cure for a mistake, by a part of the YAML library's message."""


def files_in(folder: Path) -> list[Path]:
    """The loop files in a folder itself."""
    return sorted(p for p in folder.iterdir() if p.name.endswith(SUFFIXES) and p.is_file())


def read(path: Path, shown: str) -> tuple[Any, dict[str, int]]:
    """The values of a loop file and the line of each dotted key, as `parse` returns them.

    `shown` is the path as errors show it. Raises `ConfigError` for a file that is missing, not
    UTF-8 or not YAML.
    """
    try:
        text = read_bytes(path, MOST_BYTES_OF_LOOP_FILE).decode("utf-8")
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
    return parse(text, shown)


def parse(text: str, shown: str) -> tuple[Any, dict[str, int]]:
    """The values of a loop file's text, and the line of each dotted key (`""`: the first line).

    Values are those that JSON has; keys are text, and dates stay text. What a merge key (`<<`)
    brings in has no line of its own. Raises `ConfigError` where the text is not YAML.
    """
    if text not in _PARSED:
        parsed = _parsed(text, shown)
        if len(text) > _LARGEST_KEPT:
            return parsed
        while len(_PARSED) >= _MOST_KEPT:
            del _PARSED[next(iter(_PARSED))]
        _PARSED[text] = parsed
    return copy.deepcopy(_PARSED[text])


_PARSED: dict[str, tuple[Any, dict[str, int]]] = {}
"""What texts without a mistake hold. Judging a loop reads its file here and at its baseline."""

_MOST_KEPT, _LARGEST_KEPT = 128, 65_536
"""Texts kept, and the characters up to which one is."""


def _parsed(text: str, shown: str) -> tuple[Any, dict[str, int]]:
    root = compose(text, shown)
    lines = {"": 1}
    with _mistakes(shown):
        if root is None:
            return None, lines
        lines.update(_lines(root, "", shown))  # before the values: merging them changes the nodes
        return _with_text_keys(_yaml(shown).constructor.construct_document(root)), lines


def compose(text: str, shown: str) -> Any:
    """The text as the YAML library's nodes, which know their place in it; None where it is empty.

    The place of an alias (`*name`) is that of what it repeats.
    """
    if len(text) > MOST_BYTES_OF_LOOP_FILE:
        why = f"it is larger than {size_text(MOST_BYTES_OF_LOOP_FILE)}"
        raise ConfigError(why, where=Location(shown))
    from ruamel.yaml.reader import ReaderError

    with _mistakes(shown):
        try:
            return _yaml(shown).compose(text)
        except ReaderError as error:  # it alone has no line
            why = str(error).splitlines()[0]
            where = Location(shown, text.count("\n", 0, error.position) + 1)
            raise ConfigError(f"not YAML: {why}", where=where) from None


def _yaml(shown: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import SafeConstructor

    from pytest_ftloop.config.loop_nodes import bounded_composer

    class Constructor(SafeConstructor):
        """Constructs what JSON can express; refuses other tags, such as `!!binary`."""

    def with_digits(construct: Any) -> Any:
        def number(self: Constructor, node: Any) -> Any:
            try:
                check_digits(node.value)
                check_float(found := construct(self, node))
            except BoundError as error:
                where = Location(shown, node.start_mark.line + 1)
                raise ConfigError(str(error), where=where) from None
            return found

        return number

    def refuse(_: Constructor, node: Any) -> None:
        raise ConfigError(
            f"a value with a tag is not read: {node.tag.replace(_TAG, '!!')}",
            where=Location(shown, node.start_mark.line + 1),
            cure="Write text, a number, true or false, a list, or keys with values.",
        )

    plain = ("null", "bool", "int", "float", "str", "seq", "map")
    constructors = {
        f"{_TAG}{name}": SafeConstructor.yaml_constructors[f"{_TAG}{name}"] for name in plain
    }
    constructors[f"{_TAG}timestamp"] = SafeConstructor.construct_scalar
    for name in ("int", "float"):
        constructors[f"{_TAG}{name}"] = with_digits(constructors[f"{_TAG}{name}"])
    Constructor.yaml_constructors = {**constructors, None: refuse}
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Constructor
    yaml.Composer = bounded_composer(shown)
    return yaml


@contextmanager
def _mistakes(shown: str) -> Iterator[None]:
    """Whatever the YAML library raises is a `ConfigError` with the line, where that is known."""
    from ruamel.yaml.error import MarkedYAMLError

    try:
        yield
    except ConfigError:
        raise
    except MarkedYAMLError as error:
        problem = " ".join((error.problem or str(error)).split())
        cure = next((cure for sign, cure in _CURES.items() if sign in problem), "")
        marks = [error.problem_mark, error.context_mark]
        if "closed" in cure:  # the line where it was opened, not where the file ends
            marks.reverse()
        mark = marks[0] or marks[1]
        raise ConfigError(
            f"not YAML: {problem}",
            where=Location(shown, mark.line + 1 if mark else 1),
            cure=cure,
        ) from None
    except RecursionError:
        raise ConfigError(
            "not YAML: a value contains itself, or is nested too deeply", where=Location(shown, 1)
        ) from None
    except Exception as error:  # noqa: BLE001 - the YAML library raises many kinds
        reason = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(f"not YAML: {reason[0]}", where=Location(shown, 1)) from None


def _lines(node: Any, prefix: str, shown: str) -> Iterator[tuple[str, int]]:
    if node.id == "mapping":
        for key, value in node.value:
            if key.id != "scalar":
                raise ConfigError(
                    f"wanted text as a key, found a {key.id}",
                    where=Location(shown, key.start_mark.line + 1),
                )
            if key.tag != MERGE:
                dotted = f"{prefix}{key.value}"
                yield dotted, key.start_mark.line + 1
                yield from _lines(value, f"{dotted}.", shown)
    elif node.id == "sequence":
        for number, value in enumerate(node.value):
            yield from _lines(value, f"{prefix}{number}.", shown)


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _with_text_keys(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_text_keys(inner) for inner in value]
    return value
