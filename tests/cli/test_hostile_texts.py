"""Texts of strangers in every place that a command prints or writes: they are shown, not obeyed."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main

if TYPE_CHECKING:
    from tests.loops import Loops

Capture = pytest.CaptureFixture[str]

EVIL = "x\x1b[31m\u202ey\n::error::z\n##[error]\u200b\x9b"
"""An ANSI escape, bidirectional and zero-width marks, and a line that a CI system obeys."""

TAG = EVIL.replace("\n", " ")
"""The same as a tag, which has no line breaks."""

YAML = json.dumps(EVIL)  # in double quotes
COMMANDS = (
    ["run", "-v"],
    ["run", "--replay"],
    ["log"],
    ["log", "--format", "markdown"],
    ["show", "best"],
    ["suggest"],
    ["diff"],
    ["diff", "--format", "markdown", "--all"],
    ["gate"],
    ["report", "-o", "page.html"],
    ["ci", "--out", "out"],
    ["accept", "best"],
    ["export", "best"],
    ["comment", "out/report.json", "--dry-run"],
)


def obeyed(text: str, *, markdown: bool = False) -> list[str]:
    """The lines of a text in which something is not shown, but obeyed."""
    unseen = {"Cc", "Cf", "Zl", "Zp", "Cs"}
    return [
        line
        for line in text.split("\n")
        if any(unicodedata.category(c) in unseen for c in line)
        or (not markdown and (line.strip().startswith("::") or "##[" in line))
    ]


def run(capsys: Capture, *arguments: str) -> tuple[int, str]:
    """The exit code of a command, and all that it printed."""
    capsys.readouterr()
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out + err


def test_data_and_settings(loops: Loops, capsys: Capture) -> None:
    """In ids, tags, prompts, expected texts, settings, their names, gates and choices."""
    rows = [
        {"id": f"{EVIL}{n}", "prompt": EVIL, "completion": f"{EVIL}{n}", "tags": [EVIL, f"t{n}"]}
        for n in range(5)
    ]
    for rate in ("1.0e-3", "2.0e-4"):
        loops.write(rate=rate, loop="{iterations: 1}")
        loops.put("eval.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
        text = (loops.root / "x.ftloop.yaml").read_text()
        gates = f"gates:\n  regression: {{}}\n  {json.dumps(f'pass_rate[{TAG}]')}: '>= 0.99'\n"
        text = text.replace("gates: {regression: {}}\n", gates)
        text = text.replace(
            "lora: {", f"lora: {{alpha_pattern: {{{YAML}: {YAML}}}, modules_to_save: [{YAML}], "
        )
        loops.put("x.ftloop.yaml", text)
        loops.train()
        loops.commit()
    for command in COMMANDS:
        _, printed = run(capsys, *command)
        assert [] == obeyed(printed), command
    for name in ("summary.md", "junit.xml"):
        if (file := loops.root / "out" / name).is_file():
            assert [] == obeyed(file.read_text(encoding="utf-8"), markdown=True)
    page = (loops.root / "page.html").read_text(encoding="utf-8")
    assert "\x1b" not in page


BROKEN: dict[str, Any] = {
    "an unknown key": f"{YAML}: 1\n",
    "a key of a section": f"scoring: {{{YAML}: 1}}\n",
    "a gate": f"gates: {{{YAML}: '>= 1'}}\n",
    "a gate's tag": f"gates: {{{json.dumps(f'pass_rate[{EVIL}]')}: '>= 0.5'}}\n",
    "a condition": f"gates: {{eval_loss: {YAML}}}\n",
    "a name": f"name: {YAML}\n",
    "a scorer": f"scoring: {{scorer: {YAML}}}\n",
    "a scorer's module": f"scoring: {{scorer: {json.dumps(EVIL + ':f')}}}\n",
    "a pattern": f"scoring: {{scorer: regex, pattern: {json.dumps('(' + EVIL)}}}\n",
    "a policy": f"loop: {{policy: {YAML}}}\n",
    "a policy's module": f"loop: {{policy: {json.dumps(EVIL + ':f')}}}\n",
    "a policy's setting": f"loop: {{policy: [{{{YAML}: 1}}]}}\n",
    "a sampler": f"loop: {{policy: {{sampler: {YAML}, space: {{lora.r: {{low: 1, high: 2}}}}}}}}\n",
    "a model": f"model: {YAML}\n",
    "an argument": f"training: {{learning_rate: 1.0e-3, {YAML}: 1}}\n",
    "a value": f"training: {{seed: {YAML}}}\n",
    "a tracker": f"training: {{learning_rate: 1.0e-3, report_to: {YAML}}}\n",
    "a tag of the tokenizer": f"tokenizer: {{add_special_tokens: {{{YAML}: a}}}}\n",
    "no YAML": f"a: [{EVIL}\n",
    "a tag of YAML": f"a: !{EVIL}\n",
}
SOURCES = {
    "a file": f"data: {{train: {json.dumps(EVIL + '.jsonl')}, eval: eval.jsonl}}\n",
    "a hub id": f"data: {{train: {{hub: {YAML}}}, eval: eval.jsonl}}\n",
    "a function": f"data: {{train: {json.dumps('a:' + EVIL)}, eval: eval.jsonl}}\n",
    "a column of ids": f"data: {{train: train.jsonl, eval: eval.jsonl, id: {YAML}}}\n",
    "a column of tags": f"data: {{train: train.jsonl, eval: eval.jsonl, tags: [{YAML}]}}\n",
    "a column to keep": f"data: {{train: train.jsonl, eval: eval.jsonl, keep: {YAML}}}\n",
}


@pytest.mark.parametrize("line", [*BROKEN.values(), *SOURCES.values()], ids=[*BROKEN, *SOURCES])
def test_an_error_about_the_loop_file(loops: Loops, capsys: Capture, line: str) -> None:
    """Whatever of it is quoted in the message."""
    loops.write()
    data = "" if line.startswith("data") else "data: {train: train.jsonl, eval: eval.jsonl}\n"
    loops.put("x.ftloop.yaml", data + line)
    for command in (["run"], ["gate"], ["ci", "--out", "out"], ["show", "best"], ["log"]):
        _, printed = run(capsys, *command)
        assert [] == obeyed(printed), command


ROWS = {
    "a column": [{EVIL: "a"}],
    "two columns": [{"prompt": "a", "completion": "b", EVIL: "c"}, {"text": "d"}],
    "an id twice": [{"id": EVIL, "prompt": "a", "completion": "b"}] * 2,
    "a role": [{"messages": [{"role": EVIL, "content": "a"}]}],
    "a completion": [{"prompt": EVIL, "completion": {EVIL: 1}}],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_an_error_about_the_data(
    loops: Loops, capsys: Capture, rows: list[dict[str, Any]], suffix: str
) -> None:
    """In a row, in the names of its columns, and in a file that is no such file."""
    loops.write()
    whole = "".join(f"{json.dumps(row)}\n" for row in rows)
    texts = {"jsonl": whole, "json": json.dumps(rows), "csv": f'"{EVIL}","{EVIL}"\n{whole}'}
    loops.put(f"eval.{suffix}", texts[suffix])
    text = (loops.root / "x.ftloop.yaml").read_text()
    loops.put("x.ftloop.yaml", text.replace("eval.jsonl", f"eval.{suffix}"))
    code, printed = run(capsys, "run")
    assert (2, []) == (code, obeyed(printed))


def test_names_of_files_and_arguments(loops: Loops, capsys: Capture) -> None:
    """A folder, a loop file, a log and a ref may be called anything."""
    loops.write()
    name = EVIL.replace("/", "")
    folder = loops.root / name
    folder.mkdir()
    (folder / f"{name}.ftloop.yaml").write_text("a: [")
    for command in (
        ["run"],
        ["run", name],
        ["gate", name],
        ["gate", f"{name}..HEAD"],
        ["gate", "--baseline", EVIL],
        ["gate", "--gate", EVIL],
        ["gate", "--fail-on", EVIL],
        ["diff", "--log", EVIL],
        ["show", EVIL],
        ["show", "best", f"{name}/no"],
        ["export", EVIL, "-o", EVIL],
        ["accept", "--retire", EVIL],
        ["diagnose", EVIL],
        ["comment", EVIL],
        ["init", f"{name}/x.ftloop.yaml/y"],
        ["report", "-o", f"{name}/{name}.ftloop.yaml/page.html"],
    ):
        _, printed = run(capsys, *command)
        assert [] == obeyed(printed), command


def test_arguments_that_argparse_refuses(capsys: Capture) -> None:
    """Its own messages quote them."""
    for command in ([EVIL], ["run", f"--{EVIL}"], ["calibrate", "--seeds", EVIL]):
        with pytest.raises(SystemExit):
            main(command)
        out, err = capsys.readouterr()
        assert [] == obeyed(out + err)
