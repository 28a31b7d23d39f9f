"""What makes an iteration another one, and what does not."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.config.sources import Columns
from pytest_ftloop.core.neutral import NEUTRAL
from pytest_ftloop.core.recipe import RECIPE, recipe_id
from pytest_ftloop.core.records import Settings
from pytest_ftloop.data.examples import load
from pytest_ftloop.data.identity import (
    iteration_fingerprint,
    model_identity,
    scoring_identity,
)
from tests.torture.kills import flipped, torn

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ftloop.core.records import DataSet

    Write = Callable[[str, str | bytes], Path]


def rows(*texts: str) -> DataSet:
    return load([{"text": text} for text in texts], "train", Path(), Columns())


BASE: dict[str, Any] = {
    "model": "tiny:1",
    "settings": Settings(
        lora={"r": 8, "target_modules": ["q", "v"]},
        training={"learning_rate": 2e-4, "num_train_epochs": 1},
    ),
    "scoring": scoring_identity(Scoring(), Path()),
    "train": rows("a", "b", "c"),
    "eval_": rows("d"),
    "train_sample": 2,
}


def fingerprint(**changes: Any) -> str:
    if isinstance(scoring := changes.get("scoring"), Scoring):
        changes["scoring"] = scoring_identity(scoring, Path())
    return iteration_fingerprint(**{**BASE, **changes})


def trained_with(**training: Any) -> Settings:
    base: Settings = BASE["settings"]
    return replace(base, training={**base.training, **training})


def test_fingerprint_is_stable() -> None:
    """The fingerprint is the same in every version of the tool, or FORMAT is raised."""
    assert "3a1aa0fe" == fingerprint()[:8]
    assert 64 == len(fingerprint())


@pytest.mark.parametrize(
    "same",
    [
        trained_with(learning_rate=0.0002),
        trained_with(num_train_epochs=1.0),
        Settings(
            lora=dict(reversed(BASE["settings"].lora.items())),
            training=dict(reversed(BASE["settings"].training.items())),
        ),
        Settings(lora={"target_modules": ("q", "v"), "r": 8.0}, training=BASE["settings"].training),
        trained_with(**dict.fromkeys(NEUTRAL, 7)),
    ],
    ids=["2e-4", "1.0", "order", "tuple", "neutral"],
)
def test_same_settings(same: Settings) -> None:
    """Equal settings written differently, and settings that move no figure, are the same."""
    assert fingerprint() == fingerprint(settings=same)


def test_every_input_counts() -> None:
    """Whatever can move a figure makes another fingerprint."""
    base: Settings = BASE["settings"]
    others = [
        fingerprint(),
        fingerprint(model="tiny:2"),
        fingerprint(settings=replace(base, lora={"r": 4, "target_modules": ["q", "v"]})),
        fingerprint(settings=replace(base, lora={"r": 8, "target_modules": ["v", "q"]})),
        fingerprint(settings=replace(base, lora={"r": 8})),
        fingerprint(settings=trained_with(learning_rate=3e-4)),
        fingerprint(settings=trained_with(seed=1)),
        fingerprint(settings=trained_with(packing=True)),
        fingerprint(settings=trained_with(packing=1)),
        fingerprint(settings=trained_with(packing=None)),
        fingerprint(scoring=Scoring("contains")),
        fingerprint(scoring=Scoring("contains", ignore_case=True)),
        fingerprint(scoring=Scoring("loss", threshold=0.0)),
        fingerprint(scoring=Scoring("loss", threshold=1.0)),
        fingerprint(scoring=Scoring(max_new_tokens=5)),
        fingerprint(train=rows("a", "c", "b")),
        fingerprint(eval_=rows("e")),
        fingerprint(train_sample=1),
    ]
    assert len(others) == len(set(others))


def test_settings_of_lora_and_training_are_apart() -> None:
    """The same name in the other group is another setting."""
    one = Settings(lora={"x": 1}, training={})
    other = Settings(lora={}, training={"x": 1})
    assert fingerprint(settings=one) != fingerprint(settings=other)


def test_train_sample_beyond_the_train_set() -> None:
    """A sample of more examples than there are is all of them: the number is not what counts."""
    assert fingerprint(train_sample=3) == fingerprint(train_sample=256)


def test_set_of_modules_has_one_order() -> None:
    """A set is the same in every process, whatever its order of iteration."""
    sets = [{"q", "k", "v"}, {"v", "q", "k"}, ["k", "q", "v"]]
    found = {fingerprint(settings=Settings(lora={"target_modules": s}, training={})) for s in sets}
    assert 1 == len(found)


# scoring


def test_scoring_is_recorded_as_stated() -> None:
    """Only what differs from the defaults is recorded; a threshold of 0 is no default."""
    assert {"scorer": "exact"} == scoring_identity(Scoring(), Path())
    assert {"scorer": "loss", "threshold": 0.0} == scoring_identity(
        Scoring("loss", threshold=0.0), Path()
    )


@pytest.mark.parametrize("place", ["my_scorer.py", "my_scorer/__init__.py"])
def test_source_of_a_scorer_counts(write: Write, tmp_path: Path, place: str) -> None:
    """A user's scorer counts by its module's text, CRLF or not; it is not imported for that."""
    text = "raise SystemExit\n# one\n"
    found = []
    for written in (text, text.replace("\n", "\r\n"), text + "# two\n", b"# \xff\n"):
        write(place, written)
        found.append(scoring_identity(Scoring("my_scorer:f"), tmp_path)["source"])
    assert found[0] == found[1]
    assert 3 == len(set(found))


def test_source_of_a_module_in_a_package(write: Write, tmp_path: Path) -> None:
    """`package.module:function` counts by the module, not by the package."""
    write("pack/__init__.py", "")
    write("pack/scorer.py", "# one\n")
    one = scoring_identity(Scoring("pack.scorer:f"), tmp_path)
    write("pack/scorer.py", "# two\n")
    assert one != scoring_identity(Scoring("pack.scorer:f"), tmp_path)


def test_source_of_an_installed_module() -> None:
    """An installed scorer is found by its file; one that is nowhere has no source."""
    assert {"scorer", "source"} == set(scoring_identity(Scoring("json:loads"), Path("none")))
    deep = scoring_identity(Scoring("json.decoder:f"), Path("none"))
    assert deep["source"] != scoring_identity(Scoring("json:f"), Path("none"))["source"]
    assert {"scorer"} == set(scoring_identity(Scoring("no_such_module_here:f"), Path("none")))
    assert {"scorer"} == set(scoring_identity(Scoring("sys:f"), Path("none")))


# models


def test_model_by_name() -> None:
    """The embedded model is its recipe; a hub id is its name with the revision."""
    assert f"tiny:{recipe_id()}" == model_identity("tiny", Path())
    assert "hub:gpt2@abc" == model_identity("gpt2@abc", Path("none"))


def test_recipe_counts() -> None:
    """Another number in the recipe is another embedded model."""
    assert recipe_id() != recipe_id(replace(RECIPE, steps=RECIPE.steps + 1))
    assert recipe_id() == recipe_id(replace(RECIPE))


def test_model_folder_counts_by_content(write: Write, tmp_path: Path) -> None:
    """A folder is its files' content, wherever it lies; other files in it don't count."""
    write("model/model.safetensors", b"\x00\x01")
    write("model/config.json", "{}")
    one = model_identity("model", tmp_path)
    assert one.startswith("folder:")
    write("model/README.md", "x")
    (tmp_path / "model/checkpoint-1").mkdir()
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    assert one == model_identity("model", tmp_path) == model_identity("copy", tmp_path)
    write("model/model.safetensors", b"\x00\x02")
    two = model_identity("model", tmp_path)
    write("model/tokenizer.json", "{}")
    assert 3 == len({one, two, model_identity("model", tmp_path)})


def test_digest_of_a_folder_is_remembered(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are read once: afterwards a few samples of them, and their times, tell."""
    weights = write("model/model.safetensors", b"\x00" * 100)
    one = model_identity("model", tmp_path)
    opened: list[Path] = []
    path_open = Path.open

    def watched(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(self)
        return path_open(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", watched)
    assert one == model_identity("model", tmp_path)
    assert weights not in opened
    os.utime(weights, (1, 1))
    assert one == model_identity("model", tmp_path)
    assert weights in opened


def test_a_damaged_digest_is_made_again(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wrong bit of what is remembered would be another model."""
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    write("model/model.safetensors", b"\x00" * 100)
    one = model_identity("model", tmp_path)
    (memo,) = (tmp_path / "cache/digests").iterdir()
    whole = memo.read_bytes()
    for damaged in (*flipped(whole, 8), *torn(whole, 4)):
        memo.write_bytes(damaged)
        assert one == model_identity("model", tmp_path)
        assert whole == memo.read_bytes()


def in_place(file: Path, content: bytes) -> None:
    with file.open("r+b") as opened:
        opened.write(content)


def as_a_copy(file: Path, content: bytes) -> None:
    copy = file.with_name("copy")
    copy.write_bytes(content)
    copy.replace(file)


def test_samples_tell_where_size_times_and_inode_do_not(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system may keep all that stat tells while another process writes other weights."""
    weights = write("model/model.safetensors", bytes(5000))
    one, stat, path_stat = model_identity("model", tmp_path), weights.stat(), Path.stat

    def unchanged(self: Path, **how: Any) -> os.stat_result:
        return stat if self == weights else path_stat(self, **how)

    monkeypatch.setattr(Path, "stat", unchanged)
    in_place(weights, b"\x01" * 100)
    assert one != model_identity("model", tmp_path)


@pytest.mark.parametrize("change", [in_place, as_a_copy])
@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "model-1-of-2.safetensors",
        "shards/model.safetensors",
        "pytorch_model.bin",
        "tokenizer.json",
        "modeling_own.py",
    ],
)
def test_a_change_that_keeps_size_and_time(
    name: str, change: Callable[[Path, bytes], None], write: Write, tmp_path: Path
) -> None:
    """Changed content is found, though size and time are those of the file before."""
    large = b"\x01" * 300_000
    file = write(f"model/{name}", large)
    os.utime(file, (1, 1))
    one = model_identity("model", tmp_path)
    change(file, b"\x02" * len(large))
    os.utime(file, (1, 1))
    assert one != model_identity("model", tmp_path)
    change(file, large)
    assert one == model_identity("model", tmp_path)


def test_links_of_a_cache(write: Write, tmp_path: Path) -> None:
    """A snapshot of the hub's cache has links to blobs: another blob is another model."""
    blobs = [write(f"blobs/{n}", bytes([n]) * 100) for n in range(2)]
    for blob in blobs:
        os.utime(blob, (1, 1))
    link = tmp_path / "snapshots/abc/model.safetensors"
    link.parent.mkdir(parents=True)
    found = []
    for blob in (0, 1, 0):
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../blobs/{blob}")
        found.append(model_identity("snapshots/abc", tmp_path))
    assert found[0] == found[2] != found[1]
    (tmp_path / "snapshots/abc/broken.json").symlink_to("nowhere")
    assert found[0] == model_identity("snapshots/abc", tmp_path)


def test_what_is_no_part_of_a_model(write: Write, tmp_path: Path) -> None:
    """Checkpoints of its own training, hidden files and configs deeper down don't count."""
    write("model/model.safetensors", b"1")
    one = model_identity("model", tmp_path)
    write("model/checkpoint-10/model.safetensors", b"2")
    write("model/.cache/model.safetensors", b"2")
    write("model/onnx/config.json", "{}")
    assert one == model_identity("model", tmp_path)


@pytest.mark.parametrize("name", ["model", "./model", "../{}/model", "{0!s}/model", "~/model"])
def test_how_a_folder_is_named(
    name: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative, an absolute path and one from the user's home are the same model."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write("model/config.json", "{}")
    stated = name.format(tmp_path if name.startswith("{") else tmp_path.name)
    assert model_identity("model", tmp_path) == model_identity(stated, tmp_path)


def test_cache_that_can_not_be_written(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cache the digest is the same, only slower."""
    write("model/config.json", "{}")
    one = model_identity("model", tmp_path)
    monkeypatch.setenv("FTLOOP_CACHE", str(write("file", "") / "below"))
    assert one == model_identity("model", tmp_path)


@pytest.mark.slow
def test_live_model_counts_by_its_weights() -> None:
    """A loaded model is its config, weights (bfloat16 too) and tokenizer, not its object."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    def made(seed: int) -> Any:
        torch.manual_seed(seed)
        return GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16))

    assert model_identity(made(0), Path()) == model_identity(made(0), Path())
    others = [made(0), made(1), made(0).to(torch.bfloat16)]
    assert 3 == len({model_identity(model, Path()) for model in others})
