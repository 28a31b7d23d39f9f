"""Chat rows on a real instruct model: the losses of a plain script, the answers of a plain loop.

    python benchmarks/instruct.py MODEL_FOLDER [--csv FILE] [--only system thinking] [--steps 6]

Forms of chat: with and without a system message, answers that are tool calls, a loss of the answers
alone, and the template's own switch for thinking. The model's template is used where it knows the
form, else one of trl's, named in the table. Each is one loop; beside it a plain SFTTrainer script
(each step's loss equal to the bit), and plain transformers with the exported adapter: the eval loss
(to 1e-5), and a `generate` for each row (outputs and passes equal). Exits 1 if anything differs.

The rows are the quickstart's messages, or six intents of banking77's CSV file (`text,category`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tasks
from architectures import CLOSE, export, read
from by_hand import ByHand, Chat
from policy import INTENTS
from same_losses import Recorder, plain
from tabulate import tabulate

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options

MOST_NEW = 24
"""Tokens of an answer: a tool call is the longest, with some twenty."""

TRAIN, EVAL = 48, 16
SAMPLE = 8
"""Train rows that the loop measures again; nothing here depends on them."""

LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
TRAINING = {
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 8,
    "activation_checkpointing": False,
    "disable_tqdm": True,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "route",
            "description": "Pass the message on.",
            "parameters": {"type": "object", "properties": {"intent": {"type": "string"}}},
        },
    }
]

Row = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """A form of chat rows: made of a question and its answer.

    `template` is one of trl's, empty for the model's own; `marked` the one that trl puts in its
    place to mark the answers, whose tokens alone are labelled.
    """

    row: Callable[[str, str], Row]
    template: str = ""
    marked: str = ""


def said(role: str, text: str) -> Row:
    """A message."""
    return {"role": role, "content": text}


def pair(question: str, answer: str, **others: Any) -> Row:
    """A prompt and a completion of one message each."""
    prompt, completion = [said("user", question)], [said("assistant", answer)]
    return {"prompt": prompt, "completion": completion, **others}


def with_system(question: str, answer: str) -> Row:
    """A pair with a system message."""
    row = pair(question, answer)
    return {**row, "prompt": [said("system", "Answer with the right word alone."), *row["prompt"]]}


def conversation(question: str, answer: str) -> Row:
    """A conversation in one column."""
    return {"messages": [said("user", question), said("assistant", answer)]}


def call(question: str, answer: str) -> Row:
    """A pair whose answer is a tool call."""
    function = {"name": "route", "arguments": {"intent": answer}}
    row = pair(question, "", tools=TOOLS)
    row["completion"][0]["tool_calls"] = [{"type": "function", "function": function}]
    return row


FORMS = {
    "messages": Form(conversation),
    "pairs": Form(pair),
    "system": Form(with_system),
    "answers-only": Form(conversation, template="qwen3", marked="qwen3_training"),
    "tool-call": Form(call, template="qwen3"),
    "thinking": Form(pair, template="qwen3"),
    "no-thinking": Form(
        lambda question, answer: pair(
            question, answer, chat_template_kwargs={"enable_thinking": False}
        ),
        template="qwen3",
    ),
}


@dataclass(frozen=True)
class Compared:
    """One loop beside what was measured by hand.

    `loss` is the difference of the eval loss in nats; `same` counts equal outputs; `passed` and
    `by_hand` the passes of the two sides.
    """

    name: str
    template: str
    steps: int
    of_steps: int
    eval_loss: float
    loss: float
    same: int
    passed: int
    by_hand: int
    rows: int

    @property
    def holds(self) -> bool:
        """Whether the two sides agree."""
        trained = self.steps == self.of_steps > 0
        answered = self.same == self.rows and self.passed == self.by_hand
        return trained and answered and self.loss <= CLOSE


def main() -> int:
    """Compare all forms, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--csv", type=Path, help="banking77's train.csv")
    parser.add_argument("--only", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--eval", type=int, default=EVAL, help="eval rows (default: %(default)s)")
    chosen = parser.parse_args()
    if chosen.csv:
        task = tasks.banking(chosen.csv, INTENTS, TRAIN, chosen.eval)
    else:
        task = tasks.sentiment(TRAIN, chosen.eval)
    compared = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FTLOOP_CACHE"] = str(Path(folder, "cache"))  # for the adapters, not the user's
        for name in chosen.only:
            file = written(chosen.model.absolute(), FORMS[name], task, chosen.steps, folder, name)
            compared.append(compare(name, FORMS[name], file))
            print(compared[-1], file=sys.stderr, flush=True)
    show(compared)
    return 0 if all(case.holds for case in compared) else 1


def written(model: Path, form: Form, task: tasks.Task, steps: int, parent: str, name: str) -> Path:
    """A loop file with its data."""
    folder = Path(parent, name)
    folder.mkdir()
    for role, rows in (("train", task.train), ("eval", task.eval)):
        made = [
            {"id": f"{role}-{i}", **form.row(row["prompt"], row["completion"].strip())}
            for i, row in enumerate(rows)
        ]
        (folder / f"{role}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in made))
    training: dict[str, Any] = {**TRAINING, "max_steps": steps}
    if form.template:
        training["chat_template_path"] = str(template_file(form.template))
    if form.marked:
        training["assistant_only_loss"] = True
    loop = {
        "model": str(model),
        "data": {"train": "train.jsonl", "eval": "eval.jsonl", "train_sample": SAMPLE},
        "lora": LORA,
        "training": training,
        "scoring": {"scorer": "exact", "max_new_tokens": MOST_NEW},
        "loop": {"iterations": 1},
    }
    file = folder / "chat.ftloop.yaml"
    file.write_text(json.dumps(loop))
    return file


def template_file(name: str) -> Path:
    """One of trl's chat templates."""
    import trl

    return Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"


def compare(name: str, form: Form, file: Path) -> Compared:
    """Run the loop, then the plain script, then measure the exported adapter by hand."""
    from pytest_ftloop.train.quiet import quiet

    config, recorder = read_loop_file(file), Recorder()
    best = Loop(config, Options(), backend=recorder).run().best
    (trained,) = recorder.trained
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        expected = plain(config, trained.settings)
    export(file, file.parent / "out", merged=False)
    chat = Chat()
    if form.marked:
        chat = Chat(template_file(form.marked).read_text(encoding="utf-8"), answers_only=True)
    with quiet():
        side = ByHand.of_adapter(file.parent / "out", chat)
    rows = read(file.parent / "eval.jsonl")
    found = {example.id: example.output for example in best.examples}
    outputs = {row["id"]: side.output(row, MOST_NEW) for row in rows}
    return Compared(
        name,
        form.template or "the model's",
        sum(a == b for a, b in zip(trained.losses, expected, strict=True)),
        len(expected),
        best.metrics["eval_loss"],
        abs(side.mean_loss(rows) - best.metrics["eval_loss"]),
        sum(unthought(outputs[id_]) == found[id_] for id_ in outputs),
        sum(bool(example.passed) for example in best.examples),
        sum(passes(row, outputs[row["id"]]) for row in rows),
        len(rows),
    )


def unthought(output: str) -> str:
    """An output without the empty thoughts that Qwen3's template puts before an answer."""
    return re.sub(r"\A<think>\s*</think>\s*", "", output)


def passes(row: Mapping[str, Any], output: str) -> bool:
    """Whether an output is the row's answer; of tool calls the same call."""
    answer = (row["completion"] if "completion" in row else row["messages"])[-1]
    if "tool_calls" not in answer:
        return bool(unthought(output) == answer["content"])
    found = re.fullmatch(r"<tool_call>(.*)</tool_call>", unthought(output), re.DOTALL)
    try:
        return bool(found and json.loads(found[1]) == answer["tool_calls"][0]["function"])
    except ValueError:
        return False


def show(compared: Sequence[Compared]) -> None:
    """A row per form."""
    rows = [
        (
            case.name,
            case.template,
            f"{case.steps} of {case.of_steps}",
            f"{case.eval_loss:.4f}",
            f"{case.loss:.0e}",
            f"{case.same} of {case.rows}",
            f"{case.passed} and {case.by_hand}",
        )
        for case in compared
    ]
    heads = (
        "form",
        "template",
        "steps identical",
        "eval loss",
        "by hand",
        "outputs equal",
        "passes, by hand",
    )
    print(tabulate(rows, heads, "github", disable_numparse=True))


if __name__ == "__main__":
    sys.exit(main())
