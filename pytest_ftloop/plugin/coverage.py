"""Which logs a pytest run judged: a loop that has a log at the base and did not run is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.errors import ConfigError, FtloopError
from pytest_ftloop.core.files import real
from pytest_ftloop.loop.census import Census
from pytest_ftloop.loop.workspace import log_key, two_loops_error

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.loop.options import Options


@dataclass
class Coverage:
    """The log folders of the loops that pytest collected (`collected`) and ran (`ran`).

    `chosen`: tests were deselected, so what did not run was left out on purpose. `doubles` are the
    logs that two loop files write, `made` the test files of loops made in Python, `firsts` the
    first log of each name. All but those three travel from xdist workers to the process that
    prints, as plain values.
    """

    collected: dict[str, str] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    chosen: bool = False
    doubles: dict[str, ConfigError] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    firsts: dict[Path, str] = field(default_factory=dict)

    def collect(self, log: Path, loop: LoopConfig) -> None:
        """Note a loop file that pytest collected, by the folder of its log."""
        key = str(real(log))
        first = self.firsts.setdefault(log_key(log), key)
        other = self.collected.setdefault(first, loop.source)
        if other != loop.source:
            self.doubles[key] = self.doubles[first] = two_loops_error(log, loop, other)
            self.collected[key] = loop.source if key != first else other

    def unreadable(self, log: Path) -> None:
        """Note the log of a loop file with mistakes, which are an error by themselves."""
        self.ran.add(str(real(log)))

    def run(self, log: Path, loop: LoopConfig) -> None:
        """Note a loop that runs. Raises a `ConfigError` where two loops write its log.

        One made in Python is known once it runs. One test file may make a loop several times.
        """
        key = str(real(log))
        self.ran.add(key)
        if key in self.doubles:
            raise self.doubles[key]
        if not loop.lines:
            other = self.collected.get(key) or self.made.setdefault(key, loop.source)
            if other != loop.source:
                raise two_loops_error(log, loop, other)

    def as_plain(self) -> dict[str, object]:
        """For another process."""
        return {"collected": self.collected, "ran": sorted(self.ran), "chosen": self.chosen}

    def add(self, plain: dict[str, object]) -> None:
        """What another process noted."""
        collected, ran = plain["collected"], plain["ran"]
        assert isinstance(collected, dict)
        assert isinstance(ran, list)
        self.collected |= collected
        self.ran |= set(ran)
        self.chosen |= bool(plain["chosen"])

    def gaps(self, config: pytest.Config, options: Options) -> tuple[list[str], bool]:
        """What to say of loops that were not judged, and whether that fails the run.

        It does unless the user chose what to run. So does a base that can't be read.
        """
        lines = [
            f"{source}: not judged, its tests were deselected"
            for log, source in sorted(self.collected.items())
            if log not in self.ran and self.chosen
        ]
        scope = _scope(config)
        # Each log is judged by the test that runs its loop, so one without a loop file counts too.
        done = {Path(log) for log in (*self.ran, *(self.collected if self.chosen else ()))}
        here = config.invocation_params.dir
        reading = replace(options, replay=True)
        try:
            gone = Census.of(scope, done, reading).unjudged(python=False)
            # Whoever names folders is answerable for these, and hears of the others.
            around = [here] if scope and here not in scope else []
            others = Census.of(around, done, reading).unjudged(python=False)
        except FtloopError as error:
            # Without the base nobody knows what should have been judged: that must not pass.
            return [*lines, str(error)], not self.chosen
        lines += [str(error) for error in gone]
        named = {error.log for error in gone}
        lines += [
            f"{error.log}: not judged, it is outside of what was named on the command line"
            for error in others
            if error.log not in named
        ]
        if gone and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
            lines.append(f"pytest searched its testpaths only: {' '.join(config.args)}")
        return lines, bool(gone) and not self.chosen


def _scope(config: pytest.Config) -> Sequence[Path]:
    """The folders whose logs this run has to judge: all that it would search, or that were named.

    `testpaths` narrows what pytest collects, but not what it answers for.
    """
    here = config.invocation_params.dir
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return [here]
    named = [here / arg.partition("::")[0] for arg in config.args]
    return [path for path in named if path.is_dir()]
