"""A folder with a loop in it, and pytest runs there: in this process, or in one of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ruamel.yaml  # noqa: F401 - see below

# Kept between the runs in this process: pytester forgets what a run imported first.
import pytest_ftloop.plugin.items
import pytest_ftloop.report.explain  # noqa: F401
import tests.fakes  # noqa: F401
from tests.gitfakes import GitRepo, isolate
from tests.plugin import fake_runner
from tests.processes import LONG_S

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]

LIGHT = ("-p", "no:hypothesispytest")  # it imports itself at the end of every run: 0.8 s
TRAIN = [{"id": f"t{n}", "prompt": f"p{n}", "completion": f" c{n}"} for n in range(6)]
EVAL = [
    {"id": f"e{n}", "prompt": f"what is {n}?", "completion": f" answer {n}"}
    | ({"tags": ["negation"]} if n < 2 else {})
    for n in range(5)
]

LOOP = """\
data: {train: train.jsonl, eval: eval.jsonl}
lora: {r: 8, lora_alpha: 16}
training: {learning_rate: 2.0e-4, num_train_epochs: 2}
gates:
  eval_loss: "<= 1.9"
  pass_rate[negation]: ">= 0.8"
loop: {iterations: 3, patience: 9}
"""
"""Three iterations: eval loss 2.0, 1.68, 1.44; pass rate 0, 60%, 100%, the negations last."""


GATED = """\
data: {train: train.jsonl, eval: eval.jsonl}
lora: {r: 8, lora_alpha: 16}
training: {learning_rate: 1.0e-3, num_train_epochs: 2}
gates:
  regression: {}
loop: {iterations: 1}
"""
"""One iteration: eval loss 1.68 with the negations, pass rate 60%, those fail."""

WORSE, BETTER, IN_DOUBT = "2.0e-4", "1.6e-3", "8.8e-4"
"""Learning rates: an eval loss of 2.00, of 1.44, and of 1.73, which one seed can't tell."""


class Project:
    """A folder with `x.ftloop.yaml`, its data, and the fake runner in its conftest.py."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.trained_file = self.path.with_name(f"{self.path.name}.trained")
        self.write("conftest.py", 'pytest_plugins = ["tests.plugin.fake_runner"]\n')
        self.write("x.ftloop.yaml", LOOP)
        self.write_rows("train.jsonl", TRAIN)
        self.write_rows("eval.jsonl", EVAL)

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def write_rows(self, name: str, rows: Sequence[Any]) -> Path:
        return self.write(name, "".join(f"{json.dumps(row)}\n" for row in rows))

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.path / name).read_text(encoding="utf-8")
        assert text.count(old) == 1
        self.write(name, text.replace(old, new))

    def run(self, *args: str | Path) -> pytest.RunResult:
        """Run pytest in this process."""
        # The outer run has the tree on sys.path, and its egg-info makes pytest warn.
        quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
        return self.pytester.runpytest_inprocess(*LIGHT, *quiet, *args)

    def command(self, *args: str | Path) -> list[str]:
        return [sys.executable, "-m", "pytest", *LIGHT, *map(str, args)]

    def run_alone(self, *args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run pytest in a process of its own."""
        return subprocess.run(
            self.command(*args),
            cwd=self.path,
            env=os.environ | env,
            capture_output=True,
            text=True,
            timeout=LONG_S,
            check=False,
        )

    @property
    def repo(self) -> GitRepo:
        """The repository in this folder, where the test has made one."""
        return GitRepo(self.path)

    def commit(self) -> str:
        """Commit all there is; the commit's full name."""
        return self.repo.commit()

    def rate(self, rate: str) -> None:
        """Change the learning rate in the loop file."""
        text = (self.path / "x.ftloop.yaml").read_text(encoding="utf-8")
        self.write("x.ftloop.yaml", re.sub("learning_rate: [^,]+", f"learning_rate: {rate}", text))

    def trained(self) -> list[str]:
        """One line a training run, in order: loop and learning rate."""
        if not self.trained_file.is_file():
            return []
        return self.trained_file.read_text(encoding="utf-8").splitlines()

    def files(self, folder: str = "") -> dict[str, bytes]:
        """Every file below, byte for byte; but what pytest itself writes."""
        base = self.path / folder
        return {
            path.relative_to(base).as_posix(): path.read_bytes()
            for path in sorted(base.rglob("*"))
            if path.is_file() and ".pytest_cache" not in path.parts
        }

    def log(self) -> dict[str, bytes]:
        """The files of the improvement log."""
        return self.files("improvement_log")


@pytest.fixture
def gated(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A repository whose last commit has a loop with a regression gate, and its log."""
    isolate(monkeypatch)
    project.write("x.ftloop.yaml", GATED)
    GitRepo.init(project.path)
    project.commit()  # so that the first version is compared with no log, in a commit
    project.run("--ftloop").assert_outcomes(passed=1)
    project.commit()
    project.trained_file.unlink()
    return project


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A folder with a loop that the fake runner trains, as on a developer's machine."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)  # pytest takes it for CI too
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    # A test's own conftest may change it, and pytester need not be the one that imported it.
    monkeypatch.setattr(fake_runner, "note_training", fake_runner.note_training)
    made = Project(pytester)
    monkeypatch.setenv("FAKE_TRAINED", str(made.trained_file))
    return made
