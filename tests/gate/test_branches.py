"""Branches that add, judge, accept and merge iterations: no conflict, nothing lost, one baseline.

Random histories in real git repositories. The log is written as the tool writes it: records by
`ImprovementLog`, judgements by `Comparison.keep` against the commit at HEAD, acceptances by
`ftloop accept --baseline`. Only the trainings and the verdicts are made up.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from pytest_ftloop.cli import main
from pytest_ftloop.core.chain import next_number
from pytest_ftloop.core.git import Repository
from pytest_ftloop.core.records import Cost, HoldoutUse, Iteration, SeedRun
from pytest_ftloop.core.runs import runs_of
from pytest_ftloop.gate.baseline import Sought
from pytest_ftloop.gate.comparison import Comparison
from pytest_ftloop.gate.judgements import anchor_of, baseline_of, current_judgements
from pytest_ftloop.gate.search import find_baseline
from pytest_ftloop.gate.verdict import FAILING, Verdict
from pytest_ftloop.log import FOLDER, ImprovementLog, LogView
from pytest_ftloop.log.files import CommitFiles, below
from tests.fakes import fake_example, fake_iteration, fake_metrics, fake_steps
from tests.gitfakes import GitRepo, isolate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_ftloop.core.records import ExampleResult

METRIC = "eval_loss"
FOLDER_OF_LOOP = PurePosixPath(FOLDER, "topic")
BRANCHES = ("one", "two", "three")
CPU = {"device": "cpu", "torch": "2.13.0"}


# --- a branch, and what happens on it ----------------------------------------------------------


@dataclass(frozen=True)
class Branch:
    """A branch checked out in a worktree of its own; `crlf` as git for Windows does it."""

    repo: GitRepo
    crlf: bool = False

    @property
    def log(self) -> ImprovementLog:
        return ImprovementLog(self.repo.root / FOLDER_OF_LOOP)

    def commit(self) -> None:
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "--message", "work")

    def merge(self, other: str) -> None:
        """Fails, with what git says, where there is a conflict."""
        self._git("merge", "--quiet", "--no-ff", "--message", f"Merge {other}", other)

    def _git(self, *arguments: str) -> None:
        crlf = f"core.autocrlf={'true' if self.crlf else 'false'}"
        self.repo.git("-c", crlf, "-c", "maintenance.auto=false", *arguments)


class Step(Protocol):
    """One thing that a user does on a branch."""

    def do(self, branch: Branch) -> None: ...


@dataclass(frozen=True)
class Train:
    """Train some settings; the same ones on two branches differ in the cost, maybe in the loss."""

    recipe: int
    loss: float
    seconds: int
    parent: int

    def do(self, branch: Branch) -> None:
        known = branch.log.read()
        fingerprint = hashlib.sha256(f"recipe {self.recipe}".encode()).hexdigest()
        if fingerprint in {iteration.fingerprint for iteration in known}:
            return  # up to date
        draft = fake_iteration(
            next_number(known),
            id=fingerprint[:8],
            fingerprint=fingerprint,
            group=f"group {self.recipe}",
            parent=known[self.parent % len(known)].id if known else None,
            metrics=fake_metrics(self.loss),
            examples=rows(self.loss),
            steps=fake_steps([3.0, 2.0]),
            cost=Cost(seconds=self.seconds, steps=100, tokens=400),
            environment=CPU,
        )
        branch.log.append(replace(draft, loop="topic"))


@dataclass(frozen=True)
class TrainSeed:
    """Train one more seed of an iteration."""

    which: int
    seed: int
    loss: float

    def do(self, branch: Branch) -> None:
        if (iteration := nth(branch.log.read(), self.which)) is None:
            return
        if any(
            (run.iteration, run.seed) == (iteration.id, self.seed)
            for run in branch.log.view.seed_runs()
        ):
            return
        branch.log.append_seed_run(
            SeedRun(
                loop="topic",
                iteration=iteration.id,
                seed=self.seed,
                role="gate",
                fingerprint=hashlib.sha256(f"{iteration.id} {self.seed}".encode()).hexdigest(),
                group=iteration.group,
                scoring=iteration.scoring,
                data=iteration.data,
                metrics=fake_metrics(self.loss),
                environment=CPU,
                cost=iteration.cost,
                examples=rows(self.loss),
            )
        )


@dataclass(frozen=True)
class Judge:
    """The regression gate says something of an iteration."""

    which: int
    kind: str

    def do(self, branch: Branch) -> None:
        log = branch.log
        if (candidate := nth(log.read(), self.which)) is None:
            return
        sought = Sought(log.folder, branch.repo.root, log.read(), METRIC)
        baseline = find_baseline(sought, None, {})
        verdict = Verdict(
            kind=self.kind,  # type: ignore[arg-type]
            ok=self.kind not in FAILING,
            because=f"it is {self.kind}",
            candidate=candidate.name,
        )
        Comparison(log, candidate, baseline).keep(verdict)


@dataclass(frozen=True)
class Accept:
    """A user makes an iteration the baseline by hand."""

    which: int

    def do(self, branch: Branch) -> None:
        if (iteration := nth(branch.log.read(), self.which)) is not None:
            assert main(["accept", iteration.name, str(branch.log.folder), "--baseline"]) == 0


@dataclass(frozen=True)
class OpenHoldout:
    """The holdout is measured for an iteration."""

    which: int
    loss: float

    def do(self, branch: Branch) -> None:
        if (iteration := nth(branch.log.read(), self.which)) is None:
            return
        branch.log.append_holdout_use(
            HoldoutUse(
                loop="topic",
                iteration=iteration.id,
                fingerprint=iteration.fingerprint,
                scoring=iteration.scoring,
                data={"rows": 2},
                metrics=fake_metrics(self.loss),
                environment=CPU,
                examples=rows(self.loss),
            )
        )


def nth(iterations: Sequence[Iteration], number: int) -> Iteration | None:
    """The last iteration for 0, the one before it for 1, and so on around."""
    return iterations[-1 - number % len(iterations)] if iterations else None


def rows(loss: float) -> tuple[ExampleResult, ...]:
    """A table with line ends and quotes in its texts, which CRLF checkouts might spoil."""
    output = 'one\r\ntwo "three", four\n'
    return tuple(fake_example(id_, loss=4 * loss, output=output) for id_ in ("e1", "e2"))


# --- histories ---------------------------------------------------------------------------------

index = st.integers(0, 3)
losses = st.sampled_from([0.5, 1.0, 1.0 + 1e-6, 2.0, float("nan")])
passing = st.sampled_from(["improved", "unchanged", "not comparable"])
failing = st.sampled_from(["regressed", "inconclusive", "incomplete"])
trainings = st.builds(Train, st.integers(0, 5), losses, st.integers(1, 9), index)
judgements = st.builds(Judge, index, passing | failing) | st.builds(Accept, index)
steps = (
    trainings
    | judgements
    | st.builds(TrainSeed, index, st.integers(43, 44), losses)
    | st.builds(OpenHoldout, index, losses)
)
work = st.tuples(trainings, st.lists(steps, max_size=2), judgements).map(
    lambda drawn: [drawn[0], *drawn[1], drawn[2]]
)
branch = st.sampled_from(BRANCHES)


@dataclass(frozen=True)
class History:
    """Work on main, then on each branch that starts there; then more of it, and merges.

    `crlf` names the branch whose worktree has CRLF line ends; `orders` are those of merging all.
    """

    start: list[Step]
    first: tuple[list[Step], ...]
    then: list[tuple[str, list[Step] | str]]
    crlf: str
    orders: list[tuple[str, ...]]


histories = st.builds(
    History,
    start=st.just([]) | work,
    first=st.tuples(*(work for _ in BRANCHES)),
    then=st.lists(st.tuples(branch, work | branch), max_size=3),
    crlf=st.just("") | branch,
    orders=st.lists(st.permutations(BRANCHES).map(tuple), min_size=3, max_size=3, unique=True),
)


def played(history: History, root: Path) -> Branch:
    """The history as a repository, everything committed; main, in which the branches are."""
    repo = GitRepo.init(root / "main", "--template=")
    main_ = Branch(repo)
    for step in history.start:
        step.do(main_)
    main_.commit()
    branches = {}
    for name in BRANCHES:
        repo.git("worktree", "add", "--quiet", "-b", name, str(root / name))
        branches[name] = Branch(GitRepo((root / name).resolve()), crlf=name == history.crlf)
    parts = [*zip(BRANCHES, history.first, strict=True), *history.then]
    for name, part in parts:
        if isinstance(part, str):
            branches[name].merge(part)
            continue
        for step in part:
            step.do(branches[name])
        branches[name].commit()
    return main_


def blobs_of(repo: GitRepo, commit: str) -> dict[PurePosixPath, str]:
    return Repository(repo.root).files(commit)


def view_of(repo: GitRepo, blobs: dict[PurePosixPath, str]) -> LogView:
    inside = below(blobs, FOLDER_OF_LOOP)
    return LogView(CommitFiles(Repository(repo.root), "0" * 40, FOLDER_OF_LOOP, inside))


def everything_in(view: LogView) -> str:
    """All that a log says, in the order in which it says it; NaN is equal to NaN so."""
    kept: list[Any] = [
        *view.iterations(),
        *view.seed_runs(),
        *view.judgements(),
        *view.holdout_uses(),
    ]
    tables = [tuple(k.examples) for k in kept if hasattr(k, "examples")]
    return repr([[(k, k.tag) for k in kept], [getattr(k, "steps", ()) for k in kept], tables])


def current_in(view: LogView) -> tuple[str | None, ...]:
    """Names of the baseline, the anchor, the current judgements, and the baseline's runs."""
    iterations, judgements = view.iterations(), view.judgements()
    baseline = baseline_of(iterations, judgements, METRIC)
    anchor = anchor_of(iterations, judgements, METRIC)
    runs = runs_of(baseline, iterations, view.seed_runs()) if baseline else ()
    return (
        *(found and f"{found.name}-{found.tag}" for found in (baseline, anchor)),
        *(head.name for head in current_judgements(judgements)),
        *(run.tag for run in runs),
    )


# --- the tests ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """As on a developer's machine; and no waiting for the disk: nothing here has to survive."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch)
        patch.setattr(os, "fsync", lambda _: None)
        yield


@settings(max_examples=20, deadline=None)
@given(histories)
def test_branches_merge_in_any_order_to_one_log(history: History) -> None:
    """50 random histories: no conflict, nothing lost, the same baseline whatever the order."""
    with tempfile.TemporaryDirectory() as folder:
        main_ = played(history, Path(folder))
        repo = main_.repo
        files = {name: blobs_of(repo, name) for name in BRANCHES}
        union: dict[PurePosixPath, str] = {}
        for path, blob in (item for name in BRANCHES for item in files[name].items()):
            assert union.setdefault(path, blob) == blob, f"{path} differs"

        trees = set()
        for first, *following in history.orders:
            repo.switch(f"{first}^{{commit}}")
            for other in following:
                main_.merge(other)
            trees.add(repo.git("rev-parse", "HEAD^{tree}"))
        assert len(trees) == 1
        assert blobs_of(repo, repo.head) == union  # of every branch every file, as it was

        view = view_of(repo, union)
        said, current = everything_in(view), current_in(view)
        event(f"{len(current_judgements(view.judgements()))} current judgements")
        for name in BRANCHES:
            assert_holds(view, view_of(repo, files[name]))
        repo.git("-c", "core.autocrlf=true", "checkout-index", "--all", "--prefix=crlf/")
        for checkout in (repo.root, repo.root / "crlf"):
            there = ImprovementLog(checkout / FOLDER_OF_LOOP).view
            assert (everything_in(there), current_in(there)) == (said, current)
        assert all(b"\r\n" in path.read_bytes() for path in (repo.root / "crlf").rglob("*.yaml"))


def assert_holds(merged: LogView, branch: LogView) -> None:
    """The merged log has all that a branch's has; its judgements are current, or replaced."""
    for what in ("seed_runs", "judgements", "holdout_uses"):
        of_merge, of_branch = (
            {repr((k, k.tag)) for k in getattr(v, what)()} for v in (merged, branch)
        )
        assert of_branch <= of_merge
    fingerprints = {iteration.fingerprint for iteration in merged.iterations()}
    assert {iteration.fingerprint for iteration in branch.iterations()} <= fingerprints
    standing = {head.name for head in current_judgements(merged.judgements())}
    replaced = {name for j in merged.judgements() if j.passed for name in j.over}
    assert {head.name for head in current_judgements(branch.judgements())} <= standing | replaced
