"""The loop: what is trained, what is logged, and what is taken as up to date."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.core.errors import DataError, LogError, StaleLogError
from pytest_ftloop.core.metrics import METRICS
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop import planner as planner_module
from tests.fake_backend import FakeBackend
from tests.loop.loop_cases import EVAL, TRAIN, config, contents, files, forge, names, run

# training and logging


def test_loop_trains_and_logs(tmp_path: Path) -> None:
    """Each iteration is trained with its parent's settings adjusted, and logged with two files."""
    result, trainer = run(config(tmp_path))
    assert (1, 3) == (trainer.loaded, len(trainer.runs))
    assert [i.settings for i in result.chain] == trainer.runs
    assert names(result) == trainer.names
    assert tuple(i.id for i in result.chain) == result.trained
    assert [1, 2, 3] == [i.number for i in result.chain]
    for before, after in zip(result.chain, result.chain[1:], strict=False):
        parent = next(i for i in result.chain if i.id == after.parent)
        assert parent.settings.adjusted(after.adjustments) == after.settings
        assert ("adjust", after.adjustments) == (before.decision.action, before.decision.next)
    assert ("stop", "iterations") == (
        result.chain[-1].decision.action,
        result.chain[-1].decision.kind,
    )
    own = (path.name for path in result.files if path.parent.name != "base")
    assert sorted(contents(tmp_path)) == sorted(own)
    assert all(path.is_file() for path in result.files)
    assert [e["id"] for e in EVAL] == list(result.examples)


def test_record_says_what_was_trained(tmp_path: Path) -> None:
    """A record holds data, scoring, figures, failing ids, environment: what a reviewer reads."""
    first = run(config(tmp_path))[0].chain[0]
    assert {"rows": 6, "source": "list"} == {k: first.data["train"][k] for k in ("rows", "source")}
    assert ({"scorer": "exact"}, {"device": "cpu"}) == (first.scoring, first.environment)
    assert set(METRICS) < set(first.metrics)
    assert "pass_rate[x]" in first.metrics
    assert (("e0", "e1", "e2", "e3"), 4) == (first.failing, len(first.examples))
    assert {"eval_loss": 6.0} == first.base


def test_base_is_measured_once(tmp_path: Path) -> None:
    """The untrained base is measured once, and then taken from the log, also when resumed."""
    first, resumed = FakeBackend(), FakeBackend()
    run(config(tmp_path, iterations=2), first)
    assert [None, 6.0] == first.base_losses
    run(config(tmp_path, iterations=3), resumed)
    assert [6.0] == resumed.base_losses


def test_best_iteration_is_judged(tmp_path: Path) -> None:
    """The gates judge the best iteration of the chain, not the last."""
    result, _ = run(config(tmp_path, gates={"eval_loss": "<= 1.9", "pass_rate": ">= 0.5"}))
    assert min(i.metrics["eval_loss"] for i in result.chain) == result.eval_loss
    assert [result.best.metrics[g.gate.name] for g in result.gates] == [
        g.value for g in result.gates
    ]


def test_gates_hold(tmp_path: Path) -> None:
    """A loop whose gates hold and whose findings promise nothing more is done."""
    result, _ = run(config(tmp_path, rate=1.6e-3, gates={"pass_rate": ">= 1"}, iterations=9))
    assert "gates" == result.chain[-1].decision.kind
    assert len(result.chain) < 9


# up to date


def test_second_run_trains_nothing(tmp_path: Path) -> None:
    """What is in the log is up to date: no runner is made, no file is touched."""
    first, _ = run(config(tmp_path))
    before = contents(tmp_path)
    again, trainer = run(config(tmp_path))
    assert (0, ()) == (trainer.loaded, again.trained)
    assert first.chain == again.chain
    assert (first.best, first.gates) == (again.best, again.gates)
    assert before == contents(tmp_path)


def test_up_to_date_run_needs_no_torch(tmp_path: Path) -> None:
    """An unchanged run imports neither torch nor pydantic's slower friends."""
    run(config(tmp_path))
    code = (
        "import sys; from pathlib import Path; from tests.loop.loop_cases import config;"
        "from pytest_ftloop.loop.loop import Loop;"
        f"assert Loop(config(Path({str(tmp_path)!r}))).run().trained == ();"
        "print(*{'torch', 'transformers', 'trl', 'peft', 'datasets', 'numpy'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert "" == found.stdout.strip()


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"learning_rate": 2e-4, "num_train_epochs": 2, "report_to": "none"}},
        {"training": {"num_train_epochs": 2.0, "learning_rate": 0.0002}},
        {"source": "elsewhere.py"},
    ],
    ids=["neutral", "written differently", "moved"],
)
def test_change_that_moves_no_figure(tmp_path: Path, changes: dict[str, Any]) -> None:
    """What can't move a figure leaves the log up to date."""
    run(config(tmp_path))
    assert 0 == run(config(tmp_path, **changes))[1].loaded


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 3e-4},
        {"lora": {"r": 4, "lora_alpha": 16}},
        {"train": [*TRAIN, {"prompt": "p", "completion": "c"}]},
        {"eval": [*EVAL, {"prompt": "q", "completion": "d"}]},
        {"data": {"train_sample": 2}},
    ],
    ids=["training", "lora", "train", "eval", "train_sample"],
)
def test_change_starts_a_new_chain(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Other settings, data or scoring start a chain of their own, beside what is logged."""
    run(config(tmp_path, iterations=2))
    before = contents(tmp_path)
    result, trainer = run(config(tmp_path, **{"iterations": 2, **changes}))
    assert (2, [3, 4]) == (len(trainer.runs), [i.number for i in result.chain])
    assert (None, result.chain[0].id) == (result.chain[0].parent, result.chain[1].parent)
    assert before.items() <= contents(tmp_path).items()
    again, idle = run(config(tmp_path, iterations=2))
    assert (0, [1, 2]) == (idle.loaded, [i.number for i in again.chain])


def test_accepted_settings_are_up_to_date(tmp_path: Path) -> None:
    """A loop file that takes over an iteration's settings finds it, and what followed, logged."""
    result, _ = run(config(tmp_path))
    second = result.chain[1]
    accepted = config(tmp_path, iterations=2, training=dict(second.settings.training))
    accepted = replace(accepted, settings=second.settings)
    again, trainer = run(accepted)
    assert (0, second.id) == (trainer.loaded, again.chain[0].id)


# resuming


@pytest.mark.parametrize("raised", [RuntimeError("boom"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_interrupted_loop_goes_on(tmp_path: Path, raised: BaseException, number: int) -> None:
    """What was finished before an interruption is logged; the next run goes on from there."""
    with pytest.raises(type(raised)):
        run(config(tmp_path), FakeBackend({number: raised}))
    if number > 1:
        assert 2 * (number - 1) == len(contents(tmp_path))
    result, trainer = run(config(tmp_path))
    assert (3, 4 - number) == (len(result.chain), len(trainer.runs))
    whole = tmp_path / "whole"
    run(config(whole))
    assert contents(whole) == contents(tmp_path)


def test_more_iterations_go_on(tmp_path: Path) -> None:
    """A larger limit goes on from a chain that stopped at its limit, with what it had in mind."""
    short, _ = run(config(tmp_path, iterations=1))
    longer, trainer = run(config(tmp_path, iterations=3))
    assert short.chain[0] == longer.chain[0]
    assert (2, short.chain[0].decision.next) == (len(trainer.runs), longer.chain[1].adjustments)
    whole, _ = run(config(tmp_path / "whole", iterations=3))
    assert names(whole) == names(longer)


def test_fewer_iterations_train_nothing(tmp_path: Path) -> None:
    """A smaller limit leaves a longer chain as it is."""
    run(config(tmp_path, iterations=3))
    result, trainer = run(config(tmp_path, iterations=1))
    assert (0, 3) == (trainer.loaded, len(result.chain))


def test_iterations_option_overrides(tmp_path: Path) -> None:
    """The option's number counts, not the file's; it explores in CI too."""
    assert 2 == len(run(config(tmp_path), iterations=2, explore=False)[0].chain)
    assert 3 == len(run(config(tmp_path, iterations=1), iterations=3)[0].chain)


def test_nothing_is_explored_in_ci(tmp_path: Path) -> None:
    """Without exploring, the loop file's own settings are the only iteration that is trained."""
    result, trainer = run(config(tmp_path), explore=False)
    assert (1, [config(tmp_path).settings]) == (len(result.chain), trainer.runs)
    assert 0 == run(config(tmp_path), explore=False)[1].loaded
    locally, _ = run(config(tmp_path))
    assert 3 == len(locally.chain)
    in_ci, trainer = run(config(tmp_path), explore=False)
    assert (0, 3) == (trainer.loaded, len(in_ci.chain))


def test_gates_that_no_longer_hold(tmp_path: Path) -> None:
    """Stricter gates look again at a stop that rested on the gates; looser ones change nothing."""
    start = {"rate": 1.6e-3, "iterations": 4}
    done, _ = run(config(tmp_path, gates={"eval_loss": "<= 2"}, **start))
    assert "gates" == done.chain[-1].decision.kind
    assert 0 == run(config(tmp_path, gates={"eval_loss": "<= 3"}, **start))[1].loaded
    stricter, trainer = run(config(tmp_path, gates={"eval_loss": "<= 0.1"}, **start))
    assert len(trainer.runs) > 0
    assert done.chain == stricter.chain[: len(done.chain)]
    assert 0 == run(config(tmp_path, gates={"eval_loss": "<= 0.1"}, **start))[1].loaded


def test_time_budget(tmp_path: Path) -> None:
    """No iteration is begun that would end after the budget; the log is then up to date."""
    budget = {"iterations": 9, "patience": 9, "time_budget_s": 2.5}  # a fake run costs 1 s
    result, _ = run(config(tmp_path, loop=budget))
    assert (2, "time") == (len(result.chain), result.chain[-1].decision.kind)
    assert 0 == run(config(tmp_path, loop=budget))[1].loaded
    assert 2 == len(run(config(tmp_path, loop=budget), replay=True)[0].chain)
    larger = {**budget, "time_budget_s": 3.5}
    assert 3 == len(run(config(tmp_path, loop=larger))[0].chain)


# retrain and replay


def test_retrain_writes_the_same_bytes(tmp_path: Path) -> None:
    """Training again what is logged gives the same files under the same names."""
    first, _ = run(config(tmp_path))
    before = contents(tmp_path)
    again, trainer = run(config(tmp_path), retrain=True)
    assert (3, names(first)) == (len(trainer.runs), names(again))
    assert before == contents(tmp_path)


def test_retrain_on_another_machine(tmp_path: Path) -> None:
    """The environment is recorded anew; nothing else of the record differs."""
    run(config(tmp_path))
    result, _ = run(config(tmp_path), FakeBackend(device={"device": "cuda"}), retrain=True)
    assert {"cuda"} == {i.environment["device"] for i in result.chain}
    assert 6 == len(contents(tmp_path))


def test_retrain_once_in_a_run_of_several_processes(tmp_path: Path) -> None:
    """Processes of one pytest run retrain a loop once; the next pytest run does again."""
    made = [run(config(tmp_path), retrain=True, run_id=r)[1].loaded for r in ("one", "one", "two")]
    assert [1, 0, 1] == made
    assert [1, 1] == [run(config(tmp_path), retrain=True)[1].loaded for _ in range(2)]


def test_retrain_that_takes_another_course(tmp_path: Path) -> None:
    """What a retrained chain no longer leads to is removed, so that no two courses are mixed."""
    run(config(tmp_path))
    again, _ = run(config(tmp_path), retrain=True, iterations=1)
    assert [1] == [i.number for i in again.chain]
    assert files(again) == set(contents(tmp_path))


def test_interrupted_retrain_leaves_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after it left the old course, a retraining leaves only what it trained."""
    result, _ = run(config(tmp_path))
    real = planner_module.adjust.decide

    def other_course(*args: Any) -> Any:
        decision = real(*args)
        changed = tuple(replace(a, after=a.after * 1.1) for a in decision.next)
        return replace(decision, next=changed)

    monkeypatch.setattr(planner_module.adjust, "decide", other_course)
    trainer = FakeBackend(interrupt={2: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        run(config(tmp_path), trainer, retrain=True)
    log = ImprovementLog(result.log_folder)
    (left,) = log.read()
    assert result.chain[0].name == left.name
    assert {path.name for path in log.files(left)} == set(contents(tmp_path))


def test_loop_without_gates_goes_on(tmp_path: Path) -> None:
    """Without a gate nothing holds: the loop goes on to its other stops."""
    result, _ = run(config(tmp_path, gates={}))
    assert "gates" not in {i.decision.kind for i in result.chain}
    assert len(result.chain) > 1


def test_better_figure_written_into_a_record(tmp_path: Path) -> None:
    """A figure that is not that of the record's own table is an error, also in a replay."""
    result, _ = run(config(tmp_path))
    record, _ = ImprovementLog(result.log_folder).files(result.chain[0])
    loss = result.chain[0].metrics["eval_loss"]
    forge(record, (f"  eval_loss: {loss}", "  eval_loss: 0.01"))
    with pytest.raises(LogError, match=r"it says eval_loss 0\.01, its table of examples"):
        run(config(tmp_path), replay=True)


def test_leftover_of_a_killed_process(tmp_path: Path) -> None:
    """What a killed process left half-written is gone after the next training."""
    log_folder = tmp_path / "improvement_log/s"
    log_folder.mkdir(parents=True)
    (log_folder / ".001-aaaaaaaa.yaml.999999999.1.tmp").write_text("half")
    run(config(tmp_path))
    assert [] == list(log_folder.glob(".*"))


def test_empty_prompt_is_told_before_training(tmp_path: Path) -> None:
    """Nothing can be generated from an empty prompt: an error with its place, nothing trained."""
    rows = [{"prompt": "", "completion": " 0"}]
    (tmp_path / "empty.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"the prompt of example .* is empty"):
        run(config(tmp_path, eval=str(tmp_path / "empty.jsonl")))


def test_replay_judges_what_is_logged(tmp_path: Path) -> None:
    """Replay trains nothing and gives what the last run gave."""
    first, _ = run(config(tmp_path))
    again, trainer = run(config(tmp_path), replay=True)
    assert (0, first.chain, ()) == (trainer.loaded, again.chain, again.trained)


@pytest.mark.parametrize(
    ("logged", "changes", "message"),
    [
        (False, {}, "the improvement log of s is out of date: it is empty"),
        (True, {"rate": 3e-4}, "out of date: settings changed since iteration 00"),
    ],
    ids=["no log", "settings changed"],
)
def test_replay_of_a_stale_log(
    tmp_path: Path, logged: bool, changes: dict[str, Any], message: str
) -> None:
    """Replay of a log that is out of date fails, says what to do, and writes nothing."""
    if logged:
        run(config(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StaleLogError) as caught:
        run(config(tmp_path, **changes), replay=True)
    assert message in caught.value.message
    assert "Run pytest --ftloop and commit improvement_log/." == caught.value.cure
    assert before == sorted(tmp_path.rglob("*"))


def test_settings_that_lead_back_to_a_logged_iteration(tmp_path: Path) -> None:
    """A chain that arrives at another's settings takes what is logged, and leaves it as it is."""
    first, _ = run(config(tmp_path, iterations=2))
    before = contents(tmp_path)
    lower = config(tmp_path, rate=4e-5, iterations=4)
    result, trainer = run(lower)
    rates = [4e-5, 2e-4, 1e-3, 5e-3]
    assert rates == [i.settings.get("training.learning_rate") for i in result.chain]
    assert [rates[0], rates[3]] == [s.get("training.learning_rate") for s in trainer.runs]
    assert before.items() <= contents(tmp_path).items()
    again, idle = run(lower, replay=True)
    assert (0, result.chain) == (idle.loaded, again.chain)
    assert first.chain == run(config(tmp_path, iterations=2), replay=True)[0].chain[:2]
