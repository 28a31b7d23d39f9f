"""The improvement log: one YAML and one CSV an iteration, in a folder under version control.

    improvement_log/<loop>/<number>-<id>.yaml            the record
    improvement_log/<loop>/<number>-<id>.examples.csv    one row an eval example, sorted by id

One file an iteration, so two branches never conflict. Keys in a fixed order, floats rounded, no
times of day: the same loop on the same machine writes the same bytes, but for cost and environment.
A record is complete once its YAML exists; the CSV is written before it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import yaml

from pytest_ftloop.data import allow_long_cells
from pytest_ftloop.errors import Location, LogError, shown_path
from pytest_ftloop.metrics import DECIMALS, best_metrics, split_name
from pytest_ftloop.records import (
    SCHEMA_VERSION,
    Adjustment,
    Cost,
    Decision,
    EvalPoint,
    Evaluation,
    ExampleResult,
    Finding,
    Iteration,
    Settings,
    StepLog,
)

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "improvement_log"
CURVE_STEPS = 60
"""Steps a record keeps of the train curve; longer runs are averaged over equal windows."""

RECORD_NAME = re.compile(r"(\d{3,})-([0-9a-f]{8})\.yaml")
_CSV_COLUMNS = (
    "id", "content", "tags", "loss", "tokens", "correct", "passed", "expected", "output",
)  # fmt: skip
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_BaseDumper):  # type: ignore[misc]
    """Writes short lists of plain values on one line, so that a curve reads as a table."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _represent_list(dumper: Any, data: list[Any]) -> Any:
    flow = all(not isinstance(item, dict | list) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_Dumper.add_representer(list, _represent_list)


@dataclass(frozen=True)
class ImprovementLog:
    """The log of one loop: the folder `<log folder>/<loop>`."""

    folder: Path

    def read(self) -> tuple[Iteration, ...]:
        """All iterations, by number and id. A `LogError` names a damaged file and the cure."""
        if not self.folder.is_dir():
            return ()
        paths = sorted(p for p in self.folder.iterdir() if RECORD_NAME.fullmatch(p.name))
        found = [self._read_one(path) for path in paths]
        return tuple(sorted(found, key=lambda i: (i.number, i.id)))

    def append(self, iteration: Iteration) -> Iteration:
        """Write an iteration's two files and return it as it reads back, rounded as it is kept."""
        rows = examples_csv(iteration.examples)
        text = to_yaml(iteration, hashlib.sha256(rows.encode()).hexdigest())
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"{iteration.name}.examples.csv", rows)
            write_atomically(self.folder / f"{iteration.name}.yaml", text)
        except OSError as error:
            raise unwritable(self.folder, error) from None
        return self._read_one(self.folder / f"{iteration.name}.yaml")

    def verify(self, iteration: Iteration) -> None:
        """Raise a `LogError` where a record's figures are not those of its table of examples.

        A log that blocks merges must not be mended by writing a better figure into it.
        """
        rows = tuple(iteration.examples)
        said = best_metrics(Evaluation(rows, (), (), math.nan))
        for name, value in said.items():
            if split_name(name)[0] not in {"eval_loss", "pass_rate", "token_accuracy"}:
                continue
            found = iteration.metrics.get(name, math.nan)
            # A table's losses are rounded; each token's share of that is far below this.
            both_nan = math.isnan(found) and math.isnan(value)
            if not both_nan and not math.isclose(found, value, abs_tol=1e-5):
                raise _damaged(
                    self.files(iteration)[0],
                    f"it says {name} {found}, its table of examples {value}",
                    None,
                )

    def sweep(self) -> None:
        """Remove what a killed process left half-written; only for the one that holds the lock."""
        if self.folder.is_dir():
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)

    def remove(self, iteration: Iteration) -> None:
        """Remove an iteration's two files, the record first: a table alone is no iteration."""
        for path in self.files(iteration):
            path.unlink(missing_ok=True)

    def check_writable(self) -> None:
        """A `LogError` now rather than after a training; nothing is left behind."""
        existing = self.folder
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            raise unwritable(self.folder, NotADirectoryError(20, "Not a directory"))
        probe = existing / f".ftloop-probe-{os.getpid()}"
        try:
            probe.touch()
            probe.unlink(missing_ok=True)  # another thread's probe has the same name
        except OSError as error:
            raise unwritable(self.folder, error) from None

    def files(self, iteration: Iteration) -> tuple[Path, Path]:
        """The record and the table of an iteration."""
        return (
            self.folder / f"{iteration.name}.yaml",
            self.folder / f"{iteration.name}.examples.csv",
        )

    def _read_one(self, path: Path) -> Iteration:
        try:
            record = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else None
            raise _damaged(path, getattr(error, "problem", None) or str(error), line) from None
        except OSError as error:
            raise LogError(
                f"can't be read: {error.strerror}", where=Location(shown_path(path))
            ) from None
        schema = record.get("schema") if isinstance(record, dict) else None
        if isinstance(schema, int) and schema > SCHEMA_VERSION:
            raise LogError(
                f"written by a newer pytest-ftloop: schema {schema}, this one reads up to "
                f"{SCHEMA_VERSION}",
                where=Location(shown_path(path)),
                cure="pip install --upgrade pytest-ftloop",
            )
        try:
            iteration, digest = from_record(record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(path, f"{type(error).__name__}: {error}", None) from None
        if path.stem != iteration.name:
            raise _damaged(path, f"it says it is {iteration.name}", None)
        table = path.with_name(f"{iteration.name}.examples.csv")
        if not table.is_file():
            raise _damaged(path, f"its table {table.name} is missing", None)
        return replace(iteration, examples=ExampleTable(table, digest))


class ExampleTable(Sequence[ExampleResult]):
    """The rows of an examples.csv, read when first looked at: most readers of a log never do."""

    def __init__(self, path: Path, sha256: str) -> None:
        self._path, self._sha256 = path, sha256
        self._rows: tuple[ExampleResult, ...] | None = None

    def __len__(self) -> int:
        return len(self._read())

    def __getitem__(self, index: Any) -> Any:
        return self._read()[index]

    def __iter__(self) -> Iterator[ExampleResult]:
        return iter(self._read())

    def _read(self) -> tuple[ExampleResult, ...]:
        if self._rows is None:
            try:
                text = self._path.read_text(encoding="utf-8").replace("\r\n", "\n")
            except (OSError, UnicodeDecodeError) as error:
                raise _damaged(self._path, str(error), None) from None
            if hashlib.sha256(text.encode()).hexdigest() != self._sha256:
                raise _damaged(self._path, "it differs from what its record was made with", None)
            self._rows = tuple(_rows_of(text))
        return self._rows


def chain_from(iterations: Sequence[Iteration], fingerprint: str) -> tuple[Iteration, ...]:
    """The iterations that start from the one with this fingerprint: itself and its descendants.

    A parent comes before its children, else the lower number first. Where a merge brought the same
    iteration twice, the lower number stands for both.
    """
    waiting = sorted(iterations, key=lambda i: (i.number, i.id))
    following = next((i for i in waiting if i.fingerprint == fingerprint), None)
    chain: list[Iteration] = []
    ids: set[str] = set()
    while following is not None:
        chain.append(following)
        ids.add(following.id)
        waiting = [i for i in waiting if i.id not in ids]
        following = next((i for i in waiting if i.parent in ids), None)
    return tuple(chain)


def next_number(iterations: Iterable[Iteration]) -> int:
    """One more than the highest number in the log."""
    return max((i.number for i in iterations), default=0) + 1


def to_yaml(iteration: Iteration, examples_sha256: str) -> str:
    """An iteration's record as text."""
    record = {
        "schema": iteration.schema,
        "loop": iteration.loop,
        "number": iteration.number,
        "id": iteration.id,
        "parent": iteration.parent,
        "fingerprint": iteration.fingerprint,
        "adjustments": [_plain(asdict(a)) for a in iteration.adjustments],
        "model": iteration.model,
        "settings": {
            "lora": _sorted(iteration.settings.lora),
            "training": _sorted(iteration.settings.training),
            "scoring": _sorted(iteration.scoring),
        },
        "data": {role: _plain(facts) for role, facts in iteration.data.items()},
        "metrics": _plain(iteration.metrics),
        "final": _plain(iteration.final),
        "base": _plain(iteration.base),
        "facts": _plain(iteration.facts),
        "curve": {
            "train": [
                ["step", "loss", "grad_norm", "learning_rate"],
                *(_plain(list(asdict(s).values())) for s in thinned(iteration.steps)),
            ],
            "eval": [
                ["step", "epoch", "eval_loss", "token_accuracy"],
                *(_plain(list(asdict(e).values())) for e in iteration.evals),
            ],
        },
        "findings": [_plain(asdict(f)) for f in iteration.findings],
        "failing": list(iteration.failing),
        "decision": _plain(asdict(iteration.decision)),
        "examples": {
            "file": f"{iteration.name}.examples.csv",
            "rows": len(iteration.examples),
            "sha256": examples_sha256,
        },
        "environment": _sorted(iteration.environment),
        "cost": _plain(asdict(iteration.cost)),
    }
    text: str = yaml.dump(record, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def as_logged(iteration: Iteration) -> Iteration:
    """The iteration as it would read back: its figures rounded, its curve thinned."""
    read, _ = from_record(yaml.load(to_yaml(iteration, ""), Loader=_Loader))
    return replace(read, examples=iteration.examples)


def from_record(record: Mapping[str, Any]) -> tuple[Iteration, str]:
    """An iteration from its parsed record, and the hash its table must have.

    Raises KeyError, TypeError or ValueError for a record that is not whole.
    """
    settings = record["settings"]
    iteration = Iteration(
        loop=record["loop"],
        number=int(record["number"]),
        id=record["id"],
        fingerprint=record["fingerprint"],
        parent=record["parent"],
        adjustments=tuple(Adjustment(**a) for a in record["adjustments"]),
        model=record["model"],
        settings=Settings(lora=settings["lora"], training=settings["training"]),
        scoring=settings["scoring"],
        data=record["data"],
        metrics=_figures(record["metrics"]),
        final=_figures(record["final"]),
        base=_figures(record["base"]),
        facts=dict(record["facts"]),
        steps=tuple(StepLog(*row) for row in record["curve"]["train"][1:]),
        evals=tuple(EvalPoint(*row) for row in record["curve"]["eval"][1:]),
        findings=tuple(Finding(**f) for f in record["findings"]),
        failing=tuple(record["failing"]),
        decision=_decision(record["decision"]),
        environment=record["environment"],
        cost=Cost(**record["cost"]),
        schema=int(record["schema"]),
    )
    return iteration, record["examples"]["sha256"]


def thinned(steps: Sequence[StepLog], most: int = CURVE_STEPS) -> tuple[StepLog, ...]:
    """At most `most` steps: each stands for a window, with its mean loss and highest norm."""
    if len(steps) <= most:
        return tuple(steps)
    edges = [round(i * len(steps) / most) for i in range(most + 1)]
    kept = []
    for start, end in pairwise(edges):
        window = steps[start:end]
        norms = [s.grad_norm for s in window if s.grad_norm is not None]
        kept.append(
            StepLog(
                step=window[-1].step,
                loss=sum(s.loss for s in window) / len(window),
                grad_norm=max(norms, default=None),
                learning_rate=window[-1].learning_rate,
            )
        )
    return tuple(kept)


def examples_csv(examples: Iterable[ExampleResult]) -> str:
    """The table of an iteration's examples, sorted by id."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for row in sorted(examples, key=lambda r: r.id):
        passed = "" if row.passed is None else "yes" if row.passed else "no"
        loss = f"{row.loss:.{DECIMALS}f}"
        id_, tags = _one_cell(row.id), _one_cell(";".join(row.tags))
        cells = [id_, row.content, tags, loss, row.tokens, row.correct, passed]
        writer.writerow([*cells, _one_cell(row.expected), _one_cell(row.output)])
    return out.getvalue()


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all, whenever the process is ended."""
    # Named by process, so two of them never write one temporary file; hidden from `read`.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(folder: Path, error: OSError) -> LogError:
    """The error for a log folder that can't be written."""
    return LogError(
        f"the improvement log can't be written: {error.strerror}",
        where=Location(shown_path(folder)),
        cure="Mend the folder's permissions, or name another with --ftloop-log DIR.",
    )


def _rows_of(text: str) -> Iterator[ExampleResult]:
    allow_long_cells()
    for row in csv.DictReader(io.StringIO(text, newline="")):
        yield ExampleResult(
            id=_text(row["id"]),
            content=row["content"],
            tags=tuple(tag for tag in _text(row["tags"]).split(";") if tag),
            loss=float(row["loss"]),
            tokens=int(row["tokens"]),
            correct=int(row["correct"]),
            passed={"yes": True, "no": False}.get(row["passed"]),
            expected=_text(row["expected"]),
            output=_text(row["output"]),
        )


def _one_cell(text: str) -> str:
    """A text on one line, so that a diff shows one line an example; `_text` reads it back."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    # Control characters and lone surrogates as \u escapes: a code host shows and git diffs it.
    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text
    )


def _text(cell: str) -> str:
    def back(match: re.Match[str]) -> str:
        escape = match[1]
        return {"n": "\n", "r": "\r", "\\": "\\"}.get(escape) or chr(int(escape[1:], 16))

    return re.sub(r"\\(n|r|\\|u[0-9a-f]{4})", back, cell)


def _figures(record: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in record.items()}


def _decision(record: Mapping[str, Any]) -> Decision:
    return Decision(
        action=record["action"],
        kind=record["kind"],
        because=record["because"],
        next=tuple(Adjustment(**a) for a in record["next"]),
    )


def _sorted(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(values[key]) for key in sorted(values)}


def _plain(value: Any) -> Any:
    """A value as YAML keeps it: plain containers, floats rounded to significant digits."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and math.isfinite(value):
        # Large figures to fixed decimals; small ones (learning rates) keep their digits.
        return round(value, DECIMALS) if abs(value) >= 1e-2 else float(f"{value:.{DECIMALS}g}")
    if value is None or isinstance(value, bool | int | float):
        return value
    # Subclasses of str too: the YAML library knows exact types only, and no lone surrogates.
    return str(value).encode("utf-8", "backslashreplace").decode()


def _damaged(path: Path, why: str, line: int | None) -> LogError:
    return LogError(
        f"damaged log file: {why}",
        where=Location(shown_path(path), line),
        cure=f"Restore it (git checkout -- {shown_path(path)}), or delete both files of the "
        "iteration and run pytest --ftloop.",
    )
