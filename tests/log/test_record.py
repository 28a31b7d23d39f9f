"""A record is read strictly: whatever is wrong in it is one error, with the file and the key."""

from __future__ import annotations

import copy
import datetime
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.cli import main
from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.records import SCHEMA_VERSION, Adjustment, Decision
from pytest_ftloop.log.record import from_text, holdout_of, iteration_of, judgement_of, seed_run_of
from pytest_ftloop.log.writing import holdout_yaml, judgement_yaml, seed_run_yaml, to_yaml
from tests.fakes import fake_evals, fake_finding, fake_steps
from tests.log.records import (
    SCHEMA_1,
    a_holdout_use,
    a_judgement,
    a_seed_run,
    one,
    rounded,
)
from tests.loops import Loops

Steps = tuple[Any, ...]
"""The keys and indexes that lead to a value."""

ROOT = Path(__file__).parents[2]

moved = Adjustment("training.learning_rate", 1e-3, 2e-3, "it may gain")
full = one(
    parent="0000000f",
    adjustments=(moved,),
    training={"learning_rate": 1e-3, "seed": 7, "num_train_epochs": "3", "report_to": []},
    findings=[fake_finding(evidence={"before": 1.5, "count": 3, "ids": "e1", "sure": True})],
    decision=Decision("adjust", "adjust", "it may gain", (moved,), "0000000f", "patience 2"),
    group="9" * 64,
    steps=fake_steps([2.0, 1.5]),
    evals=fake_evals([1.5, 1.4]),
)
KINDS: dict[str, tuple[str, Callable[[str], Any], Callable[[Any], str]]] = {
    "iteration": (
        to_yaml(full, "d" * 64), iteration_of, lambda read: to_yaml(read[0], read[1].sha256)
    ),
    "seed run": (
        seed_run_yaml(a_seed_run(), "d" * 64),
        seed_run_of,
        lambda read: seed_run_yaml(read[0], read[1].sha256),
    ),
    "judgement": (judgement_yaml(a_judgement()), judgement_of, judgement_yaml),
    "holdout": (
        holdout_yaml(a_holdout_use(), "d" * 64),
        holdout_of,
        lambda read: holdout_yaml(read[0], read[1].sha256),
    ),
}  # fmt: skip


def keys(value: Any, above: Steps = ()) -> Iterator[Steps]:
    """The paths of all keys and items of a record."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*above, key)
        if isinstance(inner, dict | list):
            yield from keys(inner, (*above, key))


def with_(record: Any, path: Steps, change: Callable[[Any, Any], None]) -> Any:
    """A copy of a record with a change made to what holds the end of a path."""
    changed = copy.deepcopy(record)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    change(holder, path[-1])
    return changed


def shown(path: Steps) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:]


def read_or_error(make: Callable[[str], Any], text: str) -> Any:
    try:
        return from_text(make, text, lambda: "x.yaml")
    except LogError as error:
        return error


def check(kind: str, record: Any, *paths: Steps, indent: int = 2) -> None:
    """It is refused, by the file and one of the keys; or it is as good a record as any."""
    _, make, write = KINDS[kind]
    text = yaml.dump(record, Dumper=yaml.CSafeDumper, sort_keys=False, indent=indent)
    read = read_or_error(make, text)
    if isinstance(read, LogError):
        assert read.where is not None
        assert "x.yaml" == read.where.file
        assert read.where.line is None or read.where.line <= text.count("\n")
        named = read.message.removeprefix("damaged log file: ").split(": ")[0]
        above = [shown(path[:length]) for path in paths for length in range(1, len(path) + 1)]
        below = any(named.startswith(shown(path)) for path in paths)
        assert named in above or below or "a newer pytest-ftloop" in read.message
    else:
        again = read_or_error(make, write(read))
        if isinstance(read, tuple):  # `write` has no rows to count
            again = (again[0], replace(again[1], rows=read[1].rows))
        assert rounded(read) == rounded(again)


@pytest.mark.parametrize("kind", KINDS)
def test_key_of_another_type(kind: str) -> None:
    """Each key in turn holds each of other types."""
    record = yaml.safe_load(KINDS[kind][0])
    others = [
        None, True, 0, 2.5, math.nan, "abc", "3", [], ["a"], {}, {"a": 1}, datetime.date(2024, 1, 2)
    ]  # fmt: skip
    for path in keys(record):
        for other in others:
            check(kind, with_(record, path, lambda h, k, o=other: h.__setitem__(k, o)), path)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_key(kind: str) -> None:
    """Each key in turn is missing, or has another name."""
    record = yaml.safe_load(KINDS[kind][0])
    for path in keys(record):
        check(kind, with_(record, path, lambda h, k: h.__delitem__(k)), path)
        if isinstance(path[-1], str):
            renamed = with_(record, path, lambda h, k: h.__setitem__(f"{k}x", h.pop(k)))
            check(kind, renamed, path, (*path[:-1], f"{path[-1]}x"))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.sampled_from(list(KINDS)), st.data(), plain, st.sampled_from([2, 4]))
def test_key_of_any_other_value(kind: str, data: Any, value: Any, indent: int) -> None:
    """Any key holds anything at all."""
    record = yaml.safe_load(KINDS[kind][0])
    path = data.draw(st.sampled_from(list(keys(record))))
    check(kind, with_(record, path, lambda h, k: h.__setitem__(k, value)), path, indent=indent)


@pytest.mark.parametrize("kind", KINDS)
def test_every_required_key(kind: str) -> None:
    """A record without one of its own keys is refused, but for those that older schemas lack."""
    text, make, _ = KINDS[kind]
    record = yaml.safe_load(text)
    newer = {"weights", "adapter"}
    optional = {"iteration": {"group", *newer}, "seed run": newer}.get(kind, set())
    for key in record.keys() - optional:
        less = {name: value for name, value in record.items() if name != key}
        with pytest.raises(LogError) as caught:
            from_text(make, yaml.safe_dump(less), lambda: "x.yaml")
        assert f"x.yaml: damaged log file: {key}: missing" == str(caught.value).split("\n")[0]


NO_ANCHORS = "wanted no anchors and aliases (& and *), which no record has"
LOSS = "  eval_loss: 1.0"
CPU = "  device: cpu"


@pytest.mark.parametrize(
    ("old", "new", "key", "why"),
    [
        (LOSS, "  eval_loss: abc", "metrics.eval_loss", "wanted a number, found 'abc'"),
        (LOSS, "  eval_loss: true", "metrics.eval_loss", "wanted a number, found true"),
        (LOSS, "  eval_loss: '1.0'", "metrics.eval_loss", "wanted a number, found '1.0'"),
        (LOSS, "  eval_loss:", "metrics.eval_loss", "wanted a number, found nothing"),
        (LOSS, "  eval_loss: [1.0]", "metrics.eval_loss", "wanted a number, found a list"),
        (LOSS, "  eval_loss: {}", "metrics.eval_loss", "wanted a number, found keys and values"),
        (
            LOSS,
            "  eval_loss: 2024-01-01",
            "metrics.eval_loss",
            "wanted a text, a number, true, false or null, found '2024-01-01' without quotes",
        ),
        ("number: 1", "number: 1.0", "number", "wanted a whole number, found 1.0"),
        ("number: 1", "number: true", "number", "wanted a whole number, found true"),
        ("loop: sentiment", "loop: 3", "loop", "wanted a text, found 3"),
        ("schema: 3", "schema: zwei", "schema", "wanted a whole number, found 'zwei'"),
        (
            "    seed: 7",
            "    seed: seven",
            "settings.training.seed",
            "wanted a whole number, found 'seven'",
        ),
        (
            "    learning_rate: 0.001",
            "    learning_rate: fast",
            "settings.training.learning_rate",
            "wanted a number, found 'fast'",
        ),
        (
            "  best_step: 100",
            "  best_step: '100'",
            "facts.best_step",
            "wanted a whole number, found '100'",
        ),
        (
            "    rows: 400",
            "    rows: many",
            "data.train.rows",
            "wanted a whole number, found 'many'",
        ),
        (
            "  severity: info",
            "  severity: high",
            "findings[0].severity",
            "wanted 'error', 'warning' or 'info', found 'high'",
        ),
        (
            "    before: 1.5",
            "    before: [1.5]",
            "findings[0].evidence.before",
            "wanted true or false, a number or a text, found a list",
        ),
        (
            "  tunable: true",
            "  tunable: 1",
            "findings[0].tunable",
            "wanted true or false, found 1",
        ),
        ("failing: [b]", "failing: [b, 2]", "failing[1]", "wanted a text, found 2"),
        (
            "  action: adjust",
            "  action: wait",
            "decision.action",
            "wanted 'adjust' or 'stop', found 'wait'",
        ),
        (
            "  rests_on: patience 2",
            "  rest_on: patience 2",
            "decision.rest_on",
            "unknown key",
        ),
        (
            "  seconds: 10.0",
            "  seconds: .nan",
            "cost.seconds",
            "wanted a finite number, found nan",
        ),
        (
            "  eval:\n  - [step, epoch, eval_loss, token_accuracy]",
            "  eval:",
            "curve.eval",
            "wanted [step, epoch, eval_loss, token_accuracy] as the first row, found a list",
        ),
        (CPU, f"{CPU}\n  threads: 2", "environment.threads", "wanted a text, found 2"),
        (CPU, f"{CPU}\n  device: gpu", "environment", "wanted each key once, found 'device' twice"),
        (CPU, "  1: cpu", "environment", "wanted a text as key, found 1"),
        ("model: tiny", "model: &m tiny", "model", NO_ANCHORS),
        ("model: tiny", "model: *m", "model", NO_ANCHORS),
        (
            "model: tiny",
            "model: !!str tiny",
            "model",
            "wanted no tags, which no record has, found 'tag:yaml.org,2002:str'",
        ),
    ],
)
def test_message(old: str, new: str, key: str, why: str) -> None:
    """What was wanted and what was found, with the key and its line."""
    changed = f"\n{KINDS['iteration'][0]}".replace(f"\n{old}\n", f"\n{new}\n", 1)[1:]
    error = read_or_error(iteration_of, changed)
    assert isinstance(error, LogError)
    assert f"damaged log file: {key}: {why}" == error.message
    assert error.where is not None
    assert new.split("\n")[-1] == changed.split("\n")[(error.where.line or 0) - 1]


def test_settings_hold_whatever_trl_and_peft_take() -> None:
    """Of settings, data and facts only what is computed with has a type."""
    changed = replace(
        full,
        settings=replace(
            full.settings,
            lora={"r": "8", "target_modules": ["q", "v"], "new": {"a": [1, {"b": None}]}},
            training={"seed": "7", "learning_rate": "1e-3", "max_steps": None, "optim": "sgd"},
        ),
        facts={**full.facts, "new": [1, {"a": None}]},
        data={"guard": {"rows": 3, "new": True}},
    )
    read, _ = iteration_of(to_yaml(changed, "d" * 64))
    assert changed.settings == read.settings
    assert (changed.facts, changed.data) == (read.facts, read.data)
    assert 7 == read.seed


def committed() -> Sequence[Path]:
    return sorted([*ROOT.glob("examples/*/improvement_log/*/*.yaml"), *SCHEMA_1.glob("*.yaml")])


@pytest.mark.parametrize("path", committed(), ids=lambda path: path.name)
def test_committed_record_is_written_the_same(path: Path) -> None:
    """What older versions wrote is read, and today's schema written as it was, byte for byte."""
    text = path.read_text(encoding="utf-8")
    read, table = iteration_of(text)
    assert (read.schema == 1) == (read.group == "")
    assert (read.schema < 3) == (read.weights == "")
    if read.schema == SCHEMA_VERSION:
        whole = replace(read, examples=[None] * table.rows)  # only their number is written
        assert text == to_yaml(whole, table.sha256)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["gate"], 3),
        (["ci"], 3),
        (["diff"], 2),
        (["show", "1"], 2),
        (["log"], 2),
        (["report"], 2),
        (["suggest"], 2),
    ],
)
def test_commands_say_it_in_one_line(
    loops: Loops, command: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file, the line and the key, and no traceback."""
    loops.write()
    loops.train()
    loops.commit()
    (record,) = (loops.root / "improvement_log/x").glob("*.yaml")
    text = record.read_text(encoding="utf-8")
    line = text.split("\n").index("metrics:") + 2
    first = text.split("\n")[line - 1]
    record.write_text(text.replace(first, "  eval_loss: abc", 1), encoding="utf-8")
    capsys.readouterr()
    assert code == main(command)
    out, err = capsys.readouterr()
    said = f"improvement_log/x/{record.name}:{line}: damaged log file: metrics.eval_loss: "
    assert f"{said}wanted a number, found 'abc'" in out + err
    assert "Traceback" not in out + err
