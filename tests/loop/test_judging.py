"""A loop with a judge: its answers in the log, and its agreement with people."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.core import endpoint as endpoints
from pytest_ftloop.core.errors import LogError
from pytest_ftloop.evaluate.scored import scored_by_output
from pytest_ftloop.log import answers
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.endpoints import endpoint
from tests.fake_backend import FakeBackend
from tests.judges import biased, fair
from tests.loop.loop_cases import config, run

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_ftloop.core.records import Run

SECRET = "sk-a-key-that-nobody-may-see-0123456789"
CHECK = [
    {"prompt": f"p{n}", "expected": "good", "output": "good" if n < 5 else "bad", "pass": n < 5}
    for n in range(8)
]


class JudgedBackend(FakeBackend):
    """A fake backend whose outputs the loop's scorer scores."""

    def train(self, *arguments: Any, **named: Any) -> Run:
        run = super().train(*arguments, **named)
        assert self.inputs.scorer is not None
        rows = scored_by_output(
            run.evaluation.examples, self.inputs.eval.examples, self.inputs.scorer, "judge"
        )
        return replace(run, evaluation=replace(run.evaluation, examples=rows))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setenv("JUDGE_KEY", SECRET)


def judged(folder: Path, url: str, **scoring: Any) -> Any:
    judge = {"url": url, "model": "m", "rubric": "Is it right?", "api_key_env": "JUDGE_KEY"}
    return config(folder, iterations=1, scoring={"judge": judge, **scoring})


def test_a_replay_needs_neither_endpoint_nor_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each output is asked once; with another URL and no key the log is up to date."""
    with endpoint(fair) as served:
        first, _ = run(judged(tmp_path, served.url), JudgedBackend())
        asked = len(served.asked)
    assert 4 == asked
    assert 0.0 == first.best.metrics["score"]
    monkeypatch.delenv("JUDGE_KEY")
    again, _ = run(judged(tmp_path, "http://127.0.0.1:9/v1"), JudgedBackend(), replay=True)
    assert first.best.fingerprint == again.best.fingerprint


def test_a_retraining_asks_for_new_outputs_only(tmp_path: Path) -> None:
    """The same outputs of another training are graded by the answers in the log."""
    with endpoint(fair) as served:
        run(judged(tmp_path, served.url), JudgedBackend())
        run(judged(tmp_path, served.url), JudgedBackend(), retrain=True)
        assert 4 == len(served.asked)


def test_answers_are_restored_with_their_iteration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where CI kept the records, a lost log gets the answers as they were, and nobody is asked.

    A later training asks for new outputs only, and a replay finds all that it needs.
    """
    monkeypatch.setenv("FTLOOP_RECORDS", str(tmp_path / "kept"))
    (tmp_path / "graded.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in CHECK))
    log = tmp_path / "improvement_log"

    def answers() -> dict[str, str]:
        return {path.name: path.read_text() for path in (log / "s/judge").iterdir()}

    with endpoint(fair) as served:
        stated = judged(tmp_path, served.url, judge_check="graded.jsonl")
        first, _ = run(stated, JudgedBackend())
        before, asked = answers(), len(served.asked)
        shutil.rmtree(log)
        again, trainer = run(stated, JudgedBackend())
        assert (0, asked) == (trainer.loaded, len(served.asked))
        assert (first.trained, before) == (again.restored, answers())
        # Fewer rows make another record: it is scored by what was restored.
        (tmp_path / "graded.jsonl").write_text(f"{json.dumps(CHECK[0])}\n{json.dumps(CHECK[7])}\n")
        run(stated, JudgedBackend())
        assert asked == len(served.asked)
    monkeypatch.delenv("JUDGE_KEY")
    assert 0.0 == run(stated, JudgedBackend(), replay=True)[0].best.metrics["score"]


def test_damaged_answers_of_a_kept_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no answers of the judge: the record is named, trained again, and the judge asked."""
    monkeypatch.setenv("FTLOOP_RECORDS", str(tmp_path / "kept"))
    with endpoint(fair) as served:
        run(judged(tmp_path, served.url), JudgedBackend())
        shutil.rmtree(tmp_path / "improvement_log")
        (file,) = (tmp_path / "kept").glob("*/*/judge/*.jsonl")
        file.write_text(file.read_text().replace('"grade": 1', '"grade": 5'))
        again, trainer = run(judged(tmp_path, served.url), JudgedBackend())
        assert (1, 8) == (trainer.loaded, len(served.asked))
    (note,) = again.notes
    assert note.startswith("a kept record was ignored: ")
    assert "is of other answers" in note


@pytest.mark.parametrize(
    ("full", "message", "asked_again"),
    [
        (("improvement_log",), "4 answers of the judge kept for the next run in ", 0),
        (("improvement_log", "cache"), "4 answers of the judge could not be kept", 4),
    ],
    ids=["the log's disk", "both disks"],
)
def test_answers_that_the_log_cannot_take(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full: tuple[str, ...],
    message: str,
    asked_again: int,
) -> None:
    """They wait in the cache: the next run puts them into the log, and asks for none of them."""
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    write = answers.write_atomically

    def refused(path: Path, text: str) -> None:
        if path.relative_to(tmp_path).parts[0] in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    with endpoint(fair) as served:
        with monkeypatch.context() as on_a_full_disk:
            on_a_full_disk.setattr(answers, "write_atomically", refused)
            with pytest.raises(LogError, match=message):
                run(judged(tmp_path, served.url), JudgedBackend())
        before = len(served.asked)
        run(judged(tmp_path, served.url), JudgedBackend())
        assert asked_again == len(served.asked) - before
    (file,) = (tmp_path / "improvement_log/s/judge").iterdir()
    assert 4 == len(file.read_text().splitlines())
    assert [] == list((tmp_path / "cache").glob("waiting/*/judge/*"))


def test_the_key_is_in_no_file(tmp_path: Path) -> None:
    """No file of the log, and no name of one, has the key or the URL."""
    with endpoint(fair) as served:
        run(judged(tmp_path, served.url), JudgedBackend())
    for path in (tmp_path / "improvement_log").rglob("*"):
        text = path.name + (path.read_text(encoding="utf-8") if path.is_file() else "")
        assert SECRET not in text
        assert served.url not in text


def test_an_edited_answer_is_found(tmp_path: Path) -> None:
    """A file of answers that is not what was written is damaged."""
    with endpoint(fair) as served:
        run(judged(tmp_path, served.url), JudgedBackend())
        (file,) = (tmp_path / "improvement_log/s/judge").iterdir()
        file.write_text(file.read_text().replace('"grade": 1', '"grade": 5'))
        with pytest.raises(LogError, match="in its name is of other answers"):
            run(judged(tmp_path, served.url), JudgedBackend())


@pytest.mark.parametrize(("judge", "doubtful"), [(fair, False), (biased, True)])
def test_agreement_is_in_record_verdict_and_findings(
    tmp_path: Path, judge: Any, doubtful: bool
) -> None:
    """The judge's agreement with people is in record, verdict and findings: a warning if low."""
    check = tmp_path / "graded.jsonl"
    check.write_text("".join(f"{json.dumps(row)}\n" for row in CHECK))
    with endpoint(judge) as served:
        loop = Loop(
            judged(tmp_path, served.url, judge_check="graded.jsonl"),
            Options(),
            backend=JudgedBackend(),
        )
        result = loop.judge(loop.run())
        asked = len(served.asked)
    facts = result.best.facts["judge"]
    assert (8, 3 if doubtful else 0) == (facts["rows"], facts["flips"])
    (finding,) = (finding for finding in result.best.findings if finding.kind == "judge")
    assert ("warning" if doubtful else "info", doubtful) == (finding.severity, bool(finding.remedy))
    ((_, verdict),) = result.verdicts
    assert any(note.startswith("the judge agrees with 8 of 8") for note in verdict.notes)
    # 4 outputs, and 8 rows in two orders: rows of an equal text are asked once.
    assert 4 + 16 == asked


def test_graded_rows_change_no_grade(tmp_path: Path) -> None:
    """Other rows of `judge_check` make a new record; the pass rates are comparable all the same."""
    check = tmp_path / "graded.jsonl"
    check.write_text("".join(f"{json.dumps(row)}\n" for row in CHECK))
    with endpoint(fair) as served:
        first, _ = run(judged(tmp_path, served.url, judge_check="graded.jsonl"), JudgedBackend())
        check.write_text("".join(f"{json.dumps(row)}\n" for row in CHECK[:6]))
        more, _ = run(judged(tmp_path, served.url, judge_check="graded.jsonl"), JudgedBackend())
        assert first.best.fingerprint != more.best.fingerprint
        assert first.best.metrics["score"] == more.best.metrics["score"]
        assert 4 + 16 == len(served.asked)


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[1]",
        "not JSON",
        '{"key": "k", "text": "t"}',
        '{"key": "k", "grade": "5", "text": "t"}',
        '{"key": "k", "grade": true, "text": "t"}',
        '{"key": "k", "grade": NaN, "text": "t"}',
        '{"key": ["k"], "grade": 5, "text": "t"}',
        "[" * 100_000,
    ],
)
def test_a_strangers_answers(tmp_path: Path, line: str) -> None:
    """A file whose name fits its content, but which holds no answers, is an error with its line."""
    with endpoint(fair) as served:
        first, _ = run(judged(tmp_path, served.url), JudgedBackend())
        good = next((first.log_folder / "judge").iterdir()).read_text()
        text = f"{good}{line}\n"
        tag = hashlib.sha256(text.encode()).hexdigest()[:16]
        (first.log_folder / "judge" / f"{tag}.jsonl").write_text(text)
        number = text.count("\n")
        with pytest.raises(LogError, match=rf"{tag}\.jsonl:{number}: .*wanted an answer"):
            run(judged(tmp_path, served.url), JudgedBackend(), retrain=True)


def test_a_grade_that_the_judge_can_not_have_given(tmp_path: Path) -> None:
    """A grade off the scale would be a score above 1: the judge is asked again."""
    with endpoint(fair) as served:
        first, _ = run(judged(tmp_path, served.url), JudgedBackend())
        (file,) = (first.log_folder / "judge").iterdir()
        answers = [json.loads(line) | {"grade": 50} for line in file.read_text().splitlines()]
        text = "".join(json.dumps(answer) + "\n" for answer in answers)
        file.unlink()
        tag = hashlib.sha256(text.encode()).hexdigest()[:16]
        file.with_name(f"{tag}.jsonl").write_text(text)
        again, _ = run(judged(tmp_path, served.url), JudgedBackend(), retrain=True)
    assert 0.0 == again.best.metrics["score"]
