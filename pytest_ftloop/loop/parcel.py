"""A spec with all files that its worker reads, by content, for a machine that shares no disk.

Files that the loop file names by a relative path are sent: data, a model's or tokenizer's folder,
chat template, the code that it names with the local modules that this imports, and what `loop.ship`
lists. An absolute path is taken as it is there, on storage that the machines share. What else the
worker finds, or does not, shows in its fingerprint of the training.

Nothing of the environment is sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.config.run_on import FUNCTION
from pytest_ftloop.config.sources import sources_in
from pytest_ftloop.core.bounds import read_json
from pytest_ftloop.core.cache import adapter_hash, cache_folder
from pytest_ftloop.core.files import plain_files, real
from pytest_ftloop.core.recipe import recipe_id
from pytest_ftloop.core.sources import function_files
from pytest_ftloop.data.identity import model_path
from pytest_ftloop.loop.executor import EngineError
from pytest_ftloop.loop.spec import BEFORE, SPEC, read_run, read_spec

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.loop.spec import Spec


@dataclass(frozen=True)
class Parcel:
    """What is sent for one spec.

    `files` are the loop's files, by their absolute path without its root; `cache` is what is needed
    of the cache, by the path in it; `beside` is what lies beside the spec. Each maps to the hash of
    its content; `contents` says where that is. `repository` is the folder that local imports are
    looked for up to, `working` the working folder, and `modules` are the folders on Python's path
    that files are sent of.
    """

    spec: str
    loop_file: str
    files: Mapping[str, str]
    cache: Mapping[str, str]
    beside: Mapping[str, str]
    repository: str
    working: str
    modules: tuple[str, ...]
    contents: Mapping[str, Path] = field(compare=False, repr=False)

    @property
    def tree(self) -> str:
        """The name of the folder for the files that all specs of a loop share."""
        shared = [dict(self.files), dict(self.cache), self.repository, self.working]
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:32]

    def as_text(self) -> str:
        """All but the contents, as JSON."""
        stated = asdict(self)
        del stated["contents"]
        return json.dumps(stated, sort_keys=True)

    @classmethod
    def of_text(cls, text: str) -> Parcel:
        """What `as_text` wrote; the contents came by themselves."""
        stated = read_json(text)
        return cls(**{**stated, "modules": tuple(stated["modules"])}, contents={})


class Packer:
    """Packs the specs of one loop. A file that does not change is read once."""

    def __init__(self) -> None:
        self._digests: dict[tuple[str, int, int, int], str] = {}

    def pack(self, file: Path) -> Parcel:
        """The parcel of a spec. Raises `EngineError` if a file of `loop.ship` is missing."""
        spec = read_spec(file)
        config = read_loop_file(Path(spec.loop_file))
        code = frozenset(_code(config))
        files = {*_files(config, spec), *code, config.file.absolute()}
        contents: dict[str, Path] = {}

        def digests(named: Mapping[str, Path]) -> dict[str, str]:
            found = {name: self._digest(path) for name, path in sorted(named.items())}
            contents.update({found[name]: path for name, path in named.items()})
            return found

        return Parcel(
            spec=file.parent.name,
            loop_file=_below_root(config.file),
            files=digests({_below_root(path): path for path in files}),
            cache=digests(_of_cache(config)),
            beside=digests({SPEC: file, **_beside(spec, file.parent)}),
            repository=_below_root(_repository(config.folder)),
            working=_below_root(Path.cwd()),
            modules=tuple(_folders_of(code)),
            contents=contents,
        )

    def _digest(self, path: Path) -> str:
        about = path.stat()
        key = (str(path), about.st_size, about.st_mtime_ns, about.st_ino)
        if key not in self._digests:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            self._digests[key] = digest.hexdigest()
        return self._digests[key]


def _below_root(path: Path) -> str:
    """An absolute path without its root, so that it can be put below another folder."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - a link's own name is what is stated
    return absolute.relative_to(absolute.anchor).as_posix()


def _files(config: LoopConfig, spec: Spec) -> Iterator[Path]:
    """The files that the loop file names by relative paths, besides code."""
    for text in _named(config, spec):
        path = model_path(text, config.folder)
        if not Path(os.path.expanduser(text)).is_absolute():  # noqa: PTH111 - as in model_path
            yield from _plain(path)
    for text in config.loop.ship:
        if Path(text).is_absolute() or not (config.folder / text).exists():
            raise EngineError(
                f"loop.ship: wanted files and folders by paths from the loop file's folder, found "
                f"{text!r}, which is {'absolute' if Path(text).is_absolute() else 'missing'}",
                where=config.locate("loop.ship"),
                cure="An absolute path is read on each machine as it is, and need not be sent."
                if Path(text).is_absolute()
                else f"Looked for {config.folder / text}.",
            )
        yield from _plain(config.folder / text)


def _named(config: LoopConfig, spec: Spec) -> Iterator[str]:
    """What may be the path of a file or folder; else it is a hub id, or a function."""
    sources = [config.train, config.eval, *(guard.source for guard in config.guards)]
    if spec.asks == "measure":
        sources.append(config.holdout)
    for source in (part for stated in sources for part in sources_in(stated)):
        text = source["hub"] if isinstance(source, Mapping) else source
        if isinstance(text, str | Path):
            yield str(text)
    yield from shlex.split(config.loop.launcher or "")  # a configuration of accelerate, say
    tokenizer = getattr(config.tokenizer, "name", None)
    template = config.settings.training.get("chat_template_path")
    yield from (name for name in (config.model, tokenizer, template) if isinstance(name, str))


def _plain(path: Path) -> Iterator[Path]:
    """A file, or the files of a folder, without hidden ones and the checkpoints of a training."""
    if path.is_file():
        yield path
    for parent, folders, files in os.walk(path):
        skipped = (".", "checkpoint-", "__pycache__")
        folders[:] = sorted(name for name in folders if not name.startswith(skipped))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _code(config: LoopConfig) -> Iterator[Path]:
    """The source files of the functions that a training of the loop calls."""
    named: list[Any] = [config.scoring.scorer, *config.metrics.values()]
    named += [guard.scoring.scorer for guard in config.guards if guard.scoring]
    for stated in (config.train, config.eval, config.holdout, *(g.source for g in config.guards)):
        named += sources_in(stated)
    for name in named:
        if isinstance(name, str) and FUNCTION.fullmatch(name):
            for path in function_files(name.partition(":")[0], config.folder):
                yield Path(os.path.abspath(path))  # noqa: PTH100 - as in _below_root
                if path.is_relative_to(place := real(config.folder)):  # the folder is a link
                    yield config.folder.absolute() / path.relative_to(place)


def _folders_of(code: frozenset[Path]) -> Iterator[str]:
    """The folders of Python's path that code is sent from, in their order there."""
    above = {parent for file in code for parent in file.parents}
    for entry in dict.fromkeys(sys.path):
        place = Path(os.path.abspath(entry))  # noqa: PTH100 - as in _below_root
        if entry and place in above:
            yield _below_root(place)


def _repository(folder: Path) -> Path:
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100 - as in _below_root
    places = (absolute, *absolute.parents)
    return next((place for place in places if (place / ".git").exists()), Path(absolute.anchor))


def _of_cache(config: LoopConfig) -> dict[str, Path]:
    """The embedded base, as it was built here: elsewhere its weights may differ in the last bit."""
    if config.model != "tiny":
        return {}
    folder = cache_folder() / "tiny" / recipe_id()
    if not (folder / "config.json").is_file():
        return {}
    return {p.relative_to(cache_folder()).as_posix(): p for p in plain_files(folder)}


def _beside(spec: Spec, folder: Path) -> dict[str, Path]:
    """The adapters that the worker needs, and the run of an earlier process with its adapter."""
    found: dict[str, Path] = {}
    if start := spec.start.get("folder"):
        found |= _adapter("start", Path(start))
    run = None if spec.afresh else read_run(folder / BEFORE)
    saved = Path(spec.adapter)
    if spec.asks in ("measure", "measure_missing"):
        found |= _adapter("adapter", saved)
    elif run is not None and (not run.adapter or run.adapter == adapter_hash(saved)):
        found |= {BEFORE: folder / BEFORE}
        found |= _adapter("adapter", saved) if run.adapter else {}
    return found


def _adapter(name: str, folder: Path) -> dict[str, Path]:
    return {f"{name}/{p.relative_to(folder).as_posix()}": p for p in plain_files(folder)}
