"""`make bench-slices`: are planted faults named, and is the diagnosis quiet where there are none?

Real trainings of the embedded base model on small tasks:

- planted: one group of the train set (a tag, a label, the rows with one word) has wrong labels, or
  is missing. The first slice that the diagnosis names should be that group: the two share 80% of
  the eval examples that are in either;
- healthy: other seeds, sizes, epochs and learning rates, nothing planted. No slice should be named;
- wrong labels: a share of the train labels, drawn at random, is wrong. The train examples named as
  mislabelled should be these. The healthy runs without noise in their labels are the clean ones;
- many (only if asked for): up to four in ten of the train labels are wrong, over 2 to 10 epochs.
  Where the model learns the task, `mislabelled` should be among the findings, and most of the first
  twenty ids should be wrong; without wrong labels it should not be there;
- words (only if asked for): the same cases of every task, `--blocks` times as many, judged by their
  words alone, without any training.

    python benchmarks/slices.py [--first-seed 0] [--keep DIR] [--only planted healthy others wrong]
    python benchmarks/slices.py --only many [--base narrow] [--task library] [--most 4]
    python benchmarks/slices.py --only words [--blocks 10]

With `--keep` trainings are kept in a folder, so that a second run only reads. No rule was mended on
the bases `narrow` and `wide`, nor on the task `library`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from bases import BASES, base
from kept import VERSIONS, KeptBackend
from slices_cases import (
    HELD_OUT,
    TASKS,
    Case,
    clean,
    healthy,
    many_wrong,
    planted,
    stopped_early,
    wrong_labels,
)
from tabulate import tabulate

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.core.records import Example, Finding
from pytest_ftloop.diagnose import Evidence, dynamics, label_words
from pytest_ftloop.diagnose.data import before_training
from pytest_ftloop.diagnose.slices import failing_slices

SHARED = 0.8
"""A slice counts as the planted group from this Jaccard index of their examples on."""

PASSING = 0.75
"""Pass rate of the eval set from which on the model has learned the task of a `many` run."""

LEARNED = 0.2
"""A planted group fails this much more often than the rest, or the model did not learn it."""


def main() -> None:
    """Train, diagnose, print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the trainings here")
    parts = ("planted", "healthy", "others", "wrong")
    parser.add_argument(
        "--only", nargs="*", choices=(*parts, "many", "words"), default=parts, metavar="PART"
    )
    parser.add_argument("--base", choices=BASES, default="tiny", help="the base model")
    parser.add_argument("--task", choices=(*TASKS, *HELD_OUT), default="library", help="of `many`")
    parser.add_argument("--blocks", type=int, default=10, metavar="N", help="of `words`")
    parser.add_argument("--most", type=int, metavar="N", help="cases per table")
    parser.add_argument("--smoke", action="store_true", help="two steps of one case per table")
    chosen = parser.parse_args()
    first, only = chosen.first_seed, chosen.only
    if "words" in only:
        for task in (*TASKS, *HELD_OUT):
            show_words(task, range(first, first + 100 * chosen.blocks, 100))
    unspoilt = [*(healthy(first) if "healthy" in only else ())]
    unspoilt += [*stopped_early(first), *clean(first)] if "others" in only else []
    tables = [
        ([*planted(first)] if "planted" in only else [], show_planted),
        (unspoilt, show_healthy),
        ([*wrong_labels(first)] if "wrong" in only else [], show_wrong),
        ([*many_wrong(first, chosen.task)] if "many" in only else [], show_many),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        kept = (chosen.keep or Path(temporary)) / VERSIONS
        for cases, show in tables:
            if chosen.smoke:
                cases = [replace(case, steps=2, eval=case.eval[:20]) for case in cases[:1]]
            cases = cases[: chosen.most]
            if seen := [(case, evidence(case, kept, chosen.base)) for case in cases]:
                show(seen)


def evidence(case: Case, kept: Path, of_base: str) -> Evidence:
    """What the diagnosis would see of the case, trained once and kept."""
    config = config_of(case, of_base)
    backend = KeptBackend(kept, config)
    run = backend.train(config.settings, name="case")
    return Evidence.of(
        run.training,
        {},
        {},
        run.evaluation.base_eval_loss,
        train=backend.inputs.train.examples,
        eval=backend.inputs.eval.examples,
        results=run.evaluation.examples,
    )


def config_of(case: Case, of_base: str) -> LoopConfig:
    """The case as a loop."""
    training: dict[str, object] = {
        "learning_rate": case.rate,
        "num_train_epochs": case.epochs,
        "per_device_train_batch_size": 16,
        "activation_checkpointing": False,
        "seed": case.seed,
    }
    if not case.evaluated:
        training["eval_strategy"] = "no"
    return from_python(
        folder=Path.cwd(),
        source="benchmark",
        name="case",
        model=base(of_base),
        train=list(case.train),
        eval=list(case.eval),
        lora={"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        training=training if case.steps is None else {**training, "max_steps": case.steps},
        scoring={"scorer": "exact"},
        loop={"iterations": 1},
    )


Seen = Sequence[tuple[Case, Evidence]]


def show_planted(cases: Seen) -> None:
    """How often the first slice named is the planted one."""
    rows = []
    for what, some in by(cases, lambda case: (case.task, case.what.removeprefix("planted: "))):
        inside = [rate(e, case.failing) for case, e in some]
        outside = [rate(e, ids_of(e) - case.failing) for case, e in some]
        named = sum(is_named_first(case, e) for case, e in some)
        rows.append((what, len(some), mean(inside), mean(outside), named))
    heads = ("planted groups", "runs", "fail in it", "elsewhere", "named first")
    print(tabulate(rows, heads, "plain"))
    took = [(case, e) for case, e in cases if is_learned(case, e)]
    named = sum(is_named_first(case, e) for case, e in took)
    print(
        f"  the model learned what was planted in {len(took)} of {len(cases)}; named first in "
        f"{named} of these ({named / max(len(took), 1):.0%})\n",
        flush=True,
    )


def show_healthy(cases: Seen) -> None:
    """How often a slice is named, or a right label doubted, where nothing is planted."""
    print("nothing planted       runs  failing (range)   a slice named   right labels doubted")
    for what, some in by(cases, lambda case: (case.task, case.what)):
        failing = [rate(e, ids_of(e)) for _, e in some]
        slices = sum(bool(failing_slices(e)) for _, e in some)
        false = sum(bool(doubted(e) - case.wrong) for case, e in some)
        spread = f"{mean(failing)} ({min(failing):.0%} to {max(failing):.0%})"
        print(f"  {what:32} {len(some):4} {spread:22} {slices:4} {false:4}")
        for case, e in some:
            for found in failing_slices(e)[:1]:
                print(
                    f"    seed {case.seed}: {found.group.name}, {len(found.places)} examples, "
                    f"{found.inside:.0%} against {found.others:.0%}"
                )
    healthy_ones = [(case, e) for case, e in cases if case.what.startswith("healthy")]
    quiet = sum(not failing_slices(e) for _, e in healthy_ones)
    print(f"  no slice named: {quiet} of {len(healthy_ones)} healthy runs", end="; ")
    right = [e for case, e in cases if not case.wrong]
    alarms = sum(bool(doubted(e)) for e in right)
    print(f"labels doubted in {alarms} of {len(right)} runs without wrong ones\n", flush=True)


def show_wrong(cases: Seen) -> None:
    """Precision and recall of the doubted labels."""
    groups = [*by(cases, lambda case: (case.task, case.what)), ("all", cases)]
    heads = ("wrong labels", "runs", "found in", "wrong", "doubted", "of these wrong")
    rows = [_doubted(what, some) for what, some in groups]
    print(tabulate(rows, (*heads, "precision", "recall"), "plain"))


def _doubted(what: str, some: Seen) -> tuple[object, ...]:
    named = [(case.wrong, doubted(e)) for case, e in some]
    wrong, listed = sum(len(w) for w, _ in named), sum(len(d) for _, d in named)
    hits = sum(len(w & d) for w, d in named)
    precision = f"{hits / listed:.0%}" if listed else "-"
    found = sum(bool(d) for _, d in named)
    recall = f"{hits / wrong:.0%}" if wrong else "-"
    return what, len(some), found, wrong, listed, hits, precision, recall


def show_many(cases: Seen) -> None:
    """Per share of wrong labels: how often they are named, and how many of the first ids are."""
    rows: list[tuple[object, ...]] = []
    for what, some in by(cases, lambda case: (case.what,)):
        learned = [(case, e) for case, e in some if 1 - rate(e, ids_of(e)) >= PASSING]
        of_ids = [right for case, e in learned if (right := share_of_ids(case, e)) is not None]
        named = sum(share_of_ids(case, e) is not None for case, e in some)
        precision = mean(of_ids) if of_ids else "-"
        rows.append((what, len(some), named, len(learned), len(of_ids), precision))
    heads = ("wrong labels", "runs", "named", "learned", "of these named", "of the ids wrong")
    print(tabulate(rows, heads, "plain"), flush=True)


def show_words(task: str, seeds: Iterable[int]) -> None:
    """Per share of wrong labels: how often the words name them, and how many ids are wrong."""
    named: dict[str, list[float | None]] = {}
    for case in (case for seed in seeds for case in many_wrong(seed, task)):
        train, eval_ = (
            tuple(Example(row["id"], "", {}, (), row["prompt"], row["completion"]) for row in some)
            for some in (case.train, case.eval)
        )
        found = [f for f in before_training(train, eval_) if f.kind == "mislabelled"]
        named.setdefault(case.what, []).append(share_wrong(case, found[0]) if found else None)
    rows = []
    for what, shares in named.items():
        hits = [share for share in shares if share is not None]
        rows.append((what, len(shares), len(hits), mean(hits) if hits else "-"))
    heads = (f"{task}, by words", "sets", "named", "of the ids wrong")
    print(tabulate(rows, heads, "plain"), "\n", flush=True)


def share_of_ids(case: Case, e: Evidence) -> float | None:
    """Which share of the ids that `mislabelled` names is wrong; None if it is not found.

    The words' finding comes first, as in `diagnose`.
    """
    found = [f for f in (label_words.mislabelled(e), *dynamics.findings(e)) if f]
    return share_wrong(case, found[0]) if found else None


def share_wrong(case: Case, found: Finding) -> float:
    """Which share of the ids that a finding names is wrong."""
    named = str(found.evidence["ids"]).split(", ")
    return statistics.fmean(id_ in case.wrong for id_ in named)


def by(cases: Seen, key: Callable[[Case], tuple[str, ...]]) -> Iterator[tuple[str, Seen]]:
    """The cases by what `key` gives for them, in the order of first occurrence."""
    groups: dict[tuple[str, ...], list[tuple[Case, Evidence]]] = {}
    for case, e in cases:
        groups.setdefault(key(case), []).append((case, e))
    for names, some in groups.items():
        yield ", ".join(names), some


def is_learned(case: Case, e: Evidence) -> bool:
    """Whether the planted group fails more often than the rest, by `LEARNED` at least."""
    return rate(e, case.failing) - rate(e, ids_of(e) - case.failing) >= LEARNED


def is_named_first(case: Case, e: Evidence) -> bool:
    """Whether the first slice is the planted group, or nearly so by `SHARED`."""
    first = next(iter(failing_slices(e)), None)
    if first is None:
        return False
    named = {e.results[place].id for place in first.places}
    return len(named & case.failing) >= SHARED * len(named | case.failing)


def doubted(e: Evidence) -> set[str]:
    """The ids of all train examples whose labels are doubted."""
    return set(dynamics.doubted_ids(dynamics.confidences(e)))


def ids_of(e: Evidence) -> set[str]:
    """The ids of the eval examples."""
    return {row.id for row in e.results}


def rate(e: Evidence, ids: AbstractSet[str]) -> float:
    """The failure rate of these examples."""
    return statistics.fmean(row.passed is False for row in e.results if row.id in ids)


def mean(shares: Sequence[float]) -> str:
    """The mean, in percent."""
    return f"{statistics.fmean(shares):.0%}"


if __name__ == "__main__":
    main()
