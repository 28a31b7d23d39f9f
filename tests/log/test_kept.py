"""What earlier runs trained: kept and restored only where that is asked for, fits, and is sound."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from pytest_ftloop.core.cache import sweep_cache
from pytest_ftloop.core.errors import LogError, StaleLogError
from pytest_ftloop.core.records import Adjustment, Iteration, SeedRun
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log import kept as store_module
from pytest_ftloop.log.kept import Store
from pytest_ftloop.log.writing import tag_of
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.fake_backend import FakeBackend
from tests.log.records import iterations, seed_runs
from tests.loop.loop_cases import config, contents, forge
from tests.torture.kills import killed_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.loop.result import LoopResult


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that FTLOOP_RECORDS names."""
    monkeypatch.setenv("FTLOOP_RECORDS", str(tmp_path / "kept"))
    return tmp_path / "kept"


def on(device: str) -> FakeBackend:
    return FakeBackend(device={"device": device})


def run(
    config: LoopConfig, trainer: FakeBackend | None = None, **options: Any
) -> tuple[LoopResult, FakeBackend]:
    trainer = trainer or FakeBackend()
    loop = Loop(config, Options(**options), backend=trainer)
    return loop.run(), trainer


def afresh(tmp_path: Path) -> Path:
    """The folder of a checkout without a log."""
    shutil.rmtree(tmp_path / "improvement_log", ignore_errors=True)
    return tmp_path


def records(kept: Path) -> list[Path]:
    """The records of trainings; that of the untrained base is beside them."""
    return sorted(path for path in kept.rglob("*.yaml") if path.parent.name != "base")


# restored


def test_restored_byte_for_byte(tmp_path: Path) -> None:
    """A log that was lost is restored as it was, and no runner is made for it."""
    first, _ = run(config(tmp_path))
    before = contents(tmp_path)
    again, trainer = run(config(afresh(tmp_path)))
    assert before == contents(tmp_path)
    assert (first.chain, first.best) == (again.chain, again.best)
    assert (0, ()) == (trainer.loaded, again.trained)
    assert (first.trained, ()) == (again.restored, again.notes)
    assert () == run(config(tmp_path))[0].restored


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(iterations)
def test_written_again(tmp_path_factory: pytest.TempPathFactory, iteration: Iteration) -> None:
    """Whatever an iteration holds, what was read of it is written as the same bytes."""
    one, two = (ImprovementLog(tmp_path_factory.mktemp("log")) for _ in range(2))
    one.append(iteration)
    two.append(*one.read())
    assert files(one.folder) == files(two.folder)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed_runs)
def test_seed_run_written_again(tmp_path_factory: pytest.TempPathFactory, run: SeedRun) -> None:
    """Whatever a seed run holds, what was read of it is written as the same bytes."""
    one, two = (ImprovementLog(tmp_path_factory.mktemp("log")) for _ in range(2))
    one.append_seed_run(run)
    two.append_seed_run(*one.view.seed_runs())
    assert files(one.folder) == files(two.folder)


def files(folder: Path) -> dict[str, bytes]:
    """The files of iterations and seeds, without those of the untrained base."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.parent.name != "base")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def bases(tmp_path: Path) -> dict[str, bytes]:
    found = (tmp_path / "improvement_log/s/base").iterdir()
    return {path.name: path.read_bytes() for path in found}


def test_the_base_is_restored_with_its_iteration(tmp_path: Path) -> None:
    """Its record and table are as they were, and it is not measured again."""
    first, _ = run(config(tmp_path))
    before = bases(tmp_path)
    assert 2 == len(before)
    again, trainer = run(config(afresh(tmp_path)))
    assert before == bases(tmp_path)
    assert first.base == again.base is not None
    assert (0, 0, ()) == (trainer.loaded, trainer.bases, again.notes)


def test_the_base_is_restored_for_another_training(tmp_path: Path) -> None:
    """Settings that no run had are trained without measuring the base, which they do not change."""
    run(config(tmp_path, iterations=1))
    before = bases(tmp_path)
    _, trainer = run(config(afresh(tmp_path), iterations=1, rate=5e-4))
    assert [6.0] == trainer.base_losses
    assert before == bases(tmp_path)


def test_a_base_that_a_gate_needs(tmp_path: Path) -> None:
    """One that was measured by itself, as the log lacked it, is kept and restored as well."""
    gated = config(tmp_path, iterations=1, gates={"lift[eval_loss]": ">= 0.5"})
    run(gated)
    shutil.rmtree(tmp_path / "improvement_log/s/base")
    shutil.rmtree(next((tmp_path / "kept").glob("*/*/base")))
    _, trainer = run(gated)
    assert 1 == trainer.bases
    shutil.rmtree(tmp_path / "improvement_log/s/base")
    result, trainer = run(gated)
    assert (0, 0) == (trainer.loaded, trainer.bases)
    assert result.gates[0].passed


@pytest.mark.parametrize(
    ("where", "options"),
    [({"device": "gpu"}, {}), ({"device": "cpu"}, {"retrain": True})],
    ids=["another environment", "retrain"],
)
def test_a_base_that_does_not_fit(
    tmp_path: Path, where: dict[str, str], options: dict[str, Any]
) -> None:
    """In another environment, or where all is to be trained afresh, it is measured again."""
    run(config(tmp_path, iterations=1))
    _, trainer = run(config(afresh(tmp_path), iterations=1), FakeBackend(device=where), **options)
    assert [None] == trainer.base_losses


def test_a_damaged_base(tmp_path: Path, kept: Path) -> None:
    """A base that is better than what was measured is named and measured again, which mends it."""
    run(config(tmp_path, iterations=1))
    before = bases(tmp_path)
    (record,) = kept.glob("*/*/base/*.yaml")
    edit("eval_loss: 6.0", "eval_loss: 9.0")(record)
    result, trainer = run(config(afresh(tmp_path), iterations=1, rate=5e-4))
    assert [None] == trainer.base_losses
    assert before == bases(tmp_path)
    (note,) = result.notes
    assert note.startswith("a kept record was ignored: ")
    assert "it is not what was written" in note
    assert [6.0] == run(config(afresh(tmp_path), iterations=1, rate=9e-4))[1].base_losses


def test_goes_on_from_what_was_restored(tmp_path: Path) -> None:
    """What an interrupted run had finished is restored, and the rest is trained."""
    with pytest.raises(KeyboardInterrupt):
        run(config(tmp_path), FakeBackend({3: KeyboardInterrupt()}))
    result, trainer = run(config(afresh(tmp_path)))
    assert (2, 1, 1) == (len(result.restored), len(result.trained), len(trainer.runs))
    run(config(tmp_path / "whole"))
    assert contents(tmp_path / "whole") == contents(tmp_path)


def test_number_of_the_log_it_lands_in(tmp_path: Path) -> None:
    """Restored beside other iterations, it has the next numbers; all else is as it was."""
    first, _ = run(config(tmp_path))
    run(config(afresh(tmp_path), rate=3e-4, iterations=2))
    again, trainer = run(config(tmp_path))
    assert (0, [3, 4, 5]) == (trainer.loaded, [i.number for i in again.chain])
    assert [replace(i, number=0) for i in first.chain] == [
        replace(i, number=0) for i in again.chain
    ]


def test_seed_runs(tmp_path: Path) -> None:
    """Runs with other seeds are restored too, and told."""
    loop = {"iterations": 1, "seeds": 3}
    trainer = run(config(tmp_path, loop=loop))[1]
    before = files(tmp_path / "improvement_log")
    again, idle = run(config(afresh(tmp_path), loop=loop))
    assert (3, 0) == (len(trainer.runs), idle.loaded)
    assert before == files(tmp_path / "improvement_log")
    assert [f"seed {n} of {again.best.name} was restored, not trained" for n in (43, 44)] == list(
        again.notes
    )


def test_seed_run_for_another_purpose(tmp_path: Path) -> None:
    """A seed run that was trained for the gate serves a calibration, and says so."""
    run(config(tmp_path, loop={"iterations": 1, "seeds": 2}))
    trainer = FakeBackend()
    loop = Loop(config(afresh(tmp_path), iterations=1), backend=trainer)
    loop.calibrate(2)
    assert (0, ["calibration"]) == (trainer.loaded, [r.role for r in loop.log.view.seed_runs()])


# not restored


def test_only_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable, or with an empty one, nothing is kept and nothing restored."""
    for value in (None, ""):
        monkeypatch.delenv("FTLOOP_RECORDS")
        if value is not None:
            monkeypatch.setenv("FTLOOP_RECORDS", value)
        assert 3 == len(run(config(afresh(tmp_path)))[1].runs)
        monkeypatch.setenv("FTLOOP_RECORDS", str(tmp_path / "kept"))
        assert [] == records(tmp_path / "kept")
    run(config(afresh(tmp_path)))
    monkeypatch.delenv("FTLOOP_RECORDS")
    result, trainer = run(config(afresh(tmp_path)))
    assert (3, ()) == (len(trainer.runs), result.restored)


def test_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variable may start with ~, which no shell replaces in a workflow's env."""
    from pytest_ftloop.core.cache import records_folder

    monkeypatch.setenv("FTLOOP_RECORDS", "~/kept")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert tmp_path / "kept" == records_folder()


def test_up_to_date_asks_for_nothing(tmp_path: Path) -> None:
    """Where the log is up to date nobody asks for the environment, which takes seconds."""
    run(config(tmp_path))
    assert 0 == run(config(tmp_path))[1].asked


def test_replay_restores_nothing(tmp_path: Path) -> None:
    """A replay writes nothing: the log is out of date for it."""
    run(config(tmp_path))
    with pytest.raises(StaleLogError):
        run(config(afresh(tmp_path)), replay=True)
    assert not (tmp_path / "improvement_log").exists()


def test_retrain_trains(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With retrain nothing is restored, and what is trained takes the place of what was kept."""
    run(config(tmp_path, iterations=1))
    (old,) = records(kept)
    monkeypatch.setattr("tests.fake_backend.Cost", lambda **given: replace_cost(given, seconds=2.0))
    result, trainer = run(config(afresh(tmp_path), iterations=1), retrain=True)
    assert (1, ()) == (len(trainer.runs), result.restored)
    (new,) = records(kept)
    assert (old.parent, False) == (new.parent, old.name == new.name)
    assert 2 == len(list(new.parent.iterdir()))
    assert (2.0,) == tuple(i.cost.seconds for i in run(config(afresh(tmp_path)))[0].chain[:1])


def replace_cost(given: dict[str, Any], **changes: Any) -> Any:
    from pytest_ftloop.core.records import Cost

    return Cost(**{**given, **changes})


def test_another_environment(tmp_path: Path) -> None:
    """What was trained elsewhere is trained here, and told; each environment's is kept."""
    run(config(tmp_path), on("gpu"))
    there = contents(tmp_path)
    result, trainer = run(config(afresh(tmp_path)), on("cpu"))
    assert (3, ()) == (len(trainer.runs), result.restored)
    name = result.chain[0].name
    assert f"{name} was not restored: environment changed (device gpu -> cpu)" == result.notes[0]
    assert 0 == run(config(afresh(tmp_path)), on("gpu"))[1].loaded
    assert there == contents(tmp_path)
    assert 0 == run(config(afresh(tmp_path)), on("cpu"))[1].loaded


def test_what_moves_no_figure_of_the_environment(tmp_path: Path) -> None:
    """Another number of threads, or label of torch's build, is the same environment."""
    here = {"device": "cpu", "torch": "2.13.0+cpu", "threads": "1"}
    run(config(tmp_path), FakeBackend(device=here))
    there = {**here, "torch": "2.13.0", "threads": "8"}
    assert 0 == run(config(afresh(tmp_path)), FakeBackend(device=there))[1].loaded


def test_another_loop(tmp_path: Path) -> None:
    """Of a loop of another name nothing is taken, though it has the same settings and data."""
    run(config(tmp_path, name="other"))
    result, trainer = run(config(tmp_path))
    assert (3, ()) == (len(trainer.runs), result.notes)


def test_parent_that_does_not_fit(tmp_path: Path) -> None:
    """What was an iteration's child is trained where a loop starts from it; both are kept."""
    second = run(config(tmp_path))[0].chain[1]
    accepted = replace(config(afresh(tmp_path), iterations=1), settings=second.settings)
    result, trainer = run(accepted)
    assert (1, None, second.id) == (len(trainer.runs), result.best.parent, result.best.id)
    for again in (accepted, config(tmp_path)):
        afresh(tmp_path)
        assert 0 == run(again)[1].loaded


def test_adjustments_that_do_not_fit(tmp_path: Path, kept: Path) -> None:
    """The same parent adjusted in another way is no reason to restore."""
    second = run(config(tmp_path))[0].chain[1]
    store = Store(kept, lambda _: {"device": "cpu"})

    def found(*adjustments: Adjustment) -> Iteration | None:
        wanted = (second.settings, "s", second.parent, adjustments)
        return store.iteration(second.fingerprint, *wanted)

    assert second == found(*second.adjustments)
    assert found() is None
    assert found(*(replace(a, before=7) for a in second.adjustments)) is None


# not sound


def edit(old: str, new: str) -> Callable[[Path], None]:
    def damage(record: Path) -> None:
        text = record.read_text(encoding="utf-8")
        assert old in text
        record.write_text(text.replace(old, new, 1), encoding="utf-8")

    return damage


def table_of(record: Path) -> Path:
    return record.with_name(f"{record.stem}.examples.csv")


def rename(record: Path) -> None:
    """Another record's name, and the tag with it."""
    edit("number: 1", "number: 2")(record)
    for path in (table_of(record), record):
        path.rename(path.with_name(path.name.replace("001-", "002-", 1)))


def not_of_this_fingerprint(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("fingerprint: "))
    edit(line, f"{line[:-1]}{'0' if line[-1] != '0' else '1'}")(record)
    tag = tag_of(record.read_text(encoding="utf-8"))
    stem = record.stem.rpartition("-")[0]
    for path, end in ((table_of(record), ".examples.csv"), (record, ".yaml")):
        path.rename(path.with_name(f"{stem}-{tag}{end}"))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another figure": (edit("overfit_gap: 0.0", "overfit_gap: 0.1"), "it is not what was written"),
    "another table": (
        lambda record: edit("an output", "an outpux")(table_of(record)),
        "it differs from what its record was made with",
    ),
    "no table": (lambda record: table_of(record).unlink(), "is missing"),
    "cut off": (lambda record: record.write_text(record.read_text()[:200]), "damaged log file"),
    "empty": (lambda record: record.write_text(""), "wanted keys and values"),
    "no text": (lambda record: record.write_bytes(b"\xff\xfe\x00"), "damaged log file"),
    "a folder": (lambda record: (record.unlink(), record.mkdir()), ""),
    "newer": (edit("schema: 3", "schema: 99"), "written by a newer pytest-ftloop"),
    "another number": (rename, "it is not what was written"),
    "another fingerprint": (not_of_this_fingerprint, "it says it is "),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_record(
    tmp_path: Path, kept: Path, damage: Callable[[Path], object], said: str
) -> None:
    """What is not as it was written is told and trained again, which mends it."""
    run(config(tmp_path, iterations=1))
    before = contents(tmp_path)
    (record,) = records(kept)
    damage(record)
    result, trainer = run(config(afresh(tmp_path), iterations=1))
    assert (1, ()) == (len(trainer.runs), result.restored)
    assert before == contents(tmp_path)
    if said:
        (note,) = result.notes
        assert note.startswith("a kept record was ignored: ")
        assert said in note
        assert "git checkout" not in note
    if record.is_file():
        again, idle = run(config(afresh(tmp_path), iterations=1))
        assert (0, (), before) == (idle.loaded, again.notes, contents(tmp_path))


def test_figure_that_is_not_of_its_table(tmp_path: Path, kept: Path) -> None:
    """A record with a better figure in it is refused, though its tag was made to fit."""
    run(config(tmp_path, iterations=1))
    (record,) = records(kept)
    edit("  eval_loss: 1.92", "  eval_loss: 0.01")(record)
    tag = tag_of(record.read_text(encoding="utf-8"))
    for path, end in ((table_of(record), ".examples.csv"), (record, ".yaml")):
        path.rename(path.with_name(f"{record.stem.rpartition('-')[0]}-{tag}{end}"))
    result, trainer = run(config(afresh(tmp_path), iterations=1))
    assert 1 == len(trainer.runs)
    assert "it says eval_loss 0.01, its table of examples 1.92" in result.notes[0]


def test_damaged_beside_a_sound_one(tmp_path: Path, kept: Path) -> None:
    """Of two environments' records the sound one is restored, whatever became of the other."""
    run(config(tmp_path, iterations=1), on("gpu"))
    run(config(afresh(tmp_path), iterations=1), on("cpu"))
    gpu = next(path for path in records(kept) if "device: gpu" in path.read_text())
    gpu.write_text("x")
    result, trainer = run(config(afresh(tmp_path), iterations=1), on("cpu"))
    assert (0, 1) == (trainer.loaded, len(result.restored))


def test_damaged_seed_run(tmp_path: Path, kept: Path) -> None:
    """A seed run that is not sound is told and trained again."""
    loop = {"iterations": 1, "seeds": 2}
    run(config(tmp_path, loop=loop))
    (record,) = kept.rglob("seeds/*.yaml")
    edit("pass_rate: 0.0", "pass_rate: 1.0")(record)
    result, trainer = run(config(afresh(tmp_path), loop=loop))
    assert ([43], 1) == ([s.training["seed"] for s in trainer.runs], len(result.notes))


# a folder that can't be written or read


def test_no_folder(tmp_path: Path, kept: Path) -> None:
    """A file where the folder should be is told; what was trained is in the log all the same."""
    kept.write_text("mine")
    result, trainer = run(config(tmp_path, iterations=1))
    assert (1, 2, "mine") == (len(trainer.runs), len(contents(tmp_path)), kept.read_text())
    ignored, not_kept = result.notes
    assert "a kept record was ignored: " in ignored
    assert f"{result.best.name} is in the log, but could not be kept for later runs: " in not_kept
    assert "Not a directory" in not_kept


def test_folder_that_is_read_only(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there is restored; what is trained is logged, and told to be kept nowhere else."""
    run(config(tmp_path, iterations=1))

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store_module, "write_atomically", refuse)
    result, trainer = run(config(afresh(tmp_path), iterations=2))
    assert (1, 1, 1) == (len(result.restored), len(result.trained), len(trainer.runs))
    assert result.notes[0].endswith("Permission denied")
    assert () == run(config(tmp_path, iterations=2))[0].trained


def test_log_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that can't be written is an error before anything is restored."""
    run(config(tmp_path, iterations=1))
    (afresh(tmp_path) / "improvement_log").write_text("")
    with pytest.raises(LogError, match="can't be written"):
        run(config(tmp_path, iterations=1))


def test_settings_that_were_not_asked_for(tmp_path: Path, kept: Path) -> None:
    """The fingerprint of a kept record is only what it says: with other settings it is another."""
    run(config(tmp_path, iterations=1))
    (record,) = records(kept)
    forge(record, ("learning_rate: 0.0002", "learning_rate: 0.0003"))
    result, trainer = run(config(afresh(tmp_path), iterations=1))
    assert (1, ()) == (len(trainer.runs), result.restored)


def test_killed_while_keeping(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table without its record, and a file half-written, are nothing; training cleans up."""
    run(config(tmp_path, iterations=1))
    (record,) = records(kept)
    record.unlink()
    half = record.with_name(f".{record.name}.999999999.1.tmp")
    half.write_text("schema")
    result, trainer = run(config(afresh(tmp_path), iterations=1))
    assert (1, ()) == (len(trainer.runs), result.notes)
    assert {record, table_of(record)} == set(record.parent.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_killed_while_it_is_kept(tmp_path: Path, kept: Path) -> None:
    """At each write: the copy of before, the new one or none, whole; the rest is swept."""
    log = ImprovementLog(run(config(tmp_path, iterations=1))[0].log_folder)
    (before,) = log.read()
    shutil.rmtree(kept)
    after = log.put(replace(before, cost=replace(before.cost, seconds=2.5)))
    (tmp_path / "old").mkdir()
    old = ImprovementLog(tmp_path / "old" / "s")
    old.append(before)
    for n in count(1):
        shutil.rmtree(kept, ignore_errors=True)
        Store(kept).keep(before, old)
        write = killed_at(n, lambda: Store(kept).keep(after, log), kept)
        sweep_cache()
        (folder,) = (kept / after.fingerprint).iterdir()
        names = sorted(p.name.partition(".")[0] for p in folder.rglob("*") if p.is_file())
        assert names in [[f"{of.name}-{of.tag}"] * 2 for of in (before, after)], write
        if write is None:
            break
    assert n > 10
