"""Damaged and hostile versions of a file: every wrong value of every key, torn texts, bombs.

    for mutant in mutants("x.yaml", content): ...      every one, in a fixed order

What a mutant is comes from the file's name (`.yaml`, `.json`, `.jsonl`, `.csv`, or any other text),
its content and the seed alone. `sealed` gives a log whose files were mutated the hashes that fit,
as whoever writes a log by hand can.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from tests.torture.wrong_values import OF_CELLS, OF_JSON, OF_YAML

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"

PLACE = "MUTANTPLACE"
"""The text in a dump that is replaced by that of a value."""


@dataclass(frozen=True)
class Mutant:
    """One damaged version of a file, and what was done to it. `made` is it, or gives it."""

    name: str
    made: bytes | Callable[[], bytes] = field(repr=False)

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return self.made() if callable(self.made) else self.made


def mutants(name: str, content: bytes, seed: int = 0) -> list[Mutant]:
    """Every version; `seed` chooses the places at which a text is torn."""
    made = {".yaml": of_yaml, ".yml": of_yaml, ".json": of_json, ".jsonl": of_jsonl, ".csv": of_csv}
    suffix = name[name.rfind(".") :] if "." in name else ""
    of_kind = made.get(suffix)
    own = list(of_kind(content)) if of_kind else []
    return [*own, *torn(content, random.Random(f"{seed} {name}")), *bombs(suffix)]


# one key


def of_yaml(content: bytes) -> Iterator[Mutant]:
    """A YAML file with one key dropped, stated twice, renamed, or with a wrong value."""
    yield from _of_values(yaml.safe_load(content), dumped, OF_YAML)


def of_json(content: bytes) -> Iterator[Mutant]:
    """The same of a JSON file."""
    yield from _of_values(json.loads(content), _as_json, OF_JSON)


def of_jsonl(content: bytes) -> Iterator[Mutant]:
    """The same of each of the first rows of a JSONL file, which other lines follow."""
    lines = content.decode().splitlines(keepends=True)
    for number, line in enumerate(lines[:3]):
        for mutant in of_json(line.encode()):
            text = "".join([*lines[:number], mutant.content.decode() + "\n", *lines[number + 1 :]])
            yield Mutant(f"line {number + 1}: {mutant.name}", _bytes(text))


def of_csv(content: bytes) -> Iterator[Mutant]:
    """A table with a cell or a column of one of its first rows wrong, missing or added."""
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))

    def made(name: str, number: int, row: Sequence[str]) -> Mutant:
        return Mutant(name, _as_csv([*rows[:number], list(row), *rows[number + 1 :]]))

    for number, row in enumerate(rows[:3]):
        for at, _ in enumerate(row):
            place = f"row {number} cell {rows[0][at] if at < len(rows[0]) else at}"
            yield made(f"{place} dropped", number, [*row[:at], *row[at + 1 :]])
            yield made(f"{place} twice", number, [*row[: at + 1], *row[at:]])
            for kind, value in OF_CELLS.items():
                yield made(f"{place} = {kind}", number, [*row[:at], value, *row[at + 1 :]])
        yield made(f"row {number} reversed", number, row[::-1])


def dumped(value: Any) -> str:
    """Values as YAML in the style of a record: short lists on one line."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_BaseDumper):
    def ignore_aliases(self, _: Any) -> bool:
        return True


def _represent_list(dumper: Any, data: list[Any]) -> Any:
    flow = all(not isinstance(item, dict | list) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_Dumper.add_representer(list, _represent_list)


def _as_json(value: Any) -> str:
    return json.dumps(value)


def _as_csv(rows: Sequence[Sequence[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


KeyPath = tuple["str | int", ...]


def _of_values(values: Any, dump: Callable[[Any], str], wrong: dict[str, str]) -> Iterator[Mutant]:
    @cache  # a record takes 10 ms to dump, and each place has forty mutants
    def around(path: KeyPath) -> list[str]:
        text = dump(_with(values, path, PLACE)) if path else PLACE
        return re.split(f"[\"']?{PLACE}[\"']?", text)

    @cache
    def beside(path: KeyPath) -> str:
        return dump(_and(values, path, PLACE))

    for path in _paths(values):
        where = ".".join(map(str, path)) or "all"
        for kind, value in wrong.items():
            yield Mutant(
                f"{where} = {kind}",
                lambda path=path, value=value: _bytes(value.join(around(path))),
            )
        if not path:
            continue
        yield Mutant(f"{where} dropped", lambda path=path: _bytes(dump(_with(values, path))))
        if isinstance(path[-1], str):
            for name, key in {"twice": path[-1], **_KEYS}.items():
                yield Mutant(
                    f"{where} {name}",
                    lambda path=path, key=key: _bytes(beside(path).replace(PLACE, key)),
                )


_KEYS = {
    "and <<": "<<",
    "and a number as key": "1",
    "and a list as key": "? [a]\n",
    "and a long key": "k" * 2000,
}
"""One more key beside another, by what is done."""


def _paths(value: Any, above: KeyPath = ()) -> Iterator[KeyPath]:
    """The places in values; of a list the first, the second and the last item."""
    yield above
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*above, key))
    elif isinstance(value, list):
        for at in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            yield from _paths(value[at], (*above, at))


_GONE = object()


def _with(values: Any, path: KeyPath, value: Any = _GONE) -> Any:
    """Values with another one at a place; without that place if none is given."""
    step, *rest = path
    if isinstance(values, dict):
        inside = dict(values)
        if rest or value is not _GONE:
            inside[step] = _with(values[step], tuple(rest), value) if rest else value
        else:
            del inside[step]
        return inside
    inner = list(values)
    if rest or value is not _GONE:
        inner[int(step)] = _with(values[int(step)], tuple(rest), value) if rest else value
    else:
        del inner[int(step)]
    return inner


def _and(values: Any, path: KeyPath, key: str) -> Any:
    """Values with one more key beside that at the end of a path, and the same value."""
    *above, last = path
    holder = values
    for step in above:
        holder = holder[step]
    more = {**holder, key: holder[last]}
    return _with(values, tuple(above), more) if above else more


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# the text


def torn(content: bytes, at: random.Random) -> Iterator[Mutant]:
    """A text that is cut, spliced, in another encoding, or that git left half-merged."""
    lines = content.splitlines(keepends=True)
    yield Mutant("empty", b"")
    yield Mutant("a blank line", b"\n")
    yield Mutant("a pointer of Git LFS", POINTER)
    yield Mutant("a mark before it", b"\xef\xbb\xbf" + content)
    yield Mutant("UTF-16", content.decode().encode("utf-16"))
    yield Mutant("CRLF", content.replace(b"\n", b"\r\n"))
    yield Mutant("CR", content.replace(b"\n", b"\r"))
    yield Mutant("twice", content + content)
    yield Mutant("no line end", content.rstrip(b"\n"))
    yield Mutant("all NUL", b"\0" * len(content))
    yield Mutant("NUL after it", content + b"\0" * 100)
    for place in _places(len(content), at, 30):
        yield Mutant(f"cut at byte {place}", content[:place])
        yield Mutant(f"begins at byte {place}", content[place:])
        for name, put in _PUT.items():
            changed = content[:place] + put + content[place + 1 :]
            yield Mutant(f"{name} at byte {place}", changed)
    for place in _places(len(lines), at, 20):
        head, line, tail = lines[:place], lines[place : place + 1], lines[place + 1 :]
        ours = [b"<<<<<<< HEAD\n", *line, b"=======\n", *line, b">>>>>>> other\n"]
        for name, changed in (
            ("conflict", [*head, *ours, *tail]),
            ("dropped", [*head, *tail]),
            ("twice", [*head, *line, *line, *tail]),
            ("indented", [*head, *(b" " + each for each in line), *tail]),
            ("with a tab", [*head, *(b"\t" + each for each in line), *tail]),
            ("a document mark before", [*head, b"---\n", *line, *tail]),
        ):
            yield Mutant(f"line {place + 1} {name}", b"".join(changed))


_PUT = {
    "NUL": b"\0",
    "no UTF-8": b"\xff",
    "a surrogate": b"\xed\xa0\x80",
    "a quote": b"'",
    "a double quote": b'"',
    "a bracket": b"[",
    "a brace": b"}",
    "a colon": b": ",
    "a hash": b" #",
    "a line end": b"\n",
    "a line separator": "\u2028".encode(),
    "an escape": b"\x1b[2J",
    "a digit": b"7",
}


def _places(length: int, at: random.Random, most: int) -> list[int]:
    every = range(1, length)
    return sorted(at.sample(every, most)) if len(every) > most else list(every)


# bombs


def bombs(suffix: str) -> Iterator[Mutant]:
    """Small texts that take a reader long or much memory, and large ones."""
    if suffix in (".yaml", ".yml"):
        yield from _bombs_of_yaml()
    elif suffix in (".json", ".jsonl"):
        nested = {f"{n} {b[0]}": (b[0] * n + b[1] * n) for n in (1000, 100_000) for b in ("[]",)}
        objects = '{"a":' * 50_000 + "1" + "}" * 50_000
        for name, text in {**nested, "objects": objects, "digits": "9" * 1_000_000}.items():
            yield Mutant(f"bomb: {name}", text.encode())
            yield Mutant(f"bomb in a key: {name}", f'{{"log_history": {text}}}'.encode())


def _bombs_of_yaml() -> Iterator[Mutant]:
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    merges = ["a0: &a0 {k: 1}"]
    merges += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    blocks = "".join(f"{' ' * n}k:\n" for n in range(1500))
    for name, text in {
        "aliases": "\n".join(laughs),
        "merge keys": "\n".join(merges),
        "anchor twice": "a: &x 1\nb: &x 2\nc: *x\n",
        "itself": "a: &x {b: *x}\n",
        "merge of itself": "a: &x {<<: *x}\n",
        "brackets": "a: " + "[" * 100_000,
        "closed brackets": "a: " + "[" * 3000 + "]" * 3000,
        "braces": "a: " + "{a: " * 20_000,
        "blocks": blocks,
        "dashes": "- " * 20_000 + "1\n",
        "questions": "? " * 20_000 + "1\n",
        "digits": f"a: {'9' * 1_000_000}\n",
        "digits with underscores": f"a: {'1_' * 500_000}1\n",
        "sexagesimal": f"a: {'1:' * 100_000}1\n",
        "float": f"a: 0.{'1' * 1_000_000}\n",
        "exponent": "a: 1.0e+999999999\n",
        "hexadecimal": f"a: 0x{'f' * 1_000_000}\n",
        "scalar": f"a: {'x' * 3_000_000}\n",
        "quoted": f"a: '{'x' * 3_000_000}'\n",
        "words": f"a: {'x ' * 500_000}\n",
        "key": f"{'k' * 100_000}: 1\n",
        "keys": "".join(f"k{n}: 1\n" for n in range(50_000)),
        "anchors": "".join(f"k{n}: &a{n} 1\n" for n in range(20_000)),
        "documents": "---\na: 1\n" * 20_000,
        "comments": "# x\n" * 500_000,
        "spaces": "a:" + " " * 2_000_000 + "1\n",
        "lines": "\n" * 1_000_000,
        "directive": "%YAML 9.9\n---\na: 1\n",
        "tag directive": "%TAG ! tag:yaml.org,2002:python/\n---\na: !none 1\n",
    }.items():
        yield Mutant(f"bomb: {name}", text.encode())


# hashes that fit


def sealed(log: Path) -> None:
    """Give a loop's log the hashes that its mutated files need, where they can be read at all."""
    for record in sorted(log.rglob("*.yaml")):
        if not (match := re.fullmatch(r"(.*)-([0-9a-f]{4}|[0-9a-f]{8})", record.stem)):
            continue
        text = record.read_bytes()
        tables = sorted(record.parent.glob(f"{record.stem}.*examples.csv"))
        for table in tables[: len(tables) == 1]:  # of several, none is the one of `examples`
            said = rb"(?m)^(examples:\n  rows: .*\n  sha256: )[0-9a-f]{64}$"
            digest = hashlib.sha256(table.read_bytes()).hexdigest().encode()
            text = re.sub(said, rb"\g<1>" + digest, text)
        stem = f"{match[1]}-{hashlib.sha256(text).hexdigest()[: len(match[2])]}"
        record.unlink()
        record.with_name(f"{stem}.yaml").write_bytes(text)
        for table in tables:
            table.rename(table.with_name(table.name.replace(record.stem, stem)))
