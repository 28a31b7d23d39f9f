"""Settings changed in a loop file's text: they read back as wanted, all else is as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.config import edit as rewrite
from pytest_ftloop.config.edit import changes, with_settings
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.config.sections import DEFAULT_LORA, DEFAULT_TRAINING
from pytest_ftloop.core.errors import ConfigError, FtloopError, Location
from pytest_ftloop.core.records import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = "data: {train: a.jsonl, eval: b.jsonl}\n"
WHERE = "s.ftloop.yaml"
QUICKSTART = Path(__file__).parents[1] / "examples/quickstart/sentiment.ftloop.yaml"


@pytest.fixture(scope="module")
def settings_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Settings]:
    """The settings of a loop file's text, by the reader that the loop itself uses."""
    path = tmp_path_factory.mktemp("loop") / WHERE

    def read(text: str) -> Settings:
        path.write_bytes(text.encode())
        return read_loop_file(path).settings

    return read


def lora(text: str, **wanted: Any) -> str:
    """What becomes of a lora section; the rest of the file is checked to be as it was."""
    return section("lora", text, wanted)


def training(text: str, **wanted: Any) -> str:
    """Likewise of a training section."""
    return section("training", text, wanted)


def section(group: str, text: str, wanted: dict[str, Any]) -> str:
    head, tail = f"{DATA}# head\n", "# tail\nmodel: gpt2  # 'r: 8'\n"
    groups = {"lora": DEFAULT_LORA, "training": DEFAULT_TRAINING, group: wanted}
    after = with_settings(head + text + tail, Settings(**groups), WHERE)
    assert (head, tail) == (after[: len(head)], after[-len(tail) :])
    assert after == with_settings(after, Settings(**groups), WHERE)
    return after[len(head) : -len(tail)]


# one value


def test_only_the_value_changes() -> None:
    """In the quickstart's file one value is replaced, and the comment keeps its column."""
    text = QUICKSTART.read_text(encoding="utf-8")
    before = read_loop_file(QUICKSTART).settings
    after = Settings(before.lora, {**before.training, "learning_rate": 1.5e-3})
    assert text.replace("5.0e-4 ", "1.5e-3 ") == with_settings(text, after, WHERE)


@pytest.mark.parametrize(
    ("old", "value", "new"),
    [
        ("2e-4", 0.0002, "2e-4"),
        ("1", 1.0, "1"),
        ("1.0", 1, "1.0"),
        ("0x10", 16, "0x10"),
        ("'x'", "x", "'x'"),
        ("[a, 'b' ]", ("a", "b"), "[a, 'b' ]"),
        ("~", None, "~"),
        ("2e-4", 0.0005, "5.0e-4"),
        ("2e-4", 0.00015, "1.5e-4"),
        ("2.0e-4", 0.05, "5.0e-2"),
        ("0.0002", 0.00015, "0.00015"),
        ("0.0002", 1.2345678901e-7, "1.2345678901e-7"),
        ("1", 1e-5, "1.0e-5"),
        ("1", 2.5, "2.5"),
        ("1", 0.0, "0.0"),
        ("1e3", -1500.0, "-1.5e+3"),
        ("1", 1e22, "1.0e+22"),
        ("1.0", 3, "3"),
        ("1", True, "true"),
        ("true", 1, "1"),
        ("false", None, "null"),
        ("1", "cosine", "cosine"),
        ("'linear'", "cosine", "'cosine'"),
        ('"linear"', "cosine", '"cosine"'),
        ("1", "no", '"no"'),
        ("1", "1e3", '"1e3"'),
        ("1", "2024-01-01", '"2024-01-01"'),
        ("1", "1:30", '"1:30"'),
        ("1", "null", '"null"'),
        ("1", "", '""'),
        ("1", "a: b", '"a: b"'),
        ("1", "a #b", '"a #b"'),
        ("1", "- a", '"- a"'),
        ("1", "module:function", "module:function"),
        ("1", "./a b/c-1.jsonl", "./a b/c-1.jsonl"),
        ("1", "größe", "größe"),
        ("1", 'say "\\"\n\x85\U0001f600\u2028', '"say \\"\\\\\\"\\n\\x85\U0001f600\\U00002028"'),
        ("'x'", "it's", "'it''s'"),
        ("[a, b]", "all-linear", "all-linear"),
        ("all-linear", ["q_proj", "no"], '[q_proj, "no"]'),
        ("1", {"cycles": 0.5, "b": [1, {}], "on": None}, '{cycles: 0.5, b: [1, {}], "on": null}'),
        ("{a: 1}", {}, "{}"),
        ('"a\n    b"', 1, "1"),
        ("a\n    b", 1, "1"),
        ("|\n    a # b\n    c", "x", "x"),
        (">-\n    a\n\n    c", "x", "x"),
    ],
)  # fmt: skip
def test_value(settings_of: Callable[[str], Settings], old: str, value: Any, new: str) -> None:
    """A value equal to the wanted one is left as written; another is written as people do."""
    shown = training(f"training:\n  a: {old}\n  b: 2\n", a=value, b=2)
    assert f"training:\n  a: {new}\n  b: 2\n" == shown
    assert rewrite._same({"a": value, "b": 2}, settings_of(DATA + shown).training)
    # PyYAML reads YAML 1.1, in which 2e-4 is a text.
    if new != old:
        assert rewrite._same(rewrite._plain(value), yaml.safe_load(shown)["training"]["a"])


def test_value_in_flow() -> None:
    """In a mapping in one line, too, only the value is touched."""
    text = "lora: { 'r': 8,lora_alpha : 16, \"x\":[a , 1] }  # r: 8, {\n"
    assert text.replace("8,l", "32,l") == lora(text, r=32, lora_alpha=16, x=["a", 1])


@pytest.mark.parametrize(
    ("line", "value", "expected"),
    [
        ("a: 5      # c", 500, "a: 500    # c"),
        ("a: 500 # c", 5, "a: 5 # c"),
        ("a: 5 # c", 5000, "a: 5000 # c"),
        ("a: 5    # c", 5000, "a: 5000  # c"),
        ("a: 5  #\tc\t# d", 500, "a: 500  #\tc\t# d"),
        ("a: '#' # c", "#b", "a: '#b' # c"),
        ("a: x#y  # c", "z", "a: z  # c"),
        ("a: [1, '#']  # c", [20, "#"], "a: [20, '#']  # c"),
    ],
)
def test_comment_beside_it(line: str, value: Any, expected: str) -> None:
    """A comment beside a changed value stays, in its column where there is room."""
    text = training(f"training:\n  {line}\n", a=value)
    assert f"training:\n  {expected}\n" == text


def test_comments_in_a_column() -> None:
    """Comments of lines next to each other stay in their column."""
    text = "training:\n  a: 100  # one\n  bb: 20  # two\n  c: 300  # three\n\n  d: 10  # four\n"
    expected = text.replace("100 ", "5   ").replace("20  #", "true  #").replace("10 ", "1 ")
    assert expected == training(text, a=5, bb=True, c=300, d=1)
    assert text.replace("300 ", "7   ") == training(text, a=100, bb=20, c=7, d=10)


# keys that come and go


def test_added_to_a_block() -> None:
    """A new key follows the section's last one and what belongs to it, indented alike."""
    text = (
        "training:  # long\n\n    a: 1  # one\n    # of a\n    b: [1,\n      2]\n      # of b\n\n"
    )
    assert text[:-1] + '    c: 1.0e-4\n    "no": {d: 1}\n\n' == training(
        text, a=1, b=[1, 2], c=1e-4, no={"d": 1}
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora: {r: 8}\n", "lora: {r: 8, x: 1}\n"),
        ("lora: { r: 8 }  # c\n", "lora: { r: 8, x: 1 }  # c\n"),
        ("lora: {r: 8}           # c\n", "lora: {r: 8, x: 1}     # c\n"),
        ("lora: {r: 8, }\n", "lora: {r: 8, x: 1, }\n"),
        ("lora: {\n  r: 8  # c\n}\n", "lora: {\n  r: 8,  # c\n  x: 1\n}\n"),
        ("lora: {\n  r: 8,  # c, d\n  # e\n}\n", "lora: {\n  r: 8,  # c, d\n  x: 1,\n  # e\n}\n"),
        ("lora: {\n  r: 8}\n", "lora: {\n  r: 8, x: 1}\n"),
        ("lora: {r: 8 # c\n  }\n", "lora: {r: 8, x: 1 # c\n  }\n"),
        ("lora:\n  {r: 8}\n", "lora:\n  {r: 8, x: 1}\n"),
        ('"lora": {"r":8}\n', '"lora": {"r":8, x: 1}\n'),
        ("? lora\n: {r: 8}\n", "? lora\n: {r: 8, x: 1}\n"),
    ],
)  # fmt: skip
def test_added_to_flow(text: str, expected: str) -> None:
    """A new key goes before the closing brace, or in a line of its own where the last has one."""
    assert expected == lora(text, r=8, x=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora: {}\n", "lora: {r: 8, x: a}\n"),
        ("lora: { }  # c\n", "lora: {r: 8, x: a}  # c\n"),
        ("lora: {# c\n  }\n", "lora: {r: 8, x: a # c\n  }\n"),
        ("lora:\n", "lora: {r: 8, x: a}\n"),
        ("lora:   # c\n  # d\n", "lora: {r: 8, x: a}  # c\n  # d\n"),
        ("lora: ~ # c\n", "lora: {r: 8, x: a} # c\n"),
        ("lora: &l\n", "lora: &l {r: 8, x: a}\n"),
    ],
)
def test_empty_section(text: str, expected: str) -> None:
    """An empty section, or one with nothing in it, is filled in flow style."""
    assert expected == lora(text, r=8, x="a")


def test_removed_from_a_block() -> None:
    """A key goes with its line; comments in lines of their own stay."""
    text = "training:\n  # a\n  a: 1  # one\n\n  # b\n  b:\n    c: |\n      # text\n  # d\n  d: 1\n"
    assert "training:\n  # a\n\n  # b\n  # d\n  d: 1\n" == training(text, d=1)
    assert "training: {}\n  # a\n\n  # b\n  # d\n" == training(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora: {x: 1, r: 8}\n", "lora: {r: 8}\n"),
        ("lora: {r: 8, x: 1}  # c\n", "lora: {r: 8}  # c\n"),
        ("lora: {r: 8, x: 1, }\n", "lora: {r: 8, }\n"),
        ("lora: {r: 8, x: 1,}\n", "lora: {r: 8,}\n"),
        ("lora: {x: 1, y: 2, r: 8, z: {a: b}}\n", "lora: {r: 8}\n"),
        ("lora: {\n  x: 1,  # c\n  # d\n  r: 8\n}\n", "lora: {\n  # d\n  r: 8\n}\n"),
        ("lora: {\n  r: 8,  # r\n  x: 1   # c\n}\n", "lora: {\n  r: 8,  # r\n}\n"),
        ("lora: {r: 8, # c\n  x: 1}\n", "lora: {r: 8, # c\n  }\n"),
        ("lora: {r: 8, # c\n  x: 1,}\n", "lora: {r: 8, # c\n  }\n"),
        ("lora: {x: 1, # c\n  r: 8}\n", "lora: { # c\n  r: 8}\n"),
        ("lora: {y: 1, x: 1,\n  r: 8}\n", "lora: {\n  r: 8}\n"),
        ("lora: {r: 8\n , x: 1\n , y: 2\n }\n", "lora: {r: 8\n }\n"),
        ("lora: {\n  x: 1\n , r: 8\n }\n", "lora: {\n  r: 8\n }\n"),
        ("lora: {r: 8, x: , y}\n", "lora: {r: 8}\n"),
    ],
)
def test_removed_from_flow(text: str, expected: str) -> None:
    """A key goes with its comma, or with its line where it has one to itself."""
    assert expected == lora(text, r=8)


def test_all_replaced() -> None:
    """A block stays a block when each of its keys goes and others come."""
    assert "training:\n  b: 2\n" == training("training:\n  a: 1\n", b=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DATA, DATA + "lora: {r: 4}\ntraining: {max_steps: 3}\n"),
        (DATA[:-1], DATA + "lora: {r: 4}\ntraining: {max_steps: 3}"),
        (
            "data:\n  train: a\n  eval: b\n  # tags: c\n\n# the model\nmodel: gpt2\n",
            "data:\n  train: a\n  eval: b\n  # tags: c\nlora: {r: 4}\ntraining: {max_steps: 3}\n"
            "\n# the model\nmodel: gpt2\n",
        ),
        (
            "training: {max_steps: 3}\n" + DATA + "...\n",
            "training: {max_steps: 3}\n" + DATA + "lora: {r: 4}\n...\n",
        ),
        (
            "{data: {train: a, eval: b}}",
            "{data: {train: a, eval: b}, lora: {r: 4}, training: {max_steps: 3}}",
        ),
        (
            "--- # c\n  data: {train: a, eval: b}\n  lora:\n    r: 4\n  model: gpt2",
            "--- # c\n  data: {train: a, eval: b}\n  lora:\n    r: 4\n  training: {max_steps: 3}\n"
            "  model: gpt2",
        ),
    ],
)
def test_missing_section(settings_of: Callable[[str], Settings], text: str, expected: str) -> None:
    """A section that is not there yet follows the data, in flow style."""
    wanted = Settings(lora={"r": 4}, training={"max_steps": 3})
    assert expected == with_settings(text, wanted, WHERE)
    assert wanted == settings_of(expected)


def test_defaults_need_not_be_stated() -> None:
    """A file that relies on the tool's defaults is left alone when these are wanted."""
    assert DATA == with_settings(DATA, Settings(DEFAULT_LORA, DEFAULT_TRAINING), WHERE)
    empty = with_settings(DATA, Settings({}, DEFAULT_TRAINING), WHERE)
    assert DATA + "lora: {}\n" == empty


# values within values


def test_nested_values() -> None:
    """What changes within a nested mapping or list is edited in its place, too."""
    text = (
        "training:\n"
        "  kwargs:  # k\n"
        "    min: 1  # m\n"
        "    deep: {a: [1, 2], b: 3}\n"
        "  betas:\n"
        "  - 0.9  # one\n"
        "  -   # two\n"
        "  - 'x'\n"
    )
    expected = (
        "training:\n"
        "  kwargs:  # k\n"
        "    min: 2  # m\n"
        "    deep: {a: [1, 5], b: 3, c: 4}\n"
        "    max: 7\n"
        "  betas:\n"
        "  - 0.8  # one\n"
        "  - 1  # two\n"
        "  - 'y'\n"
    )
    wanted = {
        "kwargs": {"min": 2, "deep": {"a": [1, 5], "b": 3, "c": 4}, "max": 7},
        "betas": [0.8, 1, "y"],
    }
    once = training(text, **wanted)
    assert expected == once
    wanted["betas"].append("z")
    assert expected + "  - z\n" == training(once, **wanted)


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("[a, b, c]", ["a", "c"], "[a, c]"),
        ("[a, b]", ["a", "b", "c"], "[a, b, c]"),
        ("[a, b]", ["c", "a", "b"], "[c, a, b]"),
        ("[a, b]", [], "[]"),
        ("[]", ["a"], "[a]"),
        ("[k: 1]", [{"k": 2}], "[{k: 2}]"),
        ("\n  - a  # 1\n  # 2\n  - b\n", ["b"], "\n  # 2\n  - b\n"),
        ("\n  - a  # 1\n  # 2\n  - b\n", ["a", "b", 3], "\n  - a  # 1\n  # 2\n  - b\n  - 3\n"),
        ("  # 0\n  - a  # 1\n  # 2\n  - b\n", "x", " x  # 0\n  # 2\n"),
        ("\n  - a\n  - b", [], " []"),
        ("\n  - - 1\n    - 2", [[1]], " [[1]]"),
        ("\n  - - 1\n    - 2", [[1, 3]], "\n  - - 1\n    - 3"),
        ("\n  -\n    a\n  - b", ["b"], " [b]"),
        ("\n  - a: 1\n    b: 2", [{"b": 2}], "\n  - b: 2"),
        ("\n  - a: 1\n    b: 2", [{"a": 1, "c": 2}], "\n  - a: 1\n    c: 2"),
        ("\n  - a: 1", [1], " [1]"),
        ("\n  -", ["a"], "\n  - a"),
    ],
)  # fmt: skip
def test_list(text: str, value: Any, expected: str) -> None:
    """A list keeps its style and comments; one that is altogether another is in flow style."""
    separator = "" if text[0] in "\n " else " "
    text, expected = text.removesuffix("\n"), expected.removesuffix("\n")
    shown = training(f"training:\n  x:{separator}{text}\n  y: 1\n", x=value, y=1)
    assert f"training:\n  x:{separator}{expected}\n  y: 1\n" == shown


def test_values_not_written() -> None:
    """A key without a value gets one."""
    assert "lora: {a: 1, b: 2, c: 3, d: x}\n" == lora(
        "lora: {a: , b, c: , d}\n", a=1, b=2, c=3, d="x"
    )
    assert "training:\n  a: 1  # c\n  b: 2\n" == training(
        "training:\n  a:    # c\n  b:\n", a=1, b=2
    )
    assert "lora: {b, c: , x: 1}\n" == lora("lora: {b, c: }\n", b=None, c=None, x=1).replace(
        " }", "}"
    )


# the file as a whole


def test_look_alikes() -> None:
    """Keys of the same name elsewhere, in texts and in comments are left alone."""
    text = (
        "# training: {r: 1}\n"
        "data:\n  train: a  # r: 1\n  eval: {hub: 'r: 1', split: r}\n"
        "model: 'lora: {r: 1}'\n"
        "scoring:\n  scorer: regex\n  pattern: |\n    lora: {r: 1}\n    training:\n      r: 1\n"
        "training:\n  # r: 1\n  rr: 1\n  'r': 1 # r: 1\n  kw: {r: 1}\n"
        'lora: {rr: 1, kw: {r: 1}, "r": 1}\n'
    )
    expected = text.replace("'r': 1 #", "'r': 2 #").replace('"r": 1}', '"r": 3}')
    wanted = Settings({"rr": 1, "kw": {"r": 1}, "r": 3}, {"rr": 1, "r": 2, "kw": {"r": 1}})
    assert expected == with_settings(text, wanted, WHERE)


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("begin", ["", "\ufeff", "---\n", "%YAML 1.2\n---\n", "\ufeff# ü\n\n"])
@pytest.mark.parametrize("end", ["\n", "", "\n\n\n", "\n...\n", "  # end", "\n# end"])
def test_file_as_editors_write_it(begin: str, end: str, line_break: str) -> None:
    """Line ends, byte order mark, document markers and the end of the file stay."""
    body = f"{begin}{DATA}lora: {{r: 8}}\ntraining:\n  a: 1\n  b: 'é'"
    wanted = Settings({"r": 4}, {"b": "é", "c": [1]})
    expected = body.replace("8}", "4}").replace("  a: 1\n", "")
    first = end.partition("\n")[0]
    tail = "\n  c: [1]"
    after = with_settings((body + end).replace("\n", line_break), wanted, WHERE)
    shown = expected + first + tail + end[len(first) :]
    assert shown.replace("\n", line_break) == after


def test_end_of_the_file() -> None:
    """What is removed at the end of a file without a last line break leaves none behind."""
    wanted = Settings(DEFAULT_LORA, {"a": 1})
    text = DATA + "training:\r\n  a: 1\r\n  b: 2  # c"
    assert DATA + "training:\r\n  a: 1" == with_settings(text, wanted, WHERE)
    wanted = Settings(DEFAULT_LORA, {})
    assert DATA + "training: {}" == with_settings(text, wanted, WHERE)


def test_text_with_its_line_breaks_kept() -> None:
    """A new key after a text block that keeps its line breaks does not change the text."""
    text = "training:\n  a: |+\n    x\n\n"
    assert text + "  b: 1\n" == training(text, a="x\n\n", b=1)
    assert "training:\n  a: y\n\n" == training(text, a="y")


def test_added_after_a_text_block() -> None:
    """A new key follows a text block directly, not the comments and blank lines after it."""
    text = "training:\n  a: >-\n    # text\n\n    x\n\n  # own\n\n"
    expected = text.replace("x\n", "x\n  b: 1\n")
    assert expected == training(text, a="# text\nx", b=1)


# anchors


def test_anchors_that_need_no_hand() -> None:
    """An alias gives way to a value, an anchor stays, a merged key is overridden."""
    text = "training: &t\n  a: &a 1  # a\n  b: *a\n  <<: {c: 3}\nlora: {<<: *t, d: &d [1], e: *d}\n"
    wanted = Settings({"a": 1, "b": 1, "c": 3, "d": [1], "e": [2]}, {"a": 1, "b": 2, "c": 4})
    expected = (
        "training: &t\n  a: &a 1  # a\n  b: 2\n  <<: {c: 3}\n  c: 4\n"
        "lora: {<<: *t, d: &d [1], e: [2], b: 1, c: 3}\n"
    )
    assert DATA + expected == with_settings(DATA + text, wanted, WHERE)


def test_anchor_used_in_the_same_sections() -> None:
    """When a value with a name changes, the places that use it get their own."""
    text = "lora: {a: &a 1, b: *a}\ntraining: &t {x: 1}\n"
    wanted = Settings({"a": 2, "b": 1}, {"x": 2})
    expected = "lora: {a: &a 2, b: 1}\ntraining: &t {x: 2}\n"
    assert DATA + expected == with_settings(DATA + text, wanted, WHERE)


def test_section_that_is_an_alias() -> None:
    """A section that is another's alias is written out."""
    text = DATA + "lora: &l {r: 1}\ntraining: *l # c\n"
    expected = DATA + "lora: &l {r: 1}\ntraining: {r: 2} # c\n"
    assert expected == with_settings(text, Settings({"r": 1}, {"r": 2}), WHERE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "lora: &l {a: &a 1}\nloop: {iterations: *a}\n",
            "s.ftloop.yaml:2: &a can't be changed, *a uses it elsewhere\n"
            "  Change it by hand: lora.a: 2.",
        ),
        (
            "lora:\n  a: 2\n  b: &b 1\nloop: {iterations: *b}\n",
            "s.ftloop.yaml:4: &b can't be changed, *b uses it elsewhere\n"
            "  Change it by hand: remove lora.b.",
        ),
        (
            "lora:\n  a: 1\n  <<:\n    b: 1\n    c: 2\n",
            "s.ftloop.yaml:4: b, c can't be removed, it comes from a merge key (<<)\n"
            "  Change it by hand: lora.a: 2, remove lora.b, remove lora.c.",
        ),
        (
            "lora:\n  a: 2\n  ? b\n  : 1\n",
            "s.ftloop.yaml:3: a key is not written as key: value\n"
            "  Change it by hand: remove lora.b.",
        ),
        (
            "lora:\n  ? b\n  : 1\n",
            "s.ftloop.yaml:3: a key is not written as key: value\n"
            "  Change it by hand: lora.a: 2, remove lora.b.",
        ),
        (
            "lora:\n  ? a # c\n  :\n    - 1\n",
            "s.ftloop.yaml:3: a comment parts a from its value\n  Change it by hand: lora.a: 2.",
        ),
    ],
)
def test_by_hand(text: str, message: str) -> None:
    """Where values are shared, or written as few do, the user is told what to change."""
    with pytest.raises(ConfigError) as caught:
        with_settings(DATA + text, Settings({"a": 2}, DEFAULT_TRAINING), WHERE)
    shown = str(caught.value).replace("remove lora.b, lora.a: 2", "lora.a: 2, remove lora.b")
    assert message in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DATA + "lora: {r: 8\n", "s.ftloop.yaml:"),
        (DATA + "a: *b\n", "s.ftloop.yaml:2: not YAML: found undefined alias"),
        (DATA + "lora: {a: !x 1}\n", "s.ftloop.yaml:1: not YAML: a value with a tag"),
        ("", "s.ftloop.yaml:1: wanted a loop's keys"),
        ("- a\n", "s.ftloop.yaml:1: wanted a loop's keys"),
        (DATA + "---\n" + DATA, "s.ftloop.yaml:2: not YAML: but found another document"),
    ],
)
def test_file_that_can_not_be_read(text: str, message: str) -> None:
    """A file that is no loop file any more is refused with the line."""
    with pytest.raises(ConfigError) as caught:
        with_settings(text, Settings({"a": 2}, {}), WHERE)
    assert message in str(caught.value)


def test_nothing_wrong_is_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were an edit to go wrong, the file would not be touched: the result is read again."""
    wanted = Settings({"r": 4}, DEFAULT_TRAINING)
    text = DATA + "lora: {r: 8}\n"
    monkeypatch.setattr(rewrite, "_written", lambda value, old="": "5")
    with pytest.raises(FtloopError, match="the edits come to no end"):
        with_settings(text, wanted, WHERE)
    monkeypatch.setattr(rewrite, "_edited", lambda *_: text)
    with pytest.raises(FtloopError, match="lora would not be as wanted"):
        with_settings(text, wanted, WHERE)
    monkeypatch.setattr(rewrite, "_edited", lambda *_: text.replace("a.jsonl", "b.jsonl"))
    with pytest.raises(FtloopError, match="data would change too") as caught:
        with_settings(text, wanted, WHERE)
    assert Location(WHERE) == caught.value.where


# what changed


def test_changes() -> None:
    """Each setting that differs is told with what it was and is; None where not stated."""
    before = Settings({"r": 8, "x": 1, "t": ["a"]}, {"lr": 0.1, "b": True, "n": None})
    after = Settings({"r": 16, "x": 1.0, "t": ("a",)}, {"b": 1, "new": {"a": 1}})
    assert (
        ("lora.r", 8, 16),
        ("training.lr", 0.1, None),
        ("training.b", True, 1),
        ("training.n", None, None),
        ("training.new", None, {"a": 1}),
    ) == changes(before, after)
    assert () == changes(before, before)


# any file, any settings

NAMES = ("r", "lora_alpha", "learning_rate", "target_modules", "kwargs", "größe", "no", "x y")

TEXTS = st.one_of(
    st.sampled_from(["all-linear", "no", "a #b", "a: b", "{x}", "'", '"', "1e3", "é", "- a", "~"]),
    st.text(st.characters(codec="utf-8"), max_size=6),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([2e-4, 5e-5, 0.1, 1.0, 1e6]),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=4,
)
GROUPS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5)
COMMENT = st.sampled_from(["", "", "  # c", " # a: 1, {", " #\t'tab'\t", '      # é # "'])
OWN_LINES = st.sampled_from(["", "", "\n", "  # own: 1\n", "# left\n", "\n      # {deep\n\n"])


class Section(NamedTuple):
    """A section's text, its values, and the lines in which each of its keys stands."""

    text: str
    values: dict[str, Any]
    lines: dict[str, str]
    comments: list[str]


def flow(draw: st.DrawFn, value: Any) -> str:
    """A value as anyone might write it in a line."""
    if isinstance(value, dict):
        space = draw(st.sampled_from(["", " "]))
        inner = ", ".join(f"{quoted(draw, k)}: {flow(draw, v)}" for k, v in value.items())
        return "{" + space + inner + space + "}"
    if isinstance(value, list):
        comma = draw(st.sampled_from([", ", " ,  "]))
        return "[" + comma.join(flow(draw, item) for item in value) + "]"
    if isinstance(value, str):
        return quoted(draw, value)
    if isinstance(value, float):
        return draw(st.sampled_from([repr, "{:.17e}".format]))(value)
    return json.dumps(value)


def quoted(draw: st.DrawFn, text: str) -> str:
    if text in {"all-linear", "é", *NAMES} - {"no"} and draw(st.booleans()):
        return text
    if text.isprintable() and draw(st.booleans()):
        return "'" + text.replace("'", "''") + "'"
    return rewrite._text(text, '"')


def block(draw: st.DrawFn, value: Any, indent: int) -> str:
    """A value after its key, in lines of its own where it can be."""
    pad = " " * indent
    comment = draw(COMMENT)
    if isinstance(value, dict) and value and draw(st.booleans()):
        lines = (f"{pad}  {quoted(draw, k)}:{block(draw, v, indent + 2)}" for k, v in value.items())
        return f"{comment}\n" + "".join(lines)
    if isinstance(value, list) and value and draw(st.booleans()):
        lines = (f"{pad}- {flow(draw, v)}{draw(COMMENT)}\n" for v in value)
        return f"{comment}\n" + "".join(lines)
    return f" {flow(draw, value)}{comment}\n"


@st.composite
def sections(draw: st.DrawFn, name: str) -> Section:
    values = draw(GROUPS)
    style = draw(st.sampled_from(["block", "block", "flow", "lines"]))
    if style == "flow" or not values:
        text = f"{name}: {flow(draw, values)}{draw(COMMENT)}\n"
        return Section(text, values, {}, [])
    own = [draw(OWN_LINES) for _ in values]
    if style == "lines":
        entries = [f"    {quoted(draw, k)}: {flow(draw, v)}" for k, v in values.items()]
        last = draw(st.sampled_from(["", ","]))
        shown = [
            f"{before}{entry}{',' if i + 1 < len(own) else last}{draw(COMMENT)}\n"
            for i, (before, entry) in enumerate(zip(own, entries, strict=True))
        ]
        return Section(f"{name}: {{{draw(COMMENT)}\n{''.join(shown)}  }}\n", values, {}, own)
    lines = {k: f"  {quoted(draw, k)}:{block(draw, v, 2)}" for k, v in values.items()}
    body = "".join(b + line for b, line in zip(own, lines.values(), strict=True))
    return Section(f"{name}:{draw(COMMENT)}\n{body}", values, lines, own)


@st.composite
def wanted_for(draw: st.DrawFn, values: dict[str, Any]) -> dict[str, Any]:
    """Other settings, some of them the old ones."""
    kept = {k: v for k, v in values.items() if draw(st.integers(0, 3))}
    return {**kept, **draw(GROUPS)} if draw(st.integers(0, 3)) else kept


HEADS = st.sampled_from(
    ["", "# r: 1\n\n", "---\n", "%YAML 1.2\n---\n# é\n", "model: 'lora: {r: 1}'\n"]
)
TAILS = st.sampled_from(
    ["", "# end", "loop: {iterations: 3}  # r: 1\n", "gates:\n  eval_loss: '<= 3'\n\n"]
)


@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_any_file(settings_of: Callable[[str], Settings], data: st.DataObject) -> None:
    """Any settings read back from any file; what stands around them, and equal ones, stay."""
    lora_, training_ = (data.draw(sections(name)) for name in ("lora", "training"))
    wanted = Settings(*(data.draw(wanted_for(s.values)) for s in (lora_, training_)))
    crlf = data.draw(st.sampled_from([str, lambda text: text.replace("\n", "\r\n")]))
    head, tail = crlf(data.draw(HEADS) + DATA), crlf(data.draw(TAILS))
    between = crlf("scoring: {scorer: exact} #\tr: 1\n")
    text = head + crlf(lora_.text) + between + crlf(training_.text) + tail

    after = with_settings(text, wanted, WHERE)

    assert rewrite._same(vars(wanted), vars(settings_of(after)))
    assert after == with_settings(after, wanted, WHERE)
    assert after.startswith(head)
    assert after.endswith(tail)
    assert 1 == after.count(between)
    first, second = after[len(head) : len(after) - len(tail)].split(between)
    for old, new, now in ((lora_, first, wanted.lora), (training_, second, wanted.training)):
        if rewrite._same(old.values, now):
            assert crlf(old.text) == new
        for name, lines in old.lines.items():
            if name in now and rewrite._same(old.values[name], now[name]):
                assert crlf(lines) in new
        for comment in filter(None, (own.strip() for own in old.comments)):
            assert comment in new


@given(data=st.data(), name=st.sampled_from(NAMES), value=VALUES)
@settings(deadline=None, max_examples=60)
def test_one_setting(data: st.DataObject, name: str, value: Any) -> None:
    """When one setting changes, the lines of all others are the same, in the same order."""
    part = data.draw(sections("training").filter(lambda s: s.lines))
    text = DATA + part.text
    wanted = Settings(DEFAULT_LORA, {**part.values, name: value})
    after = with_settings(text, wanted, WHERE)
    others = [line for key, line in part.lines.items() if key != name]
    at = 0
    for line in others:
        at = after.index(line, at) + len(line)
    there_and_back = with_settings(after, Settings(DEFAULT_LORA, part.values), WHERE)
    if name not in part.values:
        assert text == there_and_back
