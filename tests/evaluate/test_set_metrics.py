"""Metrics of the whole set are loaded, and tried before anything is trained."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.errors import ConfigError, ScoringError
from pytest_ftloop.core.records import Example
from pytest_ftloop.core.set_metrics import SetMetric
from pytest_ftloop.evaluate.set_metrics import load_set_metrics
from tests.fakes import fake_example

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = [
    Example(
        f"e{n}", f"c{n}", {"prompt": "p", "completion": text}, expected=text, kept={"weight": n}
    )
    for n, text in enumerate(("yes", "no", "yes"))
]


def loaded(folder: Path, name: str, body: str) -> SetMetric:
    (folder / f"{name}.py").write_text(f"def f(outputs, expected, rows):\n    {body}\n")
    return load_set_metrics({"m": f"{name}:f"}, EXAMPLES, folder, lambda _: None)["m"]


def test_a_function_gets_outputs_expected_texts_and_whole_rows(tmp_path: Path) -> None:
    """A user's function is given three lists in one order, the rows with all their columns."""
    metric = loaded(
        tmp_path,
        "weighing",
        "return sum(r['weight'] for o, e, r in zip(outputs, expected, rows) if o == e)",
    )
    rows = [
        fake_example(f"e{n}", content=f"c{n}", expected=e, output=o)
        for n, (e, o) in enumerate((("yes", "no"), ("no", "no"), ("yes", "yes")))
    ]
    assert 3 == metric.of(rows)


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("raising", "return rows[0]['grade']", "raised KeyError: 'grade' on 3 outputs"),
        ("textual", "return '0.5'", "wanted a finite number, found '0.5'"),
        ("nan", "return float('nan')", "wanted a finite number, found nan"),
        ("nothing", "return None", "wanted a finite number, found None"),
        ("huge", "return 10.0 ** 200", "wanted a finite number, found 1e+200"),
        ("too_large", "return 10 ** 400", "wanted a finite number, found 1000"),
        ("complex", "return 1j", "wanted a finite number, found 1j"),
        ("rows", "return rows", "wanted a finite number, found [{"),
        ("empty", "return 1 / sum(map(len, outputs))", "raised ZeroDivisionError"),
    ],
)
def test_a_function_that_fails_is_found_before_training(
    tmp_path: Path, name: str, body: str, message: str
) -> None:
    """A function is tried on right answers and on empty ones, and must give a finite number."""
    with pytest.raises(ScoringError, match="metric 'm'") as caught:
        loaded(tmp_path, name, body)
    assert message in str(caught.value)


def test_a_function_with_other_parameters(tmp_path: Path) -> None:
    """A function that can't be called is an error that shows how it is called."""
    (tmp_path / "two.py").write_text("def f(outputs, expected): return 1\n")
    with pytest.raises(ConfigError, match="metric 'two:f' can't be called"):
        load_set_metrics({"m": "two:f"}, EXAMPLES, tmp_path, lambda _: None)


def test_sacrebleu_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without sacrebleu, bleu is an error that says how to install it."""
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(ConfigError, match="'bleu' needs sacrebleu") as caught:
        load_set_metrics({"b": "bleu"}, EXAMPLES, tmp_path, lambda _: None)
    assert 'pip install "pytest-ftloop[text]"' == caught.value.cure


@pytest.mark.parametrize(("kind", "figure"), [("bleu", 34.10432909), ("chrf", 58.29176950)])
def test_texts_by_sacrebleu(tmp_path: Path, kind: str, figure: float) -> None:
    """BLEU and chrF are those that sacrebleu gives the whole corpus."""
    pytest.importorskip("sacrebleu")
    texts = [
        ("the cat sat on a mat", "the cat sat on the mat"),
        ("the dog barked at night", "a dog barked loudly at night"),
        ("it is raining", "it rains"),
    ]
    rows = [fake_example(f"e{n}", expected=e, output=o) for n, (e, o) in enumerate(texts)]
    metric = load_set_metrics({kind: kind}, EXAMPLES, tmp_path, lambda _: None)[kind]
    assert figure == pytest.approx(metric.of(rows))
