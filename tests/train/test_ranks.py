"""A run on several devices: the losses and figures of one process with as large a batch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.distributed as dist
from accelerate.data_loader import BatchSamplerShard
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.data import BatchSampler, SequentialSampler

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.errors import ConfigError, Location, TrainingError
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.ranks import Alone, are_on_one_machine, every
from pytest_ftloop.evaluate.evaluator import Evaluator
from pytest_ftloop.loop import backend as backends
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.launched import LaunchedBackend
from pytest_ftloop.train.ranks import check_launch, is_of_another
from pytest_ftloop.train.recorder import steps_per_epoch
from pytest_ftloop.train.train_losses import TrainLosses
from pytest_ftloop.train.weights import differ, load_weights, trainable_weights
from tests.small_base import LORA, data_set, rows

if TYPE_CHECKING:
    from pytest_ftloop.core.records import ExampleResult, Run
    from pytest_ftloop.train.base import Base

NEAR = 1e-5
"""What the losses may differ by: gradients are summed in another order."""


@pytest.fixture
def trained(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train a loop file with these settings; with `processes`, in as many."""
    for role, count, seed in (("train", 44, 1), ("eval", 21, 2), ("guard", 7, 3)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows(count, seed))
        (tmp_path / f"{role}.jsonl").write_text(text, encoding="utf-8")

    def train(
        name: str, processes: int, progress: Silent | None = None, **training: Any
    ) -> tuple[Run, Path]:
        stated = {
            "data": {
                "train": "train.jsonl",
                "eval": "eval.jsonl",
                "guards": {"other": {"source": "guard.jsonl"}},
            },
            "lora": {**LORA, "lora_dropout": 0.0},
            "training": {"learning_rate": 5e-3, "activation_checkpointing": False, **training},
            "scoring": {"scorer": "exact"},
            "loop": {"iterations": 1, "metric": "pass_rate", "processes": processes},
        }
        file = tmp_path / f"{name}.ftloop.yaml"
        file.write_text(json.dumps(stated), encoding="utf-8")
        config = read_loop_file(file)
        inputs = Inputs.of(config, None)
        backend = backends.local(config, inputs, progress or Silent())
        assert isinstance(backend, LaunchedBackend) == (processes > 1)
        adapter = tmp_path / "adapters" / name
        return backend.train(
            config.settings, name=name, adapter=adapter, metric="pass_rate"
        ), adapter

    return train


def near(expected: tuple[ExampleResult, ...], found: tuple[ExampleResult, ...]) -> None:
    """The results of the same examples, in the same order."""
    assert [(r.id, r.tokens, r.correct, r.passed, r.output) for r in expected] == [
        (r.id, r.tokens, r.correct, r.passed, r.output) for r in found
    ]
    assert [r.loss for r in expected] == pytest.approx([r.loss for r in found], abs=NEAR)


def assert_near(one: Run, two: Run) -> None:
    """All that two runs have trained and measured, to `NEAR`."""
    for step, same in zip(one.training.steps, two.training.steps, strict=True):
        figures = (step.loss, step.grad_norm, step.learning_rate)
        assert figures == pytest.approx((same.loss, same.grad_norm, same.learning_rate), abs=NEAR)
    for point, same_point in zip(one.training.evals, two.training.evals, strict=True):
        assert (point.step, point.epoch) == (same_point.step, same_point.epoch)
        assert point.eval_loss == pytest.approx(same_point.eval_loss, abs=NEAR)
        assert point.token_accuracy == same_point.token_accuracy
    for name in ("planned_steps", "best_step", "steps_per_epoch", "trainable_parameters"):
        assert getattr(one.training, name) == getattr(two.training, name), name
    assert one.training.labelled_tokens == two.training.labelled_tokens
    assert one.training.wiring == two.training.wiring
    assert one.training.point_figures == two.training.point_figures
    assert one.training.adapter_moved
    assert two.training.adapter_moved
    for passes, same_passes in zip(one.training.trained, two.training.trained, strict=True):
        assert (passes.id, passes.steps) == (same_passes.id, same_passes.steps)
        assert (passes.tokens, passes.correct) == (same_passes.tokens, same_passes.correct)
        assert passes.losses == pytest.approx(same_passes.losses, abs=NEAR)
    before, after = one.evaluation, two.evaluation
    assert before.base is not None
    assert after.base is not None
    near(before.base.examples, after.base.examples)
    near(before.base.guards["other"], after.base.guards["other"])
    near(before.guards["other"], after.guards["other"])
    near(before.examples, after.examples)
    near(before.train_examples, after.train_examples)
    near(before.final_train_examples, after.final_train_examples)
    assert before.base_eval_loss == pytest.approx(after.base_eval_loss, abs=NEAR)
    assert before.max_new_tokens == after.max_new_tokens
    assert (one.cost.steps, one.cost.tokens) == (two.cost.steps, two.cost.tokens)


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(trained: Any) -> None:
    """Steps, gradients, evaluation points, per-example results and passes are equal to 1e-5."""
    stated = {"num_train_epochs": 3, "gradient_accumulation_steps": 2, "max_grad_norm": 0.7}
    one, _ = trained("one", 1, per_device_train_batch_size=4, **stated)
    two, adapter = trained("two", 2, per_device_train_batch_size=2, **stated)
    assert 18 == len(one.training.steps)
    assert 0 < sum(bool(r.passed) for r in one.evaluation.examples) < 21
    assert_near(one, two)
    assert (adapter / "adapter_model.safetensors").is_file()
    assert two.adapter


class Interrupting(Silent):
    """Raises KeyboardInterrupt once a run has an evaluation point that it can go on from."""

    def __init__(self, points: Path) -> None:
        self.points = points

    def step(self, step: int, steps: int, loss: float) -> None:
        if list(self.points.glob("*/point.json")):
            raise KeyboardInterrupt


@pytest.mark.slow
def test_interrupted_ranks_go_on(
    trained: Any, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was interrupted in two processes goes on in two, and ends the same to the bit."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "tiny").symlink_to(tiny.parent)
    monkeypatch.setenv("FTLOOP_CACHE", str(cache))
    stated = {"num_train_epochs": 12, "per_device_train_batch_size": 2}
    with pytest.raises(KeyboardInterrupt):
        trained("two", 2, Interrupting(cache / "unfinished"), **stated)
    resumed, _ = trained("two", 2, **stated)
    whole, _ = trained("whole", 2, **stated)
    assert resumed.cost.resumed_at > 0 == whole.cost.resumed_at
    assert whole.training == resumed.training
    assert whole.evaluation == resumed.evaluation
    assert whole.adapter == resumed.adapter
    assert [] == list((cache / "unfinished").iterdir())
    assert [] == list((cache / "workers").iterdir())


@pytest.mark.slow
def test_a_mistake_that_only_training_shows(trained: Any) -> None:
    """It comes back as the error that one process gives."""
    with pytest.raises(ConfigError, match=r"no step to train: .* for each of 2 processes"):
        trained("two", 2, per_device_train_batch_size=30, dataloader_drop_last=True)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize(("size", "batch"), [(48, 8), (44, 4), (45, 12), (7, 12), (100, 24)])
def test_steps_per_epoch(
    size: int, batch: int, ranks: int, accumulation: int, split: bool, drop_last: bool
) -> None:
    """They are those of the data loader that accelerate gives each rank."""
    batch *= ranks if split else 1  # which is shared then
    batches = BatchSampler(SequentialSampler(range(size)), batch, drop_last=drop_last)
    lengths = {
        len(BatchSamplerShard(batches, ranks, rank, split_batches=split)) for rank in range(ranks)
    }
    (length,) = lengths
    trainer = SimpleNamespace(
        train_dataset=range(size),
        accelerator=SimpleNamespace(split_batches=split),
        args=SimpleNamespace(
            train_batch_size=batch,
            dataloader_drop_last=drop_last,
            world_size=ranks,
            gradient_accumulation_steps=accumulation,
        ),
    )
    assert max(1, -(-length // accumulation)) == steps_per_epoch(trainer)  # type: ignore[arg-type]


class Part(Alone):
    """One of two ranks, which sees its own share only."""

    def __init__(self, number: int) -> None:
        self.number = number

    @property
    def is_first(self) -> bool:  # type: ignore[override]
        return self.number == 0

    def share(self, batches: Any) -> Iterator[Any]:
        return every(batches, self.number, 2)


@pytest.mark.usefixtures("quietly")
def test_outputs_are_generated_once(base: Base) -> None:
    """Each of two ranks generates a share of the outputs; together they are those of one."""
    examples = data_set(rows(21, 2), "eval").examples
    found: list[Mapping[str, str]] = []
    with base.lent() as loan:
        for ranks in (Alone(), Part(0), Part(1)):
            evaluator = Evaluator(
                loan.model, loan.tokenizer, 4, contextlib.nullcontext, ranks=ranks
            )
            prompts = [(e, evaluator.renderer.prompt(e)) for e in examples]
            found.append(evaluator.generate_all(prompts, 3, Silent()))
    whole, *parts = found
    assert sorted(whole) == sorted([*parts[0], *parts[1]])
    assert whole == {**parts[0], **parts[1]}
    assert {9, 12} == {len(part) for part in parts}


class Second(Alone):
    """The second of two ranks; the first has seen a pass before and one after its own."""

    is_first = False
    seen = ((0, "aa", 1.0, 2, 1), (2, "aa", 0.5, 2, 2))

    def each(self, value: Any) -> tuple[Any, ...]:
        return (self.seen, value)


def test_shards_are_put_together() -> None:
    """Of weights that FSDP has sharded, copies are whole, and whole weights are restored."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = torch.nn.Linear(4, 3)
        expected = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        assert all(isinstance(weight, DTensor) for weight in model.parameters())
        found = trainable_weights(model)
        assert not any(isinstance(weight, DTensor) for weight in found.values())
        assert not differ(expected, found)
        load_weights(model, {name: weight + 1 for name, weight in found.items()})
        assert not differ({n: w + 1 for n, w in expected.items()}, trainable_weights(model))
    finally:
        dist.destroy_process_group()


def test_passes_of_all_ranks() -> None:
    """They are put together in the order of steps; what was kept of a killed run is the first's."""
    second, kept = TrainLosses(Second()), ((1, "bb", 0.8, 3, 0),)
    second.restore(kept)
    assert Second.seen == second.passes()
    alone = TrainLosses()
    alone.restore(kept)
    assert kept == alone.passes()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "asks for DeepSpeed, which keeps weights"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "asks for Megatron-LM"),
        ({"ACCELERATE_USE_FSDP": "true"}, "wanted FSDP 2, found 1"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, ""),
        ({"ACCELERATE_USE_DEEPSPEED": "false"}, ""),
        ({}, ""),
    ],
)
def test_launchers_that_are_refused(
    environ: Mapping[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a loop can't measure and resume is named, with the line of the launcher."""
    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "FSDP_VERSION", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    if not message:
        check_launch(use_cpu=True, where=None)
        return
    with pytest.raises(ConfigError, match=message) as raised:
        check_launch(use_cpu=True, where=Location("x.ftloop.yaml", 4))
    assert str(raised.value).startswith("x.ftloop.yaml:4: ")


def test_too_few_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a GPU of its own says how many there are; on the CPU there is no limit."""
    for name, value in {"WORLD_SIZE": "4", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    check_launch(use_cpu=True, where=None)
    with pytest.raises(ConfigError, match="wanted a GPU for each process, found 2"):
        check_launch(use_cpu=False, where=None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_launch(use_cpu=False, where=None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer",
            True,
        ),
        ("NCCL communicator was aborted on rank 0.", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_error_that_follows_from_another(words: str, expected: bool) -> None:
    """A lost connection is not the user's mistake, wherever it shows."""
    plain = RuntimeError(words)
    told = TrainingError(f"torch, while training: {words}")
    told.__cause__ = plain
    assert [expected, expected] == [is_of_another(plain), is_of_another(told)]
    assert not is_of_another(TrainingError(words))


@pytest.mark.parametrize(
    ("world", "local", "expected"),
    [("4", "4", True), ("4", "2", False), ("4", None, True), (None, None, True)],
)
def test_ranks_of_several_machines(world: str | None, local: str | None, *, expected: bool) -> None:
    """What a launcher says decides; such ranks do not go on from a point that one of them keeps."""
    stated = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": local}
    assert expected is are_on_one_machine({k: v for k, v in stated.items() if v is not None})
