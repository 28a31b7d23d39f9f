"""An eval set that was replaced: what the log leads to it with is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.log import ImprovementLog
from tests.loop.loop_cases import forge
from tests.loops import BETTER, SAME, WORSE

if TYPE_CHECKING:
    from tests.cli.gate_cases import Gate
    from tests.loops import Loops


def replace_rows(loops: Loops) -> None:
    text = (loops.root / "eval.jsonl").read_text(encoding="utf-8")
    loops.put("eval.jsonl", text.replace("what is", "tell me"))


def train_at(loops: Loops, rate: str) -> None:
    text = (loops.root / "x.ftloop.yaml").read_text(encoding="utf-8")
    loops.put("x.ftloop.yaml", text.replace(SAME, rate))
    loops.train()
    loops.commit()


@pytest.mark.parametrize(
    ("rate", "code", "kind"), [(BETTER, 0, "improved"), (WORSE, 1, "regressed")]
)
def test_first_the_eval_set_then_the_training(
    rate: str, code: int, kind: str, loops: Loops, gate: Gate
) -> None:
    """Both since the base: the base's training on the new eval set is what is compared with."""
    base = loops.version()
    replace_rows(loops)
    loops.train()
    loops.commit()
    assert 0 == gate(base)[0]
    train_at(loops, rate)
    found, out, _ = gate(base)
    assert (code, True) == (found, f"regression: {kind} against" in out)
    assert "measured as now" in out


def test_an_edited_record_takes_no_baselines_place(loops: Loops, gate: Gate) -> None:
    """A worse figure in it would let a worse candidate pass."""
    base = loops.version()
    replace_rows(loops)
    loops.train()
    bridge = loops.log().iterations()[-1]
    train_at(loops, WORSE)
    folder = loops.root / "improvement_log/x"
    record, *_ = ImprovementLog(folder).files(bridge)
    forge(record, (f"  eval_loss: {bridge.metrics['eval_loss']}", "  eval_loss: 9.0"))
    loops.commit()
    code, _, err = gate(base)
    assert (3, True) == (code, "it says eval_loss 9.0, its table of examples" in err)


@pytest.mark.parametrize("rate", [BETTER, WORSE])
def test_both_at_once(rate: str, loops: Loops, gate: Gate) -> None:
    """Nothing shows whether the model got worse: it fails, and the way out is said."""
    base = loops.version()
    replace_rows(loops)
    train_at(loops, rate)
    found, out, _ = gate(base)
    said = " ".join(out.split())
    assert (1, True) == (found, "regression: not comparable against" in out)
    assert "change the eval set or the scoring first" in said


def test_an_eval_set_that_main_replaced(
    loops: Loops, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A colleague did so on another device: the change that trains on it is not blamed."""
    loops.version()
    replace_rows(loops)
    monkeypatch.setenv("FAKE_DEVICE", "cuda")
    loops.train("--retrain")
    base = loops.commit()
    monkeypatch.delenv("FAKE_DEVICE")
    train_at(loops, BETTER)
    found, out, _ = gate(base)
    assert (0, True) == (found, "regression: not comparable against" in out)


def test_an_edited_version_in_between(loops: Loops, gate: Gate) -> None:
    """What takes the baseline's place is checked as the baseline is: its table was made worse."""
    base = loops.version()
    replace_rows(loops)
    loops.train()
    loops.commit()
    (table,) = (loops.root / "improvement_log/x").glob("002-*.csv")
    train_at(loops, WORSE)
    text = table.read_text(encoding="utf-8")
    worse = text.replace("6.400000", "9.400000").replace(",yes,", ",no,")
    assert text != worse
    table.write_text(worse, "utf-8")
    loops.commit()
    code, _, err = gate(base)
    assert (3, True) == (code, table.stem.partition(".")[0] in err)
