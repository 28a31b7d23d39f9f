"""TORCH: the boundary to the libraries: what they raise becomes one `FtloopError`.

trl, transformers, peft and what they use document no errors for wrong settings or rows, and raise
any type from deep inside. Whoever calls them does so in `boundary`, which gives the stage, the
library and its words, the setting that they speak of, and a cure if one is known.
"""

from __future__ import annotations

import contextlib
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pytest_ftloop.core.errors import FtloopError, Locate, TrainingError
from pytest_ftloop.core.records import Settings

Explain = Callable[[Exception, str], "FtloopError | None"]
"""Finds the user's mistake behind an error, given its words; None if it is not known."""

OWN = "pytest_ftloop"

TELLING = (ValueError, OSError, ImportError, RuntimeError, NotImplementedError)
"""Types whose words make sense without the name of the type. `KeyError: 'x'` needs its name."""

CURES = (
    (r"flash_attn|flash_attention|FlashAttention", "Set attn_implementation: sdpa, which needs no "
     "further library, or install flash-attn (needs a GPU)."),
    (r"bitsandbytes", "pip install bitsandbytes, or remove the setting that asks for it."),
    (r"more than one GPU|DataParallel", "Make one of them visible: CUDA_VISIBLE_DEVICES=0 pytest "
     "--ftloop"),
    (r"`?(?:pad|eos)_token`?.*not found in the vocabulary", "Name a token that the tokenizer has, "
     "or add it: tokenizer: {add_special_tokens: [...]}."),
    (r"trust_remote_code", "Read the model's code, then set training: {trust_remote_code: true}."),
    (r"[Gg]ated|401 Client|403 Client|[Uu]nauthorized", "Accept the model's terms on the hub, then "
     "log in: hf auth login (in CI: the variable HF_TOKEN)."),
    (r"ParamWrapper does not work with lora_dropout", "peft trains the weights of these experts "
     "without dropout: set lora.lora_dropout: 0."),
    (r"No space left", "Free some disk space; the run can then be started again."),
)  # fmt: skip
"""What to do, by a pattern in an error's words."""

MOST_WORDS = 300
"""Characters of a library's words that are shown: three lines of a terminal."""

SEE_WHERE = "FTLOOP_TRACEBACK=1 shows where it was raised."

INSTALL = re.compile(
    r"pip install (?:-[-\w]+ )*[`'\"]?(git\+https://[\w./@-]*\w|[A-Za-z][\w.\[\]-]*)"
)
"""A library's own advice to install another: `pip install galore-torch`."""


@dataclass
class Stage:
    """What is being done, for an error's text; `default` is the key of the loop file to look at."""

    name: str
    default: str = "training"

    def is_now(self, name: str, default: str = "training") -> None:
        """Go on to the next stage."""
        self.name, self.default = name, default


@contextlib.contextmanager
def boundary(
    stage: str,
    settings: Settings,
    locate: Locate,
    default: str = "training",
    *,
    explain: Explain = lambda _error, _words: None,
    kind: type[FtloopError] = TrainingError,
) -> Iterator[Stage]:
    """Turn what a library raises into one error of `kind`, which names the stage.

    `explain` is asked first. The place is that of the setting that the error's words mention, or
    else of the key `default` (of peft's errors: `lora`). Errors of ours pass, and so do running out
    of memory, which is retried, and bugs of our own code, which must show their traceback.
    """
    now = Stage(stage, default)
    try:
        yield now
    except (FtloopError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        library = library_of(error)
        if not library:
            raise
        words = words_of(error)
        section = "lora" if library == "peft" else now.default
        raise explain(error, words) or kind(
            f"{library}, while {now.name}: {words}",
            where=locate(mentioned(words, settings) or section),
            cure=cure_of(error, words),
        ) from error


def library_of(error: BaseException) -> str:
    """The package whose code raised an error; empty if that was our own code.

    It is the package of the innermost frame that is not the standard library's. A library without
    frames (it is written in C or Rust) is known by the module of the error's type.
    """
    package = type(error).__module__.partition(".")[0]
    if package not in sys.stdlib_module_names and package != OWN:
        return package
    modules = []
    frame = error.__traceback__
    while frame is not None:
        modules.append(str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0])
        frame = frame.tb_next
    foreign = [module for module in modules if module not in sys.stdlib_module_names]
    return foreign[-1] if foreign and foreign[-1] != OWN else ""


def words_of(error: BaseException) -> str:
    """The library's own words: the first line that says something, with the type where needed."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = next((line for line in lines if re.search(r"\w", line)), "")
    if not said:
        return type(error).__name__
    if not isinstance(error, TELLING) or " " not in said:
        said = f"{type(error).__name__}: {said}"
    return textwrap.shorten(said, MOST_WORDS, placeholder=" ...")


def cure_of(error: BaseException, words: str, default: str = "") -> str:
    """What to do about an error, by its words; else `default`.

    Without one it is nothing for words that stand for themselves, else how to see where the error
    was raised.
    """
    text = f"{words}\n{error}"
    found = next((cure for pattern, cure in CURES if re.search(pattern, text)), None)
    if found:
        return found
    if isinstance(error, ImportError | RuntimeError) and (library := INSTALL.search(text)):
        return f"pip install {library[1]}, or remove the setting that asks for it."
    return default or ("" if isinstance(error, TELLING) else SEE_WHERE)


def mentioned(words: str, settings: Settings) -> str | None:
    """The stated setting that an error's words mention, by its name or else by its value."""
    stated = dict(_leaves({"training": settings.training, "lora": settings.lora}))

    def is_named(key: str) -> bool:
        name = re.escape(key.rpartition(".")[2])
        return bool(re.search(rf"(?<![\w-]){name}(?![\w-])", words))

    named = [key for key in stated if is_named(key)]
    # Only values that are rare enough: `flash_attention_2`, which is FlashAttention2 elsewhere.
    said = _letters(words)
    valued = [
        key
        for key, value in stated.items()
        if isinstance(value, str) and len(_letters(value)) > 4 and _letters(value) in said
    ]
    return max(named or valued, key=len, default=None)


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).casefold()


def _leaves(group: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in group.items():
        key = f"{above}.{name}" if above else name
        if isinstance(value, Mapping):
            yield from _leaves(value, key)
        elif above:
            yield key, value
