"""A record that was edited by hand and renamed to fit its hash contradicts the loop, or itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_ftloop.core.errors import DamagedLogError
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.loop.loop_cases import config, forge, run

Edit = tuple[str, str]


def records(folder: Path) -> list[Path]:
    return sorted((folder / "improvement_log/s").glob("*.yaml"))


def refused(folder: Path, record: Path, **changes: Any) -> str:
    """What the replay says of a record."""
    with pytest.raises(DamagedLogError) as caught:
        run(config(folder, **changes), replay=True)
    assert record == Path(caught.value.where.file)
    return caught.value.why


@pytest.mark.parametrize(
    ("number", "edit", "why"),
    [
        (0, ("    learning_rate: 0.0002", "    learning_rate: 0.0003"), "its settings are not"),
        (0, ("    lora_alpha: 16", "    lora_alpha: 17"), "its settings are not"),
        (1, ("    lora_alpha: 16", "    lora_alpha: 17"), "its settings are not"),
        (0, ("    scorer: exact", "    scorer: contains"), "it says scoring scorer: contains; by"),
        (0, ("model: tiny", "model: big"), "it says model big"),
        (0, ("    rows: 6", "    rows: 7"), "it says data.train.rows 7; by its fingerprint it is"),
        (1, ("    rows: 4", "    rows: 5"), "it says data.eval.rows 5; by its fingerprint it is"),
        (1, ("    sha256: ", "    sha256: f00"), "it says data.train.sha256 f00"),
        (0, ("\ngroup: ", "\ngroup: f"), "it says group f"),
        (0, ("parent: null", "parent: {2}"), "it says parent {2}, which descends from it"),
        (0, ("parent: null", "parent: {0}"), "it says parent {0}, which descends from it"),
        (2, ("  after: ", "  after: 1"), "its settings are not those of its parent 00"),
        (1, ("  after: ", "  after: 1"), "its settings are not those of its parent 001-"),
        (1, ("setting: training.", "setting: train."), "it has adjustments of unknown settings"),
        (1, ("parent: {0}", "parent: null"), ""),
    ],
)
def test_forged_record(tmp_path: Path, number: int, edit: Edit, why: str) -> None:
    """Whatever is changed of what the fingerprint, the loop or the parent determine."""
    result, _ = run(config(tmp_path))
    ids = [iteration.id for iteration in result.chain]
    assert 3 == len(ids)
    old, new = (text.format(*ids) for text in edit)
    record = forge(records(tmp_path)[number], (old, new))
    if why:
        assert refused(tmp_path, record).startswith(why.format(*ids))
    else:  # it is not of the chain any more: no figure of it counts
        again, _ = run(config(tmp_path, iterations=1), replay=True)
        assert ids[:1] == [iteration.id for iteration in again.chain]


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (("  overfit_gap: ", "  overfit_gap: 1"), "it says overfit_gap 1"),
        (("  perplexity: ", "  perplexity: 1"), "it says perplexity 1"),
        (("  perplexity[x]: ", "  perplexity[x]: 1"), "it says perplexity[x] 1"),
        (("  pass_rate[x]: ", "  pass_rate[x]: 1"), "it says pass_rate[x] 1"),
        (("  train_loss: ", "  train_loss: 1"), "it says overfit_gap "),
        (("metrics:\n", "metrics:\n  pass_rate[y]: 1.0\n"), "it says pass_rate[y] 1.0, which its"),
        (("failing: [e0", "failing: [e9"), "it says that 4 examples failed"),
    ],
)
def test_forged_figure(tmp_path: Path, edit: Edit, why: str) -> None:
    """Figures are those of the table, and those that derive from others do."""
    run(config(tmp_path, iterations=1))
    (record,) = records(tmp_path)
    assert refused(tmp_path, forge(record, edit), iterations=1).startswith(why)


def test_forged_final_figure(tmp_path: Path) -> None:
    """The figures of the last evaluation point, too."""
    run(config(tmp_path, iterations=1))
    (record,) = records(tmp_path)
    final = record.read_text().split("final:\n")[1].split("base:\n")[0]
    record = forge(record, (final, final.replace("overfit_gap: ", "overfit_gap: 1")))
    assert refused(tmp_path, record, iterations=1).startswith("it says final.overfit_gap 1")


@pytest.mark.parametrize("key", ["fingerprint", "group"])
def test_forged_seed_run(tmp_path: Path, key: str) -> None:
    """A run that is said to be of an iteration, and is of other settings."""
    more: dict[str, Any] = {"loop": {"iterations": 1, "seeds": 2}}
    run(config(tmp_path, **more))
    (record,) = (tmp_path / "improvement_log/s/seeds").glob("*.yaml")
    said = f"{key}: {yaml.safe_load(record.read_text(encoding='utf-8'))[key]}"
    forged = f"{key}: {'0f' * 32}"
    record = forge(record, (said, forged))
    assert refused(tmp_path, record, **more).startswith(f"it says {key} 0f0f")


def test_rounded_settings_are_sound(tmp_path: Path) -> None:
    """A record rounds settings, the fingerprint of the loop file's own does not."""
    odd: dict[str, Any] = {
        "training": {"learning_rate": 0.000123456789, "seed": 7, "warmup_steps": 0.0333333333333},
        "lora": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0123456789},
        "loop": {"iterations": 3, "patience": 9, "seeds": 2},
    }
    result, _ = run(config(tmp_path, **odd))
    again, _ = run(config(tmp_path, **odd), replay=True)
    assert result.chain == again.chain


def test_setting_that_moves_no_figure_may_change(tmp_path: Path) -> None:
    """A record keeps the logging settings that it was trained with; another is not out of date."""
    training = {"learning_rate": 2e-4, "num_train_epochs": 2}
    result, _ = run(config(tmp_path, training=training | {"logging_steps": 1}))
    again, _ = run(config(tmp_path, training=training | {"logging_steps": 5}), replay=True)
    assert result.chain == again.chain


def test_parent_that_is_gone_is_sound(tmp_path: Path) -> None:
    """An accepted iteration may outlive the one that it came from."""
    result, _ = run(config(tmp_path))
    first, second, _ = result.chain
    Loop(config(tmp_path), Options()).log.remove(first)
    settings = {"lora": dict(second.settings.lora), "training": dict(second.settings.training)}
    settings["training"].pop("activation_checkpointing", None)
    again, _ = run(config(tmp_path, iterations=1, **settings), replay=True)
    assert second.id == again.chain[0].id
