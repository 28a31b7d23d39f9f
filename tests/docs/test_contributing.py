"""The guide's picture of the rooms, and its list of places, are those of the package."""

from __future__ import annotations

import re
import sys

from tests.docs.pages import PACKAGE, ROOT, TEXTS, blocks, section, tables, ticked

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there

GUIDE = TEXTS[".github/CONTRIBUTING.md"]


def layers() -> list[list[str]]:
    """The rooms of each line of the picture, from the top."""
    (picture,) = blocks(section(GUIDE, "The rooms"), "text")
    lines = [re.findall(r"\w+", line) for line in picture.split("\n")]
    return [rooms for rooms in lines if rooms]


def test_picture_has_each_room() -> None:
    """The picture and the table have each folder of the package, and no other."""
    folders = sorted(file.parent.name for file in PACKAGE.glob("*/__init__.py"))
    (table,) = tables(section(GUIDE, "The rooms"))
    assert folders == sorted(room for line in layers() for room in line)
    assert [room for line in layers() for room in line] == [
        ticked(row[0])[0].rstrip("/") for row in table
    ]


def test_picture_is_the_contract() -> None:
    """The picture's lines are the layers that import-linter checks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract["type"] == "layers"]
    checked = [
        [name.strip().removeprefix("pytest_ftloop.") for name in line.split("|")]
        for line in contract["layers"]
    ]
    assert layers() == checked


def test_places_exist() -> None:
    """Each file of the list exists, and the name to look for is in the last of them."""
    (table,) = tables(section(GUIDE, "Where do I change ..."))
    for _, files, name in table:
        found = [PACKAGE / file for file in ticked(files)]
        assert [] == [file for file in found if not file.is_file()]
        assert re.search(rf"\b{ticked(name)[0]}\b", found[-1].read_text(encoding="utf-8")), name
