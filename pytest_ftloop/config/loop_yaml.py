"""Read a loop file: its keys and values, and the line of each key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_ftloop.core.errors import ConfigError, Location, did_you_mean

SUFFIXES = (".ftloop.yaml", ".ftloop.yml")


def read_yaml(path: Path, shown: str) -> tuple[Any, dict[str, int]]:
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
        return unwrapped(tree), {"": 1, **dict(_lines(tree, ""))}
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


def unwrapped(node: Any) -> Any:
    """Plain Python values in place of the YAML library's own types."""
    if isinstance(node, dict):
        return {str(key): unwrapped(value) for key, value in node.items()}
    if isinstance(node, list | set):
        return [unwrapped(value) for value in node]
    if type(node).__name__ == "ScalarBoolean":  # an anchored one; a subclass of int
        return bool(node)
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    if node is not None:
        raise ValueError(f"a value with a tag is not read: {node}")
    return node


def files_in(folder: Path) -> list[Path]:
    """The loop files in a folder itself."""
    return sorted(p for p in folder.iterdir() if p.name.endswith(SUFFIXES) and p.is_file())
