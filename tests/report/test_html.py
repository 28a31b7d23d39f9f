"""The HTML report, read by the standard library's parser: what is in it, and what can't be."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("plotly")
from pytest_ftloop.config.gates import parse_gate
from pytest_ftloop.core.records import Adjustment, Decision, SeedRun
from pytest_ftloop.gate.thresholds import check_gates
from pytest_ftloop.report.html import loop_report
from pytest_ftloop.report.html.examples import columns, flaky_keys
from pytest_ftloop.report.html.gather import of_result
from pytest_ftloop.report.html.loop_report import LoopReport, left_out, shown
from pytest_ftloop.report.html.noise import spreads
from pytest_ftloop.report.html.page import loop_data, render, to_script_json
from pytest_ftloop.report.html.verdicts import _change
from tests.fakes import fake_example, fake_iteration, fake_metrics
from tests.report.fakes_html import big_report, fake_verdict
from tests.report.fakes_report import fake_chain, fake_result, nan_result

if TYPE_CHECKING:
    from collections.abc import Sequence

from tests.report.html_cases import Page, status


@pytest.fixture(scope="module")
def big() -> LoopReport:
    return big_report(60, 6)


@pytest.fixture(scope="module")
def big_page(big: LoopReport) -> Page:
    return Page(render([big], "1.2.3"))


# --- one file, no network ------------------------------------------------------------------------


def test_nothing_is_loaded(big_page: Page) -> None:
    """No element names anything outside the page, and the policy forbids it too."""
    for tag, attrs in big_page.elements:
        links = [attrs.get(name) for name in ("src", "href", "data", "action", "poster", "srcset")]
        for link in filter(None, links):
            assert link.startswith("#") or link == "data:,", (tag, link)
    assert "default-src 'none'" in big_page.policy
    assert "https:" not in big_page.policy
    assert "unsafe-inline" not in big_page.policy.partition("script-src")[2].partition(";")[0]


def test_the_policy_names_both_scripts(big_page: Page) -> None:
    """The page's own script and the packed library have the hashes that the policy allows."""
    own = next(text for attrs, text in big_page.scripts if not attrs)
    packed = next(text for attrs, text in big_page.scripts if attrs.get("id") == "plotly")
    for script in (own, gzip.decompress(base64.b64decode(packed)).decode()):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in big_page.policy
    kinds = sorted(attrs.get("type", "") or "" for attrs, _ in big_page.scripts)
    assert ["", "application/json", "text/plain"] == kinds


def test_the_same_records_give_the_same_page(big: LoopReport) -> None:
    """Nothing in a page is of the day, the machine or chance."""
    assert render([big]) == render([big_report(60, 6)])


def test_what_a_reviewer_reads(big: LoopReport, big_page: Page) -> None:
    """Verdict, figures, gates, findings, settings and cost stand in the page as text."""
    best = big.best.metrics
    for said in (
        "support-tickets",
        "loops/support-tickets.ftloop.yaml",
        "improved against main (30f61fc)",
        "eval_loss fell by more than chance explains",
        "could be worse",
        f"{best['eval_loss']:.4f}",
        f"{100 * best['pass_rate']:.1f}%",
        "the loop changes next: ",
        "Pass rate by tag",
        "sarcasm",
        "training.learning_rate",
        "3 seed runs",
        "14 min 01 s",
        "11,264 MiB",
        "pytest-ftloop 1.2.3",
    ):
        assert said in big_page.text, said


def test_every_label_has_its_element(big_page: Page) -> None:
    """Ids are unique, what refers to one finds it, and each control and region has a name."""
    ids = [attrs["id"] for _, attrs in big_page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in big_page.elements:
        assert (attrs.get("aria-labelledby") or ids[0]) in ids
        href = attrs.get("href") or ""
        assert not href.startswith("#") or href[1:] in ids
        if attrs.get("role") in {"region", "group", "img"}:
            assert attrs.get("aria-label"), tag
    assert ("html", {"lang": "en"}) in big_page.elements


# --- data ----------------------------------------------------------------------------------------


def test_examples_read_back(big: LoopReport, big_page: Page) -> None:
    """From the page's data each example's outcome, output, loss, prompt and tags are found."""
    data = big_page.data()["examples"]
    texts, best = data["texts"], big.iterations.index(big.best)
    rows = {row.id: row for row in big.best.examples}
    assert sorted(rows) == data["ids"]
    for place, id_ in enumerate(data["ids"]):
        row, result = rows[id_], data["results"][best]
        assert ("1" if row.passed else "0") == result["passed"][place]
        assert row.output == texts[result["output"][place]]
        assert row.expected == texts[data["expected"][place]]
        assert big.prompts[id_, row.content] == texts[data["prompt"][place]]
        assert list(row.tags) == [data["tagNames"][tag] for tag in data["tags"][place]]
        assert math.isclose(row.mean_loss, result["loss"][place], rel_tol=1e-3)


def test_each_text_is_held_once(big_page: Page) -> None:
    """Equal texts are one text of the table; the empty one is number 0."""
    texts = big_page.data()["examples"]["texts"]
    assert len(texts) == len(set(texts))
    assert "" == texts[0]


def test_baseline_and_best_are_compared_at_first(big: LoopReport, big_page: Page) -> None:
    """The outputs side by side are those of the baseline and of the best iteration."""
    data = big_page.data()
    assert big.baseline == big.iterations[data["before"]]
    assert big.best == big.iterations[data["after"]]


def test_not_finite_figures_are_null() -> None:
    """NaN and infinity, which JSON lacks, are null in the data and words in the text."""
    parsed = Page(render([of_result(nan_result())]))
    assert None is parsed.data()["metrics"]["eval_loss"]["values"][0]
    assert '{"a":[null,null,1.5]}' == to_script_json({"a": [math.nan, -math.inf, 1.5]})
    assert "nan" in parsed.text


@pytest.mark.parametrize(
    "text",
    [
        *("</script>", "<!--", "&amp;", "\u2028\u2029", "\ud800", "\x00"),
        *("\x9b2J", "\u202eab", "\u200b", "\U000e0041", "\x7f", "\u00e9\u4e2d"),
    ],
)
def test_json_cannot_end_its_element(text: str) -> None:
    """JSON for a script element has no character that HTML, old JavaScript or a terminal obeys."""
    said = to_script_json({text: [text]})
    assert None is re.search("[<>&]", said)
    assert said.isprintable()
    assert {text: [text]} == json.loads(said)


def test_changed_content_is_another_example() -> None:
    """Under one id other content is a row of its own, missing where it was not measured."""
    old = fake_iteration(1, examples=[fake_example("e1", content="a", output="was")])
    new = fake_iteration(2, examples=[fake_example("e1", passed=False, content="b")])
    found = columns([old, new, None], {("e1", "b"): "now?"}, ())
    assert ["e1", "e1"] == found["ids"]
    assert ["1-", "-0"] == [result["passed"] for result in found["results"][:2]]
    assert ["", "now?"] == [found["texts"][number] for number in found["prompt"]]
    assert None is found["results"][2]


def test_endless_outputs_are_cut() -> None:
    """A runaway output is cut, and its length said."""
    rows = [fake_example("e1", output="a" * 50_000)]
    found = columns([fake_iteration(1, examples=rows)], {}, ())
    assert "... (50000 characters)" == found["texts"][-1][-22:]
    assert len(found["texts"][-1]) < 20_100


# --- flaky, noise, what there is room for --------------------------------------------------------


def seed_run(of: Any, seed: int, metrics: Any = None, rows: Sequence[Any] = ()) -> SeedRun:
    return SeedRun(
        loop=of.loop,
        iteration=of.id,
        seed=seed,
        role="calibration",
        fingerprint=f"{seed}",
        group=of.group,
        scoring=of.scoring,
        data=of.data,
        metrics=metrics or of.metrics,
        environment=of.environment,
        cost=of.cost,
        examples=rows,
    )


def test_flaky_by_seed_or_back_and_forth() -> None:
    """Flaky is what differs between seeds, or changed its outcome twice; fixed once is not."""
    outcomes = {"back": (1, 0, 1), "fixed": (0, 1, 1), "seed": (1, 1, 1)}
    tables = [
        {
            (id_, id_): fake_example(id_, bool(passed[n]), content=id_)
            for id_, passed in outcomes.items()
        }
        for n in range(3)
    ]
    last = replace(fake_iteration(3, examples=tuple(tables[2].values())), group="g")
    other = [fake_example(id_, id_ != "seed", content=id_) for id_ in outcomes]
    found = flaky_keys(tables, [(last, seed_run(last, 43, rows=other))])
    assert {("back", "back"), ("seed", "seed")} == found


def test_the_seed_noise_of_the_log_is_around_every_iteration() -> None:
    """An iteration with seeds has their mean, one without its figure; the noise is the log's."""
    one = replace(fake_iteration(1, metrics=fake_metrics(2.0)), group="a")
    two = replace(fake_iteration(2, metrics=fake_metrics(1.0)), group="b")
    runs = [seed_run(two, 43, fake_metrics(1.2)), seed_run(two, 44, fake_metrics(1.1))]
    assert (None, None) == spreads("eval_loss", (one, two), (one, two), ())
    alone, repeated = spreads("eval_loss", (one, two), (one, two), runs)
    assert alone is not None
    assert repeated is not None
    assert ((2.0,), (1.0, 1.2, 1.1)) == (alone.values, repeated.values)
    assert [2.0, 1.1] == pytest.approx([alone.mean, repeated.mean])
    assert [0.1, 0.1] == pytest.approx([alone.sd, repeated.sd])


@pytest.mark.parametrize(("kind", "shown"), [("gates", False), ("plateau", True)])
def test_nothing_is_tried_next_where_nothing_better_is_expected(kind: str, shown: bool) -> None:
    """As on the terminal: after `the thresholds hold` no adjustment is proposed."""
    change = (Adjustment("training.learning_rate", 1e-3, 2e-3, "it may gain"),)
    made = big_report(20, 2)
    last = replace(made.iterations[-1], decision=Decision("stop", kind, "", change))
    page = Page(render([replace(made, iterations=(made.iterations[0], last), best=last)]))
    assert shown == ("Would be tried next" in page.text)


def test_the_untrained_base_has_no_seed_noise() -> None:
    """No band is drawn around a figure that no seed decides."""
    one = replace(fake_iteration(1, metrics=fake_metrics(1.0)), group="b")
    base = replace(one, number=0, group="")
    runs = [seed_run(one, 43, fake_metrics(1.2))]
    found = spreads("eval_loss", (base, one), (base, one), runs)
    assert (None, True) == (found[0], found[1] is not None)


def test_a_baseline_outside_the_log_is_shown_too() -> None:
    """A baseline that only its commit knows comes first, and an equal one is not shown twice."""
    chain = fake_chain()
    outside = replace(chain[0], metrics=fake_metrics(9.9), number=7, fingerprint="f" * 64)
    report = of_result(fake_result(chain))
    labels = [it.label for it in shown(replace(report, baseline=outside))]
    assert ["7 baseline", "1", "2", "3", "4"] == labels
    inside = shown(replace(report, baseline=chain[1]))
    assert [False, True, False, False] == [it.is_baseline for it in inside]


def test_long_logs_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long log the oldest go first, of many examples the older ones; the best never."""
    monkeypatch.setattr(loop_report, "MOST_ITERATIONS", 3)
    monkeypatch.setattr(loop_report, "MOST_RESULTS", 40)
    chain = fake_chain()
    report = replace(of_result(fake_result(chain)), best=chain[0], chain=frozenset())
    assert ["1", "3", "4"] == [it.label for it in shown(report)]
    assert 1 == left_out(report)
    assert [True, False, True] == [it.has_examples for it in shown(report)]
    data = loop_data(report)
    assert [True, False, True] == [bool(result) for result in data["examples"]["results"]]
    assert {0, 2} == {data["before"], data["after"]}


def test_two_of_one_number_are_told_apart() -> None:
    """Iterations of two branches with one number have labels of their own."""
    chain = fake_chain()
    twice = (chain[0], replace(chain[1], number=1, id="ffff0000"))
    labels = [it.label for it in shown(of_result(fake_result(twice)))]
    assert 2 == len(set(labels))


def test_status() -> None:
    """One word says whether the loop holds: by its gates and its verdict, if that is a gate."""
    chain = fake_chain()
    worse = fake_verdict(chain[0], chain[1], kind="regressed", ok=False)
    better = fake_verdict(chain[0], chain[1])
    unsure = fake_verdict(chain[0], chain[1], kind="inconclusive")
    new = fake_verdict(chain[0], chain[1], kind="not comparable", baseline=None)
    assert ("Not judged", "plain") == status()
    assert ("Passed", "good") == status(verdicts=(("regression", better),))
    assert ("Failed", "bad") == status(verdicts=(("regression", worse),))
    assert ("Uncertain", "warn") == status(verdicts=(("regression", unsure),))
    assert ("Not judged", "plain") == status(verdicts=(("regression", new),))
    told = {"verdicts": (("regression", worse),), "is_gated": False}
    assert ("Not judged", "plain") == status(**told)
    holds = check_gates([parse_gate("eval_loss", "<= 9")], chain[0].metrics)
    assert ("Passed", "warn") == status(gates=holds, **told)
    assert ("Passed", "good") == status(gates=holds)
    gates = fake_result(chain).gates
    assert ("Failed", "bad") == status(gates=gates, verdicts=(("regression", better),))


@pytest.mark.parametrize("kind", ["regressed", "improved", "unchanged", "inconclusive"])
def test_what_would_decide_is_said_of_what_is_open(kind: Any) -> None:
    """Beside a change that is proven, "489 examples would decide" contradicts it."""
    before, after, *_ = fake_chain()
    (change, *_) = fake_verdict(before, after).changes
    shown = _change(replace(change, kind=kind, decide="489 examples would decide"))
    assert shown["decide"] == ("489 examples would decide" if kind == "inconclusive" else "")
