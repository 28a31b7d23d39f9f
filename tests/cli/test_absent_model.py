"""A base model in a folder that is not here: a job that judges a log needs no weights."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main
from tests.loops import SAME, WORSE

if TYPE_CHECKING:
    from tests.cli.gate_cases import Gate
    from tests.loops import Loops

NOTE = "the model folder {} is not here: its identity is taken from the log"


def model(loops: Loops, name: str, *, content: str = "1") -> None:
    """A model's folder that git does not keep."""
    loops.put(".gitignore", "models/\n")
    loops.put(f"{name}/model.safetensors", content)


def version(loops: Loops, name: str, rate: str = SAME) -> None:
    loops.version(rate, more=f"model: {name}\n")


def said(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    "name", ["models/base", "./models/base", "{}/models/base", "~/models/base"]
)
def test_absent(name: str, loops: Loops, gate: Gate, monkeypatch: Any) -> None:
    """It is judged by the logged identity, however it is named, and a note says so."""
    monkeypatch.setenv("HOME", str(loops.root))
    monkeypatch.setenv("USERPROFILE", str(loops.root))
    name = name.format(loops.root)
    model(loops, "models/base")
    version(loops, name)
    loops.write(rate=WORSE, more=f"model: {name}\n")
    loops.train()
    shutil.rmtree(loops.root / "models")
    code, out, err = gate()
    assert (1, "") == (code, err)
    assert "regression: regressed against HEAD" in out
    assert NOTE.format(name) in said(out)
    loops.write(more=f"model: {name}\n")
    code, out, err = gate()
    assert (0, "") == (code, err)
    assert NOTE.format(name) in said(out)
    loops.commit()
    code, out, err = gate("HEAD~1..HEAD")
    assert (0, "") == (code, err)
    assert 0 == main(["ci"])
    summary = said((loops.root / "ftloop-ci/summary.md").read_text(encoding="utf-8"))
    assert "is not here: its identity is taken from the log" in summary


@pytest.mark.parametrize("other", ["models/bsae", "gpt2", "../models/base"])
def test_another_name(other: str, loops: Loops, gate: Gate) -> None:
    """A model of another name is not taken for it: the log is out of date."""
    model(loops, "models/base")
    version(loops, "models/base")
    shutil.rmtree(loops.root / "models")
    loops.write(more=f"model: {other}\n")
    code, _, err = gate()
    assert 3 == code
    assert "out of date: model changed since iteration 001-" in err
    assert "\n    model models/base (folder:" in err
    assert f") -> {other} (no folder of this name is here)\n" in err


def test_tiny_in_place_of_a_folder(loops: Loops, gate: Gate) -> None:
    """The model `tiny` is no folder, so none is missed."""
    model(loops, "models/base")
    version(loops, "models/base")
    loops.write(more="model: tiny\n")
    code, _, err = gate()
    assert (3, True) == (code, " -> tiny:" in err)
    assert "no folder" not in err


def test_other_changes_are_told(loops: Loops, gate: Gate) -> None:
    """Where settings changed too, the absent folder is not among what is said to have changed."""
    model(loops, "models/base")
    version(loops, "models/base")
    shutil.rmtree(loops.root / "models")
    loops.write(rate=WORSE, more="model: models/base\n")
    code, _, err = gate()
    assert 3 == code
    assert "out of date: settings changed since" in err
    assert "    model" not in err


def test_changed_folder(loops: Loops, gate: Gate) -> None:
    """Where the folder is present and another, the log is out of date."""
    model(loops, "models/base")
    version(loops, "models/base")
    model(loops, "models/base", content="2")
    code, _, err = gate()
    assert 3 == code
    assert "    model models/base (folder:" in err
    assert ") -> models/base (folder:" in err


def test_commands_that_only_read(loops: Loops, capsys: Any) -> None:
    """The log's best, and whether it is up to date, are known without the folder."""
    model(loops, "models/base")
    loops.write(more="model: models/base\n", loop="{iterations: 2}", gates="{eval_loss: '<= 1'}")
    loops.train()
    shutil.rmtree(loops.root / "models")
    for command in (["show", "best"], ["suggest"], ["accept"]):
        assert 0 == main(command)
    assert "the iteration is in the log, so it is not trained again" in capsys.readouterr().out


def test_record_without_the_name(loops: Loops, gate: Gate) -> None:
    """A record of an older version does not name the folder: its settings and data have to fit."""
    model(loops, "models/base")
    loops.write(more="model: models/base\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pytest_ftloop.loop.cycle.model_facts", lambda *_: {})
        loops.train()
    shutil.rmtree(loops.root / "models")
    assert 0 == gate()[0]
    loops.write(rate=WORSE, more="model: models/base\n")
    assert 3 == gate()[0]


@pytest.mark.slow
def test_typo_is_an_error_in_training(loops: Loops, capsys: Any, monkeypatch: Any) -> None:
    """Training needs the weights: a folder that is not there is an error with its line."""
    from pytest_ftloop.loop import backend

    model(loops, "models/base")
    version(loops, "models/base")
    shutil.rmtree(loops.root / "models")
    monkeypatch.setattr(backend, "local", backend.LocalBackend)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert 2 == main(["run"])
    assert "model 'models/base' could not be loaded" in capsys.readouterr().err
