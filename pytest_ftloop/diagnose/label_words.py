"""Wrong train labels by the words of the prompts, before anything is trained."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.groups import MOST_LABELS, listed
from pytest_ftloop.diagnose.labels import labels_of
from pytest_ftloop.diagnose.naming import answer_of
from pytest_ftloop.diagnose.similar import folded
from pytest_ftloop.diagnose.words import runs_of

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Example
    from pytest_ftloop.diagnose.evidence import Evidence

FOLDS = 10
"""Parts of the train set. Each is judged by the words of the others, so no example by itself."""

CONTRADICTED = math.log(3)
"""Log odds of another label from which on a prompt's words contradict its own. Lower odds are
common where words say little of the label, and tell wrong labels from hard examples no better."""

STANDARD_ERRORS = 3.0
"""How far the contradicted share of the train set must be above that of the eval set: chance alone
reaches that in one of 700 pairs of sets, and less often with the limit below."""

LEAST_SHARE = 0.05
"""Least estimated share of wrong labels. It must also be no less than the contradicted share of the
eval set, as a train set may be harder: the quickstart's is, with 29% contradicted against 18%."""

FEWEST_EVAL = 20
"""Fewest eval examples that the normal approximation of a share needs."""

MOST_EXAMPLES, MOST_WORDS = 1_000, 40
"""Maximum number of examples of either set, and of words of a prompt, that are read. With so many
examples 5% wrong labels are found for certain. The time grows with both and the number of labels:
0.3 to 0.8 s of processor time for 10 labels, 0.5 to 1.1 s for 90."""

IDS = 20
"""Ids that the finding names: a first batch to check by hand."""


class Text(NamedTuple):
    """One example: the words of its prompt, without repeats, and its label."""

    id: str
    words: frozenset[str]
    label: str


class Judged(NamedTuple):
    """An example and the log odds of another label, by the words of others."""

    text: Text
    odds: float

    @property
    def contradicted(self) -> bool:
        """Whether its words contradict its label."""
        return self.odds > CONTRADICTED


@dataclass(frozen=True)
class Excess:
    """What words contradict in the train set beyond the eval set.

    `train` and `eval` are the contradicted shares, `errors` is their difference in standard errors.
    `wrong` is the estimated number of wrong labels of `examples`, `ids` are the contradicted train
    examples, the most certain first.
    """

    train: float
    eval: float
    errors: float
    wrong: int
    examples: int
    ids: tuple[str, ...]


def mislabelled(e: Evidence) -> Finding | None:
    """Words contradict the labels of more train examples than of eval examples.

    Signal: each example's label is compared with the one that its words predict by naive Bayes,
    from the counts in other train examples. Both sets are judged by the same counts, so wrong or
    hard labels that they share cancel out. By 3 standard errors more of the train labels must be
    contradicted by 3 to 1, and at least 5% of all, and as many as in the eval set, look wrong. Each
    label is compared with itself, as some are harder; eval prompts that occur in the train set
    don't count. Source: planted wrong labels (benchmark `slices.py --only many`). Minimum data: a
    set of labels, 2 to 100 different ones, 20 eval examples. Where words do not decide the label
    the rule is silent; what the training's losses show is in `label_noise`.
    """
    found = excess_of(e.train, e.eval)
    if (
        found is None
        or found.errors < STANDARD_ERRORS
        or found.wrong < max(LEAST_SHARE, found.eval) * found.examples
    ):
        return None
    ids = listed(found.ids, min(IDS, found.wrong))
    return Finding(
        kind="mislabelled",
        severity="warning",
        message=(
            f"About {found.wrong} of {found.examples} train examples "
            f"({found.wrong / found.examples:.0%}) look mislabelled: by their words another label "
            f"is three times as likely in {found.train:.0%}, and in {found.eval:.0%} of the eval "
            f"examples. The most doubtful: {ids}."
        ),
        evidence={
            "doubted": found.wrong,
            "examples": found.examples,
            "train_contradicted": found.train,
            "eval_contradicted": found.eval,
            "standard_errors": found.errors,
            "ids": ids,
        },
        remedy=(
            "Check the labels of these train examples first, then how the train set was labelled: "
            "correct the wrong ones, or drop them. If the labels are right, the train set is "
            "harder than the eval set."
        ),
        tunable=False,
    )


def excess_of(train: Sequence[Example], eval_: Sequence[Example]) -> Excess | None:
    """What words contradict in the train set beyond the eval set; None if that can't be judged."""
    labels = labels_of(train)
    if not 2 <= len(labels) <= MOST_LABELS:
        return None
    known = {folded(x.prompt_text) for x in train}
    unseen = [x for x in eval_ if answer_of(x) in labels and folded(x.prompt_text) not in known]
    if len(unseen) < FEWEST_EVAL:
        return None
    of_train, of_eval = judged(_texts(train), _texts(unseen))
    doubted = sorted((x for x in of_train if x.contradicted), key=lambda x: -x.odds)
    return Excess(
        len(doubted) / len(of_train),
        fmean(x.contradicted for x in of_eval),
        standard_errors(of_train, of_eval),
        round(_estimated_wrong(of_train, of_eval) * len(train)),
        len(train),
        tuple(x.text.id for x in doubted),
    )


def judged(train: Sequence[Text], eval_: Sequence[Text]) -> tuple[list[Judged], list[Judged]]:
    """Both sets, judged by the train set's words: each train example by the other folds' only.

    An eval example is judged by all folds but one too, so that both are judged by as many.
    """
    by_label = sorted(train, key=lambda text: text.label)
    folds = [by_label[n::FOLDS] for n in range(FOLDS)]
    of_train, of_eval = [], []
    for number, fold in enumerate(folds):
        counts = Counts.of(chain.from_iterable(other for other in folds if other is not fold))
        of_train += [Judged(text, counts.odds_against(text)) for text in fold]
        of_eval += [Judged(text, counts.odds_against(text)) for text in eval_[number::FOLDS]]
    return of_train, of_eval


@dataclass(frozen=True)
class Counts:
    """How many examples have a label, and how many of these each word."""

    labels: Counter[str]
    words: dict[str, Counter[str]]

    @classmethod
    def of(cls, texts: Iterable[Text]) -> Counts:
        """Count these examples."""
        labels: Counter[str] = Counter()
        words: dict[str, Counter[str]] = {}
        for text in texts:
            labels[text.label] += 1
            for word in text.words:
                words.setdefault(word, Counter())[text.label] += 1
        return cls(labels, words)

    def odds_against(self, text: Text) -> float:
        """The log odds of the likeliest other label against the text's own (naive Bayes).

        A word's share among a label's examples is drawn towards its share among all, as if one
        example more had that. So a word that the label never had says less if the label is rare.
        """
        total = self.labels.total()
        known = [self.words[word] for word in text.words if word in self.words]
        likely = {
            label: math.log(count / total) - len(known) * math.log(count + 1)
            for label, count in self.labels.items()
        }
        for with_label in known:
            of_all = with_label.total() / total
            for label, count in with_label.items():
                likely[label] += math.log(count / of_all + 1)
        own = likely.pop(text.label, -math.inf)
        return max(likely.values(), default=-math.inf) - own


def standard_errors(train: Sequence[Judged], eval_: Sequence[Judged]) -> float:
    """By how many standard errors more of the train set is contradicted than of the eval set.

    Examples are compared with those of the same label only (Mantel and Haenszel's test), as some
    labels are harder than others and the sets may have other shares of them.
    """
    excess = variance = 0.0
    of_train, of_eval = (Counter(x.text.label for x in some) for some in (train, eval_))
    hit_train, hit_eval = (
        Counter(x.text.label for x in some if x.contradicted) for some in (train, eval_)
    )
    for label, count in of_train.items():
        total, hit = count + of_eval[label], hit_train[label] + hit_eval[label]
        if of_eval[label]:
            expected = count * hit / total
            excess += hit_train[label] - expected
            variance += expected * of_eval[label] * (total - hit) / (total * (total - 1))
    return excess / math.sqrt(variance) if variance > 0 else 0.0


def _estimated_wrong(train: Sequence[Judged], eval_: Sequence[Judged]) -> float:
    """The share of the train labels that are wrong.

    A wrong label is contradicted, if not by 3 to 1; a right one is as often as in the eval set.
    """
    in_train, in_eval = (fmean(x.odds > 0 for x in some) for some in (train, eval_))
    return max(0.0, in_train - in_eval) / (1 - in_eval) if in_eval < 1 else 0.0


def _texts(examples: Sequence[Example]) -> list[Text]:
    """The words and labels of the examples, or of every second, third... of many."""
    return [
        Text(x.id, frozenset(chain.from_iterable(runs_of(x.prompt_text, MOST_WORDS))), answer_of(x))
        for x in examples[:: math.ceil(len(examples) / MOST_EXAMPLES)]
    ]
