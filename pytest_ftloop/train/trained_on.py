"""Find the base model that an adapter was trained on, by its logged identity, without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.errors import shown_path
from pytest_ftloop.core.files import real
from pytest_ftloop.core.sums import damaged_file
from pytest_ftloop.data.identity import model_identity, split_revision

_HUB_ID = r"\w[\w.-]*(/\w[\w.-]*)?"
"""A model on the hub: one or two words, which never lead out of a folder."""


@dataclass(frozen=True)
class BaseModel:
    """The base model that an adapter was trained on, by the `name` that `from_pretrained` takes.

    `description` describes it in a sentence for the model card. `problem` is the reason why it
    can't be loaded on this machine, or empty.
    """

    name: str
    description: str
    revision: str | None = None
    hub_id: str | None = None
    problem: str = ""


def base_model(model: str, trained_on: str, loop_folder: Path | None) -> BaseModel:
    """Find the base model with the logged identity `model`.

    `trained_on` is the name that peft saved with the adapter. `loop_folder` is the path of the
    model if the loop file names a folder.
    """
    kind, _, identity = model.partition(":")
    if kind == "hub":
        name, revision = split_revision(identity)
        if not re.fullmatch(_HUB_ID, name):
            return BaseModel(name, f"{name}, which is no hub id.", problem=f"{name} is no hub id")
        at = f" at revision {revision}" if revision else ""
        return BaseModel(name, f"{name}{at}, on the hub.", revision, hub_id=name)
    if kind == "tiny":
        return _tiny(identity)
    if kind == "folder":
        return _folder(identity, trained_on, loop_folder)
    return BaseModel(
        trained_on,
        "a model that was loaded in Python; adapter_config.json has the name it had there.",
        problem=f"the base model was an object in Python, {trained_on or 'without a name'}, so it "
        "is unknown where to load it from",
    )


def _tiny(recipe: str) -> BaseModel:
    if not re.fullmatch("[0-9a-f]{16}", recipe):
        return BaseModel("tiny", "unknown.", problem=f"tiny:{recipe} is no recipe's identity")
    folder = (cache_folder() / "tiny" / recipe).absolute()
    description = (
        f"the embedded model of pytest-ftloop, recipe {recipe}, which each machine builds for "
        "itself. adapter_config.json names its folder on the machine that exported this adapter; "
        "other machines have another folder."
    )
    problem = ""
    if not (folder / "config.json").is_file():
        problem = f"the embedded model is not in this machine's cache ({folder})"
    elif damaged := damaged_file(folder):
        problem = f"the embedded model in this machine's cache is damaged ({folder / damaged}): "
        problem += "the next training builds it again"
    return BaseModel(str(folder), description, problem=problem)


def _folder(identity: str, trained_on: str, loop_folder: Path | None) -> BaseModel:
    """The loop file's folder, else peft's: the first that still holds the weights trained on."""
    candidates = [Path(trained_on)] if trained_on else []
    if loop_folder is not None:
        candidates.insert(0, loop_folder)
    description = (
        "a folder on the machine that exported this adapter, named in adapter_config.json; its "
        f"identity (a hash of its files) is {identity}."
    )
    for path in candidates:
        if path.is_dir() and model_identity(str(path.absolute()), Path()) == f"folder:{identity}":
            return BaseModel(str(real(path)), description)
    return BaseModel(
        str(Path(trained_on).absolute()),
        description,
        problem="the folder of the base model is missing or has changed since the training "
        f"({shown_path(candidates[0]) if candidates else 'unknown'})",
    )
