"""The version that the baseline's commit really has: its loop file against its log."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli.main import main
from tests.plugin.conftest import BETTER, EVAL, ROOT, TRAIN, WORSE
from tests.plugin.regression_cases import judged, log_of

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

RETRAIN = "--ftloop-retrain-baseline"
FAKE = """\
import pytest_ftloop.loop.backend
from tests.plugin.fake_runner import FakeBackend

pytest_ftloop.loop.backend.local = FakeBackend
"""


@pytest.fixture
def pulled(
    gated: Project, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """As in a pull request to main, whose log has one version; any training is the fake one."""
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{ROOT}")
    return gated


def merged_without_log(project: Project, rate: str = BETTER) -> None:
    """Main's loop file gets other settings, but its log does not; then a branch starts."""
    project.rate(rate)
    project.commit()
    change(project)


def change(project: Project) -> None:
    """A branch with a commit of its own; without one there is nothing to merge."""
    project.repo.branch("change")
    project.write("README.md", "changed\n")
    project.commit()


def said(result: pytest.RunResult) -> str:
    return " ".join(result.stdout.str().split())


def test_merged_regression(pulled: Project) -> None:
    """A change that has nothing to do with it is told, and how to go on."""
    pulled.rate(WORSE)
    pulled.run("--ftloop").assert_outcomes(failed=1)
    pulled.commit()
    pulled.repo.branch("docs")
    pulled.write("README.md", "hello\n")
    pulled.commit()
    result = pulled.run("--ftloop-replay")
    result.assert_outcomes(failed=1)
    text = said(result)
    assert "merge base) has this version already: this change does not make it worse." in text
    accept = "ftloop accept best x.ftloop.yaml --baseline"
    assert f"{accept} accepts it; or restore the settings of 001-" in text


def test_regression_of_this_change(pulled: Project) -> None:
    """What is not on main yet is not called so."""
    change(pulled)
    pulled.rate(WORSE)
    result = pulled.run("--ftloop")
    result.assert_outcomes(failed=1)
    assert "already" not in said(result)


def test_merged_without_its_log(pulled: Project) -> None:
    """Better than main's log is not better than main: nobody can tell, so it fails."""
    merged_without_log(pulled)
    pulled.rate("1.2e-3")
    before = judged(pulled)
    result = pulled.run("--ftloop")
    result.assert_outcomes(failed=1)
    text = said(result)
    assert "regression: incomplete against main (" in text
    assert "has training.learning_rate 0.0016 (not 0.001), whose log was never committed" in text
    assert "train that version here" in text
    assert "\n  pytest --ftloop --ftloop-retrain-baseline x.ftloop.yaml\n" in result.stdout.str()
    assert before == judged(pulled)


def test_its_version_is_trained(pulled: Project) -> None:
    """`--ftloop-retrain-baseline` trains what main has; with that in the log, it is judged."""
    merged_without_log(pulled)
    pulled.rate("1.2e-3")
    for option in ("--ftloop", RETRAIN):
        result = pulled.run(option)
    result.assert_outcomes(failed=1)
    text = said(result)
    assert "regression: regressed against main (" in text
    assert "trained for this comparison" in text
    rates = [i.settings.get("training.learning_rate") for i in log_of(pulled).iterations()]
    assert [1.0e-3, 1.2e-3, 1.6e-3] == rates
    assert ["x 0.001", "x 0.0012", "x 0.0016"] == [f"x {rate:g}" for rate in rates]
    pulled.commit()
    trained = pulled.trained()
    result = pulled.run("--ftloop-replay")
    result.assert_outcomes(failed=1)
    assert "regression: regressed against main (" in said(result)
    assert trained == pulled.trained()


def test_log_that_is_added_later(pulled: Project) -> None:
    """The same settings with their log are the repair: judged by the version before, and told."""
    merged_without_log(pulled)
    result = pulled.run("--ftloop")
    result.assert_outcomes(passed=1)
    text = said(result)
    assert "regression: improved against main (" in text
    assert "has these settings and data already, but not their log: this adds it" in text


def test_back_to_the_logged_version(pulled: Project) -> None:
    """It is the version in main's log, and that this is not what main has is said."""
    merged_without_log(pulled)
    pulled.rate("1.0e-3")
    pulled.commit()
    result = pulled.run("--ftloop-replay")
    result.assert_outcomes(passed=1)
    result = pulled.run("--ftloop", "-rA")
    text = said(result)
    assert "regression: unchanged against main (" in text
    assert "so this is not compared with it" in text


@pytest.mark.parametrize("role", ["train", "eval"])
def test_data_merged_without_its_log(pulled: Project, role: str) -> None:
    """Other data on main than its log knows, whether the change has that data or its own."""
    rows: dict[str, list[Any]] = {"train": list(TRAIN), "eval": list(EVAL)}
    new = {"id": "new", "prompt": "new", "completion": " new"}
    pulled.write_rows(f"{role}.jsonl", [*rows[role], new])
    pulled.commit()
    change(pulled)
    pulled.rate(BETTER)
    assert f"has other {role} data, whose log was never" in said(pulled.run("--ftloop"))
    pulled.write_rows(f"{role}.jsonl", [*rows[role], new, {**new, "id": "more"}])
    assert f"has other {role} data, whose log was never" in said(pulled.run("--ftloop"))


def test_data_of_this_change(pulled: Project) -> None:
    """Data that only the change has is no matter of main's log."""
    change(pulled)
    pulled.write_rows("train.jsonl", TRAIN[:5])
    pulled.rate(BETTER)
    result = pulled.run("--ftloop")
    result.assert_outcomes(passed=1)
    assert "never committed" not in said(result)


def test_settings_that_change_no_figure(pulled: Project) -> None:
    """What is not part of a version, and how numbers are written, does not count."""
    pulled.edit("x.ftloop.yaml", "1.0e-3", "0.001")
    pulled.edit("x.ftloop.yaml", "num_train_epochs: 2", "num_train_epochs: 2, report_to: none")
    pulled.commit()
    change(pulled)
    pulled.rate(BETTER)
    result = pulled.run("--ftloop")
    result.assert_outcomes(passed=1)
    assert "never committed" not in said(result)


def test_broken_loop_file_at_the_base(pulled: Project) -> None:
    """It is said, and the log there is compared with."""
    whole = (pulled.path / "x.ftloop.yaml").read_text()
    pulled.write("x.ftloop.yaml", "data: [")
    pulled.commit()
    change(pulled)
    pulled.write("x.ftloop.yaml", whole)
    result = pulled.run("--ftloop")
    result.assert_outcomes(passed=1)
    assert "can't be read, so it is not compared" in said(result)


def test_acceptance_counts_against_its_baseline(
    pulled: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted in place of main's version then, not of a better one that main has since."""
    pulled.repo.branch("worse")
    pulled.rate(WORSE)
    pulled.run("--ftloop").assert_outcomes(failed=1)
    monkeypatch.chdir(pulled.path)
    assert 0 == main(["accept", "best", "--baseline"])
    (given,) = [j for j in log_of(pulled).judgements() if j.by == "hand"]
    assert given.baseline == log_of(pulled).iterations()[0].id
    pulled.commit()
    pulled.run("--ftloop-replay").assert_outcomes(passed=1)

    pulled.repo.switch("main")
    pulled.rate(BETTER)
    pulled.run("--ftloop").assert_outcomes(passed=1)
    pulled.commit()
    pulled.repo.switch("worse")
    pulled.repo.git("merge", "--quiet", "--strategy-option=ours", "--no-edit", "main")
    result = pulled.run("--ftloop-replay")
    result.assert_outcomes(failed=1)
    assert "regression: regressed against main (" in said(result)
    capsys.readouterr()
    assert 0 == main(["accept", "best", "--baseline"])
    assert "accepted iteration" in capsys.readouterr().out
    pulled.commit()
    pulled.run("--ftloop-replay").assert_outcomes(passed=1)
    assert 0 == main(["accept", "best", "--baseline"])
    assert "is accepted already" in capsys.readouterr().out
