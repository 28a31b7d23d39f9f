"""`ftloop init`: a small loop to start from, or the workflows that judge loops on GitHub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import HOLDS, Command
from pytest_ftloop.core.errors import ConfigError, Location, shown_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping

STARTER = ("topic.ftloop.yaml", "data/train.jsonl", "data/eval.jsonl", "test_topic.py")
"""What `ftloop init` writes; kept as templates/<name>.in, where nothing collects or lints it."""

WORKFLOWS = {
    False: ("ftloop-replay.yml", "ftloop-comment.yml"),
    True: ("ftloop-gpu.yml", "ftloop-comment.yml"),
}
"""What `ftloop init --github` writes, without and with `--gpu`."""


def _arguments(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where to write; made if need be (default: here)",
    )
    to.add_argument(
        "--github",
        action="store_true",
        help="write workflows for GitHub instead, to .github/workflows/ of the repository: a gate "
        "that judges the committed log, and the comment on the pull request",
    )
    to.add_argument(
        "--gpu",
        action="store_true",
        help="with --github: a gate that trains what is out of date on a runner with a GPU",
    )
    to.add_argument("--force", action="store_true", help="replace files that exist already")


def _run(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder
    if arguments.github:
        return _github(folder, gpu=arguments.gpu, force=arguments.force)
    if arguments.gpu:
        raise ConfigError("--gpu: wanted together with --github, found alone")
    _write({folder / name: template(name) for name in STARTER}, folder, force=arguments.force)
    print("\n".join(_next_steps(folder)))
    return HOLDS


def _github(folder: Path, *, gpu: bool, force: bool) -> int:
    """Workflows are found in the top folder of a repository only."""
    from pytest_ftloop.core.git import GitError, Repository

    try:
        top = Repository.containing(folder).root
    except GitError as error:
        if error.kind not in {"no-git", "no-repository"}:
            raise
        top = folder
    workflows = top / ".github" / "workflows"
    _write({workflows / n: workflow(n) for n in WORKFLOWS[gpu]}, workflows, force=force)
    print("\n".join(_next_steps_on_github(workflows, gpu=gpu)))
    return HOLDS


def _write(texts: Mapping[Path, str], folder: Path, *, force: bool) -> None:
    """Write the files and say so; nothing where one is in the way."""
    from pytest_ftloop.core.files import write_atomically

    existing = _check_targets(folder, texts, force=force)
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
        except OSError as error:
            raise _unwritable(path, error) from None
        print(f"{'replaced' if path in existing else 'wrote'} {shown_path(path)}")


def _check_targets(folder: Path, targets: Iterable[Path], *, force: bool) -> frozenset[Path]:
    """The targets that exist already; raises before anything is written if one is in the way."""
    for path in (folder, *folder.absolute().parents, folder / "data"):
        if path.exists() and not path.is_dir():
            raise _unwritable(path, NotADirectoryError(20, "it is no folder"))
    existing = frozenset(path for path in targets if path.exists() or path.is_symlink())
    if odd := [path for path in existing if not path.is_file()]:
        raise _unwritable(odd[0], IsADirectoryError(21, "it is no file"))
    if existing and not force:
        names = ", ".join(shown_path(path) for path in sorted(existing))
        raise ConfigError(
            f"nothing written: {names} {'exists' if len(existing) == 1 else 'exist'} already",
            cure="Name another folder, or replace with --force.",
        )
    return existing


def _next_steps(folder: Path) -> Iterator[str]:
    import shlex

    from pytest_ftloop.config.schema import missing_of_extra

    where = shown_path(folder)
    at = "" if where == "." else f" {shlex.quote(where)}"
    yield ""
    if missing := missing_of_extra():
        yield f"to train ({', '.join(missing)} missing):"
        yield '  pip install "pytest-ftloop[train]"'
    yield "to run it (no network, no GPU; about a minute the first time):"
    yield f"  pytest --ftloop{at}"
    yield "to see what was tried, and one iteration in full:"
    yield f"  ftloop log{at}"
    yield f"  ftloop show best{at}"
    yield "then name your own model and data in topic.ftloop.yaml, and commit improvement_log/"


def _next_steps_on_github(workflows: Path, *, gpu: bool) -> Iterator[str]:
    import shlex

    yield ""
    yield "then, in five minutes:"
    if gpu:
        yield "  set the repository variable GPU_RUNNER to the label of the runner with the GPU"
        required = "the jobs replay and train"
    else:
        yield "  pytest --ftloop, where the log is not there yet, and commit improvement_log/"
        required = "the job gate"
    yield f"  git add {shlex.quote(shown_path(workflows))} and commit"
    yield "  name your branch in the workflow's push: branches, if it is not main"
    yield "  merge: the comment is written by the workflow of the default branch"
    yield f"  require {required} before a merge: the repository's settings, Rules"


def template(name: str) -> str:
    """What is written under this name."""
    from importlib.resources import files

    return (files("pytest_ftloop") / "templates" / f"{name}.in").read_text(encoding="utf-8")


def workflow(name: str) -> str:
    """A workflow, which installs the very version that wrote it."""
    from importlib.metadata import version

    return template(f"github/{name}").replace("@version@", version("pytest-ftloop"))


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"can't be written: {error.strerror}", where=Location(shown_path(path)))


COMMAND = Command(
    "init",
    "write a small loop to start from, or workflows",
    "Write a loop file, example data and a test that run as they are: short messages to a\n"
    "shop are routed to a topic. With --github write workflows that judge the loops of a\n"
    "repository. Nothing that exists is replaced without --force.",
    ("ftloop init", "ftloop init demo && pytest --ftloop demo", "ftloop init --github"),
    _arguments,
    _run,
)
