"""The model card of an exported adapter: YAML for the hub, then Markdown for people.

Text of users, models and data files is inert in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from pytest_ftloop.core.metrics import METRICS, metric_of, own_metrics, split_name
from pytest_ftloop.report.escape import one_line, visible
from pytest_ftloop.report.markdown import inert, inert_line, markdown_table
from pytest_ftloop.report.phrases import (
    duration_text,
    figure_text,
    format_setting,
    metric_names,
    plural,
)

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Finding, HoldoutUse, Iteration, Judgement

IN_INDEX = ("eval_loss", "pass_rate")
"""The figures per tag in the hub's index; the card's own table has more (`TAG_FIGURES`)."""

TAG_FIGURES = ("eval_loss", "pass_rate", "token_accuracy", "overfit_gap")

_LONGEST_CELL = 200
_DATA_FACTS = ("source", "rows", "sha256")

USE = """\
```python
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"
config = PeftConfig.from_pretrained(folder)
base = AutoModelForCausalLM.from_pretrained(
    config.base_model_name_or_path, revision=config.revision
)
model = PeftModel.from_pretrained(base, folder)
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
```"""


@dataclass(frozen=True)
class Facts:
    """What the card needs beside the iteration's record.

    `base` describes the base model in a sentence; `hub_id` is its id on the hub, None if it is not
    there. `tokenizer`: whether the folder has one. `merged`: whether it has the merged model.
    `judgements` and `holdout` are those of this iteration in the log. `warnings` are sentences on
    why it should not be used as it is.
    """

    base: str
    hub_id: str | None = None
    tokenizer: bool = True
    merged: bool = False
    judgements: tuple[Judgement, ...] = ()
    holdout: HoldoutUse | None = None
    warnings: tuple[str, ...] = ()


def model_card(iteration: Iteration, facts: Facts) -> str:
    """The text of `README.md`."""
    head = yaml.safe_dump(
        _metadata(iteration, facts), sort_keys=False, allow_unicode=False, width=10**6
    )
    parts = (
        [f"# {inert_line(iteration.loop)} {inert_line(iteration.name)}"],
        [f"**Warning.** {inert_line(warning)}" for warning in facts.warnings],
        _what(iteration, facts),
        ["## Use", "", USE.format(tokenizer="folder" if facts.tokenizer else _BASES_OWN)],
        _evaluation(iteration, facts),
        _findings(iteration.findings),
        _data(iteration.data),
        _settings(iteration),
        _origin(iteration),
    )
    body = "\n\n".join("\n".join(part) for part in parts if part)
    return f"---\n{head}---\n\n{body}\n"


_BASES_OWN = "config.base_model_name_or_path"


def _metadata(iteration: Iteration, facts: Facts) -> dict[str, Any]:
    """The front matter for the hub. It must not name a base model that is not on the hub."""
    base = {"base_model": facts.hub_id} if facts.hub_id else {}
    return {
        **base,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "sft", "trl", "pytest-ftloop"],
        "model-index": [
            {
                "name": visible(f"{iteration.loop}-{iteration.name}"),
                "results": [
                    {
                        "task": {"type": "text-generation"},
                        "dataset": {"name": _eval_source(iteration), "type": "custom"},
                        "metrics": _model_index(iteration.metrics),
                    }
                ],
            }
        ],
    }


def _model_index(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    parts = {name: split_name(name) for name, value in metrics.items() if math.isfinite(value)}
    return [
        {"type": visible(metric), "name": visible(name), "value": float(metrics[name])}
        for name, (metric, tag) in parts.items()
        if tag is None or metric in IN_INDEX
    ]


def _eval_source(iteration: Iteration) -> str:
    return visible(str(iteration.data.get("eval", {}).get("source", "eval set")))


def _what(iteration: Iteration, facts: Facts) -> list[str]:
    lines = [
        f"A LoRA adapter: iteration {inert_line(iteration.name)} of the fine-tuning loop "
        f"{inert_line(iteration.loop)}, trained and evaluated by pytest-ftloop.",
        "",
        f"Base model: {inert_line(facts.base)}",
    ]
    if facts.merged:
        lines += ["", "The folder `merged` contains the base model, this adapter merged into it."]
    return lines


def _evaluation(iteration: Iteration, facts: Facts) -> list[str]:
    names = metric_names(iteration)
    rows = [
        (
            _cell(name),
            figure_text(name, iteration.metrics[name]),
            figure_text(name, iteration.base.get(name)),
            _cell(metric_of(name).description),
        )
        for name in names
    ]
    scoring = ", ".join(
        f"{inert_line(name)} {inert(format_setting(value))}"
        for name, value in iteration.scoring.items()
    )
    return [
        "## Evaluation",
        "",
        f"On the eval set, {plural(len(iteration.examples), 'example')}; scoring: "
        f"{scoring}. {len(iteration.failing)} did not pass.",
        "",
        markdown_table(("metric", "this adapter", "untrained base", "meaning"), rows, (1, 2)),
        *_tags(iteration),
        *_verdicts(facts),
    ]


def _tags(iteration: Iteration) -> Iterator[str]:
    tags = sorted({tag for name in iteration.metrics if (tag := split_name(name)[1]) is not None})
    if not tags:
        return
    counts = [sum(tag in row.tags for row in iteration.examples) for tag in tags]
    figures = (*TAG_FIGURES, *own_metrics([iteration.metrics]))
    rows = [
        (
            _cell(tag),
            str(count),
            *(figure_text(n, iteration.metrics.get(f"{n}[{tag}]")) for n in figures),
        )
        for tag, count in zip(tags, counts, strict=True)
    ]
    yield from ("", markdown_table(("tag", "examples", *figures), rows, range(1, 2 + len(figures))))


def _verdicts(facts: Facts) -> Iterator[str]:
    for judgement in facts.judgements:
        by = "Accepted by hand" if judgement.by == "hand" else "The regression gate"
        against = (
            f" against iteration {inert_line(judgement.baseline)}" if judgement.baseline else ""
        )
        held = "" if judgement.passed else " (failed)"
        yield from (
            "",
            f"{by}{against}: {inert_line(judgement.kind)}{held}. {inert_line(judgement.because)}",
        )
    if facts.holdout is not None:
        use = facts.holdout
        figures = ", ".join(
            f"{inert_line(name)} {figure_text(name, use.metrics[name])}"
            for name in (*METRICS, *own_metrics([use.metrics]))
            if name in use.metrics
        )
        rows = use.data.get("rows")
        count = f" ({plural(rows, 'example')})" if isinstance(rows, int) else ""
        yield from ("", f"On the holdout{count}, which no decision used: {figures}.")


def _findings(findings: Sequence[Finding]) -> list[str]:
    lines = ["## Findings", ""]
    if not findings:
        return [*lines, "None."]
    for finding in findings:
        lines.append(f"- **{inert_line(finding.kind)}** ({inert_line(finding.severity)}): ")
        lines[-1] += f"{inert_line(finding.message)} {inert_line(finding.remedy)}".strip()
    return lines


def _data(data: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        [_cell(text) for text in (role, *(facts.get(key, "") for key in _DATA_FACTS))]
        for role, facts in data.items()
    ]
    return ["## Data", "", markdown_table(("set", "source", "rows", "SHA-256 (start)"), rows, (2,))]


def _settings(iteration: Iteration) -> list[str]:
    because = {adjustment.setting: adjustment for adjustment in iteration.adjustments}
    rows = []
    for group in ("lora", "training"):
        for name, value in getattr(iteration.settings, group).items():
            setting, why = f"{group}.{name}", ""
            if adjusted := because.get(setting):
                why = f"from {format_setting(adjusted.before)}: {_cell(adjusted.because)}"
            rows.append((_cell(setting), format_setting(value), why))
    return [
        "## Settings",
        "",
        "All other settings are the defaults of peft and trl.",
        "",
        markdown_table(("setting", "value", "adjusted"), rows),
    ]


def _origin(iteration: Iteration) -> list[str]:
    cost = iteration.cost
    rows = [
        ("loop", iteration.loop),
        ("iteration", iteration.name),
        ("fingerprint", iteration.fingerprint),
        ("base model's identity", iteration.model),
        ("seed", str(iteration.seed)),
        ("cost", f"{duration_text(cost.seconds)}, {plural(cost.steps, 'step')}"),
        *iteration.environment.items(),
    ]
    return [
        "## Origin",
        "",
        "The record with this name and fingerprint in the loop's improvement log holds the curves "
        "and the result of every example.",
        "",
        markdown_table(("what", "value"), [[_cell(text) for text in row] for row in rows]),
    ]


def _cell(text: Any) -> str:
    """Any value as the text of a cell."""
    return one_line(str(text), _LONGEST_CELL)
