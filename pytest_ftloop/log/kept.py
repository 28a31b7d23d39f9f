"""What earlier runs trained, kept outside of the log: restored where it would be trained again.

    <records folder>/<fingerprint>/<context>/    the record and its table, as they are in a log;
                                                 with the judge's answers that the log then had

Likewise what the untrained base gave, by a fingerprint of its own.

That is for CI, where a log is trained and not committed. What is restored is what was logged then,
byte for byte but for the number, as if it had been committed: its decision and findings too. Only
where FTLOOP_RECORDS names the folder, so that whoever deletes a log to train afresh does train.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_ftloop.core.errors import FtloopError, shown_path
from pytest_ftloop.core.files import replacing, write_atomically
from pytest_ftloop.core.leftovers import is_leftover
from pytest_ftloop.core.neutral import NEUTRAL
from pytest_ftloop.core.records import Adjustment, Iteration, SeedRun, Settings, Untrained
from pytest_ftloop.core.runs import Measured, decisive, environment_changes
from pytest_ftloop.log import ImprovementLog, as_logged
from pytest_ftloop.log.answers import answer_files, copy_answers, read_answers
from pytest_ftloop.log.files import FolderFiles, damaged

Kept = Measured | Untrained
"""What is kept: a training and its figures, or those of the untrained base."""


def _unknown(_: Settings) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Store:
    """The records that are kept; with `folder` None there are none, and none are added.

    `environment` says what a training with these settings would be recorded with here; it is asked
    once something is found, for it may have to import torch. Where `restores` is False records are
    kept, but none is found. `notes` is what the user is to be told, in order.
    """

    folder: Path | None = None
    environment: Callable[[Settings], Mapping[str, str]] = _unknown
    restores: bool = True
    notes: list[str] = field(default_factory=list)

    def iteration(
        self,
        fingerprint: str,
        settings: Settings,
        loop: str,
        parent: str | None,
        adjustments: Sequence[Adjustment],
    ) -> Iteration | None:
        """The iteration with this fingerprint, trained in this environment and for this place.

        Its number is that of the log that it was written for.
        """

        def fits(kept: Kept) -> bool:
            if not isinstance(kept, Iteration) or (kept.loop, kept.parent) != (loop, parent):
                return False
            asked = replace(kept, adjustments=tuple(adjustments), settings=settings)
            planned = as_logged(asked)
            # The fingerprint is only what the record says: its settings must be those asked for.
            same = _that_count(planned.settings) == _that_count(kept.settings)
            return same and planned.adjustments == kept.adjustments

        found = self._find(fingerprint, settings, fits)
        return found if isinstance(found, Iteration) else None

    def seed_run(
        self, fingerprint: str, settings: Settings, iteration: Iteration, seed: int
    ) -> SeedRun | None:
        """The run of an iteration with this seed, trained in this environment."""
        wanted = (iteration.loop, iteration.id, seed)

        def fits(kept: Kept) -> bool:
            return isinstance(kept, SeedRun) and (kept.loop, kept.iteration, kept.seed) == wanted

        found = self._find(fingerprint, settings, fits)
        if not isinstance(found, SeedRun):
            return None
        self.notes.append(f"seed {seed} of {iteration.name} was restored, not trained")
        return found

    def base(self, fingerprint: str, settings: Settings, loop: str) -> Untrained | None:
        """The untrained base with this fingerprint, measured in this environment.

        No note says why one does not fit: the note on the iteration beside it does.
        """

        def fits(kept: Kept) -> bool:
            return isinstance(kept, Untrained) and kept.loop == loop

        found = self._find(fingerprint, settings, fits, is_told=False)
        return found if isinstance(found, Untrained) else None

    def restore_answers(self, run: Measured, log: ImprovementLog) -> bool:
        """Give a log the judge's answers that were kept with a run; whether it lacked any.

        Raises `LogError` where they can't be written.
        """
        return self.folder is not None and copy_answers(self._place(run), log.folder) > 0

    def may_have(self, fingerprint: str) -> bool:
        """Whether it has anything of this fingerprint, which may still not fit."""
        return bool(self._folders(fingerprint, is_told=False))

    def keep(self, run: Kept, log: ImprovementLog) -> None:
        """Copy what was just measured from its log, in place of what was kept of it before.

        A failure is only noted, since the log has the record. One with the base is not, since the
        iteration that it is measured with fails in the same way.
        """
        if self.folder is None:
            return
        is_base = isinstance(run, Untrained)
        folder, files = self._place(run), log.files(run)
        try:
            _copy(files if is_base else (*files, *answer_files(log.folder)), log.folder, folder)
        except OSError as error:
            if is_base:
                return
            self.notes.append(
                f"{_name(run)} is in the log, but could not be kept for later runs: "
                f"{shown_path(folder)}: {error.strerror}"
            )

    def _place(self, run: Kept) -> Path:
        assert self.folder is not None
        return self.folder / run.fingerprint / _context(run)

    def _find(
        self,
        fingerprint: str,
        settings: Settings,
        fits: Callable[[Kept], bool],
        *,
        is_told: bool = True,
    ) -> Kept | None:
        """A record that is kept, sound and fits; `is_told`: a note says why one does not fit."""
        elsewhere = ""
        for folder in self._folders(fingerprint, is_told=is_told):
            try:
                found = [run for run in _sound(folder, fingerprint) if fits(run)]
            except Exception as error:  # noqa: BLE001 - whatever is wrong, training takes its place
                self._ignore(folder, error)
                continue
            for run in found:
                changed = environment_changes(run.environment, self.environment(settings))
                if not changed:
                    return run
                elsewhere = f"{_name(run)} was not restored: environment changed"
                elsewhere += f" ({', '.join(changed)})"
        if elsewhere and is_told:
            self.notes.append(elsewhere)
        return None

    def _folders(self, fingerprint: str, *, is_told: bool) -> Sequence[Path]:
        if self.folder is None or not self.restores:
            return ()
        folder = self.folder / fingerprint
        try:
            found = sorted(path for path in folder.iterdir() if path.is_dir())
            return [path for path in found if not is_leftover(path.name)]
        except FileNotFoundError:
            return ()
        except OSError as error:
            if is_told:
                self._ignore(folder, error)
            return ()

    def _ignore(self, folder: Path, error: Exception) -> None:
        # Without the cure, which is for a log under version control.
        if isinstance(error, FtloopError):
            said = f"{error.where}: {error.message}" if error.where else error.message
        else:
            said = f"{shown_path(folder)}: {getattr(error, 'strerror', None) or error}"
        self.notes.append(f"a kept record was ignored: {said}")


def _that_count(settings: Settings) -> Settings:
    """Settings without those that change no figure, which may differ."""
    counted = {name: v for name, v in settings.training.items() if name not in NEUTRAL}
    return Settings(lora=dict(settings.lora), training=counted)


def _sound(folder: Path, fingerprint: str) -> Iterator[Kept]:
    """The records in a folder. A `LogError` for one that is not what was written."""
    log = ImprovementLog(folder)
    view = log.view
    found: list[Kept] = [*view.iterations(), *view.seed_runs(), *view.bases()]
    read_answers(FolderFiles(folder))
    for run in found:
        record, *_ = log.files(run)
        if run.fingerprint != fingerprint:
            raise damaged(shown_path(record), f"it says it is {run.fingerprint}")
        log.verify(run)
        yield run


def _copy(files: Sequence[Path], log: Path, folder: Path) -> None:
    """Have a folder hold these files of a log, and no other ones."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as making:
        for file in files:
            copy = making / file.relative_to(log)
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(copy, file.read_bytes())


def _context(run: Kept) -> str:
    """A name for what has to fit beside the fingerprint: one record of each is kept."""
    match run:
        case Iteration():
            place: object = run.parent
        case SeedRun():
            place = [run.iteration, run.seed]
        case Untrained():
            place = None
    stated = [type(run).__name__, run.loop, place, decisive(run.environment)]
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:16]


def _name(run: Kept) -> str:
    match run:
        case Iteration():
            return run.name
        case SeedRun():
            return f"seed {run.seed} of {run.iteration}"
        case Untrained():
            return "the untrained base"
