"""The untrained base and the guards in a loop: measured once, logged, never paid with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.config.gates import parse_gate
from pytest_ftloop.core.errors import DamagedLogError, LogError
from pytest_ftloop.core.records import Run, Settings
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop.census import judged_from_log
from pytest_ftloop.loop.failing import failing_gates
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.workspace import Logged
from tests.fake_backend import FakeBackend, fake_guards
from tests.gitfakes import GitRepo
from tests.loop.loop_cases import config, forge, run

GUARDS = {"guards": {"general": "guard.jsonl"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a guard of 40 texts."""
    rows = "".join(f'{{"text": "some text {n}"}}\n' for n in range(40))
    (tmp_path / "guard.jsonl").write_text(rows)
    return tmp_path


class Forgetful(FakeBackend):
    """A backend whose runs forget the guard from a learning rate of 1e-3 on."""

    def train(self, settings: Settings, **arguments: Any) -> Run:
        run = super().train(settings, **arguments)
        loss = 9.0 if settings.get("training.learning_rate") >= 1e-3 else 3.0
        guards = fake_guards(self.inputs, loss)
        return replace(run, evaluation=replace(run.evaluation, guards=guards))


def test_base_is_iteration_0(folder: Path) -> None:
    """The base is measured with the first training and has a record of its own."""
    result, _ = run(config(folder, data=GUARDS), Forgetful())
    (base,) = ImprovementLog(result.log_folder).view.bases()
    assert result.base is not None
    assert (0, base.id) == (result.base.number, result.base.id)
    assert 6.0 == base.metrics["eval_loss"]
    assert 3.0 == base.metrics["guard.general.eval_loss"]
    assert 40 == len(base.guards["general"])
    ImprovementLog(result.log_folder).verify(base)


def test_base_is_measured_anew_for_another_guard(folder: Path) -> None:
    """Without guards the base is another measurement than with them."""
    run(config(folder))
    result, trainer = run(config(folder, data=GUARDS), Forgetful())
    assert trainer.base_losses[0] is None
    assert 2 == len(ImprovementLog(result.log_folder).view.bases())


def test_base_that_is_missing_is_measured_by_itself(folder: Path) -> None:
    """A gate that compares with the base has it measured, though nothing is trained."""
    stated = config(folder, gates={"lift": ">= 0 points"})
    result, _ = run(stated)
    for path in (result.log_folder / "base").iterdir():
        path.unlink()
    replayed, _ = run(stated, replay=True)
    assert "no measurement of the untrained base" in replayed.gates[0].message
    again, trainer = run(stated)
    assert (1, []) == (trainer.bases, trainer.runs)
    assert again.gates[0].value is not None


@pytest.mark.parametrize(
    "compares", [{"gates": {"lift[eval_loss]": ">= 0.1"}}, {"data": GUARDS}], ids=["lift", "guards"]
)
def test_a_forged_base_is_damaged(folder: Path, compares: dict[str, Any]) -> None:
    """A base whose figures are not those of its table is refused where a gate compares with it."""
    stated = config(folder, iterations=1, **compares)
    result, _ = run(stated, Forgetful())
    (record,) = (result.log_folder / "base").glob("*.yaml")
    forged = forge(record, ("  eval_loss: 6.0", "  eval_loss: 9.0"))
    with pytest.raises(DamagedLogError, match=r"it says eval_loss 9\.0, its table") as caught:
        run(stated, replay=True)
    assert str(forged) in str(caught.value.where)


def test_replay_needs_no_base(folder: Path) -> None:
    """A log without a measurement of the base is as good as ever where no gate asks for it."""
    result, _ = run(config(folder))
    for path in (result.log_folder / "base").iterdir():
        path.unlink()
    replayed, trainer = run(config(folder), replay=True)
    assert (None, result.best, 0) == (replayed.base, replayed.best, trainer.bases)


def test_guards_are_part_of_the_figures_identity(folder: Path) -> None:
    """Other rows to guard are other figures; without guards nothing changes."""
    first, _ = run(config(folder, data=GUARDS, iterations=1), Forgetful())
    (folder / "guard.jsonl").write_text('{"text": "another text"}\n')
    second, _ = run(config(folder, data=GUARDS, iterations=1), Forgetful())
    assert first.best.weights == second.best.weights
    assert first.best.fingerprint != second.best.fingerprint


def test_the_policy_never_pays_with_a_guard(folder: Path) -> None:
    """An iteration that forgot a guard is not the best, though its eval loss is the lowest."""
    result, _ = run(config(folder, data=GUARDS, iterations=4), Forgetful())
    losses = {it.name: it.metrics["eval_loss"] for it in result.chain}
    forgot = [it for it in result.chain if any(f.kind == "forgetting" for f in it.findings)]
    assert forgot
    assert min(losses, key=losses.__getitem__) in {it.name for it in forgot}
    assert result.best not in forgot
    ids = {it.id for it in forgot}
    assert not [it for it in result.chain if it.parent in ids]


def test_forgetting_is_judged_where_guards_are_stated(folder: Path) -> None:
    """A loop with guards and no gate on them is judged by the default one."""
    stated = config(folder, data=GUARDS, rate=1.6e-3, iterations=1)
    trainer = Forgetful()
    loop = Loop(stated, Options(), backend=trainer)
    judged = loop.judge(loop.run())
    (verdict,) = [verdict for rule, verdict in judged.verdicts if rule.name == "forgetting"]
    assert ("regressed", False) == (verdict.kind, verdict.ok)
    assert "guard.general.eval_loss 3.0000 -> 9.0000" in verdict.because


@pytest.mark.parametrize("edit", ["figure", "row"])
def test_an_edited_guard_is_damaged(folder: Path, edit: str) -> None:
    """A guard's figure or row that was edited is found, as one of the eval set's is."""
    stated = config(folder, data=GUARDS, iterations=1)
    result, _ = run(stated, Forgetful())
    log = ImprovementLog(result.log_folder)
    record, _, table = log.files(result.best)
    path = record if edit == "figure" else table
    old = "guard.general.eval_loss: 3.0" if edit == "figure" else ",12.000000,"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, old.replace("3.0", "2.0").replace("12.", "11."), 1))
    with pytest.raises(LogError):
        run(stated, Forgetful())


def test_a_missing_table_of_a_guard_is_named(folder: Path) -> None:
    """A record whose guard's table is not there is damaged."""
    stated = config(folder, data=GUARDS, iterations=1)
    result, _ = run(stated, Forgetful())
    ImprovementLog(result.log_folder).files(result.best)[2].unlink()
    with pytest.raises(LogError, match=r"guard-general\.examples\.csv is missing"):
        run(stated, Forgetful())


def test_compared_with_a_committed_version(folder: Path) -> None:
    """A loop with guards is judged against its last commit, by both of its gates."""
    first = Loop(config(folder, data=GUARDS, iterations=1), Options(), backend=Forgetful())
    first.judge(first.run())
    GitRepo.init(folder).commit()
    changed = config(folder, data=GUARDS, iterations=1, rate=1.6e-3, gates={"regression": {}})
    loop = Loop(changed, Options(), backend=Forgetful())
    judged = loop.judge(loop.run())
    verdicts = {rule.name: verdict for rule, verdict in judged.verdicts}
    assert "improved" == verdicts["regression"].kind
    assert "regressed" == verdicts["forgetting"].kind
    against = {change.against for change in verdicts["forgetting"].changes}
    assert {"base", "baseline"} == against


@pytest.mark.parametrize("rate", [2e-4, 1.6e-3])
def test_failing_gates_of_a_forgetful_version(folder: Path, rate: float) -> None:
    """What an acceptance by hand accepts names the guard that is forgotten, and how sure that is.

    The regression gate holds by then: it is not named.
    """
    first = Loop(config(folder, data=GUARDS, iterations=1), Options(), backend=Forgetful())
    first.judge(first.run())
    GitRepo.init(folder).commit()
    changed = config(folder, data=GUARDS, iterations=1, rate=rate, gates={"regression": {}})
    result, _ = run(changed, Forgetful())
    found = failing_gates(result.best, Logged(ImprovementLog(result.log_folder), changed))
    assert (("forgetting[general] fails (p < 0.0001)",) if rate > 1e-3 else ()) == found


def test_restored_with_its_guards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What earlier runs trained and measured on guards is restored where that is asked for."""
    monkeypatch.setenv("FTLOOP_RECORDS", str(folder / "kept"))
    first, _ = run(config(folder, data=GUARDS, iterations=1), Forgetful())
    shutil.rmtree(first.log_folder)
    again, trainer = run(config(folder, data=GUARDS, iterations=1), Forgetful())
    assert [] == trainer.runs
    assert [*first.best.guards["general"]] == [*again.best.guards["general"]]


@pytest.mark.parametrize(("rate", "kind"), [(2e-4, "unchanged"), (1.6e-3, "regressed")])
def test_a_log_alone_is_judged_by_its_guards(folder: Path, rate: float, kind: str) -> None:
    """A loop made in Python is judged from its log: what it has guards for, and a stated lift."""
    result, _ = run(config(folder, data=GUARDS, iterations=1, rate=rate), Forgetful())
    lift = parse_gate("lift[eval_loss]", ">= 0.5")
    judged = judged_from_log(ImprovementLog(result.log_folder), Options(), thresholds=[lift])
    verdicts = {rule.name: verdict for rule, verdict in judged.verdicts}
    assert kind == verdicts["forgetting"].kind
    assert (kind == "unchanged") == verdicts["forgetting"].ok
    assert judged.gates[0].passed


def test_a_log_without_guards_has_no_gate_on_them(folder: Path) -> None:
    """Loops from before guards are judged as they were."""
    result, _ = run(config(folder, iterations=1))
    judged = judged_from_log(ImprovementLog(result.log_folder), Options())
    assert ["regression"] == [rule.name for rule, _ in judged.verdicts]
