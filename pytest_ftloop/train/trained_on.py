"""The base model that an adapter was trained on, found by its logged identity. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.errors import shown_path
from pytest_ftloop.data.identity import model_identity, split_revision


@dataclass(frozen=True)
class BaseModel:
    """The base model that an adapter was trained on, as `from_pretrained` finds it.

    `said` is what the card calls it. `problem` is empty, or why it can't be found from here.
    """

    name: str
    said: str
    revision: str | None = None
    hub_id: str | None = None
    problem: str = ""


def base_model(model: str, trained_on: str, loop_folder: Path | None) -> BaseModel:
    """Where the base model with the identity `model` is.

    `trained_on` is what peft noted when the adapter was saved, `loop_folder` the folder that the
    loop file names as its model, if it names one.
    """
    kind, _, identity = model.partition(":")
    if kind == "hub":
        name, revision = split_revision(identity)
        at = f" at revision {revision}" if revision else ""
        return BaseModel(name, f"{name}{at}, on the hub.", revision, hub_id=name)
    if kind == "tiny":
        return _tiny(identity)
    if kind == "folder":
        return _folder(identity, trained_on, loop_folder)
    return BaseModel(
        trained_on,
        "a model that was loaded in Python; adapter_config.json has the name it had there.",
        problem=f"the base model was a live object in Python, {trained_on or 'without a name'}: "
        "nothing says where it can be loaded from",
    )


def _tiny(recipe: str) -> BaseModel:
    folder = (cache_folder() / "tiny" / recipe).absolute()
    said = (
        f"the embedded model of pytest-ftloop, recipe {recipe}, which each machine builds for "
        "itself. adapter_config.json names its folder on the machine that exported this; elsewhere "
        "it is another."
    )
    there = (folder / "config.json").is_file()
    return BaseModel(
        str(folder),
        said,
        problem="" if there else f"the embedded model is not in this machine's cache ({folder})",
    )


def _folder(identity: str, trained_on: str, loop_folder: Path | None) -> BaseModel:
    """The first of the loop file's and peft's folders that holds the weights trained on."""
    candidates = [Path(trained_on)] if trained_on else []
    if loop_folder is not None:
        candidates.insert(0, loop_folder)
    said = (
        "a folder of the machine that exported this, by which adapter_config.json names it; its "
        f"identity (a hash of its files) is {identity}."
    )
    for path in candidates:
        if path.is_dir() and model_identity(str(path.absolute()), Path()) == f"folder:{identity}":
            return BaseModel(str(path.resolve()), said)
    return BaseModel(
        str(Path(trained_on).absolute()),
        said,
        problem="the folder of the base model that it was trained on is not here any more, or "
        f"has changed ({shown_path(candidates[0]) if candidates else 'unknown'})",
    )
