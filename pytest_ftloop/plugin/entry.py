"""The plugin as pytest loads it: options, marker, fixture, hooks.

Every pytest run imports this module, so it imports the rest of the package only with --ftloop.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from pytest_ftloop.plugin.fixture import LoopFactory
    from pytest_ftloop.plugin.session import FtloopSession

LOGS = "improvement_log"
"""The name of the folders of logs, as in `log.files`, whose import would slow every pytest run."""

SUFFIXES = (".ftloop.yaml", ".ftloop.yml")
"""The endings of loop files, as in `config.loop_yaml`, whose import would slow every pytest run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, which all begin with --ftloop, and the ini setting."""
    group = parser.getgroup("ftloop", "fine-tuning loops (pytest-ftloop)")
    group.addoption(
        "--ftloop",
        action="store_true",
        help="run fine-tuning loops: collect *.ftloop.yaml (each gate is a test), and run tests "
        "with the ftloop fixture; iterations in the improvement log are not trained again",
    )
    group.addoption(
        "--ftloop-retrain",
        action="store_true",
        help="train even iterations that are in the log already (implies --ftloop)",
    )
    group.addoption(
        "--ftloop-replay",
        action="store_true",
        help="never train: judge the log, and fail if it is out of date (implies --ftloop; torch "
        "is not needed)",
    )
    group.addoption(
        "--ftloop-iterations",
        type=_positive,
        metavar="N",
        help="maximum number of iterations, in place of the loop file's loop: {iterations: N}; "
        "without it only the loop file's own settings are trained if the variable CI is set",
    )
    group.addoption(
        "--ftloop-parallel",
        type=_number_or_auto,
        metavar="N",
        help="train seeds, listed settings and loops in N processes at once, or auto: one per "
        "GPU, else per core; in place of the loop file's loop: {parallel: N} (default: the "
        "ini setting ftloop_parallel)",
    )
    group.addoption(
        "--ftloop-baseline",
        metavar="REF",
        help="the commit whose log the regression gate compares with (default: the ini setting "
        "ftloop_baseline, else where the change starts; HEAD if it is not committed yet)",
    )
    group.addoption(
        "--ftloop-retrain-baseline",
        action="store_true",
        help="if the baseline's figures are from another environment, train it here, from its own "
        "commit, for a fair comparison (implies --ftloop)",
    )
    group.addoption(
        "--ftloop-log",
        metavar="DIR",
        help="the folder of the improvement log, in place of improvement_log/ beside the loop file",
    )
    group.addoption(
        "--ftloop-report",
        metavar="PATH",
        help="write one self-contained HTML file about all loops that ran (needs the report extra)",
    )
    parser.addini(
        "ftloop_parallel",
        "processes that train at once on this machine; see --ftloop-parallel",
        default=None,
    )
    parser.addini(
        "ftloop_baseline", "the commit to compare with; see --ftloop-baseline", default=None
    )


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks that users can implement."""
    from pytest_ftloop.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and, with --ftloop, the session that runs loops."""
    config.addinivalue_line(
        "markers", "ftloop: runs a fine-tuning loop (set on gates and on users of the fixture)"
    )
    option = config.option
    if option.ftloop_retrain and option.ftloop_replay:
        raise pytest.UsageError("--ftloop-retrain and --ftloop-replay can't be combined")
    if option.ftloop_retrain_baseline and option.ftloop_replay:
        raise pytest.UsageError("--ftloop-retrain-baseline and --ftloop-replay can't be combined")
    if option.ftloop_parallel is None and (stated := config.getini("ftloop_parallel")):
        try:
            option.ftloop_parallel = _number_or_auto(stated)
        except ArgumentTypeError as error:
            raise pytest.UsageError(f"ftloop_parallel: {error}") from None
    trains = option.ftloop_retrain or option.ftloop_retrain_baseline
    if option.ftloop or trains or option.ftloop_replay:
        from contextlib import ExitStack

        from pytest_ftloop.core.collector import imports_kept
        from pytest_ftloop.plugin.session import FtloopSession

        kept = ExitStack()
        kept.enter_context(imports_kept())
        config.add_cleanup(kept.close)
        if option.ftloop_report:  # checked now: a missing package must not show after training
            _check_report_extra()
        config.pluginmanager.register(FtloopSession(config), "ftloop-session")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out improvement logs, unless one is named: a log is data, and a conftest.py in it none.

    A log comes by pull request and is seldom read line by line.
    """
    return True if collection_path.name == LOGS and collection_path.is_dir() else None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect loop files with --ftloop; without it, one that was named is a skipped test."""
    if not file_path.name.endswith(SUFFIXES):
        return None
    if _session(parent.config) is not None:
        from pytest_ftloop.plugin.items import LoopFileCollector

        return LoopFileCollector.from_parent(parent, path=file_path)
    if parent.session.isinitpath(file_path):
        return UnreadLoopFile.from_parent(parent, path=file_path)
    return None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that use the fixture, so that `-m ftloop` selects them."""
    if "ftloop" in getattr(item, "fixturenames", ()):
        item.add_marker("ftloop")


@pytest.fixture
def ftloop(request: pytest.FixtureRequest) -> LoopFactory:
    """Make a fine-tuning loop from a loop file or from Python objects; `.run()` runs it.

    ftloop("sentiment.ftloop.yaml"), or ftloop(model=..., train=..., eval=..., lora=LoraConfig(...),
    training=SFTConfig(...)). Without --ftloop the test is skipped.
    """
    session = _session(request.config)
    if session is None:
        pytest.skip("needs --ftloop: without it nothing is trained")
    from pytest_ftloop.plugin.fixture import factory

    return factory(session, request)


def pytest_assertrepr_compare(
    config: pytest.Config, op: str, left: object, right: object
) -> Sequence[str] | None:
    """Explain a failing assert on a figure of a loop's result."""
    session: Any = _session(config)
    return session.explain(op, left, right) if session is not None else None


class UnreadLoopFile(pytest.File):
    """A loop file named without --ftloop: one skipped test. The file is not opened."""

    def collect(self) -> list[pytest.Item]:
        """Yield one item, whose skip reason names the missing option."""
        return [_Unread.from_parent(self, name="needs --ftloop")]


class _Unread(pytest.Item):
    def runtest(self) -> None:
        pytest.skip("needs --ftloop: without it loop files are not read")


def _session(config: pytest.Config) -> FtloopSession | None:
    found: FtloopSession | None = config.pluginmanager.get_plugin("ftloop-session")
    return found


def _check_report_extra() -> None:
    """Raise a usage error if the packages that write the report are missing."""
    from pytest_ftloop.core.errors import FtloopError
    from pytest_ftloop.report.html.page import check_extra

    try:
        check_extra()
    except FtloopError as error:
        raise pytest.UsageError(f"--ftloop-report: {error}") from None


def _number_or_auto(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"wanted a whole number, 1 or more, or auto, found {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"wanted a whole number, 1 or more, found {text!r}")
    return int(text)
