"""Gates on tags that no eval example has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.config.arguments import in_one
from pytest_ftloop.core.errors import ConfigError, Location, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from pytest_ftloop.config.gates import Gate, Regression

TAKEN = ("prompt", "completion", "messages", "conversations", "text", "input_ids", "id")
"""Columns that hold no tags."""


def check_tags(
    gates: Iterable[Gate | Regression],
    tags: Iterable[str],
    where_file: str | Path,
    *,
    tagged_by: Sequence[str] = ("tags",),
    columns: Sequence[str] = (),
) -> None:
    """Raise one ConfigError for all gates on a tag that no eval example has.

    `tagged_by` are the columns that hold the tags, `columns` all of the eval set, if they are
    known.
    """
    known = set(tags)
    wrong = [
        ConfigError(
            f"gate {gate.name}: no eval example is tagged {gate.tag!r}",
            where=Location(str(where_file), gate.line),
            cure=_cure(gate.tag, known, tagged_by, columns),
        )
        for gate in gates
        if gate.tag is not None and gate.tag not in known
    ]
    if wrong:
        raise in_one(wrong)


def _cure(tag: str, tags: Collection[str], tagged_by: Sequence[str], columns: Sequence[str]) -> str:
    cure = did_you_mean(tag, tags).replace("Valid names", "The tags") if tags else ""
    if cure.startswith("Did you mean"):
        return cure
    stated = ", ".join(tagged_by)
    said = [cure or "No eval example has a tag.", f"Tags are read from {stated} (data.tags)."]
    others = [name for name in columns if name not in (*TAKEN, *tagged_by)]
    if others:
        said.append(f"Further columns: {', '.join(others)}; data: {{tags: {others[0]}}} reads one.")
    return " ".join(said)
