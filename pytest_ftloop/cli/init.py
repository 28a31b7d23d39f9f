"""`ftloop init`: a small loop to start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import HOLDS, Command
from pytest_ftloop.errors import ConfigError, Location, shown_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

STARTER = ("topic.ftloop.yaml", "data/train.jsonl", "data/eval.jsonl", "test_topic.py")
"""What `ftloop init` writes; kept as templates/<name>.in, where nothing collects or lints it."""


def _arguments(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where to write; made if need be (default: here)",
    )
    to.add_argument("--force", action="store_true", help="replace files that exist already")


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.log import write_atomically

    folder: Path = arguments.folder
    texts = {folder / name: _template(name) for name in STARTER}
    existing = _check_targets(folder, texts, force=arguments.force)
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
        except OSError as error:
            raise _unwritable(path, error) from None
        print(f"{'replaced' if path in existing else 'wrote'} {shown_path(path)}")
    print("\n".join(_next_steps(folder)))
    return HOLDS


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

    from pytest_ftloop.schema import missing_of_extra

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


def _template(name: str) -> str:
    from importlib.resources import files

    return (files("pytest_ftloop") / "templates" / f"{name}.in").read_text(encoding="utf-8")


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"can't be written: {error.strerror}", where=Location(shown_path(path)))


COMMAND = Command(
    "init",
    "write a small loop to start from",
    "Write a loop file, example data and a test that run as they are: short messages to a\n"
    "shop are routed to a topic. Nothing that exists is replaced without --force.",
    ("ftloop init", "ftloop init demo && pytest --ftloop demo"),
    _arguments,
    _run,
)
