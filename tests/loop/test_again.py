"""What the log knows the weights of is evaluated again, not trained again."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.cache import adapter_folder, training_file, unfinished_folder
from pytest_ftloop.core.errors import DamagedLogError, ScoringError, StaleLogError
from pytest_ftloop.core.metrics import best_metrics
from pytest_ftloop.core.records import Evaluation, Example, ExampleResult, is_unscored
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop.known_rows import Measurable, Source, known_rows
from pytest_ftloop.loop.trained import FORMAT, trained_of
from tests.fake_backend import fake_adapter
from tests.loop.again_cases import EVAL, LIMIT, TRAIN, Adapters, loop_of, run
from tests.loop.loop_cases import forge


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own: what is at hand is what the test has trained."""
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def log_of(folder: Path) -> ImprovementLog:
    return ImprovementLog(folder / "improvement_log/s")


NEW = {"id": "new", "prompt": "q7", "completion": "d7"}


# nothing is missing


def test_another_scorer_reads_the_logged_outputs(tmp_path: Path) -> None:
    """Another scorer needs no model: same training, same losses, same adapter, other passes."""
    old = run(tmp_path, Adapters()).best
    backend = Adapters()
    result = run(tmp_path, backend, scoring="contains")
    new = result.best
    assert [] == backend.asked
    assert ((new.id,), ()) == (result.evaluated, result.trained)
    assert (0.0, 0.5) == (old.metrics["pass_rate"], new.metrics["pass_rate"])
    assert old.metrics["eval_loss"] == new.metrics["eval_loss"]
    assert (old.weights, old.adapter) == (new.weights, new.adapter)
    assert (old.steps, old.evals, old.cost, old.final, old.base) == (
        *(new.steps, new.evals, new.cost, new.final),
        new.base,
    )
    assert {"of": old.name, "rows": 0, "answers": 0} == new.facts["measured_again"]
    assert [1, 2] == [i.number for i in log_of(tmp_path).read()]
    assert any("evaluated again, not trained" in note for note in result.notes)


@pytest.mark.parametrize(
    "changes",
    [
        {"eval": [{**row, "tags": "odd" if n % 2 else "even"} for n, row in enumerate(EVAL)]},
        {"eval": [{**row, "id": f"renamed-{n}"} for n, row in enumerate(EVAL)]},
        {"eval": EVAL[::-1]},
        {"eval": EVAL[:4]},
        {"scoring": {"scorer": "regex", "pattern": "it is"}},
        {"scoring": {"scorer": "loss", "threshold": 1.0}},
        {"train": [{**row, "tags": "x", "id": f"t{n}"} for n, row in enumerate(TRAIN)]},
        {"data": {"keep": ["hint"]}, "eval": [{**row, "hint": "h"} for row in EVAL]},
    ],
    ids=["tags", "ids", "order", "fewer rows", "pattern", "loss", "train tags", "kept column"],
)
def test_nothing_is_loaded(tmp_path: Path, changes: dict[str, Any]) -> None:
    """What says nothing new of the model is neither trained nor measured."""
    old = run(tmp_path, Adapters()).best
    backend = Adapters()
    new = run(tmp_path, backend, **changes).best
    assert [] == backend.asked
    assert old.id != new.id
    by_prompt = {row.expected: row.loss for row in old.examples}
    assert {row.loss for row in new.examples} == {by_prompt[r.expected] for r in new.examples}


def test_a_tag_gives_a_slice(tmp_path: Path) -> None:
    """A new tag's figures are of the logged results."""
    old = run(tmp_path, Adapters(), scoring="contains").best
    tagged = [{**EVAL[0], "tags": "first"}, *EVAL[1:]]
    new = run(tmp_path, Adapters(), scoring="contains", eval=tagged).best
    (row,) = (row for row in old.examples if row.id == "e0")
    assert round(row.loss / row.tokens, 6) == new.metrics["eval_loss[first]"]
    assert old.metrics["pass_rate"] == new.metrics["pass_rate"]


def test_the_log_alone_suffices(tmp_path: Path, cache: Path) -> None:
    """On a machine without the cache another scorer still needs nothing but the log."""
    old = run(tmp_path, Adapters()).best
    shutil.rmtree(cache)
    backend = Adapters(device="another")
    new = run(tmp_path, backend, scoring="contains").best
    assert ([], old.environment) == (backend.asked, new.environment)
    kinds = {finding.kind for finding in old.findings}
    assert kinds <= {finding.kind for finding in new.findings}
    names = ("train_loss", "overfit_gap", "eval_loss")
    assert [old.metrics[n] for n in names] == [new.metrics[n] for n in names]


def test_a_training_file_of_another_version_counts_as_absent(tmp_path: Path) -> None:
    """The training is then taken from the log, which does not hold all of it."""
    best = run(tmp_path, Adapters()).best
    kept = trained_of(best)
    assert kept is not None
    assert kept.whole
    file = training_file(best.weights)
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": FORMAT + 1}))
    logged = trained_of(best)
    assert logged is not None
    assert not logged.whole


def test_a_damaged_training_file_counts_as_absent(tmp_path: Path) -> None:
    """One wrong digit in it would be taken for a figure."""
    best = run(tmp_path, Adapters()).best
    file = training_file(best.weights)
    text = file.read_text()
    assert '"seconds": 1.0' in text
    file.write_text(text.replace('"seconds": 1.0', '"seconds": 1.00001'))
    kept = trained_of(best)
    assert kept is not None
    assert not kept.whole


def test_a_whole_chain_is_evaluated_again(tmp_path: Path) -> None:
    """Its decisions lead to the same settings, whose weights are known, too."""
    old = run(tmp_path, Adapters(), loop={"iterations": 3, "patience": 9})
    backend = Adapters()
    new = run(tmp_path, backend, scoring="contains", loop={"iterations": 3, "patience": 9})
    assert 3 == len(old.chain) == len(new.evaluated)
    assert [] == backend.asked
    assert [i.weights for i in old.chain] == [i.weights for i in new.chain]
    assert [None, new.chain[0].id] == [i.parent for i in new.chain[:2]]


# something is missing


def test_only_a_new_row_is_measured(tmp_path: Path) -> None:
    """A new row is measured with the adapter; all others are as they were logged."""
    old = run(tmp_path, Adapters(), scoring="contains").best
    backend = Adapters()
    result = run(tmp_path, backend, scoring="contains", eval=[*EVAL, NEW])
    assert ["measure"] == backend.asked
    (asked,) = backend.missing
    missing = asked.trained["eval"]
    assert ["new"] == [e.id for e in missing.losses] == [e.id for e in missing.answers]
    assert ["new"] == [e.id for e in asked.base["eval"].losses]
    assert LIMIT == missing.max_new_tokens
    assert {"of": old.name, "rows": 1, "answers": 1} == result.best.facts["measured_again"]
    assert {r.id: r.loss for r in old.examples}.items() <= {
        r.id: r.loss for r in result.best.examples
    }.items()
    assert (old.adapter, 7) == (result.best.adapter, len(result.best.examples))


def test_a_longer_answer_generates_all_again(tmp_path: Path) -> None:
    """Known outputs may be cut where the eval set asks for more new tokens than they had."""
    run(tmp_path, Adapters())
    new = run(tmp_path, Adapters(limit=20), eval=[*EVAL, NEW]).best
    assert 20 == new.data["eval"]["max_new_tokens"]
    assert all(row.output for row in new.examples)


def test_another_generation_keeps_the_losses(tmp_path: Path) -> None:
    """Outputs of another limit are not scored as if they were of this one."""
    run(tmp_path, Adapters())
    backend = Adapters(limit=4)
    run(tmp_path, backend, scoring={"scorer": "exact", "max_new_tokens": 4})
    missing = backend.missing[0].trained["eval"]
    assert (0, 6) == (len(missing.losses), len(missing.answers))


@settings(max_examples=25)  # each runs three loops
@given(
    before=st.lists(st.integers(1, 9), min_size=1, unique=True),
    after=st.lists(st.integers(1, 9), min_size=1, unique=True),
)
def test_measured_again_is_measured_anew(
    before: list[int], after: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever rows come and go, the figures are those of measuring them all."""
    rows = {n: {"id": f"e{n}", "prompt": f"q{n}", "completion": f"d{n}"} for n in range(1, 10)}
    folders = [tmp_path_factory.mktemp("again") for _ in range(2)]
    old, new = ([rows[n] for n in numbers] for numbers in (before, after))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTLOOP_CACHE", str(folders[0] / "cache"))
        run(folders[0], Adapters(), eval=old, scoring="contains")
        backend = Adapters()
        again = run(folders[0], backend, eval=new, scoring="contains").best
        anew = run(folders[1], Adapters(), eval=new, scoring="contains").best
    assert "train" not in backend.asked
    assert list(anew.examples) == list(again.examples)
    of_examples = ("eval_loss", "pass_rate", "token_accuracy")
    assert [anew.metrics[n] for n in of_examples] == [again.metrics[n] for n in of_examples]


# what can't be evaluated again


def test_without_the_adapter_it_is_trained_and_said(tmp_path: Path, cache: Path) -> None:
    """A new row needs the adapter: without it the run says what it trains for, and the cost."""
    old = run(tmp_path, Adapters()).best
    shutil.rmtree(cache)
    backend = Adapters()
    result = run(tmp_path, backend, eval=[*EVAL, NEW])
    assert ["train"] == backend.asked
    (note,) = result.notes
    assert f"the weights of {old.name} are known, but its adapter is not in this machine" in note
    assert "trained again to measure 1 new row (1 s when they were trained)" in note


def test_another_adapter_is_not_used(tmp_path: Path) -> None:
    """An adapter of another hash than the logged one is not the one that was measured."""
    old = run(tmp_path, Adapters()).best
    fake_adapter(adapter_folder(old.weights), "others")
    backend = Adapters()
    result = run(tmp_path, backend, eval=[*EVAL, NEW])
    assert ["train"] == backend.asked
    assert "the adapter in this machine's cache is another one" in " ".join(result.notes)


def test_another_environment_measures_nothing(tmp_path: Path) -> None:
    """Rows of one device do not stand beside rows of another."""
    run(tmp_path, Adapters())
    backend = Adapters(device="gpu")
    result = run(tmp_path, backend, eval=[*EVAL, NEW])
    assert ["train"] == backend.asked
    assert "environment changed (device cpu -> gpu)" in " ".join(result.notes)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 3e-4},
        {"lora": {"r": 4, "lora_alpha": 16}},
        {"train": [*TRAIN, {"prompt": "p", "completion": "c"}]},
        {"train": TRAIN[::-1]},
        {"data": {"train_sample": 2}},
        {"options": {"retrain": True}},
    ],
    ids=["training", "lora", "train rows", "their order", "train_sample", "retrain"],
)
def test_other_weights_are_trained(tmp_path: Path, changes: dict[str, Any]) -> None:
    """What determines the weights, or the train losses, trains; so does --ftloop-retrain."""
    run(tmp_path, Adapters())
    backend = Adapters()
    run(tmp_path, backend, **changes)
    assert ["train"] == backend.asked


def test_a_damaged_table_gives_nothing(tmp_path: Path) -> None:
    """Figures that contradict their table are no source for others."""
    run(tmp_path, Adapters())
    (record,) = (tmp_path / "improvement_log/s").glob("*.yaml")
    forge(record, ("eval_loss:", "eval_loss: 0.1 #"))
    backend = Adapters()
    run(tmp_path, backend, scoring="contains")
    assert ["train"] == backend.asked


def test_weights_that_its_settings_do_not_give(tmp_path: Path) -> None:
    """A record that claims to be of other weights than its settings train is damaged."""
    best = run(tmp_path, Adapters()).best
    (record,) = (tmp_path / "improvement_log/s").glob("*.yaml")
    forge(record, (f"weights: {best.weights}", f"weights: {'a' * 64}"))
    with pytest.raises(DamagedLogError, match=r"it says weights aaaa.*by its settings they are"):
        run(tmp_path, Adapters())


# replay


def test_a_replay_says_what_a_run_would_do(tmp_path: Path, cache: Path) -> None:
    """Score what is logged; measure with the adapter; or train again, with its cost."""
    old = run(tmp_path, Adapters()).best

    def cure(**changes: Any) -> str:
        with pytest.raises(StaleLogError) as told:
            run(tmp_path, Adapters(), options={"replay": True}, **changes)
        return told.value.cure

    usual = "Run pytest --ftloop and commit improvement_log/."
    assert usual == cure(rate=3e-4)
    scores = f"{usual} That scores the logged outputs of {old.name} and trains nothing."
    assert scores == cure(scoring="contains")
    row = f"That measures 1 new row of {old.name} with its adapter and trains nothing."
    assert f"{usual} {row}" == cure(eval=[*EVAL, NEW])
    shutil.rmtree(cache)
    assert "it trains the weights of" in (found := cure(eval=[*EVAL, NEW]))
    assert found.endswith(
        "(1 s when they were trained): its adapter is not in this machine's cache."
    )


# nothing trained is lost


def raises_on(bad: str) -> Any:
    def score(example: Any, output: str) -> bool:
        if example.id == bad and output.startswith("it is"):
            raise ValueError("no such unit")
        return example.expected in output

    return score


ROWS = [{"id": f"r{n:02d}", "prompt": f"q{n}", "completion": f"d{n}"} for n in range(60)]


def test_a_scorer_that_fails_late_loses_nothing(tmp_path: Path) -> None:
    """It raises on row 57: what was trained is logged, and the next run goes on at scoring."""
    loop: dict[str, Any] = {"eval": ROWS, "scoring": "hook"}
    with pytest.raises(ScoringError, match="no such unit") as told:
        run(tmp_path, Adapters(), hook=raises_on("r57"), **loop)
    assert "unscored: the next run goes on at scoring, and trains nothing" in told.value.cure
    (kept,) = log_of(tmp_path).read()
    assert ("unscored", 60) == (kept.decision.kind, len(kept.examples))
    assert all(row.passed is None and row.output for row in kept.examples)
    with pytest.raises(StaleLogError, match="was trained, but is not scored"):
        run(tmp_path, Adapters(), hook=raises_on(""), options={"replay": True}, **loop)
    backend = Adapters()
    result = run(tmp_path, backend, hook=raises_on(""), **loop)
    assert ([], 0.5) == (backend.asked, result.best.metrics["pass_rate"])
    said = f"{kept.name} was scored, not trained: an earlier run trained it"
    assert any(said in note for note in result.notes)
    assert [result.best.id] == [i.id for i in log_of(tmp_path).read()]
    assert kept.number == result.best.number


def test_another_scorer_takes_the_place_of_what_failed(tmp_path: Path) -> None:
    """A fixed scorer is another one: no unscored record is left beside the scored one."""
    with pytest.raises(ScoringError):
        run(tmp_path, Adapters(), hook=raises_on("r57"), eval=ROWS, scoring="hook")
    backend = Adapters()
    best = run(tmp_path, backend, eval=ROWS, scoring="contains").best
    assert ([], [best.id]) == (backend.asked, [i.id for i in log_of(tmp_path).read()])


def test_a_scorer_that_fails_on_known_outputs_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    """Where nothing has to be measured there is nothing to lose, and so nothing to write."""
    run(tmp_path, Adapters(), eval=ROWS)
    before = {path: path.read_bytes() for path in log_files(tmp_path)}
    with pytest.raises(ScoringError, match="no such unit") as told:
        run(tmp_path, Adapters(), hook=raises_on("r57"), eval=ROWS, scoring="hook")
    assert "unscored" not in told.value.cure
    assert before == {path: path.read_bytes() for path in log_files(tmp_path)}


def log_files(folder: Path) -> list[Path]:
    return [p for p in (folder / "improvement_log").rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ("None", "found None"),
        ("1 / 0", "division by zero"),
        ("{'a': 1.0}", "wanted the scores score.b for each example, found score.a"),
    ],
)
@pytest.mark.parametrize("role", ["eval", "guard"])
def test_a_users_scorer_is_tried_before_anything_is_trained(
    tmp_path: Path, role: str, last: str, message: str
) -> None:
    """On the longest, the first and the last row, of the eval set and of each guard."""
    name = tmp_path.name.replace("-", "_")
    (tmp_path / f"{name}.py").write_text(
        "def f(output, example):\n"
        f"    return {last} if example['id'] in ('e5', 'g13') else {{'b': 1.0}}\n"
    )
    own = {"scorer": f"{name}:f"}
    loop: dict[str, Any] = {"scoring": own}
    if role == "guard":
        loop = {"data": guarded(tmp_path, GUARD)}
        loop["data"]["guards"] = {"general": {"source": "guard.jsonl", "scoring": own}}
    backend = Adapters()
    with pytest.raises(ScoringError, match=message):
        run(tmp_path, backend, **loop)
    assert ([], []) == (backend.asked, log_files(tmp_path))


@pytest.mark.parametrize(
    ("when", "asked"), [("generating", ["measure"]), ("scoring", [])], ids=["generating", "scoring"]
)
def test_an_interrupted_evaluation_goes_on(tmp_path: Path, when: str, asked: list[str]) -> None:
    """Ctrl-C after the training: the next run generates what is missing, and scores."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Adapters(stop={when: KeyboardInterrupt()}))
    backend = Adapters()
    best = run(tmp_path, backend).best
    assert asked == backend.asked
    assert all(row.passed is not None for row in best.examples)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.loop.again_cases import Adapters, run

class Killed(Adapters):
    def _stop(self, when):
        if when == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)

run(Path(sys.argv[1]), Killed())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(("when", "asked"), [("generating", ["measure"]), ("scoring", [])])
def test_a_killed_evaluation_goes_on(tmp_path: Path, when: str, asked: list[str]) -> None:
    """SIGKILL leaves an unscored record that reads back, and the adapter; nothing is trained."""
    command = [sys.executable, "-c", KILLED, str(tmp_path), when]
    killed = subprocess.run(command, check=False, cwd=Path(__file__).parents[2])
    assert -signal.SIGKILL == killed.returncode
    (kept,) = log_of(tmp_path).read()
    assert ("unscored", 6) == (kept.decision.kind, len(kept.examples))
    assert math.isnan(kept.metrics["pass_rate"])
    assert 1 == len(log_of(tmp_path).view.bases())
    # It had a point to go on from, and had no time to remove it.
    points = [unfinished_folder() / f"{of[:32]}-{'0' * 32}" for of in (kept.weights, "f" * 64)]
    for point in points:
        point.mkdir(parents=True, exist_ok=True)
    backend = Adapters()
    best = run(tmp_path, backend).best
    assert [False, True] == [point.exists() for point in points]
    assert asked == backend.asked
    assert (kept.adapter, kept.number, False) == (best.adapter, best.number, is_unscored(best))
    assert [row.loss for row in kept.examples] == [row.loss for row in best.examples]


def test_an_evaluation_again_may_be_interrupted(tmp_path: Path) -> None:
    """The iteration that was measured before stays, and so does its adapter."""
    run(tmp_path, Adapters())
    stop = {"generating": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Adapters(stop=stop), eval=[*EVAL, NEW])
    backend = Adapters()
    run(tmp_path, backend, eval=[*EVAL, NEW])
    assert ["measure"] == backend.asked


def test_evidence_that_can_not_be_kept_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file beside an adapter that can't be written is told, with its path; nothing else is."""

    def full(path: Path, _text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pytest_ftloop.loop.trained.write_atomically", full)
    (note,) = run(tmp_path, Adapters()).notes
    assert "what the log does not hold of 001-" in note
    assert re.search(r"\(.+: No space left on device\)", note)


def test_a_full_cache_is_a_note(tmp_path: Path) -> None:
    """The record is written all the same, and says that there is no adapter."""
    backend = Adapters(full="No space left on device")
    result = run(tmp_path, backend)
    assert "could not be saved: No space left on device" in " ".join(result.notes)
    assert "No space left on device" == result.best.facts["adapter_not_saved"]
    assert ("", None) == (result.best.adapter, result.adapter)
    again = Adapters()
    assert run(tmp_path, again, scoring="contains").evaluated
    assert [] == again.asked
    run(tmp_path, again, eval=[*EVAL, NEW])
    assert ["train"] == again.asked


# seeds


def test_seeds_are_evaluated_again(tmp_path: Path) -> None:
    """With the iteration its seeds are evaluated by another scorer, and keep their adapters."""
    seeds = {"iterations": 1, "seeds": 3}
    run(tmp_path, Adapters(), loop=seeds)
    before = {run_.seed: run_ for run_ in log_of(tmp_path).view.seed_runs()}
    backend = Adapters()
    new = run(tmp_path, backend, loop=seeds, scoring="contains").best
    assert [] == backend.asked
    runs = [r for r in log_of(tmp_path).view.seed_runs() if r.iteration == new.id]
    assert [43, 44] == [r.seed for r in runs]
    for found in runs:
        old = before[found.seed]
        assert (old.adapter, old.weights) == (found.adapter, found.weights)
        assert [r.loss for r in old.examples] == [r.loss for r in found.examples]
        assert 0.5 == found.metrics["pass_rate"]


def test_an_iteration_with_a_seed_that_is_known(tmp_path: Path) -> None:
    """A loop file that states a seed run's seed takes its weights, curve and all from the cache."""
    seeds = {"iterations": 1, "seeds": 2}
    run(tmp_path, Adapters(), loop=seeds)
    training = {"learning_rate": 2e-4, "num_train_epochs": 2, "seed": 43}
    backend = Adapters()
    best = run(tmp_path, backend, training=training).best
    assert ([], 43) == (backend.asked, best.seed)
    assert best.steps


# guards and the untrained base


GUARD = [{"id": f"g{n}", "prompt": f"q{n}", "completion": f"d{n}"} for n in range(10, 14)]


def guarded(folder: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    """The section `data` of a loop with a guard of these rows."""
    folder.mkdir(exist_ok=True)
    file = folder / "guard.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"guards": {"general": "guard.jsonl"}}


def pass_rates(folder: Path) -> list[tuple[float, float]]:
    """The base's pass rates on the eval set and the guard, by measurement in the log."""
    names = ("pass_rate", "guard.general.pass_rate")
    found = [tuple(base.metrics[n] for n in names) for base in log_of(folder).view.bases()]
    return sorted(found)  # type: ignore[arg-type]


def test_guards_and_base_are_scored_again(tmp_path: Path) -> None:
    """Another scorer scores what the base and the guards' rows gave, from the log alone."""
    data = guarded(tmp_path, GUARD)
    old = run(tmp_path, Adapters(), data=data).best
    backend = Adapters()
    new = run(tmp_path, backend, data=data, scoring="contains").best
    assert [] == backend.asked
    name = "guard.general.pass_rate"
    assert (0.0, 0.5) == (old.metrics[name], new.metrics[name])
    assert [r.loss for r in old.guards["general"]] == [r.loss for r in new.guards["general"]]
    assert [(0.0, 0.0), (0.5, 0.5)] == pass_rates(tmp_path)
    assert old.base == new.base


@pytest.mark.parametrize(
    ("before", "wanted"),
    [([], ["g10", "g11", "g12", "g13"]), (GUARD[1:], ["g10"])],
    ids=["a new guard", "a new row of it"],
)
def test_only_a_guards_new_rows_are_measured(
    tmp_path: Path, before: list[dict[str, str]], wanted: list[str]
) -> None:
    """A guard that is added needs no training, and nothing of the eval set is measured again."""
    run(tmp_path, Adapters(), data=guarded(tmp_path, before) if before else {})
    backend = Adapters()
    best = run(tmp_path, backend, data=guarded(tmp_path, GUARD)).best
    assert ["measure"] == backend.asked
    (asked,) = backend.missing
    assert ["guard.general"] == list(asked.trained) == list(asked.base)
    for missing in (asked.trained["guard.general"], asked.base["guard.general"]):
        assert wanted == [e.id for e in missing.losses]
    anew = run(tmp_path / "anew", Adapters(), data=guarded(tmp_path / "anew", GUARD)).best
    assert list(anew.guards["general"]) == list(best.guards["general"])
    assert 4 in [len(base.guards.get("general", ())) for base in log_of(tmp_path).view.bases()]


# older records


@pytest.mark.parametrize(
    ("answers", "stated", "missing"),
    [
        (["d0", "d1", "d0"], (), 1),
        (["d0", "d1", "d2"], (), 3),
        (["d0"], (), 1),
        (["d0", "d1", "d2"], ("d0", "d1", "d2"), 1),
    ],
    ids=["same answers", "new answer", "answer gone", "stated"],
)
def test_a_guard_chooses_among_its_own_answers(
    answers: list[str], stated: tuple[str, ...], missing: int
) -> None:
    """Where its rows' answers change, each row of a guard is chosen again."""
    examples = tuple(Example(f"g{n}", f"c{n}", (), expected=a) for n, a in enumerate(answers))
    scoring = Scoring("choice", choices=stated or None)
    identity = {"scorer": "choice", "choices": list(stated)}
    rows = [
        ExampleResult(f"g{n}", f"c{n}", (), 1.0, 1, 1, passed=True, expected=f"d{n}")
        for n in range(2)
    ]
    guard = Measurable("guard.g", "g", examples, scoring, None, identity)
    known = known_rows(guard, [Source({"guard.g": rows}, {"guard.g": identity})])
    assert missing == len(known.missing.answers)


@pytest.mark.parametrize(
    ("before", "now", "scorer", "missing"),
    [
        ("+one", "+other", "choice", 1),
        ("", "+one", "choice", 1),
        ("+one", "+one", "choice", 0),
        ("+one", "+other", "exact", 0),
        ("", "+one", "exact", 0),
    ],
)
def test_other_candidates_in_a_row_are_chosen_among_again(
    before: str, now: str, scorer: str, missing: int
) -> None:
    """The loss and the output stay known; a choice does only where all that scores the row does."""
    scoring = Scoring(scorer)
    examples = (Example("e", f"c{now}", (), expected="d"),)
    rows = [ExampleResult("e", f"c{before}", (), 1.0, 1, 1, passed=True, expected="d")]
    identity = {"scorer": scorer}
    of_eval = Measurable("eval", "", examples, scoring, None, identity)
    known = known_rows(of_eval, [Source({"eval": rows}, {"eval": identity})])
    assert ((), missing) == (known.missing.losses, len(known.missing.answers))


def test_records_of_schema_2_are_evaluated_again(tmp_path: Path) -> None:
    """They name no weights: their model, rows and settings tell."""
    old = run(tmp_path, Adapters()).best
    log = log_of(tmp_path)
    log.remove(old)
    plain = {"train": dict(old.data["train"]), "eval": dict(old.data["eval"])}
    del plain["train"]["sampled"], plain["eval"]["max_new_tokens"]
    log.append(replace(old, weights="", adapter="", data=plain))
    backend = Adapters()
    new = run(tmp_path, backend, scoring="contains").best
    assert ([], 0.5) == (backend.asked, new.metrics["pass_rate"])


def test_figures_of_a_record_are_those_of_its_rows(tmp_path: Path) -> None:
    """A record made of logged rows passes the checks of any other."""
    run(tmp_path, Adapters())
    loop = loop_of(tmp_path, Adapters(), scoring="contains")
    best = loop.run().best
    loop.log.verify(best)
    figures = best_metrics(Evaluation(tuple(best.examples), (), (), 0.0))
    assert figures["pass_rate"] == best.metrics["pass_rate"]
