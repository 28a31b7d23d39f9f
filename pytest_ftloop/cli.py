"""The command `ftloop`: init, run, log, show, schema; and the one place where errors end.

A mistake of the user's prints its message on stderr and exits 2; only our own bugs show a
traceback. What a subcommand needs is imported in it, so that reading a log costs little.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from pytest_ftloop.errors import ConfigError, FtloopError, Location, LogError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pytest_ftloop.loop import Options
    from pytest_ftloop.progress import Progress
    from pytest_ftloop.records import Iteration
    from pytest_ftloop.result import LoopResult
    from pytest_ftloop.search import Logged

HOLDS, FAILED, ERROR = 0, 1, 2
INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + SIGINT, 128 + SIGPIPE, as a shell has them

STARTER = ("topic.ftloop.yaml", "data/train.jsonl", "data/eval.jsonl", "test_topic.py")
"""What `ftloop init` writes; kept as templates/<name>.in, where nothing collects or lints it."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Command:
    """One subcommand: what `--help` says of it, its arguments, and what it does."""

    name: str
    help: str
    description: str
    examples: tuple[str, ...]
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code: 0 all well, 1 a gate failed, 2 an error."""
    _never_fail_on_text(sys.stdout, sys.stderr)
    try:
        code = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # a reader that has gone is noticed here, not at exit
    except FtloopError as error:
        return _report(error)
    except KeyboardInterrupt:
        print(
            "interrupted; finished iterations are in the log, and the next run goes on from there",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    return code


def parser() -> argparse.ArgumentParser:
    """The arguments of every subcommand."""
    top = _parser(
        prog="ftloop",
        description="Fine-tuning as a loop under test: train, evaluate, diagnose, adjust, repeat; "
        "every iteration is in the improvement log.",
        examples=(
            "ftloop init demo",
            "ftloop run demo",
            "ftloop log demo",
            "ftloop show best demo",
        ),
        epilog="'ftloop COMMAND --help' says more. The same loops run as tests: pytest --ftloop\n"
        "exit code: 0 all well, 1 a gate failed, 2 usage, config, data or log error",
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in COMMANDS:
        made = _parser(
            commands.add_parser,
            name=command.name,
            help=command.help,
            description=command.description,
            examples=command.examples,
        )
        command.arguments(made)
        made.set_defaults(run=command.run)
    return top


# --- init ----------------------------------------------------------------------------------------


def _init_arguments(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where to write; made if need be (default: here)",
    )
    to.add_argument("--force", action="store_true", help="replace files that exist already")


def _init(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.config import shown_path
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
    from pytest_ftloop.config import shown_path

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

    from pytest_ftloop.config import shown_path
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


# --- run -----------------------------------------------------------------------------------------


def _run_arguments(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "paths",
        nargs="*",
        type=Path,
        default=[Path()],
        metavar="PATH",
        help="loop files, or folders that are searched for *.ftloop.yaml (default: .)",
    )
    to.add_argument(
        "--iterations",
        type=_positive,
        metavar="N",
        help="iterations at most, in place of the loop file's own number; where the "
        "CI variable is set, only the loop file's own settings are trained without it",
    )
    either = to.add_mutually_exclusive_group()
    either.add_argument(
        "--retrain", action="store_true", help="train even what the improvement log holds already"
    )
    either.add_argument(
        "--replay",
        action="store_true",
        help="never train: judge what is logged; an outdated log is an error",
    )
    _log_argument(to)
    loud = to.add_mutually_exclusive_group()
    loud.add_argument(
        "-v",
        "--verbose",
        action="store_const",
        dest="verbosity",
        const=1,
        default=0,
        help="show every failing example",
    )
    loud.add_argument(
        "-q",
        "--quiet",
        action="store_const",
        dest="verbosity",
        const=-1,
        help="one line a loop, and one a failed gate",
    )


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.loop import Options
    from pytest_ftloop.search import find_loop_files
    from pytest_ftloop.session import in_ci

    options = Options(
        retrain=arguments.retrain,
        replay=arguments.replay,
        explore=not in_ci(),
        iterations=arguments.iterations,
        log_folder=arguments.log and arguments.log.absolute(),
    )
    files, progress, width = find_loop_files(arguments.paths), _progress(), _width()

    def run(file: Path) -> int:
        result = _run_one(file, options, progress)
        lines = _result_lines(result, arguments.verbosity, width)
        apart = "\n" if len(files) > 1 and arguments.verbosity >= 0 else ""
        print("\n".join(lines), end=f"\n{apart}", flush=True)
        return HOLDS if all(gate.passed for gate in result.gates) else FAILED

    codes = list(_each(files, run))
    if len(codes) > 1:
        print(_tally(codes))
    return max(codes)


def _run_one(file: Path, options: Options, progress: Progress) -> LoopResult:
    from pytest_ftloop.config import read_loop_file
    from pytest_ftloop.loop import Loop

    config = read_loop_file(file)
    if config.scoring.scorer == "hook":
        raise ConfigError(
            "scorer 'hook' is a pytest hook in a conftest.py, which only pytest reads",
            where=config.locate("scoring.scorer"),
            cure=f"Run pytest --ftloop {config.source}, or name the function: module:function.",
        )
    return Loop(config, options, progress).run()


def _result_lines(result: LoopResult, verbosity: int, width: int) -> Iterator[str]:
    from pytest_ftloop.report.escape import shorten, visible
    from pytest_ftloop.report.text import summary

    yield from summary(result, verbosity, width)
    if verbosity < 0:
        return
    yield ""
    yield "gates:" if result.gates else "gates: none, so nothing is judged"
    for gate in result.gates:
        verdict = "holds " if gate.passed else "FAILED"
        yield shorten(f"  {verdict}  {visible(gate.message)}", width)


def _tally(codes: Sequence[int]) -> str:
    """`3 loops: 1 with all gates holding, 1 with a failed gate, 1 with an error`."""
    said = {HOLDS: "all gates holding", FAILED: "a failed gate", ERROR: "an error"}
    counts = [f"{codes.count(code)} with {text}" for code, text in said.items() if code in codes]
    return f"{len(codes)} loops: {', '.join(counts)}"


def _progress() -> Progress:
    from pytest_ftloop.live import LiveLine
    from pytest_ftloop.progress import Silent

    if not sys.stderr.isatty():
        return Silent()

    def write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    return LiveLine(write, _width())


# --- log -----------------------------------------------------------------------------------------


def _log_arguments(to: argparse.ArgumentParser) -> None:
    _where_argument(to)
    to.add_argument(
        "--format",
        choices=sorted(_FORMATS),
        default="text",
        help="json is one list, csv one table, of all loops (default: text)",
    )
    _log_argument(to)


def _log(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.report.table import log_rows
    from pytest_ftloop.search import find_logs

    tables: list[Table] = []

    def read(logged: Logged) -> int:
        tables.append(Table(logged.log.folder, log_rows(logged.iterations)))
        return HOLDS

    codes = list(_each(find_logs(arguments.path, arguments.log, _report), read))
    sys.stdout.write(_FORMATS[arguments.format](tables))
    return max(codes, default=HOLDS)


@dataclass(frozen=True)
class Table:
    """The iterations of one loop as rows, and where they are kept."""

    folder: Path
    rows: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """`topic: 3 iterations in improvement_log/topic`; an empty log says what fills it."""
        from pytest_ftloop.config import shown_path
        from pytest_ftloop.report.escape import visible
        from pytest_ftloop.report.phrases import plural

        name, shown = visible(self.folder.name), visible(shown_path(self.folder))
        if not self.rows:
            return f"{name}: no iterations in {shown} yet; pytest --ftloop trains the first"
        return f"{name}: {plural(len(self.rows), 'iteration')} in {shown}"


def _as_text(tables: Sequence[Table]) -> str:
    from pytest_ftloop.report.table import as_text

    width = _width()
    parts = [f"{t.title}\n{as_text(t.rows, width)}\n" if t.rows else f"{t.title}\n" for t in tables]
    return "\n".join(parts)


def _as_markdown(tables: Sequence[Table]) -> str:
    from pytest_ftloop.report.escape import markdown_visible
    from pytest_ftloop.report.table import as_markdown

    titles = [markdown_visible(table.title) for table in tables]
    parts = [
        f"{title}\n\n{as_markdown(table.rows)}\n" if table.rows else f"{title}\n"
        for title, table in zip(titles, tables, strict=True)
    ]
    return "\n".join(parts)


def _as_json(tables: Sequence[Table]) -> str:
    from pytest_ftloop.report.table import as_json

    return as_json([row for table in tables for row in table.rows]) + "\n"


def _as_csv(tables: Sequence[Table]) -> str:
    from pytest_ftloop.report.table import as_csv

    return as_csv([row for table in tables for row in table.rows])


_FORMATS: Mapping[str, Callable[[Sequence[Table]], str]] = {
    "text": _as_text,
    "markdown": _as_markdown,
    "json": _as_json,
    "csv": _as_csv,
}


# --- show ----------------------------------------------------------------------------------------


def _show_arguments(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "iteration",
        metavar="ITERATION",
        help="a number (3), an id or the start of one (3fa9), a name (003-3fa9c1d2), best or last",
    )
    _where_argument(to)
    _log_argument(to)


def _show(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.report.show import show_iteration
    from pytest_ftloop.search import find_logs

    iteration, logged = _chosen(
        arguments.iteration, find_logs(arguments.path, arguments.log, _report)
    )
    inputs = logged.inputs
    prompts = {example.id: example for example in inputs.eval.examples} if inputs else {}
    print(show_iteration(iteration, prompts, _width(), unicode=_speaks_unicode(sys.stdout)))
    return HOLDS


def _chosen(wanted: str, logs: Sequence[Logged]) -> tuple[Iteration, Logged]:
    """The one iteration that is meant; raises with the candidates when it is none or several."""
    known = [(iteration, logged) for logged in logs for iteration in logged.iterations]
    if not known:
        raise LogError(
            "no iterations in the improvement log yet", cure="pytest --ftloop trains the first."
        )
    if wanted in ("best", "last"):
        found = [
            (logged.best() if wanted == "best" else logged.last(), logged)
            for logged in logs
            if logged.iterations
        ]
    else:
        found = next(
            (f for test in _MEANINGS if (f := [k for k in known if test(k[0], wanted)])), []
        )
    if len(found) == 1:
        return found[0]
    several = len(logs) > 1
    candidates = ", ".join(
        f"{it.loop}/{it.name}" if several else it.name for it, _ in (found or known)
    )
    if not found:
        raise LogError(f"no iteration {wanted!r}", cure=f"There are {candidates}; best and last.")
    raise LogError(
        f"iteration {wanted!r} could be {len(found)}: {candidates}",
        cure="Write more of the id, or name the loop's file or log folder as PATH.",
    )


_MEANINGS: tuple[Callable[[Iteration, str], bool], ...] = (
    lambda it, wanted: it.name == wanted,
    lambda it, wanted: wanted.isdecimal() and it.number == int(wanted),
    lambda it, wanted: it.fingerprint.startswith(wanted.lower()) and bool(wanted),
    lambda it, wanted: "-" in wanted and it.name.startswith(wanted.lower()),
)
"""What ITERATION may say, the first that fits: a name, a number, an id's or a name's start."""


# --- schema --------------------------------------------------------------------------------------


def _schema_arguments(to: argparse.ArgumentParser) -> None:
    del to  # it has none


def _schema(arguments: argparse.Namespace) -> int:
    del arguments
    import json

    from pytest_ftloop.schema import loop_file_schema

    print(json.dumps(loop_file_schema(), indent=2, allow_nan=False))
    return HOLDS


# --- shared --------------------------------------------------------------------------------------


def _each(items: Iterable[Item], do: Callable[[Item], int]) -> Iterator[int]:
    """The exit code of each item; one that is in error does not keep the others from running."""
    for item in items:
        try:
            yield do(item)
        except FtloopError as error:
            yield _report(error)


def _report(error: FtloopError) -> int:
    print(error, file=sys.stderr)
    return ERROR


def _dispatch(argv: Sequence[str]) -> int:
    top = parser()
    arguments = top.parse_args(argv)
    if arguments.version:
        from importlib.metadata import version

        print(f"pytest-ftloop {version('pytest-ftloop')}")
        return HOLDS
    if arguments.command is None:
        top.print_help(sys.stderr)
        return ERROR
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _parser(
    make: Callable[..., argparse.ArgumentParser] = argparse.ArgumentParser,
    *,
    examples: Sequence[str],
    epilog: str = "",
    **options: Any,
) -> argparse.ArgumentParser:
    shown = "\n".join(["examples:", *(f"  {example}" for example in examples)])
    return make(
        **options,
        epilog="\n\n".join(filter(None, (shown, epilog))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _where_argument(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "path",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="PATH",
        help="a loop file, a folder that is searched for loop files and improvement "
        "logs, an improvement_log folder, or one loop's folder in it (default: .)",
    )


def _log_argument(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--log",
        type=Path,
        metavar="DIR",
        help="the improvement log is in DIR, not beside the loop file",
    )


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"wanted a whole number from 1 on, found {text!r}")
    return number


def _width() -> int:
    return max(shutil.get_terminal_size((100, 24)).columns, 60)


def _speaks_unicode(stream: TextIO) -> bool:
    try:
        "\u2581".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _never_fail_on_text(*streams: TextIO) -> None:
    """Users' text that the terminal can't show is escaped there, not an error."""
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Send what is still buffered nowhere, so that Python's own flush at exit is silent too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    from pytest_ftloop.config import shown_path

    return ConfigError(f"can't be written: {error.strerror}", where=Location(shown_path(path)))


COMMANDS = (
    Command(
        "init",
        "write a small loop to start from",
        "Write a loop file, example data and a test that run as they are: short messages to a\n"
        "shop are routed to a topic. Nothing that exists is replaced without --force.",
        ("ftloop init", "ftloop init demo && pytest --ftloop demo"),
        _init_arguments,
        _init,
    ),
    Command(
        "run",
        "run loops as pytest --ftloop does",
        "Run loops: train what the improvement log does not hold yet, then judge the gates.\n"
        "Exit code: 0 all gates hold, 1 a gate failed, 2 an error.",
        (
            "ftloop run",
            "ftloop run topic.ftloop.yaml --iterations 6",
            "ftloop run --replay -q      (judges the log; needs no torch)",
        ),
        _run_arguments,
        _run,
    ),
    Command(
        "log",
        "print the iterations of the improvement log",
        "Print each loop's iterations: what was changed, what came of it, what was decided.",
        ("ftloop log", "ftloop log topic.ftloop.yaml --format markdown", "ftloop log --format csv"),
        _log_arguments,
        _log,
    ),
    Command(
        "show",
        "print one iteration in full",
        "Print everything that one record of the improvement log says: settings, metrics, curves,\n"
        "findings, each failing example, and what was decided.",
        ("ftloop show best", "ftloop show 3 topic.ftloop.yaml", "ftloop show 3fa9"),
        _show_arguments,
        _show,
    ),
    Command(
        "schema",
        "print the JSON schema of a loop file",
        "Print the JSON schema (2020-12) of a loop file, for editors. Where the train extra is\n"
        "installed it knows every argument of peft's LoraConfig and trl's SFTConfig.",
        ("ftloop schema > ftloop.schema.json",),
        _schema_arguments,
        _schema,
    ),
)
