"""What `lora.init_from` names, and that it goes on naming it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.fake_backend import FakeBackend, fake_adapter
from tests.loop.loop_cases import EVAL, config

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Run, Settings
    from pytest_ftloop.loop.result import LoopResult


class Saving(FakeBackend):
    """Saves an adapter that its settings decide, and keeps the task's start of each run."""

    def train(self, settings: Settings, *, adapter: Path | None = None, **how: Any) -> Run:
        run = super().train(settings, adapter=adapter, **how)
        assert adapter is not None
        return replace(run, adapter=fake_adapter(adapter, repr(settings)))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))


def run(
    folder: Path, init: object = None, *, judge: bool = False, **changes: Any
) -> tuple[LoopResult, Saving]:
    lora = {"r": 8, "lora_alpha": 16, **({} if init is None else {"init_from": init})}
    backend = Saving()
    options = Options(iterations=changes.pop("iterations", 1))
    loop = Loop(config(folder, lora=lora, **changes), options, backend=backend)
    result = loop.run()
    return (loop.judge(result) if judge else result), backend


@pytest.mark.parametrize("name", ["best", "baseline", 2, "002", "id", "hash", "path"])
def test_names(tmp_path: Path, name: object) -> None:
    """Each name finds the adapter of the second of three iterations."""
    policy = [{"training.learning_rate": rate} for rate in (1.6e-3, 3e-4)]
    loop = {"iterations": 3, "patience": 9, "policy": policy}
    result, _ = run(tmp_path, loop=loop, iterations=3, judge=True)
    parent = result.chain[1]
    assert result.best.id == parent.id
    by_name = {"002": parent.name, "id": parent.id[:5], "hash": parent.adapter}
    by_name["path"] = f"cache/adapters/{parent.weights}"
    stated = by_name.get(str(name), name)
    child, backend = run(tmp_path, stated, rate=1e-4)
    assert backend.runs[0].lora["init_from"] == parent.adapter
    start = backend.inputs.start
    assert start is not None
    assert start.folder == tmp_path / "cache/adapters" / parent.weights
    assert child.best.facts["init_from"]["adapter"] == parent.adapter
    of = stated if name == "path" else parent.name
    assert child.best.facts["init_from"]["of"] == of


def test_a_chain_keeps_its_start(tmp_path: Path) -> None:
    """A better iteration out of it changes nothing; new rows start from that one."""
    first, _ = run(tmp_path, rate=2e-4)
    second, backend = run(tmp_path, "best", rate=8e-4)
    assert len(backend.runs) == 1
    assert second.best.metrics["eval_loss"] < first.best.metrics["eval_loss"]
    again, backend = run(tmp_path, "best", rate=8e-4)
    assert (again.best.id, backend.runs) == (second.best.id, [])
    third, backend = run(tmp_path, "best", rate=8e-4, train=EVAL)
    assert backend.runs[0].lora["init_from"] == second.best.adapter
    assert third.best.id != second.best.id


def test_without_the_adapter_the_log_is_up_to_date(tmp_path: Path) -> None:
    """What is logged is judged on a machine that has no adapter."""
    run(tmp_path)
    child, _ = run(tmp_path, "best", rate=4e-4)
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    again, backend = run(tmp_path, "best", rate=4e-4)
    assert (again.best.id, backend.runs) == (child.best.id, [])
    assert backend.inputs.start is not None
    assert backend.inputs.start.folder is None


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ("nothing", "found 'nothing', which names no iterations"),
        (7, "found '7', which names no iterations"),
        (True, "found True"),
        ([1], "found [1]"),
        ("", "found ''"),
    ],
)
def test_names_nothing(tmp_path: Path, stated: object, said: str) -> None:
    """The error says what is wanted and what is there; nothing is trained."""
    run(tmp_path)
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, stated)
    assert "lora.init_from: wanted best, baseline, an iteration of the log" in str(caught.value)
    assert said in str(caught.value)


def test_an_empty_log_has_no_best(tmp_path: Path) -> None:
    """The error says that there are no iterations."""
    with pytest.raises(ConfigError, match="The iterations in the log: none"):
        run(tmp_path, "best")


def test_another_base(tmp_path: Path) -> None:
    """An adapter of another base is refused by name."""
    first, _ = run(tmp_path, model="hub/a@1")
    with pytest.raises(ConfigError, match=r"of another base \(hub:hub/a@1\); the loop's is hub:"):
        run(tmp_path, 1, model="hub/b@1")
    assert first.best.adapter
