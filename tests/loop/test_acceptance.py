"""The verdict of a run, and the holdout: opened once, and seen nowhere else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pytest_ftloop.core.cache import adapter_folder
from pytest_ftloop.core.errors import DataError
from pytest_ftloop.gate.comparison import is_in_doubt
from tests.gitfakes import GitRepo
from tests.loop.lab import Lab, commit


def test_holdout_is_loaded_after_everything_was_decided(lab: Lab) -> None:
    """Trained, diagnosed, decided, logged and judged first; only then loaded and measured."""
    loop = lab.loop()
    result = loop.run()
    assert ["train"] * 3 == lab.happened
    before = lab.files()
    assert loop.judge(result).verdict.ok
    assert ["train"] * 3 + ["load", "measure"] == lab.happened
    after = lab.files()
    assert before == {name: content for name, content in after.items() if name in before}
    new = sorted(after.keys() - before.keys())
    assert ["holdout", "holdout", "verdicts"] == [name.split("/")[1] for name in new]


def test_a_missing_holdout_is_an_error_before_the_training(lab: Lab) -> None:
    """It is not read until the end, but that it is there is looked up first."""
    with pytest.raises(DataError, match=r"data file .*holdot\.jsonl does not exist"):
        lab.loop(holdout="holdot.jsonl").run()
    assert [] == lab.happened


def test_holdout_changes_nothing_else(tmp_path: Path, lab: Lab) -> None:
    """With and without a holdout the records, decisions and judgements are the same bytes."""
    other = Lab(GitRepo.init(tmp_path / "without").root)
    results = [lab.judged(), other.judged(holdout=None)]
    commit(lab)
    commit(other)
    results += [lab.judged(rate=1.6e-3), other.judged(rate=1.6e-3, holdout=None)]
    # Their commands name the loop's file: each lab is a folder of its own.
    verdicts = [
        str(result.verdict.as_record())
        .replace(str(of.folder), "here")
        .replace(os.path.relpath(of.folder), "here")
        for result, of in zip(results, [lab, other] * 2, strict=True)
    ]
    assert verdicts[0] == verdicts[1]
    assert verdicts[2] == verdicts[3]
    with_it = {name: text for name, text in lab.files().items() if "/holdout/" not in name}
    assert other.files() == with_it
    for one, two in ((results[0], results[1]), (results[2], results[3])):
        assert [(i.findings, i.decision) for i in one.chain] == [
            (i.findings, i.decision) for i in two.chain
        ]


def test_log_holds_no_text_of_the_holdout(lab: Lab) -> None:
    """No prompt, expected text or answer of it is in any file of the log."""
    lab.judged()
    assert "measure" in lab.happened
    files = lab.files()
    assert any("/holdout/" in name for name in files)
    for name, content in files.items():
        assert b"xyzzy" not in content, name


def test_holdout_is_opened_once(lab: Lab) -> None:
    """Run again, the opening is in the log; the next accepted iteration opens it again."""
    for _ in range(2):
        result = lab.judged()
        assert result.verdict.ok
    assert 1 == lab.happened.count("measure")
    commit(lab)
    assert lab.judged().verdict.ok
    assert 1 == lab.happened.count("measure")
    report = result.holdout
    assert report is not None
    assert (1, None) == (report.uses, report.reference)
    assert pytest.approx(2.0) == report.metrics["eval_loss"]


def test_holdout_stays_closed_for_what_merely_passes(lab: Lab) -> None:
    """Unchanged is no acceptance."""
    lab.judged()
    commit(lab)
    again = lab.judged(rate=1.59e-3, iterations=1)
    assert again.verdict.kind in {"unchanged", "inconclusive"}
    assert again.verdict.ok
    assert 1 == lab.happened.count("measure")
    assert again.holdout is None


def test_holdout_stays_closed_without_a_gate_or_in_a_replay(lab: Lab) -> None:
    """Nobody asked for a verdict; or one may be said, and nothing be opened."""
    lab.loop().run()
    replayed = lab.judged(replay=True)
    assert replayed.verdict.ok
    assert replayed.holdout is None
    assert ["train"] * 3 == lab.happened


def test_holdout_stays_closed_without_the_adapter(lab: Lab) -> None:
    """What was trained elsewhere can't be measured here."""
    loop = lab.loop()
    result = loop.run()
    shutil.rmtree(adapter_folder(result.best.weights))
    assert loop.judge(result).verdict.ok
    assert ["train"] * 3 == lab.happened


def test_escalation_never_in_a_replay(lab: Lab) -> None:
    """A candidate in doubt is judged by the seeds there are; a run that trains takes three."""
    lab.loop(rate=1.6e-3, iterations=1).run()
    commit(lab)
    loop = lab.loop(rate=1.5e-3, iterations=1)
    loop.run()
    trained = lab.happened.count("train")
    verdict = lab.judged(rate=1.5e-3, iterations=1, replay=True).verdict
    assert is_in_doubt(verdict)
    assert trained == lab.happened.count("train")
    verdict = lab.judged(rate=1.5e-3, iterations=1).verdict
    assert trained + 2 == lab.happened.count("train")
    assert 3 == verdict.changes[0].test.k_candidate
    before = lab.files()
    assert verdict == lab.judged(rate=1.5e-3, iterations=1).verdict
    assert before == lab.files()
