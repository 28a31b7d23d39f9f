"""What a changed evaluation costs beside a training: seconds, and what is loaded.

    python benchmarks/changes.py                                    (the quickstart)
    python benchmarks/changes.py MODEL --train TRAIN_CSV --test TEST_CSV      (banking77)

Each change is made on the log of the one before, and run by `ftloop run` in a process of its own:
a training, another scorer, a row more, a tag, a guard of 40 rows. "model" is whether weights were
read. The processor's seconds depend less than the wall clock's on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import guards
from tabulate import tabulate

QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart"
GUARD = 40

CHILD = """
import json, resource, sys
read = []
sys.addaudithook(
    lambda event, args: read.append(args[0])
    if event == "open" and str(args[0]).endswith((".safetensors", "pytorch_model.bin"))
    and "adapter" not in str(args[0]) and "r" in str(args[1] or "r") else None
)
from pytest_ftloop.cli.main import main
code = main(["run", "."])
used = resource.getrusage(resource.RUSAGE_SELF)
loaded = [name for name in ("torch", "numpy") if name in sys.modules] + (["model"] if read else [])
print("\\n" + json.dumps([code, used.ru_utime + used.ru_stime, used.ru_maxrss // 1024, loaded]))
"""

Loop = dict[str, Any]


def main() -> int:
    """Make the changes in turn, print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--train", type=Path, help="banking77's train.csv")
    parser.add_argument("--test", type=Path, help="banking77's test.csv")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "loop")
        folder.mkdir()
        os.environ["FTLOOP_CACHE"] = str(Path(temporary, "cache"))
        if chosen.model is None:
            loop = of_quickstart(folder)
        else:
            guards.write_data(folder, chosen.train, chosen.test, mixed=False)
            loop = of_banking(chosen.model.absolute())
        hold_back(folder)
        rows = [timed(name, change, loop, folder) for name, change in CHANGES.items()]
    heads = ["change", "seconds", "of the processor", "MiB", "loaded"]
    print(tabulate(rows, heads, "github", disable_numparse=True))
    return 0


def of_quickstart(folder: Path) -> Loop:
    """The quickstart with the settings that its loop found, and a guard from its train rows."""
    shutil.copytree(QUICKSTART / "data", folder, dirs_exist_ok=True)
    rows = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "guard.jsonl").write_text("".join(rows[:GUARD]), encoding="utf-8")
    return settings("tiny", num_train_epochs=6, learning_rate=4.3e-3)


def of_banking(model: Path) -> Loop:
    """Six intents of banking77, as benchmarks/guards.py has them."""
    return settings(str(model), num_train_epochs=2, learning_rate=1e-3)


def settings(model: str, **training: Any) -> Loop:
    """A loop of one iteration."""
    return {
        "model": model,
        "data": {"train": "train.jsonl", "eval": "eval.jsonl"},
        "lora": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        "training": {"per_device_train_batch_size": 8, "activation_checkpointing": False}
        | training,
        "scoring": {"scorer": "exact"},
        "loop": {"iterations": 1},
    }


def hold_back(folder: Path) -> None:
    """Put the last eval row aside, and keep so many rows of the guard."""
    *rows, last = lines(folder / "eval.jsonl")
    write(folder / "eval.jsonl", rows)
    write(folder / "last.jsonl", [last])
    write(folder / "guard.jsonl", lines(folder / "guard.jsonl")[:GUARD])


def lines(file: Path) -> list[Loop]:
    """The rows of a file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write(file: Path, rows: list[Loop]) -> None:
    """Write rows to a file."""
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def another_scorer(loop: Loop, _: Path) -> None:
    """From `exact` to `contains`."""
    loop["scoring"] = {"scorer": "contains"}


def a_row_more(_: Loop, folder: Path) -> None:
    """Take in the eval row that was put aside."""
    write(folder / "eval.jsonl", lines(folder / "eval.jsonl") + lines(folder / "last.jsonl"))


def a_tag(_: Loop, folder: Path) -> None:
    """Tag every second eval row."""
    rows = lines(folder / "eval.jsonl")
    for row in rows[::2]:
        row["tags"] = [*row.get("tags", []), "second"]
    write(folder / "eval.jsonl", rows)


def a_guard(loop: Loop, _: Path) -> None:
    """A guard whose loss is measured, or which is scored as the eval set."""
    loop["data"]["guards"] = {"general": "guard.jsonl"}


CHANGES: dict[str, Callable[[Loop, Path], None]] = {
    "training": lambda _loop, _folder: None,
    "exact to contains": another_scorer,
    "a row more": a_row_more,
    "a tag": a_tag,
    f"a guard of {GUARD} rows": a_guard,
    "nothing": lambda _loop, _folder: None,
}


def timed(name: str, change: Callable[[Loop, Path], None], loop: Loop, folder: Path) -> list[str]:
    """Make a change and run the loop: a row of the table."""
    change(loop, folder)
    (folder / "loop.ftloop.yaml").write_text(json.dumps(loop), encoding="utf-8")
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD], cwd=folder, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{name}: {done.stdout}{done.stderr}")
    *said, last = done.stdout.splitlines()
    code, processor, memory, loaded = json.loads(last)
    row = [name, f"{seconds:.1f}", f"{processor:.1f}", str(memory), ", ".join(loaded) or "nothing"]
    print(row, f"exit code {code}", next(headlines(said), ""), file=sys.stderr, flush=True)
    return row


def headlines(said: list[str]) -> Iterator[str]:
    """The line that says what was trained or evaluated."""
    return (line for line in said if line.startswith("loop: "))


if __name__ == "__main__":
    sys.exit(main())
