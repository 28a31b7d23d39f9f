"""Rules over the wiring: what trl made of the rows before the model saw them.

Common to all. They rest on the tokens and labels of the train sample as they are trained on
(`records.Wiring`), so a fault is found whichever setting, template or tokenizer is to blame. All
are counts: none can be NaN. Without a wiring (a log of an older version, curves of another trainer)
or without the rows a rule is about, it stays silent. No finding is tunable. That the adapter
matches no module, or that a chat template is missing, is an error before training.
"""

from __future__ import annotations

import math

from pytest_ftloop.core.records import Finding, Wiring
from pytest_ftloop.diagnose.evidence import Evidence, Rule, found_by


def before_training(wiring: Wiring) -> tuple[Finding, ...]:
    """What a run's rows show before its first step, errors first."""
    return found_by(RULES, wiring=wiring)


def truncated_labels(e: Evidence) -> Finding | None:
    """`max_length` cuts off what should be learned.

    Signal: 1% of the train rows lose their end to it, or 5% of the labelled tokens are cut, or trl
    dropped 1% of the examples, as no label was left. Error where over half the rows lose their end
    and the scorer reads generated text, or where over half the examples are dropped; else a
    warning. Source: the figures themselves; trl's default max_length is 1024 tokens. Minimum data:
    one row.
    """
    w = e.wiring
    if w is None or not w.sampled:
        return None
    ends, labels = w.lost_ends / w.sampled, w.lost_labels / max(w.labels, 1)
    dropped = w.dropped / max(w.examples, 1)
    if ends < 0.01 and labels < 0.05 and dropped < 0.01:
        return None
    parts = [
        f"max_length {w.max_length} cuts {w.cut} of {w.sampled} train rows looked at: "
        f"{labels:.0%} of the labelled tokens, and the end of {w.lost_ends} rows, are lost"
    ]
    if w.dropped:
        parts.append(f"trl dropped {w.dropped} of {w.examples} train examples")
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

    Signal: over half the train rows have no labelled token that ends generation (end of text, end
    of turn), other than by `max_length`, and the scorer reads generated text. Error where no row
    has one and the model did not learn the task all the same (pass rate under 50%), else, and
    before training, a warning. That the pad token is the end token is no fault in itself: trl masks
    pads by their place. It is named where the collator does take the ends' labels. Source: the
    labels themselves. Minimum data: one row.
    """
    w = e.wiring
    if w is None or not w.sampled or not w.generates:
        return None
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
            f"In {missing} of {w.sampled} train rows no token that ends an answer is learned"
            f"{why}: the model never learns to stop."
        ),
        evidence={"rows": w.sampled, "without_end": missing, "masked_ends": w.masked_ends},
        remedy=remedy,
        tunable=False,
    )


def prompt_in_loss(e: Evidence) -> Finding | None:
    """The loss is mostly about prompts.

    Signal: over half of the labelled tokens belong to prompts, as trl trains on all of `messages`
    unless told otherwise, and on all of prompt and completion with completion_only_loss false. Then
    eval_loss and train_loss are mostly about prompts too. It may be meant: a warning. Source:
    the majority. Minimum data: one row with a prompt.
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
            "Set training.assistant_only_loss: true for messages, leave completion_only_loss out "
            "for prompt and completion; or give the last answer as completion."
        ),
        tunable=False,
    )


def split_prompt(e: Evidence) -> Finding | None:
    """In training the prompt ends in other tokens than when the model is asked.

    Signal: in over half of the train rows the prompt's own tokens do not begin the row: its last
    ones merge with the completion (a space at its end does that), or the chat template renders it
    otherwise. Source: trl warns of it once a run. Minimum data: one row with a prompt.
    """
    w = e.wiring
    if w is None or w.split_prompts <= 0.5 * w.sampled:
        return None
    return Finding(
        kind="split-prompt",
        severity="warning",
        message=(
            f"In {w.split_prompts} of {w.sampled} train rows the prompt ends in other tokens than "
            "without its completion: the model is asked something else than was trained."
        ),
        evidence={"rows": w.sampled, "split_prompts": w.split_prompts},
        remedy=(
            "End prompts without white space and begin completions with it, or use a chat template "
            "that renders a prompt alone as it does with its answer."
        ),
        tunable=False,
    )


RULES: tuple[Rule, ...] = (truncated_labels, unlearnt_end, prompt_in_loss, split_prompt)
