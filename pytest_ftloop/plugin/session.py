"""One pytest run with --ftloop: runs each loop once, collects what to say of it, says it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Generator, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import LoopConfig, read_loop_file
from pytest_ftloop.core.errors import FtloopError, did_you_mean, shown_path
from pytest_ftloop.core.git import ignored_by_git
from pytest_ftloop.core.progress import Progress, Silent
from pytest_ftloop.diagnose import custom as diagnosis
from pytest_ftloop.evaluate.scorers import row_of
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options, in_ci
from pytest_ftloop.loop.result import Figure, LoopResult
from pytest_ftloop.report.explain import explain_figure
from pytest_ftloop.report.live import LiveLine, StayingLines
from pytest_ftloop.report.text import files_to_commit, note_lines, summary
from pytest_ftloop.report.verdict import explain_failed, head_lines, holdout_lines, verdict_lines

if TYPE_CHECKING:
    from pytest_ftloop.adjust.function import Adjust
    from pytest_ftloop.config.gates import Regression
    from pytest_ftloop.core.records import Example, Finding
    from pytest_ftloop.diagnose.custom import Diagnose
    from pytest_ftloop.diagnose.evidence import Evidence
    from pytest_ftloop.gate.verdict import Verdict

LoopFactory = Callable[..., "BoundLoop"]


class FtloopSession:
    """The plugin's state and the hooks that only matter with --ftloop."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.options = options_of(config)
        self._results: dict[int, LoopResult | Exception] = {}
        self._loops: list[LoopConfig] = []  # kept, so that no other object gets the id of one
        self._news: list[dict[str, Any]] = []
        self._summaries: dict[tuple[str, str], dict[str, Any]] = {}
        self._verdicts: dict[tuple[str, str], dict[str, list[str]]] = {}
        self._under_way = ""
        self._explanations: list[str] = []
        self._results_of_test: list[LoopResult] = []
        report = config.option.ftloop_report
        self._report = Path(report).absolute() if report else None
        self._reported: dict[tuple[str, str], LoopResult] = {}
        self._said_of_report = ""

    # --- running ---------------------------------------------------------------------------------

    def run(self, loop: LoopConfig) -> LoopResult:
        """Run a loop, and keep what is to be said of it."""
        self._under_way = loop.name  # stays set when interrupted: that is no Exception
        try:
            result = Loop(
                loop,
                self.options,
                self._progress(),
                self._hook(),
                diagnose_hook=self._diagnose_hook(),
                adjust_hook=self._adjust_hook(loop),
            ).run()
            self._news.append(
                self._news_of(result) | {"file": str(loop.file) if loop.lines else ""}
            )
            if self._report:
                self._reported[str(result.log_folder), result.chain[0].name] = result
        except Exception:
            self._under_way = ""
            raise
        self._under_way = ""
        return result

    def run_once(self, loop: LoopConfig) -> LoopResult:
        """Run a loop that several tests share, the gates of a file: once, also when it fails."""
        if id(loop) not in self._results:
            self._loops.append(loop)
            try:
                self._results[id(loop)] = self.run(loop)
            except Exception as error:  # noqa: BLE001 - raised below, for each who asks
                self._results[id(loop)] = error
        known = self._results[id(loop)]
        if isinstance(known, Exception):
            raise known
        return known

    def run_in_test(self, loop: LoopConfig) -> LoopResult:
        """Run a loop of the fixture's; should the test fail by its verdict, that is explained."""
        result = self.run(loop)
        self._results_of_test.append(result)
        return result

    def verdict(self, loop: LoopConfig, rule: Regression) -> Verdict:
        """Judge a loop that several tests share against the baseline; keep what to say of it."""
        result = self.run_once(loop)
        told = len(result.notes)
        verdict = result.verdict_of(rule)
        # What a failed gate rests on stands in its own explanation already.
        said_of = verdict_lines if verdict.ok else head_lines
        lines = said_of(verdict, rule.name, self._width())
        if rule.tag is None and (report := result.holdout):
            lines += holdout_lines(report, self._width())
        lines += note_lines(result.notes[told:], self._width())
        said = {"gate": rule.name, "verdict": lines}
        self._news.append(self._key_of(result) | said)
        return verdict

    def factory(self, request: pytest.FixtureRequest) -> LoopFactory:
        """The `ftloop` fixture's value for one test."""
        here = Path(request.path).parent

        def make(file: str | os.PathLike[str] | None = None, /, **settings: Any) -> BoundLoop:
            __tracebackhide__ = True
            if file is not None and settings:
                raise FtloopError(
                    f"ftloop() takes a loop file or settings, found both: {file} and "
                    f"{', '.join(settings)}",
                    cure="Write the settings into the loop file, or leave the file out.",
                )
            if not isinstance(file, str | os.PathLike | None):
                raise FtloopError(
                    f"ftloop() takes a loop file's path, found {type(file).__name__}",
                    cure="Live objects go by name: ftloop(model=..., train=..., eval=...).",
                )
            if file is not None:
                path = Path(file)
                found = next((p for p in (here / path, path) if p.is_file()), here / path)
                return BoundLoop(self, read_loop_file(found))
            known = set(from_python.__kwdefaults__ or {}) | {"name"}
            if unknown := sorted(set(settings) - known):
                raise FtloopError(
                    f"ftloop() has no setting {unknown[0]!r}",
                    cure=did_you_mean(unknown[0], known),
                )
            settings.setdefault("name", _loop_name(request.node.name))
            where = {"folder": here, "source": f"{shown_path(Path(request.path))}"}
            return BoundLoop(self, from_python(**{**where, **settings}))

        return make

    def explain(self, op: str, left: object, right: object) -> list[str] | None:
        """The first lines of a failing comparison with a figure; the rest goes below the test.

        pytest cuts a comparison's explanation to eight lines.
        """
        if isinstance(left, Figure) and isinstance(right, Real):
            lines = explain_figure(left, op, float(right))
        elif isinstance(right, Figure) and isinstance(left, Real):
            turned = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(op, op)
            lines = explain_figure(right, turned, float(left))
        else:
            return None
        self._explanations.append("\n".join(lines[1:]))
        return lines[:2]

    # --- hooks -----------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """A user's mistake is shown as text; news of loops travels with the report (xdist)."""
        report = yield
        if call.excinfo is not None and isinstance(call.excinfo.value, FtloopError):
            report.longrepr = str(call.excinfo.value)
        if report.failed:
            failed = [explain_failed(result, self._width()) for result in self._results_of_test]
            texts = filter(None, [*self._explanations, *failed])
            report.sections += [("ftloop", text) for text in texts]
        self._explanations, self._results_of_test = [], []
        if self._news:
            report.ftloop = self._news  # type: ignore[attr-defined]
            self._news = []
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the news; of two processes' news of one loop, that of the one that was first."""
        for news in getattr(report, "ftloop", ()):
            key = (news["log_folder"], news["start"])  # one log may hold several loops
            if "verdict" in news:
                self._verdicts.setdefault(key, {})[news["gate"]] = news["verdict"]
                continue
            known = self._summaries.get(key)
            if known is None or news["new"] >= known["new"]:
                self._summaries[key] = news

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the HTML report, in the process that knows of all loops."""
        if self._report is None or hasattr(self.config, "workerinput"):
            return
        from pytest_ftloop.report.html.gather import of_result, of_told, write_page

        try:
            loops = [
                of_result(self._reported[key])
                if key in self._reported  # else a worker of pytest-xdist ran it
                else of_told(Path(key[0]), news["file"], self.options)
                for key, news in sorted(self._summaries.items())
            ]
            if loops:
                write_page(loops, self._report)
        except FtloopError as error:
            self._said_of_report = f"ftloop report: {error}"
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.USAGE_ERROR
            return
        said = f"written to {shown_path(self._report)}" if loops else "no loop ran: not written"
        self._said_of_report = f"ftloop report: {said}"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The iterations, findings, failing examples and files of each loop."""
        for key, news in sorted(self._summaries.items()):
            terminalreporter.section(f"ftloop {news['loop']}", sep="-", bold=True)
            verdicts = self._verdicts.get(key, {}).values()
            for lines in (news["lines"], *(["", *verdict] for verdict in verdicts)):
                for line in lines:
                    terminalreporter.line(line)
        if self._said_of_report:
            terminalreporter.line(self._said_of_report)
        if self._under_way:
            terminalreporter.line(
                f"ftloop: {self._under_way} was interrupted; its finished iterations are in the "
                "improvement log, and the next pytest --ftloop goes on from there"
            )

    # --- inner -----------------------------------------------------------------------------------

    def _news_of(self, result: LoopResult) -> dict[str, Any]:
        """What a report carries to the process that prints: plain values only."""
        verbosity = getattr(self.config.option, "verbose", 0)  # the reporter's own option
        ignored = ignored_by_git(files_to_commit(result))
        lines = summary(result, verbosity, self._width(), ignored=ignored)
        new = len(result.trained) + len(result.restored)
        return self._key_of(result) | {"new": new, "lines": lines}

    def _key_of(self, result: LoopResult) -> dict[str, Any]:
        return {
            "loop": result.loop,
            "log_folder": str(result.log_folder),
            "start": result.chain[0].name,
        }

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

        def under() -> str:
            line: str = reporter._tw._current_line
            return line

        redraws = reporter.isatty and os.environ.get("TERM") != "dumb"
        return (LiveLine if redraws else StayingLines)(write, reporter._tw.fullwidth, under=under)

    def _adjust_hook(self, loop: LoopConfig) -> Adjust | None:
        """The user's pytest_ftloop_adjust for this loop; None where nobody implements it."""
        hook = self.config.hook.pytest_ftloop_adjust
        if not hook.get_hookimpls():
            return None
        return lambda chain: hook(loop=loop.name, chain=chain)

    def _hook(self) -> Callable[[Example, str], bool] | None:
        """The user's pytest_ftloop_score as a scorer; None where nobody implements it."""
        hook = self.config.hook.pytest_ftloop_score
        if not hook.get_hookimpls():
            return None

        def score(example: Example, output: str) -> bool:
            passed: bool = hook(
                output=output, expected=(example.expected or "").strip(), example=row_of(example)
            )
            return passed

        return score

    def _diagnose_hook(self) -> Diagnose | None:
        """The user's pytest_ftloop_diagnose; None where nobody implements it."""
        found = self.config.hook.pytest_ftloop_diagnose.get_hookimpls()
        plugins = list(dict.fromkeys(impl.plugin for impl in reversed(found)))  # as pluggy calls
        if not plugins:
            return None

        def findings(evidence: Evidence) -> list[Finding]:
            # One plugin at a time, so that a mistake has a name.
            return [f for plugin in plugins for f in self._diagnosed_by(plugin, plugins, evidence)]

        return findings

    def _diagnosed_by(
        self, plugin: object, plugins: Sequence[object], evidence: Evidence
    ) -> tuple[Finding, ...]:
        manager = self.config.pluginmanager
        hook = manager.subset_hook_caller(diagnosis.NAME, [p for p in plugins if p is not plugin])

        def ask() -> object:
            said = hook(evidence=evidence)
            return said[0] if said else None

        return diagnosis.asked(manager.get_name(plugin) or repr(plugin), ask)


class BoundLoop:
    """A loop of the `ftloop` fixture; `run()` gives its `LoopResult`."""

    def __init__(self, session: FtloopSession, config: LoopConfig) -> None:
        self._session = session
        self.config = config

    def run(self) -> LoopResult:
        """Train what is not in the log yet, and return the best iteration's figures."""
        __tracebackhide__ = True
        return self._session.run_in_test(self.config)


def session_of(config: pytest.Config) -> FtloopSession:
    """The session registered for this pytest run."""
    session = config.pluginmanager.get_plugin("ftloop-session")
    assert isinstance(session, FtloopSession)
    return session


def options_of(config: pytest.Config) -> Options:
    """The loop's options from pytest's."""
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
    )


def _loop_name(test: str) -> str:
    """A folder's name from a test's (`test_sentiment[small]` -> `sentiment-small`)."""
    kept = "".join(c if c.isalnum() or c in "_.-" else "-" for c in test.removeprefix("test_"))
    return kept.strip("-.") or "loop"
