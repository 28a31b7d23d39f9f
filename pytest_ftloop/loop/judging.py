"""A loop's judge: its answers in the log, and how far it agrees with people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.errors import LogError, shown_path
from pytest_ftloop.core.records import Finding
from pytest_ftloop.data.sources import read_rows
from pytest_ftloop.diagnose.naming import plural
from pytest_ftloop.evaluate.agreement import Agreement, agreement, graded_rows
from pytest_ftloop.evaluate.judge import Answer, JudgeScorer
from pytest_ftloop.log.answers import (
    forget_waiting,
    keep_waiting,
    read_answers,
    waiting_answers,
    write_answers,
)
from pytest_ftloop.log.files import FolderFiles

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.log import ImprovementLog
    from pytest_ftloop.loop.inputs import Inputs

FACT = "judge"
"""Where an iteration's facts hold the judge's agreement with people."""


def recall(inputs: Inputs, log: ImprovementLog, progress: Progress) -> None:
    """Give the loop's judges, if it has any, the answers in the log; new ones are written there."""
    scorers = [scorer for scorer in _scorers(inputs) if isinstance(scorer, JudgeScorer)]
    if not scorers:
        return
    answers = [_answer_of(said) for said in read_answers(FolderFiles(log.folder))]
    for scorer in scorers:
        low, high = scorer.judge.scale
        # A grade that the judge can't have given is not believed, but asked for.
        scorer.known.update((said.key, said) for said in answers if low <= said.grade <= high)
        scorer.keep = partial(_keep, log, scorer)
        scorer.waiting = partial(_waiting, log)
        scorer.progress = progress


def _scorers(inputs: Inputs) -> list[Any]:
    """The scorers of the eval set and of the guards."""
    return [inputs.scorer, *(guard.scorer for guard in inputs.guards)]


def _keep(log: ImprovementLog, scorer: JudgeScorer, new: Sequence[Answer]) -> None:
    """Write new answers to the log. Where it can't be written they are kept for the next run."""
    answers = [asdict(answer) for answer in new]
    try:
        write_answers(log.folder, answers)
    except LogError as error:
        paid = plural(len(answers), "answer")
        try:
            kept = keep_waiting(log.folder, answers)
        except LogError:
            error.add(f"; {paid} of the judge could not be kept and will be asked for again")
        else:
            error.add(f"; {paid} of the judge kept for the next run in {shown_path(kept)}")
        raise
    forget_waiting(log.folder, scorer.known.keys())


def _waiting(log: ImprovementLog) -> Iterator[Answer]:
    return (_answer_of(said) for said in waiting_answers(log.folder))


def _answer_of(said: Mapping[str, Any]) -> Answer:
    return Answer(said["key"], said["grade"], said["text"])


def agreement_of(config: LoopConfig, inputs: Inputs) -> Agreement | None:
    """The judge's agreement with the rows of `judge_check`; None without a judge or such rows.

    Asks for what is not in the log.
    """
    scorer, source = inputs.scorer, config.scoring.judge_check
    if not isinstance(scorer, JudgeScorer) or source is None:
        return None
    where = config.locate("scoring.judge_check")
    rows = read_rows(source, "judge_check", config.folder, where)
    return agreement(scorer, graded_rows(rows, scorer, where))


def judge_facts(config: LoopConfig, inputs: Inputs) -> Mapping[str, Any]:
    """What a record's facts hold of the judge: its agreement with people, if it is measured."""
    found = agreement_of(config, inputs)
    return {} if found is None else {FACT: found.as_record()}


def judge_text(facts: Mapping[str, Any]) -> str:
    """The judge's agreement with people that a record holds, in a line; empty if it has none."""
    found = facts.get(FACT)
    return Agreement.from_record(found).text if found else ""


def judge_findings(config: LoopConfig, inputs: Inputs) -> tuple[Finding, ...]:
    """The judge's agreement as a finding, so that each report of an iteration shows it.

    A warning where it disagrees with people, or with itself in another order.
    """
    found = agreement_of(config, inputs)
    if found is None:
        return ()
    remedy = (
        "Make the rubric more precise, or take a stronger model, until the judge agrees with the "
        "grades in judge_check."
    )
    return (
        Finding(
            kind="judge",
            severity="warning" if found.is_doubtful else "info",
            message=f"{found.text[0].upper()}{found.text[1:]}.",
            evidence={**found.as_record()},
            remedy=remedy if found.is_doubtful else "",
            tunable=False,
        ),
    )


@contextmanager
def without_words(inputs: Inputs) -> Iterator[None]:
    """Keep only the grades of the judge's answers: its words may repeat what must stay secret."""
    scorer = inputs.scorer
    if not isinstance(scorer, JudgeScorer):
        yield
        return
    scorer.keeps_words = False
    try:
        yield
    finally:
        scorer.keeps_words = True
