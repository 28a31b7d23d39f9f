"""Rules on the data: faults of the examples themselves.

Common to all: they read only the examples, so they report before a long run as well as after it,
and no figure can be NaN. With fewer examples than it needs, a rule is silent. The prompt of a plain
text is the text. No finding is tunable. An error ends the loop, so it is a fault that makes the
figures meaningless.

This module has the rules on how examples are written. Those on examples that occur more than once
are in `copies`, those on sets of labels in `labels` and `label_words`, the one on the size of the
eval set in `eval_size`.
"""

from __future__ import annotations

from collections import Counter
from statistics import fmean

from pytest_ftloop.config.gates import Gate, Regression
from pytest_ftloop.core.records import Example, Finding
from pytest_ftloop.diagnose.affixes import (
    TEMPLATE_SHARE,
    edges,
    fixed_prefix,
    fixed_suffix,
    is_of_template,
    missing_prefix,
    missing_suffix,
)
from pytest_ftloop.diagnose.copies import contradictions, duplicates, leak, near_duplicates
from pytest_ftloop.diagnose.eval_size import small_eval_set
from pytest_ftloop.diagnose.evidence import Evidence, Rule, found_by
from pytest_ftloop.diagnose.label_words import mislabelled
from pytest_ftloop.diagnose.labels import label_imbalance, unseen_labels
from pytest_ftloop.diagnose.naming import is_blank, quoted, some


def before_training(
    train: tuple[Example, ...],
    eval_: tuple[Example, ...],
    gates: tuple[Gate | Regression, ...] = (),
) -> tuple[Finding, ...]:
    """The findings that the data alone gives, errors first."""
    return found_by(RULES, train=train, eval=eval_, gates=gates)


def findings(e: Evidence, known: tuple[Finding, ...] | None = None) -> tuple[Finding, ...]:
    """The findings of all rules; `known` are those from before training.

    Of the known ones only the rule on the eval set's size is applied again, as it now has the
    results of the examples. The others would give the same, and take the longest.
    """
    if known is None:
        return tuple(finding for rule in RULES if (finding := rule(e)))
    small = small_eval_set(e)
    return (*(f for f in known if f.kind != "small-eval-set"), *([small] if small else []))


def template_mismatch(e: Evidence) -> Finding | None:
    """Train and eval examples are written with different templates.

    Signal: 95% of one set's prompts begin or end alike (`intent:` on a line of its own, a system
    message), and under half of the other set's do. The part that the other set lacks must be white
    space, or more than the end of a sentence or two letters. Or the same of the marks and spaces
    around the completions. An error if under 5% of the other set's prompts have it: the model is
    then asked what it was not trained on. Source: practice; no false alarm in 500 subsets of
    banking77 or in the quickstart. Minimum data: 10 examples each.
    """
    if min(len(e.train), len(e.eval)) < 10:
        return None
    examples = {"train": e.train, "eval": e.eval}
    sets = {role: [x.prompt_text for x in of] for role, of in examples.items()}
    for one, other in (("train", "eval"), ("eval", "train")):
        for where, fixed, missing, has in (
            ("end", fixed_suffix, missing_suffix, str.endswith),
            ("begin", fixed_prefix, missing_prefix, str.startswith),
        ):
            affix = fixed(sets[one], TEMPLATE_SHARE)
            share = fmean(has(prompt, affix) for prompt in sets[other])
            if share < 0.5 and is_of_template(missing(affix, sets[other])):
                how = f"{where} with {quoted(affix, keep_end=where == 'end')}"
                return _mismatch(one, other, "prompts", how, share, severe=share < 0.05)
    return _other_edges(e)


def empty_completions(e: Evidence) -> Finding | None:
    """Completions are empty.

    Signal: the completion, or the last message, is only white space or invisible characters (zero
    width), in 1% of a set's examples and at least 2. An empty answer may be intended ("nothing
    found"), so it is an error only if half of a set has one. Source: practice. Minimum data: 2 such
    examples.
    """
    empty = {
        role: [x.id for x in examples if x.expected is not None and is_blank(x.expected)]
        for role, examples in (("train", e.train), ("eval", e.eval))
    }
    total = {"train": len(e.train), "eval": len(e.eval)}
    shares = {role: len(ids) / max(total[role], 1) for role, ids in empty.items()}
    affected = [role for role, ids in empty.items() if len(ids) >= 2 and shares[role] >= 0.01]
    if not affected:
        return None
    parts = [
        f"{len(empty[role])} of {total[role]} {role} examples ({some(empty[role])})"
        for role in affected
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
        remedy="Fill in the completions, or remove these rows.",
        tunable=False,
    )


RULES: tuple[Rule, ...] = (
    template_mismatch,
    unseen_labels,
    leak,
    contradictions,
    mislabelled,
    empty_completions,
    near_duplicates,
    duplicates,
    label_imbalance,
    small_eval_set,
)


def _mismatch(one: str, other: str, what: str, how: str, share: float, *, severe: bool) -> Finding:
    """The finding that one set's prompts or completions (`what`) begin or end so (`how`)."""
    few = f"only {share:.0%}" if share else "none"
    return Finding(
        kind="template-mismatch",
        severity="error" if severe else "warning",
        message=f"The {one} {what} {how}; {few} of the {other} {what} do.",
        evidence={"set": one, "share_of_other": share, "what": f"{what} {how}"},
        remedy="Build the examples of both sets with the same template.",
        tunable=False,
    )


def _other_edges(e: Evidence) -> Finding | None:
    """A mismatch in the marks and spaces around completions: fixed in one set, not in the other."""
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
            if count >= TEMPLATE_SHARE * found[one].total() and share < 0.5:
                with_ = f"with {quoted(marks)}" if marks else "without marks or spaces"
                how = f"{where} {with_}"
                return _mismatch(one, other, "completions", how, share, severe=False)
    return None
