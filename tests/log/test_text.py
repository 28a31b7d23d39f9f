"""A record's text means what YAML says, whichever way it is read, within bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.core.bounds import MOST_BYTES_OF_RECORD, MOST_LEVELS
from pytest_ftloop.core.metrics import METRICS
from pytest_ftloop.core.records import SCHEMA_VERSION
from pytest_ftloop.log import text as text_module
from pytest_ftloop.log.record import iteration_of
from pytest_ftloop.log.text import TextError, read
from pytest_ftloop.log.writing import judgement_yaml, to_yaml
from tests.fakes import fake_example, fake_finding, fake_iteration, fake_metrics
from tests.log.records import HOSTILE, a_judgement, judgements, one

ROOT = Path(__file__).parents[2]

# What YAML takes for a number, a date, a truth value or nothing, and what breaks a list.
ODD = [
    "yes", "null", "~", "1", "1e3", "1.5", "0x1f", "0b1", "0o7", "017", "1_000", "12:30", "-.inf",
    "2024-01-01", ".5", "-a", "- a", "a b", "a, b", "a: b", "a #b", "[", "]", "{}", "&a", "*a",
    "é", "\x85", "\u2028", "", "=", "<<", "'", '"', "?", "|", "a ", "12345678", "1e345678", "a:",
]  # fmt: skip
ids = st.text(max_size=8) | st.sampled_from(ODD) | st.from_regex(r"[0-9a-f]{12}", fullmatch=True)
figures = st.floats() | st.integers(-3, 3).map(float) | st.floats(0, 1e-6)
tags = st.text(min_size=1, max_size=6) | st.sampled_from([odd for odd in ODD if odd])
names = st.sampled_from(list(METRICS)) | st.builds(
    "{}[{}]".format, st.sampled_from(list(METRICS)), tags
)
messages = ids | st.lists(ids | st.just("longer than others"), max_size=30).map(" ".join)
iterations = st.builds(
    lambda metrics, failing, messages, facts: fake_iteration(
        metrics=metrics,
        examples=[fake_example(id_, passed=False) for id_ in failing],
        findings=[fake_finding(message=message) for message in messages],
        facts=facts,
    ),
    st.dictionaries(names, figures, max_size=6),
    st.lists(ids, unique=True, max_size=40),
    st.lists(messages, max_size=3),
    st.dictionaries(tags, st.recursive(ids | figures | st.none() | st.booleans(), st.lists)),
)


def by_yaml(text: str) -> Any:
    """What the YAML library says, or its error; what no record may hold is one."""
    try:
        found = yaml.load(text, Loader=yaml.CSafeLoader)
        return found if is_plain(found) else TypeError()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        return error


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(is_plain, value.values()))
    return (
        all(map(is_plain, value))
        if isinstance(value, list)
        else isinstance(value, str | int | float | None)
    )


def refused(text: str) -> str:
    try:
        read(text)
    except TextError as error:
        return error.why
    return ""


def same(text: str) -> None:
    # As text: NaN is no equal of itself, and 1 is one of 1.0.
    assert repr(yaml.load(text, Loader=yaml.SafeLoader)) == repr(read(text))


@settings(deadline=None)
@given(iterations)
def test_record_reads_as_the_yaml_library_reads_it(iteration: Any) -> None:
    """Whatever ids, tags, figures, facts and messages there are."""
    same(to_yaml(iteration, "0" * 64))


@settings(deadline=None)
@given(judgements)
def test_judgement_reads_as_the_yaml_library_reads_it(judgement: Any) -> None:
    """Whatever plain values its figures are, nested as they may be."""
    same(judgement_yaml(judgement))


def committed() -> Iterator[Path]:
    yield from ROOT.glob("examples/*/improvement_log/*/*.yaml")
    yield from ROOT.glob("tests/log/logs/**/*.yaml")


@pytest.mark.parametrize("path", list(committed()), ids=lambda path: path.name)
def test_committed_record_reads_as_the_yaml_library_reads_it(path: Path) -> None:
    """Those of the quickstart and of older versions too."""
    same(path.read_text(encoding="utf-8"))


short = to_yaml(
    one(
        steps=(),
        evals=(),
        final={},
        base={},
        failing=("a", "it's", "7", "- b") * 9,
        findings=[fake_finding(message="It is this: 'that' is far too " * 6, evidence={"n": 3})],
    ),
    "0" * 64,
)
MARKS = [
    "'", '"', ": ", " #", "# x", "- ", "-", "[", "]", "{", "}", "[]", "{}", ", ", ",", "\n",
    "\n\n", "  ", " ", ":", "&a ", "*a", "!!str ", "<<", "? ", "|", ">", "%", "@", "`", "\t",
    "---", "...", "\\", "key:\n", "  key: 1\n", "- key: 1\n", "\x00", "\ufeff", *ODD,
]  # fmt: skip
places = st.integers(0, len(short))
edits = st.lists(
    st.tuples(st.sampled_from(["insert", "delete"]), places, st.sampled_from(MARKS))
    | st.tuples(st.sampled_from(["drop", "double", "indent", "outdent", "swap"]), places, st.none())
    | st.tuples(st.just("value"), places, st.sampled_from(MARKS)),
    min_size=1,
    max_size=3,
)


def edited(text: str, edits: list[Any]) -> str:
    """A text after edits as a hand, a merge or a damage makes them."""
    for what, place, mark in edits:
        if what in ("insert", "delete"):
            end = place + (len(mark) if what == "delete" else 0)
            text = text[:place] + ("" if what == "delete" else mark) + text[end:]
            continue
        lines = text.split("\n")
        at = text.count("\n", 0, place) % len(lines)
        line = lines[at]
        key, colon, _ = line.partition(": ")
        following = lines[at + 1] if at + 1 < len(lines) else ""
        changed = {
            "drop": [],
            "double": [line, line],
            "indent": [f"  {line}"],
            "outdent": [line[2:]],
            "swap": [following, line],
            "value": [f"{key}{colon}{mark}"],
        }[what]
        lines[at : at + (2 if what == "swap" else 1)] = changed
        text = "\n".join(lines)
    return text


@settings(deadline=None, max_examples=300)
@given(edits)
def test_edited_text_means_what_the_yaml_library_says(edits: Any) -> None:
    """Or it is refused: never is it read as something else."""
    text = edited(short, edits)
    wanted = by_yaml(text)
    try:
        found = read(text)
    except TextError:
        return
    assert repr(wanted) == repr(found)


@settings(deadline=None, max_examples=300)
@given(edits)
def test_edited_text_is_refused_for_a_reason(edits: Any) -> None:
    """What the YAML library reads is read, but for what no record has."""
    text = edited(short, edits)
    reasons = ("each key once", "no anchors", "no tags", "a text as key", "keys and values")
    why = refused(text)
    assert not why or isinstance(by_yaml(text), Exception) or any(r in why for r in reasons)


@pytest.fixture
def text() -> str:
    """A record with a long list of failing ids, over several lines."""
    rows = [fake_example(f"e{n:03}", passed=False) for n in range(60)]
    return to_yaml(fake_iteration(examples=rows, findings=[fake_finding()]), "0" * 64)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("schema: 3\n", "# by hand\nschema: 3\n"),
        ("schema: 3\n", "---\nschema: 3\n"),
        ("metrics:\n", "metrics: # by hand\n"),
        ("metrics:\n", "metrics:\n\n"),
        ("  eval_loss: 1.0\n", "  eval_loss: 1\n"),
        ("  eval_loss: 1.0\n", '  "eval_loss": 1.0\n'),
        ("  eval_loss: 1.0\n", "  eval_loss: 1.96\n"),
        ("failing: [e000, ", "failing: [\n  e000, 'it''s', 7, "),
        ("environment:\n", "'environment':\n"),
        ("cost:\n", "cost: {seconds: 1, steps: 2, tokens: 3}\nmore:\n"),
        ("model: tiny\n", "model: >\n  a long\n  name\n"),
        ("model: tiny\n", "model: two\n   \n  lines\n"),
        ("model: tiny\n", "model: 'two\n   \n  lines'\n"),
    ],
)
def test_text_edited_by_hand_means_the_same(text: str, old: str, new: str) -> None:
    """In whatever shape the user leaves it."""
    assert text.count(old) >= 1
    edited = text.replace(old, new, 1)
    assert edited != text
    same(edited)


def test_written_text_needs_no_yaml_parser(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The shape that we write is read without PyYAML's parser, which takes 4 to 8 times as long."""

    def parse(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(yaml, "parse", parse)
    wrapped = fake_finding(message="It is this: 'that' is far too long for a line. " * 6)
    quoted = [fake_example(id_, passed=False) for id_ in ("1", "a b", "1e3", "it's", "é", "x/y")]
    for written in (
        text,
        to_yaml(fake_iteration(findings=[wrapped], examples=quoted), "0" * 64),
        judgement_yaml(a_judgement()),
        *(path.read_text(encoding="utf-8") for path in committed()),
    ):
        assert SCHEMA_VERSION >= read(written)["schema"]


@pytest.mark.parametrize("loader", ["SafeLoader", "CSafeLoader"])
def test_text_is_read_without_the_c_library(loader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It means the same where PyYAML was built without libyaml."""
    monkeypatch.setattr(text_module, "_Loader", getattr(yaml, loader))
    written = to_yaml(one(findings=[fake_finding(message=HOSTILE)]), "0")
    same(written)
    same(written.replace("metrics:\n", "metrics: # by hand\n"))


@pytest.mark.parametrize("key", ["metrics", "failing", "findings", "facts", "cost", "base"])
def test_conflict_marker_is_an_error_at_its_line(text: str, key: str) -> None:
    """In whichever section git left it."""
    broken = text.replace(f"\n{key}:", f"\n<<<<<<< HEAD\n{key}:", 1)
    line = broken.split("\n").index("<<<<<<< HEAD") + 1
    with pytest.raises(TextError) as caught:
        read(broken)
    assert caught.value.line in {line, line + 1}  # where the library notices it


def test_cut_record_is_an_error(text: str) -> None:
    """Wherever it was cut."""
    for end in range(0, text.index("cost:"), 7):
        with pytest.raises(TextError):
            iteration_of(text[:end])


@pytest.mark.parametrize("opening", ["[", "{a: ", "[x, ", "- ", "? "])
def test_nesting_without_end(opening: str) -> None:
    """The YAML library's stack is not tried on it; the line says where."""
    text = f"schema: 3\nloop: {opening * 100_000}\n"
    with pytest.raises(TextError) as caught:
        read(text)
    assert 2 == caught.value.line
    assert caught.value.why in (
        f"wanted at most {MOST_LEVELS} levels, found more",
        "block sequence entries are not allowed in this context",
        "mapping keys are not allowed in this context",
    )


@pytest.mark.parametrize("depth", [MOST_LEVELS - 1, MOST_LEVELS])
@pytest.mark.parametrize("shape", ["block", "flow"])
def test_levels(depth: int, shape: str) -> None:
    """So many levels are read, in any shape, and not one more."""
    indents = range(0, 2 * depth, 2)
    block = "".join(f"{' ' * indent}a:\n" for indent in indents) + " " * 2 * depth + "a: 1\n"
    text = block if shape == "block" else f"a: {'{a: ' * depth}1{'}' * depth}\n"
    if depth < MOST_LEVELS:
        same(text)
    else:
        with pytest.raises(TextError, match=f"wanted at most {MOST_LEVELS} levels"):
            read(text)


def test_size_is_bounded() -> None:
    """A record longer than any that is written is refused before it is read."""
    with pytest.raises(TextError, match="wanted at most 16777216 characters, found 16777228"):
        read("schema: 3\n#" + " " * MOST_BYTES_OF_RECORD + "\n")


@pytest.mark.parametrize(
    "long",
    [
        "a: 'x" + " " * 100_000 + "\n  y'\n",
        "a: " + "x " * 100_000,
        "a: " + "x:y#" * 50_000 + "\n",
        "a: x\n" + "  x:y#z\n" * 50_000,
    ],
)
def test_hostile_text_takes_no_time(long: str) -> None:
    """No expression is tried at every place of a run of spaces: seconds would be hours."""
    assert 1 == len(read(long))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("? " * 20_000 + "1\n", "wanted a text as key, found a list"),
        ("{? {a: 1} : 2}\n", "wanted a text as key, found keys and values"),
        (f"a: {'9' * 301}\n", "a: wanted a number of at most 300 digits, found 301"),
        (f"a: [{'9' * 301}]\n", "a[0]: wanted a number of at most 300 digits, found 301"),
        (f"a: 0x{'f' * 257}\n", "a: wanted a number of at most 300 digits, found more"),
        (f"a: {'1:' * 100_000}1\n", "a: wanted a number of at most 300 digits, found 200001"),
        (f"a:\n- [1, {'9' * 301}]\n", "a[0][1]: wanted a number of at most 300 digits, found 301"),
        ("a: [" + "1," * 200_000 + "]\n", "wanted at most 200000 values, found more"),
    ],
)
def test_bounded(text: str, why: str) -> None:
    """Keys in keys, digits and values are bounded in each shape, and the key is told."""
    for written in (text, f"# not as we write it\n{text}"):
        with pytest.raises(TextError) as caught:
            read(written)
        assert caught.value.why in (why, why.replace("a list", "keys and values"))


def test_message_is_one_short_line() -> None:
    """Whatever a key holds: terminals and workflows read it."""
    key = "\\e[31m\\n::error::" + "x" * 1000
    with pytest.raises(TextError) as caught:
        read(f'"{key}": {{a: 2024-01-01}}\n')
    assert caught.value.why.isprintable()
    assert 320 > len(caught.value.why)


def test_figures_keep_every_digit() -> None:
    """They are not rounded on the way."""
    values = [0.1, -0.0, 1e-12, 123456.654321, math.inf]
    metrics = fake_metrics() | {f"pass_rate[{n}]": value for n, value in enumerate(values)}
    iteration, _ = iteration_of(to_yaml(fake_iteration(metrics=metrics), "0" * 64))
    assert [repr(v) for v in values] == [
        repr(iteration.metrics[f"pass_rate[{n}]"]) for n in range(5)
    ]
