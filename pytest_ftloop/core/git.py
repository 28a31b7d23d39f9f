"""Queries to a git repository, through the `git` program.

A repository is found from a folder, never from the environment: in a hook, GIT_DIR and similar
variables name the repository of the commit in progress, which may be another one. The user's hooks
do not run, git never prompts, and only `worktree` and `staged` write to the repository.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from pytest_ftloop.core.bounds import MOST_BYTES, read_bytes
from pytest_ftloop.core.errors import shown_path
from pytest_ftloop.core.files import real
from pytest_ftloop.core.git_memory import (
    ASKED_APART,
    OBJECT_NAME,
    answered,
    at_one_moment,
    blobs_at_hand,
    keep_blobs,
    whole_if_often_asked,
)
from pytest_ftloop.core.git_output import (
    batch_contents,
    entries,
    listed_blobs,
    lists_folder_above,
    touches,
)
from pytest_ftloop.core.git_program import (
    FETCH_ALL,
    GitError,
    failed,
    run_git,
    said_by,
    unreadable,
    without_git_folder,
)
from pytest_ftloop.core.temporary import PREFIX, sweep_temporary, temporary_folder

__all__ = ["FETCH_ALL", "GitError", "Repository", "at_one_moment", "ignored_by_git"]

_ROOTS: set[Path] = set()
"""The roots of the repositories that were found. Starting git takes longer than all that one
command asks of it, so what can't change while a command runs is asked once."""

_COMMITS: set[tuple[Path, str]] = set()
"""Full names of commits that are there, by repository."""

_ASKED: Counter[tuple[Path, str]] = Counter()
"""How often the files of a commit were asked about, by repository and full name."""

_STATUS = (
    "status",
    "--porcelain",
    "-z",
    "--no-renames",
    "--untracked-files=all",
    "--ignored=matching",
    "--ignore-submodules=all",
)

# Of a renamed file git would list the new name alone.
_DIFF = (
    "diff",
    "--name-only",
    "-z",
    "--no-renames",
    "--no-ext-diff",
    "--ignore-submodules=all",
)


@dataclass(frozen=True)
class Repository:
    """A git repository with a working tree: its own, or a linked one (`git worktree add`).

    Each method is one question to git; they are together because all need the root.
    """

    root: Path

    @classmethod
    def containing(cls, folder: Path) -> Repository:
        """The repository that contains a folder or file, which need not exist yet."""
        start = folder.absolute()
        while not start.is_dir():
            start = start.parent
        # The nearest .git above: a repository may have been made inside, or removed.
        nearest = next((p for p in _up(start) if (p / ".git").exists()), None)
        is_known = nearest is not None and nearest in _ROOTS
        if nearest and is_known and ".git" not in real(start).relative_to(nearest).parts:
            return cls(nearest)
        done = run_git(start, "rev-parse", "--show-toplevel")
        if done.returncode == 0:
            root = real(Path(os.fsdecode(done.stdout.removesuffix(b"\n"))))
            if not (root / ".git").exists():
                raise without_git_folder(root)
            _ROOTS.add(root)
            return cls(root)
        said = said_by(done)
        if "must be run in a work tree" in said:
            raise GitError(
                f"wanted a git working tree, found {shown_path(folder)} inside a git folder or a "
                "bare repository",
                kind="no-working-tree",
                cure="Run this in a checkout of the repository.",
            )
        if "not a git repository" in said:
            if nearest is not None:
                raise unreadable(nearest / ".git")
            raise GitError(
                f"{shown_path(folder.absolute())} is not in a git repository",
                kind="no-repository",
                cure="A log is compared with its last committed version: run git init and commit, "
                "or run this in a clone.",
            )
        raise failed(done, "rev-parse")

    def resolve(self, ref: str) -> str:
        """The full name of the commit that a ref refers to; for a tag, the commit it points to."""
        if not ref or ref.startswith("-") or not ref.isprintable():
            raise GitError(
                f"wanted a commit, branch or tag, found {ref!r}",
                kind="unknown-ref",
                cure="git branch --all lists the branches, git tag the tags.",
            )
        if (self.root, ref) in _COMMITS:
            return ref
        done = self._ask("rev-parse", "--verify", f"{ref}^{{commit}}")
        name = done.stdout.decode(errors="replace").strip()
        # A range or a negated ref (^HEAD) also resolves, but not to an object name.
        if done.returncode == 0 and OBJECT_NAME.fullmatch(name):
            _COMMITS.add((self.root, name))
            return name
        raise self._unresolved(ref, done)

    def is_shallow(self) -> bool:
        """Whether history is cut off, as in a CI checkout of only the last commit."""
        if (git := self.root / ".git").is_dir():  # else a linked working tree, or a submodule
            return (git / "shallow").is_file()
        return self._run("rev-parse", "--is-shallow-repository").strip() == b"true"

    def remotes(self) -> tuple[str, ...]:
        """The names of the remotes, `origin` first."""
        names = self._run("remote").decode(errors="surrogateescape").splitlines()
        return tuple(sorted(names, key=lambda name: (name != "origin", name)))

    def merge_base(self, a: str, b: str) -> str:
        """The best common ancestor of two commits."""
        done = self._ask("merge-base", self.resolve(a), self.resolve(b))
        if done.returncode == 0:
            return done.stdout.decode().strip()
        if done.returncode != 1:
            raise failed(done, "merge-base")
        if self.is_shallow():
            raise GitError(
                f"wanted the last common commit of {a} and {b}, found a shallow clone whose "
                "history does not reach it",
                kind="shallow",
                cure=FETCH_ALL,
            )
        raise GitError(
            f"{a} and {b} have no common commit",
            kind="no-merge-base",
            cure="Name the commit to compare with.",
        )

    def files(
        self, commit: str, folder: Path | PurePosixPath | None = None
    ) -> dict[PurePosixPath, str]:
        """The blobs of a commit by path from the root, or only those below a folder.

        A `Path` is a folder on disk, relative to the working folder; a `PurePosixPath` is one in
        the repository, as `relative` returns it. It need not exist in the commit. Symlinks and
        submodules are left out, since their content is elsewhere.
        """
        if isinstance(folder, Path):
            folder = self.relative(folder)
        below = "" if folder in (None, PurePosixPath()) else f"{folder}/"
        known = self.resolve(commit)
        if (whole := _whole_if_often_asked(self, known)) is not None:
            return {PurePosixPath(p): blob for p, blob in whole.items() if p.startswith(below)}
        return dict(listed_blobs(_tree(self, known, below)))

    def blobs(self, commit: str, paths: Iterable[PurePosixPath]) -> dict[PurePosixPath, str]:
        """The blobs of those of these files that a commit has, without symlinks, in one call."""
        names = [str(path) for path in paths]
        if not names:
            return {}
        known = self.resolve(commit)
        if (whole := _whole_if_often_asked(self, known)) is not None:
            return {PurePosixPath(name): whole[name] for name in names if name in whole}
        return dict(listed_blobs(self._run("ls-tree", "-z", "--full-tree", known, "--", *names)))

    def texts(self, commit: str, paths: Iterable[PurePosixPath]) -> dict[PurePosixPath, str]:
        """The text of those of these files that a commit has, with `LF` line ends.

        Bytes that are not UTF-8 are replaced. Two calls of git, however many files there are.
        """
        found = self.contents(self.blobs(commit, paths))
        return {
            path: content.decode(errors="replace").replace("\r\n", "\n")
            for path, content in found.items()
        }

    def differs(self, commit: str, files: Iterable[PurePosixPath]) -> bool:
        """Whether any of these files is another one now than in a commit; with git's filters."""
        names = [str(file) for file in files]
        differing = self._listed((*_DIFF, commit), names)
        return any(touches(d, name) for d in differing for name in names)

    def last_change(self, commit: str, paths: Sequence[PurePosixPath]) -> str:
        """The last commit, from this one back, that changed one of these; empty if none did."""
        if not paths:
            return ""
        names = [str(path) for path in paths]
        return self._run("log", "-1", "--format=%H", commit, "--", *names).decode().strip()

    def versions(self, path: PurePosixPath, most: int) -> tuple[str, ...]:
        """The blobs of a file before and after each of its last changes, the latest first."""
        listed = self._run(
            "log", f"-{most}", "--format=", "--raw", "-z", "--no-abbrev", "--no-renames", "-m",
            "--first-parent", "HEAD", "--", str(path),
        )  # fmt: skip
        # :<mode> <mode> <blob before> <blob> <status>
        about = [entry.decode().split(" ") for entry in listed.split(b"\0") if entry[:1] == b":"]
        return tuple(
            blob for _, _, *blobs, _ in about for blob in reversed(blobs) if blob.strip("0")
        )

    def contents(self, blobs: Mapping[PurePosixPath, str]) -> dict[PurePosixPath, bytes]:
        """The contents of files of a commit; git is asked only for those that are others now."""
        here = {path: _if_same(self.root / path, blob) for path, blob in blobs.items()}
        others = self.read([blob for path, blob in blobs.items() if here[path] is None])
        return {path: next(others) if now is None else now for path, now in here.items()}

    def read(self, blobs: Sequence[str]) -> Iterator[bytes]:
        """The contents of blobs in this order, from a single call of git."""
        for blob in blobs:
            if not OBJECT_NAME.fullmatch(blob):
                raise GitError(f"wanted the name of a blob, found {blob!r}", kind="failed")
        if (known := blobs_at_hand(blobs)) is not None:
            return iter(known)
        asked = "".join(f"{blob}\n" for blob in blobs).encode()
        return keep_blobs(blobs, batch_contents(self._run("cat-file", "--batch", given=asked)))

    def filtered(self, blob: str, path: PurePosixPath, filter_: str) -> bytes:
        """A blob as this filter of the user's git checks it out at this path.

        As it is in git if there is no such filter, or if it fails.
        """
        with temporary_folder() as folder:
            # The commit's own attributes may be gone from the files that are there now.
            rule = folder / "attributes"
            rule.write_text(f"* filter={filter_}\n", encoding="ascii")
            stated = ("-c", f"core.attributesFile={rule}")
            done = self._ask(*stated, "cat-file", "--filters", f"--path={path}", blob)
        if done.returncode == 0:
            return done.stdout
        (content,) = self.read([blob])
        return content

    def relative(self, path: Path) -> PurePosixPath:
        """A path on disk, relative to the repository's root; symlinks are followed."""
        try:
            return PurePosixPath(real(path).relative_to(self.root).as_posix())
        except ValueError:
            raise GitError(
                f"{shown_path(path.absolute())} is outside the git repository {self.root}",
                kind="outside",
                cure="Only files in the repository have a committed version to compare with.",
            ) from None

    def untracked_or_changed(self, paths: Iterable[Path]) -> tuple[Path, ...]:
        """The files and folders among these that differ from HEAD.

        They are changed, staged, deleted, new or ignored by git; for a folder, anything below it
        is. Pass a folder rather than its many files: the paths go on git's command line.
        """
        inside = {path: str(self.relative(path)) for path in paths}
        if not inside:
            return ()
        differing = [entry[3:] for entry in self._listed(_STATUS, list(inside.values()))]
        return tuple(
            path for path, name in inside.items() if any(touches(d, name) for d in differing)
        )

    def ignored(self, files: Iterable[Path]) -> tuple[Path, ...]:
        """Those of these files that `git add` refuses because a rule ignores them.

        A file that git tracks is never among them, whatever the rules.
        """
        # check-ignore refuses literal pathspecs: after ./ no character of a name is magic.
        inside = {file: f"./{self.relative(file)}" for file in files}
        given = b"".join(os.fsencode(name) + b"\0" for name in inside.values())
        plain = {"GIT_LITERAL_PATHSPECS": "0"}
        done = run_git(self.root, "check-ignore", "-z", "--stdin", given=given, env=plain)
        if done.returncode not in (0, 1):  # 1: none of them
            raise failed(done, "check-ignore")
        named = {os.fsdecode(name) for name in done.stdout.split(b"\0")}
        return tuple(file for file, name in inside.items() if name in named)

    def staged(self) -> str:
        """A commit, on no branch, of the staged files; in a hook, of those being committed."""
        env = {}
        # `git commit -a`, or with file names, uses its own index.
        if index := os.environ.get("GIT_INDEX_FILE"):
            folder = os.fsdecode(self._run("rev-parse", "--absolute-git-dir").removesuffix(b"\n"))
            if real(self.root / index).parent == real(Path(folder)):
                env["GIT_INDEX_FILE"] = str(real(self.root / index))
        done = run_git(self.root, "write-tree", env=env)
        if done.returncode != 0:
            raise failed(done, "write-tree")
        tree = done.stdout.decode().strip()
        head = self._ask("rev-parse", "--quiet", "--verify", "HEAD^{commit}")
        parents = ("-p", head.stdout.decode().strip()) if head.returncode == 0 else ()
        who = ("-c", "user.name=ftloop", "-c", "user.email=ftloop@localhost")
        return self._run(*who, "commit-tree", tree, *parents, "-m", "staged").decode().strip()

    @contextmanager
    def worktree(self, commit: str) -> Iterator[Path]:
        """A checkout of a commit in a temporary folder, which is always removed at the end.

        It contains no submodules, and no untracked or ignored files (data, caches).
        """
        name = self.resolve(commit)
        sweep_temporary()
        self._forget_worktrees()
        with temporary_folder() as folder:
            tree = real(folder) / "worktree"
            try:
                self._run("worktree", "add", "--detach", str(tree), name)
                yield tree
            finally:
                self._discard(tree)

    def query(self, *arguments: str) -> str | None:
        """What a reading command of git prints, without the last line end; None if it fails."""
        done = self._ask(*arguments)
        return os.fsdecode(done.stdout).rstrip("\n") if done.returncode == 0 else None

    def _discard(self, tree: Path) -> None:
        # Not `worktree prune`, which forgets worktrees of the user on disks that are not mounted.
        # --force twice, since an interrupted `add` leaves its worktree locked.
        remove = ("worktree", "remove", "--force", "--force", str(tree))
        done = self._ask(*remove)
        shutil.rmtree(tree, ignore_errors=True)
        if done.returncode != 0:
            self._ask(*remove)  # git refuses an incomplete folder, but forgets a missing one

    def _forget_worktrees(self) -> None:
        """Let git forget our worktrees whose folders are gone: their processes were killed."""
        listed = self.query("worktree", "list", "--porcelain") or ""
        for line in listed.splitlines():
            tree = Path(line.removeprefix("worktree "))
            is_ours = tree.name == "worktree" and tree.parent.name.startswith(PREFIX)
            if is_ours and not tree.parent.exists():
                self._discard(tree)

    def _unresolved(self, ref: str, done: subprocess.CompletedProcess[bytes]) -> GitError:
        head = self._ask("rev-parse", "--quiet", "--verify", "HEAD")
        if head.returncode != 0 and re.match(r"(HEAD|@)(\W|$)", ref):
            if self._is_broken():
                return unreadable(self.root / ".git")
            return GitError(
                "the git repository has no commit yet", kind="no-commit", cure="Commit first."
            )
        if "is ambiguous" in said_by(done):
            return GitError(
                f"the commit {ref!r} is ambiguous",
                kind="unknown-ref",
                cure="Give more digits.",
            )
        if self.is_shallow():
            return GitError(
                f"there is no commit {ref!r} in this shallow clone, whose history is cut off",
                kind="unknown-ref",
                cure=FETCH_ALL,
            )
        return GitError(
            f"there is no commit {ref!r} in the git repository {self.root}",
            kind="unknown-ref",
            cure="git branch --all lists the branches, git tag the tags; git fetch gets new ones.",
        )

    def _is_broken(self) -> bool:
        """Whether HEAD has no commit because it, or its branch, is damaged: not a first commit."""
        branch = self._ask("symbolic-ref", "--quiet", "HEAD")
        if branch.returncode != 0:
            return True
        return "broken ref" in said_by(
            self._ask("for-each-ref", os.fsdecode(branch.stdout).rstrip("\n"))
        )

    def _listed(self, question: Sequence[str], names: Sequence[str]) -> list[str]:
        """What git lists of these files and folders, and perhaps of others."""
        whole = whole_if_often_asked(self.root, *question)
        if whole is None or any(lists_folder_above(whole, name) for name in names):
            whole = self._run(*question, "--", *names)
        return entries(whole)

    def _ask(self, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return answered(self.root, *arguments, given=given)

    def _run(self, *arguments: str, given: bytes = b"") -> bytes:
        done = self._ask(*arguments, given=given)
        if done.returncode != 0:
            raise failed(done, arguments[0])
        return done.stdout


@lru_cache(maxsize=16)
def _tree(repository: Repository, commit: str, below: str) -> bytes:
    """The blobs of a commit, by its full name, below a folder, as `ls-tree -z` lists them."""
    paths = [below] if below else []
    return repository._run("ls-tree", "-r", "-z", "--full-tree", commit, "--", *paths)


@lru_cache(maxsize=2)
def _whole(repository: Repository, commit: str) -> dict[str, str]:
    """The blobs of all files of a commit, by their paths."""
    return {str(path): blob for path, blob in listed_blobs(_tree(repository, commit, ""))}


def _whole_if_often_asked(repository: Repository, commit: str) -> dict[str, str] | None:
    """All files of a commit, from the ninth question on; None before that."""
    _ASKED[repository.root, commit] += 1
    is_often = _ASKED[repository.root, commit] > ASKED_APART
    return _whole(repository, commit) if is_often else None


def _if_same(file: Path, blob: str) -> bytes | None:
    """The content of a file if it is a blob's; None if it is another one, or can't be read.

    Most files of a log are the same in a commit and now, and git starts slower than they are read.
    """
    try:
        content = read_bytes(file, MOST_BYTES)
    except OSError:
        return None
    make = hashlib.sha1 if len(blob) == 40 else hashlib.sha256  # as git names blobs
    name = make(b"blob %d\0" % len(content), usedforsecurity=False)
    name.update(content)
    return content if name.hexdigest() == blob else None


def _up(folder: Path) -> tuple[Path, ...]:
    resolved = real(folder)
    return (resolved, *resolved.parents)


def ignored_by_git(files: Sequence[Path]) -> tuple[Path, ...]:
    """Those of the files of one repository that git ignores; none where git can't be asked."""
    if not files:
        return ()
    try:
        return Repository.containing(files[0].parent).ignored(files)
    except GitError:  # most often there is no repository; a hint is no reason to fail
        return ()
