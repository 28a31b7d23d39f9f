"""A replay of many loop files: judged at one moment, which a test of the user's ends."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from pytest_ftloop.core import git, git_memory
from tests.core.git_cases import watched
from tests.plugin.conftest import GATED, WORSE

if TYPE_CHECKING:
    import pytest

    from tests.plugin.conftest import Project

COMMITS = """\
import subprocess
def test_commits():
    who = ["-c", "user.name=a", "-c", "user.email=a@example.invalid"]
    subprocess.run(["git", *who, "commit", "--quiet", "--all", "--message", "m"], check=True)
"""


def test_git_is_asked_no_more_often(gated: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git is asked as often for fourteen loop files as for ten, but for what changed files were."""
    asked: dict[int, Counter[str]] = {}
    for count in (10, 14):
        gated.repo.switch("main")
        for number in range(count):
            gated.write(f"{number:02}.ftloop.yaml", f"# loop {number}\n{GATED}")
        gated.run("--ftloop")
        gated.commit()
        gated.repo.branch(f"change-{count}")
        for number in range(count):
            gated.write(f"{number:02}.ftloop.yaml", f"# loop {number}, changed\n{GATED}")
        gated.commit()
        monkeypatch.setattr(git_memory, "_BLOBS", {})
        noted = [watched(monkeypatch, module) for module in (git, git_memory)]
        gated.run("--ftloop-replay").assert_outcomes(passed=count + 1)
        asked[count] = Counter(command for calls in noted for command, *_ in calls)
        assert count == asked[count].pop("cat-file")  # what each loop file was
    assert asked[10] == asked[14]


def test_a_test_ends_the_moment(gated: Project) -> None:
    """What a test commits between two loop files is seen by the second."""
    gated.write("a.ftloop.yaml", GATED)
    gated.run("--ftloop", "a.ftloop.yaml").assert_outcomes(passed=1)
    gated.commit()
    gated.rate(WORSE)
    gated.run("--ftloop", "x.ftloop.yaml").assert_outcomes(failed=1)
    gated.repo.git("add", "--all")
    first = gated.repo.head
    gated.write("test_m.py", COMMITS)
    result = gated.run("--ftloop-replay", "-v", "a.ftloop.yaml", "test_m.py", "x.ftloop.yaml")
    result.assert_outcomes(passed=2, failed=1)
    second = gated.repo.head
    told = result.stdout.str()
    assert re.search(rf"^regression: .* against HEAD \({first[:7]}\)", told, re.MULTILINE)
    assert re.search(rf"^regression: regressed against HEAD \({second[:7]}\)", told, re.MULTILINE)
