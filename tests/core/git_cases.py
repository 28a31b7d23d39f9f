"""What the tests of `git` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.git import GitError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = str(Path(__file__).parents[2])


def refused(kind: str, function: Callable[..., object], *arguments: object) -> GitError:
    with pytest.raises(GitError) as caught:
        function(*arguments)
    assert kind == caught.value.kind, caught.value
    return caught.value
