"""A loop with a log at the base that is not judged is named, and fails; a moved one is followed."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main
from tests.loops import BETTER, IN_DOUBT, WORSE, Loops

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.gate_cases import Gate

    Change = Callable[[Loops], None]

NOTHING_JUDGES = "x: has a log at base"


@pytest.fixture
def two(loops: Loops) -> Loops:
    """The loops x and, in another folder on other data, o; committed, with a tag for the base."""
    loops.write("o", "other/")
    for role in ("train", "eval"):
        path = loops.root / f"other/{role}.jsonl"
        path.write_text(path.read_text(encoding="utf-8").replace("what is", "name"), "utf-8")
    loops.write()
    loops.train()
    loops.commit()
    loops.repo.git("tag", "base")
    return loops


def _remove(*names: str) -> Change:
    def change(loops: Loops) -> None:
        for name in names:
            path = loops.root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def _move(new: str, *, log: str = "", rate: str = WORSE, train: bool = True) -> Change:
    """Move the loop file and its data; the log is left, removed, or moved to `log`."""

    def change(loops: Loops) -> None:
        folder, _, _ = new.rpartition("/")
        (loops.root / folder).mkdir(parents=True, exist_ok=True)
        text = (loops.root / "x.ftloop.yaml").read_text(encoding="utf-8")
        loops.put(new, text.replace("1.0e-3", rate))
        (loops.root / "x.ftloop.yaml").unlink()
        if folder:
            for role in ("train", "eval"):
                shutil.move(loops.root / f"{role}.jsonl", loops.root / folder)
        if log == "removed":
            shutil.rmtree(loops.root / "improvement_log")
        elif log:
            (loops.root / log).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(loops.root / "improvement_log/x", loops.root / log)
        if train:
            loops.train()

    return change


def _named(loops: Loops) -> None:
    text = (loops.root / "x.ftloop.yaml").read_text(encoding="utf-8")
    loops.put("x.ftloop.yaml", "name: z\n" + text.replace("1.0e-3", WORSE))
    loops.train()


GONE: dict[str, Change] = {
    "file deleted, log left": _remove("x.ftloop.yaml"),
    "file and log deleted": _remove("x.ftloop.yaml", "improvement_log"),
    "log alone deleted": _remove("improvement_log"),
    "another ending": _move("x.ftloop.yaml.off", train=False),
    "a folder that is not searched": _move("build/x.ftloop.yaml", train=False),
    "with its log": _move("build/x.ftloop.yaml", log="build/improvement_log/x", train=False),
    "hidden": _move(".x/x.ftloop.yaml", log=".x/improvement_log/x", train=False),
    "everything deleted": _remove(
        "x.ftloop.yaml", "improvement_log", "other/o.ftloop.yaml", "other/improvement_log"
    ),
}


@pytest.mark.parametrize("how", [name for name in GONE if name != "log alone deleted"])
@pytest.mark.parametrize("committed", [True, False])
def test_named_and_fails(two: Loops, gate: Gate, how: str, committed: bool) -> None:
    """However a loop disappears, its log at the base is named, with the way out, and it is 1."""
    GONE[how](two)
    if committed:
        two.commit()
    code, _, err = gate("base")
    assert 1 == code
    assert f"{NOTHING_JUDGES} (" in err
    assert "and nothing judges it now (improvement_log/x)" in err
    assert "ftloop accept --retire improvement_log/x" in err


def test_without_a_stated_base(two: Loops, gate: Gate) -> None:
    """Where nothing states the base, the last commit and the one before it are looked at."""
    _remove("x.ftloop.yaml", "improvement_log")(two)
    assert (1, True) == ((found := gate())[0], "nothing judges it now" in found[2])
    two.commit()
    assert (1, True) == ((found := gate())[0], "nothing judges it now" in found[2])


def test_a_log_without_its_loop_file_is_not_stale(two: Loops, gate: Gate) -> None:
    """A log that was deleted, its loop left: the loop is out of date, and not named twice."""
    GONE["log alone deleted"](two)
    code, _, err = gate("base")
    assert 3 == code
    assert "nothing judges" not in err


MOVES: dict[str, Change] = {
    "file, log left": _move("y.ftloop.yaml"),
    "file, log deleted": _move("y.ftloop.yaml", log="removed"),
    "file with its log": _move("y.ftloop.yaml", log="improvement_log/y"),
    "name in the file": _named,
    "folder, log left": _move("sub/x.ftloop.yaml"),
    "folder, log deleted": _move("sub/x.ftloop.yaml", log="removed"),
    "folder with its log": _move("sub/x.ftloop.yaml", log="sub/improvement_log/x"),
    "folder and file": _move("sub/deeper/y.ftloop.yaml"),
    "other ending": _move("x.ftloop.yml"),
}


@pytest.mark.parametrize("how", MOVES)
def test_a_moved_loop_is_followed(two: Loops, gate: Gate, how: str) -> None:
    """Renamed or moved, and worse: it is compared with its log at the base, and fails."""
    MOVES[how](two)
    two.commit()
    code, out, err = gate("base")
    assert 1 == code
    assert "regressed against base" in out
    assert "nothing judges" not in err


@pytest.mark.parametrize("new", ["y.ftloop.yaml", "sub/x.ftloop.yaml"])
def test_a_moved_loop_that_is_better_passes(two: Loops, gate: Gate, new: str) -> None:
    """Moving a loop is no offence; where its name is another, the verdict says which log it is."""
    _move(new, rate=BETTER)(two)
    code, out, _ = gate("base")
    assert 0 == code
    assert "improved against base" in out
    assert ("y continues x" in out) is (new == "y.ftloop.yaml")


def test_a_copy_is_a_new_loop(two: Loops, gate: Gate) -> None:
    """A second loop on the same data, beside the first, has nothing before it."""
    two.write("y", rate=WORSE)
    two.train()
    code, out, _ = gate("base")
    assert 0 == code
    assert "no log of y at base" in out


def test_other_data_is_another_loop(two: Loops, gate: Gate) -> None:
    """A new loop on other data does not stand for the one that is gone."""
    _remove("x.ftloop.yaml", "train.jsonl", "eval.jsonl")(two)
    two.write("y", "new/")
    for role in ("train", "eval"):
        path = two.root / f"new/{role}.jsonl"
        path.write_text(path.read_text(encoding="utf-8").replace("what", "who"), "utf-8")
    two.train()
    code, out, err = gate("base")
    assert 1 == code
    assert "no log of y at base" in out
    assert "nothing judges it now (improvement_log/x)" in err


@pytest.mark.parametrize("command", ["gate", "ci"])
def test_renamed_in_its_file_on_other_data(
    two: Loops, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loop file does not stand for the log of its own name if its loop has another one."""
    text = (two.root / "x.ftloop.yaml").read_text(encoding="utf-8")
    two.put("x.ftloop.yaml", "name: z\n" + text.replace("1.0e-3", WORSE))
    path = two.root / "eval.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("what", "who"), "utf-8")
    two.train()
    capsys.readouterr()
    assert 1 == main([command, "--baseline", "base"])
    out, err = capsys.readouterr()
    assert "nothing judges it now (improvement_log/x)" in err
    assert "no log of z at base" in out
    assert "has no log" not in out


def test_scope(two: Loops, gate: Gate) -> None:
    """A command answers for the folders it was given; a loop file stands for itself."""
    _remove("x.ftloop.yaml")(two)
    assert 0 == gate("base", "other")[0]
    assert 0 == gate("base", "other/o.ftloop.yaml")[0]
    assert 1 == gate("base", "other", ".")[0]


def test_two_commits(two: Loops, gate: Gate) -> None:
    """In a commit that is not checked out it is found, too."""
    _remove("x.ftloop.yaml", "improvement_log")(two)
    two.commit()
    two.repo.git("checkout", "-q", "base")
    code, _, err = gate("base..main")
    assert (1, True) == (code, "nothing judges it now (improvement_log/x)" in err)


def test_json_and_ci(two: Loops, capsys: pytest.CaptureFixture[str]) -> None:
    """The report for scripts and the one for reviewers name it, too."""
    _remove("x.ftloop.yaml")(two)
    assert 1 == main(["gate", "base", "--json"])
    records = json.loads(capsys.readouterr().out)
    assert [("other/o.ftloop.yaml", 0), ("improvement_log/x", 1)] == [
        (record["source"], record["exit_code"]) for record in records
    ]
    assert "nothing judges it now" in records[1]["error"]
    assert 1 == main(["ci", "--baseline", "base"])
    summary = (two.root / "ftloop-ci/summary.md").read_text(encoding="utf-8")
    assert summary.startswith("## ❌ ftloop: 2 loops: 1 ")
    assert "nothing judges it now" in summary


@pytest.mark.parametrize("command", ["gate", "ci", "diff"])
def test_a_loop_file_with_mistakes(
    loops: Loops, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """It is one error, also where it states its name; its log is not called unjudged."""
    loops.version()
    text = (loops.root / "x.ftloop.yaml").read_text("utf-8")
    (loops.root / "x.ftloop.yaml").rename(loops.root / "file.ftloop.yaml")
    loops.put("file.ftloop.yaml", f"name: x\nunknown: 1\n{text}")
    assert 2 == main([command])
    err = capsys.readouterr().err
    assert "file.ftloop.yaml:2: unknown" in err
    assert "nothing judges" not in err


def test_retired(two: Loops, gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    """A loop that is given up by hand is told once, and then missed by nobody."""
    _remove("x.ftloop.yaml")(two)
    assert 0 == main(["accept", "--retire", "improvement_log/x"])
    assert "gave up x: commit improvement_log/x/verdicts/" in capsys.readouterr().out
    assert 0 == main(["accept", "--retire", "improvement_log/x"])
    assert "x is given up already" in capsys.readouterr().out
    two.commit()
    code, out, _ = gate("base")
    assert (0, True) == (code, "x: iteration" in out and "given up by hand" in out)
    assert "given up" not in gate("HEAD")[1]
    _remove("improvement_log")(two)
    assert 0 == gate("HEAD")[0]


def test_retired_is_no_acceptance(two: Loops, gate: Gate) -> None:
    """Giving a loop up does not let a worse version of it pass."""
    assert 0 == main(["accept", "--retire", "improvement_log/x"])
    two.write(rate=WORSE)
    two.train()
    assert 1 == gate("base")[0]


def test_retired_and_renamed(two: Loops, gate: Gate) -> None:
    """Giving a loop up and going on under another name, in one change, starts nothing anew."""
    assert 0 == main(["accept", "--retire", "improvement_log/x"])
    given_up = two.commit()
    _move("y.ftloop.yaml")(two)
    code, out, _ = gate("base")
    assert (1, True) == (code, "y continues x" in out)
    code, out, _ = gate(given_up)
    assert (0, True) == (code, "no log of y at" in out)


@pytest.mark.parametrize("folder", ["improvement_log", "nowhere", "other"])
def test_retire_what_is_no_log(two: Loops, capsys: pytest.CaptureFixture[str], folder: str) -> None:
    """A mistake is one error, and nothing is written."""
    before = two.files()
    assert 2 == main(["accept", "--retire", folder])
    assert "wanted the folder of a loop's log" in capsys.readouterr().err
    assert before == two.files()


# two loops, one log


@pytest.mark.parametrize("command", ["gate", "ci", "diff", "run", "calibrate"])
def test_one_log_for_two_loops(
    loops: Loops, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Two files with one name are an error that names both, also where one alone is judged."""
    loops.version()
    loops.put("y.ftloop.yaml", "name: x\n" + (loops.root / "x.ftloop.yaml").read_text("utf-8"))
    for where in ((), ("x.ftloop.yaml",)):
        assert 2 == main([command, *where])
        err = capsys.readouterr().err
        assert "two loops that write improvement_log/x: this one and " in err


def test_one_log_folder_for_a_monorepo(loops: Loops, capsys: pytest.CaptureFixture[str]) -> None:
    """With --log, loops of one name in two folders meet in one log."""
    loops.write("t", "a/")
    loops.write("t", "b/")
    assert 2 == main(["gate", "--log", "logs"])
    assert "two loops that write logs/t" in capsys.readouterr().err


# nothing to judge


def test_hook_without_loops(loops: Loops, gate: Gate) -> None:
    """The commit hook of an organisation passes where there is no loop, before the first commit."""
    loops.put("a.txt", "a")
    loops.repo.git("add", "-A")
    assert 0 == gate("--staged", "--stale-only")[0]
    loops.commit()
    assert 0 == gate("--staged", "--stale-only")[0]
    assert 2 == gate()[0]


def test_hook_of_the_last_loop(loops: Loops, gate: Gate) -> None:
    """Deleting the last loop file is named in the hook, which lets it through."""
    loops.version()
    loops.repo.git("rm", "-q", "x.ftloop.yaml")
    code, _, err = gate("--staged", "--stale-only")
    assert (0, True) == (code, "nothing judges it now" in err)


# loops made in Python


@pytest.fixture
def in_python(two: Loops) -> Loops:
    """As a loop made in Python leaves it: a log at the base and now, and never a loop file."""
    _remove("x.ftloop.yaml")(two)
    two.commit()
    two.repo.git("tag", "-f", "base")
    return two


def _trained(loops: Loops, rate: str) -> None:
    """Another version in the log of x, as its test would write it."""
    loops.write(rate=rate, gates="{eval_loss: <= 9}")
    loops.train("x.ftloop.yaml")
    (loops.root / "x.ftloop.yaml").unlink()


@pytest.mark.parametrize(
    ("rate", "code", "said"), [(WORSE, 1, "regressed"), (BETTER, 0, "improved"), ("", 0, "")]
)
def test_a_log_without_a_loop_file_is_judged(
    in_python: Loops, gate: Gate, rate: str, code: int, said: str
) -> None:
    """The best iteration that the base's log lacks is compared with the version there."""
    if rate:
        _trained(in_python, rate)
    found, out, _ = gate("base")
    assert code == found
    assert f"x: iteration {'002' if rate else '001'}-" in out
    assert f"regression: {said or 'unchanged'} against base" in out
    assert "no loop file: judged from its log alone" in " ".join(out.split())


@pytest.mark.parametrize("command", ["ci", "diff"])
def test_other_commands_see_it(
    in_python: Loops, capsys: pytest.CaptureFixture[Any], command: str
) -> None:
    """The reviewer's commands show it as any other loop."""
    _trained(in_python, WORSE)
    main([command, "--baseline", "base"])
    assert "regressed" in capsys.readouterr().out


def test_a_renamed_loop_without_a_loop_file(in_python: Loops, gate: Gate) -> None:
    """Whether a loop made in Python was renamed or copied only pytest knows: the log is named."""
    in_python.write("y", rate=WORSE, gates="{eval_loss: <= 9}")
    in_python.train("y.ftloop.yaml")
    (in_python.root / "y.ftloop.yaml").unlink()
    code, out, _ = gate("base")
    said = "improvement_log/x has these eval examples and no loop file: if this loop continues it, "
    assert (0, True) == (code, f"{said}git mv it" in " ".join(out.split()))
    assert 1 == gate("base", "--fail-on", "not-comparable")[0]
    for path in (in_python.root / "improvement_log/x").iterdir():
        shutil.move(path, in_python.root / "improvement_log/y" / path.name)
    shutil.rmtree(in_python.root / "improvement_log/x")
    code, out, _ = gate("base")
    assert (1, True) == (code, "regressed against base" in out)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--fail-on", "inconclusive"),
        ("--gate", "eval_loss <= 1.7"),
        ("--alpha", "0.49"),
    ],
)
def test_options_of_the_gate_count_for_it(
    in_python: Loops, gate: Gate, option: str, value: str
) -> None:
    """What the command line states holds for a loop without a loop file, too."""
    _trained(in_python, IN_DOUBT)
    code, out, _ = gate("base")
    assert (0, True) == (code, "inconclusive against base" in out)
    assert 1 == gate("base", option, value)[0]
    if option == "--fail-on":
        assert 1 == main(["ci", "--baseline", "base", option, value])


def test_a_first_log_without_a_loop_file(two: Loops, gate: Gate) -> None:
    """One that is new has nothing before it."""
    shutil.copytree(two.root / "improvement_log/x", two.root / "new/improvement_log/n")
    shutil.rmtree(two.root / "new/improvement_log/n/verdicts")
    code, out, _ = gate("base", "new")
    assert (0, True) == (code, "not comparable" in out)
