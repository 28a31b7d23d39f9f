"""What a trainer logged, read from its state: real files, odd ones, and whatever JSON there is."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.core.errors import DataError
from pytest_ftloop.diagnose.any_trainer.adapter_file import WEIGHTS, Adapter
from pytest_ftloop.diagnose.any_trainer.found import STATE, states_in
from pytest_ftloop.diagnose.any_trainer.trainer_state import (
    TrainerRun,
    findings_of,
    read_newest,
    read_state,
)
from tests.diagnose.test_adapter_file import A, B, packed
from tests.diagnose.trainer_state_cases import REAL, Put, evaluated, healthy, train


def kinds(run: TrainerRun) -> list[str]:
    """The kinds of the findings, in order."""
    return [finding.kind for finding in findings_of(run)]


# --- real files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sft", []),
        ("hidden_nan", ["non-finite"]),
        ("plain_trainer", ["underfit"]),
        ("eval_on_start", ["not-learning"]),
        ("two_eval_sets", ["overfitting", "overfitting"]),
    ],
)
def test_real_states(name: str, expected: list[str]) -> None:
    """States that trl 1.16 and transformers 5.23 wrote are read, and read right."""
    assert expected == kinds(read_state(REAL / f"{name}.json"))


def test_a_real_state_in_full() -> None:
    """Steps, epochs, seconds, train losses and evaluation points are those of the file."""
    run = read_state(REAL / "sft.json")
    assert (80, 80, 4.0, 20, 4.5199) == (
        *(run.step, run.planned_steps, run.epochs, run.steps_per_epoch),
        run.seconds,
    )
    assert [5 * n for n in range(1, 17)] == [step.step for step in run.steps]
    assert pytest.approx(3.43899, abs=1e-5) == run.steps[0].loss
    assert [10 * n for n in range(1, 9)] == [point.step for point in run.evals[""]]
    assert 0.765625 == run.evals[""][0].token_accuracy
    assert () == run.notes


def test_an_untrained_base_that_was_evaluated() -> None:
    """With eval_on_start the first point is the base's, which learning is measured by."""
    run = read_state(REAL / "eval_on_start.json")
    (found,) = findings_of(run)
    assert 0 == run.evals[""][0].step
    assert run.evals[""][0].eval_loss == found.evidence["eval_first"]


def test_several_eval_sets() -> None:
    """Each has its curve, and its findings say which set they are of."""
    run = read_state(REAL / "two_eval_sets.json")
    assert ["near", "far"] == list(run.evals)
    assert ["near", "far"] == [found.evidence["eval_set"] for found in findings_of(run)]
    assert findings_of(run)[1].message.startswith("Eval set far: The eval loss rose")
    assert all(0 < point.token_accuracy < 1 for of in run.evals.values() for point in of)


def test_a_nan_that_the_filter_hid() -> None:
    """A loss of 0 beside a NaN gradient is said to be what it is."""
    assert "filter" in read_state(REAL / "hidden_nan.json").notes[0]


# --- what is read --------------------------------------------------------------------------------


def test_healthy(put: Put) -> None:
    """A healthy run has no error and no warning."""
    found = findings_of(read_state(put(*healthy())))
    assert [] == [finding for finding in found if finding.severity != "info"]


def test_findings_of_all_sets_are_said_once(put: Put) -> None:
    """What is the same in each eval set needs no name."""
    entries = [train(n, 2.0, learning_rate=0.0) for n in range(1, 20)]
    run = read_state(put(*entries, evaluated(10, name="a"), evaluated(10, name="b")))
    (found,) = findings_of(run)
    assert "no-signal" == found.kind
    assert "eval_set" not in found.evidence


def test_a_metric_that_ends_in_loss_is_no_eval_set(put: Put) -> None:
    """A user's own metric has no runtime of its own."""
    run = read_state(
        put(evaluated(10, eval_aux_loss=9.0), evaluated(20, name="far", eval_b_loss=1))
    )
    assert ["", "far"] == list(run.evals)


def test_infinity_and_nan_of_json(put: Put) -> None:
    """NaN, Infinity and numbers beyond any float are figures, and not finite."""
    path = put(train(1), train(2, math.inf), train(3, math.nan, grad_norm=None))
    path.write_text(path.read_text().replace("2.0", "1e400"))
    run = read_state(path)
    assert [math.inf, math.inf] == [step.loss for step in run.steps[:2]]
    assert ["non-finite"] == kinds(run)


def test_a_restart(put: Put) -> None:
    """Where a run went back to an earlier step, what it did then counts."""
    entries = [train(n, 9.0) for n in range(1, 60)] + [train(n, 1.0) for n in range(40, 80)]
    run = read_state(put(*entries))
    assert list(range(1, 80)) == [step.step for step in run.steps]
    assert [9.0] * 39 + [1.0] * 40 == [step.loss for step in run.steps]


def test_a_restart_evaluates_again(put: Put) -> None:
    """What was evaluated at a step that is trained again is of the weights that were given up."""
    before = [train(10), evaluated(10, 2.5), train(20), evaluated(20, 2.0)]
    run = read_state(put(*before, train(20), evaluated(20, 1.0)))
    assert [2.5, 1.0] == [point.eval_loss for point in run.evals[""]]


@pytest.mark.parametrize("last", [0.8, 9.0])
def test_evaluated_again_after_training(put: Put, last: float) -> None:
    """Of two evaluations after one step the first counts.

    The later is of the best checkpoint's weights, or of another set: it neither hides that the run
    overfitted nor invents it.
    """
    losses = [0.2 + 2 * math.exp(-n / 15) for n in range(100)]
    entries = [train(n, loss) for n, loss in enumerate(losses, start=1)]
    for evals, expected in (((0.9, 0.8, 1.0, 1.3), True), ((0.6, 0.45, 0.42, 0.41), False)):
        points = [evaluated(25 * n, loss) for n, loss in enumerate(evals, start=1)]
        run = read_state(put(*entries, *points, evaluated(100, last)))
        assert list(evals) == [point.eval_loss for point in run.evals[""]]
        assert expected is any("The eval loss rose" in found.message for found in findings_of(run))


def test_an_eval_set_without_a_name(put: Put) -> None:
    """Beside named sets it is said to have none."""
    named = [evaluated(step, 1.0, "far") for step in (50, 100)]
    plain = [evaluated(50, 1.0), evaluated(75, 1.5), evaluated(100, 2.0)]
    (found,) = findings_of(read_state(put(*named, *plain)))
    assert found.message.startswith("The unnamed eval set: The eval loss rose")
    assert "(unnamed)" == found.evidence["eval_set"]


def test_the_train_loss_at_the_best_point(put: Put) -> None:
    """It is the mean over the epoch that led there: of every train example once."""
    entries = [train(n, 4.0 if n <= 50 else 1.0) for n in range(1, 101)]
    of = read_state(put(*entries, evaluated(100, 1.5))).evidence()
    assert (1.0, 0.5) == (of.metrics["train_loss"], of.metrics["overfit_gap"])


def test_without_epochs_no_gap_is_known(put: Put) -> None:
    """One logged loss may be that of one batch: no gap is reckoned with it."""
    entries = [train(n, 0.4 if n == 100 else 0.8) for n in range(1, 101)]
    entries += [evaluated(50, 0.9), evaluated(100, 0.9)]
    without = [{key: of for key, of in entry.items() if key != "epoch"} for entry in entries]
    of = read_state(put(*without)).evidence()
    assert math.isnan(of.metrics["train_loss"])
    assert math.isnan(of.metrics["overfit_gap"])


@pytest.mark.parametrize(
    "key",
    ["rewards/chosen", "reward", "eval_rewards/margins", "mean_reward", "eval_far_min_reward"],
)
def test_a_loss_that_is_none_of_a_language_model(put: Put, key: str) -> None:
    """A preference or reward is not judged as a likelihood, and that is said."""
    run = read_state(put(*[train(n, 5.0, **{key: 0.1 * (n % 3)}) for n in range(1, 50)]))
    assert [] == kinds(run)
    assert "not a language model's" in run.notes[0]


def test_a_loss_below_zero(put: Put) -> None:
    """It is none of a language model either; a NaN in it is still an error."""
    run = read_state(put(*[train(n, -0.1) for n in range(1, 50)], train(50, math.nan)))
    assert ["non-finite"] == kinds(run)


@pytest.mark.parametrize(
    ("accuracy", "expected"), [(0.5, 0.5), (75.0, math.nan), (-1, math.nan), (math.nan, math.nan)]
)
def test_accuracy_is_a_share(put: Put, accuracy: float, expected: float) -> None:
    """Percent, or anything else that is no share, is not taken for one."""
    (point,) = read_state(put(evaluated(9, eval_accuracy=accuracy))).evals[""]
    assert point.token_accuracy == pytest.approx(expected, nan_ok=True)


def test_a_classifiers_accuracy(put: Put) -> None:
    """Its accuracy is not called that of tokens."""
    losses = [0.05 + 0.6 * math.exp(-n / 15) for n in range(100)]
    entries = [train(n, loss) for n, loss in enumerate(losses, start=1)]
    points = [(25, 0.35, 0.85), (50, 0.4, 0.87), (75, 0.5, 0.88), (100, 0.6, 0.89)]
    evals = [evaluated(step, loss, eval_accuracy=share) for step, loss, share in points]
    (found,) = findings_of(read_state(put(*entries, *evals)))
    assert "while accuracy rose from 85.0% to 89.0%" in found.message
    assert "token" not in found.message
    assert "loop." not in found.remedy


def test_remedies_name_a_trainers_arguments(put: Put) -> None:
    """There is no loop file whose settings could be changed."""
    entries = [train(n, 0.1 + 2 * math.exp(-n / 15)) for n in range(1, 101)]
    run = read_state(put(*entries, evaluated(50, 0.5), evaluated(75, 0.8), evaluated(100, 0.9)))
    (found,) = findings_of(replace(run, of_lora=True))
    assert "set lora_dropout to" in found.remedy
    assert "halve the rank" in found.remedy


def test_a_metric_that_is_no_number(put: Put) -> None:
    """What no rule reads may be anything; what one reads may not."""
    run = read_state(put(*healthy(), evaluated(10, eval_note_loss="n/a", eval_far_loss=[])))
    assert [""] == list(run.evals)
    with pytest.raises(DataError, match="eval_loss: wanted a number"):
        read_state(put(evaluated(10, "n/a")))


@pytest.mark.parametrize("steps", [{}, {"max_steps": -1}, {"max_steps": None, "global_step": "x"}])
def test_steps_that_are_not_stated(tmp_path: Path, steps: dict[str, Any]) -> None:
    """How many were taken and planned is read off the log then."""
    path = tmp_path / STATE
    path.write_text(json.dumps({"log_history": healthy(), **steps}))
    run = read_state(path)
    assert (100, 100) == (run.step, run.planned_steps)


def test_a_log_that_begins_late(put: Put) -> None:
    """A first entry of 500 steps hides what they learned; not where the base was evaluated."""
    entries = [train(500 * n, 1.0) for n in range(1, 20)]
    assert any("begins at step 500" in note for note in read_state(put(*entries)).notes)
    run = read_state(put(evaluated(0), *entries))
    assert not any("begins at" in note for note in run.notes)


def test_notes_say_what_is_missing(put: Put) -> None:
    """Few losses and no evaluation are told: a silence is no health."""
    notes = read_state(put(train(50), train(100))).notes
    assert "only 2 train losses are logged" in notes[0]
    assert "nothing was evaluated" in notes[1]
    assert "no train loss is logged" in read_state(put(evaluated(9))).notes[0]


# --- beside the state ----------------------------------------------------------------------------


def test_an_adapter_that_never_moved(put: Put) -> None:
    """A LoRA-B that is all zero after a run is a fault that is not tuned around."""
    path = put(*healthy())
    (path.parent / WEIGHTS).write_bytes(packed({B: ([2, 8], bytes(64))}))
    run = read_state(path)
    assert Adapter(16, moved=False) == run.adapter
    assert ["no-signal"] == kinds(run)


def test_the_newest_checkpoints_adapter(put: Put) -> None:
    """A state in the output_dir goes with the newest checkpoint's adapter."""
    path = put(*healthy())
    folder = path.parent / "checkpoint-100"
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(packed({B: ([2, 8], bytes(63) + b"\1")}))
    assert Adapter(16, moved=True) == read_state(path).adapter


def test_an_adapter_saved_empty_is_a_note(put: Put) -> None:
    """A save that lost the weights says nothing of the training."""
    path = put(*healthy())
    (path.parent / WEIGHTS).write_bytes(packed({A: ([0], b""), B: ([0], b"")}))
    run = read_state(path)
    assert "saved empty" in run.notes[0]
    assert [] == [found for found in findings_of(run) if found.severity != "info"]


def test_a_damaged_adapter_is_a_note(put: Put) -> None:
    """The curves are diagnosed all the same."""
    path = put(*healthy())
    (path.parent / WEIGHTS).write_bytes(b"truncated")
    run = read_state(path)
    assert None is run.adapter
    assert WEIGHTS in run.notes[0]


def test_a_pickle_is_never_loaded(put: Put) -> None:
    """`training_args.bin` is not opened: what is in it would be run."""
    path = put(*healthy())
    bomb = path.parent / "training_args.bin"
    bomb.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    bomb.chmod(0)
    read_state(path)
    assert not (path.parent / "pwned").exists()


@pytest.mark.parametrize(
    ("config", "noted"),
    [
        ({"pad_token": "</s>", "eos_token": "</s>"}, True),
        ({"pad_token": {"content": "</s>"}, "eos_token": {"content": "</s>"}}, True),
        ({"pad_token": "<pad>", "eos_token": "</s>"}, False),
        ({"pad_token": None, "eos_token": None}, False),
        ([], False),
    ],
)
def test_padding_with_the_end(put: Put, config: object, noted: bool) -> None:
    """One token for padding and end is a note: some collators then never teach the end."""
    path = put(*healthy())
    (path.parent / "tokenizer_config.json").write_text(json.dumps(config))
    assert noted is any("pads with its end token" in note for note in read_state(path).notes)


# --- where it is found ---------------------------------------------------------------------------


def test_the_newest_of_a_thousand_checkpoints(put: Put, tmp_path: Path) -> None:
    """The highest step counts, not the name; others' names don't."""
    for step in (*range(1, 1000), 9999):
        (tmp_path / f"checkpoint-{step}").mkdir()
    put(*healthy(), folder="checkpoint-900")
    newest = put(*healthy(), folder="checkpoint-998")
    put(*healthy(), folder="checkpoint-latest")
    assert newest == next(states_in(tmp_path))


def test_the_folders_own_state(put: Put, tmp_path: Path) -> None:
    """A folder's own state counts, unless a checkpoint has more steps."""
    own = put(*healthy())
    put(*healthy(), folder="checkpoint-50")
    assert own == next(states_in(tmp_path))
    later = put(*healthy(), folder="checkpoint-150")
    older = tmp_path / "checkpoint-50" / STATE
    assert [later, own, older] == list(states_in(tmp_path))


def test_a_folder_without_one(tmp_path: Path) -> None:
    """There is none in it, nor in checkpoints that were never completed."""
    (tmp_path / "checkpoint-5").mkdir()
    assert None is read_newest(tmp_path)


@pytest.mark.parametrize("folder", ["checkpoint-100", ""])
def test_a_damaged_state_is_passed_over(put: Put, tmp_path: Path, folder: str) -> None:
    """An older sound one is read in its place, and that is said; named itself it is an error."""
    older = put(*healthy(), folder="checkpoint-50")
    damaged = put(*healthy(), folder=folder)
    damaged.write_text(damaged.read_text()[:500])
    run = read_newest(tmp_path)
    assert run is not None
    assert str(older) == run.source
    assert f"passed over: {damaged}:1: wanted JSON" in run.notes[-1]
    with pytest.raises(DataError, match="wanted JSON"):
        read_newest(damaged)
    older.write_text("{")
    with pytest.raises(DataError, match="wanted JSON"):
        read_newest(tmp_path)
