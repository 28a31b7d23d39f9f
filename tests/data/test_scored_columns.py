"""What only the scoring of an example reads: acceptable answers, columns of a user's scorer."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_ftloop.config.sources import Columns
from pytest_ftloop.core.errors import DataError
from pytest_ftloop.core.records import measured_content
from pytest_ftloop.data.examples import data_set, split_off
from tests.data.data_rows import rows_of

ROW = {"id": "a", "prompt": "p", "completion": "c"}


def one(role: str = "eval", row: dict[str, Any] | None = None, **columns: Any) -> Any:
    (example,) = rows_of([row or ROW], role=role, **columns).examples
    return example


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        (["d", "e"], ("d", "e")),
        ("d;e", ("d;e",)),
        ({"text": ["d"], "answer_start": [3]}, ("d",)),
        ([4, 0.5], ("4", "0.5")),
    ],
)
def test_answers(column: Any, wanted: tuple[str, ...]) -> None:
    """They are a list of texts, one text, or what SQuAD has; the content of the row covers them."""
    row = {**ROW, "answers": column}
    example = one(row=row, answers="answers")
    assert wanted == example.answers
    assert one().content == measured_content(example.content) != example.content
    assert one(row=row).content == one().content
    assert () == one(row=row).answers


@pytest.mark.parametrize("column", [[["d"]], [None], [{"text": "d"}], True])
def test_what_is_no_answer(column: Any) -> None:
    """Anything else is an error with the row."""
    with pytest.raises(DataError, match=r"'answers' of data.answers: wanted a list of texts"):
        one(row={**ROW, "answers": column}, answers="answers")


def test_a_column_of_answers_that_no_row_has() -> None:
    """It is an error in the sets that are scored; the train set may lack it."""
    assert () == one("train", answers="answers").answers
    with pytest.raises(DataError, match=r"'answers' of data.answers is in no eval row"):
        one(answers="answers")


@pytest.mark.parametrize(
    "columns",
    [
        {"tags": ("kind",)},
        {"id": "key"},
        {"keep": ("level",)},
        {"answers": "answers"},
        {"id": "key", "tags": ("kind", "tags"), "keep": ("level",), "answers": "answers"},
    ],
    ids=lambda columns: " ".join(columns),
)
def test_a_guard_need_not_have_the_columns(columns: dict[str, Any]) -> None:
    """Its rows are of another task: without ids of their own they are named by their content."""
    plain = [{"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": "c"}, ROW]
    guard = rows_of(plain, role="guard", another_task=True, **columns).examples
    assert [plain_id := guard[0].content, f"{plain_id}-2", "a"] == [e.id for e in guard]
    assert {((), ())} == {(e.tags, e.answers) for e in guard}
    with pytest.raises(DataError):
        rows_of(plain, role="eval", **columns)


def test_a_guards_columns_count_where_it_has_them() -> None:
    """Ids, tags and answers are read as those of any row."""
    row = {"key": "k", "kind": "x", "level": 3, "answers": ["d"], "prompt": "p", "completion": "c"}
    columns = {"id": "key", "tags": ("kind",), "keep": ("level",), "answers": "answers"}
    (example,) = rows_of([row], role="guard", another_task=True, **columns).examples
    assert ("k", ("x",), ("d",)) == (example.id, example.tags, example.answers)
    assert {"level": 3} == example.kept


def test_a_column_that_the_scorer_reads() -> None:
    """A change of it makes another example, but not in training; of other columns it does not."""
    rows = [{**ROW, "level": level, "note": note} for level in (1, 2) for note in "xy"]
    read = [one(row=row, read=frozenset({"level"})) for row in rows]
    assert read[0].content == read[1].content != read[2].content == read[3].content
    assert {"level": 1} == read[0].kept
    assert 4 == len({one(row=row, read=None).content for row in rows})
    assert 1 == len({one(row=row).content for row in rows})
    assert 1 == len({one("train", row, read=None).content for row in rows})
    assert 1 == len({measured_content(e.content) for e in read})


@pytest.mark.parametrize(
    ("column", "value", "other", "stated"),
    [
        ("answers", ["d"], ["e"], {"answers": "answers"}),
        ("level", 1, 2, {"read": frozenset({"level"})}),
        ("level", 1, 2, {"keep": ("level",)}),
        ("tags", ["x"], ["y"], {"keep": ("tags",)}),
        ("choices", ["c", "d"], ["c", "e"], {}),
    ],
    ids=["answers", "read", "keep", "keep an own place", "choices"],
)
def test_what_scores_a_row_is_apart_from_what_the_model_sees(
    column: str, value: Any, other: Any, stated: dict[str, Any]
) -> None:
    """Each such column makes an eval example another one, with the loss of the same text."""
    bare = {k: v for k, v in stated.items() if k not in {"answers", "keep"}}
    plain = one(**bare)
    first, second = (one(row={**ROW, column: each}, **stated) for each in (value, other))
    assert 3 == len({plain.content, first.content, second.content})
    assert 1 == len({measured_content(e.content) for e in (plain, first, second)})
    trained = [one("train", {**ROW, column: each}, **stated) for each in (value, other)]
    assert {plain.content} == {e.content for e in trained}


def test_columns_with_a_place_of_their_own() -> None:
    """Ids, tags and what trl reads are not taken again: tags stay a list, and change no content."""
    rows = [{**ROW, "tags": tags} for tags in ("x;y", "z")]
    found = [one(row=row, read=None) for row in rows]
    assert [{}, {}] == [example.kept for example in found]
    assert found[0].content == found[1].content == one().content


def test_values_that_are_not_json() -> None:
    """A picture counts by its type: its text would be another in each run."""
    contents = {one(row={**ROW, "image": object()}, read=None).content for _ in range(2)}
    assert 1 == len(contents)


def test_rows_that_are_split_off() -> None:
    """Only the eval part counts what the scorer reads: the weights do not depend on it."""
    sets = []
    for level in (1, 2):
        rows = [({"prompt": f"p{n}", "completion": "c", "level": level}, None) for n in range(10)]
        whole = data_set(rows, "train", "x", Columns(read=frozenset({"level"})))
        sets.append(split_off(whole, 0.3, 0))
    (train, eval_), (other_train, other_eval) = sets
    assert train.sha256 == other_train.sha256
    assert eval_.sha256 != other_eval.sha256
    assert [e.id for e in eval_.examples] == [e.id for e in other_eval.examples]
