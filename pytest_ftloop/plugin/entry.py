"""The pytest11 entry: options, marker, fixture. Without --ftloop nothing else is imported."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_ftloop.plugin.fixture import LoopFactory
    from pytest_ftloop.plugin.session import FtloopSession

SUFFIXES = (".ftloop.yaml", ".ftloop.yml")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Every option begins with --ftloop."""
    group = parser.getgroup("ftloop", "fine-tuning loops (pytest-ftloop)")
    group.addoption(
        "--ftloop",
        action="store_true",
        help="run fine-tuning loops: collect *.ftloop.yaml (each gate is a test) and let tests use "
        "the ftloop fixture; what the improvement log holds already is not trained again",
    )
    group.addoption(
        "--ftloop-retrain",
        action="store_true",
        help="train even what the improvement log holds already (implies --ftloop)",
    )
    group.addoption(
        "--ftloop-replay",
        action="store_true",
        help="never train: judge what is logged, and fail when the log is out of date "
        "(implies --ftloop; needs no torch)",
    )
    group.addoption(
        "--ftloop-iterations",
        type=_positive,
        metavar="N",
        help="iterations at most, in place of the loop file's loop: {iterations: N}; where the CI "
        "variable is set only the loop file's own settings are trained unless this is given",
    )
    group.addoption(
        "--ftloop-baseline",
        metavar="REF",
        help="compare with the log as it is at this commit, for the regression gate (default: the "
        "ini setting ftloop_baseline, else in a pull request the merge base with its target "
        "branch, else HEAD)",
    )
    group.addoption(
        "--ftloop-retrain-baseline",
        action="store_true",
        help="where the baseline's figures are from another environment, train the baseline here "
        "from its own commit, for a fair comparison (implies --ftloop)",
    )
    group.addoption(
        "--ftloop-log",
        metavar="DIR",
        help="read and write the improvement log in DIR, not beside the loop file",
    )
    group.addoption(
        "--ftloop-report",
        metavar="PATH",
        help="write an HTML report on all loops that ran, one self-contained file (needs the "
        "report extra)",
    )
    parser.addini(
        "ftloop_baseline", "the commit to compare with, as --ftloop-baseline", default=None
    )


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Make the user's hooks known."""
    from pytest_ftloop.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; with --ftloop, all the rest."""
    config.addinivalue_line(
        "markers", "ftloop: runs a fine-tuning loop (set on gates and on users of the fixture)"
    )
    option = config.option
    if option.ftloop_retrain and option.ftloop_replay:
        raise pytest.UsageError("--ftloop-retrain and --ftloop-replay exclude each other")
    if option.ftloop_retrain_baseline and option.ftloop_replay:
        raise pytest.UsageError("--ftloop-retrain-baseline and --ftloop-replay exclude each other")
    trains = option.ftloop_retrain or option.ftloop_retrain_baseline
    if option.ftloop or trains or option.ftloop_replay:
        from pytest_ftloop.plugin.session import FtloopSession

        if option.ftloop_report:
            _check_report_extra()
        config.pluginmanager.register(FtloopSession(config), "ftloop-session")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Loop files are read under --ftloop only; one named on the command line says so."""
    if not file_path.name.endswith(SUFFIXES):
        return None
    if _session(parent.config) is not None:
        from pytest_ftloop.plugin.items import LoopFileCollector

        return LoopFileCollector.from_parent(parent, path=file_path)
    if parent.session.isinitpath(file_path):
        return UnreadLoopFile.from_parent(parent, path=file_path)
    return None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark users of the fixture, in time for -m."""
    if "ftloop" in getattr(item, "fixturenames", ()):
        item.add_marker("ftloop")


@pytest.fixture
def ftloop(request: pytest.FixtureRequest) -> LoopFactory:
    """Make a fine-tuning loop from a loop file or from live objects; `.run()` runs it.

    ftloop("sentiment.ftloop.yaml"), or ftloop(model=..., train=..., eval=..., lora=LoraConfig(...),
    training=SFTConfig(...)). Skips the test unless pytest runs with --ftloop.
    """
    session = _session(request.config)
    if session is None:
        pytest.skip("needs --ftloop: nothing is trained without it")
    from pytest_ftloop.plugin.fixture import factory

    return factory(session, request)


def pytest_assertrepr_compare(
    config: pytest.Config, op: str, left: object, right: object
) -> Sequence[str] | None:
    """A failing assert on a result's figure explains itself."""
    session: Any = _session(config)
    return session.explain(op, left, right) if session is not None else None


class UnreadLoopFile(pytest.File):
    """A loop file that was named without --ftloop: one skipped test, the file is not opened."""

    def collect(self) -> list[pytest.Item]:
        """One item that says what is missing."""
        return [_Unread.from_parent(self, name="needs --ftloop")]


class _Unread(pytest.Item):
    def runtest(self) -> None:
        pytest.skip("needs --ftloop: loop files are not read without it")


def _session(config: pytest.Config) -> FtloopSession | None:
    found: FtloopSession | None = config.pluginmanager.get_plugin("ftloop-session")
    return found


def _check_report_extra() -> None:
    """A usage error before anything is trained, where the report could not be written after."""
    from pytest_ftloop.core.errors import FtloopError
    from pytest_ftloop.report.html.page import check_extra

    try:
        check_extra()
    except FtloopError as error:
        raise pytest.UsageError(f"--ftloop-report: {error}") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"wanted a whole number, 1 or more, found {text!r}")
    return int(text)
