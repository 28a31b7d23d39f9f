"""The judging of real_gate.py: each comparison laid out in a git repository, for `ftloop gate`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from real_gate_runs import NAME, tell

from pytest_ftloop.cli import main as ftloop
from pytest_ftloop.cli.command import FAILED, HOLDS, STALE
from pytest_ftloop.core.records import Iteration, SeedRun
from pytest_ftloop.gate.comparison import IN_DOUBT, SEEDS_IN_DOUBT
from pytest_ftloop.gate.student_t import survival
from pytest_ftloop.gate.verdict import SEEDS_MISSING
from pytest_ftloop.log import FOLDER, ImprovementLog

REPEATED = 997
"""One of so many comparisons is repeated in a process of its own."""

Record = Iteration | SeedRun
FilesOf = dict[str, str]


@dataclass(frozen=True)
class Side:
    """What a commit or a working tree holds: loop file, data, and the records of its log."""

    files: FilesOf
    records: Sequence[Record]


@dataclass(frozen=True)
class Answer:
    """The exit code of `ftloop gate`, and the verdict it printed."""

    code: int
    verdict: Mapping[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the gate failed."""
        return self.code == FAILED

    @property
    def lacks_seeds(self) -> bool:
        """Whether it is in doubt, and the gate asks for the seeds that decide."""
        because = str(self.verdict.get("because", ""))
        return self.code == STALE and because.startswith(SEEDS_MISSING)

    @property
    def kind(self) -> str:
        """The verdict; a doubt that the gate asks more seeds for is inconclusive by these."""
        return "inconclusive" if self.lacks_seeds else str(self.verdict["kind"])

    @property
    def in_doubt(self) -> bool:
        """Whether the tool would train more seeds, as `comparison.is_in_doubt` decides."""
        judged = (*self.verdict["changes"], *self.verdict["slide"])
        return any(survival(c["change"] / c["se"], c["df"]) <= IN_DOUBT for c in judged)


class Court:
    """A git repository in which one comparison after the other is laid out and judged."""

    def __init__(self, folder: Path, kept: Path) -> None:
        self.root, self.scratch = folder / "repository", ImprovementLog(folder / "scratch")
        self.kept = kept.open("w", encoding="utf-8")
        self.calls, self.repeated, self.errors = 0, 0, list[str]()
        self._there: FilesOf = {}
        self._committed: FilesOf | None = None
        self._records: dict[tuple[object, ...], FilesOf] = {}
        self.root.mkdir(parents=True)
        alone_with_git(folder)
        self._git("init", "-q", "-b", "main")

    def judge(self, scene: str, before: Side, after: Side) -> Answer:
        """Commit one side, put the other on top, and run the real command."""
        committed = {**before.files, **self._log(before.records)}
        if committed != self._committed:
            self._lay(committed)
            self._git("add", "-A")
            self._git("commit", "-q", "--allow-empty", "-m", scene)
            self._committed = committed
        self._lay({**committed, **after.files, **self._log(after.records)})
        code, out, error = self._gate()
        self.calls += 1
        answer = Answer(code, verdict_in(out))
        few = len(after.records) < SEEDS_IN_DOUBT
        if code not in (HOLDS, FAILED) and not (few and answer.lacks_seeds):
            self.errors.append(f"{scene}: exit code {code}: {error or out}")
            tell(self.errors[-1])
            return Answer(code, {"kind": "error", "changes": (), "slide": ()})
        if self.calls % REPEATED == 2:
            self._repeat(scene, code, out)
        print(
            json.dumps({"scene": scene, "code": code, **answer.verdict}), file=self.kept, flush=True
        )
        return answer

    def _gate(self) -> tuple[int, str, str]:
        out, error = io.StringIO(), io.StringIO()
        here = Path.cwd()
        os.chdir(self.root)
        try:
            with redirect_stdout(out), redirect_stderr(error):
                code = ftloop(["gate", "--json"])
        finally:
            os.chdir(here)
        return code, out.getvalue(), error.getvalue()

    def _repeat(self, scene: str, code: int, out: str) -> None:
        command = [sys.executable, "-m", "pytest_ftloop", "gate", "--json"]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        self.repeated += 1
        if (done.returncode, done.stdout) != (code, out):
            self.errors.append(
                f"{scene}: a process of its own printed something else: {done.stdout}"
            )

    def _lay(self, files: FilesOf) -> None:
        for name in self._there.keys() - files.keys():
            (self.root / name).unlink()
        for name, text in files.items():
            if self._there.get(name) != text:
                path = self.root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
        self._there = files

    def _log(self, records: Iterable[Record]) -> FilesOf:
        return {name: text for r in records for name, text in self._files_of(r).items()}

    def _files_of(self, record: Record) -> FilesOf:
        """A record's two files by their path in the repository, as the log writes them."""
        alone = record.number if isinstance(record, Iteration) else (record.iteration, record.role)
        key = (alone, record.fingerprint, record.group)
        if key not in self._records:
            log = self.scratch
            if isinstance(record, Iteration):
                written: Record = log.append(record)
            else:
                written = log.append_seed_run(record)
            self._records[key] = {
                f"{FOLDER}/{NAME}/{path.relative_to(log.folder)}": path.read_text("utf-8")
                for path in log.files(written)
            }
        return self._records[key]

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True)


def verdict_in(out: str) -> Mapping[str, Any]:
    """The one verdict in what the command printed; empty where an error left none."""
    (judged,) = json.loads(out)
    (verdict,) = judged.get("verdicts") or [{}]
    return dict(verdict)


def alone_with_git(folder: Path) -> None:
    """Hide the user's git settings, and a CI system's pull request, from what follows."""
    for name in [n for n in os.environ if n == "CI" or n.startswith(("GIT_", "GITHUB_", "CI_"))]:
        del os.environ[name]
    someone = {"NAME": "benchmark", "EMAIL": "benchmark@example.org", "DATE": "2024-06-01T00:00Z"}
    for role in ("AUTHOR", "COMMITTER"):
        os.environ |= {f"GIT_{role}_{what}": value for what, value in someone.items()}
    config = folder / "gitconfig"
    config.write_text("[gc]\n\tauto = 0\n", "utf-8")
    os.environ |= {"GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_NOSYSTEM": "1"}


@dataclass
class Tally:
    """The answers of one cell of a table."""

    one: list[Answer] = field(default_factory=list)
    settled: list[Answer] = field(default_factory=list)

    def add(
        self, court: Court, scene: str, before: Side, after: Side, more: Sequence[Record]
    ) -> None:
        """Judge with one seed of the candidate, and with more where that is in doubt."""
        first = court.judge(scene, before, after)
        self.one.append(first)
        if first.in_doubt and more:
            again = replace(after, records=[*after.records, *more])
            self.settled.append(court.judge(f"{scene}, {1 + len(more)} seeds", before, again))
        else:
            self.settled.append(first)

    @property
    def runs(self) -> float:
        """The mean number of the candidate's runs."""
        return 1 + (SEEDS_IN_DOUBT - 1) * fmean(answer.in_doubt for answer in self.one)

    @property
    def n(self) -> int:
        """The number of comparisons."""
        return len(self.one)
