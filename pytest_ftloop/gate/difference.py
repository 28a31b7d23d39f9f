"""The difference of two iterations: settings, data, verdict, examples, findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_ftloop.core.data_changes import DataChange
from pytest_ftloop.core.records import Example, ExampleResult, Finding, Iteration
from pytest_ftloop.core.runs import named_alike
from pytest_ftloop.gate.breakage import Breakage, breakage
from pytest_ftloop.gate.gate_changes import GateChanges
from pytest_ftloop.gate.verdict import Verdict


@dataclass(frozen=True)
class SettingChange:
    """A setting, or a fact of model, data or scoring, that differs; None if one side lacks it."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Flip:
    """An example that one side passes and the other fails, with the output of each."""

    id: str
    tags: tuple[str, ...]
    expected: str
    before: str
    after: str
    prompt: str | None = None


@dataclass(frozen=True)
class Difference:
    """A candidate beside its baseline, for a reviewer.

    `before` and `after` are the two iterations, `verdict` their comparison. `came` holds the
    findings that only the candidate has, `went` those that only the baseline has. `gate_changes`
    is what changed in the loop's gates, `data` what changed in the rows of its data sets, `tag`
    that of the examples that the verdict is about, None for all.
    """

    loop: str
    before: Iteration
    after: Iteration
    verdict: Verdict
    settings: tuple[SettingChange, ...]
    fixed: tuple[Flip, ...]
    broken: tuple[Flip, ...]
    came: tuple[Finding, ...]
    went: tuple[Finding, ...]
    gate_changes: GateChanges | None = None
    data: tuple[DataChange, ...] = ()
    tag: str | None = None

    @property
    def breakage(self) -> Breakage | None:
        """The broken examples as one fact; None if none broke."""
        return breakage(self.before, self.after, [flip.id for flip in self.broken], self.tag)

    @property
    def is_empty(self) -> bool:
        """Whether both sides are the same training."""
        return self.before.fingerprint == self.after.fingerprint and not self.verdict.changes


def difference(
    before: Iteration,
    after: Iteration,
    verdict: Verdict,
    examples: Mapping[str, Example],
    changes: GateChanges | None = None,
    data: tuple[DataChange, ...] = (),
    tag: str | None = None,
) -> Difference:
    """Collect what differs. `examples`, by id, supply the prompts."""
    old = {row.id: row for row in named_alike(before.examples, after.examples)}
    new = {row.id: row for row in after.examples}

    def flips(ids: tuple[str, ...]) -> tuple[Flip, ...]:
        return tuple(_flip(old[i], new[i], examples.get(i)) for i in ids if i in old and i in new)

    # By kind: messages have figures in them, which always differ.
    kinds = [{finding.kind for finding in it.findings} for it in (before, after)]
    return Difference(
        loop=after.loop,
        before=before,
        after=after,
        verdict=verdict,
        settings=setting_changes(before, after),
        fixed=flips(verdict.fixed),
        broken=flips(verdict.broken),
        came=tuple(f for f in after.findings if f.kind not in kinds[0]),
        went=tuple(f for f in before.findings if f.kind not in kinds[1]),
        gate_changes=changes,
        data=data,
        tag=tag,
    )


def setting_changes(before: Iteration, after: Iteration) -> tuple[SettingChange, ...]:
    """Every stated setting, and every fact of model, scoring and data, that differs."""
    old, new = _stated(before), _stated(after)
    # LoRA and training settings first: they are what an adjustment changes.
    names = sorted({*old, *new}, key=lambda name: (not name.startswith(("lora", "training")), name))
    return tuple(
        SettingChange(name, old.get(name), new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    )


def _stated(iteration: Iteration) -> dict[str, Any]:
    found = {f"lora.{name}": value for name, value in iteration.settings.lora.items()}
    found |= {f"training.{name}": value for name, value in iteration.settings.training.items()}
    found |= {f"scoring.{name}": value for name, value in iteration.scoring.items()}
    if source := found.pop("scoring.source", None):
        found["scoring.code"] = str(source)[:8]  # a hash, which says only that there is another
    found["model"] = iteration.model
    for role, facts in iteration.data.items():
        # Data is compared by its content: moving a file changes nothing.
        found[f"data.{role}"] = f"{facts.get('rows')} rows, {str(facts.get('sha256'))[:8]}"
    return found


def _flip(old: ExampleResult, new: ExampleResult, example: Example | None) -> Flip:
    prompt = example.prompt_text if example else None
    return Flip(new.id, new.tags, new.expected, old.output, new.output, prompt)
