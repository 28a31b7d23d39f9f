"""Rules on losses that a healthy run can't have: worse than a guess, or as good as certain."""

from __future__ import annotations

import math
from statistics import fmean

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.broken import GUESSING_LOSS
from pytest_ftloop.diagnose.evidence import Evidence, Figures
from pytest_ftloop.diagnose.windows import (
    finite_losses,
    relative_noise,
    tail_mean,
    window_means,
)

LARGEST_UNIFORM = 12.5
"""Loss in nats of a guess among the largest vocabulary in use, ln(262,144), if it is unknown."""

WORSE_THAN_GUESSING = 1.1
"""Times ln(vocabulary) from which on a loss is worse than a guess. The weights of an untrained
model are small, so its loss is about ln(vocabulary)."""

NEARLY_UNIFORM = 0.95
"""Times ln(vocabulary) from which on a model is taken for one without any training."""

UNIGRAM_LOSS = 7.0
"""Loss in nats that a model trained from scratch gets under at once: English has some 7.5 if only
the frequency of each token is known."""

STUCK_LOSS = 5.0
"""Loss in nats, a perplexity of 148, at which no pretrained model stays on text it can read."""

STILL_SHARE = 0.03
"""Largest fall from the third quarter of the log to the last at which a loss is stuck."""

LARGEST_LOSS = 100.0
"""Largest mean loss in nats of a token that is believed: a larger one is a sum, or an error."""

PADDING_LEARNED = 1.0
"""Loss in nats under which a run ends that began worse than a guess because it has to learn
padding: encoder-decoders, some of which begin there too, stay above it."""

NEAR_ZERO = 0.002
"""Mean loss in nats, 99.8% per token, under which a text is as good as certain."""

HOT = 5e-3
"""Learning rate that destroys a pretrained model within the first logged steps."""

SHORT_ANSWER = 4.0
"""Mean labelled tokens per example up to which an answer may be a code that no base expects."""


def impossible_loss(e: Evidence) -> Finding | None:
    """The loss is one that a pretrained causal model does not have. Not tunable.

    Signal, any of:

    - the untrained base's eval loss, or what is logged first, is over 1.1 times ln(vocabulary):
      worse than a guess. Without a known vocabulary it is over ln(262,144) = 12.5 nats; and if it
      is not known either that the model is causal, the run ends under 1 nat;
    - it is over 8 nats, and the model was pretrained: it has an adapter, or trl fine-tuned it;
    - over the second half of the log the loss stays over 5 nats and falls by under 3%.

    Guards: an encoder-decoder (mT5 starts at 25), and any loss with metrics of another kind, is not
    judged. A model trained from scratch starts at ln(vocabulary), so a full training that starts
    there is judged by the first signal only. A short answer (4 tokens) may be a code that no base
    expects: then the base's loss is no signal as long as it is learned. Source: ln(vocabulary) is
    the loss of a uniform guess; for 5 and 8 nats, practice. Minimum data: one loss; for the end
    four, or three evaluation points. NaN: left out.
    """
    if e.causal is False:
        return None
    return _starts_too_high(e) or _is_stuck(e)


def zero_loss(e: Evidence) -> Finding | None:
    """Both losses are as good as zero: there was nothing to learn, or it was known.

    Signal: the lowest eval loss and the train loss at the end are under 0.002 nats. Silent where
    the rows are known, as `leak` and `label-imbalance` look at them, and where a metric of the log
    shows that the loss is an error of numbers. Source: practice. Minimum data: one evaluation point
    and three losses. NaN: silent.
    """
    losses, evals = finite_losses(e), [point for point in e.evals if point.step > 0]
    if e.eval or not evals or len(losses) < 3 or _is_of_numbers(e):
        return None
    lowest, train = min(point.eval_loss for point in evals), tail_mean(losses)
    if not (0 <= lowest < NEAR_ZERO and 0 <= train < NEAR_ZERO):
        return None
    first = next(point for point in evals if point.eval_loss < NEAR_ZERO)
    since = f" The eval loss was there at step {first.step}"
    since += f" (epoch {first.epoch:.3g})" if first.epoch else ""
    rows = f" on {e.eval_examples} rows" if e.eval_examples else ""
    rest = " already: the rest brought nothing" if first is not evals[-1] else ""
    return Finding(
        kind="zero-loss",
        severity="info",
        message=(
            f"Both losses are as good as 0: eval {lowest:.2g}{rows}, train {train:.2g}.{since}"
            f"{rest}."
        ),
        evidence={
            "eval_lowest": lowest,
            "train_last": train,
            "first_step": first.step,
            "first_epoch": first.epoch,
            **({"eval_examples": e.eval_examples} if e.eval_examples else {}),
        },
        remedy=(
            "Check that not all answers are the same, and that no eval row is in the train set; "
            "check that the labels are the answers. If all is right, the task is learned: train "
            "for fewer epochs, and evaluate on harder rows."
        ),
    )


def _starts_too_high(e: Evidence) -> Finding | None:
    start, step = _start(e)
    if not start <= LARGEST_LOSS or _is_a_short_code(e):
        return None
    uniform = math.log(e.vocabulary) if e.vocabulary > 1 else math.nan
    known = math.isfinite(uniform)
    worse = start > (WORSE_THAN_GUESSING * uniform if known else LARGEST_UNIFORM)
    if worse and (e.causal or known or _lowest(e) < PADDING_LEARNED):
        limit = (
            f"ln({e.vocabulary:,}) = {uniform:.1f}, the loss of a guess"
            if known
            else f"{LARGEST_UNIFORM}, the loss of a guess among 262,144 tokens"
        )
    elif start > GUESSING_LOSS and e.pretrained and not _is_untrained(e, start, step):
        limit = f"the {GUESSING_LOSS:g} nats that a pretrained model stays under on any text"
    else:
        return None
    unless = "" if e.causal else " (unless the model is an encoder-decoder, which may start there)"
    what = "The untrained base's eval loss" if step == 0 else f"The loss at step {step}"
    return _impossible(
        e,
        f"{what} is {start:.1f} nats, above {limit}{unless}.",
        {"loss_first": start, "first_step": step, "vocabulary": e.vocabulary},
    )


def _is_stuck(e: Evidence) -> Finding | None:
    start, step = _start(e)
    if not start <= LARGEST_LOSS or (math.isfinite(e.base_eval_loss) and start <= GUESSING_LOSS):
        return None
    losses = finite_losses(e)
    if len(losses) < 4:
        losses = [point.eval_loss for point in e.evals if math.isfinite(point.eval_loss)]
    if len(losses) < 3:
        return None
    half = losses[len(losses) // 2 :]
    before, last = fmean(half[: len(half) // 2] or half), fmean(half[len(half) // 2 :])
    is_high = min(half) > STUCK_LOSS and last > before * (1 - STILL_SHARE)
    if not is_high or _is_from_scratch(e, start, losses):
        return None
    return _impossible(
        e,
        f"The loss stays at {last:.2f} nats, a perplexity of {math.exp(last):,.0f}: the model does "
        f"not know what it is to write. It began at {start:.1f}{_above_any(start)}.",
        {"loss_first": start, "first_step": step, "loss_last": last},
    )


def _above_any(start: float) -> str:
    is_above = start > LARGEST_UNIFORM
    return (
        f", above {LARGEST_UNIFORM}, the loss of a guess among 262,144 tokens" if is_above else ""
    )


def _impossible(e: Evidence, message: str, evidence: Figures) -> Finding:
    rate = max((s.learning_rate for s in e.steps if math.isfinite(s.learning_rate)), default=0.0)
    hot = (
        f"First lower the learning rate: {rate:g} destroys a pretrained model at once (usual are "
        "1e-5 to 5e-4). "
        if rate >= HOT
        else ""
    )
    return Finding(
        kind="impossible-loss",
        severity="warning",
        message=message,
        evidence=evidence | {"learning_rate": rate},
        remedy=(
            f"{hot}Decode the labels of one row: padding must be -100, and the tokenizer, its "
            "special tokens and the vocabulary must be the model's own."
        ),
        tunable=False,
    )


def _start(e: Evidence) -> tuple[float, int]:
    """The first loss that is known, and its step; the lower of an eval and a train loss.

    A single batch is noisy: of such the mean of three, less two standard errors.
    """
    if math.isfinite(e.untrained_loss):
        return e.untrained_loss, 0
    train = next(((s.loss, s.step) for s in e.steps if math.isfinite(s.loss)), (math.inf, 0))
    losses = finite_losses(e)
    if train[1] == 1 and len(losses) >= 3:
        error = 2 * relative_noise(losses) / math.sqrt(3)
        train = (math.exp(math.log(max(window_means(losses[:3], 3)[0], 1e-6)) - error), 1)
    of_eval = next(
        ((p.eval_loss, p.step) for p in e.evals[:1] if math.isfinite(p.eval_loss)), (math.inf, 0)
    )
    return min(train, of_eval) if of_eval[1] <= 2 * train[1] else train


def _lowest(e: Evidence) -> float:
    losses = finite_losses(e) + [p.eval_loss for p in e.evals if math.isfinite(p.eval_loss)]
    return min(losses, default=math.inf)


def _is_a_short_code(e: Evidence) -> bool:
    """Whether answers are short, and were learned."""
    tokens = sum(row.tokens for row in e.results)
    return bool(tokens) and tokens / len(e.results) <= SHORT_ANSWER and _lowest(e) < STUCK_LOSS


def _is_untrained(e: Evidence, start: float, step: int) -> bool:
    """Whether a start above 8 nats may be that of a model without any training."""
    if e.trainable_parameters and e.labelled_tokens is None:
        return False  # an adapter of another trainer's run: nobody trains one from scratch
    if e.vocabulary > 1:
        return step > 1 or start > NEARLY_UNIFORM * math.log(e.vocabulary)
    return step > 1 or start > 10.0


def _is_from_scratch(e: Evidence, start: float, losses: list[float]) -> bool:
    """Whether the whole model may be trained from scratch: it starts at a guess, and falls."""
    if math.isfinite(e.base_eval_loss):
        return start > NEARLY_UNIFORM * math.log(max(e.vocabulary, 2))
    falls = losses[-1] < min(0.9 * start, UNIGRAM_LOSS)
    return not e.pretrained and GUESSING_LOSS <= start <= LARGEST_UNIFORM and falls


def _is_of_numbers(e: Evidence) -> bool:
    """Whether a metric shows that the loss is one of regression."""
    words = {"mse", "rmse", "mae", "r2", "pearson", "pearsonr", "spearman", "spearmanr"}
    return any(words & set(score.name.lower().split("_")) for score in e.scores)
