"""What is asked of git, in real repositories."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.git import GitError, Repository, ignored_by_git
from tests.gitfakes import GitRepo, isolate

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = str(Path(__file__).parents[2])
HOSTILE = ["--output=x", "-", "", " ", "a b", "HEAD..HEAD", "HEAD...HEAD", "^HEAD", "HEAD\n", "\0"]
HOSTILE += [
    "HEAD^@",
    "HEAD^!",
    "HEAD:a.txt",
    "HEAD^{tree}",
    "--all",
    "*",
    "a\0b",
    "\udc80",
    "x" * 9,
]
ODD_NAMES = [
    "a b.yaml",
    " both ends ",
    "two\nlines",
    "a\ttab",
    'a "quote"',
    "back\\slash",
    "ä-日本-🙂",
    "-dash",
    "*",
    ":(top)x",
    "[a]",
    "deep/er/file",
]


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch)
    # A temporary folder below a checkout is in no repository all the same.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.resolve()))


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    """One commit on main, with one file."""
    repo = GitRepo.init(tmp_path / "project")
    repo.commit({"a.txt": "one"})
    return repo


@pytest.fixture
def repository(repo: GitRepo) -> Repository:
    return Repository.containing(repo.root)


def refused(kind: str, function: Callable[..., object], *arguments: object) -> GitError:
    with pytest.raises(GitError) as caught:
        function(*arguments)
    assert kind == caught.value.kind, caught.value
    return caught.value


class TestContaining:
    def test_subfolder(self, repo: GitRepo) -> None:
        """A folder, a file and what does not exist yet lie in the repository above them."""
        repo.write({"logs/deep/x": ""})
        for name in ("", "logs/deep", "logs/deep/x", "no/such/folder", "logs/deep/x/y"):
            assert repo.root == Repository.containing(repo.root / name).root

    def test_relative_to_the_working_folder(
        self, repo: GitRepo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A relative path starts at the working folder."""
        monkeypatch.chdir(repo.root)
        assert repo.root == Repository.containing(Path("new/folder")).root

    def test_linked_worktree(self, repo: GitRepo, tmp_path: Path) -> None:
        """A linked worktree is its own root, with its own HEAD and the same commits."""
        first = repo.head
        linked = repo.worktree(tmp_path / "linked")
        second = repo.commit({"a.txt": "two"})
        repository = Repository.containing(linked.root)
        assert linked.root == repository.root
        assert [first, second] == [repository.resolve("HEAD"), repository.resolve("main")]

    def test_symlinked_folder(self, repo: GitRepo, tmp_path: Path) -> None:
        """A symlink into a repository lies in it: the root is the real one."""
        (repo.root / "logs").mkdir()
        (tmp_path / "link").symlink_to(repo.root / "logs")
        repository = Repository.containing(tmp_path / "link")
        assert repo.root == repository.root
        assert PurePosixPath("logs/x") == repository.relative(tmp_path / "link" / "x")

    def test_odd_root(self, tmp_path: Path) -> None:
        """Any name of a folder will do."""
        root = tmp_path / "two\nlines ä "
        assert GitRepo.init(root).root == Repository.containing(root).root

    def test_no_repository(self, tmp_path: Path) -> None:
        """Outside of any repository: says which folder and what to do."""
        error = refused("no-repository", Repository.containing, tmp_path)
        assert str(tmp_path) in error.message
        assert "git init" in error.cure

    def test_no_working_tree(self, repo: GitRepo, tmp_path: Path) -> None:
        """A bare repository and the .git folder have no files of the user's."""
        bare = GitRepo.init(tmp_path / "bare", "--bare")
        for folder in (bare.root, repo.root / ".git"):
            error = refused("no-repository", Repository.containing, folder)
            assert "working tree" in error.message

    def test_no_git(self, repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the git program: says so, and to install it."""
        repository = Repository.containing(repo.root)
        monkeypatch.setenv("PATH", str(tmp_path))
        for function, argument in (
            (Repository.containing, repo.root),
            (repository.resolve, "HEAD"),
        ):
            error = refused("no-git", function, argument)
            assert "Install git" in error.cure

    def test_dubious_owner(self, repo: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another user's folder, as in a CI container: git's words and the command it advises."""
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        error = refused("failed", Repository.containing, repo.root)
        assert "dubious ownership" in error.message
        assert f"git config --global --add safe.directory {repo.root}" in error.cure

    def test_another_repository_in_the_environment(
        self, repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a hook of another repository sets does not redirect the questions."""
        other = GitRepo.init(tmp_path / "other")
        other.commit({"b.txt": "other"})
        monkeypatch.setenv("GIT_DIR", str(other.root / ".git"))
        monkeypatch.setenv("GIT_WORK_TREE", str(other.root))
        monkeypatch.setenv("GIT_INDEX_FILE", str(other.root / ".git" / "index"))
        monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other.root / ".git" / "objects"))
        monkeypatch.setenv("GIT_GLOB_PATHSPECS", "1")
        repository = Repository.containing(repo.root)
        assert repo.root == repository.root
        assert repo.head == repository.resolve("HEAD")
        assert [PurePosixPath("a.txt")] == list(repository.files("HEAD"))
        assert () == repository.untracked_or_changed([repo.root / "a.txt"])

    @pytest.mark.parametrize("linked", [False, True])
    def test_in_a_hook(self, repo: GitRepo, tmp_path: Path, linked: bool) -> None:
        """In a real pre-commit hook of `git commit --all`: HEAD is the last commit yet."""
        first = repo.head
        script = (
            "from pathlib import Path\n"
            "import os\n"
            "from pytest_ftloop.core.git import Repository\n"
            "assert 'GIT_INDEX_FILE' in os.environ\n"
            "r = Repository.containing(Path())\n"
            "blobs = r.files('HEAD')\n"
            "dirty = r.untracked_or_changed([Path('a.txt'), Path('b.txt')])\n"
            "with r.worktree('HEAD') as tree: text = (tree / 'a.txt').read_text()\n"
            "print(r.root, r.resolve('HEAD'), *r.read(list(blobs.values())), *dirty, text)\n"
        )
        (tmp_path / "hook.py").write_text(script)
        hook = repo.root / ".git" / "hooks" / "pre-commit"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n'{sys.executable}' {tmp_path}/hook.py >{tmp_path}/said\n")
        hook.chmod(0o755)
        place = repo.worktree(tmp_path / "linked") if linked else repo
        place.write({"a.txt": "two", "b.txt": "new"})
        place.git("commit", "--quiet", "--all", "--message", "second", env={"PYTHONPATH": ROOT})
        said = (tmp_path / "said").read_text()
        assert f"{place.root} {first} b'one' a.txt b.txt one\n" == said


class TestResolve:
    def test_names(self, repo: GitRepo, repository: Repository) -> None:
        """A branch, tag, abbreviation or expression gives the full name of its commit."""
        first = repo.head
        repo.tag("v1")
        second = repo.commit({"a.txt": "two"})
        expected = {"HEAD": second, "main": second, "@": second, "HEAD~1": first, "v1": first}
        expected |= {first: first, first[:8]: first, "HEAD@{0}": second, "main^{/work}": second}
        assert expected == {ref: repository.resolve(ref) for ref in expected}

    def test_detached(self, repo: GitRepo, repository: Repository) -> None:
        """A detached HEAD, as in CI, is a commit as any other."""
        first = repo.head
        repo.commit({"a.txt": "two"})
        repo.switch(first)
        assert first == repository.resolve("HEAD")

    def test_sha256(self, tmp_path: Path) -> None:
        """A repository of the newer object format has longer names."""
        repo = GitRepo.init(tmp_path / "new", "--object-format=sha256")
        commit = repo.commit({"a.txt": "one"})
        repository = Repository.containing(repo.root)
        assert (64, commit) == (len(commit), repository.resolve("HEAD"))
        assert [b"one"] == list(repository.read(list(repository.files("HEAD").values())))

    @pytest.mark.parametrize("ref", HOSTILE, ids=ascii)
    def test_not_one_commit(self, repo: GitRepo, repository: Repository, ref: str) -> None:
        """Options, ranges, trees, blobs and garbage are no ref; nothing is written."""
        refused("unknown-ref", repository.resolve, ref)
        assert {".git", "a.txt"} == {path.name for path in repo.root.iterdir()}

    def test_unknown(self, repo: GitRepo, repository: Repository) -> None:
        """An unknown ref is named, with where to look; also a whole name of no object."""
        for ref in ("no-such", "1" * 40, "HEAD~1"):
            error = refused("unknown-ref", repository.resolve, ref)
            assert repr(ref) in error.message
            assert str(repo.root) in error.message
            assert "git fetch" in error.cure

    def test_unborn(self, tmp_path: Path) -> None:
        """Before the first commit HEAD is nothing; another name is unknown as ever."""
        repository = Repository.containing(GitRepo.init(tmp_path / "empty").root)
        for ref in ("HEAD", "@", "HEAD~1"):
            error = refused("no-commit", repository.resolve, ref)
            assert "no commit yet" in error.message
        refused("unknown-ref", repository.resolve, "origin/main")
        refused("no-commit", repository.files, "HEAD")

    def test_shallow(self, repo: GitRepo, tmp_path: Path) -> None:
        """What a shallow clone cut off is unknown, and the cure is to fetch it."""
        first, second = repo.head, repo.commit({"a.txt": "two"})
        repository = Repository.containing(repo.clone(tmp_path / "ci", depth=1).root)
        assert second == repository.resolve("HEAD")
        for ref in (first, "HEAD~1"):
            error = refused("unknown-ref", repository.resolve, ref)
            assert "shallow" in error.message
            assert "fetch-depth: 0" in error.cure
            assert "git fetch --unshallow" in error.cure

    def test_ambiguous(self, repo: GitRepo, repository: Repository) -> None:
        """An abbreviation of several commits asks for more digits."""
        names: dict[str, int] = {}
        while 2 not in names.values():
            assert len(names) < 2000
            name = repo.git("commit-tree", "HEAD^{tree}", "-m", str(len(names)))[:4]
            names[name] = names.get(name, 0) + 1
        ambiguous = next(name for name, count in names.items() if count == 2)
        assert "digits" in refused("unknown-ref", repository.resolve, ambiguous).cure


class TestMergeBase:
    def test_common_ancestor(self, repo: GitRepo, repository: Repository) -> None:
        """Two branches start at their last common commit; of one line it is the older one."""
        first = repo.head
        repo.branch("feature")
        repo.commit({"b.txt": "two"})
        repo.switch("main")
        tip = repo.commit({"a.txt": "two"})
        assert first == repository.merge_base("main", "feature")
        assert first == repository.merge_base("main", first)
        repo.branch("pull", "feature")
        repo.merge("main")
        assert tip == repository.merge_base("HEAD", "main")

    def test_none(self, repo: GitRepo, repository: Repository) -> None:
        """Unrelated histories have none."""
        repo.git("switch", "--quiet", "--orphan", "other")
        repo.commit({"b.txt": "other"})
        error = refused("no-merge-base", repository.merge_base, "main", "other")
        assert "main and other" in error.message

    def test_shallow(self, repo: GitRepo, tmp_path: Path) -> None:
        """In a shallow clone it may be cut off: the cure is to fetch all."""
        repo.branch("feature")
        repo.commit({"b.txt": "two"})
        repo.switch("main")
        repo.commit({"a.txt": "two"})
        clone = repo.clone(tmp_path / "ci", "--no-single-branch", depth=1)
        repository = Repository.containing(clone.root)
        assert repository.is_shallow()
        error = refused("shallow", repository.merge_base, "origin/main", "origin/feature")
        assert "fetch-depth: 0" in error.cure

    def test_unknown(self, repository: Repository) -> None:
        """An unknown ref is told as such."""
        refused("unknown-ref", repository.merge_base, "HEAD", "no-such")
        assert not repository.is_shallow()


class TestFiles:
    @pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
    def test_odd_names(self, repo: GitRepo, repository: Repository, name: str) -> None:
        """Any name comes back as it is, as a file and as a folder to look below."""
        repo.commit({f"odd/{name}": name, f"{name}/x": "below", "other/x": ""})
        listed = repository.files("HEAD", PurePosixPath("odd"))
        assert [PurePosixPath("odd") / name] == list(listed)
        assert [name.encode()] == list(repository.read(list(listed.values())))
        assert [PurePosixPath(name) / "x"] == list(repository.files("HEAD", repo.root / name))
        assert () == repository.untracked_or_changed([repo.root / name])

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
    def test_name_in_no_encoding(self, repo: GitRepo, repository: Repository) -> None:
        """A name that is not UTF-8 is the path that Python has for it."""
        name = os.fsdecode(b"caf\xe9")
        repo.commit({name: "x"})
        assert PurePosixPath(name) in repository.files("HEAD")

    def test_at_a_commit(self, repo: GitRepo, repository: Repository) -> None:
        """A commit has its own files and contents, whatever is on disk or in later commits."""
        first = repo.head
        repo.commit({"a.txt": "two", "b.txt": "new"})
        repo.write({"a.txt": "three"})
        assert [b"one"] == list(repository.read(list(repository.files(first).values())))
        assert [b"two", b"new"] == list(repository.read(list(repository.files("HEAD").values())))

    def test_below_a_folder(
        self, repo: GitRepo, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only below the folder: a Path starts at the working folder, a PurePosixPath the root."""
        repo.commit({"logs/x": "1", "logs/deep/y": "2", "logs-2/z": "3", "sub/logs/w": "4"})
        monkeypatch.chdir(repo.root / "sub")
        expected = [PurePosixPath("logs/deep/y"), PurePosixPath("logs/x")]
        assert expected == list(repository.files("HEAD", PurePosixPath("logs")))
        assert expected == list(repository.files("HEAD", repo.root / "logs"))
        assert [PurePosixPath("sub/logs/w")] == list(repository.files("HEAD", Path("logs")))
        assert 5 == len(repository.files("HEAD", repo.root)) == len(repository.files("HEAD"))
        assert {} == repository.files("HEAD", repo.root / "no-such")
        assert {} == repository.files("HEAD", PurePosixPath("logs/x"))

    def test_symlinks_and_submodules(
        self, repo: GitRepo, repository: Repository, tmp_path: Path
    ) -> None:
        """A symlink's blob is its target's name and a submodule is no blob: both are left out."""
        other = GitRepo.init(tmp_path / "other")
        other.commit({"x": "1"})
        repo.git("submodule", "--quiet", "add", other.root.as_uri(), "module")
        (repo.root / "link").symlink_to("a.txt")
        repo.commit({"tool.sh": "#!/bin/sh"})
        (repo.root / "tool.sh").chmod(0o755)
        repo.commit()
        listed = {str(path) for path in repository.files("HEAD")}
        assert {".gitmodules", "a.txt", "tool.sh"} == listed

    def test_unknown_commit(self, repository: Repository) -> None:
        refused("unknown-ref", repository.files, "1" * 40)
        refused("unknown-ref", repository.files, "--name-only")


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
