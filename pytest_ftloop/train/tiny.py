"""TORCH: build the embedded base model `tiny` by its recipe, once per machine, in the cache."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.files import replacing
from pytest_ftloop.core.progress import Progress
from pytest_ftloop.core.recipe import RECIPE, Recipe, corpus, recipe_id
from pytest_ftloop.core.sums import damaged_file, write_sums

END = "<|endoftext|>"
PAD = "<|pad|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}" + END + "{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)
"""Each message ends with the end token. Its text starts on a new line, and so with a new token."""


def tiny_folder(progress: Progress, recipe: Recipe = RECIPE) -> Path:
    """The folder of the embedded model, which is built first if the cache lacks it.

    One that is damaged is built again. If several processes need it at once, one builds it and the
    others wait.
    """
    folder = cache_folder() / "tiny" / recipe_id(recipe)
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_whole(folder):  # else another process built it meanwhile
            with replacing(folder) as making:
                making.mkdir()
                build(making, progress, recipe)
                write_sums(making)
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether the model is there as it was built: one bit in it moves all losses."""
    return (folder / "config.json").is_file() and not damaged_file(folder)


def build(folder: Path, progress: Progress, recipe: Recipe = RECIPE) -> None:
    """Pretrain the model and save it with its tokenizer. Torch's random state stays as it was."""
    tokenizer = build_tokenizer(recipe)
    with _seeded(recipe.seed), _threads(recipe.threads):
        model = _pretrained(tokenizer, progress, recipe)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_tokenizer(recipe: Recipe = RECIPE) -> PreTrainedTokenizerFast:
    """A byte-level BPE learnt from the corpus. Byte level, so that it can tokenise any text."""
    raw = Tokenizer(BPE())
    raw.pre_tokenizer = ByteLevel(add_prefix_space=False)
    raw.decoder = ByteLevelDecoder()
    raw.train_from_iterator(
        corpus().splitlines(),
        BpeTrainer(
            vocab_size=recipe.vocabulary,
            special_tokens=[END, PAD],
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    # A separate pad token: labels of padding are masked, so with pad = end no end would be learnt.
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        model_max_length=recipe.context,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _pretrained(
    tokenizer: PreTrainedTokenizerFast, progress: Progress, recipe: Recipe
) -> GPT2LMHeadModel:
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=recipe.context,
            n_embd=recipe.width,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    tokens = _token_stream(tokenizer)  # (N,)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
    model.train()
    for step in range(recipe.steps):
        starts = torch.randint(len(tokens) - recipe.length, (recipe.batch,))
        batch = torch.stack([tokens[s : s + recipe.length] for s in starts.tolist()])  # (B, T)
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.working("building the embedded base model, once", step + 1, recipe.steps)
    return model.eval()


def _token_stream(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    lines = tokenizer(corpus().splitlines())["input_ids"]
    return torch.tensor([token for line in lines for token in [*line, tokenizer.eos_token_id]])


def _rate(step: int, recipe: Recipe) -> float:
    """The learning rate at `step` relative to its peak: linear warm-up, then a cosine to 0.1."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
