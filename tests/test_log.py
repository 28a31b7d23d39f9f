"""The improvement log: what is written reads back, and what is damaged says so."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_ftloop.core.chain import chain_from, next_number
from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.metrics import best_metrics
from pytest_ftloop.core.records import (
    SCHEMA_VERSION,
    Adjustment,
    Cost,
    Decision,
    EvalPoint,
    Evaluation,
    ExampleResult,
    Finding,
    HoldoutUse,
    Iteration,
    Judgement,
    SeedRun,
    Settings,
    StepLog,
)
from pytest_ftloop.log import (
    CURVE_STEPS,
    FolderFiles,
    ImprovementLog,
    LogView,
    as_logged,
    examples_csv,
    from_record,
    improvement,
    thinned,
    to_yaml,
    verify,
    write_atomically,
)
from pytest_ftloop.log.record import parse
from tests.fakes import fake_example, fake_finding, fake_iteration, fake_metrics, fake_steps

SCHEMA_1 = Path(__file__).parent / "logs/schema-1"

HOSTILE = "a\\n\n\r\n\t\x00\x1b[31m\x7f\x85\u2028\u2029\ufeff\ud83d 🌊 \"',;: #- {}[]&*!|>%@`"

# Surrogates too: a tokenizer's output may hold half a character.
any_text = st.text(st.characters(categories=None), max_size=12) | st.sampled_from(
    [HOSTILE, "yes", "null", "1e3", "0x1f", "2024-01-01", "- a", "~", "=", "<<", " a ", "'", "a: b"]
)
text = st.text(max_size=12) | st.sampled_from(["1", "1.0", "no", "a: b", "#", "\x85", "\u2028"])
figure = st.floats(width=32) | st.just(-0.0)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
names = st.text(min_size=1, max_size=8).filter(lambda name: name != "r")  # whose values are numbers
values = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | figure | text
settings_values = values | st.lists(values, max_size=3) | st.dictionaries(names, values, max_size=2)
mapping = st.dictionaries(names, settings_values, max_size=3)
digits = "0123456789abcdef"
short_ids = st.text(digits, min_size=8, max_size=8)
fingerprints = st.text(digits, min_size=64, max_size=64)
metrics = st.dictionaries(names, figure, max_size=4)
adjustments = st.lists(
    st.builds(Adjustment, setting=text, before=values, after=values, because=text), max_size=2
).map(tuple)
examples = st.lists(
    st.builds(
        ExampleResult,
        id=any_text,
        content=st.text(digits, min_size=12, max_size=12),
        tags=st.lists(any_text.map(lambda t: t.replace(";", ",")).filter(bool), max_size=2).map(
            tuple
        ),
        loss=figure,
        tokens=st.integers(0, 10**6),
        correct=st.integers(0, 10**6),
        passed=st.none() | st.booleans(),
        expected=any_text,
        output=any_text,
    ),
    max_size=4,
    unique_by=lambda e: e.id,
).map(tuple)
environments = st.dictionaries(names, text, max_size=3)
costs = st.builds(
    Cost,
    seconds=finite,
    steps=st.integers(0, 10**6),
    tokens=st.integers(0, 10**9),
    device_memory_mib=finite,
)
iterations = st.builds(
    Iteration,
    loop=names,
    number=st.integers(1, 5000),
    id=short_ids,
    fingerprint=fingerprints,
    parent=st.none() | short_ids,
    adjustments=adjustments,
    model=text,
    settings=st.builds(Settings, lora=mapping, training=mapping),
    scoring=mapping,
    data=st.dictionaries(names, mapping, max_size=2),
    metrics=metrics,
    final=metrics,
    base=metrics,
    facts=mapping,
    steps=st.lists(
        st.builds(StepLog, st.integers(1, 10**6), figure, st.none() | figure, learning_rate=finite),
        max_size=3,
    ).map(tuple),
    evals=st.lists(
        st.builds(EvalPoint, st.integers(1, 10**6), finite, figure, figure), max_size=3
    ).map(tuple),
    findings=st.lists(
        st.builds(
            Finding,
            kind=text,
            severity=st.sampled_from(["error", "warning", "info"]),
            message=text,
            evidence=st.dictionaries(names, st.integers() | figure | text, max_size=3),
            remedy=text,
            tunable=st.booleans(),
        ),
        max_size=2,
    ).map(tuple),
    failing=st.lists(text, max_size=3).map(tuple),
    decision=st.builds(
        Decision,
        action=st.sampled_from(["adjust", "stop"]),
        kind=text,
        because=text,
        next=adjustments,
    ),
    environment=environments,
    cost=costs,
    examples=examples,
    group=fingerprints,
)
seed_runs = st.builds(
    SeedRun,
    loop=names,
    iteration=short_ids,
    seed=st.integers(0, 2**32 - 1),
    role=st.sampled_from(["gate", "calibration", "baseline"]),
    fingerprint=fingerprints,
    group=fingerprints,
    scoring=mapping,
    data=st.dictionaries(names, mapping, max_size=2),
    metrics=metrics,
    environment=environments,
    cost=costs,
    examples=examples,
)
judgements = st.builds(
    Judgement,
    loop=names,
    candidate=short_ids,
    baseline=st.none() | short_ids,
    by=st.sampled_from(["gate", "hand"]),
    kind=text,
    passed=st.booleans(),
    because=text,
    over=st.lists(text, max_size=3).map(tuple),
    verdict=mapping,
)
holdout_uses = st.builds(
    HoldoutUse,
    loop=names,
    iteration=short_ids,
    fingerprint=fingerprints,
    scoring=mapping,
    data=mapping,
    metrics=metrics,
    environment=environments,
    examples=examples,
)


def rounded(value: Any) -> Any:
    """A value as the log keeps it, comparable: NaN as text, numbers to six significant digits."""
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [rounded(inner) for inner in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return round(value, 6) if abs(value) >= 1e-2 else float(f"{value:.6g}")
    if hasattr(value, "__dataclass_fields__"):
        kept = [f.name for f in fields(value) if f.name not in {"examples", "tag"}]
        return {name: rounded(getattr(value, name)) for name in kept}
    return value


def kept_rows(rows: Sequence[ExampleResult]) -> list[Any]:
    """Rows as the table keeps them: by id, the loss to six decimals."""
    return [
        [str(value) if isinstance(value, float) else value for value in vars(row).values()]
        for row in sorted(
            (replace(row, loss=float(f"{row.loss:.6f}")) for row in rows), key=lambda r: r.id
        )
    ]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(iterations)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, iteration: Iteration) -> None:
    """Whatever an iteration holds, it reads back as it was but for the rounding of figures."""
    log = ImprovementLog(tmp_path_factory.mktemp("log", numbered=True))
    read = log.append(iteration)
    assert rounded(iteration) == rounded(read)
    assert kept_rows(iteration.examples) == kept_rows(read.examples)
    assert rounded(as_logged(iteration)) == rounded(read)
    (again,) = log.read()
    assert (rounded(read), read.tag) == (rounded(again), again.tag)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed_runs)
def test_round_trip_of_a_seed_run(tmp_path_factory: pytest.TempPathFactory, run: SeedRun) -> None:
    """Whatever a seed run holds, it reads back as it was but for the rounding of figures."""
    log = ImprovementLog(tmp_path_factory.mktemp("log", numbered=True))
    read = log.append_seed_run(run)
    (again,) = log.view.seed_runs()
    assert rounded(run) == rounded(read) == rounded(again)
    assert kept_rows(run.examples) == kept_rows(read.examples) == kept_rows(again.examples)
    assert set(log.files(read)) == set(log.files(again)) == set((log.folder / "seeds").iterdir())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(judgements)
def test_round_trip_of_a_judgement(
    tmp_path_factory: pytest.TempPathFactory, judgement: Judgement
) -> None:
    """Whatever a judgement holds, it reads back as it was, under the name that others refer to."""
    log = ImprovementLog(tmp_path_factory.mktemp("log", numbered=True))
    read = log.append_judgement(judgement)
    (again,) = log.view.judgements()
    assert rounded(judgement) == rounded(read) == rounded(again)
    assert [f"{read.name}.yaml"] == [p.name for p in (log.folder / "verdicts").iterdir()]
    assert read.name == again.name


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(holdout_uses)
def test_round_trip_of_a_holdout_use(
    tmp_path_factory: pytest.TempPathFactory, use: HoldoutUse
) -> None:
    """Whatever an opening of the holdout holds, it reads back, but for the texts of its rows."""
    log = ImprovementLog(tmp_path_factory.mktemp("log", numbered=True))
    read = log.append_holdout_use(use)
    (again,) = log.view.holdout_uses()
    silent = [replace(row, expected="", output="") for row in use.examples]
    assert rounded(use) == rounded(read) == rounded(again)
    assert kept_rows(silent) == kept_rows(read.examples) == kept_rows(again.examples)
    assert set(log.files(read)) == set(log.files(again)) == set((log.folder / "holdout").iterdir())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(iterations)
def test_what_is_read_is_written_the_same(iteration: Iteration) -> None:
    """Writing what was read gives the same bytes: rounding happens once."""
    first = to_yaml(iteration, "0")
    read, _ = iteration_of(first)
    assert first == to_yaml(replace(read, examples=iteration.examples), "0")
    assert examples_csv(iteration.examples) == examples_csv(reversed(iteration.examples))


def one(**fields: Any) -> Iteration:
    examples = [fake_example("b", passed=False, tags=("x", "y z")), fake_example("a")]
    return fake_iteration(**{"examples": examples, "findings": [fake_finding()], **fields})


def a_seed_run(seed: int = 7, **fields: Any) -> SeedRun:
    defaults: dict[str, Any] = {
        "role": "gate",
        "group": "9" * 64,
        "examples": [fake_example("a"), fake_example("b", passed=False)],
        "cost": Cost(seconds=10.0, steps=100, tokens=20_000),
    }
    return SeedRun(seed=seed, **(common_fields() | defaults | fields))


def a_holdout_use(**fields: Any) -> HoldoutUse:
    rows = [fake_example("a"), fake_example("b", passed=False)]
    data = {"source": "data/holdout.jsonl", "rows": 2, "sha256": "b" * 16}
    return HoldoutUse(**(common_fields() | {"data": data, "examples": rows} | fields))


def common_fields() -> dict[str, Any]:
    own = ("loop", "fingerprint", "scoring", "data", "metrics", "environment")
    return {name: getattr(one(), name) for name in own} | {"iteration": one().id}


def test_same_iteration_writes_the_same_bytes(tmp_path: Path) -> None:
    """The same iteration is the same two files, byte for byte, in whatever order its dicts are."""
    turned = replace(
        one(),
        settings=Settings(
            lora=dict(reversed(one().settings.lora.items())),
            training=dict(reversed(one().settings.training.items())),
        ),
        environment=dict(reversed(one().environment.items())),
        examples=tuple(reversed(one().examples)),
    )
    written = []
    for folder, iteration in (("one", one()), ("two", turned)):
        log = ImprovementLog(tmp_path / folder)
        log.append(iteration)
        written.append({p.name: p.read_bytes() for p in log.folder.iterdir()})
    assert written[0] == written[1]
    table, record = sorted(written[0])
    tag = hashlib.sha256(written[0][record]).hexdigest()[:4]
    assert (f"001-00000001-{tag}.examples.csv", f"001-00000001-{tag}.yaml") == (table, record)


def written_record(log: ImprovementLog, **fields: Any) -> Path:
    """The path of the record of an iteration written now."""
    record, _ = log.files(log.append(one(**fields)))
    return record


def test_record_is_made_for_diffs(tmp_path: Path) -> None:
    """The record's keys are in a fixed order; a step of the curve is one line; LF ends lines."""
    text = written_record(ImprovementLog(tmp_path)).read_bytes().decode()
    assert [
        "schema", "loop", "number", "id", "parent", "fingerprint", "group", "adjustments", "model",
        "settings", "data", "metrics", "final", "base", "facts", "curve", "findings", "failing",
        "decision", "examples", "environment", "cost",
    ] == list(yaml.safe_load(text))  # fmt: skip
    assert ["rows", "sha256"] == list(yaml.safe_load(text)["examples"])
    assert "  - [step, epoch, eval_loss, token_accuracy]\n  - [25, 0.5, 2.0, 0.5]\n" in text
    assert "\r" not in text
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_table_is_one_line_an_example(tmp_path: Path) -> None:
    """The table is sorted by id; whatever a text holds, an example is one line."""
    hostile = fake_example(HOSTILE, content="c", expected=HOSTILE, output=HOSTILE, tags=(HOSTILE,))
    rows = (hostile, *one().examples)
    table = examples_csv(rows)
    assert 4 == len(table.splitlines()) == table.count("\n")
    assert "id,content,tags,loss,tokens,correct,passed,expected,output" == table.splitlines()[0]
    assert "a,content-a,,2.000000,4,3,yes,yes,yes" == table.splitlines()[1]
    assert "b,content-b,x;y z,2.000000,4,3,no,yes,no" in table.splitlines()
    assert all(9 == len(row) for row in csv.reader(io.StringIO(table)))


def test_long_output_reads_back(tmp_path: Path) -> None:
    """A cell beyond the csv module's own limit is read."""
    log = ImprovementLog(tmp_path)
    read = log.append(one(examples=[fake_example("a", output="x" * 200_000)]))
    assert 200_000 == len(read.examples[0].output)


@pytest.mark.parametrize("loader", ["SafeLoader", "CSafeLoader"])
def test_record_is_read_without_the_c_library(loader: str, tmp_path: Path) -> None:
    """A record reads the same where PyYAML was built without libyaml."""
    text = to_yaml(one(findings=[fake_finding(message=HOSTILE)]), "0")
    read, _ = from_record(yaml.load(text, Loader=getattr(yaml, loader)))
    assert as_logged(one(findings=[fake_finding(message=HOSTILE)])).findings == read.findings


def test_git_may_convert_line_ends(tmp_path: Path) -> None:
    """Files that git checked out with CRLF (autocrlf) read as before."""
    log = ImprovementLog(tmp_path)
    written = log.append(one(examples=[fake_example("a", output=HOSTILE, expected="x\r\ny")]))
    before = list(written.examples)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    (read,) = log.read()
    assert written == read
    assert before == list(read.examples)


# writing


def test_failure_in_the_middle_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record is whole or not there: the old one stays, and no temporary file is left."""
    log = ImprovementLog(tmp_path)
    log.append(one())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LogError, match="the improvement log can't be written: No space left") as e:
        log.append(one(metrics=fake_metrics(9.0)))
    assert "--ftloop-log DIR" in e.value.cure
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "new", "text")
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_interruption_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the two files leaves a log that reads: the record is written last."""

    def interrupted(path: Path, text: str) -> None:
        if path.suffix == ".yaml":
            raise KeyboardInterrupt
        write_atomically(path, text)

    monkeypatch.setattr(improvement, "write_atomically", interrupted)
    log = ImprovementLog(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        log.append(one())
    assert () == log.read()


@pytest.mark.parametrize("below", ["", "below/it"])
def test_file_where_the_folder_should_be(tmp_path: Path, below: str) -> None:
    """A log that can't be written is told before any training, by its folder."""
    (tmp_path / "file").touch()
    log = ImprovementLog(tmp_path / "file" / below)
    assert () == log.read()
    for attempt in (log.check_writable, lambda: log.append(one())):
        with pytest.raises(LogError) as caught:
            attempt()
        assert "the improvement log can't be written" in caught.value.message
        assert str(log.folder) == str(caught.value.where)


def test_probe_leaves_nothing(tmp_path: Path) -> None:
    """Whether the log can be written is found out without a trace."""
    ImprovementLog(tmp_path / "a/b").check_writable()
    assert [] == list(tmp_path.iterdir())


# reading


def test_no_log(tmp_path: Path) -> None:
    """A folder that is not there, or holds other files, is an empty log."""
    assert () == ImprovementLog(tmp_path / "none").read()
    (tmp_path / "seeds/below").mkdir(parents=True)
    names = (
        "README.md", ".001-00000001.yaml.7.tmp", "001-00000001.yaml.orig", "1-0.yaml",
        "001-00000001-12.yaml", "seeds/001-00000001.yaml", "seeds/below/00000001-7-abcd.yaml",
        "00000001-abcd.yaml", "seeds/00000001-7.yaml",
    )  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    view = ImprovementLog(tmp_path).view
    assert view.is_empty()
    assert () == view.iterations() == view.seed_runs() == view.judgements() == view.holdout_uses()


def test_iterations_by_number(tmp_path: Path) -> None:
    """Iterations are in order of number, beyond 999 too."""
    log = ImprovementLog(tmp_path)
    for number in (1000, 2, 10):
        log.append(one(number=number))
    assert [2, 10, 1000] == [i.number for i in log.read()]


def test_seed_runs_by_seed(tmp_path: Path) -> None:
    """Seed runs are in order of the seed as a number."""
    log = ImprovementLog(tmp_path)
    for seed in (10, 9, 100):
        log.append_seed_run(a_seed_run(seed))
    assert [9, 10, 100] == [run.seed for run in log.view.seed_runs()]


@pytest.mark.parametrize("turned", [False, True])
def test_two_trainings_of_the_same_settings(tmp_path: Path, turned: bool) -> None:
    """Two branches write two pairs of files, of which one counts, in whatever order they are."""

    class Listed(FolderFiles):
        def names(self) -> Any:
            return sorted(super().names(), reverse=turned)

    log = ImprovementLog(tmp_path)
    costs = [Cost(seconds=seconds, steps=100, tokens=20_000) for seconds in (10.0, 11.0)]
    written = [log.append(one(cost=cost)) for cost in (costs[::-1] if turned else costs)]
    assert 4 == len(list(tmp_path.iterdir()))
    assert written[0].name == written[1].name
    (counts,) = LogView(Listed(tmp_path)).iterations()
    assert min(written, key=lambda i: i.tag) == counts
    assert set(log.files(counts)) < set(tmp_path.iterdir())


def test_same_settings_under_two_numbers(tmp_path: Path) -> None:
    """Where two branches trained the same settings as different numbers, the lower one counts."""
    log = ImprovementLog(tmp_path)
    same = {"id": one().id, "fingerprint": one().fingerprint}
    for number in (12, 3, 4):
        log.append(one(number=number, **same))
    assert ["003-00000001"] == [i.name for i in log.read()]


def test_log_of_schema_1(tmp_path: Path) -> None:
    """A log that pytest-ftloop 0.1 wrote reads as it did, and goes on with the new files."""
    log = ImprovementLog(tmp_path / "sentiment")
    shutil.copytree(SCHEMA_1, log.folder)
    (old,) = log.read()
    assert ("001-18da4217", 1, "", "") == (old.name, old.schema, old.group, old.tag)
    assert (120, 60, 6) == (len(old.examples), len(old.steps), len(old.evals))
    assert (StepLog(7, 4.025205, 5.196897, 0.000492857), 420) == (old.steps[0], old.steps[-1].step)
    log.verify(old)
    new = log.append(one(number=2, parent=old.id, group="9" * 64))
    assert (old, new) == log.read()
    assert (2, "9" * 64) == (new.schema, new.group)
    log.remove(old)
    assert (new,) == log.read()
    assert set(log.files(new)) == set(log.folder.iterdir())


def conflict(text: str, line: str = "model: tiny") -> str:
    """Two branches' versions of one line, as git leaves them."""
    assert 1 == text.count(f"\n{line}\n")
    return text.replace(f"\n{line}\n", f"\n<<<<<<< HEAD\n{line}\n=======\n{line} \n>>>>>>> b\n")


DAMAGES = {
    "cut off": (lambda text: text[: len(text) // 2], "damaged log file: "),
    "empty": (lambda text: "", "damaged log file: "),
    "a list": (lambda text: "- a\n", "damaged log file: "),
    "merge conflict": (conflict, "damaged log file: "),
    "a key missing": (lambda text: text.replace("decision:", "decsion:"), "KeyError: 'decision'"),
    "metrics empty": (
        lambda text: text.replace("metrics:\n", "metrics:\nx_metrics:\n"),
        "AttributeError",
    ),
    "metric in words": (
        lambda text: text.replace("  eval_loss: 1.0", "  eval_loss: one"),
        "could not convert string to float: 'one'",
    ),
    "another id": (lambda text: text.replace("id: '00000001'", "id: '00000002'"), "it says it is"),
    "another number": (
        lambda text: text.replace("number: 1\n", "number: 7\n"),
        "it says it is 007-00000001",
    ),
    "a tag": (lambda text: "!!python/object:os.system {}\n" + text, "damaged log file: "),
    "no date": (
        lambda text: text.replace("model: tiny", "model: 2024-13-01"),
        "damaged log file: ",
    ),
    "not UTF-8": (lambda text: text.encode("utf-16"), "damaged log file: "),
    "control characters": (lambda text: text + "\x00", "damaged log file: "),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A damaged record is named, with what is wrong and how it is restored."""
    damage, message = DAMAGES[what]
    monkeypatch.chdir(tmp_path)
    log = ImprovementLog(tmp_path / "improvement_log/s")
    path = written_record(log)
    damaged = damage(path.read_text(encoding="utf-8"))
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(LogError) as caught:
        log.read()
    assert message in caught.value.message
    assert f"improvement_log/s/{path.name}" == caught.value.where.file
    assert f"git checkout -- improvement_log/s/{path.name}" in caught.value.cure


EVAL_ROW = "  - [50, 1.0, 1.5, 0.5]"


@pytest.mark.parametrize("line", ["model: tiny", "curve:", EVAL_ROW, "findings:", "  action: stop"])
def test_damaged_yaml_has_its_line(tmp_path: Path, line: str) -> None:
    """A merge conflict above, in or below the curve is found at its line."""
    log = ImprovementLog(tmp_path)
    path = written_record(log)
    text = conflict(path.read_text(encoding="utf-8"), line)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LogError, match="damaged log file") as caught:
        log.read()
    start = text.splitlines().index("<<<<<<< HEAD") + 1
    assert start <= caught.value.where.line <= start + 2
    assert path == Path(caught.value.where.file)


@pytest.mark.parametrize(
    ("damage", "message", "has_line"),
    [
        ("  - [50, 1.0, 1.5, 0.5", "did not find expected ',' or ']'", True),
        ("  - {: 1}}", "", True),
        ("  - !!python/name:os.system", "could not determine a constructor", True),
        ("  - [2024-13-01, 1.0, 1.5, 0.5]", "ValueError: month must be in 1..12", False),
        ("  - [50, 1.0]", "TypeError: ", False),
        ("  - 50", "TypeError: ", False),
    ],
    ids=["no end", "no key", "a tag", "no date", "a figure missing", "no list"],
)
def test_damaged_curve(tmp_path: Path, damage: str, message: str, has_line: bool) -> None:
    """A damaged curve is told, with its file and line, when it is first looked at."""
    log = ImprovementLog(tmp_path)
    path = written_record(log)
    text = path.read_text(encoding="utf-8").replace(EVAL_ROW, damage)
    path.write_text(text, encoding="utf-8")
    (read,) = log.read()
    assert one().metrics["eval_loss"] == read.metrics["eval_loss"]
    for _ in range(2):
        with pytest.raises(LogError) as caught:
            list(read.evals)
        assert f"damaged log file: {message}" in caught.value.message
        assert path == Path(caught.value.where.file)
        assert "git checkout -- " in caught.value.cure
    if has_line:
        line = text.splitlines().index(damage) + 1
        assert line <= caught.value.where.line <= line + 1


def test_half_a_curve(tmp_path: Path) -> None:
    """A curve of which one half is missing is told when that one is looked at."""
    log = ImprovementLog(tmp_path)
    path = written_record(log)
    text = path.read_text(encoding="utf-8").replace("\n  eval:\n  - [step", "\n  evil:\n  - [step")
    path.write_text(text, encoding="utf-8")
    (read,) = log.read()
    assert as_logged(one()).steps == read.steps
    with pytest.raises(LogError, match="damaged log file: KeyError: 'eval'"):
        read.evals[0]


@pytest.mark.parametrize("line", ["", "# by hand", "  # by hand"])
def test_commented_curve(tmp_path: Path, line: str) -> None:
    """A curve with a blank line or a comment in it is the same curve."""
    log = ImprovementLog(tmp_path)
    path = written_record(log)
    text = path.read_text(encoding="utf-8").replace(EVAL_ROW, f"{line}\n{EVAL_ROW}")
    path.write_text(text, encoding="utf-8")
    (read,) = log.read()
    assert as_logged(one()) == read


@pytest.mark.parametrize("opening", ["[", "{a: ", "[x, ", "- ", "? "])
def test_nested_record(opening: str) -> None:
    """A record nested without end is damaged: the YAML library's stack is not tried on it."""
    text = f"schema: 2\nloop: {opening * 100_000}\n"
    with pytest.raises(LogError, match="no keys and values"):
        parse(text, lambda: "x.yaml")


@pytest.mark.parametrize(
    "name",
    [
        "001-00000001.yaml",
        "001-00000001-abcd.yaml",
        "seeds/00000001-7-abcd.yaml",
        "verdicts/00000001-abcdabcd.yaml",
        "holdout/00000001-abcd.yaml",
    ],
)
def test_newer_schema(tmp_path: Path, name: str) -> None:
    """A record of a newer version of the tool asks for an upgrade, whatever else it holds."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("schema: 99\nnew: true\n", encoding="utf-8")
    view = ImprovementLog(tmp_path).view
    read = {
        "seeds": view.seed_runs, "verdicts": view.judgements, "holdout": view.holdout_uses
    }.get(path.parent.name, view.iterations)  # fmt: skip
    with pytest.raises(LogError) as caught:
        read()
    assert (
        f"written by a newer pytest-ftloop: schema 99, this one reads up to {SCHEMA_VERSION}"
        == caught.value.message
    )
    assert "pip install --upgrade pytest-ftloop" == caught.value.cure
    assert path == Path(caught.value.where.file)


def test_missing_table(tmp_path: Path) -> None:
    """A record without its table is damaged."""
    log = ImprovementLog(tmp_path)
    _, table = log.files(log.append(one()))
    table.unlink()
    with pytest.raises(LogError, match=rf"its table {table.name} is missing"):
        log.read()


@pytest.mark.parametrize(
    "edit",
    [
        lambda table: table.replace(b",no,", b",yes,"),
        lambda table: table[: len(table) // 2],
        lambda table: b"",
        lambda table: b"\xff" + table,
    ],
    ids=["edited", "cut off", "empty", "not UTF-8"],
)
def test_damaged_table(tmp_path: Path, edit: Any) -> None:
    """A table that differs from what its record was made with is not trusted."""
    log = ImprovementLog(tmp_path)
    _, path = log.files(log.append(one()))
    path.write_bytes(edit(path.read_bytes()))
    (read,) = log.read()
    with pytest.raises(LogError) as caught:
        len(read.examples)
    assert path == Path(caught.value.where.file)
    assert "git checkout" in caught.value.cure


def test_reading_opens_no_table_and_no_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 records are read without their tables and curves: each is read when first looked at."""
    log = ImprovementLog(tmp_path)
    with monkeypatch.context() as quick:
        quick.setattr(os, "fsync", lambda _: None)
        for number in range(1, 201):
            log.append(one(number=number))
    tables: list[str] = []
    curves: list[str] = []
    read, load = FolderFiles.read, yaml.load

    def reading(files: FolderFiles, name: str) -> str:
        tables.extend([name] if name.endswith(".csv") else [])
        return read(files, name)

    def loading(text: str, **kwargs: Any) -> Any:
        curves.extend([text] if "[step, loss, grad_norm, learning_rate]" in text else [])
        return load(text, **kwargs)

    monkeypatch.setattr(FolderFiles, "read", reading)
    monkeypatch.setattr(yaml, "load", loading)
    iterations = log.read()
    assert (200, [], []) == (len(iterations), tables, curves)
    for _ in range(2):
        assert (2, 60) == (len(iterations[6].examples), len(iterations[6].steps))
        assert (1.38, 4) == (iterations[6].evals[-1].eval_loss, len(iterations[6].evals))
        assert (1, 1) == (len(tables), len(curves))


# seed runs, judgements and the holdout


def test_holdout_table_holds_no_text(tmp_path: Path) -> None:
    """Neither what was expected nor what the model said is in any file of a holdout's opening."""
    log = ImprovementLog(tmp_path)
    rows = [
        fake_example("a", expected="a SECRET answer", output="a SECRET output", tags=("x",)),
        fake_example("b", passed=False, expected="SECRET\ntoo", output="no SECRET"),
    ]
    read = log.append_holdout_use(a_holdout_use(examples=rows))
    assert 2 == len(list((tmp_path / "holdout").iterdir()))
    assert not any(b"SECRET" in p.read_bytes() for p in tmp_path.rglob("*.*"))
    assert [("a", "", "", True), ("b", "", "", False)] == [
        (row.id, row.expected, row.output, row.passed) for row in read.examples
    ]


@pytest.mark.parametrize(
    "kept", [one(), a_seed_run(), a_holdout_use()], ids=lambda k: type(k).__name__
)
def test_figures_are_those_of_the_table(kept: Any) -> None:
    """Figures that a record's own table does not give are refused, in every kind of record."""
    metrics = best_metrics(Evaluation(tuple(kept.examples), (), (), math.nan))
    verify(replace(kept, metrics=metrics), "x.yaml")
    for name in ("eval_loss", "pass_rate", "token_accuracy"):
        better = metrics | {name: metrics[name] + 0.01}
        with pytest.raises(LogError, match=f"it says {name} .*, its table of examples ") as caught:
            verify(replace(kept, metrics=better), "x.yaml")
        assert "x.yaml" == caught.value.where.file


# chains


def node(number: int, id_: str, parent: str | None) -> Iteration:
    return fake_iteration(number, id=id_, fingerprint=id_ + "-whole", parent=parent)


def ids(chain: Sequence[Iteration]) -> str:
    return " ".join(f"{i.number}{i.id}" for i in chain)


@pytest.mark.parametrize(
    ("log", "start", "chain"),
    [
        ("", "a", ""),
        ("1a", "b", ""),
        ("1a 2b<a 3c<b", "a", "1a 2b 3c"),
        ("1a 2b<a 3c<b", "b", "2b 3c"),
        ("1a 2x 3b<a 4y<x", "a", "1a 3b"),
        ("1a 2x 3b<a 4y<x", "x", "2x 4y"),
        ("1a 2b<a 2c<a 3d<b 3e<c", "a", "1a 2b 2c 3d 3e"),
        ("1a 2b<a 3b<a 4c<b", "a", "1a 2b 4c"),
        ("1a 3c<b 5b<a", "a", "1a 5b 3c"),
        ("1a 2b<nobody", "a", "1a"),
        ("1a<b 2b<a", "a", "1a 2b"),
        ("1a 2c 3a<c 4d<a", "c", "2c 3a 4d"),
        ("1a 2c 3a<c 4d<a", "a", "1a 4d"),
    ],
    ids=[
        "empty",
        "unknown",
        "line",
        "from the middle",
        "two chains",
        "the other chain",
        "two branches merged",
        "the same iteration in both branches",
        "renumbered by a merge",
        "unknown parent",
        "circle",
        "the same iteration in two chains",
        "the same iteration in two chains, from itself",
    ],
)
def test_chain_from(log: str, start: str, chain: str) -> None:
    """A chain is the iteration that the settings make, and what descends from it."""
    iterations = []
    for part in log.split():
        own, _, parent = part.partition("<")
        iterations.append(node(int(own[:-1]), own[-1], parent or None))
    assert chain == ids(chain_from(iterations, f"{start}-whole"))


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from("abcdef"), st.sampled_from([*"abcdef", None])),
        max_size=12,
        unique_by=lambda t: t[:2],
    ),
    st.randoms(),
)
def test_order_of_files_is_irrelevant(nodes: list[Any], random: Any) -> None:
    """However a folder lists its files, the chain is the same: parents first, each id once."""
    log = [node(*n) for n in nodes]
    shuffled = random.sample(log, len(log))
    chain = chain_from(log, "a-whole")
    assert chain == chain_from(shuffled, "a-whole")
    assert len({i.id for i in chain}) == len(chain)
    for position, iteration in enumerate(chain[1:], start=1):
        assert iteration.parent in {i.id for i in chain[:position]}


def test_next_number() -> None:
    """Numbers go on from the highest."""
    assert 1 == next_number([])
    assert 8 == next_number([node(7, "a", None), node(2, "b", None)])


# the curve


def test_short_curve_is_kept() -> None:
    """A curve of up to 60 steps is kept as it is."""
    steps = fake_steps([1.0] * CURVE_STEPS)
    assert steps == thinned(steps)
    assert () == thinned(())


@given(st.integers(CURVE_STEPS + 1, 1000))
def test_long_curve_is_thinned(count: int) -> None:
    """A longer curve becomes 60 windows: the last step, mean losses, the highest norms."""
    steps = fake_steps(range(count), [float(n % 7) for n in range(count)])
    kept = thinned(steps)
    assert CURVE_STEPS == len(kept)
    assert count == kept[-1].step
    assert [k.step for k in kept] == sorted({k.step for k in kept})
    ends = [k.step for k in kept]
    for start, kept_step in zip([0, *ends], kept, strict=False):
        window = steps[start : kept_step.step]
        assert math.isclose(sum(s.loss for s in window) / len(window), kept_step.loss)
        assert max(s.grad_norm for s in window) == kept_step.grad_norm


def test_thinned_curve_shows_what_went_wrong() -> None:
    """A NaN loss stays visible in its window; steps without a gradient norm have none."""
    losses = [1.0] * 119 + [math.nan]
    assert math.isnan(thinned(fake_steps(losses, None))[-1].loss)
    assert thinned(fake_steps(losses, None))[-1].grad_norm is None
