"""How rows become examples, and what is said of rows that can't."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.sources import Columns
from pytest_ftloop.core.errors import ConfigError, DataError, Location
from pytest_ftloop.data.examples import load
from pytest_ftloop.data.sources import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str, str | bytes], Path]
from tests.data.data_rows import CSV, ROWS, at, jsonl, parquet, refused, rows_of

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_every_kind_of_file_says_the_same(tmp_path: Path, write: Write) -> None:
    """The same rows as jsonl, json, csv and parquet are the same examples with the same hash.

    An iteration is up to date whatever the file is called: what is trained on did not change.
    """
    write("t.jsonl", jsonl(ROWS))
    write("t.json", json.dumps(ROWS))
    write("t.csv", CSV)
    parquet(tmp_path / "t.parquet", ROWS)
    sets = [rows_of(f"t.{kind}", tmp_path) for kind in ("jsonl", "json", "csv", "parquet")]
    assert 1 == len({s.sha256 for s in sets})
    for s in sets:
        assert [row["id"] for row in ROWS] == [e.id for e in s.examples]
        assert [("maths", "easy"), ("look",), ()] == [e.tags for e in s.examples]
        assert [row["completion"] for row in ROWS] == [e.expected for e in s.examples]


def test_example_has_its_parts(write: Write) -> None:
    """An example keeps what trl reads, the display texts, and the place it came from."""
    path = write("t.jsonl", "\n" + jsonl([{**ROWS[0], "note": "ours", "choices": "3;4"}]))
    (example,) = rows_of(path).examples
    assert {"prompt": "2+2?", "completion": "4"} == example.row
    assert ("2+2?", "4", ("3", "4")) == (example.prompt, example.expected, example.choices)
    assert Location(str(path), 2) == example.where


def test_place_is_relative_to_the_working_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file:line can be clicked: it starts from where pytest runs, not from the loop's folder."""
    write("loops/data/t.jsonl", "{}\n")
    monkeypatch.chdir(tmp_path)
    error = refused("data/t.jsonl", tmp_path / "loops")
    assert "loops/data/t.jsonl:1: wanted" == str(error)[:28]


def test_hub_layout_folder(write: Write, tmp_path: Path) -> None:
    """A folder in the hub's layout is read by split, that of the role unless one is named."""
    write("sets/mine/train.jsonl", jsonl(ROWS))
    write("sets/mine/test.jsonl", jsonl(ROWS[:1]))
    assert 3 == len(rows_of("sets/mine", tmp_path).examples)
    assert 1 == len(rows_of("sets/mine", tmp_path, role="eval").examples)
    assert 1 == len(rows_of({"hub": "sets/mine"}, tmp_path, role="eval").examples)
    named = rows_of({"hub": "sets/mine", "split": "train"}, tmp_path, role="eval")
    assert (3, "sets/mine[train], row 1") == (len(named.examples), str(named.examples[0].where))


def test_missing_split_is_an_error(write: Write, tmp_path: Path) -> None:
    """A folder without an eval split is not silently evaluated on its train split."""
    write("mine/train.jsonl", jsonl(ROWS))
    with pytest.raises(DataError, match=r"'mine' \(split eval\) could not be loaded"):
        rows_of({"hub": "mine"}, tmp_path, role="eval")


def test_hub_id_that_is_a_misspelt_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that looks like a hub id names the file that was probably meant."""
    datasets = pytest.importorskip("datasets")

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network\ndetails")

    monkeypatch.setattr(datasets, "get_dataset_split_names", offline)
    write("data/train.jsonl", jsonl(ROWS))
    error = refused("data/train.jsonlines", tmp_path)
    assert "data 'data/train.jsonlines' (split train) could not be loaded: no network" == str(
        error.message
    )
    assert "data/train.jsonl'?" in error.cure


def test_function(write: Write, tmp_path: Path) -> None:
    """`module:function` is looked for beside the loop file and gives rows; sys.path is restored."""
    write("my_rows.py", "def train():\n    yield {'prompt': 'p', 'completion': 'c'}\n")
    before = list(sys.path)
    (example,) = rows_of("my_rows:train", tmp_path).examples
    assert ("p", "my_rows:train, row 1") == (example.prompt, str(example.where))
    assert before == sys.path


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('no file')", "data function '{}:train' raised ValueError: no file"),
        ("yield 1 / 0", "data function '{}:train' raised ZeroDivisionError: division by zero"),
        ("return None", "data function '{}:train': wanted rows, found NoneType"),
        ("return ['text']", "wanted a row with named columns, found str"),
        ("return []", "the train set {}:train has no rows"),
        ("return {'prompt': 'p'}", "wanted a row with named columns, found str"),
    ],
)
def test_function_gives_junk(write: Write, tmp_path: Path, body: str, message: str) -> None:
    """A data function that raises or returns anything but rows is a DataError, not a traceback."""
    module = f"junk_rows_{abs(hash(body))}"
    write(f"{module}.py", f"def train():\n    {body}\n")
    assert message.format(module) in str(refused(f"{module}:train", tmp_path))


def test_function_is_missing(write: Write, tmp_path: Path) -> None:
    """A misspelt function is guessed; a missing module is named."""
    write("some_rows.py", "def train():\n    return []\n")
    with pytest.raises(ConfigError) as caught:
        rows_of("some_rows:trian", tmp_path)
    assert "data function 'some_rows:trian': some_rows has no function 'trian'" == str(
        caught.value.message
    )
    assert "Did you mean 'train'?" == caught.value.cure
    with pytest.raises(ConfigError, match="there is no module 'no_such_rows'"):
        rows_of("no_such_rows:train", tmp_path)


def test_function_of_another_loop(write: Write, tmp_path: Path) -> None:
    """Of two loops with a module of the same name, each gets its own rows."""
    for folder in ("one", "two"):
        write(f"{folder}/twin_rows.py", f"def t():\n    return [{{'text': '{folder}'}}]\n")
    for folder in ("one", "two", "one"):
        assert folder == rows_of("twin_rows:t", tmp_path / folder).examples[0].row["text"]


def test_live_rows() -> None:
    """Rows at hand are taken as they are; their place is their number."""
    train = rows_of(ROWS)
    assert ("list", 3, "list, row 2") == (
        train.source,
        len(train.examples),
        str(train.examples[1].where),
    )


def test_datasets_object_with_null_columns(tmp_path: Path) -> None:
    """A null column of a `datasets.Dataset` counts as absent: same ids, tags, content, hash."""
    import datasets

    rows = [{"prompt": "p", "completion": "c"}, {"prompt": "q", "completion": "d", "tags": ["x"]}]
    nulls = {"id": None, "tags": None, "text": None, "messages": None, "choices": None}
    live = datasets.Dataset.from_list([{**nulls, **row} for row in rows])
    plain = rows_of(rows)
    assert plain.sha256 == rows_of(live).sha256
    parquet(tmp_path / "t.parquet", [{**nulls, **row} for row in rows])
    assert plain.sha256 == rows_of("t.parquet", tmp_path).sha256
    assert "Dataset" == rows_of(live).source


def test_null_keys_of_messages_count_as_absent(tmp_path: Path) -> None:
    """The null keys that parquet adds to each message don't make other examples of them."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
    chats = [{"messages": CHAT}, {"messages": [CHAT[0], call]}]
    parquet(tmp_path / "t.parquet", chats)
    read = rows_of("t.parquet", tmp_path)
    assert CHAT == read.examples[0].row["messages"]
    assert rows_of(chats).sha256 == read.sha256


@pytest.mark.parametrize("source", [5, ["text"], [None], object()])
def test_live_junk(source: Any) -> None:
    """What is no rows is a DataError."""
    assert "wanted" in refused(source).message


def test_missing_file_is_guessed(write: Write, tmp_path: Path) -> None:
    """A misspelt file names the nearest one in its folder, at the line of the loop file."""
    write("data/train.jsonl", jsonl(ROWS))
    where = Location("s.ftloop.yaml", 3)
    with pytest.raises(DataError) as caught:
        load("data/trian.jsonl", "train", tmp_path, Columns(), where)
    assert (where, "Did you mean 'train.jsonl'?") == (caught.value.where, caught.value.cure)
    assert "Looked for" in refused("nowhere/t.csv", tmp_path).cure


@pytest.mark.parametrize("source", ["what is this?", "a/b/c/d", "x:y:z", ""])
def test_source_that_is_nothing(source: str, tmp_path: Path) -> None:
    """A text that can be no source is refused without asking the network."""
    (tmp_path / "file").touch()
    with pytest.raises(DataError):
        rows_of(source, tmp_path)


def test_description_holds_no_path_of_this_machine(tmp_path: Path) -> None:
    """What the log says of a source is the same on every machine."""
    inside, outside = tmp_path / "loops/data/t.jsonl", tmp_path / "t.jsonl"
    assert "data/t.jsonl" == describe(str(inside), tmp_path / "loops")
    assert "t.jsonl" == describe(outside, tmp_path / "loops")
    assert "hub=sets split=train" == describe(
        {"hub": str(tmp_path / "sets"), "split": "train"}, tmp_path
    )


# forms


@pytest.mark.parametrize(
    ("row", "prompt", "expected"),
    [
        ({"text": "Once."}, None, None),
        ({"prompt": "p", "completion": " c"}, "p", " c"),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, "user: Hi", "Hello"),
        ({"messages": CHAT}, "user: Hi", "Hello"),
        ({"messages": CHAT, "tools": [{"name": "f"}]}, "user: Hi", "Hello"),
    ],
)
def test_forms(row: dict[str, Any], prompt: str | None, expected: str | None) -> None:
    """Text, prompt with completion (as text or messages) and messages are trl's forms."""
    (example,) = rows_of([row]).examples
    assert (row, prompt, expected) == (example.row, example.prompt, example.expected)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p"}, "wanted the columns prompt and completion, found no completion"),
        ({"completion": "c"}, "wanted the columns prompt and completion, found no prompt"),
        ({"prompt": "p", "completion": None}, "found no completion"),
        ({"prompt": "p", "completion": ""}, "the completion is empty"),
        ({"prompt": "p", "completion": []}, "completion is an empty list"),
        ({"prompt": "p", "completion": 4}, "wanted text or a list of messages in completion"),
        ({"prompt": "p", "completion": CHAT[1:]}, "must both be text or both messages"),
        ({"prompt": ["p"], "completion": CHAT}, 'wanted messages {"role", "content"} in prompt'),
        ({"messages": "Hi"}, "wanted a list of messages in messages, found str"),
        ({"messages": [{"role": "user"}]}, 'wanted messages {"role", "content"}'),
        ({"text": " \n"}, "the text is empty"),
        ({"text": CHAT}, "wanted text in text, found list"),
        ({"text": 5}, "wanted text in text, found int"),
        ({"question": "q", "answer": "a"}, "found question, answer"),
        ({}, "found none"),
        ({"text": "a \ud83d b"}, "half a character: the surrogate '\\ud83d' is unpaired"),
        ({"text": "a", "tags": "\ud83d"}, "half a character"),
        ({"text": "a", "id": "\udc00"}, "half a character"),
        ({"text": "a", "choices": 5}, "wanted a list of candidates in choices, found int"),
    ],
)
def test_faulty_row(row: dict[str, Any], message: str) -> None:
    """A row that trl could not train on is refused with its number, before anything is loaded."""
    error = refused([row])
    assert message in error.message
    assert "list, row 1" == str(error.where)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"prompt": "p", "completion": "c"}, {"text": "t"}],
            "mixes forms: the first row is prompt/completion, this one is text",
        ),
        (
            [{"prompt": "p", "completion": "c"}, {"prompt": CHAT[:1], "completion": CHAT[1:]}],
            "the first row is prompt/completion, this one is prompt/completion as messages",
        ),
        ([{"messages": CHAT}, {"text": "t"}], "the first row is messages, this one is text"),
    ],
)
def test_mixed_forms(rows: list[dict[str, Any]], message: str) -> None:
    """All rows must be of one form; the first odd one is named."""
    error = refused(rows)
    assert message in error.message
    assert "list, row 2" == str(error.where)


def test_text_column_of_another_name() -> None:
    """`dataset_text_field` names the text column."""
    assert {"body": "t"} == rows_of([{"body": "t"}], text="body").examples[0].row
    assert "input_ids, or body; found text" in refused([{"text": "t"}], text="body").message


def test_choices_keep_their_spaces() -> None:
    """A candidate is scored as it stands: its leading space is part of it."""
    both = rows_of([{"text": "a", "choices": c} for c in ([" yes", " no"], " yes; no")])
    assert {(" yes", " no")} == {e.choices for e in both.examples}


# ids


def test_ids_from_a_column() -> None:
    """A column `id`, or the one that is named, gives the ids; numbers become texts."""
    rows = [{"id": 1, "key": "k1", "text": "a"}, {"id": 2, "key": "k2", "text": "b"}]
    assert ["1", "2"] == [e.id for e in rows_of(rows).examples]
    assert ["k1", "k2"] == [e.id for e in rows_of(rows, id="key").examples]


def test_ids_from_content() -> None:
    """Without a column the content is the id; a duplicate row gets a suffix, so both count."""
    rows = [{"text": "a"}, {"text": "b"}, {"text": "a"}, {"text": "a"}]
    first, second, third, fourth = rows_of(rows).examples
    assert first.content == first.id
    assert (f"{first.id}-2", f"{first.id}-3") == (third.id, fourth.id)
    assert first.content == third.content
    assert second.id == rows_of(rows[1:]).examples[0].id


@pytest.mark.parametrize("second", [1, "1"])
def test_duplicate_ids(second: Any, write: Write) -> None:
    """Two rows of one id are refused; both places are named."""
    path = write("t.jsonl", jsonl([{"id": 1, "text": "a"}, {"id": second, "text": "b"}]))
    error = refused(path)
    assert "two train examples have the id '1'" == error.message
    assert "t.jsonl:2" == at(error)
    assert "t.jsonl:1. Ids must be unique." in error.cure


@pytest.mark.parametrize(
    ("row", "column", "cure"),
    [
        ({"text": "a", "idd": 1}, "id_", "Did you mean 'idd'?"),
        ({"text": "a", "key": ""}, "key", ""),
        ({"text": "a", "key": None}, "key", ""),
        ({"text": "a", "id": ""}, None, ""),
    ],
)
def test_missing_ids(row: dict[str, Any], column: str | None, cure: str) -> None:
    """A named id column must be there and filled in each row; so must a cell of a column `id`."""
    error = refused([row], id=column)
    assert f"the id column {column or 'id'!r} is empty or missing" == error.message
    assert cure == error.cure


# tags


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        (["a", "b c"], ("a", "b c")),
        ("a; b  c ;;", ("a", "b c")),
        ("a", ("a",)),
        (3, ("3",)),
        (True, ("True",)),
        (["a", "a", None, ""], ("a",)),
        (["x;y", "line\nend"], ("x,y", "line end")),
        (None, ()),
        ("", ()),
    ],
)
def test_tags(value: Any, tags: tuple[str, ...]) -> None:
    """A list, a text with semicolons or a single value give tags, each once, on one line."""
    assert tags == rows_of([{"text": "t", "tags": value}]).examples[0].tags


def test_tags_of_several_columns() -> None:
    """Several columns can carry tags; a named one must exist, the default one need not."""
    row = {"text": "t", "label": "positive", "level": 2}
    example = rows_of([row], tags=("label", "level")).examples[0]
    assert ("positive", "2") == example.tags
    assert () == rows_of([row]).examples[0].tags
    error = refused([row], tags=("lable",))
    assert ("the tag column 'lable' is missing", "Did you mean 'label'?") == (
        error.message,
        error.cure,
    )
    assert {"positive"} == rows_of([row], tags=("label",)).tags
