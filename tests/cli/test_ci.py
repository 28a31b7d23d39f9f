"""`ftloop ci`: it judges as `ftloop gate` does, trains what is stale, and writes the reports."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.report.pull_request import from_json, render
from tests.github_fakes import commands, outputs
from tests.plugin.conftest import BETTER, GATED, WORSE, gated, project  # noqa: F401 - fixtures
from tests.report.hostile_texts import TEXTS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Project

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def repo(gated: Project, monkeypatch: pytest.MonkeyPatch) -> Project:  # noqa: F811
    """A repository with a judged loop; what is trained is noted from here on."""
    monkeypatch.chdir(gated.path)
    gated.write(".gitignore", "ftloop-ci\n")
    return gated


@pytest.fixture
def actions(repo: Project, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The job of a workflow, and the files that GitHub gives to it."""
    files = {
        name: repo.path.with_name(f"{repo.path.name}.{name}") for name in ("summary", "output")
    }
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(files["summary"]))
    monkeypatch.setenv("GITHUB_OUTPUT", str(files["output"]))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(repo.path))
    return files


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"report.html"}


def test_unchanged(repo: Project, capsys: Capture) -> None:
    """It prints what ftloop gate does, trains nothing, and writes the reports."""
    assert 0 == main(["gate"])
    said = capsys.readouterr().out
    assert 0 == main(["ci", "--train"])
    assert said == capsys.readouterr().out
    assert [] == repo.trained()
    assert {"report.json", "summary.md"} == written(repo.path / "ftloop-ci")
    report = from_json((repo.path / "ftloop-ci/report.json").read_bytes())
    assert "unchanged" == report.outcome
    assert render(report) == (repo.path / "ftloop-ci/summary.md").read_text(encoding="utf-8")


def test_stale(repo: Project, capsys: Capture) -> None:
    """A log that is out of date is exit code 3 and said; nothing is trained unasked."""
    repo.rate(BETTER)
    assert 3 == main(["ci", "--out", "deep/er"])
    assert "the improvement log of x is out of date" in capsys.readouterr().err
    assert [] == repo.trained()
    assert (
        (repo.path / "deep/er/summary.md")
        .read_text(encoding="utf-8")
        .startswith("## \u274c ftloop: log out of date\n")
    )


@pytest.mark.parametrize(
    ("rate", "code", "outcome"), [(BETTER, 0, "improved"), (WORSE, 1, "regressed")]
)
def test_train(repo: Project, capfd: Capture, rate: str, code: int, outcome: str) -> None:
    """What is out of date is trained by pytest, with the user's conftest.py, and then judged."""
    repo.rate(rate)
    assert code == main(["ci", "--train", "."])
    out = capfd.readouterr().out
    assert "x.ftloop.yaml" in out
    assert f"x {float(rate):g}" in repo.trained()
    report = from_json((repo.path / "ftloop-ci/report.json").read_bytes())
    assert (outcome, True) == (report.outcome, report.loops[0].trained)
    cases = ET.parse(repo.path / "ftloop-ci/junit.xml").getroot().iter("testcase")
    assert ["regression"] == [case.get("name") for case in cases]
    repo.trained_file.unlink()
    assert code == main(["ci", "--train"])
    assert [] == repo.trained()


def test_only_what_is_stale_is_trained(repo: Project, capfd: Capture) -> None:
    """Tests and loops that are up to date are no part of the run."""
    repo.write("y.ftloop.yaml", GATED.replace("1.0e-3", BETTER))
    repo.write("test_other.py", "def test_other():\n    assert 0\n")
    assert 0 == main(["ci", "--train"])
    assert {"y"} == {line.split()[0] for line in repo.trained()}
    assert "test_other" not in capfd.readouterr().out


def test_training_that_fails(repo: Project, capfd: Capture) -> None:
    """A run of pytest that breaks is told, and the log is as stale as before."""
    repo.rate(BETTER)
    repo.write("conftest.py", "raise RuntimeError('broken')\n")
    assert 3 == main(["ci", "--train"])
    captured = capfd.readouterr()
    assert "broken" in captured.out
    assert "training failed: pytest exited with 4" in captured.err


ADDOPTS = {
    "selection": "-k nothing -m never --deselect x.ftloop.yaml --ignore x.ftloop.yaml --lf --sw",
    "stops": "-x --maxfail=1",
    "only looks": "--collect-only",
    "only sets up": "--setup-plan",
    "replays": "--ftloop-replay",
    "another log": "--ftloop-log elsewhere --ftloop-baseline nowhere --ftloop-iterations 3",
    "without the plugin": "-p no:ftloop",
    "fixtures": "--fixtures",
}
OFTEN = {"selection", "replays", "without the plugin"}
"""Those that the default run tries."""


@pytest.mark.parametrize("where", ["ini", pytest.param("environment", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "case",
    [case if case in OFTEN else pytest.param(case, marks=pytest.mark.slow) for case in ADDOPTS],
)
def test_train_whatever_addopts_say(
    repo: Project, monkeypatch: pytest.MonkeyPatch, case: str, where: str, capfd: Capture
) -> None:
    """The user's addopts select and forbid nothing: what is stale is trained."""
    if where == "ini":
        repo.write("pytest.ini", f"[pytest]\naddopts = {ADDOPTS[case]}\n")
    else:
        monkeypatch.setenv("PYTEST_ADDOPTS", ADDOPTS[case])
    repo.rate(BETTER)
    assert 0 == main(["ci", "--train"])
    assert ["x 0.0016"] == repo.trained()
    assert not (repo.path / "elsewhere").exists()


def test_train_keeps_the_plugins_of_addopts(repo: Project, capfd: Capture) -> None:
    """A plugin that scores, and an option of the user's conftest.py, are there in training."""
    repo.write(
        "scores.py", "def pytest_ftloop_score(output, expected, example):\n    return True\n"
    )
    repo.write(
        "conftest.py",
        'pytest_plugins = ["tests.plugin.fake_runner"]\n'
        "def pytest_addoption(parser):\n    parser.addoption('--mine')\n"
        "def pytest_configure(config):\n    assert config.getoption('--mine') == 'here'\n",
    )
    repo.write("pytest.ini", "[pytest]\naddopts = -p scores --mine here -k nothing\n")
    text = (repo.path / "x.ftloop.yaml").read_text()
    repo.write("x.ftloop.yaml", f"{text}scoring: {{scorer: hook}}\n")
    assert 0 == main(["ci", "--train"]), capfd.readouterr()
    report = from_json((repo.path / "ftloop-ci/report.json").read_bytes())
    assert 1.0 == report.loops[0].metrics["pass_rate"]


def test_fail_on(repo: Project, capfd: Capture) -> None:
    """The command line adds to what fails, also for what was trained just now."""
    repo.rate(WORSE)
    assert 1 == main(["ci", "--train", "--fail-on", "not-comparable"])
    assert 1 == main(["ci"])
    assert 2 == main(["ci", "--fail-on", "improved"])
    assert "--fail-on: unknown verdict 'improved'" in capfd.readouterr().err


def test_baseline(repo: Project, capfd: Capture) -> None:
    """The baseline is the commit that is named, in training too."""
    repo.rate(BETTER)
    assert 0 == main(["ci", "--train"])
    repo.commit()
    assert 0 == main(["ci", "--baseline", "HEAD"])
    assert "unchanged" == from_json((repo.path / "ftloop-ci/report.json").read_bytes()).outcome
    assert 0 == main(["ci", "--baseline", "HEAD~1"])
    assert "improved" == from_json((repo.path / "ftloop-ci/report.json").read_bytes()).outcome
    assert 2 == main(["ci", "--baseline", "nowhere"])


def test_loop_without_the_gate(repo: Project, capsys: Capture) -> None:
    """A loop without a regression gate is compared by its defaults."""
    repo.edit("x.ftloop.yaml", "  regression: {}\n", '  eval_loss: "<= 9"\n')
    assert 0 == main(["ci"])
    assert "regression: unchanged against HEAD" in capsys.readouterr().out


def test_several_loops(repo: Project, capsys: Capture) -> None:
    """One that is broken does not keep the others from being judged; the worst counts."""
    repo.write("broken.ftloop.yaml", "data: 1\n")
    assert 2 == main(["ci"])
    captured = capsys.readouterr()
    assert "broken.ftloop.yaml:1" in captured.err
    assert "regression: unchanged" in captured.out
    report = from_json((repo.path / "ftloop-ci/report.json").read_bytes())
    assert [("broken", "error"), ("x", "unchanged")] == [(s.loop, s.outcome) for s in report.loops]


def test_nothing_found(repo: Project, capsys: Capture, actions: dict[str, Path]) -> None:
    """No loop is an error, and later steps read so."""
    (repo.path / "empty").mkdir()
    assert 2 == main(["ci", "empty"])
    assert "no loop file" in capsys.readouterr().out
    assert ("error", "2") == tuple(
        outputs(actions["output"].read_text())[name] for name in ("verdict", "exit-code")
    )


def test_out_is_a_file(repo: Project, capsys: Capture) -> None:
    """A folder that can't be made is told."""
    repo.write("taken", "")
    assert 2 == main(["ci", "--out", "taken"])
    assert "--out: taken" in capsys.readouterr().err


def test_page_is_left_out(repo: Project, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the HTML page needs the rest is written, and it says so."""
    monkeypatch.setitem(sys.modules, "pytest_ftloop.report.html.gather", None)
    assert 0 == main(["ci"])
    assert "note: report.html was not written: " in capsys.readouterr().err
    names = {path.name for path in (repo.path / "ftloop-ci").iterdir()}
    assert {"report.json", "summary.md"} == names


# --- in a workflow -------------------------------------------------------------------------------


def test_outputs_and_summary(repo: Project, actions: dict[str, Path], capfd: Capture) -> None:
    """The outputs, the summary and no annotation for what holds."""
    assert 0 == main(["ci"])
    said = outputs(actions["output"].read_text())
    metrics = json.loads(said.pop("metrics"))
    assert {
        "verdict": "unchanged",
        "stale": "false",
        "exit-code": "0",
        "report": "ftloop-ci",
        "suffix": "",
    } == said
    assert pytest.approx(0.6) == metrics["x"]["pass_rate"]
    assert (
        actions["summary"].read_text(encoding="utf-8").startswith("## \u2705 ftloop: unchanged\n")
    )
    assert [] == commands(capfd.readouterr().out)


def test_stale_in_a_workflow(repo: Project, actions: dict[str, Path], capfd: Capture) -> None:
    """A stale log is an output for the next job, and an annotation at the loop file."""
    repo.rate(BETTER)
    assert 3 == main(["ci"])
    said = outputs(actions["output"].read_text())
    assert ("stale", "true", "3", "{}") == tuple(
        said[name] for name in ("verdict", "stale", "exit-code", "metrics")
    )
    captured = capfd.readouterr()
    (told,) = commands(captured.out)
    assert ("error", "x.ftloop.yaml") == (told.name, told.properties["file"])
    assert "out of date" in told.message
    assert "" == captured.err


def test_stale_ok(repo: Project, actions: dict[str, Path], capfd: Capture) -> None:
    """For a job before one that trains a stale log is no failure, but an output; others fail."""
    repo.rate(BETTER)
    assert 0 == main(["ci", "--stale-ok"])
    said = outputs(actions["output"].read_text())
    assert ("stale", "true", "0") == tuple(said[n] for n in ("verdict", "stale", "exit-code"))
    captured = capfd.readouterr()
    assert "out of date" in captured.out
    assert [] == commands(captured.out)
    assert [] == repo.trained()
    repo.write("broken.ftloop.yaml", "data: 1\n")
    assert 2 == main(["ci", "--stale-ok"])


def test_stale_ok_is_not_for_training(repo: Project, capfd: Capture) -> None:
    """What training left out of date is a failure."""
    with pytest.raises(SystemExit):
        main(["ci", "--stale-ok", "--train"])
    assert "not allowed with" in capfd.readouterr().err


def test_regression_in_a_workflow(repo: Project, actions: dict[str, Path], capfd: Capture) -> None:
    """Each gate that fails is told at its line, and what is printed beside is no command."""
    text = (repo.path / "x.ftloop.yaml").read_text(encoding="utf-8")
    repo.write(
        "x.ftloop.yaml",
        text.replace("  regression: {}\n", '  regression: {}\n  pass_rate: ">= 50%"\n'),
    )
    repo.rate(WORSE)
    assert 1 == main(["ci", "--train"])
    captured = capfd.readouterr()
    told = commands(captured.out)
    assert [("error", "5", "x: regressed"), ("error", "6", "x: threshold failed")] == [
        (one.name, one.properties["line"], one.properties["title"]) for one in told
    ]
    assert "pass_rate 0.0%, wanted >= 50%" == told[1].message
    assert "short test summary" in captured.out


def test_hostile_texts_in_a_workflow(
    repo: Project, actions: dict[str, Path], capfd: Capture
) -> None:
    """Texts of data, outputs and conftest.py reach no command, output or structure."""
    texts = [text.encode("utf-8", "replace").decode() for text in TEXTS]
    rows: list[dict[str, Any]] = [
        {
            "id": f"{number}{text[:200]}",
            "prompt": f"{text} is",
            "completion": f" {text}.",
            "tags": [text[:90]],
        }
        for number, text in enumerate(texts)
    ]
    repo.write_rows("eval.jsonl", rows)
    repo.write(
        "conftest.py",
        'pytest_plugins = ["tests.plugin.fake_runner"]\n'
        "from tests.report.hostile_texts import TEXTS\n"
        "def pytest_terminal_summary(terminalreporter):\n"
        "    for text in TEXTS:\n"
        "        print(text.encode('utf-8', 'replace').decode(), end='')\n",
    )
    repo.commit()
    assert 0 == main(["ci", "--train"])
    told = commands(capfd.readouterr().out)
    assert [("warning", "x: not comparable"), ("warning", "x: gate loosened")] == [
        (one.name, one.properties["title"]) for one in told
    ]
    repo.commit()
    repo.rate(WORSE)
    actions["output"].unlink()
    assert 1 == main(["ci", "--train"])
    told = commands(capfd.readouterr().out)
    assert {("error", "x: regressed")} == {(one.name, one.properties["title"]) for one in told}
    names = ["verdict", "stale", "exit-code", "metrics", "report", "suffix"]
    said = outputs(actions["output"].read_text(encoding="utf-8"))
    assert names == list(said)
    assert len(json.loads(said["metrics"])["x"]) > 100
    report = from_json((repo.path / "ftloop-ci/report.json").read_bytes())
    assert report.loops[0].broken.total > 100
    assert render(report, 10**6).replace("\n", "").isprintable()


def test_workflow_without_files(
    repo: Project, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every variable of GitHub's may be missing."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert 0 == main(["ci"])
    assert [] == commands(capfd.readouterr().out)
