"""`ftloop log` of several loops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.cli import main
from tests.fakes import fake_example

if TYPE_CHECKING:
    import pytest

    from tests.cli.cli_cases import Capture

ONE_ROW = {"data": {"train": {"rows": 9, "sha256": "a"}, "eval": {"rows": 1, "sha256": "b"}}}


def test_several_paths_give_one_table(tmp_path: Path, fill: Any, capsys: Capture) -> None:
    """Two or more PATHs are compared: one row per loop, in each format."""
    folders = [fill(0.4, loop=name, **ONE_ROW).folder for name in ("a", "b")]
    assert 0 == main(["log", *map(str, folders)])
    out = capsys.readouterr().out
    assert out.startswith("2 loops by eval_loss on 1 example\n")
    assert ["a", "b"] == [line.split()[0] for line in out.splitlines()[3:5]]
    main(["log", *map(str, folders), "--format", "json"])
    rows = json.loads(capsys.readouterr().out)
    assert [("a", "leads"), ("b", "tied")] == [(row["loop"], row["place"]) for row in rows]
    main(["log", *map(str, folders), "--format", "csv"])
    assert 3 == len(capsys.readouterr().out.splitlines())


def test_a_loop_is_compared_once(tmp_path: Path, fill: Any, capsys: Capture) -> None:
    """A loop that two PATHs find has one row."""
    folder = fill(0.4, loop="a").folder
    fill(0.4, loop="b")
    main(["log", str(folder), str(tmp_path), "--format", "json"])
    assert ["a", "b"] == sorted(row["loop"] for row in json.loads(capsys.readouterr().out))


def test_a_folder_of_loops_is_compared_after_their_tables(
    tmp_path: Path, fill: Any, capsys: Capture
) -> None:
    """One PATH with loops of one eval set: their iterations, then one table of the loops."""
    fill(0.9, 0.4, loop="a")
    fill(0.7, loop="b")
    main(["log", str(tmp_path)])
    out = capsys.readouterr().out
    assert out.index("a: 2 iterations") < out.index("b: 1 iteration") < out.index("2 loops by ")
    examples = [fake_example("other", content="another")]
    fill(0.7, loop="c", examples=examples, folder="apart")
    main(["log", str(tmp_path / "apart")])
    assert "loops by" not in capsys.readouterr().out


def test_what_is_missing_is_named(tmp_path: Path, fill: Any, capsys: Capture) -> None:
    """A PATH without a log is an error, an empty or damaged log is left out; others are shown."""
    good = fill(0.4, loop="a").folder
    (damaged,) = fill(0.4, loop="bad").folder.glob("001-00000001-*.yaml")
    damaged.write_text("schema: 3\n")
    assert 2 == main(["log", str(good), str(damaged.parent), str(tmp_path / "none")])
    out, err = capsys.readouterr()
    assert "\na " in out
    assert "damaged log file" in err
    assert "no such file or folder" in err


def test_empty_logs(tmp_path: Path, make_loop: Any, capsys: Capture) -> None:
    """Two loops that were never trained: a sentence, and no error."""
    files = [str(make_loop(name)) for name in ("a", "b")]
    assert 0 == main(["log", *files])
    out, err = capsys.readouterr()
    assert "no loop has an iteration yet: pytest --ftloop trains the first\n" == out
    assert "a: no iterations yet, so left out\nb: no iterations yet, so left out\n" == err
    main(["log", *files, "--format", "json"])
    assert [] == json.loads(capsys.readouterr().out)


def test_a_loop_by_its_name_is_told_its_path(
    tmp_path: Path, make_loop: Any, fill: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Names of loops are no paths, but the paths are near: nothing else is printed."""
    make_loop("a")
    fill(0.4, loop="b")
    monkeypatch.chdir(tmp_path)
    assert 2 == main(["log", "a", "b", "a.ftlop.yaml", "nothing"])
    out, err = capsys.readouterr()
    assert "" == out
    assert [
        "a: no such file or folder",
        "  Did you mean 'a.ftloop.yaml'?",
        "b: no such file or folder",
        "  Did you mean 'improvement_log/b'?",
        "a.ftlop.yaml: no such file or folder",
        "  Did you mean 'a.ftloop.yaml'?",
        "nothing: no such file or folder",
    ] == err.splitlines()
