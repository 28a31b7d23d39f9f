"""What a user can get wrong: each mistake is told with its place, and changes nothing on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import EVAL, TRAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.plugin.conftest import Project

COLLECTION = pytest.ExitCode.INTERRUPTED
FAILED = pytest.ExitCode.TESTS_FAILED
CSV = "id,prompt,completion,tags\ne1,q,a,negation\n"


@dataclass(frozen=True)
class Mistake:
    """One mistake: edits of `x.ftloop.yaml`, files written over, and what must be said of it.

    `damage` is a kind of file in the log of an earlier run, a text in it, and what stands there
    instead. `torch`: without the fake runner.
    """

    name: str
    phrases: tuple[str, ...]
    edits: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    exit_code: int = FAILED
    args: tuple[str, ...] = ("--ftloop",)
    damage: tuple[str, str, str] | None = None
    torch: bool = False


def rows(*given: object) -> str:
    """Rows as a jsonl file's text."""
    return "".join(f"{json.dumps(row)}\n" for row in given)


def loop_mistake(name: str, old: str, new: str, *phrases: str) -> Mistake:
    """A mistake in the loop file itself, told at collection."""
    return Mistake(name, phrases, edits={old: new}, exit_code=COLLECTION)


def data_mistake(name: str, file: str, text: str | bytes, *phrases: str) -> Mistake:
    """A mistake in a data file, told when the loop runs."""
    return Mistake(name, phrases, files={file: text})


def scorer_mistake(name: str, text: str, *phrases: str) -> Mistake:
    """A mistake in the user's scorer."""
    edits = {"gates:": "scoring: {scorer: 'my_scorer:score'}\ngates:"}
    return Mistake(name, phrases, edits, {"my_scorer.py": text})


def log_mistake(name: str, file: str, old: str, new: str, *phrases: str) -> Mistake:
    """A mistake in the log: a file of the best iteration is edited."""
    return Mistake(name, phrases, damage=(file, old, new))


def real_mistake(name: str, old: str, new: str, *phrases: str) -> Mistake:
    """A mistake that only trl, peft or transformers can see."""
    return Mistake(name, phrases, edits={old: new}, torch=True)


MISTAKES = [
    loop_mistake("no YAML", "{r: 8", "{r: [8", "x.ftloop.yaml:2: not YAML"),
    loop_mistake("tab", "  eval_loss", "\teval_loss", "x.ftloop.yaml:5: not YAML"),
    loop_mistake("key twice", "lora:", "loop: {}\nlora:", "x.ftloop.yaml:8: not YAML", "duplicate"),
    loop_mistake(
        "unknown section", "gates:", "gate:", "x.ftloop.yaml:4: ", "Did you mean 'gates'?"
    ),
    loop_mistake("unknown data key", "eval: eval", "evla: eval", "x.ftloop.yaml:1: ", "'evla'"),
    loop_mistake("no train set", "train: train.jsonl, ", "", "x.ftloop.yaml:1: data.train is miss"),
    loop_mistake("no eval set", ", eval: eval.jsonl", "", "x.ftloop.yaml:1: no eval set: add eval"),
    loop_mistake("no data", "data:", "lroa: 1\n#", "data is missing", "Did you mean 'lora'?"),
    loop_mistake("lora", "{r: 8, lora_alpha: 16}", "8", "x.ftloop.yaml:2: lora: wanted keys with"),
    loop_mistake(
        "training", "{learning_rate: 2.0e-4, num_train_epochs: 2}", "[]", "x.ftloop.yaml:3: t"
    ),
    loop_mistake(
        "metric", "eval_loss:", "eval_los:", "x.ftloop.yaml:5: ", "unknown metric 'eval_los'"
    ),
    loop_mistake("condition", '"<= 1.9"', "1.9", "x.ftloop.yaml:5: ", 'Write eval_loss: "<= 1.9".'),
    loop_mistake("direction", '"<= 1.9"', '">= 1.9"', "x.ftloop.yaml:5: ", "lower is better"),
    loop_mistake(
        "scorer", "gates:", "scoring: {scorer: exat}\ngates:", "x.ftloop.yaml:4: ", "'exact'"
    ),
    loop_mistake("threshold", "gates:", "scoring: {threshold: 1}\ngates:", "x.ftloop.yaml:4: "),
    loop_mistake(
        "iterations", "iterations: 3", "iterations: 0", "x.ftloop.yaml:7: loop.iterations: "
    ),
    loop_mistake(
        "loop key", "patience", "patient", "x.ftloop.yaml:7: ", "Did you mean 'patience'?"
    ),
    loop_mistake(
        "key of regression",
        'eval_loss: "<= 1.9"',
        "regression: {alfa: 0.01}",
        "x.ftloop.yaml:5: unknown key 'alfa' in gates.regression",
        "Did you mean 'alpha'?",
    ),
    loop_mistake(
        "value of regression",
        'eval_loss: "<= 1.9"',
        "regression: {alpha: 5}",
        "x.ftloop.yaml:5: gates.regression.alpha: wanted less than 0.5, found 5",
    ),
    loop_mistake(
        "metric of regression",
        'eval_loss: "<= 1.9"',
        "regression: {metrics: [eval_los]}",
        "x.ftloop.yaml:5: gate regression: unknown metric 'eval_los'",
        "Did you mean 'eval_loss'?",
    ),
    loop_mistake(
        "verdict of regression",
        'eval_loss: "<= 1.9"',
        "regression: {fail_on: [inconclusiv]}",
        "x.ftloop.yaml:5: gates.regression.fail_on: ",
        "Did you mean 'inconclusive'?",
    ),
    loop_mistake(
        "regression as a condition",
        'eval_loss: "<= 1.9"',
        "regression: '<= 0.1'",
        "x.ftloop.yaml:5: gate regression: wanted keys such as {alpha: 0.01}",
        "Write regression: {} for the defaults.",
    ),
    loop_mistake("seeds", "iterations: 3", "seeds: 0", "x.ftloop.yaml:7: loop.seeds: wanted 1"),
    Mistake(
        "tag of regression",
        (
            "x.ftloop.yaml:5: gate regression[negaton]: no eval example is tagged 'negaton'",
            "Did you mean 'negation'?",
        ),
        edits={'eval_loss: "<= 1.9"': "regression[negaton]: {}"},
    ),
    loop_mistake(
        "name",
        "data:",
        "name: a/b\ndata:",
        "x.ftloop.yaml:1: name 'a/b' is not a valid folder name",
    ),
    Mistake(
        "two mistakes",
        ("x.ftloop.yaml:4: ", "x.ftloop.yaml:7: "),
        edits={"gates:": "gate:", "iterations: 3": "iterations: 0"},
        exit_code=COLLECTION,
    ),
    Mistake(
        "loop file not UTF-8",
        ("x.ftloop.yaml:2: not UTF-8: byte", "Save the file as UTF-8."),
        files={"x.ftloop.yaml": b"data: {}\n# \xe9\n"},
        exit_code=COLLECTION,
    ),
    Mistake(
        "empty loop file", ("x.ftloop.yaml:1: ",), files={"x.ftloop.yaml": ""}, exit_code=COLLECTION
    ),
    Mistake(
        "the answer in a column that is not read",
        ("the eval set is plain text, and the columns category are not read", "my_rows:train"),
        files={
            name: rows(*({"text": f"q{n}", "category": "a"} for n in range(4)))
            for name in ("train.jsonl", "eval.jsonl")
        },
    ),
    data_mistake("no JSON", "eval.jsonl", rows(*EVAL) + "{", "eval.jsonl:6: not JSON: "),
    data_mistake(
        "no row", "train.jsonl", rows(*TRAIN, "text"), "train.jsonl:7: wanted a row with nam"
    ),
    data_mistake(
        "columns", "eval.jsonl", rows({"question": "q"}), "eval.jsonl:1: ", "found question"
    ),
    data_mistake(
        "half a row", "train.jsonl", rows(*TRAIN, {"prompt": "p"}), "train.jsonl:7: ", "compl"
    ),
    data_mistake(
        "no completion", "eval.jsonl", rows({"prompt": "p", "completion": ""}), "eval.jsonl:1"
    ),
    data_mistake(
        "other form", "eval.jsonl", rows({"text": "t", "tags": "negation"}), "different columns"
    ),
    data_mistake(
        "mixed forms", "eval.jsonl", rows(*EVAL, {"text": "t"}), "eval.jsonl:6: ", "mixes form"
    ),
    data_mistake(
        "id twice", "eval.jsonl", rows(*EVAL, EVAL[1]), "eval.jsonl:6: two eval", "eval.jsonl:2"
    ),
    data_mistake(
        "empty eval set", "eval.jsonl", "\n\n", "x.ftloop.yaml:1: the eval set eval.jsonl has no"
    ),
    data_mistake(
        "empty train set", "train.jsonl", "", "x.ftloop.yaml:1: the train set train.jsonl has"
    ),
    data_mistake(
        "data not UTF-8", "eval.jsonl", b'{}\n{"prompt": "\xe9"}\n', "eval.jsonl:2: not UTF-8"
    ),
    data_mistake(
        "tag of no example",
        "eval.jsonl",
        rows(EVAL[2], EVAL[3] | {"tags": "negations"}),
        "x.ftloop.yaml:6: gate pass_rate[negation]: no eval example is tagged",
        "Did you mean 'negations'?",
    ),
    Mistake(
        "missing file",
        ("x.ftloop.yaml:1: data file evil.jsonl does not exist", "Did you mean 'eval.jsonl'?"),
        edits={"eval.jsonl": "evil.jsonl"},
    ),
    *(
        Mistake(name, phrases, {"eval.jsonl": "eval.csv"}, {"eval.csv": text})
        for name, text, phrases in (
            ("csv cells", f"{CSV}e2,q,a,b,c\n", ("eval.csv:3: wanted 4 cells, found 5", "Quote")),
            ("csv columns", "id,question\ne1,q\n", ("eval.csv:2: ", "found id, question")),
            (
                "csv id twice",
                f"{CSV}e1,q,a,\n",
                ("eval.csv:3: two eval examples have the id 'e1'",),
            ),
            ("csv quote", f'{CSV}e2,"q,a,\n', ("eval.csv:3: not CSV: ",)),
            ("csv not UTF-8", CSV.encode() + b"e2,\xe9,a,\n", ("eval.csv:3: not UTF-8",)),
        )
    ),
    scorer_mistake("no scorer", "", "x.ftloop.yaml:4: ", "my_scorer has no function 'score'"),
    scorer_mistake(
        "scorer's signature", "def score(a): ...", "x.ftloop.yaml:4: ", "can't be called"
    ),
    scorer_mistake(
        "scorer raises",
        "def score(output, expected, example):\n    return 1 / 0\n",
        "eval.jsonl:1: scorer 'my_scorer:score' raised ZeroDivisionError",
        "my_scorer.py:2",
    ),
    scorer_mistake(
        "scorer gives no bool",
        "def score(output, expected, example):\n    return 'yes'\n",
        "eval.jsonl:1: scorer 'my_scorer:score' on example 'e0': wanted a bool, a number from",
    ),
    scorer_mistake("scorer no Python", "def score(", "x.ftloop.yaml:4: ", "my_scorer.py"),
    Mistake(
        "file in the log's place",
        ("improvement_log", "can't be written: Not a directory", "--ftloop-log"),
        files={"improvement_log": ""},
    ),
    Mistake(
        "file in the named log's place",
        ("logs", "can't be written: Not a directory"),
        files={"logs": ""},
        args=("--ftloop", "--ftloop-log", "logs/deep"),
    ),
    log_mistake("record cut", "yaml", "\ndata:", "\ndata: [", "improvement_log/x/003-", "damaged"),
    log_mistake(
        "record's key", "yaml", "\nfingerprint:", "\nfingerprnt:", "fingerpr", "git checkout -- "
    ),
    log_mistake(
        "record's figure",
        "yaml",
        "\nmetrics:\n  eval_loss: ",
        "\nmetrics:\n  eval_loss: about ",
        "damaged log file: metrics.eval_loss: wanted a number, found 'about",
        "Restore it (git checkout -- improvement_log/x/003-",
    ),
    log_mistake(
        "newer record", "yaml", "schema: 3", "schema: 99", "newer pytest-ftloop: schema 99"
    ),
    log_mistake(
        "merge conflict", "yaml", "schema: 3", "<<<<<<< HEAD\nschema: 3", "damaged log file"
    ),
    log_mistake(
        "edited table", "examples.csv", ",answer 3,", ",answer 4,", "examples.csv: damaged log"
    ),
    real_mistake(
        "no such module", "16}", "16, target_modules: [q_proj]}", "x.ftloop.yaml:2: ", "c_attn"
    ),
    loop_mistake(
        "unknown lora argument", "lora_alpha", "lora_alhpa", "x.ftloop.yaml:2: ", "'lora_alpha'"
    ),
    loop_mistake(
        "unknown training argument", "num_train", "num_tarin", "x.ftloop.yaml:3: ", "'num_train_"
    ),
    loop_mistake(
        "kind of argument", "2.0e-4", "fast", "x.ftloop.yaml:3: training.learning_rate: wanted"
    ),
    loop_mistake(
        "loop's own argument", "2.0e-4", "1.0, do_eval: true", "x.ftloop.yaml:3: training.do_ev"
    ),
    real_mistake(
        "unknown model", "lora:", "model: no/such\nlora:", "x.ftloop.yaml:2: model 'no/such'"
    ),
    real_mistake("no model's folder", "lora:", "model: .\nlora:", "x.ftloop.yaml:2: model '.'"),
]


@pytest.fixture(scope="module", autouse=True)
def _torch() -> None:
    """Import torch once, before pytester takes note of what it must forget afterwards."""
    import pytest_ftloop.train.lora_trainer  # noqa: F401


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake(project: Project, monkeypatch: pytest.MonkeyPatch, mistake: Mistake) -> None:
    """Every mistake is told with its place and no traceback, fails all gates, writes nothing."""
    for old, new in mistake.edits.items():
        project.edit("x.ftloop.yaml", old, new)
    for name, text in mistake.files.items():
        project.write(name, text)
    if mistake.damage:
        suffix, old, new = mistake.damage
        project.run("--ftloop")
        [name] = [name for name in project.log() if name.startswith("x/003") and suffix in name]
        project.edit(f"improvement_log/{name}", old, new)
    if mistake.torch:
        project.write("conftest.py", "")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = project.files()
    result = project.run(*mistake.args)
    text = result.stdout.str()
    for phrase in mistake.phrases:
        assert phrase in text
    assert mistake.exit_code == result.ret
    result.assert_outcomes(**({"failed": 2} if result.ret == FAILED else {"errors": 1}))
    assert "Traceback" not in text
    assert "pytest_ftloop/" not in text
    assert before == project.files()
