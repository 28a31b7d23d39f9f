"""The `git` program: how it is run, and what its failures are called.

The user's hooks do not run, git never prompts, and no variable of the environment directs it to
another repository than that of the folder.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pytest_ftloop.core.errors import FtloopError, shown_path

GitErrorKind = Literal[
    "no-git",
    "no-repository",
    "no-working-tree",
    "no-commit",
    "unknown-ref",
    "shallow",
    "no-merge-base",
    "outside",
    "failed",
]

FETCH_ALL = (
    "Set fetch-depth: 0 in actions/checkout (GIT_DEPTH: 0 in GitLab CI), "
    "or run git fetch --unshallow."
)
"""The cure for a clone that lacks the history needed."""

_REDIRECTING = frozenset(
    {
        "GIT_COMMON_DIR",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
        # These contradict GIT_LITERAL_PATHSPECS.
        "GIT_GLOB_PATHSPECS",
        "GIT_ICASE_PATHSPECS",
        "GIT_NOGLOB_PATHSPECS",
    }
)
"""Environment variables that are removed, since they direct git to another repository or index."""

_SET = {
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    # Messages are matched below, so they must be English; LANGUAGE takes precedence over LC_ALL.
    "LANGUAGE": "C",
    "LC_ALL": "C",
}
"""Environment variables that are set for git."""


class GitError(FtloopError):
    """Git lacks what was asked for, or failed; `kind` distinguishes the cases."""

    def __init__(self, message: str, *, kind: GitErrorKind, cure: str = "") -> None:
        super().__init__(message, cure=cure)
        self.kind: GitErrorKind = kind


def without_git_folder(root: Path) -> GitError:
    """A folder that git takes for a bare repository with a working tree, by its files alone.

    They can come with a pull request, and their `config` names programs that git would run.
    """
    return GitError(
        f"wanted a git working tree with a .git folder, found {shown_path(root)}, which has none: "
        "its own files make it a repository",
        kind="no-working-tree",
        cure="Move the loop out of a folder with the files HEAD, objects, refs and config.",
    )


def unreadable(found: Path) -> GitError:
    """A `.git` that git doesn't take for one: what it had committed is unknown, not nothing."""
    return GitError(
        f"wanted a git repository, found {shown_path(found)}, which git can't read",
        kind="failed",
        cure="Restore it from a backup, or clone the repository again. If it never was a "
        "repository, remove it.",
    )


def run_git(
    folder: Path, *arguments: str, given: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder, with more environment variables; its failure is for the caller."""
    command = ["git", "-C", str(folder), "-c", f"core.hooksPath={os.devnull}", *arguments]
    kept = {name: value for name, value in os.environ.items() if name not in _REDIRECTING}
    try:
        return subprocess.run(
            command,
            input=given,
            capture_output=True,
            env={**kept, **_SET, **(env or {})},
            check=False,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise GitError(
            f"the git program can't be run: {error.strerror}",
            kind="no-git",
            cure="Install git, or put it on PATH.",
        ) from None
    except OSError as error:
        raise GitError(f"git {arguments[0]}: {error.strerror}", kind="failed") from None


def said_by(done: subprocess.CompletedProcess[bytes]) -> str:
    """Git's messages."""
    return done.stderr.decode(errors="replace").strip()


def failed(done: subprocess.CompletedProcess[bytes], command: str) -> GitError:
    """Git's own message; if it distrusts the owner of a folder, also the command it suggests."""
    said = said_by(done)
    advised = re.search(r"git config --global --add safe\.directory .+", said)
    fatal = re.search(r"^(?:fatal|error): (.+)", said, re.MULTILINE)
    return GitError(
        f"git {command}: {fatal[1] if fatal else said or f'exit status {done.returncode}'}",
        kind="failed",
        cure=f"If you trust the folder: {advised[0]}" if advised else "",
    )
