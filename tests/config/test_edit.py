"""Settings changed in a loop file's text: they read back as wanted, every other byte stays."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.config import edit, loop_yaml
from pytest_ftloop.config.edit import changes, with_settings
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.config.sections import DEFAULT_LORA, DEFAULT_TRAINING
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.records import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[str], Settings]

DATA = "data: {train: a.jsonl, eval: b.jsonl}\n"
WHERE = "s.ftloop.yaml"
QUICKSTART = Path(__file__).parents[2] / "examples/quickstart/sentiment.ftloop.yaml"


@pytest.fixture(scope="module")
def read() -> Read:
    """The settings of a loop file's text, by the reader that the loop itself uses."""

    def settings_of(text: str) -> Settings:
        values, _ = loop_yaml.parse(text, WHERE)
        defaults = {"lora": DEFAULT_LORA, "training": DEFAULT_TRAINING}
        return Settings(**{group: values.get(group, of) for group, of in defaults.items()})

    return settings_of


def edited(text: str, group: str, **wanted: Any) -> str:
    """A text without `data`, with one of its sections changed; the other has the defaults."""
    groups = {"lora": DEFAULT_LORA, "training": DEFAULT_TRAINING, group: wanted}
    after = with_settings(DATA + text, Settings(**groups), WHERE)
    assert after.startswith(DATA)
    return after[len(DATA) :]


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, true and 1 not being so."""
    if isinstance(one, dict):
        return one == other and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return one == other and all(itertools.starmap(same, zip(one, other, strict=True)))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


# one value


def test_quickstart() -> None:
    """In the quickstart's file the bytes of one value change, and none other."""
    text = QUICKSTART.read_text(encoding="utf-8")
    before = read_loop_file(QUICKSTART).settings
    after = Settings(before.lora, {**before.training, "learning_rate": 1.5e-3})
    assert text.replace("5.0e-4", "1.5e-3") == with_settings(text, after, WHERE)
    assert text == with_settings(text, before, WHERE)


def test_documented_form() -> None:
    """In sections of one line, too, only the values change."""
    text = (
        "lora: {r: 8, lora_alpha : 16, 'target_modules':all-linear }  # r: 8\n"
        "training: {learning_rate: 2.0e-4, num_train_epochs: 1}\n"
    )
    wanted = Settings(
        {"r": 32, "lora_alpha": 64, "target_modules": "all-linear"},
        {"learning_rate": 1e-3, "num_train_epochs": 2},
    )
    expected = (
        "lora: {r: 32, lora_alpha : 64, 'target_modules':all-linear }  # r: 8\n"
        "training: {learning_rate: 1.0e-3, num_train_epochs: 2}\n"
    )
    assert DATA + expected == with_settings(DATA + text, wanted, WHERE)


@pytest.mark.parametrize(
    ("old", "value", "new"),
    [
        ("2e-4", 0.0002, "2e-4"),
        ("1.0", 1, "1.0"),
        ("0x10", 16, "0x10"),
        ("[a, 'b' ]", ("a", "b"), "[a, 'b' ]"),
        ("~", None, "~"),
        ("2e-4", 0.0005, "5.0e-4"),
        ("2.0e-4", 0.00015, "1.5e-4"),
        ("2.0e-4", 0.05, "5.0e-2"),
        ("0.0002", 0.00015, "0.00015"),
        ("0.0002", 1.5e-12, "1.5e-12"),
        ("1", 1e-5, "1.0e-5"),
        ("1", 2.5, "2.5"),
        ("1", 0.0, "0.0"),
        ("1", 100000.0, "100000.0"),
        ("1e3", -1500.0, "-1.5e+3"),
        ("0.5", 1e22, "1.0e+22"),
        ("1.0", 3, "3"),
        ("1", True, "true"),
        ("true", 1, "1"),
        ("false", None, "null"),
        ("linear", "cosine_with_restarts", "cosine_with_restarts"),
        ("'linear'", "cosine", "cosine"),
        ("1", "no", '"no"'),
        ("1", "NULL", '"NULL"'),
        ("1", "1e3", '"1e3"'),
        ("1", "2024-01-01", '"2024-01-01"'),
        ("1", "", '""'),
        ("1", "a: b", '"a: b"'),
        ("1", "a #b", '"a #b"'),
        ("1", "module:function", "module:function"),
        ("1", 'say "\\"\n\x85😀', '"say \\"\\\\\\"\\U0000000a\\U00000085😀"'),
        ("[a, b]", "all-linear", "all-linear"),
        ("all-linear", ["q_proj", "no"], '[q_proj, "no"]'),
        ("1", {"cycles": 0.5, "b": [1, {}], "on": None}, '{cycles: 0.5, b: [1, {}], "on": null}'),
        ("{b: 1}", {}, "{}"),
    ],
)  # fmt: skip
def test_value(read: Read, old: str, value: Any, new: str) -> None:
    """An equal value stays as written; another is written as people do, for YAML 1.1 and 1.2."""
    text = "training:\n  a: {}  # a\n  b: 2\n"
    shown = edited(text.format(old), "training", a=value, b=2)
    assert text.format(new) == shown
    value = list(value) if isinstance(value, tuple) else value
    assert same({"a": value, "b": 2}, read(DATA + shown).training)
    if new != old:  # PyYAML reads YAML 1.1, in which 2e-4 is a text
        assert same(value, yaml.safe_load(shown)["training"]["a"])


# settings and sections that are added


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora: {r: 8}\n", "lora: {r: 8, x: 1, z: a}\n"),
        ("lora: { r: 8 }  # c\n", "lora: { r: 8, x: 1, z: a }  # c\n"),
        ("lora: {r: 8, }\n", "lora: {r: 8, x: 1, z: a, }\n"),
        ('"lora":\n  {"r":8}\n', '"lora":\n  {"r":8, x: 1, z: a}\n'),
        ("lora:\n  r: 8", "lora:\n  r: 8\n  x: 1\n  z: a"),
        ("lora:\r\n  r: 8", "lora:\r\n  r: 8\n  x: 1\n  z: a"),
        (
            "lora:  # l\n    # r\n    r: 8  # c\n    # d\n\ngates: {}\n",
            "lora:  # l\n    # r\n    r: 8  # c\n    x: 1\n    z: a\n    # d\n\ngates: {}\n",
        ),
        ("lora:\n  'r': [8\n    ]\n", "lora:\n  'r': [8\n    ]\n  x: 1\n  z: a\n"),
        ("lora:\n  r:\n    - - 8\n  # c\n", "lora:\n  r:\n    - - 8\n  x: 1\n  z: a\n  # c\n"),
        ("lora:\n  r:\n  - a: 8\n", "lora:\n  r:\n  - a: 8\n  x: 1\n  z: a\n"),
    ],
)
def test_added_setting(text: str, expected: str) -> None:
    """New settings follow the section's last one, written as that is."""
    value = yaml.safe_load(text)["lora"]["r"]
    assert expected == edited(text, "lora", r=value, x=1, z="a")


@pytest.mark.parametrize("text", ["lora: {}\n", "lora: {}  # c\n", "lora: { # c\n  }\n"])
def test_added_to_an_empty_section(text: str) -> None:
    """An empty section is filled."""
    assert text.replace("{", "{r: 8, x: a") == edited(text, "lora", r=8, x="a")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DATA, DATA + "lora: {r: 4}\ntraining: {max_steps: 3}\n"),
        (DATA[:-1], DATA + "lora: {r: 4}\ntraining: {max_steps: 3}"),
        ("\ufeff" + DATA, f"\ufeff{DATA}lora: {{r: 4}}\ntraining: {{max_steps: 3}}\n"),
        (
            "data:\n  train: a\n  eval: b\n  # tags: c\n\n# the model\nmodel: gpt2\n",
            "data:\n  train: a\n  eval: b\nlora: {r: 4}\ntraining: {max_steps: 3}\n"
            "  # tags: c\n\n# the model\nmodel: gpt2\n",
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
        (DATA + "lora:\n  r: 4", DATA + "lora:\n  r: 4\ntraining: {max_steps: 3}"),
    ],
)
def test_added_section(read: Read, text: str, expected: str) -> None:
    """A section that is missing follows the data, in one line."""
    wanted = Settings(lora={"r": 4}, training={"max_steps": 3})
    assert expected == with_settings(text, wanted, WHERE)
    assert wanted == read(expected)


def test_defaults_need_not_be_stated() -> None:
    """A file that relies on the tool's defaults stays as it is where these are wanted."""
    assert DATA == with_settings(DATA, Settings(DEFAULT_LORA, DEFAULT_TRAINING), WHERE)


# what is changed by hand

CURE = (
    "\n  Only a value in one line, without an anchor or alias, is edited for you. "
    "The file is unchanged."
)
ADD = "2: lora.a is not stated and should be 2: add it by hand"
BY_HAND = {
    # what: (text from line 2 on, settings wanted under lora, message)
    "list over lines": (
        "lora:\n  a:\n    - x\n    - z\n",
        {"a": ["x"]},
        "3: lora.a is [x, z] and should be [x]: change it by hand",
    ),
    "list in brackets over lines": (
        "lora: {a: [x,\n  z]}\n",
        {"a": ["x"]},
        "2: lora.a is [x, z] and should be [x]: change it by hand",
    ),
    "list at the end": ("lora:\n  a:\n    - x", {"a": 1}, "3: lora.a is [x] and should be 1: ch"),
    "keys": ("lora:\n  a:\n    b: 1", {"a": {"b": 2}}, "3: lora.a is {b: 1} and should be {b: 2}"),
    "text over lines": ("lora:\n  a: b\n    c\n", {"a": "d"}, '3: lora.a is "b c" and should be d'),
    "text block": ("lora:\n  a: |\n    b\n", {"a": "d"}, '3: lora.a is "b\\U0000000a" and should'),
    "text block cut short": ("lora:\n  a: |", {"a": "d"}, '3: lora.a is "" and should be d: chan'),
    "nothing written": ("lora:\n  a:\n", {"a": 1}, "3: lora.a is null and should be 1: change it"),
    "tag": ("lora:\n  a: !!str 1\n", {"a": 2}, '3: lora.a is "1" and should be 2: change it by'),
    "anchor": ("lora:\n  a: &a 1\n  b: *a\n", {"a": 2, "b": 1}, "3: lora.a is 1 and should be 2:"),
    "alias": ("lora:\n  b: &a 1\n  a: *a\n", {"a": 2, "b": 1}, "4: lora.a is 1 and should be 2:"),
    "anchor used elsewhere": (
        "lora: {a: [&a 1]}\nloop: {iterations: *a}\n",
        {"a": [2]},
        "2: lora.a is [1] and should be [2]: change it by hand",
    ),
    "section used elsewhere": (
        "lora: &l {a: 1}\ntraining: *l\n",
        {"a": 2},
        "2: lora.a is 1 and should be 2: change it by hand",
    ),
    "section from elsewhere": (
        "training: &l {a: 1}\nlora: *l\n",
        {"a": 2},
        "2: lora.a is 1 and should be 2: change it by hand",
    ),
    "section that is merged": ("<<: {lora: {a: 1}}\n", {"a": 2}, "1: lora.a is 1 and should be 2:"),
    "setting to remove": (
        "lora:\n  b: 1\n  a: 1\n",
        {"a": 1},
        "3: lora.b is 1 and should not be stated: remove it by hand",
    ),
    "setting to remove from a line": (
        "lora: {b: 1}\n",
        {},
        "2: lora.b is 1 and should not be stated: remove it by hand",
    ),
    "added after an alias": ("lora:\n  b: &b 1\n  c: *b\n", {"a": 2, "b": 1, "c": 1}, ADD),
    "added after a text block": ("lora:\n  b: |\n    c\n", {"a": 2, "b": "c\n"}, ADD),
    "added to a key of two lines": ("lora:\n  ? b\n  : 1\n", {"a": 2, "b": 1}, ADD),
    "added after a bracket's comment": ("lora: {# b\n  }\n", {"a": 2}, ADD),
}


@pytest.mark.parametrize(("text", "wanted", "message"), BY_HAND.values(), ids=BY_HAND.keys())
def test_by_hand(text: str, wanted: dict[str, Any], message: str) -> None:
    """All else is refused with file and line, the setting, its value and the one to write."""
    training = yaml.safe_load(text).get("training", DEFAULT_TRAINING)
    with pytest.raises(ConfigError) as caught:
        with_settings(DATA + text, Settings(wanted, training), WHERE)
    shown = str(caught.value)
    assert f"{WHERE}:{message}" == shown[: len(f"{WHERE}:{message}")]
    assert shown.endswith(f" by hand{CURE}")
    assert 1 == shown.count(WHERE)


def test_several_by_hand() -> None:
    """Each setting to change by hand has its line in the error; what could be written has none."""
    text = DATA + "lora:\n  a: 1\n  b: &b 2\ntraining: {c: 3,\n  d: [4,\n 5], e: 6}\n"
    with pytest.raises(ConfigError) as caught:
        with_settings(text, Settings({"a": 5, "b": 5}, {"c": 5, "d": 5}), WHERE)
    assert str(caught.value) == (
        "s.ftloop.yaml:4: lora.b is 2 and should be 5: change it by hand\n"
        "s.ftloop.yaml:6: training.d is [4, 5] and should be 5: change it by hand\n"
        "s.ftloop.yaml:7: training.e is 6 and should not be stated: remove it by hand" + CURE
    )


def test_missing_section_by_hand() -> None:
    """A section that can't be added is stated as a whole."""
    text = "? data\n: {train: a, eval: b}\n"
    with pytest.raises(
        ConfigError, match=r"^s\.ftloop\.yaml:1: lora is not stated and should be {r:"
    ):
        with_settings(text, Settings({"r": 4}, DEFAULT_TRAINING), WHERE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DATA + "lora: {r: 8\n", "2: not YAML: expected ',' or '}', but got '<stream end>'"),
        (DATA + "lora:\n\tr: 8\n", "3: not YAML: found character '\\t' that cannot start any"),
        (DATA + "lora: {a: *b}\n", "2: not YAML: found undefined alias 'b'"),
        (DATA + "lora: {a: !x 1}\n", "2: a value with a tag is not read: !x"),
        (DATA + "lora:\n", "2: lora: wanted keys with values"),
        ("- a\n", "1: wanted a loop's keys"),
        ("", "1: wanted a loop's keys"),
        (DATA + "---\n" + DATA, "2: not YAML: but found another document"),
    ],
)
def test_file_that_can_not_be_read(tmp_path: Path, text: str, message: str) -> None:
    """A file that is no loop file any more is refused in the words of the loop's own reader."""
    refusals = []

    def read(text: str) -> Settings:
        Path(tmp_path, WHERE).write_bytes(text.encode())
        return read_loop_file(Path(tmp_path, WHERE)).settings

    for reads in (lambda: with_settings(text, Settings({"a": 2}, {}), WHERE), lambda: read(text)):
        with pytest.raises(ConfigError) as caught:
            reads()
        refusals.append(str(caught.value).partition(f"{WHERE}:")[2])
        assert refusals[-1].startswith(message)
    assert "not YAML" not in message or refusals[0] == refusals[1]


def test_a_wrong_edit_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were an edit to go wrong, its text would not be returned: it is read again first."""
    text = DATA + "lora: {r: 8}\n"
    for wrong in (text, text.replace("a.jsonl", "b.jsonl").replace("8", "4"), "{", ""):
        monkeypatch.setattr(edit, "_applied", lambda *_, wrong=wrong: wrong)
        with pytest.raises(ConfigError, match=r":2: lora\.r is 8 and should be 4: "):
            with_settings(text, Settings({"r": 4}, DEFAULT_TRAINING), WHERE)


def test_changes() -> None:
    """Each setting that differs has what it was and is; None where it is not stated."""
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

NAMES = ("r", "lora_alpha", "learning_rate", "größe", "no", "x y", "a", "b")
TEXTS = st.sampled_from(
    ["all-linear", "no", "a #b", "a: b", "{x}", "'", '"', "1e3", "é", "- a", "~", "", "2024-01-01"]
) | st.text(st.characters(codec="utf-8"), max_size=6)
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([2e-4, 0.1, 1.0, 1e6])
SCALARS = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | FLOATS | TEXTS
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(TEXTS, SCALARS, max_size=2)

# Values as people write them. Those of ONE_LINE are replaced, those of OTHERS by hand.
ONE_LINE = st.sampled_from(
    ["8", "0x1F", "2.0e-4", "2e-4", "0.0002", ".5", "true", "~", "linear", "a#b", "2024-01-01"]
) | st.sampled_from(["'it''s # 1'", '"a\\n,}"', "[a, 'b' ]", "{ k: [1, 2] }", "[]", "{}"])
OTHERS = st.sampled_from(
    ["[1,\n      2]", "{k: 1,  # {\n      }", "a\n      b", "'a\n\n      b'", "&x 1", "&x [1]"]
)
BLOCKS = st.sampled_from(
    ["\n      - r: 8\n      - 2  # c\n", " |\n      r: 8 # no comment\n\n", "\n      r: {a: 8}\n"]
)
COMMENTS = st.sampled_from(["", "", "  # c", " # a: 1, {", " #\t'tab'\t", '      # é # "'])
OWN_LINES = st.sampled_from(["", "", "\n", "    # own: 1\n", "# left\n", "\n      # {deep\n\n"])
HEADS = st.sampled_from(["", "\ufeff", "# r: 1\n\n", "---\n", "%YAML 1.2\n---\n# é\n"])
TAILS = st.sampled_from(["", "# end", "loop: {iterations: 3}  # r: 1\n", "model: 'r: {r: 1}'\n\n"])


class File(NamedTuple):
    """A loop file in pieces; `at` is the piece that is each setting's value, where in one line."""

    pieces: list[str]
    at: dict[str, int]
    line_break: str

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@st.composite
def files(draw: st.DrawFn) -> File:
    """A loop file with two sections, each in block style, in one line, or in braces over lines."""
    pieces, at = [draw(HEADS), DATA], {}
    for group in draw(st.permutations(["lora", "training"])):
        names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
        style = draw(st.sampled_from(["block", "line", "braces"])) if names else "line"
        indent = draw(st.sampled_from(["  ", "    "]))
        begin = {"block": draw(COMMENTS) + "\n", "line": " {", "braces": " {" + draw(COMMENTS)}
        pieces.append(f"{group}:{begin[style]}" + "\n" * (style == "braces"))
        for number, name in enumerate(names):
            key = draw(st.sampled_from([f"'{name}'", f'"{name}"'] + [name] * (name != "no")))
            own = draw(OWN_LINES) if style != "line" else ""
            pieces.append(f"{own}{indent if style != 'line' else ''}{key}:")
            if style == "block" and draw(st.integers(0, 3)) == 0:
                pieces.append(draw(BLOCKS))
                continue
            others = ONE_LINE if style == "line" else ONE_LINE | OTHERS
            value = draw(others).replace("&x", f"&{group}{number}")
            if not (value[0] == "&" or "\n" in value):
                at[f"{group}.{name}"] = len(pieces) + 1
            comma = "," * (style == "braces" or (style == "line" and number + 1 < len(names)))
            rest = " " if style == "line" else f"{draw(COMMENTS)}\n"
            pieces += [draw(st.sampled_from([" ", "   "])), value, f" {comma}{rest}"]
        pieces.append({"block": "", "line": "}\n", "braces": "  }\n"}[style])
    line_break = draw(st.sampled_from(["\n", "\r\n"]))
    pieces.append(draw(TAILS))
    return File([piece.replace("\n", line_break) for piece in pieces], at, line_break)


def adjusted(before: Settings, wanted: dict[str, Any]) -> Settings:
    """The settings with others in place of some, by their dotted names."""
    groups = {"lora": dict(before.lora), "training": dict(before.training)}
    for setting, value in wanted.items():
        group, _, name = setting.partition(".")
        groups[group][name] = value
    return Settings(**groups)


def result(text: str, wanted: Settings) -> tuple[str, list[str]]:
    """The edited text, or the settings that are refused."""
    try:
        return with_settings(text, wanted, WHERE), []
    except ConfigError as error:
        *named, cure = str(error).splitlines()
    assert CURE == f"\n{cure}"
    return "", [re.split(r":\d+: | (?:is|by hand)\b", line)[1] for line in named]


@given(file=files(), data=st.data())
@settings(deadline=None, max_examples=100)
def test_only_the_values_change(read: Read, file: File, data: st.DataObject) -> None:
    """Whatever surrounds the values that change stays byte for byte, and they read back."""
    before = read(file.text)
    assert file.text == with_settings(file.text, before, WHERE)
    wanted = data.draw(st.dictionaries(st.sampled_from(sorted(file.at)), VALUES)) if file.at else {}
    after = with_settings(file.text, adjusted(before, wanted), WHERE)

    assert same(vars(adjusted(before, wanted)), vars(read(after)))
    changed = {s for s, v in wanted.items() if not same({"_": before.get(s)}, {"_": v})}
    places = {file.at[setting]: setting for setting in changed}
    pattern = "".join(
        r"([^\r\n]*?)" if number in places else re.escape(piece)
        for number, piece in enumerate(file.pieces)
    )
    found = re.fullmatch(pattern, after)
    assert found
    for written, (_, setting) in zip(found.groups(), sorted(places.items()), strict=True):
        assert same({"_": wanted[setting]}, {"_": yaml.safe_load(written)})


@given(file=files(), data=st.data(), value=VALUES)
@settings(deadline=None, max_examples=100)
def test_one_setting_is_added(read: Read, file: File, data: st.DataObject, value: Any) -> None:
    """A new setting is an insertion in one place, a line of its own in a block; or by hand."""
    before = read(file.text)
    setting = data.draw(st.sampled_from(["lora.new", "training.new", "lora.on"]))
    wanted = adjusted(before, {setting: value})
    after, refused = result(file.text, wanted)
    if refused:
        assert [setting] == refused
        return
    assert same(vars(wanted), vars(read(after)))
    length = len(after) - len(file.text)
    inserted = {
        after[i : i + length]
        for i in range(len(file.text) + 1)
        if after[:i] + after[i + length :] == file.text
    }
    assert inserted
    assert max(text.count("\n") for text in inserted) <= 1


@given(file=files(), lora=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3))
@settings(deadline=None, max_examples=100)
def test_any_settings(read: Read, file: File, lora: dict[str, Any]) -> None:
    """Any settings are either read back from the edited text, or all that prevents it is named."""
    before = read(file.text)
    wanted = Settings(lora, before.training)
    differences = {setting for setting, _, _ in changes(before, wanted)}
    after, refused = result(file.text, wanted)
    removed = {f"lora.{name}" for name in before.lora.keys() - lora.keys()}
    if refused:
        assert removed <= set(refused) <= differences
        assert not set(refused) & file.at.keys() - removed
    else:
        assert not removed
        assert same(vars(wanted), vars(read(after)))
