"""`ftloop diff`: better or worse, where, why, at what price."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main
from tests.loops import BETTER, EVAL, SAME, WORSE, Loops
from tests.report.markdown_rows import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def diff(loops: Loops, capsys: Capture) -> Callable[..., tuple[int, str, str]]:
    """Run the command; its exit code, output and errors. It never writes or trains."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        trained, before = loops.trained(), loops.state()
        code = main(["diff", *arguments])
        assert (trained, before) == (loops.trained(), loops.state())
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def worse(loops: Loops) -> Loops:
    """A first version that is committed, and a worse one that is not."""
    loops.version()
    loops.write(rate=WORSE)
    loops.train()
    return loops


def test_text(worse: Loops, diff: Any) -> None:
    """The verdict, the figures, what was changed, broken examples and the cost, on one screen."""
    code, out, err = diff()
    assert (0, "") == (code, err)
    assert out.startswith("x: regressed\n  002-")
    for said in (
        " against 001-",
        "(HEAD (",
        "\n  !  eval_loss ",
        ":\n  training.learning_rate 1e-3 -> 2e-4\n",
        '\nbroken: 3 of 3 examples that passed now fail; all of them answer "wrong"\n  e2\n',
        '\n    prompt    "what is 2?"\n',
        '\n    expected  "answer 2"\n',
        '\n    before    "answer 2"\n',
        '\n    now       "wrong"\n',
        "\ncost: 1.0 s (before 1.0 s), 100 steps (100), 400 tokens (400)\n",
    ):
        assert said in out
    assert len(out.splitlines()) < 50


def test_fixed_and_findings(loops: Loops, diff: Any) -> None:
    """Of an improvement the fixed examples are shown, with their tags."""
    loops.version()
    loops.write(rate=BETTER)
    loops.train()
    _, out, _ = diff()
    assert out.startswith("x: improved\n")
    assert "\nfixed: 2 examples\n  e0 [negation]\n" in out
    assert "broken" not in out


def test_unchanged(loops: Loops, diff: Any) -> None:
    """The committed version itself has no difference, and says so."""
    loops.version()
    code, out, _ = diff()
    assert 0 == code
    assert out.startswith("x: unchanged\n")
    assert "it is the version committed at HEAD (" in out
    assert "\nunchanged, against HEAD (" in out
    assert "): settings, data, model and scoring\n" in out


@pytest.mark.parametrize("format_", ["text", "markdown"])
def test_all(loops: Loops, diff: Any, format_: str) -> None:
    """Two examples of a kind are shown, with --all each."""
    loops.write()
    rows = [{"id": f"a{n}", "prompt": f"q{n}", "completion": f"c{n}"} for n in range(8)]
    eval_ = "".join(f"{json.dumps(row)}\n" for row in [*EVAL, *rows])
    loops.put("eval.jsonl", eval_)
    loops.train()
    loops.commit()
    loops.write(rate=WORSE)
    loops.put("eval.jsonl", eval_)
    loops.train()
    _, some, _ = diff("--format", format_)
    _, every, _ = diff("--format", format_, "--all")
    shown = [[n for n in range(8) if f"q{n}" in text] for text in (some, every)]
    assert [list(range(2)), list(range(8))] == shown
    assert "... and 9 more" in some
    assert "more" not in every


def test_markdown(worse: Loops, diff: Any) -> None:
    """For a pull request: a heading a loop, tables, the examples folded."""
    code, out, err = diff("--format", "markdown")
    assert (0, "") == (code, err)
    assert out.startswith("### x: regressed\n")
    assert ["!", "eval_loss", "1.6800"] in [row[:3] for row in rows_of(out)]
    assert ["training.learning_rate", "1e-3", "2e-4"] in rows_of(out)
    said = '\nbroken: 3 of 3 examples that passed now fail; all of them answer "wrong"\n\n<details>'
    assert said in out
    row = ["e2", '"what is 2?"', '"answer 2"', '"answer 2"', '"wrong"']
    assert row in rows_of(out)
    assert out.count("<details>") == out.count("</details>")


def test_json(worse: Loops, diff: Any) -> None:
    """JSON is one list with everything, nothing cut."""
    code, out, err = diff("--format", "json")
    assert (0, "") == (code, err)
    (item,) = json.loads(out)
    assert ("x", "regressed") == (item["loop"], item["verdict"]["kind"])
    assert item["against"].startswith("HEAD (")
    assert [{"name": "training.learning_rate", "before": 1e-3, "after": 2e-4}] == item["settings"]
    assert ["e2", "e3", "e4"] == [flip["id"] for flip in item["broken"]]
    assert ("what is 2?", "answer 2", "wrong") == tuple(
        item["broken"][0][key] for key in ("prompt", "before", "after")
    )
    assert ([], 400) == (item["fixed"], item["cost"]["after"]["tokens"])


def test_data_and_scoring(loops: Loops, diff: Any) -> None:
    """Changed data and scoring are said, and what of them is compared."""
    loops.version()
    loops.write(more="scoring: {scorer: contains}\n")
    lines = "".join(f"{json.dumps(row)}\n" for row in [*EVAL[:3], {**EVAL[3], "prompt": "other"}])
    loops.put("eval.jsonl", lines)
    loops.train()
    code, out, _ = diff()
    assert 0 == code
    assert "\n  data.eval 5 -> 4 rows: 1 removed, 1 edited\n" in out
    assert '\n    e3 edited "what is 3?" -> "other"\n' in out
    assert "\n  scoring.scorer exact -> contains\n" in out
    text = " ".join(out.split())
    assert "note: eval set changed: 3 of 4 examples compared (1 changed, 1 gone)" in text
    assert "pass_rate is not compared: scoring changed" in text


@pytest.mark.parametrize("format_", ["text", "markdown", "json"])
def test_no_baseline(loops: Loops, diff: Any, format_: str) -> None:
    """Without a committed log there is nothing to show: 2, with what to do."""
    loops.write()
    loops.commit()
    loops.train()
    code, out, err = diff("--format", format_)
    assert 2 == code
    told = [item["error"] for item in json.loads(out)] if format_ == "json" else []
    assert out == "" or told == [err.rstrip("\n")]
    assert err.startswith("x: no log of x at HEAD (")
    assert "Commit the log first." in err


def test_stale(loops: Loops, diff: Any) -> None:
    """A log that is out of date is an error, with the command that mends it."""
    loops.version()
    loops.write(rate=WORSE)
    code, out, err = diff()
    assert (2, "") == (code, out)
    assert "Run pytest --ftloop" in err


def test_several_loops(loops: Loops, diff: Any) -> None:
    """Each loop is shown, one that can't be does not keep the others from it."""
    for name in "xyz":
        loops.write(name)
    loops.train()
    loops.commit()
    loops.write("y", rate=WORSE)
    code, out, err = diff()
    assert 2 == code
    assert ["x: unchanged", "z: unchanged"] == [
        line for line in out.splitlines() if line.startswith(("x:", "y:", "z:"))
    ]
    assert "the improvement log of y is out of date" in err
    items = json.loads(diff("--format", "json")[1])
    assert [("x", None), ("y.ftloop.yaml", 2), ("z", None)] == [
        (item["loop"] or item["source"], item["error"] and item["exit_code"]) for item in items
    ]


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("one", "003 against 001"),
        ("one..two", "002 against 001"),
        ("two..one", "001 against 002"),
        ("one...two", "002 against 001"),
    ],
)
def test_range(loops: Loops, diff: Any, where: str, names: str) -> None:
    """Any two commits are compared, or a commit and the files as they are."""
    for name, rate in (("one", SAME), ("two", BETTER), ("three", WORSE)):
        loops.version(rate)
        loops.repo.tag(name)
    code, out, err = diff(where)
    assert (0, "") == (code, err)
    after, _, before = out.splitlines()[1].split()[:3]
    assert names == f"{after[:3]} against {before[:3]}"
    if where != "one":
        assert "prompt" in diff(where, "--all")[1]


@pytest.mark.parametrize(
    "arguments", [["no-such"], ["--baseline", "no-such"], ["HEAD", "--baseline", "HEAD"]]
)
def test_usage(worse: Loops, diff: Any, arguments: list[str]) -> None:
    """A commit that is not there, or named twice, is 2."""
    code, out, err = diff(*arguments)
    assert (2, "") == (code, out)
    assert "no-such" in err or "named twice" in err


def test_hostile_texts(loops: Loops, diff: Any) -> None:
    """Users' texts can neither command the terminal nor break out of the Markdown."""
    evil = "</details>\x1b[31m|`<script>"
    rows = [{**row, "id": f"{row['id']}", "prompt": f"{row['prompt']} {evil}"} for row in EVAL]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    for rate in (SAME, WORSE):
        loops.write(rate=rate)
        loops.put("eval.jsonl", lines)
        loops.train()
        if rate == SAME:
            loops.commit()
    for format_ in ("text", "markdown", "json"):
        code, out, _ = diff("--format", format_)
        assert 0 == code
        assert "\x1b" not in out
        if format_ == "markdown":
            assert out.count("<details>") == out.count("</details>")
            assert "<script>" not in out
