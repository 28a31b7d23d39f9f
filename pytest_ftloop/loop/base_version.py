"""What the loop file at the baseline's commit says: which version that commit really has.

A commit's log may hold nothing of its loop file's settings or data, where a change was merged
without its log. Then the log's baseline is older than what the commit has, and a candidate that is
better than the one may be worse than the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.edit import changes
from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.core.git import GitError, Repository
from pytest_ftloop.core.neutral import NEUTRAL
from pytest_ftloop.data import examples as data
from pytest_ftloop.gate.loop_at import loop_at
from pytest_ftloop.gate.verdict import NOT_LOGGED
from pytest_ftloop.log import FOLDER

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import DataSet, Iteration, Settings
    from pytest_ftloop.gate.baseline import Baseline
    from pytest_ftloop.loop.inputs import Inputs

_ROLES = ("train", "eval")
_LARGEST_DATA = 32 * 2**20
"""Bytes of a data file that are read from git to learn whether its version was logged: a second."""


@dataclass(frozen=True)
class _Version:
    """What a loop file states, in a form that can be compared with a record of the log.

    `data` are the hashes of the rows by role; a missing one is not known and not compared.
    """

    settings: Settings
    model: str
    scoring: str
    data: Mapping[str, str]

    def differences(self, other: _Version) -> Iterator[str]:
        """`learning_rate 0.0016 (not 0.001)`, or what else differs from the other version."""
        for setting, theirs, ours in changes(other.settings, self.settings):
            if setting.partition(".")[2] not in NEUTRAL:
                yield f"{setting} {_stated(ours)} (not {_stated(theirs)})"
        models = {self.model, other.model}
        # A folder that is absent here looks like a hub id.
        if len(models) > 1 and ("folder" not in models or models & {"tiny", "live"}):
            yield "another model"
        if self.scoring != other.scoring:
            yield "another scoring"
        for role in _ROLES:
            known = {self.data.get(role, ""), other.data.get(role, "")} - {""}
            if len(known) > 1:
                yield f"other {role} data"

    def is_same(self, other: _Version) -> bool:
        """Whether nothing known differs."""
        return next(self.differences(other), None) is None


def with_base_version(
    config: LoopConfig,
    inputs: Inputs,
    baseline: Baseline,
    candidate: Iteration,
    logged: Sequence[Iteration],
) -> Baseline:
    """The baseline, with what the loop file at its commit says of it.

    `logged` are the iterations of the candidate's log: one of them may be the commit's version,
    trained by `--ftloop-retrain-baseline`.
    """
    if baseline.is_working or not baseline.commit or not config.lines:
        return baseline
    try:
        repository = Repository.containing(config.folder)
        path = repository.relative(config.file)
        text = repository.texts(baseline.commit, [path]).get(path)
        base = loop_at(repository, baseline, path, text)
    except GitError:  # the log has a repository of its own, whose commits hold no loop file
        return baseline
    except FtloopError as error:
        first = error.message.partition("\n")[0]
        note = f"the loop file at {baseline.shown} can't be read, so it is not compared: {first}"
        return replace(baseline, context=(note, *baseline.context))
    base = base and replace(base, folder=config.folder)
    if base is None or _is_another_loop(repository, baseline, base, config):
        return baseline
    theirs = _version(base, _data_at(repository, baseline.commit, base, config, inputs))
    found = _described(baseline, theirs, _version(config, _hashes(inputs)), candidate, logged)
    # Where nothing states the base it may be the last commit, which is the change itself.
    return replace(found, has_candidate=False) if baseline.commit == _head(repository) else found


def _is_another_loop(
    repository: Repository, baseline: Baseline, base: LoopConfig, config: LoopConfig
) -> bool:
    """Whether the file had another name and log at the commit, which this loop does not continue.

    That log is missed by itself.
    """
    if baseline.folder is not None or base.name == config.name:
        return False
    return bool(repository.files(baseline.commit, config.folder / FOLDER / base.name))


def _head(repository: Repository) -> str | None:
    return repository.query("rev-parse", "--verify", "--quiet", "HEAD")


def _described(
    baseline: Baseline,
    theirs: _Version,
    ours: _Version,
    candidate: Iteration,
    logged: Sequence[Iteration],
) -> Baseline:
    view, shown = baseline.view, baseline.shown
    in_base = view.iterations() if view else ()
    is_ours = theirs.is_same(ours)
    if any(theirs.is_same(_of_record(iteration)) for iteration in in_base):
        has_it = is_ours and any(_is_same(iteration, candidate) for iteration in in_base)
        return replace(baseline, has_candidate=has_it)
    if is_ours:
        if not in_base:
            return baseline  # the first version, whose log is added
        note = f"{shown} has these settings and data already, but not their log: this adds it"
        return replace(baseline, context=(note, *baseline.context))
    standing = baseline.iteration
    if standing is None:
        note = f"the loop file at {shown} is another version ({_list(theirs, ours)}), which has no "
        note += "log, so this is not compared with it"
        return replace(baseline, context=(note, *baseline.context))
    differing = _list(theirs, _of_record(standing))
    if trained := next((i for i in logged if theirs.is_same(_of_record(i))), None):
        note = f"{shown} has {differing} without a log; compared with {trained.name}, which is its "
        note += "version, trained for this comparison"
        return replace(baseline, iteration=trained, newest=None, context=(note, *baseline.context))
    if baseline.is_version(candidate):
        note = f"the loop file at {shown} has {differing}, {NOT_LOGGED}, so this is not compared "
        note += "with it"
        return replace(baseline, context=(note, *baseline.context))
    return replace(baseline, unlogged=f"the loop file at {shown} has {differing}, {NOT_LOGGED}")


def _version(config: LoopConfig, hashes: Mapping[str, str]) -> _Version:
    model = config.model if isinstance(config.model, str) else "live"
    if model != "tiny":
        model = "folder" if (config.folder / model).is_dir() else f"hub:{model}"
    stated = _scoring(asdict(config.scoring))
    return _Version(config.settings, model, stated, hashes)


def _of_record(iteration: Iteration) -> _Version:
    # The recipe of `tiny`, and what a folder holds, are no part of the loop file.
    kind = iteration.model.partition(":")[0]
    model = kind if kind in {"tiny", "folder", "live"} else iteration.model
    hashes = {role: str(iteration.data.get(role, {}).get("sha256", ""))[:16] for role in _ROLES}
    return _Version(iteration.settings, model, _scoring(iteration.scoring), hashes)


def _scoring(stated: Mapping[str, Any]) -> str:
    """The scoring's own keys that are not the defaults: records have hashes of code beside them."""
    plain = asdict(Scoring(str(stated.get("scorer"))))
    names = [field.name for field in fields(Scoring)]
    own = {name: stated.get(name, plain[name]) for name in names}
    return json.dumps(own, sort_keys=True, default=str)


def _hashes(inputs: Inputs) -> dict[str, str]:
    return {"train": inputs.train.sha256[:16], "eval": inputs.eval.sha256[:16]}


def _data_at(
    repository: Repository, commit: str, base: LoopConfig, config: LoopConfig, inputs: Inputs
) -> Mapping[str, str]:
    """The hashes of a commit's data sets, as far as git holds them.

    Files that are the same as now are not read.
    """
    try:
        files = {
            source: repository.relative(base.folder / source)
            for source in (base.train, base.eval)
            if isinstance(source, str) and (base.folder / source).suffix
        }
    except GitError:  # outside the repository
        return {}
    found = repository.blobs(commit, files.values())
    if not files or not found.keys() >= set(files.values()):
        return {}  # not in git
    same_keys = all(
        getattr(base, key) == getattr(config, key) for key in ("train", "eval", "split", "columns")
    )
    with suppress(GitError):  # such as a filter that fails: then the files of the commit are read
        if same_keys and not repository.differs(commit, files.values()):
            return _hashes(inputs)
    return _read_at(repository, base, {source: found[path] for source, path in files.items()})


def _read_at(
    repository: Repository, base: LoopConfig, blobs: Mapping[str, str]
) -> Mapping[str, str]:
    sizes = [int(repository.query("cat-file", "-s", blob) or 0) for blob in blobs.values()]
    if sum(sizes) > _LARGEST_DATA:
        return {}
    contents = dict(zip(blobs, repository.read(list(blobs.values())), strict=True))

    def loaded(source: str, role: str) -> DataSet:
        return data.load_content(contents[source], Path(source).name, role, base.columns)

    try:
        train = loaded(base.train, "train")
        if base.split is not None:
            train, eval_ = data.split_off(train, base.split.fraction, base.split.seed)
        else:
            eval_ = loaded(base.eval, "eval")
    except FtloopError:  # such as a pointer of git-lfs: then its version is not known
        return {}
    return {"train": train.sha256[:16], "eval": eval_.sha256[:16]}


def _is_same(iteration: Iteration, candidate: Iteration) -> bool:
    return (iteration.fingerprint, iteration.metrics) == (
        candidate.fingerprint,
        candidate.metrics,
    )


def _list(version: _Version, other: _Version) -> str:
    found = list(version.differences(other))
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more


def _stated(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, default=str)
