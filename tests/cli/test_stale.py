"""A log that is out of date says what changed, from what to what."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.loop.stale import MOST
from tests.loops import BETTER, EVAL, SAME, TRAIN, WORSE

if TYPE_CHECKING:
    from tests.cli.gate_cases import Gate
    from tests.loops import Loops

SCORER = "def passes(output, expected, example): return output == expected\n"
SCORED = "scoring: {scorer: 'mine:passes'}\n"
HEAD = "x.ftloop.yaml: the improvement log of x is out of date: "
CURE = "  Run pytest --ftloop and commit improvement_log/.\n"


def rows(given: Any) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in given)


def edit(loops: Loops, old: str, new: str) -> None:
    file = loops.root / "x.ftloop.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


RELABELLED = [{**TRAIN[0], "completion": " other"}, *TRAIN[1:]]
Change = Callable[["Loops"], object]

CHANGES: dict[str, tuple[Change, str, list[str]]] = {
    "a setting": (
        lambda loops: edit(loops, SAME, WORSE),
        "settings",
        ["training.learning_rate 1e-3 -> 2e-4"],
    ),
    "a new setting": (
        lambda loops: edit(loops, "r: 8,", "r: 8, lora_dropout: 0.1, use_rslora: true,"),
        "settings",
        ["lora.lora_dropout not set -> 0.1", "lora.use_rslora not set -> true"],
    ),
    "a removed setting": (
        lambda loops: edit(loops, ", lora_alpha: 16", ""),
        "settings",
        ["lora.lora_alpha 16 -> not set"],
    ),
    "train rows": (
        lambda loops: loops.put("train.jsonl", rows(RELABELLED[:5])),
        "data",
        ["data.train 6 -> 5 rows: 1 removed, 1 relabelled"],
    ),
    "eval rows": (
        lambda loops: loops.put("eval.jsonl", rows([*EVAL[1:], {**EVAL[0], "prompt": "other"}])),
        "data",
        ["data.eval 5 rows: 1 edited"],
    ),
    "scorer": (
        lambda loops: edit(loops, "'mine:passes'", "exact"),
        "scoring",
        ["scoring.scorer mine:passes -> exact"],
    ),
    "the scorer's code": (
        lambda loops: loops.put("mine.py", SCORER.replace("output == expected", "True")),
        "scoring",
        ["scoring: the code of mine:passes, or a local module that it imports, changed"],
    ),
    "model": (
        lambda loops: edit(loops, "model: tiny", "model: gpt2"),
        "model",
        ["model * -> gpt2"],
    ),
    "two matters": (
        lambda loops: (
            edit(loops, SAME, BETTER),
            loops.put("train.jsonl", rows(TRAIN[:-2])),
        ),
        "settings and data",
        ["training.learning_rate 1e-3 -> 1.6e-3", "data.train 6 -> 4 rows: 2 removed"],
    ),
    "all": (
        lambda loops: (
            edit(loops, SAME, BETTER),
            edit(loops, "model: tiny", "model: gpt2@abc"),
            edit(loops, "'mine:passes'", "exact, max_new_tokens: 5"),
            loops.put("train.jsonl", rows([*TRAIN, {**TRAIN[0], "id": "new"}])),
        ),
        "settings, data, scoring and model",
        [
            "training.learning_rate 1e-3 -> 1.6e-3",
            "data.train 6 -> 7 rows: 1 added",
            "scoring.max_new_tokens not set -> 5",
            "scoring.scorer mine:passes -> exact",
            "model * -> gpt2@abc",
        ],
    ),
}


@pytest.mark.parametrize("committed", [False, True], ids=["not committed", "committed"])
@pytest.mark.parametrize("case", CHANGES)
def test_what_changed(case: str, committed: bool, loops: Loops, gate: Gate) -> None:
    """Each matter has its line, whether the change is committed already or not."""
    change, what, lines = CHANGES[case]
    loops.put("mine.py", SCORER)
    loops.version(more=SCORED + "model: tiny\n")
    change(loops)
    if committed:
        loops.commit()
    code, out, err = gate()
    assert (3, "") == (code, out)
    said, cure, _ = err.partition(CURE.rstrip("\n"))
    assert cure
    first, *rest = said.splitlines()
    assert first.startswith(f"{HEAD}{what} changed since iteration 001-")
    assert len(lines) == len(rest)
    for wanted, line in zip(lines, rest, strict=True):
        before, _, after = f"    {wanted}".partition("*")
        assert line.startswith(before)
        assert line.endswith(after)


def test_nearest_iteration(loops: Loops, gate: Gate) -> None:
    """The iteration with the fewest differences is told, not the last."""
    for rate in (SAME, WORSE, BETTER):
        loops.version(rate, more=f"scoring: {{scorer: exact, max_new_tokens: {rate[0]}}}\n")
    loops.write(rate=WORSE, more="scoring: {scorer: exact, max_new_tokens: 7}\n")
    _, _, err = gate()
    assert "out of date: scoring changed since iteration 002-" in err
    assert "\n    scoring.max_new_tokens 2 -> 7\n" in err


def test_many_differences(loops: Loops, gate: Gate) -> None:
    """What is more than fits is counted."""
    loops.version()
    names = (
        *("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
        *("label_smoothing_factor", "neftune_noise_alpha", "warmup_steps", "max_length"),
        *(
            "gradient_accumulation_steps",
            "per_device_train_batch_size",
            "data_seed",
            "dataset_num_proc",
        ),
    )
    many = "".join(f"  {name}: {0.5 if n < 7 else 2}\n" for n, name in enumerate(names[: MOST + 3]))
    edit(loops, "  num_train_epochs: 2\n", f"  num_train_epochs: 2\n{many}")
    _, _, err = gate()
    assert err.endswith(f"    and 3 more\n{CURE}")
    assert MOST + 3 == len(err.splitlines())


def test_rows_that_git_does_not_have(loops: Loops, gate: Gate) -> None:
    """Without a committed version the eval rows are the table's, and train rows are a number."""
    loops.write()
    loops.put(".gitignore", "*.jsonl\n")
    loops.train()
    loops.commit()
    loops.put("train.jsonl", rows(RELABELLED[:4]))
    loops.put("eval.jsonl", rows([{**EVAL[0], "completion": " no"}, *EVAL[2:]]))
    _, _, err = gate()
    assert "\n    data.train 6 -> 4 rows\n" in err
    assert "\n    data.eval 5 -> 4 rows: 1 removed, 1 relabelled\n" in err


def test_split(loops: Loops, gate: Gate) -> None:
    """An eval set split off is compared with what the old file's split was."""
    loops.write()
    edit(loops, "eval: eval.jsonl", "split: {fraction: 0.34}")
    loops.train()
    loops.commit()
    loops.put("train.jsonl", rows([{**row, "completion": " other"} for row in TRAIN]))
    _, _, err = gate()
    assert "\n    data.train 4 rows: 4 relabelled\n" in err
    assert "\n    data.eval 2 rows: 2 relabelled\n" in err


def test_trained_sample(loops: Loops, gate: Gate) -> None:
    """What no record holds is named as what it can be."""
    loops.version()
    edit(loops, "eval: eval.jsonl", "eval: eval.jsonl, train_sample: 2")
    _, _, err = gate()
    assert "something that records do not hold changed since iteration 001-" in err


def test_ci_and_replay_say_it(loops: Loops, capsys: Any) -> None:
    """ftloop ci, its summary and run --replay say the same."""
    loops.version()
    loops.write(rate=WORSE)
    line = "training.learning_rate 1e-3 -> 2e-4"
    assert 3 == main(["ci"])
    assert line in capsys.readouterr().err
    assert line in (loops.root / "ftloop-ci/summary.md").read_text(encoding="utf-8")
    assert 2 == main(["run", "--replay"])
    assert line in capsys.readouterr().err
