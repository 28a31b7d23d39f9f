"""The hash in a record's name is over what the record says: a formatter changes nothing."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.core.errors import DamagedLogError
from pytest_ftloop.log import ImprovementLog, LogView
from pytest_ftloop.log.table import examples_csv, sha256_of
from pytest_ftloop.log.text import read
from pytest_ftloop.log.writing import (
    as_written,
    holdout_yaml,
    judgement_yaml,
    seed_run_yaml,
    tag_of,
    to_yaml,
)
from tests.fakes import fake_example, fake_finding
from tests.log.records import (
    HOSTILE,
    a_holdout_use,
    a_judgement,
    a_seed_run,
    holdout_uses,
    iterations,
    judgements,
    one,
    seed_runs,
)

records = (
    iterations.map(lambda kept: to_yaml(kept, "d" * 64))
    | seed_runs.map(lambda kept: seed_run_yaml(kept, "d" * 64))
    | holdout_uses.map(lambda kept: holdout_yaml(kept, "d" * 64))
    | judgements.map(judgement_yaml)
)
"""The text of any record of any kind."""


class Modern(yaml.SafeDumper):
    """Writes as a YAML 1.2 library: `1e-05` and `yes` are bare, and what is a number is not."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}


def _modern_float(dumper: Any, value: float) -> Any:
    inf = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}
    return dumper.represent_scalar("tag:yaml.org,2002:float", inf.get(repr(value), repr(value)))


_NUMBERS = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
_OTHERS = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
Modern.add_representer(float, _modern_float)
for tag, expression in (
    ("null", r"~|null|Null|NULL|"),
    ("bool", r"true|True|TRUE|false|False|FALSE"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    ("float", f"{_NUMBERS}|{_OTHERS}"),
    ("timestamp", r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*"),
):
    whole = re.compile(f"^(?:{expression})$")
    Modern.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", whole, None)


def dumped(text: str, dumper: Any = yaml.SafeDumper, **options: Any) -> str:
    return yaml.dump(read(text), Dumper=dumper, **options)


STYLES: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "sorted by PyYAML": dumped,
    "block style": lambda text: dumped(text, sort_keys=False, default_flow_style=False, indent=4),
    "flow style": lambda text: dumped(text, sort_keys=False, default_flow_style=True, width=40),
    "long lines": lambda text: dumped(text, sort_keys=False, width=10**6),
    "long lines, double quotes": lambda text: "".join(
        line.replace(": 'no'", ': "no"') for line in dumped(text, width=10**6).splitlines(True)
    ),
    "a document with its marks": lambda text: dumped(text, explicit_start=True, explicit_end=True),
    "YAML 1.2": lambda text: dumped(text, Modern, sort_keys=False),
    "JSON": lambda text: json.dumps(read(text), ensure_ascii=False),
    "no line break at the end": lambda text: text.rstrip("\n"),
    "line breaks at the end": lambda text: f"{text}\n\n",
    "a comment": lambda text: f"# formatted\n{text}",
}


@pytest.mark.parametrize("style", [style for style in STYLES if style != "JSON"])
@settings(deadline=None, max_examples=25)
@given(text=records)
def test_other_writer_changes_nothing(style: str, text: str) -> None:
    """Whatever a record holds, and whichever YAML writer has rewritten it."""
    assert text == as_written(STYLES[style](text), tag_of(text))


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values that hold no others."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list) and inner:
            yield from places(inner, (*above, key))
        else:
            yield (*above, key)


others = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([])


@settings(deadline=None, max_examples=150)
@given(records, st.data(), others, st.sampled_from(["block style", "YAML 1.2"]))
def test_changed_value_is_found(text: str, data: Any, other: Any, style: str) -> None:
    """Any value of any record, changed to any other."""
    said = read(text)
    path = data.draw(st.sampled_from(list(places(said))))
    changed = copy.deepcopy(said)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    before = holder[path[-1]]
    holder[path[-1]] = other
    edited = yaml.safe_dump(changed, sort_keys=False)
    if repr(read(edited)) != repr(said):
        assert repr(before) != repr(other)
        assert as_written(STYLES[style](edited), tag_of(text, 16)) is None


LONG = HOSTILE.replace("\0", "") * 3
"""Over several lines of YAML. ruamel.yaml puts a space behind a NUL where it breaks a line."""


def all_kinds(folder: Path) -> ImprovementLog:
    """A log with a record of each kind, all of whose values are awkward."""
    rows = [fake_example("a", output=HOSTILE, expected="x\r\ny "), fake_example("b", output="b ")]
    log = ImprovementLog(folder)
    odd = {"no": "yes", "1e5": "1e-05", "date": "2024-01-01", "b": "0x1f", "c": "1:30", "d": "~"}
    log.append(
        one(
            id="12345e67",
            fingerprint="12345e67" + "0" * 56,
            training={"learning_rate": 1e-05, "report_to": []},
            environment=odd,
            findings=[fake_finding(message=LONG, evidence={"z": 1.0, "a": 2, "m": "yes"})],
            failing=("1e5", "no", "007", "it's"),
            examples=rows,
        )
    )
    log.append_seed_run(a_seed_run(environment=odd, examples=rows))
    log.append_judgement(a_judgement(because=HOSTILE.replace("\ud83d", "")))
    log.append_holdout_use(a_holdout_use(environment=odd))
    return log


def everything(view: LogView) -> Any:
    kept = (view.iterations(), view.seed_runs(), view.judgements(), view.holdout_uses())
    return repr(
        [(record, list(getattr(record, "examples", ()))) for kind in kept for record in kind]
    )


def ruamel(text: str, **options: Any) -> str:
    ruamel_yaml = pytest.importorskip("ruamel.yaml")
    writer = ruamel_yaml.YAML(**options)
    out = io.StringIO()
    writer.dump(writer.load(text), out)
    return out.getvalue()


FILES = STYLES | {
    "ruamel.yaml, round trip": ruamel,
    "ruamel.yaml, plain": lambda text: ruamel(text, typ="safe", pure=True),
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "a byte order mark": lambda text: f"\ufeff{text}",
}


@pytest.mark.parametrize("style", [style for style in FILES if style != "JSON"])
def test_formatted_log(tmp_path: Path, style: str) -> None:
    """Every kind of record, in files that a formatter has rewritten."""
    log = all_kinds(tmp_path)
    before = everything(log.view)
    for path in tmp_path.rglob("*.yaml"):
        path.write_bytes(FILES[style](path.read_text(encoding="utf-8")).encode())
    assert before == everything(ImprovementLog(tmp_path).view)


def test_record_as_json() -> None:
    """JSON is YAML, too."""
    text = to_yaml(one(training={"learning_rate": 1e-05}), "0" * 64)
    assert text == as_written(STYLES["JSON"](text), tag_of(text))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.rstrip("\n"),
        lambda text: f"{text}\n",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: f"\ufeff{text}",
        lambda text: "\n".join(line.rstrip() for line in text.split("\n")),
        lambda text: text.replace("id,content", '"id","content"').replace("\nb,", '\n"b",'),
    ],
    ids=["no last break", "another", "CRLF", "byte order mark", "no space at the end", "quotes"],
)
def test_formatted_table(tmp_path: Path, change: Callable[[str], str]) -> None:
    """A table whose line ends, quotes or spaces at the end of a line were changed, but no cell."""
    log = all_kinds(tmp_path)
    before = everything(log.view)
    for path in tmp_path.rglob("*.csv"):
        path.write_bytes(change(path.read_text(encoding="utf-8")).encode())
    assert before == everything(ImprovementLog(tmp_path).view)


@pytest.mark.parametrize("kind", ["iterations", "seed_runs", "judgements", "holdout_uses"])
@pytest.mark.parametrize("style", ["as it is", "block style"])
def test_edited_record_is_named(tmp_path: Path, kind: str, style: str) -> None:
    """A record of any kind with another value is refused by its name, formatted or not."""
    all_kinds(tmp_path)
    where = {"iterations": "001-*", "seed_runs": "seeds/*", "judgements": "verdicts/*"}
    (path,) = tmp_path.glob(f"{where.get(kind, 'holdout/*')}.yaml")
    text = path.read_text(encoding="utf-8")
    path.write_text(STYLES[style](text.replace("loop: sentiment", "loop: sentimenT")))
    with pytest.raises(DamagedLogError, match="it is not what was written") as caught:
        getattr(ImprovementLog(tmp_path).view, kind)()
    assert path == Path(caught.value.where.file)


def test_name_without_a_hash(tmp_path: Path) -> None:
    """Only schema 1 had none: a name cut short is no way round the hash."""
    log = ImprovementLog(tmp_path)
    record, table = log.files(log.append(one()))
    record.rename(tmp_path / "001-00000001.yaml")
    table.rename(tmp_path / "001-00000001.examples.csv")
    with pytest.raises(DamagedLogError, match="its name lacks the hash"):
        ImprovementLog(tmp_path).read()


def test_table_of_other_rows(tmp_path: Path) -> None:
    """The record says how many rows its table has."""
    text = to_yaml(one(), "0" * 64)
    rows = examples_csv([fake_example("a")])
    text = text.replace("0" * 64, sha256_of(rows))
    stem = f"001-00000001-{tag_of(text)}"
    (tmp_path / f"{stem}.yaml").write_text(text)
    (tmp_path / f"{stem}.examples.csv").write_text(rows)
    (read_,) = ImprovementLog(tmp_path).read()
    with pytest.raises(DamagedLogError, match="its record says that it has 2 rows, found 1"):
        len(read_.examples)
