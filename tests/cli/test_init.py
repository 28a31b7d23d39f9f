"""`ftloop init`: what it writes, what it refuses, and that it runs as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.cli.init import STARTER
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core import files
from pytest_ftloop.loop.inputs import Inputs

if TYPE_CHECKING:
    from pathlib import Path

NAMES = sorted(STARTER)


def written(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_writes_a_loop_that_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A loop file, its data and a test are written; the gates' tag exists; nothing else is left."""
    assert 0 == main(["init", str(tmp_path / "new" / "demo")])
    folder = tmp_path / "new" / "demo"
    assert NAMES == written(folder)
    inputs = Inputs.of(read_loop_file(folder / "topic.ftloop.yaml"), None)
    assert (60, 30) == (len(inputs.train.examples), len(inputs.eval.examples))
    assert "pytest --ftloop" in capsys.readouterr().out


def test_train_and_eval_rows_are_apart(tmp_path: Path) -> None:
    """No eval message is in the train set, and each topic has the same share of both."""
    main(["init", str(tmp_path)])
    rows = {
        role: [json.loads(line) for line in (tmp_path / f"data/{role}.jsonl").open()]
        for role in ("train", "eval")
    }
    prompts = {role: {row["prompt"] for row in rows[role]} for role in rows}
    assert set() == prompts["train"] & prompts["eval"]
    assert (60, 30) == (len(prompts["train"]), len(prompts["eval"]))
    for role, share in (("train", 20), ("eval", 10)):
        labels = [row["completion"] for row in rows[role]]
        assert {" payment": share, " delivery": share, " account": share} == {
            label: labels.count(label) for label in labels
        }


def test_here_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without DIR it writes to the working folder, and the commands it prints name none."""
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["init"])
    assert NAMES == written(tmp_path)
    out = capsys.readouterr().out
    assert "wrote topic.ftloop.yaml" in out
    assert "\n  pytest --ftloop\n" in out


def test_refuses_to_replace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file in the way: it is named, and nothing is written."""
    (tmp_path / "test_topic.py").write_text("mine")
    assert 2 == main(["init", str(tmp_path)])
    assert ["test_topic.py"] == written(tmp_path)
    assert "mine" == (tmp_path / "test_topic.py").read_text()
    out, err = capsys.readouterr()
    assert "" == out
    assert "test_topic.py exists already" in err
    assert "--force" in err


def test_force_says_what_it_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--force replaces, and tells replaced files from new ones."""
    (tmp_path / "test_topic.py").write_text("mine")
    assert 0 == main(["init", str(tmp_path), "--force"])
    assert "mine" != (tmp_path / "test_topic.py").read_text()
    lines = capsys.readouterr().out.splitlines()
    assert [f"replaced {tmp_path}/test_topic.py"] == [x for x in lines if x.startswith("replaced")]
    assert 3 == sum(line.startswith("wrote ") for line in lines)


@pytest.mark.parametrize("in_the_way", ["data", "topic.ftloop.yaml/x"])
def test_kind_of_file_in_the_way(
    in_the_way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where a folder must be, or the reverse, is an error before anything is written."""
    path = tmp_path / in_the_way
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    assert 2 == main(["init", str(tmp_path), "--force"])
    assert [in_the_way] == written(tmp_path)
    assert "can't be written" in capsys.readouterr().err


def test_full_disk_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failing write is a message; what was written before it is whole."""

    def write(path: Path, text: str) -> None:
        if path.name == "eval.jsonl":
            raise OSError(28, "No space left on device")
        whole(path, text)

    whole = files.write_atomically
    monkeypatch.setattr(files, "write_atomically", write)
    assert 2 == main(["init", str(tmp_path)])
    assert ["data/train.jsonl", "topic.ftloop.yaml"] == written(tmp_path)
    assert "eval.jsonl: can't be written: No space left on device" in capsys.readouterr().err


def test_names_the_missing_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where training is not possible yet, the command that makes it so comes first."""
    monkeypatch.setattr("pytest_ftloop.config.schema.TRAIN_EXTRA", ("json", "no_such_module"))
    main(["init", str(tmp_path)])
    out = capsys.readouterr().out
    assert "to install what training needs (no_such_module):" in out
    assert out.index('pip install "pytest-ftloop[train]"') < out.index("pytest --ftloop")


def test_test_is_skipped_without_ftloop(tmp_path: Path) -> None:
    """A plain pytest run of what was written trains nothing."""
    main(["init", str(tmp_path)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (0, True) == (done.returncode, "1 skipped" in done.stdout), done.stdout
    assert not (tmp_path / "improvement_log").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_ci")
def test_runs_as_it_is(tmp_path: Path) -> None:
    """What init writes is green, and the command line judges the same log without training."""
    main(["init", str(tmp_path)])
    command = [sys.executable, "-m", "pytest", "--ftloop", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    # The test function, and each of the loop file's five gates.
    assert (0, True) == (done.returncode, "6 passed" in done.stdout), done.stdout + done.stderr
    assert 0 == main(["run", str(tmp_path), "--replay"])


def test_what_an_interrupted_one_left_is_swept(tmp_path: Path) -> None:
    """Also where nothing is written now, because what it finished exists."""
    (tmp_path / "data").mkdir()
    left = tmp_path / "data/.eval.jsonl.999999999.1.tmp"
    left.touch()
    (tmp_path / "topic.ftloop.yaml").touch()
    assert 2 == main(["init", str(tmp_path)])
    assert ["topic.ftloop.yaml"] == written(tmp_path)
