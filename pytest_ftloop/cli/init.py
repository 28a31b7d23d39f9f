"""`ftloop init`: write a small loop to start from, or workflows that judge loops on GitHub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli import installed
from pytest_ftloop.cli.command import HOLDS, Command
from pytest_ftloop.core.errors import ConfigError, Location, shown_path
from pytest_ftloop.core.files import real

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping

STARTER = ("topic.ftloop.yaml", "data/train.jsonl", "data/eval.jsonl", "test_topic.py")
"""The files that `ftloop init` writes. Templates end in `.in`, so that no tool collects them."""

WORKFLOWS = {
    False: ("ftloop-replay.yml", "ftloop-comment.yml"),
    True: ("ftloop-gpu.yml", "ftloop-comment.yml"),
}
"""The workflows that `ftloop init --github` writes, without and with `--gpu`."""

LOCKS = {
    False: ("requirements-judge.txt",),
    True: ("requirements-judge.txt", "requirements-train.txt"),
}
"""The lists of packages, with their hashes, that the workflows install."""


def _arguments(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="the folder to write to, created if it is missing (default: .)",
    )
    to.add_argument(
        "--github",
        action="store_true",
        help="write GitHub workflows instead, to .github/workflows/ of the repository: one that "
        "judges the committed log, and one that comments on the pull request",
    )
    to.add_argument(
        "--gpu",
        action="store_true",
        help="with --github: a workflow that also trains, on a GPU runner, what is out of date",
    )
    to.add_argument(
        "--requirement",
        metavar="TEXT",
        help="with --github: what the workflows install, pinned: 'pytest-ftloop @ "
        "git+https://HOST/OWNER/pytest-ftloop@COMMIT' (default: as it is installed here)",
    )
    to.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="write a loop file from a training script (.py), which is read and not run, or from "
        "the chat rows of hosted fine-tuning (.jsonl)",
    )
    to.add_argument(
        "--agents",
        action="store_true",
        help="write AGENTS.md instead, or a section of it to one that exists: what a coding agent "
        "has to know of loops",
    )
    to.add_argument("--force", action="store_true", help="replace existing files")


def _run(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder
    chosen = [name for name in ("github", "source", "agents") if getattr(arguments, name)]
    if len(chosen) > 1:
        names = " and ".join(f"--{name}".replace("source", "from") for name in chosen)
        raise ConfigError(f"{names} can't be combined", cure="Run ftloop init once for each.")
    if arguments.github:
        stated = arguments.requirement
        wanted = installed.requirement() if stated is None else installed.checked(stated)
        return _github(folder, wanted, gpu=arguments.gpu, force=arguments.force)
    for option in ("gpu", "requirement"):
        if getattr(arguments, option):
            raise ConfigError(f"--{option} works only with --github", cure="Add --github.")
    if arguments.agents:
        _agents(folder, force=arguments.force)
        return HOLDS
    if arguments.source:
        from pytest_ftloop.cli.migrate import migrated

        made = migrated(arguments.source, folder)
        _write(made.texts, folder, force=arguments.force)
        print("\n".join(made.lines))
        return HOLDS
    _write({folder / name: template(name) for name in STARTER}, folder, force=arguments.force)
    print("\n".join(_next_steps(folder)))
    return HOLDS


def _agents(folder: Path, *, force: bool) -> None:
    """Write AGENTS.md, or add our section to the user's own, whose text is never lost."""
    path, section = folder / "AGENTS.md", template("AGENTS.md")
    if not force and (own := _text_of(path)) is not None and section.splitlines()[0] not in own:
        end = "\r\n" if "\r\n" in own else "\n"
        lower = re.sub(r"^#", "##", section, flags=re.MULTILINE).replace("\n", end)
        text = f"{own.rstrip()}{end}{end}{lower}" if own.strip() else lower
        _write({real(path): text}, folder, force=True, done="added to")  # not over a link
        return
    _write({path: section}, folder, force=force)


def _text_of(path: Path) -> str | None:
    """The text of a file; None where there is no such file, or not one of text."""
    try:
        return path.read_bytes().decode("utf-8")  # with its own line ends
    except (OSError, UnicodeDecodeError):
        return None


def _github(folder: Path, requirement: str, *, gpu: bool, force: bool) -> int:
    """Write the workflows to the top folder of the repository: GitHub reads no other."""
    from pytest_ftloop.core.git import GitError, Repository

    try:
        top = Repository.containing(folder).root
    except GitError as error:
        if error.kind not in {"no-git", "no-repository"}:
            raise
        top = folder
    workflows, locks = top / ".github" / "workflows", top / ".github" / "ftloop"
    texts = {workflows / name: workflow(name, requirement) for name in WORKFLOWS[gpu]}
    texts |= {locks / name: lock(name) for name in LOCKS[gpu]}
    _write(texts, workflows, force=force)
    print("\n".join(_next_steps_on_github(workflows, gpu=gpu)))
    return HOLDS


def _write(texts: Mapping[Path, str], folder: Path, *, force: bool, done: str = "replaced") -> None:
    """Write the files and list them. If one exists already, write none.

    `done` is the word for a file that was there.
    """
    from pytest_ftloop.core.files import write_atomically
    from pytest_ftloop.core.leftovers import sweep

    for path in texts:  # what an interrupted one left, also where nothing is written now
        sweep(path.parent, path.name)
    existing = _check_targets(folder, texts, force=force)
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
        except OSError as error:
            raise _unwritable(path, error) from None
        print(f"{done if path in existing else 'wrote'} {shown_path(path)}")


def _check_targets(folder: Path, targets: Iterable[Path], *, force: bool) -> frozenset[Path]:
    """The targets that exist. Raises `ConfigError` for one that is not to be replaced."""
    for path in (folder, *folder.absolute().parents, folder / "data"):
        if path.exists() and not path.is_dir():
            raise _unwritable(path, NotADirectoryError(20, "it is not a folder"))
    existing = frozenset(path for path in targets if path.exists() or path.is_symlink())
    if odd := [path for path in existing if not path.is_file()]:
        raise _unwritable(odd[0], IsADirectoryError(21, "it is not a file"))
    if existing and not force:
        names = ", ".join(shown_path(path) for path in sorted(existing))
        raise ConfigError(
            f"nothing was written: {names} {'exists' if len(existing) == 1 else 'exist'} already",
            cure="Name another folder, or replace the files with --force.",
        )
    return existing


def _next_steps(folder: Path) -> Iterator[str]:
    import shlex

    from pytest_ftloop.config.schema import missing_of_extra

    where = shown_path(folder)
    at = "" if where == "." else f" {shlex.quote(where)}"
    yield ""
    if missing := missing_of_extra():
        yield f"to install what training needs ({', '.join(missing)}):"
        yield '  pip install "pytest-ftloop[train]"'
    yield "to run the loop (without network or GPU, about a minute the first time):"
    yield f"  pytest --ftloop{at}"
    yield "to list the iterations, and print the best one in full:"
    yield f"  ftloop log{at}"
    yield f"  ftloop show best{at}"
    yield "then put your own model and data into topic.ftloop.yaml, and commit improvement_log/"


def _next_steps_on_github(workflows: Path, *, gpu: bool) -> Iterator[str]:
    import shlex

    yield ""
    yield "next steps, about five minutes:"
    if gpu:
        yield "  set the repository variable GPU_RUNNER to the label of your GPU runner"
        required = "the jobs replay and train"
    else:
        yield "  if there is no log yet, run pytest --ftloop and commit improvement_log/"
        required = "the job gate"
    yield f"  git add {shlex.quote(shown_path(workflows.parent))} and commit"
    yield "  if your default branch is not main, put its name into the workflow's push: branches"
    yield "  merge: GitHub runs the comment's workflow from the default branch only"
    yield f"  require {required} before a merge, in the repository's Settings, Rules"


def template(name: str) -> str:
    """The text of a template, by the name of the file that it becomes."""
    from importlib.resources import files

    return (files("pytest_ftloop") / "templates" / f"{name}.in").read_text(encoding="utf-8")


def workflow(name: str, requirement: str) -> str:
    """A workflow that installs pytest-ftloop by this requirement."""
    return template(f"github/{name}").replace("@requirement@", requirement)


def lock(name: str) -> str:
    """A list of packages with their hashes."""
    from importlib.resources import files

    path = files("pytest_ftloop") / "templates" / "github" / name
    return path.read_text(encoding="utf-8")


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"can't be written: {error.strerror}", where=Location(shown_path(path)))


COMMAND = Command(
    "init",
    "write a small loop, one from your script, or workflows",
    "Write a loop file, example data and a test that run as they are: the model learns to name\n"
    "the topic of a short message to a shop. With --github, write workflows that judge the loops\n"
    "of the repository. With --from, write a loop file from a training script, which is not run,\n"
    "or from the chat rows of hosted fine-tuning. Existing files are replaced only with --force.",
    (
        "ftloop init",
        "ftloop init demo && pytest --ftloop demo",
        "ftloop init --from train.py",
        "ftloop init --github",
    ),
    _arguments,
    _run,
)
