"""What is asked of git, in real repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from pytest_ftloop.core import git, git_memory
from pytest_ftloop.core.git import Repository
from tests.core.git_cases import ROOT, refused, watched
from tests.gitfakes import GitRepo

pytestmark = pytest.mark.usefixtures("isolated")


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
            error = refused("no-working-tree", Repository.containing, folder)
            assert "working tree" in error.message

    @pytest.mark.parametrize(
        "damage", ["HEAD", "objects", "refs", "a junk HEAD", "a lost worktree"]
    )
    def test_a_repository_that_git_cannot_read(self, tmp_path: Path, damage: str) -> None:
        """What a damaged repository had committed is unknown; that is not nothing."""
        root = GitRepo.init(tmp_path / "x").root
        if damage == "a lost worktree":
            shutil.rmtree(root / ".git")
            (root / ".git").write_text(f"gitdir: {tmp_path}/gone/.git/worktrees/x\n")
        elif damage == "a junk HEAD":
            (root / ".git" / "HEAD").write_text("junk\n")
        else:
            (root / ".git" / damage).rename(tmp_path / damage)
        error = refused("failed", Repository.containing, root)
        assert f"found {root}/.git, which git can't read" in error.message
        assert "Restore it" in error.cure

    def test_a_folder_whose_own_files_make_it_a_repository(self, repo: GitRepo) -> None:
        """Such files come with a pull request; git would run the programs that its config names."""
        evil, ran = repo.root / "evil", repo.root / "ran"
        for name in ("objects", "refs"):
            (evil / name).mkdir(parents=True)
        (evil / "HEAD").write_text("ref: refs/heads/main\n")
        (evil / "config").write_text(
            "[core]\nrepositoryformatversion = 0\nbare = false\nworktree = .\n"
            f'fsmonitor = "touch {ran}; false"\n'
        )
        (evil / "x.ftloop.yaml").touch()
        subprocess.run(["git", "-C", str(evil), "status"], check=False, capture_output=True)
        assert ran.exists()
        ran.unlink()
        error = refused("no-working-tree", Repository.containing, evil)
        assert str(evil) in error.message
        assert "HEAD" in error.cure
        assert not ran.exists()

    @pytest.mark.parametrize("content", ["", "junk\n"])
    def test_a_branch_that_git_cannot_read(self, repo: GitRepo, content: str) -> None:
        """A branch that a power cut left empty has had commits: it is not a first version."""
        repository = Repository.containing(repo.root)
        (repo.root / ".git" / "refs" / "heads" / "main").write_text(content)
        error = refused("failed", repository.resolve, "HEAD")
        assert "which git can't read" in error.message

    def test_a_repository_that_is_made_inside(self, repo: GitRepo) -> None:
        """A folder's repository is asked for once, but another one in between is found."""
        inner = repo.root / "inner"
        inner.mkdir()
        assert repo.root == Repository.containing(inner).root
        made = GitRepo.init(inner)
        assert made.root == Repository.containing(inner).root
        shutil.rmtree(inner / ".git")
        assert repo.root == Repository.containing(inner).root

    def test_is_asked_once(self, repo: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of fifty folders of one repository git is asked once; in .git it has no files still."""
        asked = watched(monkeypatch, git)
        for number in range(50):
            (folder := repo.root / f"loop-{number}").mkdir()
            assert repo.root == Repository.containing(folder).root
        assert [("rev-parse", "--show-toplevel")] == asked
        refused("no-working-tree", Repository.containing, repo.root / ".git" / "hooks")

    def test_at_one_moment(
        self, repo: GitRepo, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Many loops are judged by one HEAD, asked for once; then by what it is now."""
        first = repo.commit({"a.txt": "one\n"})
        asked = watched(monkeypatch, git_memory)
        with git.at_one_moment():
            assert [first] * 3 == [repository.resolve("HEAD") for _ in range(3)]
            assert ["rev-parse"] == [command for command, *_ in asked]
            second = repo.commit({"a.txt": "two\n"})
            assert first == repository.resolve("HEAD")
        assert second == repository.resolve("HEAD")

    def test_the_files_of_many_loops_are_listed_once(
        self, repo: GitRepo, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """From some question on a commit is listed as a whole; the answers stay what they were."""
        names = [f"loop-{n}/{name}" for n in range(20) for name in ("a.txt", "b/c d.txt", "ä*")]
        (repo.root / "loop-0").mkdir()
        (repo.root / "loop-0" / "link").symlink_to("a.txt")
        commit = repo.commit({name: f"{name}\n" for name in names})
        asked = watched(monkeypatch, git_memory)
        for n in range(20):
            wanted = [PurePosixPath(name) for name in names if name.startswith(f"loop-{n}/")]
            link, gone = PurePosixPath(f"loop-{n}/link"), PurePosixPath(f"loop-{n}/no")
            found = repository.blobs(commit, [link, *wanted, gone, PurePosixPath(f"loop-{n}")])
            assert set(wanted) == set(found)
            assert found == repository.files(commit, PurePosixPath(f"loop-{n}"))
            texts = repository.texts(commit, wanted)
            assert {path: f"{path}\n" for path in wanted} == texts
        assert {*map(PurePosixPath, names)} <= set(repository.files(commit))
        assert 9 >= sum(arguments[0] == "ls-tree" for arguments in asked)

    def test_what_lasts_is_asked_once(
        self, repo: GitRepo, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a commit's full name decides is asked once; what HEAD decides is asked each time."""
        commit = repo.commit({"a.txt": "one\n"})
        repo.write({"a.txt": "another one\n"})
        path = PurePosixPath("a.txt")
        asked = watched(monkeypatch, git_memory)
        for _ in range(2):
            assert {path: "one\n"} == repository.texts(commit, [path])
            assert repository.query("rev-parse", "--verify", f"{commit}:a.txt")
            assert commit == repository.query("rev-parse", "--verify", "HEAD")
            assert not repository.is_shallow()
        known = ["rev-parse", "ls-tree", "cat-file", "rev-parse"]
        commands = [command for command, *_ in asked]
        assert [*known, "rev-parse", "rev-parse"] == commands  # the last two are HEAD's
        other = repo.commit({"a.txt": "two\n"})
        assert {path: "two\n"} == repository.texts(other, [path])
        assert other == repository.query("rev-parse", "--verify", "HEAD")

    def test_what_fails_is_asked_again(self, repo: GitRepo, repository: Repository) -> None:
        """An object that is not there may come."""
        commit = repo.commit({"a.txt": "one\n"})
        missing = "f" * 40
        question = ("rev-parse", "--verify", "--quiet", f"{missing}^{{commit}}")
        assert repository.query(*question) is None
        assert not any(missing in " ".join(arguments) for _, arguments in git_memory._LASTING)
        assert commit == repository.query("rev-parse", "--verify", f"{commit}^{{commit}}")

    def test_no_git(self, repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the git program: says so, and to install it."""
        repository = Repository.containing(repo.root)
        monkeypatch.setenv("PATH", str(tmp_path))
        elsewhere = tmp_path / "never asked about"
        elsewhere.mkdir()
        for function, argument in (
            (Repository.containing, elsewhere),
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
