"""`ftloop init --from`: a loop file from a training script, or from hosted fine-tuning's rows."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.bounds import MOST_BYTES, read_bytes
from pytest_ftloop.core.errors import ConfigError, Location, shown_path
from pytest_ftloop.core.files import real

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_ftloop.config.from_script import FromScript
    from pytest_ftloop.data.from_openai import Converted

SPLIT = {"fraction": 0.1, "seed": 0}
"""How an eval set is split off where there is none."""

HOSTED = """\
# What hosted fine-tuning calls n_epochs is num_train_epochs, batch_size is
# per_device_train_batch_size; learning_rate_multiplier has no counterpart.
"""


@dataclass(frozen=True)
class Migrated:
    """The files to write, and what to tell the user about them."""

    texts: Mapping[Path, str]
    lines: tuple[str, ...]


def migrated(source: Path, folder: Path) -> Migrated:
    """A loop from a script (.py) or a file of chat rows (.jsonl). Runs nothing of it."""
    shown = shown_path(source)
    try:
        text = read_bytes(source, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"can't be read: {error.strerror}", where=Location(shown)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8: {error}", where=Location(shown)) from None
    name = "".join(c if c.isalnum() else "-" for c in source.stem).strip("-") or "loop"
    loop_file = folder / f"{name}.ftloop.yaml"
    if source.suffix == ".py":
        from pytest_ftloop.config.from_script import from_script

        found = from_script(text, shown)
        here = source.absolute().parent
        return Migrated({loop_file: script_loop(found, shown, here, folder)}, (*_told(found),))
    if source.suffix in (".jsonl", ".ndjson"):
        from pytest_ftloop.data.from_openai import from_openai

        rows = from_openai(text, shown)
        kept = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows.rows)
        target = folder / "data" / "train.jsonl"
        if real(target) == real(source):
            raise ConfigError(
                "--from: the rows are written into data/train.jsonl, which is the file to read",
                where=Location(shown),
                cure="Move it to another name first: --force would replace it.",
            )
        texts = {loop_file: rows_loop(), target: kept}
        return Migrated(texts, (*_counted(rows),))
    raise ConfigError(
        f"--from: wanted a training script (.py) or chat rows (.jsonl), found {source.name!r}",
        cure=f"jupyter nbconvert --to script {source.name} writes one."
        if source.suffix == ".ipynb"
        else "",
    )


def script_loop(found: FromScript, shown: str, here: Path, folder: Path) -> str:
    """The loop file for a script in the folder `here`."""
    data = dict(found.data) or {"train": "data/train.jsonl"}
    data.setdefault("train", "data/train.jsonl")
    if "eval" not in data and "split" not in data:
        data["split"] = SPLIT
    for role in ("train", "eval"):
        if isinstance(data.get(role), str):
            data[role] = _from_here(data[role], here, folder)
    notes = [f"From {shown}, which was read, not run."]
    notes += [f"Not taken: line {left.line}: {left.what}: {left.why}" for left in found.left]
    parts = [f"# {' '.join(note.split())}" for note in notes]  # a line break would end the comment
    values: dict[str, Any] = {"model": found.model or "tiny", "data": data}
    values |= {"lora": found.lora} if found.lora else {}
    values |= {"training": found.training} if found.training else {}
    return "\n".join([*parts, _yaml(values) + _GATES])


def rows_loop() -> str:
    """The loop file for rows of hosted fine-tuning."""
    head = "# A chat model from the hub, with a chat template; choose one that fits your device.\n"
    values = {
        "model": "Qwen/Qwen3-0.6B",
        "data": {"train": "data/train.jsonl", "split": SPLIT},
        "lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
    }
    training = {"num_train_epochs": 3, "learning_rate": 2e-4, "assistant_only_loss": False}
    return head + _yaml(values) + HOSTED + _yaml({"training": training}) + _GATES


_GATES = """\
gates:
  regression: {}                   # not worse than the last committed version
loop: {iterations: 4, patience: 2}
"""


def _from_here(file: str, here: Path, folder: Path) -> str:
    """A path of the script as the loop file states it; a URL stays."""
    if "://" in file or Path(file).is_absolute():
        return file
    return Path(os.path.relpath(here / file, folder.absolute())).as_posix()


def _yaml(values: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=10**6)


def _told(found: FromScript) -> Iterator[str]:
    yield f"read {len(found.lora)} arguments of LoraConfig, {len(found.training)} of SFTConfig"
    yield "not read:" if found.left else "nothing was left out"
    for left in found.left:
        yield f"  line {left.line}: {left.what}"
        yield f"    {left.why}"
    if not found.lora:
        yield "no LoraConfig was found: the loop trains LoRA with its own default, r 8"
    if not found.model:
        yield "no model was found: the loop file names tiny, the embedded one"
    if "train" not in found.data:
        yield "no train rows were found: name your file in data.train"


def _counted(rows: Converted) -> Iterable[str]:
    yield f"{len(rows.rows)} rows in data/train.jsonl; data.split holds 10% of them out to evaluate"
    for change, count in rows.changes.items():
        yield f"  {change}: {count} rows or messages"
    yield "the model is an example: name your own in the loop file"
