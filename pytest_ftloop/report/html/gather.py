"""The HTML report: gathered from results and logs, and written. Nothing is trained or logged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.errors import ConfigError, FtloopError, Location, shown_path
from pytest_ftloop.gate.judging import Judge, Judging
from pytest_ftloop.log import ImprovementLog, write_atomically
from pytest_ftloop.report.html.loop_report import LoopReport
from pytest_ftloop.report.html.page import render

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Example
    from pytest_ftloop.loop.options import Options
    from pytest_ftloop.loop.result import LoopResult
    from pytest_ftloop.loop.workspace import Logged


def write_report(results: Sequence[LoopResult], path: Path) -> None:
    """Write one self-contained HTML file on these loops. A `FtloopError` where that can't be."""
    write_page([of_result(result) for result in results], path)


def write_page(loops: Sequence[LoopReport], path: Path) -> None:
    """Write one self-contained HTML file; folders on the way to it are made."""
    from importlib.metadata import version

    text = render(loops, version("pytest-ftloop"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(
            f"the report can't be written: {error.strerror}", where=Location(shown_path(path))
        ) from None


def of_result(result: LoopResult) -> LoopReport:
    """What the page says of a loop's result; its log is read for older iterations and seeds.

    Where the comparison is in error (no such commit, a shallow clone), the page says so, and all
    the rest is there.
    """
    view = (result.log or ImprovementLog(result.log_folder)).view
    logged = view.iterations() or result.chain
    made = LoopReport(
        loop=result.loop,
        source=result.source,
        iterations=logged,
        best=next((it for it in logged if it.fingerprint == result.best.fingerprint), result.best),
        chain=frozenset(iteration.id for iteration in result.chain),
        gates=result.gates,
        is_gated=bool(result.regressions),
        seed_runs=view.seed_runs(),
        prompts=_prompts(result.examples.values()),
    )
    try:
        return _judged(made, result)
    except FtloopError as error:
        return replace(made, note=str(error))


def of_log(logged: Logged, note: str = "") -> LoopReport:
    """What the page says of a log alone: of a loop made in Python, or one that is out of date."""
    inputs, config = logged.inputs, logged.config
    return LoopReport(
        loop=config.name if config else logged.log.folder.name,
        source=config.source if config else shown_path(logged.log.folder),
        iterations=logged.iterations,
        best=logged.best(),
        seed_runs=logged.log.view.seed_runs(),
        prompts=_prompts(inputs.eval.examples if inputs else ()),
        note=note,
    )


def of_told(log_folder: Path, file: str, options: Options) -> LoopReport:
    """A loop that another process ran, as its log has it. `file` is empty for one made in Python:
    what it is compared with is not known here.
    """
    from pytest_ftloop.config.loop_config import read_loop_file
    from pytest_ftloop.loop.loop import Loop
    from pytest_ftloop.loop.workspace import Logged

    if not file:
        log = ImprovementLog(log_folder)
        return of_log(Logged(log), "Made in Python and run by pytest-xdist: not compared.")
    config = read_loop_file(Path(file))
    replay = replace(options, replay=True, retrain=False, retrain_baseline=False)
    loop = Loop(config, replay, hook=lambda *_: False)
    try:
        return of_result(loop.run())
    except FtloopError as error:
        return of_log(Logged(loop.log, config), str(error))


def _judged(made: LoopReport, result: LoopResult) -> LoopReport:
    if result.judge is None:
        return made
    judge = _quiet(result.judge)
    rules = result.regressions or (Regression(),)
    whole = next((rule for rule in rules if rule.tag is None), Regression())
    return replace(
        made,
        baseline=judge.judging.baseline.iteration,
        verdicts=tuple((rule.name, judge.verdict(rule)) for rule in rules),
        holdout=judge.holdout(whole),
    )


def _quiet(judge: Judge) -> Judge:
    """The same judge, but one that trains no seeds, writes no verdict and opens no holdout."""

    def begin() -> Judging:
        return replace(judge.judging, seeds=None, retrain=None)

    return Judge(begin=begin, after=lambda: None, writes=False, verdicts=dict(judge.verdicts))


def _prompts(examples: Iterable[Example]) -> dict[tuple[str, str], str]:
    """The prompts by id and content; of the `text` form the text itself."""
    found = {}
    for example in examples:
        prompt = example.row.get("text") if example.prompt is None else example.prompt
        if isinstance(prompt, str):
            found[example.id, example.content] = prompt
    return found
