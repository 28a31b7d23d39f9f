"""What a loop file may say, and how every mistake in one is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config import loop_yaml
from pytest_ftloop.config.gates import Gate, Regression
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.config.sections import DEFAULT_LORA, DEFAULT_TRAINING
from pytest_ftloop.config.sources import Columns, Mixture
from pytest_ftloop.core.errors import ConfigError, Location
from pytest_ftloop.core.records import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str, str | bytes], Path]
from tests.config.config_cases import DATA, FULL

# what is read


def test_full_file(read: Any, tmp_path: Path) -> None:
    """Each key of a loop file ends where it belongs; 2e-4 is a number, as YAML 1.2 says."""
    config = read(FULL)
    assert ("feelings", "gpt2", "data/train.jsonl") == (config.name, config.model, config.train)
    assert {"hub": "owner/name", "split": "test", "revision": "abc"} == config.eval
    columns = Columns(id="key", tags=("label", "length"), text="body", keep=("answers",))
    assert columns == config.columns
    assert 10 == config.train_sample
    assert {"r": 4, "target_modules": ["c_attn"]} == config.settings.lora
    assert {
        "learning_rate": 0.0002,
        "num_train_epochs": 1.5,
        "max_steps": -1,
        "packing": False,
        "dataset_text_field": "body",
    } == config.settings.training
    assert ("loss", 2.0) == (config.scoring.scorer, config.scoring.threshold)
    assert (
        Gate("eval_loss", "<=", 3.4, 20),
        Gate("pass_rate[negation]", ">=", 0.8, 21),
    ) == config.gates
    stated = {"iterations": 6, "patience": 3, "metric": "pass_rate", "time_budget_s": 60}
    assert stated == config.loop.model_dump(exclude_unset=True)
    assert (tmp_path, "s.ftloop.yaml") == (config.folder, config.source)


def test_smallest_file(read: Any) -> None:
    """Train and eval set are all that must be said; the name is the file's."""
    config = read(DATA)
    assert ("s", "tiny", None) == (config.name, config.model, config.split)
    assert Settings(lora=DEFAULT_LORA, training=DEFAULT_TRAINING) == config.settings
    assert ("exact", ()) == (config.scoring.scorer, config.gates)
    assert (4, 2, 1, 1, 1, False, "rules") == tuple(
        value for value in config.loop.model_dump().values() if value not in (None, [])
    )


@pytest.mark.parametrize("stated", ["", " {}", " true", " ~"])
def test_regression_by_default(read: Any, stated: str) -> None:
    """`regression:` with nothing, with {} or with true is the gate with its defaults."""
    config = read(f"{DATA}gates:\n  regression:{stated}\n")
    assert (Regression(line=3),) == config.regressions
    assert () == config.gates


def test_regression_with_every_key(read: Any) -> None:
    """Each key ends where it belongs, of the whole set and of a tag."""
    config = read(
        DATA + "gates:\n  regression[late]: {alpha: 0.05}\n  eval_loss: '<= 3'\n  regression:\n"
        "    alpha: 0.02\n    max_regression: 0.1\n    min_regression: 0\n"
        "    metrics: [pass_rate, overfit_gap, pass_rate]\n"
        "    fail_on: [not-comparable, inconclusive]\n"
    )
    whole = Regression(
        "regression",
        alpha=0.02,
        max_regression=0.1,
        min_regression=0.0,
        metrics=("pass_rate", "overfit_gap"),
        fail_on=("not comparable", "inconclusive"),
        line=5,
    )
    assert (Regression("regression[late]", alpha=0.05, line=3), whole) == config.regressions
    assert ("late", None) == tuple(rule.tag for rule in config.regressions)
    assert ["eval_loss"] == [gate.name for gate in config.gates]


def test_seeds(read: Any) -> None:
    """loop.seeds is how often the best iteration is trained."""
    assert 3 == read(DATA + "loop: {seeds: 3}\n").loop.seeds


def test_stated_section_has_no_defaults_of_ours(read: Any) -> None:
    """A loop that states lora or training gets exactly that; all else is peft's and trl's."""
    config = read(DATA + "lora: {r: 2}\ntraining: {}\n")
    assert Settings(lora={"r": 2}, training={}) == config.settings


def test_values_are_plain(read: Any) -> None:
    """Settings are plain Python values, whatever the YAML library's own types are."""
    config = read(
        DATA + "training: {dataset_kwargs: {a: &a true, b: *a, c: &c 1.50, d: *c, e: 0x10, f: 'x',"
        " g: [1, {h: ~}], i: 2024-01-01, j: 1_000, k: no, l: .5, m: 1e3}}\n"
    )
    assert {
        "a": True,
        "b": True,
        "c": 1.5,
        "d": 1.5,
        "e": 16,
        "f": "x",
        "g": [1, {"h": None}],
        "i": "2024-01-01",
        "j": 1000,
        "k": "no",
        "l": 0.5,
        "m": 1000.0,
    } == config.settings.training["dataset_kwargs"]

    def kinds(value: Any) -> set[type]:
        inner = value.values() if isinstance(value, dict) else value
        nested = isinstance(value, dict | list)
        return {type(value)}.union(*map(kinds, inner)) if nested else {type(value)}

    assert {dict, list, bool, int, float, str, type(None)} == kinds(config.settings.training)


def test_merge_keys(read: Any) -> None:
    """Anchors and merge keys are read; what is merged has the line of its section."""
    config = read(
        "data:\n  train: &rows {hub: owner/name, split: train}\n  eval: {<<: *rows, split: test}\n"
    )
    assert {"hub": "owner/name", "split": "test"} == config.eval
    assert Location("s.ftloop.yaml", 3) == config.locate("data.eval.hub")


def test_locate(read: Any) -> None:
    """A key has its line; one that is not in the file has that of the nearest section above."""
    config = read(FULL)
    lines = {
        "training.learning_rate": 13,
        "training.warmup_steps": 12,
        "gates.pass_rate[negation]": 21,
        "data.eval.split": 6,
        "scoring.scorer": 18,
    }
    assert lines == {key: config.locate(key).line for key in lines}
    assert Location("s.ftloop.yaml") == config.locate("adjust")


def test_a_list_of_sources(read: Any) -> None:
    """Several sources are one train set, each with its weight; only one can be split."""
    listed = (
        "[a.jsonl, {source: b.jsonl, weight: 0.5}, {source: {hub: o/n}, weight: 2}, {hub: o/m}]"
    )
    config = read(f"data: {{train: {listed}, eval: e.jsonl}}\n")
    parts = ("a.jsonl", 1.0), ("b.jsonl", 0.5), ({"hub": "o/n"}, 2.0), ({"hub": "o/m"}, 1.0)
    assert Mixture(parts) == config.train
    for data, message in (
        ("{train: [], eval: e.jsonl}", "data.train is an empty list"),
        ("{train: [a.jsonl, b.jsonl], split: {fraction: 0.1}}", "split takes one source"),
        ("{train: [{source: a.jsonl, weight: 0}], eval: e.jsonl}", "more than 0"),
        ("{train: [{source: a.jsonl, wieght: 2}], eval: e.jsonl}", "wieght"),
    ):
        with pytest.raises(ConfigError) as caught:
            read(f"data: {data}\n")
        assert message in caught.value.message


def test_split(read: Any) -> None:
    """An eval set can be split off the train set."""
    config = read("data: {train: a.jsonl, split: {fraction: 0.1, seed: 3}}\n")
    assert (0.1, 3, None) == (config.split.fraction, config.split.seed, config.eval)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.ftloop.yaml", "a"),
        ("a.b.ftloop.yml", "a.b"),
        ("a.yaml", "a"),
        ("ä-1.ftloop.yaml", "ä-1"),
    ],
)
def test_name_is_the_files(write: Write, file: str, name: str) -> None:
    """The loop's name is the file's without its suffix."""
    assert name == read_loop_file(write(file, DATA)).name


@pytest.mark.parametrize(
    "text",
    ["\ufeff" + FULL, FULL.replace("\n", "\r\n"), "%YAML 1.2\n---\n" + FULL],
    ids=["BOM", "CRLF", "directive"],
)
def test_file_as_editors_write_it(read: Any, text: str) -> None:
    """Byte order mark, CRLF and a YAML directive change nothing but line numbers."""
    written = dataclasses.replace(read(text), lines={}, gates=())
    assert dataclasses.replace(read(FULL), lines={}, gates=()) == written


def test_what_a_reader_changes_in_a_text_is_not_read_again() -> None:
    """Two files with one text are two loops: each reader has values and lines of its own."""
    text = "data: {train: a.jsonl}\n"
    values, lines = loop_yaml.parse(text, "one")
    values["data"]["train"] = "b.jsonl"
    lines.clear()
    assert ({"data": {"train": "a.jsonl"}}, {"": 1, "data": 1, "data.train": 1}) == loop_yaml.parse(
        text, "two"
    )
    for shown in ("one", "two"):  # a mistake is told of the file that has it
        with pytest.raises(ConfigError, match=f"{shown}:2"):
            loop_yaml.parse("data: [\n", shown)
