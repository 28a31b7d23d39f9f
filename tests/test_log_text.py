"""Records are read quickly, section by section: it says what the YAML library says of the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.metrics import METRICS
from pytest_ftloop.log import from_record, to_yaml
from pytest_ftloop.log.record import parse
from tests.fakes import fake_example, fake_finding, fake_iteration, fake_metrics

# What YAML takes for a number, a date, a truth value or nothing, and what breaks a list.
ODD = [
    "yes", "null", "~", "1", "1e3", "1.5", "0x1f", "0b1", "1_000", "12:30", "2024-01-01", ".5",
    "-a", "a b", "a, b", "a: b", "a #b", "[", "]", "é", "\x85", "\u2028", "", "=", "<<", "'", '"',
]  # fmt: skip
ids = st.text(max_size=8) | st.sampled_from(ODD) | st.from_regex(r"[0-9a-f]{12}", fullmatch=True)
figures = st.floats() | st.integers(-3, 3).map(float) | st.floats(0, 1e-6)
tags = st.text(min_size=1, max_size=6) | st.sampled_from([odd for odd in ODD if odd])
names = st.sampled_from(list(METRICS)) | st.builds(
    "{}[{}]".format, st.sampled_from(list(METRICS)), tags
)
iterations = st.builds(
    lambda metrics, failing, messages: fake_iteration(
        metrics=metrics,
        examples=[fake_example(id_, passed=False) for id_ in failing],
        findings=[fake_finding(message=message) for message in messages],
    ),
    st.dictionaries(names, figures, max_size=6),
    st.lists(ids, unique=True, max_size=40),
    st.lists(ids, max_size=3),
)


def plain(value: Any) -> Any:
    """Plain containers in place of those that are parsed when they are looked at."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def whole(text: str) -> Any:
    return yaml.load(text, Loader=yaml.SafeLoader)


def same(text: str) -> None:
    found, wanted = plain(parse(text, lambda: "x.yaml")), whole(text)
    # As text: NaN is no equal of itself, and 1 is one of 1.0.
    assert repr(sorted(wanted.items())) == repr(sorted(found.items()))


@settings(deadline=None)
@given(iterations)
def test_record_reads_as_the_yaml_library_reads_it(iteration: Any) -> None:
    """Whatever ids, tags, figures and messages there are."""
    same(to_yaml(iteration, "0" * 64))


def test_committed_records_read_as_the_yaml_library_reads_them() -> None:
    """Those of the quickstart and of older versions too."""
    root = Path(__file__).parents[1]
    records = [
        *root.glob("examples/*/improvement_log/*/*.yaml"),
        *root.glob("tests/logs/**/*.yaml"),
    ]
    assert records
    for record in records:
        same(record.read_text(encoding="utf-8"))


@pytest.fixture
def text() -> str:
    """A record with a long list of failing ids, over several lines."""
    rows = [fake_example(f"e{n:03}", passed=False) for n in range(60)]
    return to_yaml(fake_iteration(examples=rows, findings=[fake_finding()]), "0" * 64)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("schema: 2\n", "# by hand\nschema: 2\n"),
        ("metrics:\n", "metrics: # by hand\n"),
        ("metrics:\n", "metrics:\n\n"),
        ("  eval_loss: 1.0\n", "  eval_loss: 1\n"),
        ("  eval_loss: 1.0\n", '  "eval_loss": 1.0\n'),
        ("failing: [e000, ", "failing: [\n  e000, 'it''s', 7, "),
        ("model: tiny\n", "model: &m tiny\n"),
        ("loop: sentiment\n", "loop: sentiment\nLoop: &a [1]\nmore: *a\n"),
        ("environment:\n", "'environment':\n"),
        ("cost:\n", "cost: {seconds: 1, steps: 2, tokens: 3}\nmore:\n"),
    ],
)
def test_record_edited_by_hand_reads_the_same(text: str, old: str, new: str) -> None:
    """What has another shape than the tool writes is left to the YAML library."""
    assert text.count(old) >= 1
    edited = text.replace(old, new, 1)
    assert edited != text
    same(edited)


def test_key_stated_twice_is_read_as_yaml_reads_it(text: str) -> None:
    """The last one counts, wherever the two are."""
    same(text + "metrics:\n  eval_loss: 9.0\n")


@pytest.mark.parametrize("key", ["metrics", "failing", "findings", "facts", "cost", "base"])
def test_conflict_marker_is_told_with_its_line(text: str, key: str) -> None:
    """In whichever section git left it."""
    broken = text.replace(f"\n{key}:", f"\n<<<<<<< HEAD\n{key}:", 1)
    line = broken.split("\n").index("<<<<<<< HEAD") + 1
    with pytest.raises(LogError, match=r"x\.yaml:") as caught:
        parse(broken, lambda: "x.yaml")
    assert caught.value.where is not None
    assert caught.value.where.line in {line, line + 1}  # where the library notices it


def test_cut_record_is_an_error_at_once(text: str) -> None:
    """Wherever it was cut: what was not looked at must not hide it."""
    for end in range(0, text.index("cost:"), 7):
        with pytest.raises((LogError, KeyError, TypeError, ValueError, AttributeError)):
            from_record(parse(text[:end], lambda: "x.yaml"))


def test_findings_that_are_none_are_told_when_looked_at(text: str) -> None:
    """With the record's name."""
    broken = text.replace("- kind: underfit\n", "- sort: underfit\n")
    iteration, _ = from_record(parse(broken, lambda: "x.yaml"))
    assert 60 == len(iteration.failing)
    with pytest.raises(LogError, match=r"x\.yaml: damaged log file: TypeError"):
        len(iteration.findings)


def test_figures_keep_every_digit() -> None:
    """The quick way to read them rounds nothing."""
    values = [0.1, -0.0, 1e-12, 123456.654321, math.inf]
    metrics = fake_metrics() | {f"pass_rate[{n}]": value for n, value in enumerate(values)}
    iteration, _ = from_record(
        parse(to_yaml(fake_iteration(metrics=metrics), "0" * 64), lambda: "x.yaml")
    )
    assert [repr(v) for v in values] == [
        repr(iteration.metrics[f"pass_rate[{n}]"]) for n in range(5)
    ]
