"""TORCH: the tokenizer of a base model: its own or another one, with tokens added to it."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pytest_ftloop.config.sections import TokenizerSection
from pytest_ftloop.core.errors import ConfigError, Locate
from pytest_ftloop.data.identity import model_path, split_revision
from pytest_ftloop.train.boundary import words_of

ELSEWHERE = (
    "Copy the tokenizer's files there, or name a folder or hub id that has it: "
    "tokenizer: {name: ...}."
)

PASS_TOKENIZER = "Pass the tokenizer: ftloop(model=model, tokenizer=tokenizer, ...)."


def load_tokenizer(
    name: str, shown: str, locate: Locate, key: str, *, trust: bool = False, cure: str = ELSEWHERE
) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or at a hub id (`id@revision`). Raises `ConfigError`.

    The message calls its place `shown`; `key` is where the loop file names it. With `trust` the
    tokenizer's own code is run.
    """
    id_, revision = split_revision(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(id_, revision=revision, trust_remote_code=trust)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        text = f"{shown} has no tokenizer that can be loaded: {words_of(error)}"
        raise ConfigError(text, where=locate(key), cure=cure) from error
    # Without any file of a vocabulary transformers makes a tokenizer that knows no text.
    if not tokenizer("a").input_ids:
        raise ConfigError(f"{shown} has no tokenizer", where=locate(key), cure=cure)
    return tokenizer


def with_section(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    section: TokenizerSection,
    locate: Locate,
) -> frozenset[int]:
    """Add the section's tokens to the tokenizer, and rows to the model's embeddings for them.

    A tokenizer from elsewhere that the embeddings have room for changes nothing in the model; a
    larger one must be the model's own with further tokens. Returns the ids of the tokens that the
    model has not seen: those that were added, and those of a larger tokenizer.
    """
    known = len(tokenizer)
    rows = model.get_input_embeddings().num_embeddings
    seen = {id_ for id_ in tokenizer.get_vocab().values() if id_ < rows}
    tokenizer.add_special_tokens(section.tokens, replace_extra_special_tokens=False)
    added = frozenset(tokenizer.get_vocab().values()) - seen
    if len(tokenizer) <= rows:
        return added
    if known > rows and not _extends_own(model, tokenizer):
        raise ConfigError(
            f"the tokenizer has {known} tokens, but the model's embeddings only {rows} rows",
            where=locate("tokenizer.name"),
            cure="Name a tokenizer that was made for this model.",
        )
    model.resize_token_embeddings(len(tokenizer))
    return added


def _extends_own(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has each token of the model's own tokenizer (if any) at its place."""
    try:
        own = load_tokenizer(model.config.name_or_path, "", lambda _: None, "")
    except ConfigError:
        return True  # there is nothing to compare with
    vocabulary = tokenizer.get_vocab()
    return all(vocabulary.get(token) == place for token, place in own.get_vocab().items())


def beside(name: str, folder: Path) -> str:
    """A tokenizer's name as transformers takes it: a path relative to the loop file is resolved."""
    path = model_path(name, folder)
    return str(path) if path.exists() else name
