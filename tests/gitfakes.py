"""Real git repositories for tests, made in a temporary folder.

    repo = GitRepo.init(tmp_path / "project")
    first = repo.commit({"a.txt": "one"})          # write files and commit them; the full sha
    repo.branch("feature")                         # make a branch here and switch to it
    repo.commit({"a.txt": "two", "gone.txt": None})    # None deletes
    repo.switch("main"); repo.merge("feature")
    shallow = repo.clone(tmp_path / "ci", depth=1)

No user's or system's settings apply, and dates are fixed. Code under test reads the process's own
environment: `isolate(monkeypatch)` makes that one as clean, in CI and in a hook too.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

SETTINGS = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
}
IDENTITY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {
        "NAME": "A Tester",
        "EMAIL": "tester@example.invalid",
        "DATE": "2024-01-01T00:00:00Z",
    }.items()
}
OPTIONS = {
    "commit.gpgsign": "false",
    "core.autocrlf": "false",
    "init.defaultBranch": "main",
    "protocol.file.allow": "always",
    "tag.gpgsign": "false",
    "user.email": "tester@example.invalid",
    "user.name": "A Tester",
}
_FROM_OUTSIDE = ("GIT_", "GITHUB_", "GITLAB_", "CI_")


def isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment as on a developer's machine with no git settings, outside CI and hooks."""
    for name in os.environ:
        if name.startswith(_FROM_OUTSIDE) or name == "CI":
            monkeypatch.delenv(name)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@dataclass(frozen=True)
class GitRepo:
    """A repository and what a test does in it."""

    root: Path

    @classmethod
    def init(cls, root: Path, *options: str) -> GitRepo:
        """A new repository without a commit, on branch main."""
        root.mkdir(parents=True, exist_ok=True)
        repo = cls(root.resolve())
        repo.git("init", "--quiet", *options)
        return repo

    def git(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run git here; what it printed, without the last line end. Its complaint is the error."""
        options = [part for pair in OPTIONS.items() for part in ("-c", "=".join(pair))]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        done = subprocess.run(
            ["git", *options, *arguments],
            cwd=self.root,
            env={**clean, **SETTINGS, **IDENTITY, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
        assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout.rstrip("\n")

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        """Write files by their path from the root, without committing; None deletes one."""
        for name, content in files.items():
            path = self.root / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(
        self, files: Mapping[str, str | bytes | None] | None = None, message: str = "work"
    ) -> str:
        """Write these files and commit all there is (maybe nothing); the commit's full name."""
        self.write(files or {})
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.head

    @property
    def head(self) -> str:
        """The full name of the commit at HEAD."""
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str, start: str = "HEAD") -> None:
        """Make a branch and switch to it."""
        self.git("switch", "--quiet", "--create", name, start)

    def switch(self, ref: str) -> None:
        """Check out a branch; of anything else, a detached HEAD."""
        self.git("checkout", "--quiet", ref)

    def tag(self, name: str, ref: str = "HEAD") -> None:
        """An annotated tag: an object of its own that points to the commit."""
        self.git("tag", "--annotate", "--message", name, name, ref)

    def merge(self, ref: str) -> str:
        """Merge into the current branch by a commit of two parents; its full name."""
        self.git("merge", "--quiet", "--no-ff", "--message", f"Merge {ref}", ref)
        return self.head

    def clone(self, to: Path, *options: str, depth: int | None = None) -> GitRepo:
        """A clone, this repository its `origin`; with `depth` a shallow one, as CI makes it."""
        cut = () if depth is None else (f"--depth={depth}",)
        self.git("clone", "--quiet", *cut, *options, self.root.as_uri(), str(to))
        return GitRepo(to.resolve())

    def worktree(self, to: Path, ref: str = "HEAD") -> GitRepo:
        """A linked worktree: its `.git` is a file."""
        self.git("worktree", "add", "--quiet", "--detach", str(to), ref)
        return GitRepo(to.resolve())
