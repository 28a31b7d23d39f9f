"""One pytest run with --ftloop: runs and judges each loop once, and prints the results."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.config.loop_config import LoopConfig, likely_name
from pytest_ftloop.core.collector import reading
from pytest_ftloop.core.errors import FtloopError, shown_path, wants_traceback
from pytest_ftloop.core.git import at_one_moment
from pytest_ftloop.core.printable import printable
from pytest_ftloop.core.progress import Progress, Silent
from pytest_ftloop.gate.verdict import Verdict
from pytest_ftloop.log import FOLDER
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options, in_ci
from pytest_ftloop.loop.pool import Following, Hold, Prospect, Workers
from pytest_ftloop.loop.result import LoopResult
from pytest_ftloop.plugin.coverage import Coverage
from pytest_ftloop.plugin.news import (
    Board,
    News,
    key_of,
    news_of_changes,
    news_of_run,
    news_of_verdict,
)
from pytest_ftloop.plugin.screens import (
    leave_out_explained,
    shows_everything,
    verbosity_of,
    write_compared,
    write_sections,
)
from pytest_ftloop.plugin.told import Told, ToldError
from pytest_ftloop.plugin.user_hooks import (
    adjust_hook,
    diagnose_hook,
    executor_hook,
    score_hook,
)
from pytest_ftloop.report.escape import visible
from pytest_ftloop.report.explain import explain_comparison
from pytest_ftloop.report.live import LiveLine, StayingLines
from pytest_ftloop.report.verdict import explain_failed

if TYPE_CHECKING:
    from pytest_ftloop.report.html.loop_report import LoopReport


_QUIET = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


@dataclass
class Ran:
    """A loop that ran in this process, and its result, which is replaced when it is judged."""

    loop: Loop
    result: LoopResult


class FtloopSession:
    """The plugin's state, and the hooks that matter only with --ftloop.

    It has more than ten methods because pytest calls four of them by name, and because loops of
    files (shared by their gates) and loops of tests are run and judged by separate methods.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.options = options_of(config)
        self._shared: dict[int, Ran | Exception] = {}
        self._told = Told()
        self._loops: list[LoopConfig] = []  # keeps them alive: a freed object's id can be reused
        self._of_test: dict[int, Ran] = {}
        self._news: list[News] = []
        self._board = Board()
        self._under_way = ""
        self._explanations: list[str] = []
        report = config.option.ftloop_report
        self._report = Path(report).absolute() if report else None
        self._reported: dict[tuple[str, str], Ran] = {}
        self._report_line = ""
        self.coverage = Coverage()
        self._workers = Workers()
        self._gaps: list[str] = []
        self._moment: ExitStack | None = None
        config.add_cleanup(self._end_moment)  # of a run that is interrupted

    # --- running and judging ---------------------------------------------------------------------

    def run_once(self, loop: LoopConfig, gate: str) -> LoopResult:
        """The result of a loop file, which its gates share. `gate` asks; each raises an error."""
        return self._told.once(loop, gate, lambda: self._ran_once(loop).result)

    def judge_once(self, loop: LoopConfig, rule: Regression, gate: str) -> Verdict:
        """The verdict on a loop file by one of its regression gates."""
        return self._told.once(loop, gate, lambda: self._judge(self._ran_once(loop), rule))

    def run_in_test(self, loop: LoopConfig) -> LoopResult:
        """Run a loop of the fixture, and judge it by its own regression gates.

        In a replay it is judged even if it has none: by the default gate, as `ftloop gate` does.
        """
        ran = self._of_test[id(loop)] = self._run(loop)
        if ran.result.comparisons or self.options.replay:
            rules = () if self.options.replay else ran.result.comparisons
            ran.result = ran.loop.judge(ran.result, rules)
            self._note_standard(ran.result)
            self._news.append(news_of_changes(ran.result, self._width()))
        return ran.result

    def judge_in_test(self, loop: LoopConfig) -> Verdict:
        """The verdict on a loop of the fixture, on the whole eval set."""
        if id(loop) not in self._of_test:
            self.run_in_test(loop)
        ran = self._of_test[id(loop)]
        if not any(rule.tag is None for rule, _ in ran.result.verdicts):
            ran.result = ran.loop.judge(ran.result, [Regression()])
            self._note_standard(ran.result)
        return ran.result.verdict

    def _ran_once(self, loop: LoopConfig) -> Ran:
        if id(loop) not in self._shared:
            self._loops.append(loop)
            try:
                self._shared[id(loop)] = self._run(loop)
            except Exception as error:  # noqa: BLE001 - raised below, for every gate
                self._shared[id(loop)] = error
        known = self._shared[id(loop)]
        if isinstance(known, Exception):
            raise known
        return known

    def _run(self, config: LoopConfig) -> Ran:
        """Run a loop, and keep its summary for the end of the pytest run."""
        self._under_way = config.name  # stays set after Ctrl-C, which is not an Exception
        loop = self._loop(config, self._progress())
        try:
            self.coverage.run(loop.log.folder, config)
            # A training leaves models behind, which have to be found.
            with reading() if self.options.replay else nullcontext():
                ran = Ran(loop, loop.run())
            # With a regression gate it is done when that judges the loop. Without one a run on a
            # developer's machine asks git nothing.
            if not config.regressions and (self.options.replay or not self.options.explore):
                ran.result = loop.compare_gates(ran.result)
            verbosity = verbosity_of(self.config)
            file = str(config.file) if config.lines else ""
            self._news.append(news_of_run(ran.result, file, verbosity, self._width()))
        except Exception:
            self._under_way = ""
            raise
        self._under_way = ""
        if self._report:
            self._reported[key_of(ran.result)] = ran
        return ran

    def _loop(self, config: LoopConfig, progress: Progress) -> Loop:
        return Loop(
            config,
            self.options,
            progress,
            score_hook(self.config, config.folder),
            diagnose_hook=diagnose_hook(self.config, config.folder),
            adjust_hook=adjust_hook(self.config, config.folder, config.name),
            executor_hook=executor_hook(self.config, config.folder),
            workers=self._workers,
        )

    def _following(self, item: pytest.Item) -> Iterator[Following]:
        """The loop files whose gates come after this one, up to the next test of another kind.

        That may change what a loop depends on, or need the machine for itself. Of the workers of
        pytest-xdist each knows a part of the gates only: there none follows.
        """
        if _loop_of(item) is None or hasattr(self.config, "workerinput"):
            return
        items = item.session.items
        rest = map(_loop_of, items[items.index(item) + 1 :])
        for config in {id(c): c for c in takewhile(lambda c: c is not None, rest)}.values():
            assert config is not None
            if config is not _loop_of(item) and id(config) not in self._shared:
                yield Following(config.file, partial(self._upcoming, config))

    def _upcoming(self, config: LoopConfig, hold: Hold) -> Prospect | None:
        return self._loop(config, Silent()).upcoming(hold)

    def _judge(self, ran: Ran, rule: Regression) -> Verdict:
        """The verdict by one gate, computed once. Its lines are kept for the end of the run."""
        verdicts = dict(ran.result.verdicts)
        if rule in verdicts:
            return verdicts[rule]
        known = len(ran.result.notes)
        ran.result = result = ran.loop.judge(ran.result, [rule])
        self._note_standard(result)
        verdict = dict(result.verdicts)[rule]
        notes = result.notes[known:]
        self._news.append(news_of_verdict(result, rule, verdict, notes, self._width()))
        return verdict

    def note_unreadable(self, file: Path) -> None:
        """Note a loop file with mistakes: to call its log unjudged would point elsewhere."""
        folder = self.options.log_folder or file.parent / FOLDER
        self.coverage.unreadable(folder / likely_name(file))

    def _note_standard(self, result: LoopResult) -> None:
        """Note the log that a loop was compared with: of a renamed loop it is another one."""
        standard = result.standard
        if standard is not None and standard.place is not None:
            self.coverage.ran.add(str(standard.place))

    # --- hooks -----------------------------------------------------------------------------------

    def explain(self, op: str, left: object, right: object) -> list[str] | None:
        """The first two lines that explain a failing comparison with a figure.

        pytest cuts an explanation to eight lines, so the rest becomes a section of the test's
        report.
        """
        lines = explain_comparison(op, left, right)
        if lines is None:
            return None
        self._explanations.append("\n".join(lines[1:]))
        return [printable(line) for line in lines[:2]]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Say which loops are to come; in a replay, judge those in a row at one moment.

        A test of the user's ends that: it may write files, or commit them.
        """
        self._workers.follow(self._following(item))
        if _loop_of(item) is None:  # a loop that was skipped must not run on beside it
            self._workers.close()
        if self.options.replay and self._moment is None and _loop_of(item):
            self._moment = ExitStack()
            self._moment.enter_context(at_one_moment())
        try:
            return (yield)
        finally:
            if _loop_of(nextitem) is None:
                self._end_moment()

    def _end_moment(self) -> None:
        if self._moment is not None:
            self._moment.close()
            self._moment = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Show a user's mistake as text, and attach explanations and news to the report."""
        report = yield
        if self.options.replay and not report.failed:
            # In a replay the verdict is a gate by itself, as for ftloop gate: also of a loop that
            # runs in a fixture, or in a test that then skips or is expected to fail.
            failed = [explain_failed(ran.result, self._width()) for ran in self._of_test.values()]
            if any(failed):
                report.outcome, report.longrepr = (
                    "failed",
                    printable("\n\n".join(filter(None, failed))),
                )
                self._of_test = {}
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, FtloopError) and not wants_traceback():
            report.longrepr = str(error)
            report.ftloop_error = report.nodeid.partition("::")[0]  # type: ignore[attr-defined]
            report.ftloop_told = isinstance(error, ToldError)  # type: ignore[attr-defined]
        if loop := getattr(error, "failed_loop", None):
            report.ftloop_gate = list(loop)  # type: ignore[attr-defined]
        if report.failed:
            results = [ran.result for ran in self._of_test.values()]
            failed = [explain_failed(result, self._width()) for result in results]
            texts = filter(None, [*self._explanations, *failed])
            report.sections += [("ftloop", printable(text)) for text in texts]
        self._explanations, self._of_test = [], {}
        if self._news:  # an xdist worker sends reports to the process that prints, and nothing else
            report.ftloop = self._news  # type: ignore[attr-defined]
            self._news = []
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the news in a report, in the process that prints."""
        self._board.add(getattr(report, "ftloop", ()))

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Note the loop files that are collected, and those that write one log."""
        loop = _loop_of(item)
        if loop is not None:
            self.coverage.collect(
                (self.options.log_folder or loop.folder / FOLDER) / loop.name, loop
            )

    def pytest_deselected(self) -> None:
        """Note that not every test was to run."""
        self.coverage.chosen = True

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what an xdist worker noted."""
        if noted := getattr(node, "workeroutput", {}).get("ftloop"):
            self.coverage.add(noted)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Name what was not judged; write the HTML report, where all loops are known."""
        self._workers.close()
        if hasattr(self.config, "workerinput"):
            self.config.workeroutput["ftloop"] = self.coverage.as_plain()  # type: ignore[attr-defined]
            return
        # A run that trains on a developer's machine is no gate, and asks git nothing.
        if (self.options.replay or in_ci()) and not self.config.option.collectonly:
            self._gaps, fails = self.coverage.gaps(self.config, self.options)
            if fails and session.exitstatus in _QUIET:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._report is None:
            return
        from pytest_ftloop.report.html.gather import of_told, write_page

        try:
            loops = [
                self._compared(self._reported[key])
                if key in self._reported  # else it ran in an xdist worker: only its log is here
                else of_told(Path(key[0]), news["file"], self.options)
                for key, news in sorted(self._board.runs.items())
            ]
            if loops:
                write_page(loops, self._report)
        except FtloopError as error:
            self._report_line = f"ftloop report: {error}"
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.USAGE_ERROR
            return
        done = f"written to {shown_path(self._report)}" if loops else "not written: no loop ran"
        self._report_line = f"ftloop report: {done}"

    @pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_terminal_summary")
    def pytest_terminal_summary_first(self, terminalreporter: Any) -> Generator[None, None, None]:
        """Leave out of pytest's list of failures what is in the loops' sections."""
        if not shows_everything(self.config):
            leave_out_explained(terminalreporter, self._board)
        yield

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """What there is to say of each loop, and what was not judged."""
        verbosity = verbosity_of(self.config)
        sections = self._board.sections(verbosity, self._width())
        write_sections(terminalreporter, sections, verbosity)
        write_compared(terminalreporter, self._board.compared(verbosity, self._width()))
        if self._gaps:
            terminalreporter.section("ftloop: not judged", sep="-", bold=True)
            for line in "\n".join(self._gaps).splitlines():
                terminalreporter.line(visible(line))
        if self._report_line:
            terminalreporter.line(printable(self._report_line))
        if self._under_way:
            terminalreporter.line(
                f"ftloop: {self._under_way} was interrupted; its finished iterations are in the "
                "improvement log, and the next pytest --ftloop continues from them"
            )

    # --- helpers ---------------------------------------------------------------------------------

    def _compared(self, ran: Ran) -> LoopReport:
        """A loop for the HTML page. If no gate judged it, it is compared now, without logging.

        If the comparison fails (the commit is missing, the clone is shallow), the page shows why.
        """
        from pytest_ftloop.report.html.gather import of_result

        rules = [r for r in ran.result.comparisons if r not in dict(ran.result.verdicts)]
        if ran.result.verdicts and not rules:
            return of_result(ran.result)
        replay = replace(self.options, replay=True, retrain=False, retrain_baseline=False)
        try:
            return of_result(replace(ran.loop, options=replay).judge(ran.result, rules))
        except FtloopError as error:
            return of_result(ran.result, str(error))

    def _width(self) -> int:
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        width = reporter._tw.fullwidth if reporter else int(os.environ.get("COLUMNS", "100"))
        return max(width, 60)

    def _progress(self) -> Progress:
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        if reporter is None:
            return Silent()

        def write(text: str) -> None:
            if capture is None:
                reporter._tw._file.write(text)
                reporter._tw._file.flush()
                return
            with capture.global_and_fixture_disabled():
                reporter._tw._file.write(text)
                reporter._tw._file.flush()

        def under() -> str:  # pytest's unfinished line, which the live line restores at its end
            line: str = reporter._tw._current_line
            return line

        redraws = reporter.isatty and os.environ.get("TERM") != "dumb"
        return (LiveLine if redraws else StayingLines)(write, reporter._tw.fullwidth, under=under)


def _loop_of(item: pytest.Item | None) -> LoopConfig | None:
    """The loop whose file an item is of; None for a test of the user's."""
    loop = getattr(item, "loop", None)
    return loop if isinstance(loop, LoopConfig) else None


def session_of(config: pytest.Config) -> FtloopSession:
    """The session that `pytest_configure` registered for this run."""
    session = config.pluginmanager.get_plugin("ftloop-session")
    assert isinstance(session, FtloopSession)
    return session


def options_of(config: pytest.Config) -> Options:
    """The options of loops, from those of pytest."""
    option = config.option
    worker = getattr(config, "workerinput", {})
    return Options(
        retrain=option.ftloop_retrain,
        replay=option.ftloop_replay,
        explore=not in_ci(),
        iterations=option.ftloop_iterations,
        log_folder=Path(option.ftloop_log).absolute() if option.ftloop_log else None,
        run_id=worker.get("testrunuid") or uuid.uuid4().hex,
        baseline=option.ftloop_baseline or config.getini("ftloop_baseline") or None,
        retrain_baseline=option.ftloop_retrain_baseline,
        parallel=option.ftloop_parallel,
    )
