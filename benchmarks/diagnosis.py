"""`make bench-diagnosis`: how long all rules take after ten iterations with 5,000 examples.

The history is made up: 5,000 train and 5,000 eval examples, nine iterations in a log, the tenth
to be diagnosed; once with prompts of few words, which recur often, then with longer ones of 8,000
words, some of them much more frequent than others, as in any language. Each run is a fresh process,
which reads the data and the log as a loop does, then imports and runs the diagnosis; the log's
tables are read when a rule first asks for them, so that counts. Exits 1 when import and rules take
over two seconds of processor time in the median, or when a heavy library was imported.

    python benchmarks/diagnosis.py [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

ITERATIONS = 10
EXAMPLES = 5_000
PASSES = 3
MOST_S = 2.0
PROMPTS = {"12 to 40": 0, "60": 60, "200": 200}
"""Words of a prompt; 0: as `long_log.row` makes them."""
VOCABULARY = [f"w{number}" for number in range(8_000)]
FREQUENCIES = [1 / (number + 10) for number in range(8_000)]
STAGES = (
    "import of log and data",
    "read data and log",
    "import of diagnose",
    "rules over the data, once a loop",
    "all other rules",
)


def main() -> int:
    """Make the history, diagnose it in fresh processes, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="default: 5000")
    parser.add_argument("--smoke", action="store_true", help="one run, 100 examples, one prompt")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.once:
        print(json.dumps(timed(chosen.once, chosen.examples)))
        return 0
    runs, examples, prompts = chosen.runs, chosen.examples, PROMPTS
    if chosen.smoke:
        runs, examples, prompts = 1, 100, {"12 to 40": 0}
    print(f"{ITERATIONS} iterations, {examples} eval and train examples: processor s")
    took = [measured(shown, words, runs, examples) for shown, words in prompts.items()]
    return 1 if max(took) > MOST_S else 0


def measured(shown: str, words: int, count: int, examples: int) -> float:
    """Print what prompts of so many words cost; the seconds of import and all rules."""
    with tempfile.TemporaryDirectory() as temporary:
        make(Path(temporary), words, examples)
        runs = [fresh(Path(temporary), examples) for _ in range(count)]
    times = {stage: [run["seconds"][stage] for run in runs] for stage in STAGES}
    times["import and rules"] = [sum(run["seconds"][s] for s in STAGES[2:]) for run in runs]
    print(f"prompts of {shown} words {'':12} median (range)")
    for stage, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"  {stage:32} {middle:6.3f} ({min(seconds):.3f} to {max(seconds):.3f})")
    print(f"  found: {', '.join(runs[0]['kinds'])}", flush=True)
    took: float = statistics.median(times["import and rules"])
    return took


def fresh(folder: Path, examples: int) -> dict[str, Any]:
    """What one fresh process measured."""
    command = [sys.executable, __file__, "--once", str(folder), "--examples", str(examples)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def make(folder: Path, words: int, examples: int) -> None:
    """Data and a log of all iterations but the last, which is kept beside it."""
    import long_log

    from pytest_ftloop.config.loop_config import read_loop_file
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.log import ImprovementLog
    from pytest_ftloop.loop.inputs import Inputs

    rng = random.Random(0)
    (folder / "data").mkdir()
    (folder / "topic.ftloop.yaml").write_text(long_log.loop_text(ITERATIONS))
    for role in ("train", "eval"):
        rows = [long_log.row(role, number, rng) for number in range(examples)]
        if words:
            prompts = (" ".join(rng.choices(VOCABULARY, FREQUENCIES, k=words)) for _ in rows)
            rows = [{**row, "prompt": prompt} for row, prompt in zip(rows, prompts, strict=True)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"data/{role}.jsonl").write_text(text)
    config = read_loop_file(folder / "topic.ftloop.yaml")
    inputs = Inputs.of(config, None)
    log = ImprovementLog(folder / "improvement_log/topic")
    runs = long_log.Runs(inputs.eval.examples, inputs.train.examples[:256], rng)
    chain: list[Iteration] = []
    for number in range(1, ITERATIONS):
        made = long_log.iteration(config, inputs, chain, number, runs, number / 200)
        chain.append(log.append(made))
    last = long_log.iteration(config, inputs, chain, ITERATIONS, runs, ITERATIONS / 200)
    losses = [
        (example.id, tuple(rng.uniform(0, 2) ** 3 / 4 for _ in range(PASSES)))
        for example in inputs.train.examples
    ]
    (folder / "last.pickle").write_bytes(pickle.dumps((last, tuple(last.examples), losses)))


def timed(folder: Path, examples: int) -> dict[str, object]:
    """Each stage's seconds, and the kinds of findings, in this process."""
    from time import process_time as now

    marks = [now()]
    from pytest_ftloop.config.loop_config import read_loop_file
    from pytest_ftloop.core.records import TrainedExample
    from pytest_ftloop.data.examples import load
    from pytest_ftloop.log import ImprovementLog

    marks.append(now())
    config = read_loop_file(folder / "topic.ftloop.yaml")
    train, eval_ = (
        load(f"data/{role}.jsonl", role, folder, config.columns).examples
        for role in ("train", "eval")
    )
    history = tuple(ImprovementLog(folder / "improvement_log/topic").read())
    last, results, losses = pickle.loads((folder / "last.pickle").read_bytes())
    trained = tuple(TrainedExample(*course) for course in losses)
    assert len(history) == ITERATIONS - 1
    marks.append(now())
    from pytest_ftloop.diagnose import Evidence, data, diagnose

    marks.append(now())
    evidence = Evidence(
        steps=tuple(last.steps),
        evals=tuple(last.evals),
        planned_steps=150,
        best_step=150,
        steps_per_epoch=50,
        trainable_parameters=1_000_000,
        labelled_tokens=4_000,
        vocabulary=50_257,
        adapter_moved=True,
        metrics=last.metrics,
        final=last.final,
        base_eval_loss=5.0,
        history=history,
        metric=config.loop.metric or "eval_loss",
        train=train,
        trained=trained,
        eval=eval_,
        results=results,
        gates=config.gates,
    )
    of_data = tuple(data.findings(evidence))
    marks.append(now())
    found = diagnose(evidence, of_data)
    marks.append(now())
    from checked import HEAVY

    heavy = [name for name in HEAVY if name in sys.modules]
    assert not heavy, f"imported: {heavy}"
    assert all(len(iteration.examples) == examples for iteration in history)
    seconds = [after - before for before, after in pairwise(marks)]
    return {
        "seconds": dict(zip(STAGES, seconds, strict=True)),
        "kinds": sorted({finding.kind for finding in found}),
    }


if __name__ == "__main__":
    sys.exit(main())
