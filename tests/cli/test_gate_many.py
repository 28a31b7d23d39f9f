"""`ftloop gate` over many loops of one repository: each as if it were alone, at little cost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_ftloop.core import git, git_memory
from tests.core.git_cases import watched
from tests.loops import BETTER, WORSE, Loops

if TYPE_CHECKING:
    import pytest

    from tests.cli.gate_cases import Gate


def test_each_as_if_alone(loops: Loops, gate: Gate) -> None:
    """Whatever was changed in which of them, many loops get the verdicts of each alone."""
    names = [f"loop-{number:02}" for number in range(20)]
    for name in names:
        loops.write(folder=f"{name}/")
    loops.train()
    loops.commit()
    loops.write(folder=f"{names[9]}/", rate=WORSE)
    loops.write(folder=f"{names[10]}/", rate=BETTER)
    loops.train(names[9], names[10])
    loops.commit()
    loops.write(folder=f"{names[11]}/", rate=WORSE)
    loops.write(folder=f"{names[12]}/", rate=BETTER)
    loops.train(names[11], names[12])
    loops.repo.git("add", names[12])
    (loops.root / names[13] / "eval.jsonl").write_text('{"prompt": "p", "completion": " c"}\n')
    loops.write(folder=f"{names[14]}/", gates="{regression: {max_regression: 0.2}}")
    loops.write(folder="new/")
    loops.train("new")
    files = [f"{name}/x.ftloop.yaml" for name in (*names, "new")]
    alone = [gate(file) for file in files]
    together = gate(*files)
    assert {0, 1, 3} == {code for code, *_ in alone}
    assert max(code for code, *_ in alone) == together[0]
    assert "\n".join(out for _, out, _ in alone if out) == together[1]
    assert "".join(err for *_, err in alone) == together[2]


def test_git_is_asked_no_more_often(
    loops: Loops, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git is asked as often for fourteen loops as for ten, but for what changed files were."""
    asked: dict[int, Counter[str]] = {}
    loops.commit()
    for count in (10, 14):
        loops.repo.switch("main")
        for number in range(count):
            loops.write(folder=f"loop-{number:02}/", more=f"# loop {number}\n")
        loops.train()
        loops.commit()
        loops.repo.branch(f"change-{count}")
        for number in range(count):
            loops.write(folder=f"loop-{number:02}/", rate=BETTER, more=f"# loop {number}\n")
        loops.train()
        loops.commit()
        monkeypatch.setattr(git_memory, "_BLOBS", {})
        noted = [watched(monkeypatch, module) for module in (git, git_memory)]
        assert 0 == gate()[0]
        asked[count] = Counter(command for calls in noted for command, *_ in calls)
        assert count == asked[count].pop("cat-file")  # what each loop file was
    assert asked[10] == asked[14]
    assert 9 == asked[14]["status"]
