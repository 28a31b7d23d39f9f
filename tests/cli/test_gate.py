"""`ftloop gate`: its exit codes, which commits it compares, and what it says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.cli import main
from tests.cli.gate_cases import Capture, Gate
from tests.loops import BETTER, IN_DOUBT, WORSE, Loops

# exit codes


def test_all_hold(loops: Loops, gate: Gate) -> None:
    """The committed version is unchanged and its thresholds hold: 0, each is named."""
    loops.version(gates="{regression: {}, eval_loss: '<= 1.9'}")
    code, out, err = gate()
    assert (0, "") == (code, err)
    assert out.startswith("x: iteration 001-")
    assert "\nholds   eval_loss 1.6800, wanted <= 1.9\n" in out
    assert "\nregression: unchanged against HEAD (" in out


def test_regressed(loops: Loops, gate: Gate) -> None:
    """A proven drop is 1, with the table, the broken examples and what to do."""
    loops.version()
    loops.write(rate=WORSE)
    loops.train()
    code, out, err = gate()
    assert (1, "") == (code, err)
    assert "\nFAILED\nregression: regressed against HEAD (" in out
    assert "eval_loss 1.6800 -> 2.0000 (+0.3200, mean of 3 seeds against 1 run)" in " ".join(
        out.split()
    )
    assert "\nbroken: 3 of 3 examples that passed now fail; all of them answer " in out
    assert '\n    prompt    "what is 2?"\n' in out
    assert out.endswith(
        "\nall that changed: ftloop diff x.ftloop.yaml\n"
        "what to do: set training.learning_rate back to 1e-3.\n"
        "only if eval_loss 2.0000 in place of 1.6800 is intended, accept it and commit:\n"
        "  ftloop accept best x.ftloop.yaml --baseline\n"
    )


def test_improved(loops: Loops, gate: Gate) -> None:
    """A proven gain is 0."""
    loops.version()
    loops.write(rate=BETTER)
    loops.train()
    code, out, _ = gate()
    assert 0 == code
    assert "\nregression: improved against HEAD (" in out


def test_loop_without_the_gate(loops: Loops, gate: Gate) -> None:
    """A loop without a regression gate is compared by the defaults."""
    loops.version(gates="{eval_loss: '<= 9'}")
    loops.write(rate=WORSE, gates="{eval_loss: '<= 9'}")
    loops.train()
    code, out, _ = gate()
    assert 1 == code
    assert "regression: regressed against HEAD (" in out


def test_threshold(loops: Loops, gate: Gate) -> None:
    """A threshold that does not hold is 1."""
    loops.version(gates="{eval_loss: '<= 1.5'}")
    code, out, _ = gate()
    assert 1 == code
    assert "\nFAILED  eval_loss 1.6800, wanted <= 1.5\n" in out


def test_stale(loops: Loops, gate: Gate) -> None:
    """A log that is out of date is 3, with the command that mends it."""
    loops.version()
    loops.write(rate=WORSE)
    code, out, err = gate()
    assert (3, "") == (code, out)
    assert "x.ftloop.yaml: the improvement log of x is out of date: settings changed since" in err
    assert "\n    training.learning_rate 1e-3 -> 2e-4\n" in err
    assert "Run pytest --ftloop and commit improvement_log/." in err


def test_no_log_at_all(loops: Loops, gate: Gate) -> None:
    """A loop that was never trained is 3."""
    loops.write()
    loops.commit()
    code, out, err = gate()
    assert (3, "") == (code, out)
    assert "x.ftloop.yaml: the improvement log of x is out of date: it is empty" in err


def test_missing_seeds(loops: Loops, gate: Gate) -> None:
    """Seeds that the loop asks for and the log lacks are 3."""
    loops.version()
    loops.write(loop="{iterations: 1, seeds: 3}")
    code, _, err = gate()
    assert 3 == code
    assert "x.ftloop.yaml:8: the improvement log of x is incomplete: iteration 001-" in err
    assert "has 1 of 3 seeds" in err


def test_incomplete_record(loops: Loops, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate without a finite loss is 3, and no fail_on changes that."""
    loops.version()
    monkeypatch.setenv("FAKE_NOISE", "nan")
    loops.write(rate=WORSE)
    loops.train()
    code, out, _ = gate("--fail-on", "inconclusive")
    assert 3 == code
    assert "regression: incomplete against HEAD (" in out
    assert "what to do: train it again:\n  pytest --ftloop --ftloop-retrain x.ftloop.yaml\n" in out


@pytest.mark.parametrize("suffix", [".yaml", ".examples.csv"])
def test_damaged_log(loops: Loops, gate: Gate, suffix: str) -> None:
    """A damaged file of the log is 3, with its name and the cure."""
    loops.version()
    (file,) = (loops.root / "improvement_log/x").glob(f"001-*{suffix}")
    file.write_text(file.read_text().replace("fingerprint:", "fingrprint:").replace("e3", "e9"))
    code, out, err = gate()
    assert (3, "") == (code, out)
    assert f"improvement_log/x/{file.name}: damaged log file: " in err
    assert "git checkout -- " in err


def test_newer_log_of_the_baseline(loops: Loops, gate: Gate) -> None:
    """A record of a newer version in the commit is 3, named with its commit: it is not damaged."""
    loops.version()
    (file,) = (loops.root / "improvement_log/x").glob("001-*[0-9a-f].yaml")
    text = file.read_text()
    file.write_text(text.replace("schema: 3", "schema: 99"))
    commit = loops.commit()
    file.write_text(text)
    code, _, err = gate()
    assert 3 == code
    assert f"{commit[:7]}:improvement_log/x/{file.name}: written by a newer pytest-ftloop" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fail-on", "regresed"], "--fail-on: unknown verdict 'regresed'\n  Did you mean 'regr"),
        (["--fail-on", "unchanged"], "--fail-on: unknown verdict 'unchanged'\n  Valid names: "),
        (["--gate", "eval_loss"], "--gate: wanted a metric and a condition"),
        (["--gate", "<= 3"], "--gate: wanted a metric and a condition"),
        (["--gate", "eval_los <= 3"], "gate eval_los: unknown metric 'eval_los'\n  Did you mean"),
        (["--gate", "eval_loss >= 3"], "lower is better"),
        (["--gate", "regression <= 3"], "unknown metric 'regression'"),
        *(
            (["--alpha", text], f"--alpha: wanted a number from 0.0001, below 0.5, found {found}")
            for text, found in (
                ("0", "0"),
                ("0.5", "0.5"),
                ("nan", "nan"),
                ("inf", "inf"),
                ("1e-17", "1e-17"),
                ("1e-300", "1e-300"),
                ("9e-5", "9e-05"),
            )
        ),
        *(
            (
                ["--max-regression", text],
                f"--max-regression: wanted a number above 0, 0.5 at most, found {found}",
            )
            for text, found in (("1", "1"), ("0", "0"), ("0.51", "0.51"), ("nan", "nan"))
        ),
        (["no-such-branch"], "no commit 'no-such-branch' in the git repository"),
        (["HEAD..no-such"], "no commit 'no-such' in the git repository"),
        (["a", "b"], "'a' and 'b' are neither files nor folders"),
        (["HEAD....HEAD"], "wanted one commit or a range of two, found 'HEAD....HEAD'"),
        (["HEAD", "--baseline", "HEAD"], "the baseline is named twice"),
        (["missing.ftloop.yaml"], "no such file or folder: missing.ftloop.yaml"),
        (["../missing"], "no such file or folder: ../missing"),
    ],
    ids=" ".join,
)
def test_usage(loops: Loops, gate: Gate, arguments: list[str], said: str) -> None:
    """What can't be meant is 2, said once whatever the number of loops, before anything is."""
    loops.write("y")
    loops.version()
    code, out, err = gate(*arguments)
    assert (2, "") == (code, out)
    assert said in err
    assert (1 if "no-such-branch" not in arguments else 2) == err.count(said)


@pytest.mark.parametrize("arguments", [["--alpha", "x"], ["--jsn"], ["--report"]], ids=" ".join)
def test_usage_of_argparse(loops: Loops, capsys: Capture, arguments: list[str]) -> None:
    """What argparse refuses is 2 with a usage line."""
    with pytest.raises(SystemExit) as exited:
        main(["gate", *arguments])
    assert 2 == exited.value.code
    assert capsys.readouterr().err.startswith("usage: ftloop")


def test_broken_loop_file(loops: Loops, gate: Gate) -> None:
    """A mistake in a loop file is 2, with its line; the other loops are judged all the same."""
    loops.version()
    loops.put("a.ftloop.yaml", "data: 3\n")
    code, out, err = gate()
    assert 2 == code
    assert err.startswith("a.ftloop.yaml:1: ")
    assert "x: iteration 001-" in out


# several loops


def test_several_loops(loops: Loops, gate: Gate) -> None:
    """Each loop is judged, an empty line between them; the highest exit code counts."""
    for name in "xy":
        loops.write(name)
    loops.write("z", "deep/")
    loops.train()
    loops.commit()
    loops.write("y", rate=WORSE)
    loops.train()
    code, out, _ = gate()
    assert 1 == code
    parts = [part for part in out.split("\n\n") if ": iteration " in part.splitlines()[0]]
    assert ["x", "y", "z"] == [part.partition(":")[0] for part in parts]
    loops.write("x", rate=WORSE)
    assert 3 == gate()[0]
    assert 1 == gate("y.ftloop.yaml", "deep")[0]
    assert 0 == gate("deep")[0]


# JSON


def test_json(loops: Loops, gate: Gate) -> None:
    """--json prints one list with an item a loop, its exit code, figures and verdict."""
    loops.write("y", gates="{eval_loss: '<= 1.5', 'regression[negation]': {}}")
    loops.version()
    loops.write(rate=WORSE)
    loops.train()
    code, out, err = gate("--json")
    assert (1, "") == (code, err)
    x, y = json.loads(out)
    assert ("x", "x.ftloop.yaml", 1, []) == (x["loop"], x["source"], x["exit_code"], x["gates"])
    (verdict,) = x["verdicts"]
    assert ("regression", "regressed", False) == tuple(
        verdict[key] for key in ("gate", "kind", "ok")
    )
    assert x["against"].startswith("HEAD (")
    assert x["iteration"].startswith("002-")
    assert ["e2", "e3", "e4"] == verdict["broken"]
    assert 1.68 == pytest.approx(verdict["changes"][0]["baseline"])
    assert [{"gate": "eval_loss <= 1.5", "figure": 1.68, "passed": False}] == y["gates"]
    assert ["regression[negation]"] == [verdict["gate"] for verdict in y["verdicts"]]


def test_json_with_errors(loops: Loops, gate: Gate) -> None:
    """Errors are items of the list, and on stderr; nothing else is on stdout."""
    loops.version()
    loops.put("a.ftloop.yaml", "data: 3\n")
    loops.write(rate=WORSE)
    code, out, err = gate("--json")
    assert 3 == code
    broken, stale = json.loads(out)
    assert ("a.ftloop.yaml", 2) == (broken["source"], broken["exit_code"])
    assert ("x.ftloop.yaml", 3) == (stale["source"], stale["exit_code"])
    assert err == f"{broken['error']}\n{stale['error']}\n"


def test_json_without_a_number(loops: Loops, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure that is no number is null: the output is JSON whatever the log holds."""
    loops.version()
    monkeypatch.setenv("FAKE_NOISE", "nan")
    loops.write(rate=WORSE, gates="{eval_loss: '<= 9'}")
    loops.train()
    code, out, _ = gate("--json")
    assert 3 == code
    (item,) = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert [None] == [g["figure"] for g in item["gates"]]


# what fails


def test_report_only(loops: Loops, gate: Gate) -> None:
    """--report-only says everything and is 0 for a failed gate and for a log out of date."""
    loops.version()
    loops.write(rate=WORSE)
    code, _, err = gate("--report-only")
    assert 0 == code
    assert "is out of date" in err
    loops.train()
    code, out, _ = gate("--report-only")
    assert 0 == code
    assert "regression: regressed against HEAD (" in out


def test_report_only_of_an_error(loops: Loops, gate: Gate) -> None:
    """--report-only does not hide a mistake, not even beside a log that is out of date."""
    loops.version()
    loops.put("a.ftloop.yaml", "data: 3\n")
    loops.write(rate=WORSE)
    assert 2 == gate("--report-only")[0]


VERDICTS = ("regressed", "inconclusive", "not-comparable")


ASKED = [
    ",".join(kind for kind, is_in in zip(VERDICTS, chosen, strict=True) if is_in)
    for chosen in [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
]


@pytest.mark.parametrize("kind", VERDICTS)
def test_fail_on(gate: Gate, judged: Any, kind: str) -> None:
    """--fail-on only ever adds: what it names fails, and a regression fails in any case."""
    judged(kind)
    for asked in ASKED:
        code, out, _ = gate("--fail-on", asked)
        assert kind.replace("-", " ") in out
        assert int(kind == "regressed" or kind in asked.split(",")) == code, asked
    assert int(kind == "regressed") == gate()[0]
    assert 1 == gate("--fail-on", f" {kind} , regressed,")[0]


def test_fail_on_in_the_loop_file(loops: Loops, gate: Gate, judged: Any) -> None:
    """--fail-on is added to the loop file's own."""
    judged("inconclusive")
    loops.write(rate="9.9e-4", gates="{regression: {fail_on: [inconclusive]}}")
    assert 1 == gate()[0]
    assert 1 == gate("--fail-on", "regressed")[0]
    assert 1 == gate("--fail-on", "not-comparable")[0]


RENAMES = {
    "log deleted in the change": ("name: z\n", True),
    "log deleted before": ("", False),
    "named anew, log deleted before": ("name: z\n", False),
}


@pytest.mark.parametrize("case", RENAMES)
def test_a_strict_loop_does_not_start_anew(loops: Loops, gate: Gate, case: str) -> None:
    """fail_on: [not-comparable] fails where the loop's log was deleted, until it is accepted."""
    more, at_once = RENAMES[case]
    gates = "{regression: {fail_on: [not-comparable]}}"
    loops.version(gates=gates)
    shutil.rmtree(loops.root / "improvement_log")
    if not at_once:
        loops.commit()
    loops.write(rate=WORSE, gates=gates, more=more)
    loops.train()
    code, out, err = gate()
    said = " ".join(out.split())
    assert 1 == code
    if case == "log deleted in the change":  # the log at HEAD is followed
        assert "z continues x" in said
        return
    if case == "named anew, log deleted before":
        assert "x: has a log at HEAD^ " in err
        return
    assert "deleted since then: improvement_log/x" in said or "the log was deleted in " in said
    assert "what to do: put the old log back" in said
    assert 0 == main(["accept", "--baseline"])
    assert (0, True) == (gate()[0], "accepted by hand" in gate()[1])


@pytest.mark.parametrize("arguments", [[], ["--fail-on", "regressed,inconclusive,not-comparable"]])
def test_first_version(loops: Loops, gate: Gate, arguments: list[str]) -> None:
    """A first version passes, however strict: nothing was there that could be better."""
    loops.write()
    loops.commit()
    loops.train()
    code, out, _ = gate(*arguments)
    assert 0 == code
    assert "so there is nothing to compare with yet" in " ".join(out.split())


def test_no_repository(
    loops: Loops, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Outside a repository nothing is compared; that fails only when asked to."""
    loops.version()
    (loops.root / ".git").rename(tmp_path / "elsewhere")
    assert 0 == main(["gate"])
    assert "is not in a git repository" in " ".join(capsys.readouterr().out.split())
    assert 1 == main(["gate", "--fail-on", "not-comparable"])
    assert "commit improvement_log/" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "elsewhere").rename(loops.root / ".git")


def test_a_repository_that_git_cannot_read(loops: Loops, capsys: Capture) -> None:
    """In a damaged repository a log is not a first version, which would pass."""
    loops.version()
    (loops.root / ".git" / "HEAD").write_text("junk\n")
    assert 2 == main(["gate"])
    assert "which git can't read" in " ".join(capsys.readouterr().err.split())


# thresholds


def test_gate_option(loops: Loops, gate: Gate) -> None:
    """--gate replaces the loop file's threshold on that metric, and adds others."""
    loops.version(gates="{eval_loss: '<= 1.5'}")
    code, out, _ = gate("--gate", "eval_loss<=1.7")
    assert 0 == code
    assert "<= 1.5" not in out
    code, out, _ = gate("--gate", "eval_loss <= 1.7", "--gate", "pass_rate[negation] >= 50%")
    assert 1 == code
    assert "\nholds   eval_loss 1.6800, wanted <= 1.7\n" in out
    assert "\nFAILED  pass_rate[negation] 0.0%, wanted >= 50%\n" in out


def test_gate_option_on_a_metric_of_a_loops_own(loops: Loops, gate: Gate) -> None:
    """A metric of the whole set is known by the loop file that states it, and judges that loop."""
    loops.write("x", more="metrics: {hits: accuracy}\n", gates="{eval_loss: '<= 9'}")
    loops.version("2e-4", gates="{eval_loss: '<= 9'}", more="metrics: {hits: accuracy}\n")
    loops.write("y", gates="{eval_loss: '<= 9'}")
    loops.train()
    loops.commit()
    code, out, err = gate("--gate", "hits >= 0")
    assert (0, "") == (code, err)
    assert 1 == out.count("hits 0.0000, wanted >= 0")
    assert out.index("x: iteration") < out.index("holds   hits") < out.index("y: iteration")
    code, _, err = gate("--gate", "hit >= 0")
    assert 2 == code
    assert "--gate: gate hit: unknown metric 'hit'; no loop has it: besides eval_loss, " in err
    assert "x has hits\n  Did you mean 'hits'?" in err
    assert "Traceback" not in err
    code, _, err = gate("--gate", "score.fields >= 0.5")
    assert 2 == code
    assert "gate score.fields: wanted score.fields, but the scorer 'exact' gives no score" in err


def test_gate_option_on_a_metric_of_a_log_without_a_loop_file(loops: Loops, gate: Gate) -> None:
    """A log that has the metric is judged by it, alone or beside a loop that lacks it."""
    loops.version(more="metrics: {hits: accuracy}\n", gates="{eval_loss: '<= 9'}")
    (loops.root / "x.ftloop.yaml").unlink()
    base = loops.commit()
    for expected in (["x"], ["y", "x"]):
        code, out, _ = gate(base, "--gate", "hits >= 0.7")
        assert expected == re.findall(r"^(\w+): iteration", out, re.MULTILINE)
        assert 1 == code
        assert 1 == out.count("FAILED  hits 0.6000, wanted >= 0.7")
        assert out.index("x: iteration") < out.index("FAILED  hits")
        loops.write("y", gates="{eval_loss: '<= 9'}")
        loops.train()


def test_gate_option_on_a_score_of_a_scorer_of_ones_own(loops: Loops, gate: Gate) -> None:
    """It may give any score, so a threshold on one that another loop's scorer has judges it too."""
    loops.put("own.py", "def score(output, expected):\n    return output == expected\n")
    loops.write("y", more="scoring: {scorer: f1}\n")
    loops.write("x", more="scoring: {scorer: own:score}\n")
    loops.train()
    loops.commit()
    code, out, err = gate("--gate", "score >= 0")
    assert (0, "") == (code, err)
    assert 2 == out.count("holds   score 60.0%, wanted >= 0%")


def test_gate_option_of_an_unknown_tag(loops: Loops, gate: Gate) -> None:
    """A tag that no example has is 2."""
    loops.version()
    code, _, err = gate("--gate", "pass_rate[two words] >= 50%")
    assert 2 == code
    assert "gate pass_rate[two words]: no eval example is tagged 'two words'" in err


def test_alpha(loops: Loops, gate: Gate) -> None:
    """--alpha takes the place of the loop file's alpha."""
    loops.version()
    loops.write(rate=IN_DOUBT)
    loops.train()
    assert 0 == gate()[0]
    code, out, _ = gate("--alpha", "0.4", "--json")
    assert 1 == code
    assert 0.4 == json.loads(out)[0]["verdicts"][0]["alpha"]


def test_max_regression(loops: Loops, gate: Gate) -> None:
    """--max-regression says how large a drop has to be ruled out."""
    gates = "{regression: {metrics: [eval_loss]}}"
    loops.version(gates=gates)
    loops.write(rate="9.9e-4", gates=gates)
    loops.train()
    assert "regression: inconclusive" in gate("--max-regression", "0.01")[1]
    assert "regression: unchanged" in gate("--max-regression", "0.5")[1]
