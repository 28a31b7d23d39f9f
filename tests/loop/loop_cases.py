"""What the tests of `loop` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.writing import tag_of
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.fake_backend import FakeBackend

if TYPE_CHECKING:
    from pytest_ftloop.loop.result import LoopResult

TRAIN = [{"prompt": f"p{n}", "completion": f"c{n}", "tags": "x"} for n in range(6)]


EVAL = [{"id": f"e{n}", "prompt": f"q{n}", "completion": f"d{n}", "tags": "x"} for n in range(4)]


def config(folder: Path, *, rate: float = 2e-4, iterations: int = 3, **changes: Any) -> LoopConfig:
    return from_python(
        **{
            "folder": folder,
            "source": "test_loop.py",
            "name": "s",
            "train": TRAIN,
            "eval": EVAL,
            "lora": {"r": 8, "lora_alpha": 16},
            "training": {"learning_rate": rate, "num_train_epochs": 2},
            "loop": {"iterations": iterations, "patience": 9},
            **changes,
        }
    )


def run(
    config: LoopConfig, trainer: FakeBackend | None = None, **options: Any
) -> tuple[LoopResult, FakeBackend]:
    trainer = trainer or FakeBackend()
    return Loop(config, Options(**options), backend=trainer).run(), trainer


def contents(folder: Path) -> dict[str, bytes]:
    """The files of the iterations; those of the untrained base are in a folder of their own."""
    files = sorted(p for p in (folder / "improvement_log/s").iterdir() if p.is_file())
    return {p.name: p.read_bytes() for p in files}


def names(result: LoopResult) -> list[str]:
    return [i.name for i in result.chain]


def files(result: LoopResult) -> set[str]:
    """The names of the files of a chain."""
    log = ImprovementLog(result.log_folder)
    return {path.name for i in result.chain for path in log.files(i)}


def forge(record: Path, *edits: tuple[str, str]) -> Path:
    """Edit a record by hand and rename it to fit its hash; its new path."""
    text = record.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    renamed = record.with_name(f"{record.stem.rpartition('-')[0]}-{tag_of(text)}.yaml")
    for table in record.parent.glob(f"{record.stem}.*examples.csv"):
        table.rename(table.with_name(table.name.replace(record.stem, renamed.stem)))
    record.unlink()
    renamed.write_text(text, encoding="utf-8")
    return renamed
