"""TORCH: measure examples with a model: losses, and outputs if the scorer needs text.

One forward pass gives the summed loss, token count and top-1 count of each example. The eval loss
is their exact mean over tokens, which does not depend on the batch size, as a mean of batch means
does.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import DataError
from pytest_ftloop.core.progress import Progress
from pytest_ftloop.core.ranks import ALONE, Ranks
from pytest_ftloop.core.records import Example, ExampleResult
from pytest_ftloop.evaluate.decoding import Decoding, decodings
from pytest_ftloop.evaluate.foreseen import CERTAIN, Prompt, answer_that_ends, is_plain
from pytest_ftloop.evaluate.labelled import labelled_alone
from pytest_ftloop.evaluate.measuring import measuring
from pytest_ftloop.evaluate.rendering import Renderer
from pytest_ftloop.evaluate.scored import Scorer, scored_by_output, with_outputs
from pytest_ftloop.evaluate.scorers import score_by_choice, score_by_loss

GREEDY = Decoding()
"""The likeliest token at each step."""
KeepOutputs = Callable[[tuple[ExampleResult, ...], int], object]
"""Called with the results with their outputs, and the limit of new tokens."""

ID_COLUMN = "ftloop_id"
"""The column for an example's id in the rows that trl tokenises."""


@dataclass(frozen=True)
class TokenRow:
    """One tokenised example: `input_ids` and `labels` of equal length; a label -100 has no loss."""

    id: str
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Evaluator:
    """Measures a causal language model, and leaves its mode and all random states unchanged.

    `model` must be one that SFTTrainer prepared, with trl's fused LM head. `autocast` opens the
    trainer's mixed-precision context. `batch_size` is in examples, and `generation_batch` that of
    generation (0: the same). `chat_template` is the one that trl uses instead of the tokenizer's
    own, if any. Of several `ranks` each measures a share, and all have the results.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    batch_size: int
    autocast: Callable[[], contextlib.AbstractContextManager[Any]]
    chat_template: str | None = None
    generation_batch: int = 0
    ranks: Ranks = ALONE

    @property
    def renderer(self) -> Renderer:
        """Renders prompts and answers with the tokenizer."""
        return Renderer(self.tokenizer, self.chat_template)

    def asked(self, examples: Sequence[Example], scoring: Scoring) -> tuple[Sequence[Example], int]:
        """The examples with what the model is trained to write as expected texts, and the limit."""
        rendered = [replace(e, expected=self.renderer.expected(e)) for e in examples]
        return rendered, scoring.max_new_tokens or default_new_tokens(self.renderer, rendered)

    def losses(
        self, rows: Sequence[TokenRow], examples: Sequence[Example], progress: Progress
    ) -> tuple[ExampleResult, ...]:
        """The loss, token count and top-1 count of each example, in the order of `examples`."""
        found = self._figures(rows, progress)
        return tuple(
            ExampleResult(
                e.id, e.content, e.tags, *found[e.id][:3], expected=(e.expected or "").strip()
            )
            for e in examples
        )

    def samples(
        self, examples: Sequence[Example], scoring: Scoring, limit: int, progress: Progress
    ) -> dict[str, tuple[str, ...]]:
        """All outputs of each example by id, as `scoring` has them generated."""
        each = [self.generate(examples, limit, progress, how) for how in decodings(scoring)]
        return {e.id: tuple(outputs[e.id] for outputs in each) for e in examples}

    def generate(
        self,
        examples: Sequence[Example],
        max_new_tokens: int,
        progress: Progress,
        how: Decoding = GREEDY,
    ) -> dict[str, str]:
        """An output of each example by id, as `Renderer.reading` reads it."""
        prompts = [(e, self.renderer.prompt(e)) for e in examples]
        outputs: dict[str, str] = {}
        if is_plain(self.model, how):
            outputs = self._foreseen(prompts, max_new_tokens, progress)
            prompts = [pair for pair in prompts if pair[0].id not in outputs]
        return outputs | self.generate_all(prompts, max_new_tokens, progress, how)

    def generate_all(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        progress: Progress,
        how: Decoding = GREEDY,
    ) -> dict[str, str]:
        """An output of each example by id, every one generated."""
        renderer = self.renderer
        room = self._room()
        outputs: dict[str, str] = {}
        # A prompt that leaves less room than the limit is a batch of its own: in a common batch its
        # lower limit would cut the outputs of the others.
        tight = [[pair] for pair in prompts if len(pair[1]) + max_new_tokens > room]
        roomy = [pair for pair in prompts if len(pair[1]) + max_new_tokens <= room]
        size = self.generation_batch or self.batch_size
        batches = [*tight, *_batches(roomy, size, key=lambda pair: len(pair[1]))]
        with measuring(self.model), self.autocast():
            for batch in self.ranks.share(batches):
                longest = len(batch[0][1])
                limit = int(min(max_new_tokens, room - longest))
                if limit < 1:
                    raise DataError(
                        f"the prompt of example {batch[0][0].id!r} has {longest} tokens, and the "
                        f"model takes {room} in total, so it can't generate any",
                        where=batch[0][0].where,
                        cure="Shorten the prompt, or use the scorer 'loss' or 'choice'.",
                    )
                for (example, _), ids in zip(
                    batch, self._batch_outputs(batch, limit, how), strict=True
                ):
                    outputs[example.id] = renderer.reading(example).text(ids)
                progress.working("generating", len(outputs), len(prompts))
        return self.ranks.union(outputs)

    def _foreseen(
        self, prompts: Sequence[Prompt], max_new_tokens: int, progress: Progress
    ) -> dict[str, str]:
        """The outputs that a forward pass shows to be the expected answers. See `foreseen`."""
        answers = {
            e.id: answer
            for e, ids in prompts
            if (answer := answer_that_ends(e, ids, self.renderer, self._ends()))
            and len(answer) <= min(max_new_tokens, self._room() - len(ids))
        }
        rows = [
            TokenRow(e.id, [*ids, *answers[e.id]], [-100] * len(ids) + answers[e.id])
            for e, ids in prompts
            if e.id in answers
        ]
        least = {id_: figures[3] for id_, figures in self._figures(rows, progress).items()}
        return {
            e.id: self.renderer.reading(e).text(answers[e.id])
            for e, _ in prompts
            if least.get(e.id, -math.inf) >= CERTAIN
        }

    def _figures(
        self, rows: Sequence[TokenRow], progress: Progress
    ) -> dict[str, tuple[float, int, int, float]]:
        """Each row's summed loss, labels, labels that are top-1, and its least log-probability."""
        collate = DataCollatorForLanguageModeling(pad_token_id=self._pad_id())
        found: dict[str, tuple[float, int, int, float]] = {}
        with measuring(self.model), labelled_alone(self.model), self.autocast():
            batches = _batches(rows, self.batch_size, key=lambda row: len(row.input_ids))
            for batch in self.ranks.share(batches):
                found.update(self._batch_figures(batch, collate))
                progress.working("evaluating", len(found), len(rows))
        return self.ranks.union(found)

    def _batch_figures(
        self, rows: Sequence[TokenRow], collate: DataCollatorForLanguageModeling
    ) -> dict[str, tuple[float, int, int, float]]:
        batch = collate([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])
        batch = {name: tensor.to(self.model.device) for name, tensor in batch.items()}
        try:
            out = self.model(**batch, fused_lm_head=True)  # per-token fields: (B, T - 1)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        else:
            # In double precision, so that the padding of the batch does not change the sum.
            loss = -out.log_probs.double().sum(1)
            figures = zip(
                loss.tolist(),
                out.label_mask.sum(1).tolist(),
                out.is_top1.sum(1).tolist(),
                out.log_probs.masked_fill(~out.label_mask.bool(), 0.0).amin(1).tolist(),
                strict=True,
            )
            return {
                row.id: (loss, int(labels), int(top1), least)
                for row, (loss, labels, top1, least) in zip(rows, figures, strict=True)
            }
        # Out of memory. An example's figures do not depend on its batch, so halves give the same.
        torch.cuda.empty_cache()
        half = len(rows) // 2
        return self._batch_figures(rows[:half], collate) | self._batch_figures(rows[half:], collate)

    def _batch_outputs(
        self, batch: Sequence[tuple[Example, list[int]]], limit: int, how: Decoding
    ) -> list[list[int]]:
        longest = max(len(ids) for _, ids in batch)
        pad = self._pad_id()
        # Padded on the left, because every prompt must end where its output begins.
        ids = torch.tensor([[pad] * (longest - len(p)) + p for _, p in batch])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for _, p in batch])
        device = self.model.device
        try:
            out = self.model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=self._generation_config(limit, how),
                logits_processor=how.processors([example for example, _ in batch], str(device)),
                **({"tokenizer": self.tokenizer} if "stop_strings" in how.stated else {}),
            )
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        else:
            tokens: list[list[int]] = out[:, longest:].tolist()
            return tokens
        torch.cuda.empty_cache()
        half = len(batch) // 2
        return self._batch_outputs(batch[:half], limit, how) + self._batch_outputs(
            batch[half:], limit, how
        )

    def _generation_config(self, max_new_tokens: int, how: Decoding) -> GenerationConfig:
        """The config. The base model's own may ask for sampling, which is not reproducible."""
        plain = {"num_beams": 1, "eos_token_id": self._ends() or None}
        return GenerationConfig(
            **{**plain, **how.stated},
            do_sample=False,  # `how` draws, with random numbers of its own
            max_new_tokens=max_new_tokens,
            pad_token_id=self._pad_id(),
        )

    def _room(self) -> float:
        """The tokens that the model takes in total."""
        return getattr(self.model.config, "max_position_embeddings", None) or math.inf

    def _ends(self) -> list[int]:
        """The tokens that end an output. Chat models have one of their own that ends a turn."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return sorted({end for end in [*ends, self.tokenizer.eos_token_id] if end is not None})

    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)


def scored(
    evaluator: Evaluator,
    results: Sequence[ExampleResult],
    examples: Sequence[Example],
    scoring: Scoring,
    scorer: Scorer | None,
    choices: Choices | None,
    progress: Progress,
    keep: KeepOutputs = lambda _rows, _limit: None,
) -> tuple[ExampleResult, ...]:
    """The results with `passed`, `scores` and `output` set, by the scorer of `scoring`.

    `keep` is called with what was generated before any of it is scored: a scorer may fail. A scorer
    may be slow, cost money or draw lots, so of several ranks only the first calls it.
    """
    if scoring.scorer == "loss":
        return tuple(replace(r, passed=score_by_loss(scoring, r)) for r in results)
    if choices is not None:
        return score_choices(evaluator, results, examples, choices, progress)
    assert scorer is not None
    rendered, limit = evaluator.asked(examples, scoring)
    answers = answered(evaluator, results, rendered, scoring, limit, progress)
    keep(answers, limit)
    return evaluator.ranks.of_first(
        lambda: scored_by_output(answers, rendered, scorer, scoring.scorer)
    )


def answered(
    evaluator: Evaluator,
    results: Sequence[ExampleResult],
    rendered: Sequence[Example],
    scoring: Scoring,
    limit: int,
    progress: Progress,
) -> tuple[ExampleResult, ...]:
    """The results with what the model writes, and what it should write; not scored."""
    outputs = evaluator.samples(rendered, scoring, limit, progress)
    return tuple(
        with_outputs(replace(r, expected=(e.expected or "").strip()), outputs[e.id])
        for r, e in zip(results, rendered, strict=True)
    )


def missing_outputs(
    evaluator: Evaluator,
    examples: Sequence[Example],
    wanted: Sequence[Example],
    scoring: Scoring,
    known_limit: int,
    progress: Progress,
) -> tuple[tuple[ExampleResult, ...], int]:
    """The outputs of the `wanted` among the examples, and the limit of new tokens; not scored.

    The others were generated by `known_limit` (0: unknown). Where the examples need a higher one,
    the outputs of all are generated by that, because the known ones may be cut.
    """
    rendered, limit = evaluator.asked(examples, scoring)
    if limit <= known_limit:
        limit, ids = known_limit, {e.id for e in wanted}
        rendered = [e for e in rendered if e.id in ids]
    rows = [unmeasured(e) for e in rendered]
    return answered(evaluator, rows, rendered, scoring, limit, progress), limit


def unmeasured(example: Example) -> ExampleResult:
    """A result without figures, to be filled in."""
    return ExampleResult(example.id, example.content, example.tags, math.nan, 0, 0)


def rehearse(
    evaluator: Evaluator,
    examples: Sequence[Example],
    scorer: Scorer | None,
    progress: Progress,
    how: Decoding = GREEDY,
) -> None:
    """Generate from the longest prompt, and score a few rows, as after training.

    Those are the longest, the first and the last, each with a perfect answer and with an empty
    output. What can't be rendered, generated or scored is then known before the first step. Leaves
    random states unchanged.
    """
    if scorer is None:
        return
    longest = max(examples, key=lambda e: len(evaluator.renderer.prompt(e)))
    tried = {e.id: e for e in (longest, examples[0], examples[-1])}
    rendered = [replace(e, expected=evaluator.renderer.expected(e)) for e in tried.values()]
    prompt = evaluator.renderer.prompt(rendered[0])
    evaluator.generate_all([(rendered[0], prompt)], 2, progress, how)
    for example in rendered if evaluator.ranks.is_first else ():
        for output in ((example.expected or "").strip(), ""):
            scorer(example, output)


def default_new_tokens(renderer: Renderer, rendered: Sequence[Example]) -> int:
    """The limit of new tokens: 1.5 times the longest expected text, between 8 and 512.

    The margin shows an output that continues after the expected text, which must not pass `exact`.
    `rendered` are the examples with their rendered answers as expected texts.
    """
    texts = [renderer.reading(e).marked + (e.expected or "") for e in rendered]
    longest = max((len(renderer.tokenizer(text)["input_ids"]) for text in texts), default=0)
    return min(max(8, longest + longest // 2), 512)


@dataclass(frozen=True)
class Choices:
    """The candidates of the `choice` scorer, each one a row: an example with that answer.

    `of` maps an example's id to its candidates in order, as (row id, candidate text).
    """

    examples: tuple[Example, ...]
    rows: tuple[TokenRow, ...]
    of: dict[str, tuple[tuple[str, str], ...]]


def score_choices(
    evaluator: Evaluator,
    results: Sequence[ExampleResult],
    examples: Sequence[Example],
    choices: Choices,
    progress: Progress,
) -> tuple[ExampleResult, ...]:
    """The results with the choice of each example, and whether it is the expected one."""
    losses = {r.id: r.loss for r in evaluator.losses(choices.rows, choices.examples, progress)}
    rows = []
    for result, example in zip(results, examples, strict=True):
        candidates = choices.of[example.id]
        passed, chosen = score_by_choice(
            [-losses[row_id] for row_id, _ in candidates],
            [text for _, text in candidates],
            (example.expected or "").strip(),
        )
        rows.append(replace(result, passed=passed, output=chosen))
    return tuple(rows)


def _batches(rows: Sequence[Any], size: int, key: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Yield batches of similar length, the longest first.

    Similar lengths need little padding; with the longest first, memory runs out at once or never.
    """
    ordered = sorted(rows, key=key, reverse=True)
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]
