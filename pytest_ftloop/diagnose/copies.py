"""Rules over examples that recur: in both sets, in one, or with another completion."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from pytest_ftloop.core.records import Example, Finding
from pytest_ftloop.diagnose.affixes import FIXED, fixed_prefix, fixed_suffix
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.labels import labels_of
from pytest_ftloop.diagnose.naming import pairs_of, said_of, some
from pytest_ftloop.diagnose.similar import Text, can_compare, folded, neighbours

MOST_COMPARED = 3_000_000
"""Pairs of an eval and a train example that are compared for near duplicates: some seconds. With
more, a seeded sample of the eval examples is looked at, of 20,000 train examples 150."""


def leak(e: Evidence) -> Finding | None:
    """Eval examples are train examples.

    Signal: prompt and completion are the same but for outer white space. Error from 10% of the eval
    examples on: the pass rate may be too high by so much, twice the drop that a regression gate
    rules out by default; under 1% an info; else, and with fewer than 10 eval examples, a warning.
    Source: the figure itself, a bound on the pass rate's error. Minimum data: one example each.
    """
    train = {said_of(x): x.id for x in reversed(e.train)}
    leaked = [(x.id, train[said_of(x)]) for x in e.eval if said_of(x) in train]
    if not leaked:
        return None
    share = len(leaked) / len(e.eval)
    severe = share >= 0.1 and len(e.eval) >= 10
    return Finding(
        kind="leak",
        severity="error" if severe else "warning" if share >= 0.01 else "info",
        message=(
            f"{len(leaked)} of {len(e.eval)} eval examples are in the train set: "
            f"{pairs_of(leaked)}."
        ),
        evidence={"eval_examples": len(leaked), "eval_share": share},
        remedy="Take them out of the train set, or split the data anew after removing duplicates.",
        tunable=False,
    )


def contradictions(e: Evidence) -> Finding | None:
    """The same prompt has different completions.

    Signal: prompts equal but for case and white space with completions that differ by more; only
    completions up to 60 characters count, as a longer text may be told in many ways. In the train
    set the rows beyond each prompt's commonest completion can't be right as well; an eval example
    contradicts when the train set has its prompt, never with its completion. From 1% and 2 rows on;
    error in a set of labels from 20% on. Source: the figure itself, a bound on what can be learned.
    Minimum data: 2 rows of either kind.
    """
    said: defaultdict[str, Counter[str]] = defaultdict(Counter)
    ids: dict[tuple[str, str], str] = {}
    for x in e.train:
        prompt, answer = folded(x.prompt_text), folded(x.expected or "")
        if prompt and 0 < len(answer) <= 60:
            said[prompt][answer] += 1
            ids.setdefault((prompt, answer), x.id)
    split = {prompt: answers for prompt, answers in said.items() if len(answers) > 1}
    wrong = sum(answers.total() - max(answers.values()) for answers in split.values())
    against = [
        (x.id, ids[prompt, next(iter(said[prompt]))])
        for x in e.eval
        if (prompt := folded(x.prompt_text)) in said
        and 0 < len(answer := folded(x.expected or "")) <= 60
        and answer not in said[prompt]
    ]
    of_train, of_eval = wrong / max(len(e.train), 1), len(against) / max(len(e.eval), 1)
    if not (wrong >= 2 and of_train >= 0.01) and not (len(against) >= 2 and of_eval >= 0.01):
        return None
    pairs = [tuple(ids[prompt, answer] for answer in list(split[prompt])[:2]) for prompt in split]
    parts = [
        f"{wrong} of {len(e.train)} train examples have the prompt of another and a different "
        f"completion ({pairs_of(pairs)})"
        if wrong
        else "",
        f"{len(against)} of {len(e.eval)} eval examples have a train example's prompt and a "
        f"different completion ({pairs_of(against)})"
        if against
        else "",
    ]
    return Finding(
        kind="contradictions",
        severity="error" if labels_of(e.train) and max(of_train, of_eval) >= 0.2 else "warning",
        message=f"{'; '.join(filter(None, parts))}.",
        evidence={
            "train_examples": wrong,
            "train_share": of_train,
            "eval_examples": len(against),
            "eval_share": of_eval,
        },
        remedy="Decide which completion is right; only one of them can be learned.",
        tunable=False,
    )


def near_duplicates(e: Evidence) -> Finding | None:
    """Eval examples are train examples but for a few characters.

    Signal: 10% of the eval examples, 3 at least, have a train example whose prompt shares 95% of
    the characters (case, white space and what the template adds aside) and whose completion shares
    90%; exact ones are `leak`'s. Prompts under 20 characters count only if equal so far. Of longer
    ones than 128 characters both ends are compared, of large sets a seeded sample. Source: of 500
    subsets of banking77, whose questions are often alike, none has 10%. Minimum data: 10 examples
    each. Without the library rapidfuzz (of the extra `train`) an info says that none were sought.
    """
    if min(len(e.train), len(e.eval)) < 10:
        return None
    if not can_compare():
        return Finding(
            kind="near-duplicates",
            severity="info",
            message="Near duplicates were not sought: the library RapidFuzz is not installed.",
            evidence={"compared": 0},
            remedy='Install it: pip install "pytest-ftloop[train]".',
            tunable=False,
        )
    exact = {said_of(x) for x in e.train}
    asked = [x for x in e.eval if said_of(x) not in exact]
    most = max(100, MOST_COMPARED // len(e.train))
    if len(asked) > most:
        asked = random.Random(0).sample(asked, most)
    known = _varying(e.train, e.train)
    pairs = neighbours(_varying(asked, e.train), known)
    share = len(pairs) / max(len(asked), 1)
    if len(pairs) < 3 or share < 0.1:
        return None
    return Finding(
        kind="near-duplicates",
        severity="warning",
        message=(
            f"{len(pairs)} of {len(asked)} eval examples compared are train examples but for a few "
            f"characters: {pairs_of(pairs)}."
        ),
        evidence={"eval_examples": len(pairs), "eval_share": share, "compared": len(asked)},
        remedy="Keep copies of one example in one set: split by groups, or remove near duplicates.",
        tunable=False,
    )


def duplicates(e: Evidence) -> Finding | None:
    """Train examples that stand in the set more than once.

    Signal: 10% of the rows repeat an earlier one, prompt and completion the same but for outer
    white space: such a set is smaller than it looks, and its epochs are more. Source: practice
    (copies by a faulty join or by resampling). Minimum data: 10 rows.
    """
    counts = Counter(map(said_of, e.train))
    repeats = len(e.train) - len(counts)
    if len(e.train) < 10 or repeats < 0.1 * len(e.train):
        return None
    commonest, times = counts.most_common(1)[0]
    ids = [x.id for x in e.train if said_of(x) == commonest]
    return Finding(
        kind="duplicates",
        severity="warning",
        message=(
            f"{repeats} of {len(e.train)} train examples repeat an earlier one; the commonest "
            f"occurs {times} times ({some(ids)})."
        ),
        evidence={
            "repeats": repeats,
            "share": repeats / len(e.train),
            "distinct": len(counts),
            "most": times,
        },
        remedy="Remove the copies; train more epochs where more weight on all examples is meant.",
        tunable=False,
    )


def _varying(examples: Sequence[Example], like: Sequence[Example]) -> list[Text]:
    """The examples without what the template of others adds to each prompt."""
    prompts = [x.prompt_text for x in like]
    start, end = len(fixed_prefix(prompts, FIXED)), len(fixed_suffix(prompts, FIXED))
    return [
        Text(x.id, prompt[start : max(len(prompt) - end, start)], x.expected or "")
        for x in examples
        if (prompt := x.prompt_text)
    ]
