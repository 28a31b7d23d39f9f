"""Over the iterations of a chain: what broke, what never passed, what comes and goes."""

from __future__ import annotations

import math
from dataclasses import replace

from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.records import ExampleResult, Finding
from pytest_ftloop.diagnose import Evidence
from pytest_ftloop.diagnose.courses import findings
from tests.fakes import fake_example, fake_iteration, fake_metrics, fake_training


def shown(passed: str) -> tuple[ExampleResult, ...]:
    """One example a letter: p passed, f failed, - not scored."""
    outcome = {"p": True, "f": False, "-": None}
    return tuple(fake_example(f"e{n:02d}", outcome[letter]) for n, letter in enumerate(passed))


def evidence(*iterations: str, losses: tuple[float, ...] = ()) -> Evidence:
    """The last one is this iteration, those before it its history."""
    *before, now = iterations
    figures = losses or tuple(2.0 - 0.1 * n for n in range(len(before)))
    history = tuple(
        fake_iteration(n, examples=shown(passed), metrics=fake_metrics(loss))
        for n, (passed, loss) in enumerate(zip(before, figures, strict=True), start=1)
    )
    of = Evidence.of(fake_training(), fake_metrics(), fake_metrics(), 5.0, history=history)
    return replace(of, results=shown(now))


def found(e: Evidence) -> dict[str, Finding]:
    return {finding.kind: finding for finding in findings(e)}


def test_the_first_iteration_has_no_courses() -> None:
    """There is nothing to compare with."""
    assert () == findings(evidence("ppff"))


def test_broken_against_the_best_before() -> None:
    """Not against the last one, but against that with the best figure; fixed ones are counted."""
    e = evidence("ppppff", "ffffff", "ppfpff", "fpppfp", losses=(1.5, 3.0, 1.0))
    broken = found(e)["broken"]
    assert broken.evidence == {
        "iteration": 3,
        "broken": 1,
        "fixed": 2,
        "examples": 6,
        "ids": "e00",
        "fixed_ids": "e02, e05",
    }
    assert "info" == broken.severity
    assert "Against iteration 3, the best before, 1 example broke and 2 were fixed: e00." == (
        broken.message
    )


def test_nothing_broke() -> None:
    """Only fixed: nothing to say, nor without a figure to choose the best by."""
    assert "broken" not in found(evidence("pfff", "ppff", losses=(1.0,)))
    assert "broken" not in found(evidence("pppf", "pfpf", losses=(math.nan,)))


def test_never_passed() -> None:
    """Failed in this and in every iteration before."""
    never = found(evidence("pfff", "fpff", "pfff"))["never-passed"]
    assert never.evidence == {"never_passed": 2, "examples": 4, "iterations": 3, "ids": "e02, e03"}


def test_where_nothing_ever_passed_the_model_fails() -> None:
    """All examples failing everywhere is no property of examples."""
    assert {} == found(evidence("ffff", "ffff", "ffff"))


def test_flaky() -> None:
    """Back to what it was before, the most changes first; one change is progress, or a fault."""
    e = evidence("pfpfp", "fpppp", "pfppp", "fpppf", losses=(1.0, 2.0, 3.0))
    flaky = found(e)["flaky"]
    assert flaky.evidence == {"flaky": 2, "examples": 5, "iterations": 4, "ids": "e00, e01"}


def test_a_few_flaky_ones_are_not_worth_a_word() -> None:
    """One of a hundred comes and goes."""
    assert "flaky" not in found(evidence(*(letter + 99 * "p" for letter in "pfpf")))


def test_changed_content_is_another_example() -> None:
    """Examples are matched by id and content, so a rewritten one has no course."""
    e = evidence("pppp", "fppp")
    rewritten = tuple(replace(row, content=f"new {row.id}") for row in e.results)
    assert "broken" in found(e)
    assert {} == found(replace(e, results=rewritten))


def test_unscored_examples_have_no_course() -> None:
    """The train sample and runs without a scorer say neither."""
    assert {} == found(evidence("----", "----"))
    assert {} == found(evidence("pp--", "pp--"))


def test_findings_say_what_the_courses_did() -> None:
    """How many of how many did it, in how many iterations, and which."""
    e = evidence("pfpfp", "fpppp", "pfppp", "fpppf", losses=(1.0, 2.0, 3.0))
    assert "2 of 5 examples passed and failed in turns over 4 iterations: e00, e01." == (
        found(e)["flaky"].message
    )
    never = found(evidence("pfff", "fpff", "pfff"))["never-passed"]
    assert "2 of 4 examples passed in none of 3 iterations: e02, e03." == never.message
    assert never.remedy.startswith("No setting mended these")


def test_long_ids_are_cut() -> None:
    """An id that is a whole text is not repeated to its end, ten times."""
    e = evidence(20 * "p", 20 * "f")
    rows = tuple(replace(row, id=row.id + "x" * 15_000) for row in e.results)
    old = tuple(replace(row, id=row.id + "x" * 15_000) for row in e.history[0].examples)
    history = (replace(e.history[0], examples=old),)
    broken = found(replace(e, results=rows, history=history))["broken"]
    assert len(broken.message) < 900


def test_no_more_than_ten_ids() -> None:
    """Counts tell the rest."""
    finding = found(evidence(40 * "p", 40 * "f"))["broken"]
    assert 40 == finding.evidence["broken"]
    assert 10 == len(str(finding.evidence["ids"]).split(", "))


class DamagedTable(tuple[ExampleResult, ...]):
    """A table that can't be read, as the log's are when somebody edited them."""

    def __iter__(self):
        raise LogError("damaged")


def test_a_damaged_table_is_passed_over() -> None:
    """An iteration just trained is not lost because an earlier one can't be read."""
    e = evidence("pppp", "pppp", "fppp", losses=(2.0, 1.0))
    damaged = replace(e.history[0], examples=DamagedTable())
    assert "broken" in found(replace(e, history=(damaged, e.history[1])))
    assert {} == found(replace(e, history=(damaged,)))
