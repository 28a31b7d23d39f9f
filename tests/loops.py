"""Loops in a git repository, for tests of the commands; the fixture `loops` makes one.

loops.write()                          # x.ftloop.yaml and its data
loops.train(); loops.commit()          # the first version
loops.write(rate=WORSE); loops.train()
assert 1 == main(["gate"])
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli import main
from pytest_ftloop.log import ImprovementLog, LogView

if TYPE_CHECKING:
    from tests.gitfakes import GitRepo

SAME, WORSE, BETTER, IN_DOUBT = "1.0e-3", "2.0e-4", "1.6e-3", "8.8e-4"
"""Learning rates: an eval loss of 1.68, 2.00, 1.44, and of 1.73, which one seed can't tell."""

TRAIN = [{"id": f"t{n}", "prompt": f"p{n}", "completion": f" c{n}"} for n in range(6)]
EVAL = [
    {"id": f"e{n}", "prompt": f"what is {n}?", "completion": f" answer {n}"}
    | ({"tags": ["negation"]} if n < 2 else {})
    for n in range(5)
]


@dataclass(frozen=True)
class Loops:
    """A repository and what a test does in it."""

    repo: GitRepo
    trained_file: Path

    @property
    def root(self) -> Path:
        """The repository's folder."""
        return self.repo.root

    def write(
        self,
        name: str = "x",
        folder: str = "",
        *,
        rate: str = SAME,
        gates: str = "{regression: {}}",
        loop: str = "{iterations: 1}",
        more: str = "",
    ) -> Path:
        """Write a loop file and its data; its path from the root."""
        for role, rows in (("train", TRAIN), ("eval", EVAL)):
            self.put(f"{folder}{role}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
        text = (
            "# what it is for\n"
            "data: {train: train.jsonl, eval: eval.jsonl}\n"
            "lora: {r: 8, lora_alpha: 16}  # small\n"
            "training:\n"
            f"  learning_rate: {rate}  # found by hand\n"
            "  num_train_epochs: 2\n"
            f"gates: {gates}\n"
            f"loop: {loop}\n"
            f"{more}"
        )
        return self.put(f"{folder}{name}.ftloop.yaml", text)

    def put(self, name: str, text: str) -> Path:
        """Write a file; its path from the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        return Path(name)

    def train(self, *arguments: str, exit_code: int | None = None) -> None:
        """Run all loops, as `ftloop run` does."""
        code = main(["run", "-q", *arguments])
        assert code == exit_code or (exit_code is None and code in (0, 1))

    def commit(self) -> str:
        """Commit all there is; the commit's full name."""
        return self.repo.commit()

    def version(self, rate: str = SAME, **settings: str) -> str:
        """Write, train and commit a version of the loop x; the commit's full name."""
        self.write(rate=rate, **settings)
        self.train()
        return self.commit()

    def trained(self) -> list[str]:
        """One line a training run: loop, learning rate and seed."""
        return self.trained_file.read_text().splitlines() if self.trained_file.is_file() else []

    def log(self, name: str = "x", folder: str = "") -> LogView:
        """What a loop's log says."""
        return ImprovementLog(self.root / folder / "improvement_log" / name).view

    def files(self) -> dict[str, bytes]:
        """Every file but git's, byte for byte."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and ".git" not in path.parts
        }

    def state(self) -> tuple[dict[str, bytes], str, str, list[str]]:
        """What no command may change: the files, git's status, its index, its worktrees."""
        git = self.repo.git
        return (
            self.files(),
            git("status", "--porcelain", "--branch"),
            git("ls-files", "--stage"),
            git("worktree", "list", "--porcelain").splitlines(),
        )
