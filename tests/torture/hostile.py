"""Hostile texts as every name, through every output: shown, never obeyed.

An attempt puts one text in one place, calls the commands that may show it, and looks at the bytes
of all that was printed and written for a person or a program: terminal, Markdown, HTML, JUnit, CI
commands and outputs, JSON, CSV.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import yaml

from tests.report.hostile_texts import COMMANDS as OF_CI
from tests.report.hostile_texts import CONTROLS, DATA, HTML
from tests.torture.calls import Done, called, called_pytest, faults_of, obeyed
from tests.torture.frame import OTHER, RAW, Attempt, Fault, Kind
from tests.torture.mutate import sealed
from tests.torture.world import DATA as ROWS
from tests.torture.world import World, filled_world

TEXTS = (
    *("\x1b[31mred\x1b[0m", "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\", "\x9b2J"),
    *("\u202egnp.exe", "a\u2066b\u2069", "a\u200bb", "\u2028::error::evil", "a\rb", "a\r\nb"),
    *("::error::evil", "x\n::error::evil", "\n::set-output name=verdict::evil", "##[error]evil"),
    *("##vso[task.setvariable variable=evil]x", "##teamcity[evil]", "::stop-commands::evil"),
    *("evil\nverdict=improved", "a\x00b", "\ud800", "\udcff", "<img src=x onerror=evil()>"),
    *("</script><script>evil()</script>", "</td></tr></table><b>evil", "=cmd|'/c evil'!A1"),
    *("@SUM(1)", "+1+evil", "-1+evil", "\t=evil", "\r=evil", "${{ evil }}", "%0A::error::evil"),
    *("\U000e0041\U000e0042", "\u3164", "e\u0301" * 20, "`evil`", "[x](javascript:evil)"),
)
"""Those that an issue named; the many of tests/report/hostile_texts.py are drawn from besides."""
MORE = (*HTML, *OF_CI, *CONTROLS, *DATA)

Put = Callable[[World, str], Sequence[str]]
"""Puts a text in its place; gives the arguments by which commands then name the loop, if any."""

COMMANDS = (
    *("run -q", "run --replay -v", "log", "log --format markdown", "log --format json"),
    *("log --format csv", "show best", "suggest", "suggest --json", "diff"),
    *("diff --format markdown --all", "diff --format json", "gate", "gate --json"),
    *("diagnose x.ftloop.yaml", "diagnose --format markdown x.ftloop.yaml", "ci --out out"),
    *("report -o out/page.html", "accept best", "export best -o made", "calibrate --seeds 2"),
    "comment out --dry-run",
)


def _in_loop(*path: str, as_key: bool = False) -> Put:
    """The text as the value at a key of the loop file, or as one more key there."""

    def put(world: World, text: str) -> Sequence[str]:
        loop = world.root / "x.ftloop.yaml"
        stated: Any = yaml.safe_load(loop.read_text())
        here = stated
        for key in path[:-1] if not as_key else path:
            if not isinstance(here.get(key), dict):
                here[key] = {}
            here = here[key]
        here[text if as_key else path[-1]] = 1 if as_key else text
        # Escaped, as JSON is: YAML in double quotes.
        loop.write_text(json.dumps(stated).replace("\\ud8", "\\\\ud8"), encoding="utf-8")
        return ()

    return put


def _in_loop_as(form: str) -> Put:
    """The text within other YAML, where `%s` is; in double quotes."""

    def put(world: World, text: str) -> Sequence[str]:
        loop = world.root / "x.ftloop.yaml"
        stated = yaml.safe_load(loop.read_text())
        stated.update(yaml.safe_load(form.replace("%s", "PLACE")))
        written = json.dumps(stated)
        inner = json.dumps(text)[1:-1].replace("\\ud8", "\\\\ud8")
        loop.write_text(written.replace("PLACE", inner), encoding="utf-8")
        return ()

    return put


def _in_rows(role: str, column: str, *, as_column: bool = False) -> Put:
    """The text in a column of each row, or as the name of one more column."""

    def put(world: World, text: str) -> Sequence[str]:
        rows = []
        for number, row in enumerate(ROWS[role]):
            name = text if as_column else column
            value: Any = [text, "negation"] if column == "tags" else f"{text}{number}"
            rows.append({**row, name: value})
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (world.root / f"{role}.jsonl").write_text(lines, encoding="utf-8")
        return ()

    return put


def _as_file(name: str) -> Put:
    """The text in the name of a file or folder of the project; `/` and NUL can't be there."""

    def put(world: World, text: str) -> Sequence[str]:
        named = re.sub("[/\x00]", "_", text)[:50]
        named = named.encode("utf-8", "surrogateescape" if "\udcff" in named else "replace")
        to = Path(os.fsdecode(os.fsencode(str(world.root / name)).replace(b"PLACE", named)))
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text((world.root / "x.ftloop.yaml").read_text().replace("gates:", "gates: [", 1))
        return (str(to.relative_to(world.root)),)

    return put


def _in_records(key: str) -> Put:
    """The text in every record of the log, whose hashes fit it then."""

    def put(world: World, text: str) -> Sequence[str]:
        quoted = json.dumps(text).replace("\\ud8", "\\\\ud8")
        for record in world.log.rglob("*.yaml"):
            said = record.read_text(encoding="utf-8")
            new = re.sub(rf"(?m)^(\s*{key}: ).*$", lambda match: match[1] + quoted, said)
            record.write_text(new, encoding="utf-8")
        sealed(world.log)
        return ()

    return put


def _as_argument(command: str) -> Put:
    """The text as an argument of a command."""

    def put(world: World, text: str) -> Sequence[str]:
        return [part.replace("PLACE", text.replace("\x00", "")) for part in command.split()]

    return put


IN_FILES: dict[str, Put] = {
    "an unknown key": _in_loop(as_key=True),
    "the loop's name": _in_loop("name"),
    "the model": _in_loop("model"),
    "a data file": _in_loop("data", "train"),
    "a hub id": _in_loop("data", "eval", "hub"),
    "the column of ids": _in_loop("data", "id"),
    "the column of tags": _in_loop("data", "tags"),
    "a key of data": _in_loop("data", as_key=True),
    "a guard's name": _in_loop_as("data: {train: t.jsonl, eval: e.jsonl, guards: {'%s': g.jsonl}}"),
    "an argument of peft": _in_loop("lora", as_key=True),
    "a module": _in_loop_as("lora: {target_modules: ['%s']}"),
    "an argument of trl": _in_loop("training", as_key=True),
    "the name of a run": _in_loop("training", "run_name"),
    "a tracker": _in_loop("training", "report_to"),
    "a scorer": _in_loop("scoring", "scorer"),
    "a pattern": _in_loop_as("scoring: {scorer: regex, pattern: '(%s'}"),
    "a choice": _in_loop_as("scoring: {scorer: choice, choices: ['%s', b]}"),
    "a gate": _in_loop("gates", as_key=True),
    "a gate's tag": _in_loop_as("gates: {'pass_rate[%s]': '>= 0', regression: {}}"),
    "a condition": _in_loop("gates", "eval_loss"),
    "a policy": _in_loop("loop", "policy"),
    "a setting of a policy": _in_loop_as("loop: {policy: [{'lora.%s': 1}]}"),
    "the metric": _in_loop("loop", "metric"),
    "ids": _in_rows("eval", "id"),
    "prompts": _in_rows("eval", "prompt"),
    "completions": _in_rows("eval", "completion"),
    "tags": _in_rows("eval", "tags"),
    "a column": _in_rows("eval", "", as_column=True),
    "train rows": _in_rows("train", "prompt"),
    "ids of the holdout": _in_rows("holdout", "id"),
    "a loop file": _as_file("PLACE.ftloop.yaml"),
    "a folder": _as_file("PLACE/y.ftloop.yaml"),
    "a source in a record": _in_records("source"),
    "a reason in a record": _in_records("because"),
    "a message in a record": _in_records("message"),
    "a device in a record": _in_records("device"),
    "a model in a record": _in_records("model"),
}
AS_ARGUMENTS: dict[str, Put] = {
    command: _as_argument(command)
    for command in (
        *(
            "show PLACE",
            "show best PLACE",
            "log PLACE",
            "gate PLACE..HEAD",
            "gate --baseline PLACE",
        ),
        *("gate --gate PLACE", "gate --fail-on PLACE", "diff --log PLACE", "export PLACE -o PLACE"),
        *("accept PLACE", "accept --retire PLACE", "diagnose PLACE", "comment PLACE", "init PLACE"),
        *("ci --key PLACE --out out", "ci --out PLACE", "report -o PLACE", "run PLACE"),
        *("calibrate --seeds PLACE", "init --github --requirement PLACE"),
        *("export best --endpoint-model PLACE --check-endpoint PLACE", "log --format PLACE"),
    )
}
PLACES = {**IN_FILES, **AS_ARGUMENTS}


def prepare(folder: Path) -> Callable[[int, Random], Attempt]:
    """Make the world in which the texts are put."""
    world = filled_world(folder / "world")
    pristine = world.contents()
    places = list(PLACES.items())

    def attempt(number: int, random: Random) -> Attempt:
        name, put = places[number % len(places)]
        turn = number // len(places)
        text = TEXTS[(turn + number) % len(TEXTS)] if turn < len(TEXTS) else random.choice(MORE)
        with world.entered():
            given = put(world, text)
            if name in AS_ARGUMENTS:
                faults = list(_shown(called(given), world, text))
            else:
                faults = list(_all_outputs(world, text, given, random))
        world.restore(pristine)
        return Attempt(f"{name}: {text!r}", tuple(faults))

    return attempt


def _all_outputs(world: World, text: str, given: Sequence[str], random: Random) -> Iterator[Fault]:
    """Some of the commands, and always those that write for others."""
    some = random.sample(COMMANDS, 5)
    for command in dict.fromkeys(["run -q", *some, "ci --out out"]):
        arguments = command.split()
        if given and arguments[0] in ("run", "gate", "ci", "diagnose", "show", "log"):
            at = ["best"] if arguments[0] == "show" else []
            arguments = [part for part in arguments if part not in ("best", "x.ftloop.yaml")]
            arguments += [*at, *given]
        yield from _shown(called(arguments), world, text)
    yield from _in_actions(world)
    if random.random() < 0.2:
        done = called_pytest(["--ftloop", "--ftloop-replay", "-q", "-rA", "--junitxml=out/j.xml"])
        yield from faults_of(done, (0, 1, 2, 3, 4, 5))
    yield from _files(world)


def _shown(done: Done, world: World, text: str) -> Iterator[Fault]:
    yield from faults_of(done)
    is_json = "json" in done.arguments or "--json" in done.arguments
    if is_json and done.out.strip() and done.code in (0, 1, 3):
        try:
            json.loads(done.out)
        except ValueError as error:
            yield Fault(OTHER, f"{' '.join(done.arguments)}: no JSON: {error}")
    if "csv" in done.arguments:
        for row in csv.reader(io.StringIO(done.out)):
            for cell in row:
                if re.match(r"[=+@\t\r-]", cell) and not _is_number(cell):
                    yield Fault(OTHER, f"a cell that a spreadsheet computes: {cell!r}")


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?%?|-?inf|-", cell) is not None


def _in_actions(world: World) -> Iterator[Fault]:
    """`ftloop ci` in a workflow: our own commands and outputs, and no others."""
    files = {name: world.folder / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for file in files.values():
        file.write_text("")
    env = {name: str(file) for name, file in files.items()}
    with mock.patch.dict(os.environ, {"GITHUB_ACTIONS": "true", "CI": "true", **env}):
        done = called(["ci", "--out", "out"])
    stopped = ""
    for line in done.out.split("\n"):
        if match := re.match(r"\s*::stop-commands::(\S+)", line):
            stopped = f"::{match[1]}::"
        elif stopped and line.strip() == stopped:
            stopped = ""
        elif not stopped and re.match(r"\s*::", line):
            if not re.match(r"::(error|warning|notice)( [^:]*)?::", line) or "::evil" in line[:14]:
                yield Fault(RAW, f"a command of CI: {line!r}")
        elif [bad for bad in obeyed(line) if not stopped]:
            yield Fault(RAW, f"in a workflow: {line!r}")
    yield from (Fault(RAW, f"on stderr: {line!r}") for line in obeyed(done.err))
    known = {"verdict", "stale", "exit-code", "metrics", "report", "suffix"}
    said = files["GITHUB_OUTPUT"].read_text(encoding="utf-8", errors="surrogateescape")
    keys = outputs(said)
    for key in keys - known:
        yield Fault(OTHER, f"an output that is not ours: {key!r}")
    yield from _markdown(files["GITHUB_STEP_SUMMARY"])


def outputs(said: str) -> set[str]:
    """The names of a workflow's outputs, as its runner reads them."""
    found, lines = set(), iter(said.split("\n"))
    for line in lines:
        if match := re.match(r"([^=]+?)<<(.*)$", line):
            found.add(match[1])
            for inner in lines:
                if inner == match[2]:
                    break
        elif line:
            found.add(line.partition("=")[0])
    return found


@dataclass
class _Tags(HTMLParser):
    """The tags of a page that a text of ours would have made."""

    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name.startswith("on") and "evil" in (value or ""):
                self.found.append(f"<{tag} {name}={value}>")
            if name in ("src", "href") and re.search("evil|javascript:", value or ""):
                self.found.append(f"<{tag} {name}={value}>")


def _files(world: World) -> Iterator[Fault]:
    """What was written for people and programs."""
    for file in sorted((world.root / "out").iterdir()):
        if file.suffix == ".md":
            yield from _markdown(file)
        elif file.suffix == ".xml":
            said = file.read_text(encoding="utf-8", errors="surrogateescape")
            yield from _raw(file, said)
            try:
                ElementTree.fromstring(said)
            except ElementTree.ParseError as error:
                yield Fault(OTHER, f"{file.name}: {error}")
        elif file.suffix == ".html":
            said = file.read_text(encoding="utf-8", errors="surrogateescape")
            ours = re.sub(r"(?s)<script>.*?</script>|<style>.*?</style>", "", said)
            yield from _raw(file, ours)
            tags = _Tags()
            tags.feed(said)
            yield from (Fault(OTHER, f"{file.name}: {tag}") for tag in tags.found)
        elif file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))


def _markdown(file: Path) -> Iterator[Fault]:
    if not file.is_file():
        return
    said = file.read_text(encoding="utf-8", errors="surrogateescape")
    yield from _raw(file, said)
    for tag in re.findall(r"<(?:img|script|svg|iframe|b>evil)[^>]*>?", said):
        yield Fault(OTHER, f"{file.name}: {tag}")
    for link in re.findall(r"(?<!\\)\]\((?:javascript|data):", said):
        yield Fault(OTHER, f"{file.name}: {link}")


def _raw(file: Path, said: str) -> Iterator[Fault]:
    for line in obeyed(said, markdown=True, allowed="\t"):
        yield Fault(RAW, f"{file.name}: {line[:300]!r}")


KIND = Kind("hostile texts", 1200, 300, prepare)
