"""Rules on sets of labels: data whose completions name a class, as in classification.

A set of labels has at least 30 examples with completions of up to 60 characters, each of which
occurs 5 times on average.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from pytest_ftloop.config.gates import Gate
from pytest_ftloop.core.records import Example, Finding
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.naming import answer_of, plural, quoted

LONGEST_LABEL = 60
"""Maximum number of characters of a label: names of classes are short, and longer completions are
usually sentences."""

MOST_SINGLE = 0.1
"""Largest share of train examples whose completion occurs only once, in a set of labels. If there
are more, the answers are open, and unseen ones are normal."""

COPIED = 0.9
"""Share of the train examples with the completion in the prompt from which on the task counts as
copying from the prompt. Then an answer can be found there without being seen in training."""

# Digits with signs, currency and separators; then an exponent, or a unit of up to three letters.
_NUMBER = re.compile(
    r"(?:[A-Z]{3} |[A-Z]{1,2}\$)?[\W_]*\d(?:[\W_]*\d)*(?:[eE][-+]?\d+)?"
    r"(?:[\W_]*[^\W\d_]{1,3})?[\W_]*"
)


def unseen_labels(e: Evidence) -> Finding | None:
    """Eval examples expect labels that the train set lacks.

    Signal: the train set is a set of labels, and the eval set has some that never occur in it, so
    no training teaches them. These do not count:

    - what looks like a number (an amount, a share, a time), as it can be computed;
    - what occurs in its own prompt, if 90% of the train completions do;
    - as many examples as chance explains. If some train completions occur only once, about that
      share of the eval examples is expected to be unseen (Good and Turing), and up to two standard
      errors more. If over 10% occur only once, answers are open, and the rule is silent.

    An error only for labels that several eval examples expect: from 20% of the eval set on; or if
    they put a gate on the pass rate out of reach, and no train completion occurs only once. Else a
    warning. Source: the figure itself, a bound on the pass rate. Of 6,000 simulated pairs of sets
    drawn alike, with open answers or a long tail of rare labels, 2.8% have a finding, and one an
    error (its train set did lack a label that 12% of eval expect). Minimum data: a train set of
    labels, and 2 such eval examples.
    """
    counts = labels_of(e.train)
    labels = Counter({label: n for label, n in counts.items() if not is_number(label)})
    single = sum(n == 1 for n in labels.values())
    if not labels or single > MOST_SINGLE * len(e.train):
        return None
    can_copy = fmean(answer_of(x) in x.prompt_text for x in e.train) >= COPIED
    unseen = Counter(
        answer
        for x in e.eval
        if (answer := answer_of(x)) not in labels
        and answer
        and not is_number(answer)
        and not (can_copy and answer in x.prompt_text)
    )
    count = unseen.total()
    if count < 2 or count <= _most_expected(single, len(e.train), len(e.eval)):
        return None
    share = sum(n for n in unseen.values() if n > 1) / len(e.eval)
    # Unseen labels fail for certain, so the pass rate can't exceed 1 - share.
    unreachable = single == 0 and any(
        isinstance(gate, Gate) and gate.name == "pass_rate" and gate.bound > 1 - share
        for gate in e.gates
    )
    shown = [label for label, _ in unseen.most_common(3)]
    return Finding(
        kind="unseen-labels",
        severity="error" if share >= 0.2 or unreachable else "warning",
        message=(
            f"{count} of {len(e.eval)} eval examples expect {plural(len(unseen), 'label')} that "
            f"no train example has: {', '.join(map(quoted, shown))}{_in_other_case(shown, labels)}."
        ),
        evidence={
            "eval_examples": count,
            "eval_share": count / len(e.eval),
            "labels": len(unseen),
            "train_labels": len(labels),
        },
        remedy="Add train examples with these labels, write labels alike in both sets, or remove "
        "these eval examples.",
        tunable=False,
    )


def label_imbalance(e: Evidence) -> Finding | None:
    """One label dominates the train set, or one that eval expects is rare in it.

    Signal, in a set of labels: one label has 80% of the train examples, so that always answering
    with it is hard to beat; or a label with at least 5% and 3 examples of eval has fewer than 3
    train examples, or less than a tenth of its share in eval. Source: practice. Minimum data: a set
    of labels, 10 eval examples.
    """
    labels = labels_of(e.train)
    if not labels or len(e.eval) < 10:
        return None
    wanted = Counter(map(answer_of, e.eval))
    label, count = labels.most_common(1)[0]
    of_train, of_eval = count / len(e.train), wanted[label] / len(e.eval)
    if of_train < 0.8:
        # Among those that eval asks for often enough to matter, the most frequent one is named.
        rare = [
            label
            for label, n in wanted.most_common()
            if n >= max(3, 0.05 * len(e.eval))
            and 0 < labels[label] < max(3, 0.1 * len(e.train) * n / len(e.eval))
        ]
        if not rare:
            return None
        label, count = rare[0], labels[rare[0]]
        of_train, of_eval = count / len(e.train), wanted[label] / len(e.eval)
    return Finding(
        kind="label-imbalance",
        severity="warning",
        message=(
            f"The label {quoted(label)} has {count} of {len(e.train)} train examples "
            f"({of_train:.1%}), and {of_eval:.1%} of the eval examples."
        ),
        evidence={
            "train_examples": count,
            "train_share": of_train,
            "eval_share": of_eval,
            "labels": len(labels),
        },
        remedy=(
            "Add train examples of the rare labels. If the shares are intended, tag the labels and "
            "gate them by tag: the overall pass rate shows little of the rare ones."
        ),
        tunable=False,
    )


def labels_of(examples: Sequence[Example]) -> Counter[str]:
    """How often each label occurs; empty if the examples are not a set of labels."""
    answers = Counter(answer for x in examples if (answer := answer_of(x)))
    if len(examples) < 30 or len(answers) > len(examples) / 5:
        return Counter()
    return answers if all(len(answer) <= LONGEST_LABEL for answer in answers) else Counter()


def is_number(text: str) -> bool:
    """Whether a text is a number as people write it: `-3`, `$1,250`, `40 %`, `12:30`, `5 kg`."""
    return len(text) <= LONGEST_LABEL and _NUMBER.fullmatch(text) is not None


def _most_expected(single: int, train: int, eval_: int) -> float:
    """How many eval examples may have an unseen completion if both sets are drawn alike."""
    expected = single / train * eval_
    return expected + 2 * math.sqrt(expected * (1 + eval_ / train))


def _in_other_case(shown: Sequence[str], labels: Counter[str]) -> str:
    by_case = {label.casefold(): label for label in labels}
    known = [by_case[label.casefold()] for label in shown if label.casefold() in by_case]
    return f" (train writes {quoted(known[0])})" if known else ""
