"""Export an iteration's adapter from the cache as a standard PEFT folder, whole or not at all.

Files are copied, so it works without torch. Only merged weights need torch.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.cache import (
    adapter_at_hand,
    adapter_config,
    adapter_place,
    cache_folder,
    sweep_cache,
    why_no_adapter,
)
from pytest_ftloop.core.errors import ConfigError, FtloopError, Location, shown_path
from pytest_ftloop.core.files import plain_files, replacing
from pytest_ftloop.core.leftovers import sweep
from pytest_ftloop.core.records import MOST_BYTES_OF_NAME
from pytest_ftloop.core.sums import SUMS, damaged_file
from pytest_ftloop.train.trained_on import BaseModel, base_model

if TYPE_CHECKING:
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.core.records import Iteration


Card = Callable[[BaseModel, bool], str]
"""Makes the model card's text from the base model and whether the tokenizer is exported too."""

CONFIG, CARD, MERGED = "adapter_config.json", "README.md", "merged"

TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.jinja",
    "additional_chat_templates",
)
"""Patterns for the files of a tokenizer. `tokenizer*` includes the model of sentencepiece."""

WRITTEN = (CONFIG, "adapter_model*", CARD, MERGED, *TOKENIZER)
"""Patterns for the files of an export. A folder with any other file is never replaced."""


@dataclass(frozen=True)
class Exported:
    """The folder that was written, and notes about it for the user."""

    folder: Path
    notes: tuple[str, ...]


def export(
    iteration: Iteration,
    folder: Path,
    progress: Progress,
    *,
    card: Card,
    loop_folder: Path | None = None,
    how_to_make: Callable[[], str] = lambda: "",
    merged: bool = False,
    trusts_code: bool = False,
    force: bool = False,
) -> Exported:
    """Write the adapter, its tokenizer and a model card; with `merged` also the merged model.

    `card` makes the text of the model card. `loop_folder` is the path of the model if the loop file
    names a folder. `how_to_make` gives the command that trains the adapter here. `trusts_code`:
    merging may run code of the model's repository, as the loop file says, not the record. Raises
    `FtloopError` if the adapter is not in this machine's cache, or if `folder` exists; `force`
    replaces it if it is an export.
    """
    sweep_cache()
    adapter = _cached(iteration, how_to_make)
    folder = Path(os.path.realpath(folder))
    sweep(folder.parent, folder.name)  # an export that was killed as it took another's place
    _check_target(folder, force)
    config = adapter_config(adapter) or {}
    trained_on = str(config.get("base_model_name_or_path") or "")
    base = base_model(iteration.model, trained_on, loop_folder)
    if merged and base.problem:
        raise ConfigError(f"the adapter can't be merged: {base.problem}")
    with _written_whole(folder) as making:
        for file in plain_files(adapter):
            if file.name == SUMS:  # of the cache: the config changes
                continue
            copy = making / file.relative_to(adapter)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy, follow_symlinks=False)
        config |= {"base_model_name_or_path": base.name, "revision": base.revision}
        _write(making / CONFIG, json.dumps(config, indent=2, sort_keys=True))
        tokenizer = _add_tokenizer(making, base)
        if merged:
            _merge(making, base, iteration, progress, trusts_code=trusts_code)
        _write(making / CARD, card(base, tokenizer))
    notes = [] if base.hub_id else [f"base model: {base.description}"]
    if (iteration.settings.training.get("model_init_kwargs") or {}).get("quantization_config"):
        notes.append(
            "quantisation: the adapter was trained on a quantised base; load the base with the "
            "quantization_config of the card's settings"
        )
    if not tokenizer:
        notes.append("tokenizer: not exported, use the base model's own")
    return Exported(folder, (*notes, *filter(None, [base.problem])))


def _cached(iteration: Iteration, how_to_make: Callable[[], str]) -> Path:
    """The adapter's folder in the cache. peft writes its config last, so with it all is there."""
    if (place := adapter_place(iteration)).exists():
        plain_files(place)
    if folder := adapter_at_hand(iteration):
        if damaged := damaged_file(folder):
            raise FtloopError(
                f"the adapter of iteration {iteration.name} is damaged: {damaged} in this "
                "machine's cache is not what was written",
                where=Location(shown_path(folder / damaged)),
                cure=how_to_make(),
            )
        return folder
    if iteration.facts.get("best_step") == 0:
        raise FtloopError(
            f"iteration {iteration.name} has no adapter: none of its eval losses was finite",
            cure="Export another iteration: ftloop log lists them.",
        )
    raise FtloopError(
        f"iteration {iteration.name} can't be exported: {why_no_adapter(iteration)} "
        f"({shown_path(cache_folder())})",
        cure=how_to_make(),
    )


def _check_target(folder: Path, force: bool) -> None:
    """Raise `ConfigError` unless the folder is new, empty, or an export to replace by `force`."""
    where = Location(shown_path(folder))
    if len(os.fsencode(folder.name)) > MOST_BYTES_OF_NAME:
        raise ConfigError(f"its name is longer than {MOST_BYTES_OF_NAME} bytes", where=where)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError("wanted a folder to write into, found a file", where=where)
    found = sorted(path.name for path in folder.iterdir())
    if not found:
        return
    if not force:
        raise ConfigError(
            "exists already", where=where, cure="Name another with -o FOLDER, or add --force."
        )
    foreign = [name for name in found if not any(fnmatch(name, known) for known in WRITTEN)]
    if foreign or CONFIG not in found:
        why = f"it contains {foreign[0]}" if foreign else f"{CONFIG} is missing"
        raise ConfigError(
            f"is not replaced: {why}, so it is not only an export",
            where=where,
            cure="Name another folder with -o FOLDER.",
        )


@contextmanager
def _written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write to. At the end it replaces `folder`; on an error it is removed."""
    try:
        with replacing(folder) as making:
            making.mkdir(parents=True)
            yield making
    except OSError as error:
        raise FtloopError(
            f"can't be written: {error.strerror or error}", where=Location(shown_path(folder))
        ) from error


def _add_tokenizer(making: Path, base: BaseModel) -> bool:
    """Whether the export has a tokenizer. If the cache lacks it, copy the base model's."""
    if not (making / "tokenizer_config.json").is_file() and not base.problem:
        for file in sorted(Path(base.name).iterdir()) if Path(base.name).is_dir() else ():
            if file.is_file() and any(fnmatch(file.name, known) for known in TOKENIZER):
                shutil.copyfile(file, making / file.name)
    return (making / "tokenizer_config.json").is_file()


def _merge(
    making: Path, base: BaseModel, iteration: Iteration, progress: Progress, *, trusts_code: bool
) -> None:
    progress.working("loading torch and the base model")
    try:
        from pytest_ftloop.train.merge import merge
    except ImportError as error:
        raise FtloopError(
            f"merging needs the training extra: {error.name or error} is not installed",
            cure='pip install "pytest-ftloop[train]", or omit --merged.',
        ) from None
    try:
        merge(making, making / MERGED, base, iteration.settings, trusts_code=trusts_code)
    finally:
        progress.done()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
