"""What the tests of `git` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.core import git_program
from pytest_ftloop.core.git import GitError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

ROOT = str(Path(__file__).parents[2])


def refused(kind: str, function: Callable[..., object], *arguments: object) -> GitError:
    with pytest.raises(GitError) as caught:
        function(*arguments)
    assert kind == caught.value.kind, caught.value
    return caught.value


def watched(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[tuple[str, ...]]:
    """What a module asks of git from here on."""
    asked: list[tuple[str, ...]] = []
    run = git_program.run_git

    def noted(folder: Path, *arguments: str, **how: Any) -> Any:
        asked.append(arguments)
        return run(folder, *arguments, **how)

    monkeypatch.setattr(module, "run_git", noted)
    return asked
