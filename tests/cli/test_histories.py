"""Random histories of a change in real git, judged as in CI.

A worse model never ends green without a line that says why; an unchanged one is never blocked.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pytest_ftloop.cli import main
from tests.gitfakes import GitRepo
from tests.loops import BETTER, SAME, WORSE, Loops

if TYPE_CHECKING:
    from collections.abc import Callable

Capture = pytest.CaptureFixture[str]

REASONS = re.compile("gates? changed|accepted by hand|given up by hand|no regression is proven")
"""What tells a reviewer why a worse model passes."""


@dataclass
class Change:
    """A branch on which things happen: the loop file, the rate that it states, what was done."""

    loops: Loops
    file: str = "x.ftloop.yaml"
    rate: str = SAME
    neutral: bool = True
    done: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The loop file's text."""
        return (self.loops.root / self.file).read_text(encoding="utf-8")

    @property
    def logs(self) -> list[Path]:
        """The folders of the logs."""
        return sorted(self.loops.root.rglob("improvement_log/*"))

    def records(self) -> list[Path]:
        """The log's YAML files."""
        return [path for log in self.logs for path in sorted(log.rglob("*.yaml"))]


def docs(change: Change) -> None:
    change.loops.put("README.md", f"{len(change.done)}\n")


def commit(change: Change) -> None:
    if change.loops.repo.git("status", "--porcelain"):
        change.loops.commit()


def merge(change: Change) -> None:
    """Main went on without this loop."""
    commit(change)
    repo = change.loops.repo
    repo.switch("main")
    change.loops.put(f"main{len(change.done)}.txt", "main\n")
    change.loops.commit()
    repo.switch("change")
    repo.merge("main")


def rename(change: Change) -> None:
    new = "y.ftloop.yaml" if "x.ft" in change.file else "x.ftloop.yaml"
    new = str(Path(change.file).with_name(new))
    (change.loops.root / change.file).rename(change.loops.root / new)
    change.file = new


def rename_with_log(change: Change) -> None:
    rename(change)
    log = change.loops.root / Path(change.file).parent / "improvement_log"
    new = log / change.file.rpartition("/")[2].partition(".")[0]
    old = log / ("x" if new.name == "y" else "y")
    if old.is_dir() and not new.exists() and "name:" not in change.text:
        old.rename(new)


def move(change: Change) -> None:
    if "/" in change.file:
        return
    (change.loops.root / "sub").mkdir()
    for name in ("train.jsonl", "eval.jsonl", change.file):
        shutil.move(change.loops.root / name, change.loops.root / "sub")
    change.file = f"sub/{change.file}"


def name_it(change: Change) -> None:
    if "name:" not in change.text:
        change.loops.put(change.file, f"name: z\n{change.text}")


def reformat(change: Change) -> None:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 60
    for path in change.records():
        said = yaml.load(path.read_text(encoding="utf-8"))
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(said, file)


def carriage_returns(change: Change) -> None:
    for path in change.records():
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


def train(change: Change) -> None:
    change.loops.train()


def rate_of(rate: str) -> Callable[[Change], None]:
    def set_rate(change: Change) -> None:
        change.loops.put(change.file, change.text.replace(change.rate, rate))
        change.rate = rate
        change.loops.train()

    set_rate.__name__ = {WORSE: "worse", BETTER: "better", SAME: "as before"}[rate]
    return set_rate


def delete_log(change: Change) -> None:
    for log in change.logs:
        shutil.rmtree(log)


def delete(what: str) -> Callable[[Change], None]:
    def delete_files(change: Change) -> None:
        for log in change.logs:
            shutil.rmtree(log / what, ignore_errors=True)

    delete_files.__name__ = f"delete {what}"
    return delete_files


def delete_record(change: Change) -> None:
    for path in change.records()[:1]:
        path.unlink()


def rename_ids(change: Change) -> None:
    path = change.loops.root / Path(change.file).with_name("eval.jsonl")
    path.write_text(path.read_text(encoding="utf-8").replace('"id": "e', '"id": "q'), "utf-8")


def other_texts(change: Change) -> None:
    path = change.loops.root / Path(change.file).with_name("eval.jsonl")
    path.write_text(path.read_text(encoding="utf-8").replace("what is", "what  is"), "utf-8")


def loosen(change: Change) -> None:
    text = change.text.replace("regression: {}", "regression: {min_regression: 0.3}")
    change.loops.put(change.file, text)


def no_gate(change: Change) -> None:
    change.loops.put(change.file, re.sub("gates: .*", "gates: {eval_loss: <= 9}", change.text))


def edit_figure(change: Change) -> None:
    for path in change.records()[-1:]:
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("eval_loss: 2", "eval_loss: 1"), "utf-8")


def accept(change: Change) -> None:
    main(["accept", "best", str(change.loops.root / change.file), "--baseline"])


def leave(change: Change) -> None:
    """The loop stays to be judged."""


def switch_off(change: Change) -> None:
    path = change.loops.root / change.file
    path.rename(path.with_name(f"{path.name}.off"))


def hide(change: Change) -> None:
    hidden = change.loops.root / "build"
    hidden.mkdir()
    (change.loops.root / change.file).rename(hidden / Path(change.file).name)


def give_up(change: Change) -> None:
    (change.loops.root / change.file).unlink()
    delete_log(change)


NEUTRAL: list[Callable[[Change], None]] = [
    docs, commit, merge, rename, rename_with_log, move, name_it, reformat, carriage_returns, train,
]  # fmt: skip
OTHERS: list[Callable[[Change], None]] = [
    rate_of(WORSE), rate_of(BETTER), rate_of(SAME), delete_log, delete("seeds"),
    delete("verdicts"), delete_record, rename_ids, other_texts, loosen, no_gate, edit_figure,
    accept,
]  # fmt: skip
WORSENED = OTHERS[0]
ENDS = [leave, switch_off, hide, give_up]

_number = count()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Where the repository that every history starts from is kept, once it is made."""
    return {"folder": tmp_path_factory.mktemp("histories"), "made": False}


@pytest.fixture
def begin(
    loops: Loops, start: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Change]:
    """Makes a branch of a repository whose main, tagged as the base, has a trained loop."""
    kept: Path = start["folder"] / "start"
    if not start["made"]:
        loops.version()
        loops.repo.git("tag", "base")
        loops.repo.branch("change")
        shutil.copytree(loops.root, kept)
        start["made"] = True

    def branch() -> Change:
        folder = loops.root.parent / f"history{next(_number)}"
        shutil.copytree(kept, folder)
        monkeypatch.chdir(folder)
        return Change(Loops(GitRepo(folder), loops.trained_file))

    return branch


def judge(change: Change, capsys: Capture) -> tuple[int, str]:
    """Commit, and run the gate against the base as CI does."""
    commit(change)
    capsys.readouterr()
    code = main(["gate", "base"])
    out = "".join(capsys.readouterr())
    assert "Traceback" not in out
    return code, out


STEPS = settings(max_examples=12, suppress_health_check=list(HealthCheck))


@STEPS
@example(steps=[rename, train])
@example(steps=[move, rename, reformat, train])
@given(steps=st.lists(st.sampled_from(NEUTRAL), max_size=6))
def test_an_unchanged_model_is_never_blocked(
    begin: Callable[[], Change], capsys: Capture, steps: list[Callable[[Change], None]]
) -> None:
    """Whatever is done to files and names, the same settings on the same data pass."""
    change = begin()
    for step in steps:
        step(change)
        change.done.append(step.__name__)
    train(change)
    code, out = judge(change, capsys)
    assert 0 == code, out


@STEPS
@example(steps=[WORSENED], end=leave)
@example(steps=[rename, delete_log, WORSENED], end=leave)
@example(steps=[WORSENED, delete("seeds"), delete("verdicts")], end=leave)
@example(steps=[WORSENED, delete_record], end=leave)
@example(steps=[WORSENED, edit_figure], end=leave)
@example(steps=[no_gate, WORSENED], end=leave)
@example(steps=[other_texts, rename_ids, WORSENED], end=leave)
@example(steps=[WORSENED], end=switch_off)
@example(steps=[], end=give_up)
@example(steps=[rename, train], end=switch_off)
@given(
    steps=st.lists(st.sampled_from([*NEUTRAL, *OTHERS]), max_size=7),
    end=st.sampled_from([*[leave] * 5, *ENDS]),
)
def test_a_worse_model_is_never_green_unsaid(
    begin: Callable[[], Change],
    capsys: Capture,
    steps: list[Callable[[Change], None]],
    end: Callable[[Change], None],
) -> None:
    """Whatever is done before and after, a loop with worse settings fails, or a line says why."""
    change = begin()
    for step in [*steps, *(() if WORSENED in steps else (WORSENED,)), end]:
        step(change)
        change.done.append(step.__name__)
    code, out = judge(change, capsys)
    if (change.rate == WORSE or end is not leave) and code == 0:
        assert REASONS.search(" ".join(out.split())), out
