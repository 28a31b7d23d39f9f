"""The fingerprint: a hash of everything that determines the result of an iteration.

It covers the identity of the base model, the content of train and eval set, the stated settings and
the scoring. It leaves out settings that can't change a figure (report_to, logging, the eval batch
size), and device and versions, which are recorded as the environment. Only for a live model it
needs torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.scoring import SCORE_HOOK, Scoring
from pytest_ftloop.core.bounds import MOST_BYTES, read_bytes
from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.files import real, write_atomically
from pytest_ftloop.core.neutral import NEUTRAL
from pytest_ftloop.core.recipe import recipe_id
from pytest_ftloop.core.records import measured_content
from pytest_ftloop.core.set_metrics import KEY
from pytest_ftloop.core.sources import function_source, hook_source
from pytest_ftloop.core.untrained import tokenising

if TYPE_CHECKING:
    from pytest_ftloop.config.sections import TokenizerSection
    from pytest_ftloop.core.records import DataSet, Settings


FORMAT = 1
"""Version of the fingerprint. Raising it makes all logs out of date, so all loops train again."""

_WEIGHTS = (".safetensors", ".bin")
"""The endings of weight files, which count in subfolders too: an index may name them there."""

_COUNTED = (*_WEIGHTS, ".json", ".model", ".txt", ".jinja", ".py")
"""The endings of the files of a model's folder that its identity covers."""

_SAMPLE = 4096
"""Bytes of each sample of a large file: one block of a disk."""

_SAMPLES = 16
"""Samples of a large file that are read to see whether it is unchanged. New weights differ nearly
everywhere, so that any of them would do; these take a millisecond."""


def iteration_fingerprint(
    model: str,
    settings: Settings,
    scoring: Mapping[str, Any],
    train: DataSet,
    eval_: DataSet,
    train_sample: int,
    tokenizer: Mapping[str, Any] | None = None,
    guards: Mapping[str, Any] | None = None,
) -> str:
    """The fingerprint of an iteration: a SHA-256 in hex.

    `model`, `scoring` and `tokenizer` are their identities (`model_identity` and the like).
    `train_sample` is the number of train examples that train_loss and overfit_gap are measured on.
    `guards` are the identities of the guards by name (`guard_identity`).
    """
    stated = {
        "format": FORMAT,
        "model": model,
        "lora": dict(settings.lora),
        "training": {k: v for k, v in settings.training.items() if k not in NEUTRAL},
        "scoring": dict(scoring),
        "train": train.sha256,
        "eval": eval_.sha256,
        # A sample larger than the train set is all of it.
        "train_sample": min(train_sample, len(train.examples)),
    }
    # Without them the fingerprint is what it was before there were such sections.
    if tokenizer:
        stated["tokenizer"] = tokenizer
    if guards:
        stated["guards"] = guards
    return _sha256(stated)


def guard_identity(rows: DataSet, scoring: Mapping[str, Any] | None) -> dict[str, Any]:
    """What decides a guard's figures: its rows, and how they are scored (None: not at all)."""
    return {"rows": rows.sha256, "scoring": scoring}


def base_fingerprint(
    model: str,
    settings: Settings,
    scoring: Mapping[str, Any],
    eval_: DataSet,
    tokenizer: Mapping[str, Any] | None = None,
    guards: Mapping[str, Any] | None = None,
) -> str:
    """The fingerprint of a measurement of the untrained base. Arguments as of an iteration's."""
    return _sha256(
        {
            "format": FORMAT,
            "base": model,
            "training": tokenising(settings.training),
            "scoring": dict(scoring),
            "eval": eval_.sha256,
            "tokenizer": tokenizer or {},
            "guards": guards or {},
        }
    )


def weights_fingerprint(
    model: str,
    settings: Settings,
    rows: str,
    tokenizer: Mapping[str, Any] | None = None,
) -> str:
    """What identifies the weights of a training, whatever they are measured by: a SHA-256 in hex.

    The eval set is no part of it, although the kept adapter is the best on that: an iteration that
    is measured again by another one keeps the adapter that it has. Nor are the ids and tags of the
    train rows, which are only labels, and what only scorers read. `rows` are the train rows as
    `rows_for_model` gives them, the other arguments as of `iteration_fingerprint`.
    """
    stated = {
        "format": FORMAT,
        "model": model,
        "lora": dict(settings.lora),
        "training": {k: v for k, v in settings.training.items() if k not in NEUTRAL},
        "train": _ROWS,
    }
    if tokenizer:
        stated["tokenizer"] = tokenizer
    return _hash_of(_text_of(stated).replace(json.dumps(_ROWS), rows))


_ROWS = "\0rows"
"""Stands for the train rows: their text is made once, and a log of 200 iterations checks 200."""


def rows_for_model(train: DataSet) -> str:
    """What the model sees of the train rows, in order, as JSON of their hashes."""
    return _text_of([measured_content(example.content) for example in train.examples])


def model_identity(model: Any, folder: Path, tokenizer: Any = None) -> str:
    """`tiny:<recipe>`, `folder:<hash of its files>`, `hub:<id>@<revision>` or `live:<weights>`.

    A hub id without a revision is identified by its name: pin it (`id@revision`) if it may change.
    """
    if not isinstance(model, str):
        return f"live:{_live_digest(model, tokenizer)}"
    if model == "tiny":
        return f"tiny:{recipe_id()}"
    path = model_path(model, folder)
    if path.is_dir():
        return f"folder:{_folder_digest(path)}"
    return f"hub:{model}"


def tokenizer_identity(
    section: TokenizerSection | None, chat_template: object, folder: Path
) -> dict[str, Any]:
    """What a loop file's tokenizer section and chat template add to the model's own tokenizer.

    `chat_template` is `training.chat_template_path`: of a file or folder the content counts.
    """
    found: dict[str, Any] = {}
    if section is not None and section.name:
        found["name"] = model_identity(section.name, folder)
    if section is not None and section.tokens:
        found["add_special_tokens"] = section.tokens
    if isinstance(chat_template, str):
        path = model_path(chat_template, folder)
        if path.is_file():
            found["chat_template"] = hashlib.sha256(read_bytes(path)).hexdigest()[:32]
        elif path.is_dir():
            found["chat_template"] = _folder_digest(path)
    return found


def model_path(model: str, folder: Path) -> Path:
    """The path of a model that is a folder; it need not exist. `~` is the user's home."""
    return folder / os.path.expanduser(model)  # noqa: PTH111 - Path's raises for an unknown user


def split_revision(name: str) -> tuple[str, str | None]:
    """`gpt2@607a30d` -> (`gpt2`, `607a30d`)."""
    base, at, revision = name.rpartition("@")
    return (base, revision) if at and base and "/" not in revision else (name, None)


def metrics_identity(metrics: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """The metrics of the whole set as a part of the scoring's identity; empty if there are none.

    A user's function counts with its source, as a scorer does.
    """

    def one(kind: str) -> Any:
        source = function_source(kind.partition(":")[0], folder) if ":" in kind else None
        return {"function": kind, "source": source} if source else kind

    return {KEY: {name: one(kind) for name, kind in metrics.items()}} if metrics else {}


def scoring_identity(scoring: Scoring, folder: Path) -> dict[str, Any]:
    """The settings of the scoring; for a user's function or hook also a hash of its source.

    The source includes the local modules that it imports. A hook of an installed plugin has none.
    """
    plain = Scoring(scoring.scorer)
    stated = {k: v for k, v in asdict(scoring).items() if k == "scorer" or v != getattr(plain, k)}
    if scoring.judge is not None:
        stated["judge"] = scoring.judge.identity
    if scoring.judge_check is not None:
        stated["judge_check"] = _content(folder / scoring.judge_check)
    source = None
    if ":" in scoring.scorer:
        source = function_source(scoring.scorer.partition(":")[0], folder)
    elif scoring.scorer == "hook":
        source = hook_source(SCORE_HOOK, folder)
    return stated | ({"source": source} if source else {})


def _content(path: Path) -> str:
    """A hash of a file's content; the name of what is no file, such as a data set on the hub."""
    if not path.is_file():
        return path.name
    return hashlib.sha256(read_bytes(path, MOST_BYTES)).hexdigest()[:16]


def _folder_digest(folder: Path) -> str:
    """A hash of the model's files, remembered since weights can be many gigabytes."""
    paths = sorted(_counted(folder))
    names = [path.relative_to(folder).as_posix() for path in paths]
    about = [
        str(real(folder)),
        [(name, *_signs(p)) for name, p in zip(names, paths, strict=True)],
    ]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    memo = cache_folder() / "digests" / key
    if memo.is_file() and (known := _remembered(memo)):
        return known
    digest = hashlib.sha256()
    for name, path in zip(names, paths, strict=True):
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    with suppress(OSError):  # without a cache it only takes longer
        memo.parent.mkdir(parents=True, exist_ok=True)
        found = digest.hexdigest()[:32]
        write_atomically(memo, f"{found} {_hash_of(key + found)}")  # another process may be reading
    return digest.hexdigest()[:32]


def _remembered(memo: Path) -> str:
    """The digest in a file of the cache; nothing if the file is not what was written."""
    found, _, sum_ = memo.read_text(encoding="utf-8", errors="replace").partition(" ")
    return found if sum_ == _hash_of(memo.name + found) else ""


def _counted(folder: Path) -> Iterator[Path]:
    """The files that a model is loaded from: not those of the checkpoints of its own training."""
    for parent, folders, files in os.walk(folder):
        place = Path(parent)
        folders[:] = [f for f in folders if not f.startswith((".", "checkpoint-"))]
        endings = _COUNTED if place == folder else _WEIGHTS
        named = (place / file for file in files if file.endswith(endings))
        yield from (path for path in named if path.is_file())


def _signs(path: Path) -> Sequence[int | str]:
    """What shows that a file is unchanged without reading all of it.

    Size and time alone do not: a copy (rsync, a container's layer, a restored cache) may keep both.
    Neither do inode and time of change on each file system, so samples of the content count too.
    """
    stat = path.stat()
    sample = hashlib.sha256()
    with FileIO(path) as file:  # without a buffer: it reads no more than it is asked for
        for number in range(_SAMPLES):
            file.seek(max(stat.st_size - _SAMPLE, 0) * number // (_SAMPLES - 1))
            sample.update(file.read(_SAMPLE))
    times = stat.st_mtime_ns, stat.st_ctime_ns
    return (stat.st_size, *times, stat.st_dev, stat.st_ino, sample.hexdigest())


def _live_digest(model: Any, tokenizer: Any) -> str:
    """A hash of a loaded model's config and weights, and of its tokenizer."""
    digest = hashlib.sha256(model.config.to_json_string(use_diff=False).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # As bytes, since numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().flatten().view(_byte_type()).numpy())
    if tokenizer is not None:
        digest.update(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
        digest.update(str(tokenizer.chat_template).encode())
    return digest.hexdigest()[:32]


def _byte_type() -> Any:
    import torch  # imported already, since the model is loaded

    return torch.uint8


def _sha256(stated: Mapping[str, Any]) -> str:
    return _hash_of(_text_of(stated))


def _text_of(stated: Any) -> str:
    return json.dumps(_canonical(stated), sort_keys=True, separators=(",", ":"), default=str)


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """One form of settings that are equal but written differently (1 and 1.0, lists and tuples)."""
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted((_canonical(v) for v in value), key=str)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value
