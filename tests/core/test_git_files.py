"""Reading a commit's files, what is untracked or ignored, and worktrees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from pytest_ftloop.core.git import GitError, Repository, ignored_by_git
from tests.core.git_cases import ROOT, refused
from tests.gitfakes import GitRepo

pytestmark = pytest.mark.usefixtures("isolated")


class TestRead:
    def test_many(
        self, repo: GitRepo, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """400 files of a log are read by one call of git, in the order asked."""
        names = [f"logs/{n:03}.yaml" for n in range(400)]
        repo.commit({name: f"{name}\n" * 100 for name in names})
        listed = repository.files("HEAD", PurePosixPath("logs"))
        asked = [listed[PurePosixPath(name)] for name in reversed(names)]
        calls, run = [], subprocess.run
        monkeypatch.setattr(subprocess, "run", lambda *a, **k: calls.append(a) or run(*a, **k))
        contents = list(repository.read(asked))
        assert [(f"{name}\n" * 100).encode() for name in reversed(names)] == contents
        assert 1 == len(calls)

    def test_content(self, repo: GitRepo, repository: Repository) -> None:
        """Empty, binary, without a last line end, with what looks like git's own header."""
        contents = [b"", b"\0\xff\r\n", b"no end", b"\n", b"1" * 40 + b" blob 3\nabc\n"]
        repo.commit({f"c/{n}": content for n, content in enumerate(contents)})
        blobs = list(repository.files("HEAD", PurePosixPath("c")).values())
        assert contents == list(repository.read(blobs))
        assert [contents[2]] * 3 == list(repository.read([blobs[2]] * 3))

    def test_large(self, repo: GitRepo, repository: Repository) -> None:
        """More than any pipe holds, both ways, is no deadlock."""
        large = b"0123456789abcdef" * 500_000
        repo.commit({"large": large})
        listed = repository.files("HEAD")
        small, big = listed[PurePosixPath("a.txt")], listed[PurePosixPath("large")]
        contents = list(repository.read([big, *[small] * 20_000, big]))
        assert (20_002, large, b"one", large) == (
            len(contents), contents[0], contents[1], contents[-1],
        )  # fmt: skip

    def test_nothing(self, repository: Repository) -> None:
        assert [] == list(repository.read([]))

    def test_not_a_blob(self, repo: GitRepo, repository: Repository) -> None:
        """A missing blob, a commit and what is no object's name are told."""
        for blob, found in (("1" * 40, "missing"), (repo.head, "commit"), ("HEAD\nx", "HEAD")):
            error = refused("failed", lambda blob=blob: list(repository.read([blob])))
            assert found in error.message


class TestRelative:
    def test_inside(
        self, repo: GitRepo, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Symlinks and dots are followed; the path need not exist."""
        (repo.root / "real").mkdir()
        (repo.root / "link").symlink_to("real")
        monkeypatch.chdir(repo.root / "real")
        assert PurePosixPath("real/x") == repository.relative(repo.root / "link" / "x")
        assert PurePosixPath("real/x") == repository.relative(Path("x"))
        assert PurePosixPath("a.txt") == repository.relative(Path("../a.txt"))
        assert PurePosixPath() == repository.relative(repo.root)

    def test_outside(self, repo: GitRepo, repository: Repository, tmp_path: Path) -> None:
        """Beside the repository, above it, or behind a symlink that leads out."""
        (repo.root / "out").symlink_to(tmp_path)
        beside = tmp_path / f"{repo.root.name}-2"
        for path in (tmp_path, beside, repo.root / ".." / "x", repo.root / "out" / "x"):
            error = refused("outside", repository.relative, path)
            assert str(repo.root) in error.message


class TestUntrackedOrChanged:
    def test_each_way(self, repo: GitRepo, repository: Repository) -> None:
        """Committed as it is on disk, or not: whatever the reason."""
        repo.commit(dict.fromkeys(("same", "changed", "staged", "gone", "removed"), "x"))
        repo.write({"staged": "y"})
        repo.git("add", "staged")
        repo.git("rm", "--quiet", "--cached", "removed")
        repo.write({"changed": "y", "gone": None, "new": "x"})
        names = ("same", "changed", "staged", "gone", "removed", "new", "never")
        found = repository.untracked_or_changed([repo.root / name for name in names])
        assert ["changed", "staged", "gone", "removed", "new"] == [path.name for path in found]

    def test_folders(
        self, repo: GitRepo, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A folder stands for all below it; a path comes back as it was given."""
        repo.commit({"logs/same/x": "x", "logs/other/x": "x", "logs/other-2/x": "x"})
        repo.write({"logs/other/new": "x"})
        monkeypatch.chdir(repo.root / "logs")
        asked = [Path("same"), Path("other"), Path("other-2"), repo.root]
        assert (Path("other"), repo.root) == repository.untracked_or_changed(asked)

    def test_ignored(self, repo: GitRepo, repository: Repository) -> None:
        """What git ignores is not committed; what is committed all the same is."""
        repo.write({".gitignore": "out/\n*.tmp\n", "out/kept/x": "x"})
        repo.git("add", "--force", "out/kept/x")
        repo.commit({"out/log/x": "x", "logs/x.tmp": "x"})
        paths = [repo.root / name for name in ("out/kept", "out/log", "out/log/x", "logs")]
        assert tuple(paths[1:]) == repository.untracked_or_changed(paths)

    def test_ignored_folder(self, repo: GitRepo, repository: Repository) -> None:
        """Git lists an ignored folder as one: it stands for what lies below."""
        repo.commit({".gitignore": "out/\n", "out/log/x": "x", "output": "x"})
        paths = [repo.root / name for name in ("out/log", "out/log/x", "output")]
        assert tuple(paths[:2]) == repository.untracked_or_changed(paths)

    def test_touched_only(self, repo: GitRepo, repository: Repository) -> None:
        """The same content written again is no change, and asking writes nothing."""
        repo.write({"a.txt": "one"})
        os.utime(repo.root / "a.txt", (1, 1))
        index = (repo.root / ".git" / "index").read_bytes()
        assert () == repository.untracked_or_changed([repo.root / "a.txt"])
        assert index == (repo.root / ".git" / "index").read_bytes()

    def test_unborn(self, tmp_path: Path) -> None:
        """Before the first commit nothing is committed."""
        repo = GitRepo.init(tmp_path / "empty")
        repo.write({"staged": "x", "new": "x"})
        repo.git("add", "staged")
        paths = (repo.root / "staged", repo.root / "new")
        assert paths == Repository.containing(repo.root).untracked_or_changed(paths)

    def test_nothing_asked(self, repo: GitRepo, repository: Repository) -> None:
        """No paths are none, rather than all."""
        repo.write({"new": "x"})
        assert () == repository.untracked_or_changed([])


class TestIgnored:
    def test_rules(self, repo: GitRepo, repository: Repository) -> None:
        """Rules for a folder and for a kind of file; what git tracks already is not ignored."""
        repo.commit({"log/1.csv": "tracked", "log/1.yaml": "a"})
        repo.write({".gitignore": "*.csv\n/other/\n"})
        names = ["log/1.csv", ":2*.csv", "log/\u00e9\n.csv", "log/1.yaml", "other/x", "gone/x"]
        found = repository.ignored([repo.root / name for name in names])
        assert [":2*.csv", "\u00e9\n.csv", "x"] == [path.name for path in found]
        assert (repo.root / "other/x") == found[-1]

    def test_own_repository_in_an_ignored_folder(self, repo: GitRepo) -> None:
        """What counts are the rules of the repository that the files lie in."""
        repo.write({".gitignore": ".demo/\n"})
        inner = repo.root / ".demo" / "log.yaml"
        inner.parent.mkdir()
        assert (inner,) == ignored_by_git([inner])
        GitRepo.init(inner.parent)
        assert () == ignored_by_git([inner])

    def test_no_repository(self, tmp_path: Path) -> None:
        """Nothing is ignored where there is no repository; the repository itself says so."""
        assert () == ignored_by_git([tmp_path / "x"])
        assert () == ignored_by_git([])
        refused("no-repository", Repository.containing, tmp_path)

    def test_outside(self, repository: Repository, tmp_path: Path) -> None:
        refused("outside", repository.ignored, [tmp_path / "x"])


class TestWorktree:
    def test_checkout(self, repo: GitRepo, repository: Repository, tmp_path: Path) -> None:
        """The commit's files, outside the repository, and nothing is left of it afterwards."""
        first = repo.head
        repo.commit({"a.txt": "two"})
        hook = repo.root / ".git" / "hooks" / "post-checkout"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hook-ran\n")
        hook.chmod(0o755)
        with repository.worktree(first) as tree:
            assert "one" == (tree / "a.txt").read_text()
            assert repo.root not in tree.parents
            assert first == Repository.containing(tree).resolve("HEAD")
            (tree / "a.txt").write_text("changed")
            (tree / "new").write_text("new")
        self.assert_nothing_left(repo, tree)
        assert "main" == repo.git("branch", "--show-current")
        assert not (tmp_path / "hook-ran").exists()

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_removed_on_errors(
        self, repo: GitRepo, repository: Repository, error: type[BaseException]
    ) -> None:
        with pytest.raises(error), repository.worktree("HEAD") as tree:
            raise error
        self.assert_nothing_left(repo, tree)

    def test_damaged_and_locked(self, repo: GitRepo, repository: Repository) -> None:
        """A worktree that is locked or lost its .git file is removed too; the user's own stay."""
        with repository.worktree("HEAD") as tree:
            repo.git("worktree", "lock", str(tree))
            (tree / ".git").unlink()
        self.assert_nothing_left(repo, tree)

    def test_others_stay(self, repo: GitRepo, repository: Repository, tmp_path: Path) -> None:
        """A worktree of the user's is kept, even on a disk that is not there now."""
        linked = repo.worktree(tmp_path / "linked")
        linked.root.rename(tmp_path / "away")
        with repository.worktree("HEAD"):
            pass
        assert str(linked.root) in repo.git("worktree", "list")

    def test_two_at_once(self, repo: GitRepo, repository: Repository) -> None:
        with repository.worktree("HEAD") as one, repository.worktree("HEAD") as two:
            assert one != two
        self.assert_nothing_left(repo, one)
        self.assert_nothing_left(repo, two)

    def test_from_a_linked_worktree(self, repo: GitRepo, tmp_path: Path) -> None:
        linked = repo.worktree(tmp_path / "linked")
        with Repository.containing(linked.root).worktree("main") as tree:
            assert (tree / "a.txt").is_file()
        assert not tree.parent.exists()

    def test_unknown(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An unknown commit leaves no folder behind, nor does a checkout that fails."""
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        with pytest.raises(GitError), repository.worktree("no-such"):
            pass
        (repository.root / ".git" / "worktrees").write_text("in the way")
        with pytest.raises(GitError, match="git worktree"), repository.worktree("HEAD"):
            pass
        assert [] == list((tmp_path / "temporary").iterdir())

    def assert_nothing_left(self, repo: GitRepo, tree: Path) -> None:
        assert not tree.parent.exists()
        assert 1 == len(repo.git("worktree", "list").splitlines())
        assert [] == list((repo.root / ".git").glob("worktrees/*"))


def test_users_settings_and_language(
    repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another language, quoting, status and trace settings change no answer."""
    settings = tmp_path / "gitconfig"
    settings.write_text(
        "[core]\nquotePath = true\n[status]\nshort = true\nbranch = true\nrelativePaths = true\n"
        "showUntrackedFiles = no\n[color]\nui = always\n[status]\nshowStash = true\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("GIT_TRACE", "1")
    repo.commit({"ä": "x"})
    repo.write({"new": "x"})
    repository = Repository.containing(repo.root)
    assert {PurePosixPath("a.txt"), PurePosixPath("ä")} == set(repository.files("HEAD"))
    assert (repo.root / "new",) == repository.untracked_or_changed(
        [repo.root / "new", repo.root / "ä"]
    )
    refused("no-repository", Repository.containing, tmp_path)


def test_remotes(repo: GitRepo, tmp_path: Path) -> None:
    """`origin` is first, the others by name."""
    clone = repo.clone(tmp_path / "clone")
    for name in ("z", "a"):
        clone.git("remote", "add", name, "https://example.invalid/x.git")
    assert ("origin", "a", "z") == Repository.containing(clone.root).remotes()
    assert () == Repository.containing(repo.root).remotes()


def test_git_is_not_asked_at_import() -> None:
    """Importing the module runs no program."""
    check = (
        "import sys, subprocess\n"
        "subprocess.Popen = None\n"
        "import pytest_ftloop.core.git, pytest_ftloop.gate.reference\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)
