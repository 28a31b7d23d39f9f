"""Each mistake in a loop file is one error with its line and cure."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.config.sections import json_schema
from pytest_ftloop.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str, str | bytes], Path]
from tests.config.config_cases import DATA


def refused(read: Any, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


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
        "unknown key 'xyz'\n  Valid names: tokenizer, data, gates, loop, lora, metrics, model,",
    ),
    "key that is no text": (DATA + "1: 2\n", 2, "unknown key '1'\n  Valid names: "),
    "key that is a list": (DATA + "? [a, b]\n: c\n", 2, "wanted text as a key, found a sequence"),
    "seed as a text": (
        DATA + "training:\n  seed: '7'\n",
        3,
        "training.seed: wanted a whole number, found '7'",
    ),
    "no seed": (DATA + "training: {seed: null}\n", 2, "training.seed: wanted a whole number"),
    "argument of training at the top": (
        DATA + "learning_rate: 1e-4\n",
        2,
        "unknown key 'learning_rate'\n  It is an argument of SFTConfig: write it under training.",
    ),
    "old argument at the top": (
        DATA + "epochs: 3\n",
        2,
        "unknown key 'epochs'\n  It belongs under training. Write num_train_epochs.",
    ),
    "key of another section": (
        DATA + "loop:\n  scorer: exact\n",
        3,
        "unknown key 'scorer' in loop\n  It is a key of scoring: write it there.",
    ),
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
        "data.train: wanted a file, a hub id, module:function or {hub: ..., split: ...}, or a list "
        "of them, found 5",
    ),
    "eval is a list": (
        "data: {train: b, eval: [a, b]}\n",
        1,
        "data.eval: wanted a file, a hub id, module:function or {hub: ..., split: ...}, found ['a",
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
        "loop.metric: wanted eval_loss, pass_rate or a score, found 'loss'\n"
        "  Did you mean 'eval_loss'?",
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
    "nul": (DATA + "lora: {r: 8}\n# \0\n", 3, "not YAML: unacceptable character #x0000"),
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
    "tag in braces": (
        DATA + 'gates: {pass_rate[short]: ">= 0.9"}\n',
        2,
        "not YAML: expected ',' or '}', but got '['\n  Within braces, quote a key with brackets: ",
    ),
    "value in itself": (DATA + "lora: &l {r: *l}\n", 2, "a value contains itself"),
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
            "alpha: 0": "gates.regression.alpha: wanted 0.0001 or more, found 0",
            "alpha: 1e-17": "gates.regression.alpha: wanted 0.0001 or more, found 1e-17",
            "alpha: 1.0e-300": "gates.regression.alpha: wanted 0.0001 or more, found 1e-300",
            "alpha: 1e400": "gates.regression.alpha: wanted less than 0.5, found inf",
            "alpha: 0.5": "gates.regression.alpha: wanted less than 0.5, found 0.5",
            "alpha: .nan": "gates.regression.alpha: wanted ",
            "alpha: small": "gates.regression.alpha: wanted a number, found 'small'",
            "alpha: true": "gates.regression.alpha: wanted a number, found true",
            "alpha: ~": "gates.regression.alpha: wanted a number, found nothing",
            "max_regression: 0": "gates.regression.max_regression: wanted more than 0, found 0",
            "max_regression: 1": "gates.regression.max_regression: wanted 0.5 or less, found 1",
            "max_regression: 1e400": "gates.regression.max_regression: wanted 0.5 or less, found ",
            "max_regression: .nan": "gates.regression.max_regression: wanted ",
            "max_regression: 5%": "gates.regression.max_regression: wanted a number, found '5%'",
            "min_regression: -1": "gates.regression.min_regression: wanted 0",
            "min_regression: 1": "gates.regression.min_regression: wanted 0.5 or less, found 1",
            "min_regression: 0.99": "gates.regression.min_regression: wanted 0.5 or less, found ",
            "min_regression: .inf": "gates.regression.min_regression: wanted 0.5 or less, found ",
            "min_regression: .nan": "gates.regression.min_regression: wanted ",
            "metrics: eval_loss": "gates.regression.metrics: wanted a list, found 'eval_loss'",
            "metrics: []": "gates.regression.metrics: wanted one or more, found []",
            "metrics: [eval_los]": "gate regression: unknown metric 'eval_los'\n  Did you mean "
            "'eval_loss'?",
            "metrics: [perplexity]": "gate regression: unknown metric 'perplexity'\n  Valid",
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
        with suppress(ConfigError):
            read_loop_file(path)


def test_json_schema_describes_every_key() -> None:
    """Editors get a schema in which each key has a description."""
    json.dumps(schema := json_schema())
    keys = {"data", "gates", "loop", "lora", "metrics", "model", "name"}
    assert {*keys, "scoring", "tokenizer", "training"} == set(schema["properties"])
    for part in schema["$defs"].values():
        assert all(value.get("description") for value in part["properties"].values())


def test_an_unknown_scorer_beside_another_mistake_of_its_section(read: Any) -> None:
    """A wrong type in the section does not hide that there is no such scorer."""
    with pytest.raises(ConfigError) as caught:
        read(f"{DATA}\nscoring: {{scorer: exct, pass_at: 2}}\n")
    assert "unknown scorer 'exct'" in str(caught.value)
    assert "scoring.pass_at: wanted 1.0 or less, found 2" in str(caught.value)


@pytest.mark.parametrize(
    "elsewhere", ["modle: gpt2", "tokenizer: 5", "scoring: {max_new_tokens: 0}"]
)
def test_a_mistake_elsewhere_hides_none_of_a_sections_own(read: Any, elsewhere: str) -> None:
    """A guard's scorer, a guard that is missing, and what the loop chooses by are told as well."""
    told = refused(
        read,
        "data:\n  train: t.jsonl\n  eval: e.jsonl\n  guards: {g: {source: e.jsonl, "
        "scoring: {scorer: exat}}}\ngates: {guard.h.eval_loss: '<= 1'}\n"
        f"loop: {{metric: pass_rat}}\n{elsewhere}\n",
    )
    assert "s.ftloop.yaml:4: unknown scorer 'exat'" in told
    assert "s.ftloop.yaml:5: gate guard.h.eval_loss: no guard is called 'h'" in told
    assert "s.ftloop.yaml:6: loop.metric: wanted eval_loss, pass_rate or a score" in told
    assert "s.ftloop.yaml:7: " in told
