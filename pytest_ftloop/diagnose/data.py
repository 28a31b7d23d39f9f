"""Rules over the data: what is wrong with the examples themselves, before anything is trained.

Common to all. They read the examples alone, so they speak before a long run as well as after it,
and no figure can be NaN. Without examples, or with fewer than a rule needs, it stays silent. The
prompt of a plain text is the text. A set is of labels where at least 30 examples have short
completions of which each occurs 5 times on average: then a completion names a class. No finding is
tunable. An error ends the loop, so it is one that makes the figures meaningless.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from pytest_ftloop.diagnose.affixes import (
    edges,
    fixed_prefix,
    fixed_suffix,
    is_of_template,
    missing_prefix,
    missing_suffix,
)
from pytest_ftloop.diagnose.custom import SEVERITIES
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.similar import Text, folded, neighbours
from pytest_ftloop.gates import Gate, Regression
from pytest_ftloop.records import Example, Finding

Rule = Callable[[Evidence], Finding | None]

FIXED = 0.95
"""Share of prompts that must have an affix in common for it to be the template's."""

MOST_COMPARED = 5_000_000
"""Pairs of an eval and a train example that are compared for near duplicates: some seconds. With
more, a seeded sample of the eval examples is looked at, of 20,000 train examples 250."""


def before_training(
    train: tuple[Example, ...],
    eval_: tuple[Example, ...],
    gates: tuple[Gate | Regression, ...] = (),
) -> tuple[Finding, ...]:
    """What the data alone shows, errors first; the same findings that an iteration will have."""
    evidence = Evidence(
        steps=(),
        evals=(),
        planned_steps=0,
        best_step=0,
        steps_per_epoch=0,
        trainable_parameters=0,
        labelled_tokens=0,
        vocabulary=0,
        adapter_moved=False,
        train=train,
        eval=eval_,
        gates=gates,
    )
    return tuple(sorted(findings(evidence), key=lambda found: SEVERITIES.index(found.severity)))


def findings(e: Evidence) -> tuple[Finding, ...]:
    """What all rules find, in their order."""
    return tuple(finding for rule in RULES if (finding := rule(e)))


def template_mismatch(e: Evidence) -> Finding | None:
    """Train and eval examples are written by different templates.

    Signal: 95% of one set's prompts begin, or end, alike (`intent:` on a line of its own, a system
    message), and under half of the other's do; what the others lack must be more than the end of a
    sentence or two letters, or be white space. Or the same of the marks and spaces around the
    completions. Error where under 5% of the other set's prompts do: it is asked something else than
    was trained. Source: practice; no false alarm in 500 subsets of banking77 or in the quickstart.
    Minimum data: 10 examples each.
    """
    if min(len(e.train), len(e.eval)) < 10:
        return None
    sets = {"train": _prompts(e.train), "eval": _prompts(e.eval)}
    for one, other in (("train", "eval"), ("eval", "train")):
        for where, fixed, missing, has in (
            ("end", fixed_suffix, missing_suffix, str.endswith),
            ("begin", fixed_prefix, missing_prefix, str.startswith),
        ):
            affix = fixed(sets[one], FIXED)
            share = fmean(has(prompt, affix) for prompt in sets[other])
            if share < 0.5 and is_of_template(missing(affix, sets[other])):
                what = f"prompts {where} with {_quoted(affix, keep_end=where == 'end')}"
                return _template_mismatch(one, other, what, share, severe=share < 0.05)
    return _other_edges(e)


def unseen_labels(e: Evidence) -> Finding | None:
    """Eval examples expect labels that the train set does not have.

    Signal: both sets are labels, other than numbers, and eval has some that never occur in train:
    no training teaches them. Error from 20% of the eval examples on, or where they alone make a
    gate on the pass rate unreachable; else a warning. Source: the figure itself, a bound on the
    pass rate. Minimum data: a train set of labels, 2 eval examples concerned.
    """
    labels = _labels(e.train)
    if not labels or all(_is_number(label) for label in labels):
        return None
    answers = filter(None, map(_answer, e.eval))
    unseen = Counter(answer for answer in answers if answer not in labels)
    count, share = sum(unseen.values()), sum(unseen.values()) / max(len(e.eval), 1)
    if count < 2:
        return None
    shown = [label for label, _ in unseen.most_common(3)]
    folded = {label.casefold(): label for label in labels}
    other = next((folded[label.casefold()] for label in shown if label.casefold() in folded), None)
    hint = "" if other is None else f" (train writes {_quoted(other)})"
    unreachable = any(
        isinstance(gate, Gate) and gate.name == "pass_rate" and gate.bound > 1 - share
        for gate in e.gates
    )
    return Finding(
        kind="unseen-labels",
        severity="error" if share >= 0.2 or unreachable else "warning",
        message=(
            f"{count} of {len(e.eval)} eval examples expect {_plural(len(unseen), 'label')} that "
            f"no train example has: {', '.join(map(_quoted, shown))}{hint}."
        ),
        evidence={
            "eval_examples": count,
            "eval_share": share,
            "labels": len(unseen),
            "train_labels": len(labels),
        },
        remedy="Add train examples with these labels, write them alike, or take them out of eval.",
        tunable=False,
    )


def leak(e: Evidence) -> Finding | None:
    """Eval examples are train examples.

    Signal: prompt and completion are the same but for outer white space. Error from 10% of the eval
    examples on: the pass rate may be too high by so much, twice the drop that a regression gate
    rules out by default; under 1% an info; else, and with fewer than 10 eval examples, a warning.
    Source: the figure itself, a bound on the pass rate's error. Minimum data: one example each.
    """
    train = {_said(x): x.id for x in reversed(e.train)}
    leaked = [(x.id, train[_said(x)]) for x in e.eval if _said(x) in train]
    if not leaked:
        return None
    share = len(leaked) / len(e.eval)
    severe = share >= 0.1 and len(e.eval) >= 10
    return Finding(
        kind="leak",
        severity="error" if severe else "warning" if share >= 0.01 else "info",
        message=(
            f"{len(leaked)} of {len(e.eval)} eval examples are in the train set: {_pairs(leaked)}."
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
        prompt, answer = folded(x.prompt or ""), folded(x.expected or "")
        if prompt and 0 < len(answer) <= 60:
            said[prompt][answer] += 1
            ids.setdefault((prompt, answer), x.id)
    split = {prompt: answers for prompt, answers in said.items() if len(answers) > 1}
    wrong = sum(answers.total() - max(answers.values()) for answers in split.values())
    against = [
        (x.id, ids[prompt, next(iter(said[prompt]))])
        for x in e.eval
        if (prompt := folded(x.prompt or "")) in said
        and 0 < len(answer := folded(x.expected or "")) <= 60
        and answer not in said[prompt]
    ]
    of_train, of_eval = wrong / max(len(e.train), 1), len(against) / max(len(e.eval), 1)
    if not (wrong >= 2 and of_train >= 0.01) and not (len(against) >= 2 and of_eval >= 0.01):
        return None
    pairs = [tuple(ids[prompt, answer] for answer in list(split[prompt])[:2]) for prompt in split]
    parts = [
        f"{wrong} of {len(e.train)} train examples have the prompt of another and a different "
        f"completion ({_pairs(pairs)})"
        if wrong
        else "",
        f"{len(against)} of {len(e.eval)} eval examples have a train example's prompt and a "
        f"different completion ({_pairs(against)})"
        if against
        else "",
    ]
    return Finding(
        kind="contradictions",
        severity="error" if _labels(e.train) and max(of_train, of_eval) >= 0.2 else "warning",
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


def empty_completions(e: Evidence) -> Finding | None:
    """Completions without any text.

    Signal: the completion, or the last message, is white space, in 1% of either set's examples and
    2 of them. An empty answer may be meant ("nothing found"), so it is an error only where half of
    a set has one. Source: practice. Minimum data: 2 such examples.
    """
    empty = {
        role: [x.id for x in examples if x.expected is not None and not x.expected.strip()]
        for role, examples in (("train", e.train), ("eval", e.eval))
    }
    total = {"train": len(e.train), "eval": len(e.eval)}
    shares = {role: len(ids) / max(total[role], 1) for role, ids in empty.items()}
    told = [role for role, ids in empty.items() if len(ids) >= 2 and shares[role] >= 0.01]
    if not told:
        return None
    parts = [
        f"{len(empty[role])} of {total[role]} {role} examples ({_some(empty[role])})"
        for role in told
    ]
    return Finding(
        kind="empty-completions",
        severity="error" if max(shares.values()) >= 0.5 else "warning",
        message=f"The completion is empty in {' and in '.join(parts)}.",
        evidence={
            "train_examples": len(empty["train"]),
            "train_share": shares["train"],
            "eval_examples": len(empty["eval"]),
            "eval_share": shares["eval"],
        },
        remedy="Fill in the completions, or leave these rows out.",
        tunable=False,
    )


def near_duplicates(e: Evidence) -> Finding | None:
    """Eval examples are train examples but for a few characters.

    Signal: 10% of the eval examples, 3 at least, have a train example whose prompt shares 95% of
    the characters (case, white space and what the template adds aside) and whose completion shares
    90%; exact ones are `leak`'s. Prompts under 20 characters count only if equal so far. Of longer
    ones than 128 characters both ends are compared, of large sets a seeded sample. Source: of 500
    subsets of banking77, whose questions are often alike, none has 10%. Minimum data: 10 examples
    each. Silent without the library rapidfuzz (the extra `train`).
    """
    if min(len(e.train), len(e.eval)) < 10:
        return None
    exact = {_said(x) for x in e.train}
    asked = [x for x in e.eval if _said(x) not in exact]
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
            f"characters: {_pairs(pairs)}."
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
    counts = Counter(map(_said, e.train))
    repeats = len(e.train) - len(counts)
    if len(e.train) < 10 or repeats < 0.1 * len(e.train):
        return None
    commonest, times = counts.most_common(1)[0]
    ids = [x.id for x in e.train if _said(x) == commonest]
    return Finding(
        kind="duplicates",
        severity="warning",
        message=(
            f"{repeats} of {len(e.train)} train examples repeat an earlier one; the commonest "
            f"occurs {times} times ({_some(ids)})."
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


def label_imbalance(e: Evidence) -> Finding | None:
    """One label crowds out the others, or one that eval asks for hardly occurs in train.

    Signal, in a set of labels: one label has 80% of the train examples, so that always giving it is
    hard to beat; or a label has under a tenth of the share in train that it has in eval, where it
    is 5% and 3 examples at least. Source: practice. Minimum data: a set of labels, 10 eval
    examples.
    """
    labels = _labels(e.train)
    if not labels or len(e.eval) < 10:
        return None
    wanted = Counter(map(_answer, e.eval))
    label, count = labels.most_common(1)[0]
    of_train, of_eval = count / len(e.train), wanted[label] / len(e.eval)
    if of_train < 0.8:
        rare = [
            label
            for label, n in wanted.most_common()
            if n >= max(3, 0.05 * len(e.eval))
            and 0 < labels[label] / len(e.train) < 0.1 * n / len(e.eval)
        ]
        if not rare:
            return None
        label, count = rare[0], labels[rare[0]]
        of_train, of_eval = count / len(e.train), wanted[label] / len(e.eval)
    return Finding(
        kind="label-imbalance",
        severity="warning",
        message=(
            f"The label {_quoted(label)} has {count} of {len(e.train)} train examples "
            f"({of_train:.1%}), and {of_eval:.1%} of eval."
        ),
        evidence={
            "train_examples": count,
            "train_share": of_train,
            "eval_share": of_eval,
            "labels": len(labels),
        },
        remedy=(
            "Add examples of the labels that are rare in train. Where the shares are meant, gate "
            "them by tag: the overall pass rate says little."
        ),
        tunable=False,
    )


def small_eval_set(e: Evidence) -> Finding | None:
    """The eval set can't show what the gates ask.

    Signal: for a gate on the pass rate, the 95% half width of a rate at its bound (Wilson) is over
    10 points, or the tag has under 20 examples; for a regression gate on the pass rate, a drop of
    `max_regression` could not be ruled out with 95% though only one example in 20 flipped from run
    to run. An info, as the training is none the worse for it. Source: the statistics of a rate.
    Minimum data: none.
    """
    weak = [found for gate in e.gates if (found := _weakness(gate, e.eval))]
    if not weak:
        return None
    name, count, width = max(weak, key=lambda found: found[2])
    points = 100 * width
    return Finding(
        kind="small-eval-set",
        severity="info",
        message=(
            f"The gate {name} rests on {_plural(count, 'eval example')}, too few to show a "
            f"difference under {points:.0f} points."
        ),
        evidence={"gate": name, "examples": count, "half_width": width, "gates": len(weak)},
        remedy="Add eval examples: four times as many show half the difference.",
        tunable=False,
    )


RULES: tuple[Rule, ...] = (
    template_mismatch,
    unseen_labels,
    leak,
    contradictions,
    empty_completions,
    near_duplicates,
    duplicates,
    label_imbalance,
    small_eval_set,
)


def _template_mismatch(one: str, other: str, what: str, share: float, *, severe: bool) -> Finding:
    return Finding(
        kind="template-mismatch",
        severity="error" if severe else "warning",
        message=f"The {one} {what}; of the {other} ones {share:.0%} do.",
        evidence={"set": one, "share_of_other": share, "what": what},
        remedy="Build the examples of both sets with the same template.",
        tunable=False,
    )


def _other_edges(e: Evidence) -> Finding | None:
    """The marks and spaces around completions: one set's are fixed, and not the other's."""
    for place, where in ((0, "begin"), (1, "end")):
        found = {
            role: Counter(edges(x.expected)[place] for x in examples if x.expected)
            for role, examples in (("train", e.train), ("eval", e.eval))
        }
        for one, other in (("train", "eval"), ("eval", "train")):
            if not found[one] or not found[other]:
                continue
            marks, count = found[one].most_common(1)[0]
            share = found[other][marks] / found[other].total()
            if count >= FIXED * found[one].total() and share < 0.5:
                with_ = f"with {_quoted(marks)}" if marks else "without marks or spaces"
                what = f"completions {where} {with_}"
                return _template_mismatch(one, other, what, share, severe=False)
    return None


def _varying(examples: Sequence[Example], like: Sequence[Example]) -> list[Text]:
    """The examples without what the template of others adds to each prompt."""
    prompts = _prompts(like)
    start, end = len(fixed_prefix(prompts, FIXED)), len(fixed_suffix(prompts, FIXED))
    return [
        Text(x.id, prompt[start : max(len(prompt) - end, start)], x.expected or "")
        for x in examples
        if (prompt := _prompt(x))
    ]


def _weakness(
    gate: Gate | Regression, examples: Sequence[Example]
) -> tuple[str, int, float] | None:
    """Name, examples and half width of a gate that rests on too few examples."""
    count = sum(gate.tag is None or gate.tag in x.tags for x in examples)
    if not count:
        return None
    if isinstance(gate, Regression):
        width = 1.645 * math.sqrt(0.05 / count)
        if "pass_rate" not in gate.metrics or width <= gate.max_regression:
            return None
        return gate.name, count, width
    if gate.metric != "pass_rate":
        return None
    width = _wilson_half_width(gate.bound, count)
    small = count < 20 if gate.tag else width > 0.1
    return (gate.name, count, width) if small else None


def _wilson_half_width(rate: float, count: int) -> float:
    z = 1.96
    return z * math.sqrt(rate * (1 - rate) / count + (z / count) ** 2 / 4) / (1 + z**2 / count)


def _labels(examples: Sequence[Example]) -> Counter[str]:
    """How often each label occurs; empty for examples that are no set of labels."""
    answers = Counter(answer for x in examples if (answer := _answer(x)))
    if len(examples) < 30 or len(answers) > len(examples) / 5:
        return Counter()
    return answers if all(len(answer) <= 60 for answer in answers) else Counter()


def _answer(x: Example) -> str:
    return (x.expected or "").strip()


def _prompt(x: Example) -> str:
    """The prompt; of a plain text all of it."""
    return str(next(iter(x.row.values()), "")) if x.prompt is None else x.prompt


def _prompts(examples: Iterable[Example]) -> list[str]:
    return [_prompt(x) for x in examples]


def _said(x: Example) -> tuple[str, str]:
    return _prompt(x).strip(), _answer(x)


def _is_number(label: str) -> bool:
    try:
        float(label.replace(",", ""))
    except ValueError:
        return False
    return True


def _quoted(text: str, most: int = 40, *, keep_end: bool = False) -> str:
    if len(text) > most:
        text = f"...{text[-most:]}" if keep_end else f"{text[:most]}..."
    return repr(text)


def _some(ids: Sequence[str]) -> str:
    return ", ".join(id_[:70] for id_ in ids[:3]) + (", ..." if len(ids) > 3 else "")


def _pairs(pairs: Sequence[Sequence[str]]) -> str:
    """`e1 and t4, e2 and t9`: three at most; ids of content may be the same in both sets."""
    return _some([" and ".join(i[:30] for i in dict.fromkeys(pair)) for pair in pairs])


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
