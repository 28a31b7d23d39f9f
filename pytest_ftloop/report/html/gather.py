"""Gather the HTML report from results and logs, and write it. It trains and logs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.errors import ConfigError, FtloopError, Location, shown_path
from pytest_ftloop.core.files import write_atomically
from pytest_ftloop.core.untrained import with_base
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.report.html.loop_report import LoopReport
from pytest_ftloop.report.html.page import render

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import Example
    from pytest_ftloop.loop.options import Options
    from pytest_ftloop.loop.result import LoopResult
    from pytest_ftloop.loop.workspace import Logged


def write_report(results: Sequence[LoopResult], path: Path) -> None:
    """Write one self-contained HTML file about these loops. Raises `FtloopError` if it can't."""
    write_page([of_result(result) for result in results], path)


def write_page(loops: Sequence[LoopReport], path: Path) -> None:
    """Write one self-contained HTML file. Missing folders are created."""
    from importlib.metadata import version

    text = render(loops, version("pytest-ftloop"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(
            f"the report can't be written: {error.strerror}", where=Location(shown_path(path))
        ) from None


def of_result(result: LoopResult, note: str = "") -> LoopReport:
    """What the page shows of a result, with the verdicts that were made of it.

    The log is read for older iterations and seeds. `note` is a reason why there is no verdict.
    """
    view = (result.log or ImprovementLog(result.log_folder)).view
    logged = view.iterations() or result.chain
    return LoopReport(
        loop=result.loop,
        source=result.source,
        iterations=with_base(view.bases(), logged),
        best=next((it for it in logged if it.fingerprint == result.best.fingerprint), result.best),
        chain=frozenset(iteration.id for iteration in with_base(view.bases(), result.chain)),
        gates=result.gates,
        gate_changes=result.gate_changes,
        is_gated=bool(result.regressions),
        seed_runs=view.seed_runs(),
        prompts=_prompts(result.examples.values()),
        baseline=result.baseline,
        verdicts=tuple((rule.name, verdict) for rule, verdict in result.verdicts),
        holdout=result.holdout,
        note=note,
        unjudged=tuple(
            rule.name for rule in result.comparisons if rule not in dict(result.verdicts)
        ),
        metric=result.metric,
    )


def of_log(logged: Logged, note: str = "") -> LoopReport:
    """A log alone for the page: of a loop made in Python, or one that is out of date."""
    inputs, config = logged.inputs, logged.config
    return LoopReport(
        loop=config.name if config else logged.log.folder.name,
        source=config.source if config else shown_path(logged.log.folder),
        iterations=with_base(logged.log.view.bases(), logged.iterations),
        best=logged.best(),
        seed_runs=logged.log.view.seed_runs(),
        prompts=_prompts(inputs.eval.examples if inputs else ()),
        note=note,
        unjudged=_gates(config) if config else (),
        metric=logged.metric,
    )


def of_told(log_folder: Path, file: str, options: Options) -> LoopReport:
    """A loop that another process ran, read from its log.

    `file` is empty for a loop made in Python, whose baseline is unknown in this process.
    """
    from pytest_ftloop.config.loop_config import read_loop_file
    from pytest_ftloop.loop.replay import replaying
    from pytest_ftloop.loop.workspace import Logged

    if not file:
        note = "Made in Python and run by pytest-xdist: not compared with a baseline."
        return of_log(Logged(ImprovementLog(log_folder)), note)
    config = read_loop_file(Path(file))
    loop = replaying(config, options)
    try:
        return of_result(loop.judge(loop.run()))
    except FtloopError as error:
        return of_log(Logged(loop.log, config), str(error))


def _gates(config: LoopConfig) -> tuple[str, ...]:
    """The names of all gates in a loop file."""
    return (*(gate.name for gate in config.gates), *(rule.name for rule in config.comparisons))


def _prompts(examples: Iterable[Example]) -> dict[tuple[str, str], str]:
    return {(example.id, example.content): example.prompt_text for example in examples}
