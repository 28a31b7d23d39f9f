"""What people check by hand, with plain transformers, peft and trl: losses, outputs, choices.

Nothing of pytest-ftloop is used here but records to hold the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

UNLABELLED = -100


@dataclass(frozen=True)
class Chat:
    """How a loop renders messages: the template (None: the tokenizer's own), and what is labelled.

    With `answers_only` the loss counts what the template marks as the assistant's.
    """

    template: str | None = None
    answers_only: bool = False


@dataclass(frozen=True)
class ByHand:
    """A model with its tokenizer, measured one row at a time."""

    model: Any
    tokenizer: Any
    chat: Chat = field(default_factory=Chat)

    @classmethod
    def of_adapter(cls, folder: Path, chat: Chat | None = None) -> ByHand:
        """An exported adapter on the base that it names."""
        from peft import AutoPeftModelForCausalLM
        from transformers import AutoTokenizer

        model = AutoPeftModelForCausalLM.from_pretrained(str(folder), dtype="float32").eval()
        return cls(model, AutoTokenizer.from_pretrained(str(folder)), chat or Chat())

    @classmethod
    def of_merged(cls, folder: Path, chat: Chat | None = None) -> ByHand:
        """A folder with merged weights."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype="float32").eval()
        return cls(model, AutoTokenizer.from_pretrained(str(folder)), chat or Chat())

    def mean_loss(self, rows: Sequence[Mapping[str, Any]]) -> float:
        """The mean loss over all labelled tokens of the rows, in nats."""
        figures = [self.loss(row) for row in rows]
        return sum(loss for loss, _ in figures) / sum(tokens for _, tokens in figures)

    def loss(self, row: Mapping[str, Any]) -> tuple[float, int]:
        """A row's summed loss in nats, and the number of its labelled tokens."""
        import torch

        ids, labels = self.labelled(row)
        wanted = torch.tensor(labels[1:])  # (T - 1,): the first token is never predicted
        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor([ids])).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
        return float(loss), int((wanted != UNLABELLED).sum())

    def output(self, row: Mapping[str, Any], max_new_tokens: int) -> str:
        """The greedy output after the row's prompt, without special tokens and outer space."""
        import torch

        prompt = self.asked(row)
        ids = torch.tensor([prompt])
        out = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return str(self.tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True)).strip()

    def chosen(self, row: Mapping[str, Any], candidates: Sequence[str]) -> str:
        """The candidate that is the most likely answer."""
        return min(candidates, key=lambda text: self.loss(_answered(row, text))[0])

    def labelled(self, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """A row's tokens and their labels, as trl documents them for its form."""
        if "input_ids" in row:
            return list(row["input_ids"]), list(row["labels"])
        if "messages" in row and self.chat.answers_only:
            return self._marked(row)
        if "messages" in row:
            ids = self._rendered(row, row["messages"])
            return ids, ids
        end = self.tokenizer.eos_token
        if "text" in row:
            ids = self.tokenizer(row["text"] + end)["input_ids"]
            return ids, ids
        if isinstance(row["prompt"], str):
            ids = self.tokenizer(row["prompt"] + row["completion"] + end)["input_ids"]
        else:
            ids = self._rendered(row, [*row["prompt"], *row["completion"]])
        # Where a token holds the prompt's end and the answer's start, trl labels it.
        pairs = enumerate(zip(asked := self.asked(row), ids, strict=False))
        before = next((at for at, (a, b) in pairs if a != b), len(asked))
        return ids, [UNLABELLED] * before + ids[before:]

    def asked(self, row: Mapping[str, Any]) -> list[int]:
        """The tokens of the row's prompt."""
        given = row["prompt"] if "prompt" in row else row["messages"][:-1]
        if isinstance(given, str):
            return list(self.tokenizer(given)["input_ids"])
        return self._rendered(row, given, add_generation_prompt=True)

    def _rendered(self, row: Mapping[str, Any], messages: Any, **how: Any) -> list[int]:
        return list(self._applied(row, messages, **how)["input_ids"])

    def _marked(self, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        out = self._applied(row, row["messages"], return_assistant_tokens_mask=True)
        marks = zip(out["input_ids"], out["assistant_masks"], strict=True)
        return list(out["input_ids"]), [i if mark else UNLABELLED for i, mark in marks]

    def _applied(self, row: Mapping[str, Any], messages: Any, **how: Any) -> Any:
        return self.tokenizer.apply_chat_template(
            messages,
            tools=row.get("tools"),
            chat_template=self.chat.template,
            tokenize=True,
            return_dict=True,
            **how,
            **row.get("chat_template_kwargs", {}),
        )


def _answered(row: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The row with another answer."""
    if "messages" in row:
        return {**row, "messages": [*row["messages"][:-1], _assistant(text)]}
    if isinstance(row["completion"], str):
        return {**row, "completion": f" {text}"}
    return {**row, "completion": [_assistant(text)]}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
