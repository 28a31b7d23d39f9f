"""What a change does to its own gates is told, before and after, whatever was changed."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.config.gates import Gate, Regression
from pytest_ftloop.gate.row_changes import MOST_TAGS, row_changes
from pytest_ftloop.gate.rule_changes import GateChange
from tests.fakes import fake_example, fake_iteration
from tests.gitfakes import GitRepo
from tests.loops import EVAL, WORSE, Loops

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_ftloop.core.records import ExampleResult, Iteration

Capture = pytest.CaptureFixture[str]
Row = tuple[str, str, str, bool]
KEYS = ("name", "before", "after", "loosened")
DEFAULTS = "alpha 0.01, min_regression 0.01, max_regression 0.05, eval_loss, pass_rate"

GATES: dict[str, tuple[str, str, list[Row]]] = {
    "threshold loosened": (
        "eval_loss: '<= 1.7'",
        "eval_loss: '<= 9'",
        [("eval_loss", "<= 1.7", "<= 9", True)],
    ),
    "threshold tightened": (
        "eval_loss: '<= 9'",
        "eval_loss: '<= 1.7'",
        [("eval_loss", "<= 9", "<= 1.7", False)],
    ),
    "rate loosened": (
        "pass_rate: '>= 20%'",
        "pass_rate: '>= 0'",
        [("pass_rate", ">= 20%", ">= 0%", True)],
    ),
    "bound let in": (
        "pass_rate: '> 0'",
        "pass_rate: '>= 0'",
        [("pass_rate", "> 0%", ">= 0%", True)],
    ),
    "bound shut out": (
        "pass_rate: '>= 0'",
        "pass_rate: '> 0'",
        [("pass_rate", ">= 0%", "> 0%", False)],
    ),
    "removed": ("eval_loss: '<= 9'", "", [("eval_loss", "<= 9", "removed", True)]),
    "added": ("", "eval_loss: '<= 9'", [("eval_loss", "not set", "<= 9", False)]),
    "written otherwise": ("pass_rate: '>= 20%'", "pass_rate: ' >=  0.20 '", []),
    "alpha": (
        "regression: {alpha: 0.05}",
        "regression: {alpha: 0.0001}",
        [("regression.alpha", "0.05", "0.0001", True)],
    ),
    "alpha raised": (
        "regression: {}",
        "regression: {alpha: 0.2}",
        [("regression.alpha", "0.01", "0.2", False)],
    ),
    "min_regression": (
        "regression: {}",
        "regression: {min_regression: 0.5}",
        [("regression.min_regression", "0.01", "0.5", True)],
    ),
    "max_regression": (
        "regression: {}",
        "regression: {max_regression: 0.5}",
        [("regression.max_regression", "0.05", "0.5", True)],
    ),
    "metrics": (
        "regression: {}",
        "regression: {metrics: [eval_loss]}",
        [("regression.metrics", "eval_loss, pass_rate", "eval_loss", True)],
    ),
    "metrics in another order": (
        "regression: {}",
        "regression: {metrics: [pass_rate, eval_loss]}",
        [],
    ),
    "fail_on": (
        "regression: {fail_on: [inconclusive]}",
        "regression: {}",
        [("regression.fail_on", "inconclusive", "not set", True)],
    ),
    "fail_on added": (
        "regression: {}",
        "regression: {fail_on: [inconclusive]}",
        [("regression.fail_on", "not set", "inconclusive", False)],
    ),
    "regression removed": (
        "regression: {}",
        "eval_loss: '<= 9'",
        [("eval_loss", "not set", "<= 9", False), ("regression", DEFAULTS, "removed", True)],
    ),
    "narrowed to a tag": (
        "regression: {}",
        "'regression[negation]': {}",
        [
            ("regression", DEFAULTS, "removed", True),
            ("regression[negation]", "not set", DEFAULTS, False),
        ],
    ),
    "defaults written out": (
        "regression: {}",
        "regression: {alpha: 0.01, metrics: [eval_loss, pass_rate]}",
        [],
    ),
}


@pytest.fixture
def changes(loops: Loops, capsys: Capture) -> Callable[..., list[Row]]:
    """What `ftloop gate --json` says of the gates, as rows."""

    def ask(*arguments: str) -> list[Row]:
        capsys.readouterr()
        main(["gate", "--json", *arguments])
        (item,) = json.loads(capsys.readouterr().out)
        found = item["gate_changes"]
        assert "" == found["unknown"]
        return [tuple(change[key] for key in KEYS) for change in found["changes"]]

    return ask


@pytest.mark.parametrize("case", GATES)
@pytest.mark.parametrize("committed", [True, False], ids=["commits", "working tree"])
def test_gates(loops: Loops, changes: Callable[..., list[Row]], case: str, committed: bool) -> None:
    """Each key of a gate, before and after, and whether more can pass now; committed or not."""
    before, after, wanted = GATES[case]
    first = loops.version(gates=f"{{{before}}}")
    assert [] == changes()
    loops.write(gates=f"{{{after}}}")
    if committed:
        loops.commit()
    assert sorted(wanted) == sorted(changes(first))


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ("{seeds: 2, iterations: 1}", "{iterations: 1}", ("loop.seeds", "2", "1", True)),
        ("{iterations: 1}", "{seeds: 2, iterations: 1}", ("loop.seeds", "1", "2", False)),
        (
            "{iterations: 1}",
            "{iterations: 1, metric: pass_rate}",
            ("loop.metric", "eval_loss", "pass_rate", True),
        ),
    ],
)
def test_loop_section(
    loops: Loops, changes: Callable[..., list[Row]], before: str, after: str, wanted: Row
) -> None:
    """Fewer seeds, and another metric that chooses the best."""
    loops.version(loop=before)
    loops.write(loop=after)
    loops.train()
    assert [wanted] == changes()


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ("{}", "{ignore_case: true}", [("scoring.ignore_case", "false", "true", True)]),
        (
            "{scorer: loss, threshold: 1.0}",
            "{scorer: loss, threshold: 9}",
            [("scoring.threshold", "1", "9", True)],
        ),
        (
            "{scorer: loss, threshold: 9}",
            "{scorer: loss, threshold: 1}",
            [("scoring.threshold", "9", "1", False)],
        ),
        (
            "{scorer: choice, choices: [a, b]}",
            "{scorer: choice, choices: [a]}",
            [("scoring.choices", "a, b", "a", True)],
        ),
        ("{}", "{scorer: contains}", [("scoring.scorer", "exact", "contains", True)]),
    ],
)
def test_scoring(
    loops: Loops, changes: Callable[..., list[Row]], before: str, after: str, wanted: list[Row]
) -> None:
    """A laxer scorer."""
    loops.version(more=f"scoring: {before}\n")
    loops.write(more=f"scoring: {after}\n")
    loops.train()
    assert wanted == changes()


def test_eval_rows(loops: Loops, changes: Callable[..., list[Row]]) -> None:
    """Rows removed, edited, added, and tags dropped; not the order and the ids."""
    loops.version()
    first = [row | {"id": f"new{n}"} for n, row in enumerate(reversed(EVAL))]
    loops.put("eval.jsonl", "".join(f"{json.dumps(row)}\n" for row in first))
    loops.train()
    assert [] == changes()
    rows = [dict(row) for row in EVAL]
    del rows[0]["tags"]
    rows[3]["completion"] = " easy"
    del rows[4]
    rows.append({"id": "x", "prompt": "x?", "completion": " y"})
    loops.put("eval.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    loops.train()
    assert [
        ("eval rows", "5", "5: 1 removed, 1 edited, 1 added", True),
        ("tag negation", "2 rows", "1 rows", True),
    ] == changes()


def rows_of(*rows: ExampleResult) -> Iteration:
    return fake_iteration(1, examples=rows)


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ("a b", "a b", []),
        ("a b", "b a", []),
        ("a a b", "a b", [("eval rows", "3", "2: 1 removed", True)]),
        ("a b", "a b c", [("eval rows", "2", "3: 1 added", False)]),
        ("a:t a", "a a:t", []),
        ("a:t b", "a b:t", [("tag t", "1 rows", "1 rows", True)]),
        ("a b", "a:t b", [("tag t", "0 rows", "1 rows", False)]),
    ],
)
def test_pairing(before: str, after: str, wanted: list[Row]) -> None:
    """Equal rows are paired one by one, whatever their number and order."""
    old, new = (
        rows_of(
            *(
                fake_example(f"{side}{n}", content=word[0], tags=tuple(word[2:]))
                for n, word in enumerate(words.split())
            )
        )
        for side, words in (("old", before), ("new", after))
    )
    assert wanted == [(c.name, c.before, c.after, c.loosened) for c in row_changes(old, new)]


def test_many_tags() -> None:
    """Of very many tags the rest is counted."""
    tags = tuple(f"t{n}" for n in range(MOST_TAGS + 3))
    old, new = rows_of(fake_example("a", tags=tags)), rows_of(fake_example("a"))
    found = row_changes(old, new)
    assert MOST_TAGS + 1 == len(found)
    assert GateChange("3 more tags", "", "changed", loosened=True) == found[-1]


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("pytest.ini", None, "[pytest]\nftloop_baseline = HEAD\n", ("not set", "HEAD")),
        ("tox.ini", "[pytest]\nftloop_baseline: v1\n", "[pytest]\n", ("v1", "not set")),
        ("setup.cfg", None, "[tool:pytest]\nftloop_baseline =\n    HEAD\n", ("not set", "HEAD")),
        (
            "pyproject.toml",
            None,
            '[tool.pytest.ini_options]\nftloop_baseline = "HEAD"\n',
            ("not set", "HEAD"),
        ),
        (
            "pytest.ini",
            None,
            "[pytest]\naddopts = -q --ftloop-baseline=HEAD\n",
            ("not set", "HEAD"),
        ),
        (
            "pyproject.toml",
            None,
            '[tool.pytest]\naddopts = ["--ftloop-baseline", "HEAD"]\n',
            ("not set", "HEAD"),
        ),
        ("pytest.ini", None, "[pytest]\n# ftloop_baseline = HEAD\n", None),
    ],
)
@pytest.mark.parametrize("folder", ["", "deep/er/"])
def test_ini(
    loops: Loops,
    changes: Callable[..., list[Row]],
    file: str,
    before: str | None,
    after: str,
    said: tuple[str, str] | None,
    folder: str,
) -> None:
    """ftloop_baseline in any file of pytest's, in the loop's folder or above it."""
    loops.write(folder=folder)
    if before is not None:
        loops.put(file, before)
    loops.train()
    loops.commit()
    assert [] == changes()
    loops.put(file, after)
    wanted = [] if said is None else [(f"ftloop_baseline in {file}", *said, True)]
    assert wanted == changes()


def test_ini_that_names_the_candidate_itself(loops: Loops, capsys: Capture) -> None:
    """A setting that hides the change from the comparison is told all the same."""
    loops.version()
    loops.repo.branch("change")
    loops.put("pytest.ini", "[pytest]\nftloop_baseline = HEAD\n")
    loops.version(rate=WORSE)
    capsys.readouterr()
    main(["gate", "--baseline", "HEAD"])
    assert "changed since" not in capsys.readouterr().out  # nothing says where it started
    main(["gate", "main.."])
    assert "ftloop_baseline in pytest.ini: not set -> HEAD" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["edited", "removed", "named anew"])
def test_holdout(loops: Loops, changes: Callable[..., list[Row]], how: str) -> None:
    """A holdout that is edited or left out."""
    gates = "{regression: {}}"
    data = "{train: train.jsonl, eval: eval.jsonl, holdout: holdout.jsonl}"

    def write(data: str) -> None:
        file = loops.write(gates=gates)
        text = (loops.root / file).read_text()
        loops.put(str(file), text.replace("{train: train.jsonl, eval: eval.jsonl}", data))

    row = '{"id": "h", "prompt": "h?", "completion": " h"}\n'
    loops.put("holdout.jsonl", row)
    write(data)
    loops.train()
    loops.commit()
    assert [] == changes()
    if how == "edited":
        loops.put("holdout.jsonl", row.replace(" h", " x"))
        wanted = ("data.holdout", "holdout.jsonl", "holdout.jsonl, edited", True)
    elif how == "removed":
        write("{train: train.jsonl, eval: eval.jsonl}")
        wanted = ("data.holdout", "holdout.jsonl", "removed", True)
    else:
        loops.put("other.jsonl", row)
        write(data.replace("holdout.jsonl", "other.jsonl"))
        wanted = ("data.holdout", "holdout.jsonl", "other.jsonl", True)
    assert [wanted] == changes()


@pytest.mark.parametrize("how", ["moved", "name", "file"])
def test_a_loop_that_moved_is_followed(
    loops: Loops, changes: Callable[..., list[Row]], how: str
) -> None:
    """The gates of a loop with its log elsewhere, or under another name, are compared too."""
    loops.version(gates="{eval_loss: '<= 1.9'}")
    after = "{eval_loss: '<= 9'}"
    if how == "moved":
        (loops.root / "sub").mkdir()
        for name in ("x.ftloop.yaml", "improvement_log"):
            loops.repo.git("mv", name, f"sub/{name}")
        loops.write(folder="sub/", gates=after)
    else:
        if how == "file":
            loops.repo.git("rm", "-q", "x.ftloop.yaml")
        loops.write("z" if how == "file" else "x", gates=after, more="name: z\n")
        shutil.rmtree(loops.root / "improvement_log")
        loops.train()
    assert [("eval_loss", "<= 1.9", "<= 9", True)] == changes()


def test_a_new_loop_changes_no_gate(loops: Loops, changes: Callable[..., list[Row]]) -> None:
    """A loop that was not there before has nothing to be compared with."""
    loops.put("readme.md", "hello")
    loops.commit()
    loops.write()
    loops.train()
    assert [] == changes()


def test_a_formatter_changes_no_gate(loops: Loops, changes: Callable[..., list[Row]]) -> None:
    """Comments, line ends and layout are no change."""
    loops.version()
    path = loops.root / "x.ftloop.yaml"
    text = path.read_text()
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert [] == changes()
    loops.put("x.ftloop.yaml", f"# more\n{text}".replace("{regression: {}}", "\n  regression: {}"))
    assert [] == changes()


def test_a_loop_file_that_can_not_be_read(loops: Loops, capsys: Capture) -> None:
    """A broken loop file in the commit: that nothing is known of the gates is told."""
    loops.version()
    text = (loops.root / "x.ftloop.yaml").read_text()
    loops.put("x.ftloop.yaml", text.replace("{regression: {}}", "{eval_los: '<= 1'}"))
    loops.commit()
    loops.put("x.ftloop.yaml", text)
    capsys.readouterr()
    main(["gate"])
    said = " ".join(capsys.readouterr().out.split())
    assert "gates changed since HEAD (" in said
    assert "not known: the loop file at HEAD (" in said
    assert "can't be read: gate eval_los: unknown metric 'eval_los'" in said


def test_options_of_the_command_are_no_change(
    loops: Loops, changes: Callable[..., list[Row]]
) -> None:
    """--gate and --alpha replace what the loop file says; the loop file is as it was."""
    loops.version(gates="{eval_loss: '<= 1.9'}")
    options = ("--gate", "eval_loss <= 9", "--alpha", "0.3", "--fail-on", "inconclusive")
    assert [] == changes(*options)


@pytest.mark.parametrize("where", ["outside", "submodule"])
def test_a_log_elsewhere(loops: Loops, capsys: Capture, tmp_path: Path, where: str) -> None:
    """A log that the repository does not hold: the loop file is compared in its own repository."""
    folder = tmp_path / "logs"
    if where == "submodule":
        GitRepo.init(tmp_path / "source").commit({"readme": "logs"})
        loops.repo.git("submodule", "add", "--quiet", str(tmp_path / "source"), "logs")
        folder = loops.root / "logs"
    loops.write(gates="{regression: {}, eval_loss: '<= 1.9'}")
    loops.train("--log", str(folder))
    if where == "submodule":
        GitRepo(folder).commit()
    loops.commit()
    loops.write(gates="{regression: {}, eval_loss: '<= 9'}")
    capsys.readouterr()
    main(["gate", "--log", str(folder)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert "loosened eval_loss: <= 1.9 -> <= 9" in out


def test_staged_and_two_commits(loops: Loops, changes: Callable[..., list[Row]]) -> None:
    """What is staged, and a range of commits, are compared as themselves."""
    first = loops.version(gates="{eval_loss: '<= 1.9'}")
    loops.write(gates="{eval_loss: '<= 9'}")
    wanted = [("eval_loss", "<= 1.9", "<= 9", True)]
    assert [] == changes("--staged")
    loops.repo.git("add", ".")
    assert wanted == changes("--staged")
    second = loops.commit()
    loops.write(gates="{eval_loss: '<= 1.9'}")
    assert wanted == changes(f"{first}..{second}")


@pytest.mark.parametrize("command", ["gate", "diff", "markdown", "ci"])
def test_every_command_tells(loops: Loops, capsys: Capture, command: str) -> None:
    """Gate, diff in all formats, and the report of ci."""
    loops.version(gates="{eval_loss: '<= 1.9', 'regression[negation]': {}}")
    loops.write(gates="{eval_loss: '<= 9', 'regression[negation]': {}}", rate=WORSE)
    loops.train()
    arguments: dict[str, Any] = {
        "gate": ["gate"],
        "diff": ["diff"],
        "markdown": ["diff", "--format", "markdown"],
        "ci": ["ci"],
    }
    capsys.readouterr()
    main(arguments[command])
    out = capsys.readouterr().out
    if command == "markdown":
        assert "**Gate changed** since HEAD (" in out
        row = "| loosened | eval_loss | &#60;= 1.9 | &#60;= 9 | 2.0000 fails the old bound |"
        assert row in re.sub(" +", " ", out)
    else:
        assert "gate changed since HEAD (" in out
        said = r"^ +loosened eval_loss: <= 1\.9 -> <= 9; 2\.0000 fails the old bound$"
        assert re.search(said, out, re.MULTILINE)
    if command == "ci":
        summary = (loops.root / "ftloop-ci/summary.md").read_text()
        assert summary.startswith("## \u274c ftloop: regressed, gate loosened\n")
        assert summary.index("**Gate changed**") < summary.index("- \u274c regression")
        (loop,) = json.loads((loops.root / "ftloop-ci/report.json").read_text())["loops"]
        assert [
            {
                "name": "eval_loss",
                "before": "<= 1.9",
                "after": "<= 9",
                "loosened": True,
                "held": False,
                "figure": "2.0000",
            }
        ] == loop["gate_changes"]["changes"]
    main(["diff", "--format", "json"])
    (item,) = json.loads(capsys.readouterr().out)
    assert ["eval_loss"] == [change["name"] for change in item["gate_changes"]["changes"]]


def test_the_names_of_the_rows_are_those_of_the_loop_file() -> None:
    """The keys that are compared exist: a renamed key must not be forgotten here."""
    assert {"alpha", "max_regression", "min_regression", "metrics", "fail_on"} <= set(
        Regression.__dataclass_fields__
    )
    assert {"name", "op", "bound"} <= set(Gate.__dataclass_fields__)
