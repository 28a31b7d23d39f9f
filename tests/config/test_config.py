"""What a loop file may say, and how every mistake in one is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.gates import Gate, Regression
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.config.sections import DEFAULT_LORA, DEFAULT_TRAINING, json_schema
from pytest_ftloop.core.errors import ConfigError, Location
from pytest_ftloop.core.records import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ftloop.config.loop_config import LoopConfig

    Write = Callable[[str, str | bytes], Path]

DATA = "data: {train: a.jsonl, eval: b.jsonl}\n"  # one line: what follows begins on line 2
FULL = """\
# A comment.
name: feelings
model: gpt2
data:
  train: data/train.jsonl
  eval: {hub: owner/name, split: test, revision: abc}
  id: key
  tags: [label, length]
  train_sample: 10
lora: {r: 4, target_modules: [c_attn]}
training:
  learning_rate: 2e-4
  num_train_epochs: 1.5
  max_steps: -1
  packing: false
  dataset_text_field: body
scoring: {scorer: loss, threshold: 2}
gates:
  eval_loss: "<= 3.4"
  pass_rate[negation]: ">= 80%"
loop: {iterations: 6, patience: 3, metric: pass_rate, time_budget_s: 60}
"""


@pytest.fixture
def read(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Read a text as the loop file `s.ftloop.yaml` of the working folder."""
    monkeypatch.chdir(tmp_path)
    return lambda text: read_loop_file(write("s.ftloop.yaml", text))


def refused(read: Any, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


# what is read


def test_full_file(read: Any, tmp_path: Path) -> None:
    """Each key of a loop file ends where it belongs; 2e-4 is a number, as YAML 1.2 says."""
    config = read(FULL)
    assert ("feelings", "gpt2", "data/train.jsonl") == (config.name, config.model, config.train)
    assert {"hub": "owner/name", "split": "test", "revision": "abc"} == config.eval
    assert ("key", ("label", "length"), "body") == dataclasses.astuple(config.columns)
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
        Gate("eval_loss", "<=", 3.4, 19),
        Gate("pass_rate[negation]", ">=", 0.8, 20),
    ) == config.gates
    assert (6, 3, "pass_rate", 60, 1, "rules") == tuple(config.loop.model_dump().values())
    assert (tmp_path, "s.ftloop.yaml") == (config.folder, config.source)


def test_smallest_file(read: Any) -> None:
    """Train and eval set are all that must be said; the name is the file's."""
    config = read(DATA)
    assert ("s", "tiny", None) == (config.name, config.model, config.split)
    assert Settings(lora=DEFAULT_LORA, training=DEFAULT_TRAINING) == config.settings
    assert ("exact", ()) == (config.scoring.scorer, config.gates)
    assert (4, 2, "eval_loss", None, 1, "rules") == tuple(config.loop.model_dump().values())


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
        DATA + "training: {a: &a true, b: *a, c: &c 1.50, d: *c, e: 0x10, f: 'x', g: [1, {h: ~}],"
        " i: 2024-01-01, j: 1_000, k: no, l: .5, m: 1e3}\n"
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
    } == config.settings.training

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
        "training.learning_rate": 12,
        "training.warmup_steps": 11,
        "gates.pass_rate[negation]": 20,
        "data.eval.split": 6,
        "scoring.scorer": 17,
    }
    assert lines == {key: config.locate(key).line for key in lines}
    assert Location("s.ftloop.yaml") == config.locate("adjust")


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


# mistakes

MISTAKES: dict[str, tuple[str, int, str]] = {
    # what: (text, line, the message after file:line)
    "key": (DATA + "modle: gpt2\n", 2, "unknown key 'modle'\n  Did you mean 'model'?"),
    "key of data": (
        "data:\n  train: a\n  evla: b\n",
        3,
        "unknown key 'evla' in data\n  Did you mean 'eval'?",
    ),
    "key of a hub source": (
        "data:\n  eval: b\n  train:\n    hub: x\n    splt: y\n",
        5,
        "unknown key 'splt' in data.train\n  Did you mean 'split'?",
    ),
    "key of split": (
        "data:\n  train: a\n  split: {fraction: 0.1, sed: 1}\n",
        3,
        "unknown key 'sed' in data.split\n  Did you mean 'seed'?",
    ),
    "key of scoring": (
        DATA + "scoring:\n  scorrer: exact\n",
        3,
        "unknown key 'scorrer' in scoring\n  Did you mean 'scorer'?",
    ),
    "key of loop": (
        DATA + "loop: {iteration: 3}\n",
        2,
        "unknown key 'iteration' in loop\n  Did you mean 'iterations'?",
    ),
    "key like no other": (
        DATA + "xyz: 3\n",
        2,
        "unknown key 'xyz'\n  Valid names: data, gates, loop, lora, model, name, scoring, trai",
    ),
    "key that is no text": (DATA + "1: 2\n", 2, "unknown key '1'\n  Valid names: "),
    "key that is a list": (DATA + "? [a, b]\n: c\n", 2, "wanted text as a key, found a sequence"),
    "no data": (
        "model: gpt2\n",
        1,
        "data is missing\n  data: {train: data/train.jsonl, eval: data/eval.jsonl}",
    ),
    "no train": (
        "model: gpt2\ndata:\n  eval: b\n",
        2,
        "data.train is missing\n  train: data/train.jsonl",
    ),
    "no eval": ("data:\n  train: a\n", 1, "no eval set: add eval, or split one off with split: {"),
    "eval and split": (
        "data: {train: a, eval: b, split: {fraction: 0.1}}\n",
        1,
        "found both eval and split: name an eval set, or split one off",
    ),
    "no fraction": (
        "data: {train: a, split: {seed: 1}}\n",
        1,
        "data.split.fraction is missing\n  split: {fraction: 0.1, seed: 0}",
    ),
    "fraction 0": (
        "data:\n  train: a\n  split:\n    fraction: 0\n",
        4,
        "data.split.fraction: wanted a number between 0 and 1, found 0",
    ),
    "fraction 1": (
        "data: {train: a, split: {fraction: 1}}\n",
        1,
        "data.split.fraction: wanted a number between 0 and 1, found 1",
    ),
    "fraction 2": (
        "data: {train: a, split: {fraction: 2.0}}\n",
        1,
        "data.split.fraction: wanted a number between 0 and 1, found 2.0",
    ),
    "fraction in words": (
        "data: {train: a, split: {fraction: half}}\n",
        1,
        "data.split.fraction: wanted a number between 0 and 1, found 'half'",
    ),
    "train is a number": (
        "data: {train: 5, eval: b}\n",
        1,
        "data.train: wanted a file, a hub id, module:function or {hub: ..., split: ...}, found 5",
    ),
    "train is a list": (
        "data: {train: [a, b], eval: b}\n",
        1,
        "data.train: wanted a file, a hub id, module:function or {hub: ..., split: ...}, found ['a",
    ),
    "hub without its id": ("data: {train: {}, eval: b}\n", 1, "data.train.hub is missing"),
    "data is a text": (
        "data: a.jsonl\n",
        1,
        "data: wanted keys with values, found 'a.jsonl'",
    ),
    "tags": (
        "data: {train: a, eval: b, tags: {a: b}}\n",
        1,
        "data.tags: wanted a column or a list of columns, found {'a': 'b'}",
    ),
    "tags in a list": (
        "data: {train: a, eval: b, tags: [1]}\n",
        1,
        "data.tags: wanted a column or a list of columns, found 1",
    ),
    "train_sample": (
        "data: {train: a, eval: b, train_sample: 0}\n",
        1,
        "data.train_sample: wanted 1 or more, found 0",
    ),
    "model is a number": (DATA + "model: 5\n", 2, "model: wanted text, found 5"),
    "model is empty": (DATA + "model:\n", 2, "model: wanted text, found nothing"),
    "lora is a number": (DATA + "lora: 8\n", 2, "lora: wanted keys with values, found 8"),
    "training is a list": (
        DATA + "training:\n- max_steps: 3\n",
        2,
        "training: wanted keys with values, found [{'max_steps': 3}]",
    ),
    "gates are empty": (DATA + "gates:\n", 2, "gates: wanted keys with values, found nothing"),
    "gates are a list": (
        DATA + "gates: [eval_loss]\n",
        2,
        "gates: wanted keys with values, found ['eval_loss']",
    ),
    "gate of no metric": (
        DATA + 'gates:\n  eval_los: "<= 3"\n',
        3,
        "gate eval_los: unknown metric 'eval_los'\n  Did you mean 'eval_loss'?",
    ),
    "gate in the wrong direction": (
        DATA + 'gates:\n  eval_loss: "<= 3"\n  pass_rate: "<= 0.9"\n',
        4,
        "gate pass_rate: higher is better for pass_rate, found '<= 0.9'",
    ),
    "gate without an operator": (
        DATA + "gates: {pass_rate: 0.9}\n",
        2,
        'gate pass_rate: wanted >= or > and a number, such as ">= 0.9", found 0.9 (float)',
    ),
    "gate without a tag": (DATA + "gates: {'pass_rate[]': '>= 1'}\n", 2, "gate pass_rate[]: wante"),
    "scorer": (
        DATA + "scoring:\n  scorer: exakt\n",
        3,
        "unknown scorer 'exakt'\n  Did you mean 'exact'?",
    ),
    "loss without a threshold": (
        DATA + "scoring: {scorer: loss}\n",
        2,
        "scorer 'loss': wanted a threshold in nats per token, 0 or more, found none",
    ),
    "threshold without loss": (
        DATA + "scoring: {threshold: 1.0}\n",
        2,
        "scoring threshold is for loss, but the scorer is 'exact'",
    ),
    "threshold is true": (
        DATA + "scoring: {scorer: loss, threshold: true}\n",
        2,
        "scoring.threshold: wanted a number, found true",
    ),
    "pattern": (
        DATA + 'scoring: {scorer: regex, pattern: "("}\n',
        2,
        "scoring pattern is not a valid regular expression",
    ),
    "max_new_tokens": (
        DATA + "scoring: {max_new_tokens: 0}\n",
        2,
        "scoring.max_new_tokens: wanted 1 or more, found 0",
    ),
    "ignore_case": (
        DATA + "scoring: {ignore_case: yes}\n",
        2,
        "scoring.ignore_case: wanted true or false, found 'yes'",
    ),
    "choices": (DATA + "scoring: {choices: yes}\n", 2, "scoring.choices: wanted a list, found 'ye"),
    "iterations 0": (
        DATA + "loop:\n  iterations: 0\n",
        3,
        "loop.iterations: wanted 1 or more, found 0",
    ),
    "iterations 2.5": (
        DATA + "loop: {iterations: 2.5}\n",
        2,
        "loop.iterations: wanted a whole number, found 2.5",
    ),
    "iterations in words": (
        DATA + "loop: {iterations: four}\n",
        2,
        "loop.iterations: wanted a whole number, found 'four'",
    ),
    "metric": (
        DATA + "loop: {metric: loss}\n",
        2,
        "loop.metric: wanted 'eval_loss' or 'pass_rate', found 'loss'\n  Did you mean 'eval_loss'?",
    ),
    "time_budget_s": (
        DATA + "loop: {time_budget_s: 0}\n",
        2,
        "loop.time_budget_s: wanted more than 0, found 0",
    ),
    "name": (DATA + "name: a/b\n", 2, "name 'a/b' is not a valid folder name on every system"),
    "name of the folder above": (DATA + "name: ..\n", 2, "name '..' is not a valid folder name"),
    "name is empty": (DATA + "name: ''\n", 2, "name '' is not a valid folder name on every system"),
    "long value": (
        DATA + f"loop: {{iterations: {'x' * 200}}}\n",
        2,
        f"loop.iterations: wanted a whole number, found '{'x' * 56}...",
    ),
    # not a loop file at all
    "empty": ("", 1, "wanted a loop's keys (data, training, gates, ...), found nothing\n  'ftloop"),
    "only comments": ("# model: gpt2\n", 1, "wanted a loop's keys"),
    "list": ("- a\n", 1, "wanted a loop's keys (data, training, gates, ...), found ['a']"),
    "text": ("hello\n", 1, "wanted a loop's keys (data, training, gates, ...), found 'hello'"),
    # not YAML
    "duplicate key": (
        DATA + "model: a\nmodel: b\n",
        3,
        'not YAML: found duplicate key "model" with value "b" (original value: "a")\n  Keep one',
    ),
    "tab": (
        "data:\n\ttrain: a\n",
        2,
        "not YAML: found character '\\t' that cannot start any token\n  YAML indents with spaces",
    ),
    "unclosed quote": (
        DATA + 'model: "gpt2\nlora: {}\n',
        2,
        "not YAML: found unexpected end of stream\n  A quote is not closed.",
    ),
    "unclosed bracket": (
        DATA + "lora: {r: 8\n# end\n",
        2,
        "not YAML: expected ',' or '}', but got '<stream end>'\n  A bracket is not closed.",
    ),
    "missing comma": (
        DATA + "lora: {r: 8\nmodel: gpt2}\n",
        3,
        "not YAML: expected ',' or '}', but got ':'\n  A comma or a closing bracket is missing",
    ),
    "value in itself": (DATA + "lora: &l {r: *l}\n", 1, "not YAML: a value contains itself, or "),
    "unquoted >": (
        DATA + "gates:\n  pass_rate: >= 0.9\n",
        3,
        "not YAML: expected chomping or indentation indicators, but found '='\n  Quote conditions",
    ),
    "two documents": (
        DATA + "---\nmodel: a\n",
        2,
        "not YAML: but found another document\n  Remove the line with ---",
    ),
    "indentation": ("data:\n  train: a\n eval: b\n", 3, "not YAML: "),
    "no such anchor": (DATA + "lora: *none\n", 2, "not YAML: found undefined alias 'none'"),
    "tag": (
        DATA + "model: !!python/object:os.system x\n",
        2,
        "a value with a tag is not read: !!python/object:os.system\n  Write text, a number",
    ),
    "binary": ("\x00\x01\x02", 1, "not YAML: unacceptable character #x0000"),
    **{
        f"regression: {stated}": (f"{DATA}gates:\n  regression:\n    {stated}\n", 4, message)
        for stated, message in {
            "alfa: 0.01": "unknown key 'alfa' in gates.regression\n  Did you mean 'alpha'?",
            "alpha: 0": "gates.regression.alpha: wanted more than 0, found 0",
            "alpha: 0.5": "gates.regression.alpha: wanted less than 0.5, found 0.5",
            "alpha: .nan": "gates.regression.alpha: wanted ",
            "alpha: small": "gates.regression.alpha: wanted a number, found 'small'",
            "alpha: true": "gates.regression.alpha: wanted a number, found true",
            "alpha: ~": "gates.regression.alpha: wanted a number, found nothing",
            "max_regression: 0": "gates.regression.max_regression: wanted more than 0, found 0",
            "max_regression: 1": "gates.regression.max_regression: wanted less than 1, found 1",
            "max_regression: 5%": "gates.regression.max_regression: wanted a number, found '5%'",
            "min_regression: -1": "gates.regression.min_regression: wanted 0",
            "min_regression: 1": "gates.regression.min_regression: wanted less than 1, found 1",
            "metrics: eval_loss": "gates.regression.metrics: wanted a list, found 'eval_loss'",
            "metrics: []": "gates.regression.metrics: wanted one or more, found []",
            "metrics: [eval_los]": "gates.regression.metrics: wanted 'eval_loss', 'pass_rate', "
            "'token_accuracy' or 'overfit_gap', found 'eval_los'\n  Did you mean 'eval_loss'?",
            "metrics: [perplexity]": "gates.regression.metrics: wanted 'eval_loss', ",
            "fail_on: inconclusive": "gates.regression.fail_on: wanted a list, found 'inconcl",
            "fail_on: [not comparable]": "gates.regression.fail_on: wanted 'inconclusive' or "
            "'not-comparable', found 'not comparable'\n  Did you mean 'not-comparable'?",
            "fail_on: [regressed]": "gates.regression.fail_on: wanted 'inconclusive' or ",
        }.items()
    },
    "regression as a condition": (
        DATA + "gates:\n  regression: '<= 0.1'\n",
        3,
        "gate regression: wanted keys such as {alpha: 0.01}, found '<= 0.1'\n"
        "  Write regression: {} for the defaults.",
    ),
    "regression switched off": (
        DATA + "gates:\n  regression: false\n",
        3,
        "gate regression: wanted keys such as {alpha: 0.01}, found false",
    ),
    "regression of no tag": (
        DATA + "gates:\n  regression[]: {}\n",
        3,
        "gate regression[]: wanted regression, or regression and a tag, such as",
    ),
    "regression misspelt": (
        DATA + "gates:\n  regresion: {}\n",
        3,
        "gate regresion: unknown metric 'regresion'\n  Did you mean 'regression'?",
    ),
    "key of a tag's regression": (
        DATA + "gates:\n  regression[late]:\n    alpha: 0.01\n    metric: [eval_loss]\n",
        5,
        "unknown key 'metric' in gates.regression[late]\n  Did you mean 'metrics'?",
    ),
    "seeds": (DATA + "loop: {seeds: 0}\n", 2, "loop.seeds: wanted 1 or more, found 0"),
    "seeds beyond all": (DATA + "loop: {seeds: 101}\n", 2, "loop.seeds: wanted 100 or less, fo"),
    "half a seed": (DATA + "loop: {seeds: 1.5}\n", 2, "loop.seeds: wanted a whole number, found"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistake(read: Any, what: str) -> None:
    """Each mistake in a loop file is one message with its line and the nearest valid name."""
    text, line, message = MISTAKES[what]
    told = refused(read, text)
    assert f"s.ftloop.yaml:{line}: {message}" == told[: len(f"s.ftloop.yaml:{line}: {message}")]
    assert 1 == told.count("s.ftloop.yaml")


def test_not_utf8(read: Any) -> None:
    """Bytes that are not UTF-8 are named with their line."""
    assert "s.ftloop.yaml:2: not UTF-8: byte 45 is 0xff\n  Save the file as UTF-8." == refused(
        read, DATA.encode() + b"model: \xff\n"
    )


def test_several_mistakes(read: Any) -> None:
    """All mistakes are told at once, by line, each with its own guess."""
    told = refused(
        read,
        "loop: {iterations: 0}\nmodle: gpt2\ndata: {train: a}\nname: a b\n"
        "scoring: {scorer: exakt}\ngates:\n  eval_los: '<= 3'\n  pass_rate: '<= 1'\n",
    )
    assert [
        "s.ftloop.yaml:1: loop.iterations",
        "s.ftloop.yaml:2: unknown key 'modle'",
        "  Did you mean 'model'?",
        "s.ftloop.yaml:3: no eval set",
        "s.ftloop.yaml:4: name 'a b'",
        "  Use letters",
        "s.ftloop.yaml:5: unknown scorer 'exakt'",
        "  Did you mean 'exact'?",
        "s.ftloop.yaml:7: gate eval_los",
        "  Did you mean 'eval_loss'?",
        "s.ftloop.yaml:8: gate pass_rate",
    ] == [
        line[: len(start)]
        for line, start in zip(
            told.splitlines(),
            [
                "s.ftloop.yaml:1: loop.iterations",
                "s.ftloop.yaml:2: unknown key 'modle'",
                "  Did you mean 'model'?",
                "s.ftloop.yaml:3: no eval set",
                "s.ftloop.yaml:4: name 'a b'",
                "  Use letters",
                "s.ftloop.yaml:5: unknown scorer 'exakt'",
                "  Did you mean 'exact'?",
                "s.ftloop.yaml:7: gate eval_los",
                "  Did you mean 'eval_loss'?",
                "s.ftloop.yaml:8: gate pass_rate",
            ],
            strict=False,
        )
    ]


def test_missing_file(write: Write, tmp_path: Path) -> None:
    """A misspelt loop file names its neighbour."""
    write("sentiment.ftloop.yaml", DATA)
    with pytest.raises(ConfigError) as caught:
        read_loop_file(tmp_path / "sentimnet.ftloop.yaml")
    assert "can't be read: No such file or directory" == caught.value.message
    assert "Did you mean 'sentiment.ftloop.yaml'?" == caught.value.cure
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        read_loop_file(tmp_path)


YAML_PIECES = [
    "data",
    "lora",
    "a",
    ":",
    " ",
    "\n",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&x ",
    "*x",
    "<<",
    "? ",
]
YAML_PIECES += [
    "!!int ",
    "!t ",
    "'",
    '"',
    "|",
    ">",
    "#",
    "2024-13-45",
    "0o9",
    "1e",
    "~",
    ",",
    "%",
    "@",
]
YAML_PIECES += [
    "!!set ",
    "!!omap ",
    "!!timestamp ",
    "!!binary ",
    "!!float ",
    "!!bool ",
    "!!null ",
    "\t",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(YAML_PIECES), max_size=20).map("".join) | st.text(max_size=40))
@example("a: &x {b: *x}\n")
@example("a: !!int x\n")
def test_any_text_is_a_loop_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """Whatever a file holds, the answer is a loop or a ConfigError."""
    path = tmp_path_factory.getbasetemp() / "any.ftloop.yaml"
    for written in (text, DATA + "training: " + text, DATA + text):
        path.write_bytes(written.encode("utf-8", "surrogatepass"))
        try:
            read_loop_file(path)
        except ConfigError:
            continue


def test_json_schema_describes_every_key() -> None:
    """Editors get a schema in which each key has a description."""
    schema = json_schema()
    json.dumps(schema)
    assert {"data", "gates", "loop", "lora", "model", "name", "scoring", "training"} == set(
        schema["properties"]
    )
    for part in schema["$defs"].values():
        assert all(value.get("description") for value in part["properties"].values())


# from Python


def python(**settings: Any) -> LoopConfig:
    given = {"name": "t", "train": "a.jsonl", "eval": "b.jsonl", **settings}
    return from_python(folder=Path("f"), source="test_x.py", **given)


def test_python_says_the_same(read: Any) -> None:
    """The sections of a loop file can be given as dicts, and mean the same."""
    written = read(FULL)
    said = from_python(
        folder=written.folder,
        source=written.source,
        name="feelings",
        model="gpt2",
        train=Path("data/train.jsonl"),
        eval={"hub": "owner/name", "split": "test", "revision": "abc"},
        data={"id": "key", "tags": ["label", "length"], "train_sample": 10},
        lora=written.settings.lora,
        training=written.settings.training,
        scoring={"scorer": "loss", "threshold": 2},
        gates={"eval_loss": "<= 3.4", "pass_rate[negation]": ">= 80%"},
        loop={"iterations": 6, "patience": 3, "metric": "pass_rate", "time_budget_s": 60},
    )
    gates = tuple(dataclasses.replace(gate, line=None) for gate in written.gates)
    assert dataclasses.replace(written, lines={}, gates=gates) == said


def test_live_objects_are_kept() -> None:
    """A loaded model, its tokenizer and rows at hand are passed on as they are."""
    model, tokenizer, rows = object(), object(), [{"text": "a"}]
    config = python(model=model, tokenizer=tokenizer, train=rows, eval=None, data=SPLIT)
    assert (model, tokenizer, rows) == (config.model, config.tokenizer, config.train)
    assert (None, 0.5) == (config.eval, config.split.fraction)


SPLIT = {"split": {"fraction": 0.5}}


def test_datasets_objects_are_kept() -> None:
    """A `datasets.Dataset` is rows; a DatasetDict must be narrowed to one split."""
    import datasets

    rows = datasets.Dataset.from_list([{"text": "a"}])
    assert rows is python(train=rows).train
    with pytest.raises(ConfigError) as caught:
        python(train=datasets.DatasetDict({"train": rows, "test": rows}))
    assert (
        "test_x.py: train: wanted one split, found a DatasetDict of train, test\n"
        "  Pass one of them: train=data['train']."
    ) == str(caught.value)


def test_scorer_by_name() -> None:
    """The scorer alone can be given as its name."""
    assert "contains" == python(scoring="contains").scoring.scorer


def test_sets_become_lists() -> None:
    """A set of modules is stated in one order, so that the same settings have one fingerprint."""
    config = python(lora={"target_modules": {"v", "q", "k"}, "rank_pattern": {"q": 1}})
    assert {"target_modules": ["k", "q", "v"], "rank_pattern": {"q": 1}} == config.settings.lora


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": None}, "test_x.py: data.train is missing"),
        ({"eval": None}, "test_x.py: no eval set: add eval"),
        ({"data": {"tgas": "x"}}, "test_x.py: unknown key 'tgas' in data\n  Did you mean 'tags'?"),
        ({"loop": {"iterations": 0}}, "test_x.py: loop.iterations: wanted 1 or more, found 0"),
        ({"gates": {"eval_loss": 3}}, "test_x.py: gate eval_loss: wanted <= or < and a number"),
        ({"scoring": "exakt"}, "test_x.py: unknown scorer 'exakt'"),
        ({"name": "a/b"}, "test_x.py: name 'a/b' is not a valid folder name on every system"),
        ({"lora": 8}, "test_x.py: lora: wanted a LoraConfig or its arguments as a dict, found int"),
        ({"training": []}, "test_x.py: training: wanted a SFTConfig or its arguments as a dict, f"),
        (
            {"lora": {"r": object}},
            "test_x.py: lora.r: wanted a value that the log can store, found ",
        ),
    ],
)
def test_mistake_in_python(given: dict[str, Any], message: str) -> None:
    """A mistake in Python is told like one in a file; the place is the test's file."""
    with pytest.raises(ConfigError) as caught:
        python(**given)
    assert message == str(caught.value)[: len(message)]


@pytest.mark.slow
def test_config_objects_say_only_what_was_stated() -> None:
    """Of a LoraConfig and an SFTConfig come the fields that differ from fresh ones."""
    import torch
    from peft import LoraConfig
    from trl import SFTConfig

    config = python(
        lora=LoraConfig(r=4, target_modules=["v", "q"], task_type="CAUSAL_LM"),
        training=SFTConfig(
            output_dir="anywhere",
            use_cpu=True,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            model_init_kwargs={"dtype": torch.bfloat16},
        ),
    )
    assert {"r": 4, "target_modules": ["q", "v"]} == config.settings.lora
    assert {
        "use_cpu": True,
        "bf16": True,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "model_init_kwargs": {"dtype": "bfloat16"},
    } == config.settings.training


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        ({"use_cpu": True}, {"use_cpu": True, "bf16": True}),
        ({"use_cpu": True, "bf16": False}, {"use_cpu": True, "bf16": False}),
        ({"use_cpu": True, "fp16": True}, {"use_cpu": True, "fp16": True}),
        ({"bf16": False}, {"bf16": False}),
    ],
)
def test_stated_precision_is_kept(stated: dict[str, bool], kept: dict[str, bool]) -> None:
    """Device and precision that the user chose are not chosen again for the machine."""
    from trl import SFTConfig

    assert kept == python(training=SFTConfig(**stated)).settings.training


@pytest.mark.slow
def test_other_config_objects_are_refused() -> None:
    """TrainingArguments have other defaults than SFTConfig: what they state can't be told."""
    from transformers import TrainingArguments

    with pytest.raises(ConfigError, match="found TrainingArguments"):
        python(training=TrainingArguments(use_cpu=True))


def test_settings_that_are_not_finite(write: Callable[[str, str], Path]) -> None:
    """An infinite or NaN setting is a mistake with its line."""
    path = write("s.ftloop.yaml", "data: {train: t, eval: e}\ntraining:\n  learning_rate: .inf\n")
    with pytest.raises(ConfigError, match="learning_rate: wanted a finite number, found inf") as e:
        read_loop_file(path)
    assert 3 == e.value.where.line


def test_iterators_are_read_once(tmp_path: Path) -> None:
    """A generator of rows serves every run of the loop."""
    made = from_python(
        folder=tmp_path, source="t.py", name="s", train=({"text": t} for t in "ab"), eval=iter([])
    )
    assert [{"text": "a"}, {"text": "b"}] == made.train
