"""Bases that are no causal models are named in one line; others are trained, whatever they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import transformers as t

from pytest_ftloop.config.sections import TokenizerSection
from pytest_ftloop.core.errors import ConfigError, DataError, Location
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import Settings
from pytest_ftloop.train.arguments import sft_config
from pytest_ftloop.train.base import load_base
from pytest_ftloop.train.lora import run_lora
from pytest_ftloop.train.prepare import Prepared, build_trainer
from tests.small_base import LORA, data_set, rows, settings

pytestmark = pytest.mark.usefixtures("quietly")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def locate(key: str) -> Location:
    return Location(key)


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the embedded model's folder."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def saved(model: Any, tiny: Path, to: Path) -> str:
    model.save_pretrained(to)
    t.AutoTokenizer.from_pretrained(tiny).save_pretrained(to)
    return str(to)


def refused(name: str, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_base(name, {}, locate, "mine", **options)
    assert 1 == len(caught.value.message.splitlines())
    assert caught.value.cure
    return caught.value


def test_models_that_are_not_causal(tiny: Path, tmp_path: Path) -> None:
    """Encoder-decoders and masked models are refused by name, before anything is trained."""
    t5 = t.T5Config(vocab_size=1024, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    error = refused(saved(t.T5ForConditionalGeneration(t5), tiny, tmp_path / "t5"))
    assert "'mine' is an encoder-decoder (T5ForConditionalGeneration)" in error.message
    bert = t.BertForMaskedLM(t.BertConfig(vocab_size=1024, **SMALL))
    error = refused(saved(bert, tiny, tmp_path / "bert"))
    assert "'mine' is not a causal language model (BertForMaskedLM)" in error.message
    assert "model" == str(error.where)


def cut(path: Path, size: int) -> None:
    """Keep the first bytes of a file."""
    path.write_bytes(path.read_bytes()[:size])


def link(path: Path) -> None:
    """Have a device without end in a file's place."""
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a model"])
def test_an_adapter_is_named(tiny: Path, folder: Path, beside: bool) -> None:
    """A folder of an adapter names its base; one beside a model is not applied in silence."""
    model = t.AutoModelForCausalLM.from_pretrained(tiny)
    config = peft.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(folder)
    if beside:
        assert "holds an adapter beside the base model" in refused(str(folder)).message
    else:
        (folder / "config.json").unlink()
        error = refused(str(folder))
        assert f"is a LoRA adapter, trained on {tiny}" in error.message
        assert "lora: {init_from: " in error.cure
        assert f"model: {tiny}" in error.cure


@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        ("model.safetensors", lambda path: cut(path, 0), "a header of 0 bytes in a file of 0"),
        ("model.safetensors", lambda path: cut(path, 1000), "truncated?"),
        ("model.safetensors", link, "it is a device or a pipe, not a file"),
        ("config.json", lambda path: cut(path, 30), "it is not JSON, or not all of it (line 2)"),
        ("config.json", lambda path: path.write_text("[]"), "it is not a JSON object"),
        ("config.json", lambda path: path.write_text("[" * 9999), "wanted at most 64 levels"),
        ("config.json", lambda path: path.write_bytes(b"\xff{}"), "it is not JSON"),
        ("config.json", link, "it is a device or a pipe, not a file"),
        ("tokenizer.json", lambda path: cut(path, 99), "it is not JSON, or not all of it"),
        ("tokenizer_config.json", lambda path: path.write_text("null"), "it is not a JSON object"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, name: str, damage: Any, why: str) -> None:
    """What was cut off, is of another kind or leads to a device is told by its name."""
    damage(folder / name)
    error = refused(str(folder))
    assert f"{name} can't be read: " in error.message
    assert why in error.message
    assert "Restore the file" in error.cure


def test_a_pointer_of_git_lfs(folder: Path) -> None:
    """Weights that are a pointer are named, with the command that gets them."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "model.safetensors").write_text(pointer)
    error = refused(str(folder))
    assert "model.safetensors is a pointer of Git LFS" in error.message
    assert "git lfs pull" in error.cure


def test_broken_files(folder: Path) -> None:
    """Cut-off weights and configurations are one line with the file and what is wrong with it."""
    (folder / "model.safetensors").write_bytes(b"0123456789")
    assert "model.safetensors can't be read: a header of " in refused(str(folder)).message
    (folder / "config.json").write_text("{")
    assert "config.json" in refused(str(folder)).message


def test_a_missing_tokenizer_and_another_one(tiny: Path, folder: Path) -> None:
    """Without a tokenizer the error says where to name one; with the name it loads."""
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    error = refused(str(folder))
    assert "model 'mine' has no tokenizer" in error.message
    assert "tokenizer: {name: ...}" in error.cure
    named = TokenizerSection(name=str(tiny), add_special_tokens=None)
    base = load_base(str(folder), {}, locate, "mine", named)
    assert 1024 == len(base.tokenizer) == base.model.get_input_embeddings().num_embeddings


def test_added_tokens_train_and_come_back(tiny: Path, task: Any, tmp_path: Path) -> None:
    """Added tokens are one token each, resize the model, and the saved adapter has their rows."""
    section = TokenizerSection(name=None, add_special_tokens=["<|topic|>", "<|end|>"])
    base = load_base(str(tiny), {}, locate, "tiny", section)
    assert [1024] == base.tokenizer("<|topic|>")["input_ids"]
    assert 1026 == base.model.get_input_embeddings().num_embeddings
    changed = Settings(
        lora={**LORA, "modules_to_save": ["wte"]}, training=settings(max_steps=2).training
    )
    run = run_lora(base, task(), changed, Silent(), adapter=tmp_path / "adapter")
    assert 1026 == run.training.vocabulary
    assert 1026 == len(t.AutoTokenizer.from_pretrained(tmp_path / "adapter"))
    auto = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert 1026 == auto.get_input_embeddings().weight.shape[0]


@pytest.mark.parametrize(
    ("prompt", "completion", "saved", "layers"),
    [
        ("{prompt}", "{completion}", [], ()),
        ("<|topic|>{prompt}", "{completion}", [], ("wte",)),
        ("<|topic|>{prompt}", "{completion}", ["wte"], ()),
        ("{prompt}", "{completion}<|topic|>", [], ("wte", "lm_head")),
        ("{prompt}", "{completion}<|topic|>", ["wte"], ("lm_head",)),
        ("{prompt}", "{completion}<|topic|>", ["wte", "lm_head"], ()),
    ],
)
def test_added_tokens_that_are_not_trained(
    tiny: Path,
    task: Any,
    tmp_path: Path,
    prompt: str,
    completion: str,
    saved: list[str],
    layers: tuple[str, ...],
) -> None:
    """What is read needs trained embeddings, what is written a trained output layer too."""
    section = TokenizerSection(name=None, add_special_tokens=["<|topic|>", "<|unused|>"])
    made = [
        {**row, "prompt": prompt.format(**row), "completion": completion.format(**row)}
        for row in rows(16, 1)
    ]
    examples = data_set(made, "train")
    stated = task(train=examples, train_sample=examples.examples)
    changed = Settings(lora={**LORA, "modules_to_save": saved}, training=settings().training)
    base = load_base(str(tiny), {}, locate, "tiny", section)
    with base.lent() as loan:
        args = sft_config(changed, str(tmp_path), stated.locate)
        trainer = build_trainer(loan, args, changed, stated)
        wiring = Prepared.of(trainer, stated, loan.added_tokens).wiring
    assert (("<|topic|>",) if layers else ()) == wiring.untrained_tokens
    assert layers == wiring.untrained_layers


def test_a_larger_tokenizer_from_elsewhere(tiny: Path, tmp_path: Path) -> None:
    """It is taken if it has the model's own tokens at their places, and refused if not."""
    larger = t.AutoTokenizer.from_pretrained(tiny)
    larger.add_tokens(["<|im_start|>", "<|im_end|>"])
    larger.save_pretrained(tmp_path / "larger")
    named = TokenizerSection(name=str(tmp_path / "larger"), add_special_tokens=None)
    base = load_base(str(tiny), {}, locate, "mine", named)
    assert 1026 == len(base.tokenizer) == base.model.get_input_embeddings().num_embeddings
    raw = json.loads((tmp_path / "larger/tokenizer.json").read_text())
    words = list(raw["model"]["vocab"])
    raw["model"]["vocab"] = {word: (n + 1) % len(words) for n, word in enumerate(words)}
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["id"] >= 1024]
    (tmp_path / "larger/tokenizer.json").write_text(json.dumps(raw))
    error = refused(str(tiny), tokenizer=named)
    assert "embeddings only 1024 rows" in error.message


def test_a_pad_token_by_role(tiny: Path) -> None:
    """Tokens may be given by their role, and a token that is known changes nothing."""
    section = TokenizerSection(name=None, add_special_tokens={"pad_token": "<|mine|>"})
    base = load_base(str(tiny), {}, locate, "tiny", section)
    assert ("<|mine|>", 1024) == (base.tokenizer.pad_token, base.tokenizer.pad_token_id)
    known = TokenizerSection(name=None, add_special_tokens={"pad_token": "<|endoftext|>"})
    base = load_base(str(tiny), {}, locate, "tiny", known)
    assert 1024 == base.model.get_input_embeddings().num_embeddings


def test_a_mixture_of_experts_generates(tiny: Path, task: Any, tmp_path: Path) -> None:
    """Its routers' outputs are off while it is measured, and on again for training."""
    config = t.MixtralConfig(
        vocab_size=1024, num_key_value_heads=1, num_local_experts=2, eos_token_id=0, **SMALL
    )
    name = saved(t.AutoModelForCausalLM.from_config(config), tiny, tmp_path / "moe")
    base = load_base(name, {}, locate)
    # peft can't wrap the experts' parameters with dropout.
    plain = Settings(lora={**LORA, "lora_dropout": 0.0}, training=settings(max_steps=2).training)
    run = run_lora(base, task(), plain, Silent())
    assert 20 == len([row for row in run.evaluation.examples if row.passed is not None])


def test_tied_token_rows_are_refused(tiny: Path, base: Any, task: Any) -> None:
    """trl would ignore rows trained in an output layer that shares the embeddings' weights."""
    changed = Settings(
        lora={**LORA, "trainable_token_indices": [0, 5]}, training=settings().training
    )
    with pytest.raises(ConfigError, match="shares its weights with the embeddings") as caught:
        run_lora(base, task(), changed, Silent())
    assert "modules_to_save: [wte" in caught.value.cure


def test_an_epoch_without_a_step_is_an_error(base: Any, task: Any) -> None:
    """A batch larger than the set whose rest is dropped: batch, rows and setting are named."""
    with pytest.raises(ConfigError, match="no step to train") as caught:
        run_lora(
            base,
            task(),
            settings(per_device_train_batch_size=64, dataloader_drop_last=True),
            Silent(),
        )
    assert "48 rows" in caught.value.message
    assert "dataloader_drop_last" in caught.value.message
    assert "per_device_train_batch_size: 48 or lower" in caught.value.cure


def test_a_template_that_refuses_a_row_names_it(tiny: Path, task: Any, tmp_path: Path) -> None:
    """The error has the row's place and the template's words, not the template engine's trace."""
    file = tmp_path / "strict.jinja"
    file.write_text(
        "{% for m in messages %}{% if m.role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}{{ m.content }}{% endfor %}"
    )
    chat: list[dict[str, Any]] = [
        {
            "id": row["id"],
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]},
            ],
        }
        for row in rows(6, 1)
    ]
    chat[3]["messages"].insert(0, {"role": "system", "content": "Be brief."})
    train = data_set(json.loads(json.dumps(chat)), "train")
    eval_ = data_set(json.loads(json.dumps(chat[:2])), "eval")
    given = task(train=train, eval=eval_, train_sample=train.examples)
    base = load_base(str(tiny), {}, locate)
    with pytest.raises(DataError, match="System role not supported") as caught:
        run_lora(base, given, settings(chat_template_path=str(file)), Silent())
    assert "'1-003'" in caught.value.message
    assert train.examples[3].where == caught.value.where


@pytest.fixture
def template(tiny: Path, tmp_path: Path) -> str:
    """The folder of a tokenizer that has a chat template, and two tokens more than the tiny one."""
    tokenizer = t.AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|from|>"], "eos_token": "<|end|>"})
    tokenizer.chat_template = (
        "{% for m in messages %}<|from|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|from|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path / "template")
    return str(tmp_path / "template")


def llama(tiny: Path, to: Path, *, tied: bool = False) -> str:
    """A random model whose output layer has weights of its own, or those of the embeddings."""
    end = t.AutoTokenizer.from_pretrained(tiny).eos_token_id
    config = t.LlamaConfig(
        vocab_size=1024, **SMALL, tie_word_embeddings=tied, bos_token_id=end, eos_token_id=end
    )
    return saved(t.LlamaForCausalLM(config), tiny, to)


def chats(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of messages."""
    return [
        {
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]},
            ]
        }
        for row in rows(count, seed)
    ]


def test_a_template_with_tokens_leaves_the_base_as_it_was(
    tiny: Path, template: str, task: Any, tmp_path: Path
) -> None:
    """Each iteration adds the tokens anew, so its losses are those of a fresh base, to the bit."""
    base = load_base(llama(tiny, tmp_path / "llama"), {}, locate)
    train = data_set(chats(16, 1), "train")
    stated = task(train=train, eval=data_set(chats(4, 2), "eval"), train_sample=train.examples)
    changed = settings(chat_template_path=template, max_steps=2)
    runs = [run_lora(base, stated, changed, Silent()) for _ in range(2)]
    first, second = ([step.loss for step in run.training.steps] for run in runs)
    assert first == second
    assert runs[0].training.vocabulary > 1024 == base.model.get_input_embeddings().weight.shape[0]
    assert () == runs[0].training.wiring.untrained_tokens


@pytest.mark.parametrize(
    ("tied", "words"),
    [(True, "the output layer of this model shares its weights"), (None, "under the name embed")],
    ids=["tied", "gpt2"],
)
def test_a_template_with_tokens_that_trl_can_not_train(
    tiny: Path, template: str, task: Any, tmp_path: Path, tied: bool | None, words: str
) -> None:
    """The error is at the template, and the cure adds the tokens by the section `tokenizer`."""
    name = llama(tiny, tmp_path / "llama", tied=True) if tied else str(tiny)
    train = data_set(chats(16, 1), "train")
    stated = task(train=train, train_sample=train.examples, locate=locate)
    with pytest.raises(ConfigError) as caught:
        run_lora(
            load_base(name, {}, locate), stated, settings(chat_template_path=template), Silent()
        )
    assert words in caught.value.message
    assert "training.chat_template_path" == str(caught.value.where)
    assert "tokenizer: {add_special_tokens: [...]}" in caught.value.cure


def test_trained_token_indices(tiny: Path, task: Any, tmp_path: Path) -> None:
    """Rows of embeddings are trained beside LoRA where the output layer has its own weights."""
    base = load_base(llama(tiny, tmp_path / "llama"), {}, locate)
    changed = Settings(
        lora={**LORA, "trainable_token_indices": [5, 6]}, training=settings(max_steps=2).training
    )
    run = run_lora(base, task(), changed, Silent(), adapter=tmp_path / "adapter")
    assert run.training.adapter_moved
    shapes = [tuple(w.shape) for w in peft.load_peft_weights(tmp_path / "adapter").values()]
    assert (2, SMALL["hidden_size"]) in shapes


def test_experts_without_dropout(tiny: Path, task: Any, tmp_path: Path) -> None:
    """peft trains the weights of experts without dropout; the error is at the setting."""
    config = t.Qwen3MoeConfig(
        vocab_size=1024, **SMALL, num_key_value_heads=2, head_dim=16, num_experts=2,
        num_experts_per_tok=1, moe_intermediate_size=16,
    )  # fmt: skip
    base = load_base(saved(t.Qwen3MoeForCausalLM(config), tiny, tmp_path / "moe"), {}, locate)
    with pytest.raises(ConfigError) as caught:
        run_lora(base, task(locate=locate), settings(max_steps=1), Silent())
    assert "lora.lora_dropout" == str(caught.value.where)
    assert caught.value.cure.endswith("set lora.lora_dropout: 0.")


def test_answers_that_the_template_does_not_mark(tiny: Path, task: Any) -> None:
    """A loss of the answers alone needs their marks; the error says what to do without them."""
    base = load_base(str(tiny), {}, locate)
    base.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    train = data_set(chats(8, 1), "train")
    stated = task(train=train, eval=train, train_sample=train.examples, locate=locate)
    with pytest.raises(ConfigError) as caught:
        run_lora(base, stated, settings(assistant_only_loss=True), Silent())
    assert "training.assistant_only_loss" == str(caught.value.where)
    assert "give the last answer as completion" in caught.value.cure
