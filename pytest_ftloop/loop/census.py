"""What a command has to judge besides its loop files: other logs, and logs that nothing judges.

A loop made in Python has a log without a loop file. A command that does not run pytest judges it
from its log alone.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.config.gates import DEFAULT_FORGETTING, DEFAULT_REGRESSION
from pytest_ftloop.core.chain import best_of, chain_from, chosen_by
from pytest_ftloop.core.errors import LogError, shown_path
from pytest_ftloop.core.files import real
from pytest_ftloop.core.git import GitError, Repository
from pytest_ftloop.core.history import parent_of
from pytest_ftloop.gate.baseline import Sought
from pytest_ftloop.gate.ci_systems import in_ci
from pytest_ftloop.gate.comparison import Comparison
from pytest_ftloop.gate.lift import LiftTests
from pytest_ftloop.gate.reference import Reference, is_request, reference, start_of_change
from pytest_ftloop.gate.search import NOTHING_COMMITTED, find_baseline
from pytest_ftloop.gate.standards import Standards, UnjudgedError, is_retired
from pytest_ftloop.log import FOLDER, ImprovementLog
from pytest_ftloop.loop.commands import with_paths
from pytest_ftloop.loop.result import LoopResult
from pytest_ftloop.loop.workspace import log_folders

if TYPE_CHECKING:
    from pytest_ftloop.config.gates import Forgetting, Gate, Regression
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.gate.baseline import Baseline
    from pytest_ftloop.loop.options import Options

WITHOUT_LOOP_FILE = (
    "no loop file: judged from its log alone; pytest --ftloop-replay runs the test that makes it"
)

GIVEN_UP = "given up by hand: nothing judges it from the next change on"


@dataclass(frozen=True)
class Census:
    """The logs below some folders (`scope`), of which the loops of `judged` logs are done.

    `standards` are the logs at the base; empty where nothing is committed. Where nothing states the
    base there are two: the last commit, and the one before it or where the branch starts.
    """

    scope: Sequence[Path]
    judged: Collection[Path]
    options: Options
    standards: Sequence[Standards]

    @classmethod
    def of(
        cls, scope: Sequence[Path], results: Iterable[LoopResult | Path], options: Options
    ) -> Census:
        """The logs in these folders, given the results of the loops there, or their log folders."""
        standards = _standards(scope[0], options) if scope else ()
        judged: set[Path] = set()
        for result in results:
            if isinstance(result, Path):
                judged.add(real(result))
                continue
            judged.add(real(result.log_folder))
            place = result.standard.place if result.standard is not None else None
            # A log without a loop file may be any log: it takes over from no loop that had a file.
            # One that was moved there is that loop's.
            if place is not None and not (
                _is_from_log(result)
                and place.is_dir()
                and any(_had_loop_file(each, place) for each in standards)
            ):
                judged.add(real(place))
        return cls(tuple(scope), frozenset(judged), options, standards)

    def without_loop_file(self) -> Iterator[ImprovementLog]:
        """The logs that exist and that no loop file writes, now or at the base.

        Of a loop that was given up since the base, too: its result says so.
        """
        for folder in log_folders(self.scope, self.options.log_folder):
            if real(folder) not in self.judged and not any(
                _is_left_behind(each, folder) for each in self.standards
            ):
                yield ImprovementLog(folder)

    def unjudged(self, *, python: bool = True) -> tuple[UnjudgedError, ...]:
        """What has a log at the base, and is not judged now.

        Without `python` that includes logs without a loop file, which a pytest run has to judge.
        """
        scope = list(self.scope)
        if scope and self.options.log_folder is not None:
            scope.append(self.options.log_folder)
        found: dict[str, UnjudgedError] = {}
        for standards in self.standards:
            for folder in standards.unjudged(scope, self.judged, python=python):
                found.setdefault(str(folder), standards.error(folder))
        return tuple(found.values())


def judged_from_log(
    log: ImprovementLog,
    options: Options,
    rule: Regression = DEFAULT_REGRESSION,
    thresholds: Sequence[Gate] = (),
) -> LoopResult:
    """The result of a loop without a loop file, by this regression gate and these thresholds.

    The candidate is the best iteration of those that the base's log lacks; if it has them all, its
    baseline. A `LogError` says that the log is damaged.
    """
    iterations = log.read()
    if not iterations:
        raise LogError(f"the log in {shown_path(log.folder)} has no iteration")
    home = log.folder.parent
    home = home.parent if home.name == FOLDER else home
    sought = Sought(log.folder, home, iterations, None, seed_runs=log.view.seed_runs())
    candidate = _candidate(iterations, find_baseline(sought, options.baseline))
    standard = find_baseline(replace(sought, candidate=candidate), options.baseline)
    comparison = Comparison(log, candidate, standard)
    verdict = comparison.verdict(rule)
    note = GIVEN_UP if is_retired(log.view) else WITHOUT_LOOP_FILE
    verdict = replace(
        verdict, context=(*verdict.context, note), notes=(*verdict.notes, *log.exposed())
    )
    # What a log has guards for must not be forgotten, whatever the test asks for beside that.
    guarding = (_forgetting_like(rule),) if candidate.guards else ()
    log.verify(candidate)
    chain = chain_from(iterations, _start(iterations, candidate).fingerprint)
    verdicts = [(rule, verdict), *((each, comparison.verdict(each)) for each in guarding)]
    result = LoopResult(
        loop=candidate.loop,
        source=shown_path(log.folder),
        chain=chain,
        best=candidate,
        metric=chosen_by(candidate),
        gates=LiftTests.of(log.view).check(thresholds, candidate),
        trained=(),
        log_folder=log.folder,
        files=tuple(path for iteration in chain for path in log.files(iteration)),
        regressions=(rule,),
        forgetting=guarding,
        baseline=standard.iteration,
        standard=standard,
        log=log,
    )
    return replace(
        result, verdicts=tuple((each, with_paths(found, result)) for each, found in verdicts)
    )


def _forgetting_like(rule: Regression) -> Forgetting:
    """The default gate on guards, with what the command line states for the regression gate."""
    return replace(
        DEFAULT_FORGETTING,
        alpha=rule.alpha,
        max_regression=rule.max_regression,
        fail_on=rule.fail_on,
    )


def _standards(place: Path, options: Options) -> Sequence[Standards]:
    try:
        repository = Repository.containing(place)
        found = reference(repository, options.baseline, os.environ)
    except GitError as error:
        stated = options.baseline is not None or is_request(os.environ)
        if error.kind in NOTHING_COMMITTED and not stated:
            return ()
        raise
    commits = [found]
    if found.is_unstated:
        start = start_of_change(repository, found)
        if start is None and (parent := _parent(repository, found.commit)):
            start = Reference(parent, f"HEAD^ ({parent[:7]})", "the commit before the last")
        commits += [start] if start else []
    return [Standards.at(repository, commit) for commit in commits]


def _parent(repository: Repository, commit: str) -> str | None:
    """The commit before; None for the first, and on a developer's machine for a cut off history."""
    try:
        return parent_of(repository, commit)
    except GitError as error:
        if error.kind != "shallow" or in_ci(os.environ):
            raise
        return None


def _is_left_behind(standards: Standards, folder: Path) -> bool:
    """Whether a log is one whose loop file is gone, or whose loop had been given up."""
    place = standards.repository.relative(folder)
    if standards.was_retired(place):
        return True
    wrote = place in standards.folders and standards.had_loop_file(place)
    return wrote and not standards.is_retired(place)


def _is_from_log(result: LoopResult) -> bool:
    """Whether a result is that of a log without a loop file."""
    return result.source == shown_path(result.log_folder)


def _had_loop_file(standards: Standards, folder: Path) -> bool:
    """Whether a loop file wrote this log at the base."""
    root = standards.repository.root
    inside = root in real(folder).parents
    return inside and standards.had_loop_file(standards.repository.relative(folder))


def _candidate(iterations: Sequence[Iteration], standard: Baseline) -> Iteration:
    known = standard.view.iterations() if standard.view else ()
    names = {(iteration.fingerprint, iteration.tag) for iteration in known}
    new = [i for i in iterations if (i.fingerprint, i.tag) not in names]
    here = {iteration.id: iteration for iteration in iterations}
    if not new and standard.iteration is not None and standard.iteration.id in here:
        return here[standard.iteration.id]
    return best_of(new or iterations)


def _start(iterations: Sequence[Iteration], of: Iteration) -> Iteration:
    """The first iteration of the chain that leads to one."""
    by_id, seen = {iteration.id: iteration for iteration in iterations}, {of.id}
    while of.parent in by_id and of.parent not in seen:
        of = by_id[of.parent]
        seen.add(of.id)
    return of
