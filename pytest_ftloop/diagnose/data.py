"""Rules over the data: what is wrong with the examples themselves, before anything is trained.

Common to all. They read the examples alone, so they speak before a long run as well as after it,
and no figure can be NaN. Without examples, or with fewer than a rule needs, it stays silent. The
prompt of a plain text is the text. No finding is tunable. An error ends the loop, so it is one that
makes the figures meaningless.

Here are the rules on how examples are written; those on examples that recur are in `copies`, those
on sets of labels in `labels`, that on the eval set's size in `eval_size`.
"""

from __future__ import annotations

from collections import Counter
from statistics import fmean

from pytest_ftloop.config.gates import Gate, Regression
from pytest_ftloop.core.records import Example, Finding
from pytest_ftloop.diagnose.affixes import (
    FIXED,
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
from pytest_ftloop.diagnose.labels import label_imbalance, unseen_labels
from pytest_ftloop.diagnose.naming import is_blank, quoted, some


def before_training(
    train: tuple[Example, ...],
    eval_: tuple[Example, ...],
    gates: tuple[Gate | Regression, ...] = (),
) -> tuple[Finding, ...]:
    """What the data alone shows, errors first."""
    return found_by(RULES, train=train, eval=eval_, gates=gates)


def findings(e: Evidence, known: tuple[Finding, ...] | None = None) -> tuple[Finding, ...]:
    """What all rules find.

    Of what is `known` from before training only the eval set's size is judged again, now by what
    its examples showed: the others take the longest to find, and give the same.
    """
    if known is None:
        return tuple(finding for rule in RULES if (finding := rule(e)))
    small = small_eval_set(e)
    return (*(f for f in known if f.kind != "small-eval-set"), *([small] if small else []))


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
    examples = {"train": e.train, "eval": e.eval}
    sets = {role: [x.prompt_text for x in of] for role, of in examples.items()}
    for one, other in (("train", "eval"), ("eval", "train")):
        for where, fixed, missing, has in (
            ("end", fixed_suffix, missing_suffix, str.endswith),
            ("begin", fixed_prefix, missing_prefix, str.startswith),
        ):
            affix = fixed(sets[one], FIXED)
            share = fmean(has(prompt, affix) for prompt in sets[other])
            if share < 0.5 and is_of_template(missing(affix, sets[other])):
                what = f"prompts {where} with {quoted(affix, keep_end=where == 'end')}"
                return _template_mismatch(one, other, what, share, severe=share < 0.05)
    return _other_edges(e)


def empty_completions(e: Evidence) -> Finding | None:
    """Completions without any text.

    Signal: the completion, or the last message, is white space or characters that show nothing
    (zero width), in 1% of either set's examples and 2 of them. An empty answer may be meant
    ("nothing found"), so it is an error only where half of a set has one. Source: practice. Minimum
    data: 2 such examples.
    """
    empty = {
        role: [x.id for x in examples if x.expected is not None and is_blank(x.expected)]
        for role, examples in (("train", e.train), ("eval", e.eval))
    }
    total = {"train": len(e.train), "eval": len(e.eval)}
    shares = {role: len(ids) / max(total[role], 1) for role, ids in empty.items()}
    told = [role for role, ids in empty.items() if len(ids) >= 2 and shares[role] >= 0.01]
    if not told:
        return None
    parts = [
        f"{len(empty[role])} of {total[role]} {role} examples ({some(empty[role])})"
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
                with_ = f"with {quoted(marks)}" if marks else "without marks or spaces"
                what = f"completions {where} {with_}"
                return _template_mismatch(one, other, what, share, severe=False)
    return None
