"""The wiring's facts are those of what trl really prepared, whichever setting is to blame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.metrics import best_metrics, final_metrics
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import DataSet, Finding, Wiring
from pytest_ftloop.diagnose import Evidence, diagnose
from pytest_ftloop.diagnose.wiring import RULES
from pytest_ftloop.evaluate.decoding import Decoding
from pytest_ftloop.evaluate.evaluator import Evaluator
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.train.arguments import sft_config
from pytest_ftloop.train.base import Base
from pytest_ftloop.train.lora import run_lora
from pytest_ftloop.train.prepare import Prepared, build_trainer
from pytest_ftloop.train.task import train_sample
from pytest_ftloop.train.tiny import END
from pytest_ftloop.train.wiring import _end_ids
from tests.fakes import fake_training
from tests.small_base import LORA, TRAINING, data_set, rows, settings

pytestmark = pytest.mark.usefixtures("quietly")

ENDLESS = (
    "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)
END_OUTSIDE = (
    "{% for m in messages %}{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}"
    + END
    + "{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}"
)
Wired = Callable[..., Wiring]


def chats(count: int, seed: int, *, messages: bool) -> list[dict[str, Any]]:
    """The rows of the task as chats: prompt and completion, or one list of messages."""
    made = []
    for row in rows(count, seed):
        prompt = [{"role": "user", "content": row["prompt"]}]
        answer = [{"role": "assistant", "content": row["completion"].strip()}]
        said = {"messages": prompt + answer} if messages else {"prompt": prompt}
        made.append({"id": row["id"], **said} | ({} if messages else {"completion": answer}))
    return made


def sets(train: list[dict[str, Any]], eval_: list[dict[str, Any]]) -> dict[str, DataSet]:
    """Both sets of a task, and the sample of all train examples."""
    train_set = data_set(train, "train")
    return {
        "train": train_set,
        "eval": data_set(eval_, "eval"),
        "train_sample": train_sample(train_set, 256),
    }


@pytest.fixture
def wired(base: Base, task: Any, tmp_path: Path) -> Wired:
    """The wiring of a task; `template` is the tokenizer's, the other keywords are settings."""

    def make(
        sets_: dict[str, DataSet] | None = None,
        *,
        scoring: Scoring = Scoring(),  # noqa: B008 - frozen
        template: str | None = None,
        pad: str | None = None,
        **training: Any,
    ) -> Wiring:
        made, stated = task(scoring, **(sets_ or {})), settings(**training)
        with base.lent() as loan:
            tokenizer = loan.tokenizer
            tokenizer.chat_template = template or tokenizer.chat_template
            tokenizer.pad_token = pad or tokenizer.pad_token
            args = sft_config(stated, str(tmp_path), made.locate)
            trainer = build_trainer(loan, args, stated, made)
            return Prepared.of(trainer, made).wiring

    return make


def kinds(wiring: Wiring, pass_rate: float = 0.0) -> list[tuple[str, str]]:
    """What the rules say of a wiring."""
    figures = {"pass_rate": pass_rate}
    evidence = Evidence.of(fake_training(wiring=wiring), figures, figures, 5.0)
    found = [rule(evidence) for rule in RULES]
    return [(finding.kind, finding.severity) for finding in found if finding]


def test_healthy_rows(wired: Wired) -> None:
    """Of prompt and completion only the completion is learned, with its end, and nothing is cut."""
    wiring = wired()
    expected = Wiring(
        examples=48,
        dropped=0,
        sampled=16,
        generates=True,
        ended=16,
        masked_ends=0,
        cut=0,
        lost_ends=0,
        labels=wiring.labels,
        lost_labels=0,
        prompt_labels=0,
        split_prompts=0,
        max_length=1024,
    )
    assert expected == wiring
    assert [] == kinds(wiring)


@pytest.mark.parametrize(
    "training",
    [{}, {"packing": True, "max_length": 64}, {"shuffle_dataset": True}, {"max_length": None}],
    ids=["plain", "packed", "shuffled", "unlimited"],
)
def test_healthy_chats(wired: Wired, training: dict[str, Any]) -> None:
    """A chat's answer ends with the template's end of turn, which is learned, packed or not."""
    both = sets(chats(48, 1, messages=False), chats(20, 2, messages=False))
    wiring = wired(both, **training)
    assert (48, 48, 0, 0) == (wiring.sampled, wiring.ended, wiring.cut, wiring.prompt_labels)
    assert [] == kinds(wiring)


def test_pad_token_that_is_the_end_token(wired: Wired) -> None:
    """trl masks pads by their place: with pad = end the ends are learned all the same."""
    wiring = wired(pad=END)
    assert (16, 0) == (wiring.ended, wiring.masked_ends)
    assert [] == kinds(wiring)


def test_pad_token_that_takes_the_ends_labels(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collator that masks pads by their id takes the ends with them, and that is said."""
    collate = DataCollatorForLanguageModeling.torch_call

    def by_id(self: Any, examples: Any) -> Any:
        batch = collate(self, examples)
        batch["labels"][batch["input_ids"] == self.pad_token_id] = -100
        return batch

    monkeypatch.setattr(DataCollatorForLanguageModeling, "torch_call", by_id)
    wiring = wired(pad=END)
    assert (0, 16) == (wiring.ended, wiring.masked_ends)
    assert [("unlearnt-end", "error")] == kinds(wiring)
    assert [("unlearnt-end", "warning")] == kinds(wiring, pass_rate=0.9)


@pytest.mark.parametrize(
    ("template", "messages", "training"),
    [(ENDLESS, False, {}), (END_OUTSIDE, True, {"assistant_only_loss": True})],
    ids=["no end", "end outside the generation block"],
)
def test_template_without_a_learned_end(
    wired: Wired, template: str, messages: bool, training: dict[str, Any]
) -> None:
    """A template whose end of turn is missing or masked never teaches the model to stop."""
    both = sets(chats(20, 1, messages=messages), chats(10, 2, messages=messages))
    wiring = wired(both, template=template, **training)
    assert (20, 0) == (wiring.sampled, wiring.ended)
    assert [("unlearnt-end", "error")] == kinds(wiring)
    loss = wired(both, template=template, scoring=Scoring("loss", threshold=1.0), **training)
    assert [] == kinds(loss)


def test_messages_are_trained_on_whole(wired: Wired, base: Base) -> None:
    """Of messages trl learns the prompts too; the share is counted to the token."""
    both = sets(chats(20, 1, messages=True), chats(10, 2, messages=True))
    wiring = wired(both)
    tokenize = base.tokenizer
    answers = sum(
        len(tokenize(e.expected)["input_ids"]) + 1  # its end
        for e in both["train"].examples
    )
    assert answers == wiring.labels - wiring.prompt_labels
    assert [("prompt-in-loss", "warning")] == kinds(wiring)


def test_every_answer_of_a_chat_counts(wired: Wired) -> None:
    """Earlier answers of the assistant are answers, not prompt."""
    twice = [
        {"id": row["id"], "messages": [*row["messages"], *row["messages"]]}
        for row in chats(20, 1, messages=True)
    ]
    once = wired(sets(chats(20, 1, messages=True), chats(10, 2, messages=True)))
    wiring = wired(sets(twice, chats(10, 2, messages=True)))
    # The first token of a row has no label.
    assert 2 * (once.labels - once.prompt_labels) == wiring.labels - wiring.prompt_labels
    assert 2 * once.labels + 20 == wiring.labels


def test_completion_only_loss_off(wired: Wired) -> None:
    """With completion_only_loss false the prompts are learned as well."""
    wiring = wired(completion_only_loss=False)
    assert [("prompt-in-loss", "warning")] == kinds(wiring)


def test_prompt_that_ends_in_a_space(wired: Wired) -> None:
    """A space at the prompt's end merges with the completion's first word."""

    def moved(count: int, seed: int) -> list[dict[str, Any]]:
        return [
            {**row, "prompt": f"{row['prompt']} ", "completion": row["completion"].strip()}
            for row in rows(count, seed)
        ]

    wiring = wired(sets(moved(20, 1), moved(10, 2)))
    assert 20 == wiring.split_prompts
    assert [("split-prompt", "warning")] == kinds(wiring)


def long(count: int, seed: int, words: int) -> list[dict[str, Any]]:
    """Rows with completions too long for a max_length of 32."""
    text = " again" * words
    return [{**row, "completion": f"{row['completion']}{text}"} for row in rows(count, seed)]


@pytest.mark.parametrize("packing", [False, True])
def test_rows_cut_by_max_length(wired: Wired, packing: bool) -> None:
    """Rows that max_length cuts are counted, with the labels and the ends that they lose."""
    both = sets([*rows(16, 1), *long(4, 3, 40)], rows(10, 2))
    uncut = wired(both)
    wiring = wired(both, max_length=32, packing=packing)
    assert (20, 16, 4, 4) == (wiring.sampled, wiring.ended, wiring.cut, wiring.lost_ends)
    assert uncut.labels == wiring.labels
    assert 4 * 20 < wiring.lost_labels < wiring.labels
    assert [("truncated-labels", "warning")] == kinds(wiring)


def test_packing_that_splits_rows_loses_nothing(wired: Wired) -> None:
    """Where long rows go on in the next pack, nothing is lost."""
    both = sets([*rows(16, 1), *long(4, 3, 40)], rows(10, 2))
    wiring = wired(both, max_length=32, packing=True, packing_strategy="wrapped")
    assert (20, 0, 0) == (wiring.ended, wiring.cut, wiring.lost_labels)


def test_most_rows_cut(wired: Wired) -> None:
    """Where most rows lose their end, nothing else is to blame for it, and it is an error."""
    wiring = wired(sets(long(20, 3, 40), rows(10, 2)), max_length=32)
    assert [("truncated-labels", "error")] == kinds(wiring)


def test_dropped_rows(wired: Wired) -> None:
    """Rows that trl drops for want of a label are counted as dropped and as cut."""
    filled = [{**row, "prompt": "again " * 40 + row["prompt"]} for row in rows(12, 4)]
    wiring = wired(sets([*filled, *rows(8, 1)], rows(10, 2)), max_length=32)
    assert (20, 12, 12, 8) == (wiring.examples, wiring.dropped, wiring.cut, wiring.ended)
    assert [("truncated-labels", "error")] == kinds(wiring)


def test_rows_as_long_as_max_length_are_not_cut(wired: Wired, base: Base) -> None:
    """A row that just fits is whole."""
    longest = max(
        len(base.tokenizer(row["prompt"] + row["completion"])["input_ids"]) + 1
        for row in rows(48, 1)
    )
    both = sets(rows(48, 1), rows(10, 1))
    assert 0 == wired(both, max_length=longest).cut
    assert 0 < wired(both, max_length=longest - 1).cut


def test_ends_are_those_of_generation(base: Base, task: Any, tmp_path: Path) -> None:
    """The tokens that must be learned are those at which the evaluator stops generating."""
    with base.lent() as loan:
        args = sft_config(settings(), str(tmp_path), lambda _: None)
        trainer = build_trainer(loan, args, settings(), task())
        evaluator = Evaluator(trainer.model, trainer.processing_class, 8, lambda: None)
        assert evaluator._generation_config(8, Decoding()).eos_token_id == sorted(_end_ids(trainer))


def test_chat_without_a_template_is_refused(base: Base, task: Any) -> None:
    """Messages and no chat template: an error that names the cure, before training."""
    both = sets(chats(20, 1, messages=True), chats(10, 2, messages=True))
    bare = Base(base.model, base.tokenizer)
    template, bare.tokenizer.chat_template = base.tokenizer.chat_template, None
    try:
        with pytest.raises(ConfigError, match="chat template is missing or does not fit") as caught:
            run_lora(bare, task(**both), settings(), Silent())
    finally:
        bare.tokenizer.chat_template = template
    assert "training.chat_template_path" in str(caught.value)


class Told(Silent):
    """Keeps what a run tells, in order: findings and steps."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def step(self, step: int, steps: int, loss: float) -> None:
        """A step is done."""
        self.said.append(f"step {step}")

    def found(self, loop: str, findings: Sequence[Finding]) -> None:
        """Something is wrong with the rows."""
        self.said += [f"{loop}: {f.severity} {f.kind}" for f in findings]


def test_faults_are_told_before_the_first_step(tiny: Path, tmp_path: Path) -> None:
    """A loop tells what is wrong with its rows before step 1, once however often it trains."""
    config = from_python(
        folder=tmp_path,
        source="test_wiring.py",
        name="x",
        train=[*rows(16, 1), *long(4, 3, 40)],
        eval=rows(20, 2),
        lora=LORA,
        training={**TRAINING, "max_length": 32, "max_steps": 2},
        loop={"iterations": 1, "seeds": 2},
    )
    told = Told()
    (iteration,) = Loop(config, progress=told).run().chain
    warning = "x: warning truncated-labels"
    assert [warning, "step 1", "step 2", "step 1", "step 2"] == told.said
    assert "truncated-labels" in [finding.kind for finding in iteration.findings]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faulty", "training", "expected"),
    [
        ("healthy", {}, []),
        ("endless", {}, ["unlearnt-end"]),
        ("cut", {"max_length": 32}, ["truncated-labels"]),
        ("messages", {}, ["prompt-in-loss"]),
    ],
)
def test_the_fault_of_a_real_run_comes_first(
    base: Base, task: Any, faulty: str, training: dict[str, Any], expected: list[str]
) -> None:
    """A run with one fault trains to its end, and the fault is the first of its findings."""
    both = {
        "healthy": lambda: sets(rows(96, 1), rows(20, 2)),
        "endless": lambda: sets(chats(96, 1, messages=False), chats(20, 2, messages=False)),
        "cut": lambda: sets(long(96, 3, 40), rows(20, 2)),
        "messages": lambda: sets(chats(96, 1, messages=True), chats(20, 2, messages=True)),
    }[faulty]()
    template = base.tokenizer.chat_template
    base.tokenizer.chat_template = ENDLESS if faulty == "endless" else template
    try:
        run = run_lora(base, task(**both), settings(num_train_epochs=4, **training), Silent())
    finally:
        base.tokenizer.chat_template = template
    evidence = Evidence.of(
        run.training,
        best_metrics(run.evaluation),
        final_metrics(run.training, run.evaluation),
        run.evaluation.base_eval_loss,
    )
    found = [f.kind for f in diagnose(evidence) if not f.tunable]
    assert expected == found[:1]
    outputs = [result.output for result in run.evaluation.examples]
    if faulty == "endless":  # the fault is real: the answers run on
        ran_on = sum(len(output.split()) > 1 for output in outputs)
        assert ran_on > len(outputs) / 2
