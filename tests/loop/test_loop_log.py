"""Where the log is and who writes it; what is checked before training."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.core.errors import ConfigError, DataError, FtloopError, LogError
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop import loop as loop_module
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.fake_backend import FakeBackend
from tests.processes import LONG_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import Finding
from tests.loop.loop_cases import EVAL, TRAIN, config, contents, names, run

# where the log lies, and who writes it


def test_log_folder(tmp_path: Path) -> None:
    """The log lies beside the loop file, or in the folder that is named."""
    result, _ = run(config(tmp_path / "loops"), log_folder=tmp_path / "elsewhere")
    assert tmp_path / "elsewhere/s" == result.log_folder
    assert not (tmp_path / "loops").exists()


def test_unwritable_log_is_told_before_training(tmp_path: Path) -> None:
    """A log that can't be written is an error before anything is trained."""
    (tmp_path / "improvement_log").touch()
    trainer = FakeBackend()
    with pytest.raises(LogError, match="can't be written"):
        run(config(tmp_path), trainer)
    assert 0 == trainer.loaded


def test_damaged_log_is_told(tmp_path: Path) -> None:
    """A damaged log is an error, not a reason to train."""
    run(config(tmp_path))
    next((tmp_path / "improvement_log/s").glob("002-*.yaml")).write_text("{", encoding="utf-8")
    trainer = FakeBackend()
    with pytest.raises(LogError, match="damaged log file"):
        run(config(tmp_path), trainer)
    assert 0 == trainer.loaded


@pytest.mark.parametrize(
    "name",
    [
        *("verdicts/00000001-00000000.yaml", "holdout/00000001-0000.yaml"),
        *("seeds/00000001-43-0000.yaml", "base/00000001-0000.yaml"),
    ],
)
def test_a_torn_record_of_any_kind_is_told_before_training(tmp_path: Path, name: str) -> None:
    """What only judging needs would else be an error after an hour of training."""
    run(config(tmp_path, iterations=1))
    torn = tmp_path / "improvement_log/s" / name
    torn.parent.mkdir(exist_ok=True)
    torn.write_text("{", encoding="utf-8")
    torn.with_suffix(".examples.csv").touch()
    for options in ({}, {"retrain": True}):
        trainer = FakeBackend()
        with pytest.raises(LogError, match="damaged log file") as refused:
            run(config(tmp_path), trainer, **options)
        assert torn.name in str(refused.value.where)
        assert 0 == trainer.loaded


def test_nothing_but_records_in_the_log(tmp_path: Path) -> None:
    """Locks and notes lie in the cache: the log's folder is committed."""
    run(config(tmp_path), retrain=True, run_id="one")
    assert {".yaml", ".csv"} == {Path(name).suffix for name in contents(tmp_path)}
    assert ["improvement_log"] == [path.name for path in tmp_path.iterdir()]


def test_threads_train_each_iteration_once(tmp_path: Path) -> None:
    """Of several threads one trains; the others wait, then find the log up to date."""
    trainer = FakeBackend()
    chains, errors = [], []
    gate = threading.Barrier(4)

    def work() -> None:
        gate.wait()
        try:
            chains.append(names(run(config(tmp_path), trainer)[0]))
        except BaseException as error:  # noqa: BLE001 - shown by the assert below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == errors
    assert (1, 3, 4) == (trainer.loaded, len(trainer.runs), len(chains))
    assert 1 == len({tuple(chain) for chain in chains})


PROCESS = """
import sys
from pathlib import Path
from tests.loop.loop_cases import config, run
result, trainer = run(config(Path(sys.argv[1])))
print(len(trainer.runs), *[i.name for i in result.chain])
"""


def test_processes_train_each_iteration_once(tmp_path: Path) -> None:
    """Of several processes one trains; the others wait, then find the log up to date."""
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        for _ in range(3)
    ]
    said = sorted(process.communicate(timeout=LONG_S)[0].split() for process in processes)
    assert ["0", "0", "3"] == [words[0] for words in said]
    assert 1 == len({tuple(words[1:]) for words in said})


# what is checked before training

SAYS = {"role": "assistant", "content": "Hello"}


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"train": []}, DataError, "the train set list has no rows"),
        ({"eval": [{"text": "t"}]}, DataError, "train and eval set have different columns"),
        (
            {"train": [{"text": "t"}], "eval": [{"text": "t"}]},
            DataError,
            "the scorer 'exact' needs prompt and completion, or messages",
        ),
        (
            {"eval": [{"id": "q", "messages": [SAYS, {**SAYS, "role": "user"}]}]},
            DataError,
            "the last message of example 'q' is by 'user', so there is no answer to score",
        ),
        ({"gates": {"pass_rate[y]": ">= 1"}}, ConfigError, "no eval example is tagged 'y'"),
        ({"scoring": "nowhere:f"}, ConfigError, "there is no module 'nowhere'"),
        ({"scoring": "hook"}, ConfigError, "wanted a pytest_ftloop_score hook, found none"),
        ({"scoring": "json"}, FtloopError, "wanted JSON as the expected text of example 'e0'"),
        (
            {"data": {"split": {"fraction": 0.99}}, "eval": None},
            DataError,
            "splitting off 6 of 6 train examples leaves none to train on",
        ),
    ],
)
def test_mistakes_are_told_before_training(
    tmp_path: Path, changes: dict[str, Any], kind: type[FtloopError], message: str
) -> None:
    """Data, gates and scorer are checked before torch is loaded; nothing is written."""
    trainer = FakeBackend()
    with pytest.raises(kind, match=message.replace("(", r"\(")):
        run(config(tmp_path, **changes), trainer)
    assert (0, []) == (trainer.loaded, list(tmp_path.iterdir()))


def test_split_off_eval_set(tmp_path: Path) -> None:
    """An eval set split off the train set is not trained on."""
    split = config(tmp_path, eval=None, data={"split": {"fraction": 0.5}})
    inputs = Inputs.of(split, None)
    assert (3, 3) == (len(inputs.train.examples), len(inputs.eval.examples))
    assert set() == {e.id for e in inputs.train.examples} & {e.id for e in inputs.eval.examples}


def test_pace_of_the_best(tmp_path: Path) -> None:
    """Each run after the first is held against the best so far, where the eval loss decides."""
    trainer = FakeBackend()
    Loop(config(tmp_path), Options(), backend=trainer).run()
    assert [True, False, False] == [pace is None for pace in trainer.paces]
    by_rate = FakeBackend()
    loop = {"iterations": 2, "metric": "pass_rate"}
    Loop(config(tmp_path, name="by_rate", loop=loop), Options(), backend=by_rate).run()
    assert [None, None] == by_rate.paces


def test_hopeless_run_is_no_start(tmp_path: Path) -> None:
    """Settings whose run was ended as hopeless are trained whole where a loop starts with them."""
    result = Loop(config(tmp_path), Options(), backend=FakeBackend()).run()
    second = result.chain[1]
    log = ImprovementLog(result.log_folder)
    ended = replace(second, facts={**second.facts, "ended_early": "hopeless: too slow"})
    log.put(ended)
    rate = second.settings.get("training.learning_rate")
    again = FakeBackend()
    started = Loop(config(tmp_path, rate=rate, iterations=1), Options(), backend=again).run()
    assert ([rate], "") == (
        [run.get("training.learning_rate") for run in again.runs],
        started.chain[0].facts["ended_early"],
    )


def test_training_extra_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch is not installed, what is logged is judged; training names the extra."""
    monkeypatch.setitem(sys.modules, "pytest_ftloop.train.lora_trainer", None)
    monkeypatch.delattr("pytest_ftloop.train.lora_trainer", raising=False)
    with pytest.raises(FtloopError) as caught:
        Loop(config(tmp_path)).run()
    assert 'pip install "pytest-ftloop[train]"' == caught.value.cure
    run(config(tmp_path))
    assert 3 == len(Loop(config(tmp_path)).run().chain)


def test_progress_is_ended(tmp_path: Path) -> None:
    """The progress line is ended also when a run raises."""
    said: list[str] = []

    class Watched(loop_module.Silent):
        def iteration(self, *_: Any) -> None:
            said.append("iteration")

        def done(self) -> None:
            said.append("done")

    trainer = FakeBackend({2: RuntimeError("boom")})
    with pytest.raises(RuntimeError, match="boom"):
        Loop(config(tmp_path), progress=Watched(), backend=trainer).run()
    assert ["iteration", "iteration"] == said[:2]
    assert {"done"} == {*said[2:]}


def test_findings_of_the_data_are_told_once_before_training(tmp_path: Path) -> None:
    """What is wrong with the data is told before the runner is made, and each iteration has it."""
    said: list[Any] = []

    class Watched(loop_module.Silent):
        def found(self, loop: str, findings: Sequence[Finding]) -> None:
            said.append((loop, [finding.kind for finding in findings], trainer.loaded))

    trainer = FakeBackend()
    train = [*TRAIN, *({**row, "id": f"t{row['id']}"} for row in EVAL)]
    leaking = config(tmp_path, train=train)
    result = Loop(leaking, progress=Watched(), backend=trainer).run()
    assert [("s", ["leak"], 0)] == said
    assert 3 == len(result.chain)
    assert all("leak" in {f.kind for f in i.findings} for i in result.chain)
    Loop(leaking, progress=Watched(), backend=trainer).run()  # up to date
    assert 1 == len(said)


def test_data_that_makes_the_figures_meaningless_ends_the_loop(tmp_path: Path) -> None:
    """An error of the data is a fault: no setting is tuned around it."""
    eval_ = [
        {"id": f"e{n}", "prompt": f"what is {n}?", "completion": f" answer {n}"} for n in range(20)
    ]
    train = [*TRAIN, *({**row, "id": f"t{row['id']}"} for row in eval_[:10])]
    result, trainer = run(config(tmp_path, train=train, eval=eval_))
    assert 1 == len(trainer.runs)
    assert ("stop", "fault") == (result.chain[0].decision.action, result.chain[0].decision.kind)
    assert ("leak", "error") == (
        result.chain[0].findings[0].kind,
        result.chain[0].findings[0].severity,
    )
