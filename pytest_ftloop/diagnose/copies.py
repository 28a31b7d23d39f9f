"""Rules on examples that occur more than once: in both sets, in one, or with other completions."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from pytest_ftloop.core.records import Example, Finding
from pytest_ftloop.diagnose.affixes import TEMPLATE_SHARE, fixed_prefix, fixed_suffix
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.labels import labels_of
from pytest_ftloop.diagnose.naming import pairs_of, some, texts_of
from pytest_ftloop.diagnose.similar import Text, can_compare, folded, neighbours

MOST_COMPARED = 3_000_000
"""Maximum number of pairs of an eval and a train example that are compared for near duplicates,
which takes some seconds. With more pairs a seeded sample of the eval examples is compared: 150 of
them with 20,000 train examples."""


def leak(e: Evidence) -> Finding | None:
    """Eval examples are in the train set.

    Signal: prompt and completion are the same except for outer white space. An error from 10% of
    the eval examples on, as the pass rate may be too high by that much, twice the drop that a
    regression gate rules out by default; an info under 1%; else, and with fewer than 10 eval
    examples, a warning. Source: the figure itself, a bound on the pass rate's error. Minimum data:
    one example each.
    """
    train = {texts_of(x): x.id for x in reversed(e.train)}
    leaked = [(x.id, train[texts_of(x)]) for x in e.eval if texts_of(x) in train]
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
        remedy="Remove them from the train set, or remove duplicates and split the data again.",
        tunable=False,
    )


def guard_leaks(
    guards: Mapping[str, Sequence[Example]],
    train: Sequence[Example],
    eval_: Sequence[Example],
) -> tuple[Finding, ...]:
    """Rows of a guard are in the train or the eval set, a warning for each guard.

    Signal: prompt and completion are the same except for outer white space, in 1% of the guard's
    rows: these can't show what training makes worse. Source: the figure itself.
    """
    found = []
    for name, rows in guards.items():
        for of, examples in (("train", train), ("eval", eval_)):
            known = {texts_of(x): x.id for x in reversed(examples)}
            seen = [(x.id, known[texts_of(x)]) for x in rows if texts_of(x) in known]
            if len(seen) < max(1, 0.01 * len(rows)):
                continue
            found.append(
                Finding(
                    kind="leak",
                    severity="warning",
                    message=f"{len(seen)} of {len(rows)} rows of the guard {name} are in the {of} "
                    f"set: {pairs_of(seen)}.",
                    evidence={"guard_rows": len(seen), "guard_share": len(seen) / len(rows)},
                    remedy="Guard with other rows: what is trained for can't show what is lost.",
                    tunable=False,
                )
            )
    return tuple(found)


def contradictions(e: Evidence) -> Finding | None:
    """The same prompt has different completions.

    Signal: the prompts differ only in case and white space, the completions in more. Only
    completions of up to 60 characters count, because a longer text can be put in many ways. In the
    train set, the rows without their prompt's most frequent completion are contradictions, as only
    one can be learned. An eval example is one if the train set has its prompt, but never with its
    completion. Threshold: 1% and 2 rows of either set; an error from 20% on in a set of labels.
    Source: the figure itself, a bound on what can be learned. Minimum data: 2 rows of either set.
    """
    completions: defaultdict[str, Counter[str]] = defaultdict(Counter)
    ids: dict[tuple[str, str], str] = {}
    for x in e.train:
        prompt, answer = folded(x.prompt_text), folded(x.expected or "")
        if prompt and 0 < len(answer) <= 60:
            completions[prompt][answer] += 1
            ids.setdefault((prompt, answer), x.id)
    split = {prompt: answers for prompt, answers in completions.items() if len(answers) > 1}
    # At least so many rows can't be learned, whichever completion the model settles on.
    wrong = sum(answers.total() - max(answers.values()) for answers in split.values())
    against = [
        (x.id, ids[prompt, next(iter(completions[prompt]))])
        for x in e.eval
        if (prompt := folded(x.prompt_text)) in completions
        and 0 < len(answer := folded(x.expected or "")) <= 60
        and answer not in completions[prompt]
    ]
    of_train, of_eval = wrong / max(len(e.train), 1), len(against) / max(len(e.eval), 1)
    if not (wrong >= 2 and of_train >= 0.01) and not (len(against) >= 2 and of_eval >= 0.01):
        return None
    pairs = [tuple(ids[prompt, answer] for answer in list(split[prompt])[:2]) for prompt in split]
    parts = [
        f"{wrong} of {len(e.train)} train examples have the same prompt as another one and a "
        f"different completion ({pairs_of(pairs)})"
        if wrong
        else "",
        f"{len(against)} of {len(e.eval)} eval examples have the same prompt as a train example "
        f"and a different completion ({pairs_of(against)})"
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
        remedy="Decide which completion is right: only one per prompt can be learned.",
        tunable=False,
    )


def near_duplicates(e: Evidence) -> Finding | None:
    """Eval examples differ from train examples in only a few characters.

    Signal: for 10% of the eval examples, at least 3, there is a train example whose prompt shares
    95% of the characters (not counting case, white space and what the template adds) and whose
    completion shares 90%. Exact copies are left to `leak`. Prompts under 20 characters must be the
    same in that sense. Of prompts over 128 characters the two ends are compared, of large sets a
    seeded sample. Source: of 500 subsets of banking77, whose questions are often similar, none
    reaches 10%. Minimum data: 10 examples each. Without the library rapidfuzz (in the extra
    `train`) an info reports that the search was not possible.
    """
    if min(len(e.train), len(e.eval)) < 10:
        return None
    if not can_compare():
        return Finding(
            kind="near-duplicates",
            severity="info",
            message="Near duplicates were not searched for: RapidFuzz is not installed.",
            evidence={"compared": 0},
            remedy='Install it: pip install "pytest-ftloop[train]".',
            tunable=False,
        )
    exact = {texts_of(x) for x in e.train}
    asked = [x for x in e.eval if texts_of(x) not in exact]
    # A sample is enough for a share of 10%. It is seeded, so that the finding is the same again.
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
            f"{len(pairs)} of {len(asked)} eval examples compared differ from a train example in "
            f"only a few characters: {pairs_of(pairs)}."
        ),
        evidence={"eval_examples": len(pairs), "eval_share": share, "compared": len(asked)},
        remedy="Keep similar examples in one set: split by groups, or remove near duplicates.",
        tunable=False,
    )


def duplicates(e: Evidence) -> Finding | None:
    """The train set has many copies of the same examples.

    Signal: 10% of the rows repeat an earlier one, with the same prompt and completion except for
    outer white space. Such a set is smaller than it looks, and trains more epochs than stated.
    Source: practice (copies from a faulty join or from resampling). Minimum data: 10 rows.
    """
    counts = Counter(map(texts_of, e.train))
    repeats = len(e.train) - len(counts)
    if len(e.train) < 10 or repeats < 0.1 * len(e.train):
        return None
    commonest, times = counts.most_common(1)[0]
    ids = [x.id for x in e.train if texts_of(x) == commonest]
    return Finding(
        kind="duplicates",
        severity="warning",
        message=(
            f"{repeats} of {len(e.train)} train examples repeat an earlier one; the most frequent "
            f"one occurs {times} times ({some(ids)})."
        ),
        evidence={
            "repeats": repeats,
            "share": repeats / len(e.train),
            "distinct": len(counts),
            "most": times,
        },
        remedy="Remove the copies. To train longer on all examples, raise the number of epochs.",
        tunable=False,
    )


def _varying(examples: Sequence[Example], like: Sequence[Example]) -> list[Text]:
    """The examples without the part of the prompt that is from the template of `like`.

    It is the same in all prompts, and would make short ones look similar.
    """
    prompts = [x.prompt_text for x in like]
    start = len(fixed_prefix(prompts, TEMPLATE_SHARE))
    end = len(fixed_suffix(prompts, TEMPLATE_SHARE))
    return [
        Text(x.id, prompt[start : max(len(prompt) - end, start)], x.expected or "")
        for x in examples
        if (prompt := x.prompt_text)
    ]
