"""pytest prints what strangers wrote in a loop file and its data, and no terminal obeys it."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from tests.plugin.conftest import EVAL, LOOP

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

EVIL = "x\x1b[31m\u202ey\n::error::z ##[error]\u200b"
TAG = EVIL.replace("\n", " ")
GATE = f"  {json.dumps(f'pass_rate[{TAG}]')}: '>= 2%'\n"
BROKEN = {
    "a key": f"{json.dumps(EVIL)}: 1\n{LOOP}",
    "a gate": LOOP.replace("gates:\n", f"gates:\n  {json.dumps(EVIL)}: '>= 1'\n"),
    "a scorer": f"{LOOP}scoring: {{scorer: {json.dumps(EVIL + ':f')}}}\n",
    "a tag that no example has": LOOP.replace("gates:\n", f"gates:\n{GATE}"),
}


def obeyed(text: str) -> list[str]:
    """The lines in which something is not shown, but obeyed."""
    unseen = {"Cc", "Cf", "Zl", "Zp", "Cs"}
    return [
        line
        for line in text.split("\n")
        if any(unicodedata.category(c) in unseen for c in line)
        or line.strip().startswith("::")
        or "##[" in line
    ]


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_mistake(project: Project, text: str) -> None:
    """At collection or when the loop runs."""
    project.write("x.ftloop.yaml", text)
    done = project.run("--ftloop", "-v")
    assert [] == obeyed(done.stdout.str() + done.stderr.str())


@pytest.mark.parametrize("text", [LOOP, "not: a loop\n"], ids=["whole", "broken"])
@pytest.mark.parametrize("name", ["a\U000e0041", "a\x1b[31m", "a\u202e"])
def test_the_name_of_a_folder(project: Project, name: str, text: str) -> None:
    """pytest makes the ids of tests of it, and prints them as they are."""
    project.write(f"{name}/y.ftloop.yaml", text)
    done = project.run("--ftloop", "-rA", "--junitxml=junit.xml")
    printed = done.stdout.str() + done.stderr.str()
    assert "y.ftloop.yaml" in printed
    assert [] == obeyed(printed)
    assert [] == obeyed((project.path / "junit.xml").read_text(encoding="utf-8"))


def test_gates_and_examples(project: Project) -> None:
    """The names of items, their failures, the summary and the JUnit file."""
    rows = [{**row, "id": f"{EVIL}{n}", "tags": [TAG, "negation"]} for n, row in enumerate(EVAL)]
    project.write(
        "x.ftloop.yaml", LOOP.replace("gates:\n", f"gates:\n{GATE}").replace("1.9", "0.1")
    )
    project.write("eval.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    done = project.run("--ftloop", "-vv", "-rA", "--junitxml=junit.xml")
    printed = done.stdout.str() + done.stderr.str()
    assert r"pass_rate[x\x1b[31m\u202ey ::error::z #\x23[error]\u200b]" in printed
    assert [] == obeyed(printed)
    text = (project.path / "junit.xml").read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert not any(c in text for c in "\x1b\u202e\u200b")
