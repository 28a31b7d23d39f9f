"""Rules on the wiring: what trl made of the rows before the model saw them.

Common to all: they read the tokens and labels of the train sample as the model is trained on them
(`records.Wiring`), so they find a fault in a setting, a template or a tokenizer alike. All figures
are counts, so none can be NaN. Without a wiring (a log of an older version, curves of another
trainer), or without the rows that a rule is about, it is silent. No finding is tunable. An adapter
that matches no module and a missing chat template are no findings, but errors before training.
"""

from __future__ import annotations

import math

from pytest_ftloop.core.records import Finding, Wiring
from pytest_ftloop.diagnose.evidence import Evidence, Rule, found_by

MOST_TOKENS = 8
"""How many added tokens are shown: a template adds a few, another vocabulary hundreds."""


def before_training(wiring: Wiring) -> tuple[Finding, ...]:
    """The findings on a run's rows before its first step, errors first."""
    return found_by(RULES, wiring=wiring)


def truncated_labels(e: Evidence) -> Finding | None:
    """`max_length` cuts off what should be learned.

    Signal: 1% of the train rows lose their end to it, or 5% of the labelled tokens are cut, or trl
    dropped 1% of the examples because no label was left. An error if over half of the rows lose
    their end and the scorer reads generated text, or if over half of the examples are dropped; else
    a warning. Source: the figures themselves; trl's default max_length is 1024 tokens. Minimum
    data: one row.
    """
    w = e.wiring
    if w is None or not w.sampled:
        return None
    ends, labels = w.lost_ends / w.sampled, w.lost_labels / max(w.labels, 1)
    dropped = w.dropped / max(w.examples, 1)
    if ends < 0.01 and labels < 0.05 and dropped < 0.01:
        return None
    parts = [
        f"max_length {w.max_length} cuts {w.cut} of the {w.sampled} train rows examined: "
        f"{labels:.0%} of the labelled tokens, and the end of {w.lost_ends} rows, are lost"
    ]
    if w.dropped:
        parts.append(f"trl dropped {w.dropped} of {w.examples} train examples")
    # A lost end matters most if text is generated: the model then never learns to stop.
    return Finding(
        kind="truncated-labels",
        severity="error" if dropped > 0.5 or (ends > 0.5 and w.generates) else "warning",
        message=f"{'; '.join(parts)}.",
        evidence={
            "rows": w.sampled,
            "cut": w.cut,
            "lost_ends": w.lost_ends,
            "lost_labels": w.lost_labels,
            "dropped": w.dropped,
        },
        remedy="Raise training.max_length, or shorten the prompts.",
        tunable=False,
    )


def unlearnt_end(e: Evidence) -> Finding | None:
    """No example teaches the model to stop.

    Signal: the scorer reads generated text, and over half of the train rows have no labelled token
    that ends generation (end of text, end of turn), not counting ends lost to `max_length`. An
    error if no row has one and the model did not learn the task all the same (pass rate under 50%);
    else, and before training, a warning. A pad token that equals the end token is not a fault by
    itself, as trl masks padding by position. It is named as the cause if the collator masked the
    ends' labels. Source: the labels themselves. Minimum data: one row.
    """
    w = e.wiring
    if w is None or not w.sampled or not w.generates:
        return None
    # Rows whose end was cut off are reported by `truncated_labels`.
    missing = w.sampled - w.ended - w.lost_ends
    if missing <= 0.5 * w.sampled:
        return None
    worthless = w.ended == 0 and e.metrics.get("pass_rate", math.nan) < 0.5
    if w.masked_ends:
        why = ": the pad token is the end token, and the collator masks it"
        remedy = "Give the tokenizer a pad token of its own."
    else:
        why = ""
        remedy = (
            "Let the chat template put the end token after each answer (inside its generation "
            "block where training.assistant_only_loss is set), or set training.eos_token to the "
            "token that ends its turns."
        )
    return Finding(
        kind="unlearnt-end",
        severity="error" if worthless else "warning",
        message=(
            f"In {missing} of {w.sampled} train rows no token that ends an answer is trained on"
            f"{why}: the model never learns to stop."
        ),
        evidence={"rows": w.sampled, "without_end": missing, "masked_ends": w.masked_ends},
        remedy=remedy,
        tunable=False,
    )


def prompt_in_loss(e: Evidence) -> Finding | None:
    """The loss is mostly about prompts.

    Signal: over half of the labelled tokens belong to prompts. By default trl trains on all of
    `messages`, and with completion_only_loss false on the prompt too; then eval_loss and train_loss
    are mostly about prompts as well. It may be intended, so it is a warning. Source: half is where
    prompts outweigh answers. Minimum data: one row with a prompt.
    """
    w = e.wiring
    if w is None or w.prompt_labels <= 0.5 * w.labels:
        return None
    return Finding(
        kind="prompt-in-loss",
        severity="warning",
        message=(
            f"{w.prompt_labels / w.labels:.0%} of the labelled tokens belong to prompts: the model "
            "is trained to write the questions more than the answers, and the losses measure that."
        ),
        evidence={"labels": w.labels, "prompt_labels": w.prompt_labels},
        remedy=(
            "For messages set training.assistant_only_loss: true, or give the last answer as "
            "completion; for prompt and completion leave training.completion_only_loss out."
        ),
        tunable=False,
    )


def split_prompt(e: Evidence) -> Finding | None:
    """The prompt's last tokens differ between training and generation.

    Signal: over half of the train rows do not begin with the tokens of the prompt alone: its last
    ones merge with the completion (as a space at its end does), or the chat template renders it
    differently. Source: trl warns of it, once per run. Minimum data: one row with a prompt.
    """
    w = e.wiring
    if w is None or w.split_prompts <= 0.5 * w.sampled:
        return None
    return Finding(
        kind="split-prompt",
        severity="warning",
        message=(
            f"In {w.split_prompts} of {w.sampled} train rows the prompt ends in other tokens than "
            "without its completion: the model is asked something that it was not trained on."
        ),
        evidence={"rows": w.sampled, "split_prompts": w.split_prompts},
        remedy=(
            "Put white space at the beginning of completions, not at the end of prompts; or use a "
            "chat template that renders a prompt alike with and without its answer."
        ),
        tunable=False,
    )


def untrained_tokens(e: Evidence) -> Finding | None:
    """Added tokens keep the weights that they were drawn with.

    Signal: a train row has a token that was added to the tokenizer, and the layer with its new
    weights is not trained: the embeddings of what the model reads, the output layer of what it is
    to write. LoRA leaves both as they are. transformers draws new rows around the mean of the old
    ones, so the model hardly tells one new token from another. The adapters of other layers can
    make up for some of it, so it is a warning. Minimum data: one row.
    """
    w = e.wiring
    if w is None or not w.untrained_tokens:
        return None
    shown = ", ".join(w.untrained_tokens[:MOST_TOKENS])
    more = len(w.untrained_tokens) - MOST_TOKENS
    layers = " and ".join(w.untrained_layers)
    return Finding(
        kind="untrained-tokens",
        severity="warning",
        message=(
            f"Added tokens in the train rows keep the weights that they were drawn with, as "
            f"{layers} {'is' if len(w.untrained_layers) == 1 else 'are'} not trained: {shown}"
            f"{f' and {more} more' if more > 0 else ''}."
        ),
        evidence={
            "untrained_tokens": len(w.untrained_tokens),
            "shown": shown,
            "layers": layers,
        },
        remedy=f"Add {layers} to lora.modules_to_save.",
        tunable=False,
    )


RULES: tuple[Rule, ...] = (
    truncated_labels,
    unlearnt_end,
    prompt_in_loss,
    split_prompt,
    untrained_tokens,
)
