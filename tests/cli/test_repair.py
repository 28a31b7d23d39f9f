"""A damaged log that was committed never blocks its repair, which says what was damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_ftloop.cli import main
from tests.loops import BETTER, WORSE, Loops

Capture = pytest.CaptureFixture[str]
LOG = Path("improvement_log/x")
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"


def edit(pattern: str, change: Callable[[str], str | bytes]) -> Callable[[], None]:
    def damage() -> None:
        for path in LOG.glob(pattern):
            content = change(path.read_text())
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def conflict(text: str) -> str:
    first, *others = text.splitlines(keepends=True)
    return "".join([first, "<<<<<<< HEAD\n", others[0], "=======\n", *others])


def without(pattern: str) -> Callable[[], None]:
    def damage() -> None:
        for path in LOG.glob(pattern):
            path.unlink()

    return damage


RECORD = "001-*.yaml"
DAMAGES = {
    "tables not committed": (without("*.csv"), "is missing"),
    "record cut": (edit(RECORD, lambda text: text[:300]), "damaged"),
    "record empty": (edit(RECORD, lambda _: ""), "wanted keys and values"),
    "record edited": (
        edit(RECORD, lambda text: text.replace("device: cpu", "device: gpu")),
        "it is not what was written",
    ),
    "record in conflict": (edit(RECORD, conflict), "damaged"),
    "record not UTF-8": (edit(RECORD, lambda text: text.encode("utf-16")), "damaged"),
    "records in LFS": (edit("*.yaml", lambda _: POINTER), "it is a pointer of Git LFS"),
    "tables in LFS": (edit("*.csv", lambda _: POINTER), "it is a pointer of Git LFS"),
    "table edited": (edit("*.csv", lambda text: text.replace(",yes,", ",no,")), "it differs from"),
    "table cut": (edit("*.csv", lambda text: text[:100]), "it differs from"),
    "table in conflict": (edit("*.csv", conflict), "it differs from"),
    "verdict edited": (
        edit("verdicts/*", lambda text: text.replace("kind: first", "kind: improved")),
        "it is not what was written",
    ),
    "verdict cut": (edit("verdicts/*", lambda text: text[:20]), "damaged"),
}
"""What may become of a log until it is committed, and what is said of it."""


@pytest.fixture
def damaged(loops: Loops, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository whose last commit has a damaged log; what is said of it."""
    monkeypatch.chdir(loops.root)
    loops.write()
    loops.train()
    shutil.copytree(LOG, loops.root.parent / "sound")
    damage, why = request.param
    damage()
    loops.commit()
    return str(why)


def restore(loops: Loops) -> None:
    shutil.rmtree(LOG)
    shutil.copytree(loops.root.parent / "sound", LOG)


each_damage = pytest.mark.parametrize("damaged", DAMAGES.values(), ids=list(DAMAGES), indirect=True)


@each_damage
@pytest.mark.parametrize("command", [["gate"], ["ci"]], ids=" ".join)
def test_repaired(damaged: str, loops: Loops, command: list[str], capsys: Capture) -> None:
    """The change that has the files as they were passes and is told what was damaged."""
    assert 3 == main(["gate"])
    restore(loops)
    capsys.readouterr()
    assert 0 == main(command)
    said = " ".join(capsys.readouterr().out.split())
    assert "is damaged: improvement_log/x/" in said
    assert damaged in said
    assert "judged with the repaired files of this change" in said
    if command == ["ci"]:
        assert "is damaged" in Path("ftloop-ci/summary.md").read_text()


@each_damage
def test_repaired_and_worse(damaged: str, loops: Loops, capsys: Capture) -> None:
    """What is at the same time worse than the repaired version fails."""
    restore(loops)
    loops.write(rate=WORSE)
    loops.train()
    capsys.readouterr()
    assert 1 == main(["gate"])
    assert "regressed" in capsys.readouterr().out


@each_damage
def test_trained_anew(damaged: str, loops: Loops, capsys: Capture) -> None:
    """A log that is deleted and trained anew, with other settings, says what it replaces."""
    shutil.rmtree(LOG)
    loops.write(rate=BETTER)
    loops.train()
    capsys.readouterr()
    assert 0 == main(["gate"])
    said = " ".join(capsys.readouterr().out.split())
    assert "is damaged: improvement_log/x/" in said
    assert damaged in said
    loops.commit()
    assert 0 == main(["gate", "--baseline", "HEAD"])
    assert "damaged" not in capsys.readouterr().out


@each_damage
def test_staged_repair(damaged: str, loops: Loops) -> None:
    """The pre-commit hook lets the repair through."""
    restore(loops)
    loops.repo.git("add", "--all")
    assert 0 == main(["gate", "--staged", "--stale-only"])


@each_damage
def test_still_damaged(damaged: str, loops: Loops, capsys: Capture) -> None:
    """A change that leaves it as it is fails by the file's name."""
    loops.put("other.txt", "a change")
    assert 3 == main(["gate"])
    assert "improvement_log/x/" in capsys.readouterr().err
