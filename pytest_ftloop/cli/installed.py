"""How pytest-ftloop is installed here, as a requirement that can't come to mean anything else.

A name on the package index belongs to whoever registers it first. So a workflow installs by the
index only what came from there; else by a commit of a repository, or by a file's hash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pytest_ftloop.core.errors import ConfigError

NAME = "pytest-ftloop"

_PINNED = re.compile(
    rf"{NAME}(?:\[[a-z,]+\])?"
    r"(?:==[0-9][\w.+!]*"
    r"| @ git\+https://[\w./~%-]+@[0-9a-f]{40}"
    r"| @ https://[\w./~%+-]+#sha256=[0-9a-f]{64})"
)
"""A version of the index, a commit by its full name, or a file by its hash."""

_EXAMPLE = f"--requirement '{NAME} @ git+https://HOST/OWNER/{NAME}@COMMIT'"


def checked(requirement: str) -> str:
    """The stated requirement. Raises `ConfigError` unless it is pinned."""
    if not _PINNED.fullmatch(requirement):
        raise ConfigError(
            f"--requirement: wanted {NAME} at a full commit, or a version, found {requirement!r}",
            cure=f"For example {_EXAMPLE}, with the commit's 40 digits.",
        )
    return requirement


def requirement() -> str:
    """The requirement that installs this very version elsewhere, without extras.

    Raises `ConfigError` for one that is installed from a folder that no URL leads to.
    """
    from importlib.metadata import distribution

    found = distribution(NAME)
    direct = found.read_text("direct_url.json")
    stated = f"{NAME}=={found.version}" if direct is None else _by_url(json.loads(direct))
    if not _PINNED.fullmatch(stated):
        raise ConfigError(
            f"{NAME} is installed here from a place that a workflow can't install it from",
            cure=f"Say what it is to install: {_EXAMPLE}.",
        )
    return stated


def _by_url(direct: Mapping[str, Any]) -> str:
    """The requirement for what pip notes of an installation by URL (PEP 610); may not be pinned."""
    url = str(direct.get("url", ""))
    if "vcs_info" in direct:
        return f"{NAME} @ git+{url}@{direct['vcs_info'].get('commit_id', '')}"
    if "archive_info" in direct:
        hashes = direct["archive_info"].get("hashes") or {}
        return f"{NAME} @ {url}#sha256={hashes.get('sha256', '')}"
    return _by_folder(Path(unquote(urlsplit(url).path)))


def _by_folder(folder: Path) -> str:
    """The commit that a clone has checked out, at its remote."""
    from pytest_ftloop.core.git import GitError, Repository

    try:
        repository = Repository.containing(folder)
        remote = next(iter(repository.remotes()), "")
        commit = repository.resolve("HEAD")
    except GitError:
        return ""
    url = repository.query("remote", "get-url", remote) if remote else ""
    return f"{NAME} @ git+{url}@{commit}"
