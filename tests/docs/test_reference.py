"""The documentation says what the code does: names, defaults, examples and links agree."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import re
import shlex
import shutil
import sys
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pydantic import BaseModel
from ruamel.yaml import YAML

from pytest_ftloop import cli
from pytest_ftloop.adjust import decide, state
from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.gates import OPERATORS
from pytest_ftloop.config.loop_config import read_loop_file as read_loop
from pytest_ftloop.config.scoring import _OPTIONS, SCORERS
from pytest_ftloop.config.sections import (
    DEFAULT_LORA,
    DEFAULT_TRAINING,
    LoopFile,
    RegressionSection,
)
from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.core.metrics import METRICS
from pytest_ftloop.core.records import SCHEMA_VERSION
from pytest_ftloop.data.identity import NEUTRAL
from pytest_ftloop.diagnose import chain, confusions, courses, curves, dynamics, slices, wiring
from pytest_ftloop.diagnose import data as diagnose_data
from pytest_ftloop.diagnose.custom import asked
from pytest_ftloop.gate.verdict import FAILING, STRICT, Kind
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.table import COLUMNS
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.result import LoopResult
from pytest_ftloop.plugin import entry as plugin
from pytest_ftloop.plugin import hookspecs
from pytest_ftloop.report.phrases import _STOPS
from pytest_ftloop.report.text import summary
from tests.fakes import fake_example
from tests.test_loop import FakeTrainer
from tests.test_loop import config as fake_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pytest_ftloop"
QUICKSTART = ROOT / "examples" / "quickstart"
LOGGED = (QUICKSTART / "improvement_log").is_dir()

PAGES = (
    *("README.md", "CHANGELOG.md", ".github/CONTRIBUTING.md"),
    *("docs/reference.md", "docs/log.md", "docs/diagnosis.md", "docs/training.md", "docs/gate.md"),
    *("docs/github.md", "docs/benchmarks.md", "docs/appendix.md"),
)
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
REFERENCE, LOG, DIAGNOSIS = (TEXTS[f"docs/{name}.md"] for name in ("reference", "log", "diagnosis"))


# --- reading Markdown ----------------------------------------------------------------------------


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def section(text: str, heading: str) -> str:
    """What stands below a heading, to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert found, heading
    rest = text[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def ticked(text: str) -> list[str]:
    """The code spans, in order."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(text))


def tables(text: str) -> list[list[list[str]]]:
    """The tables: rows of cells, without the header."""
    runs = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    rows = [[row.strip("|").split("|") for row in run.strip().split("\n")] for run in runs]
    return [[[cell.strip() for cell in cells] for cells in table[2:]] for table in rows]


def names(table: list[list[str]], column: int = 0) -> list[str]:
    """The code spans of one column."""
    return [name for row in table for name in ticked(row[column])]


def words(spans: list[str]) -> list[str]:
    """Options without what they take: `--log DIR` is `--log`."""
    return [span.split()[0] for span in spans]


# --- pytest --------------------------------------------------------------------------------------


def options() -> dict[str, str]:
    """The options that the plugin adds, and what each takes."""
    added: dict[str, str] = {}
    group = SimpleNamespace(
        addoption=lambda name, metavar="", **_: added.update({name: metavar}),
    )
    parser = SimpleNamespace(getgroup=lambda *_: group, addini=lambda *_, **__: None)
    plugin.pytest_addoption(parser)  # type: ignore[arg-type]
    return added


def ini_settings() -> list[str]:
    """The ini settings that the plugin adds."""
    added: list[str] = []
    group = SimpleNamespace(addoption=lambda *_, **__: None)
    parser = SimpleNamespace(
        getgroup=lambda *_: group, addini=lambda name, *_, **__: added.append(name)
    )
    plugin.pytest_addoption(parser)  # type: ignore[arg-type]
    return added


def test_pytest_options() -> None:
    """The table of pytest's options has each option with what it takes, in order, and no other."""
    expected = [f"{name} {takes}".strip() for name, takes in options().items()]
    rows = tables(section(REFERENCE, "pytest options"))[0]
    assert expected == [ticked(row[0])[0] for row in rows]


def test_ini_settings() -> None:
    """The table of ini settings has each one, and no other."""
    assert ini_settings() == names(tables(section(REFERENCE, "pytest options"))[1])


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_an_option_that_does_not_exist(page: str) -> None:
    """Every --ftloop option in the documentation exists."""
    assert set() == set(re.findall(r"--ftloop[\w-]*", TEXTS[page])) - set(options())


def test_marker_fixture_and_hook(pytestconfig: pytest.Config) -> None:
    """The table has each marker, fixture and hook of the plugin, and no other."""
    table = tables(section(REFERENCE, "Marker, fixture and hook"))[0]
    markers = [line.partition(":")[0] for line in pytestconfig.getini("markers")]
    fixtures = [n for n, v in vars(plugin).items() if "Fixture" in type(v).__name__]
    hooks = [n for n in vars(hookspecs) if n.startswith("pytest_ftloop")]
    expected = [("ftloop", "marker")] if "ftloop" in markers else []
    expected += [(name, "fixture") for name in fixtures] + [(name, "hook") for name in hooks]
    assert expected == [(ticked(row[0])[0], row[1]) for row in table]


@pytest.mark.parametrize("hook", ["pytest_ftloop_score", "pytest_ftloop_diagnose"])
def test_hook_arguments(hook: str) -> None:
    """The hook is shown with its own arguments."""
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"{hook}({arguments})" in ticked(REFERENCE)


def test_environment_variables() -> None:
    """Each variable that the package reads or sets is in the table; ours have no other names."""
    documented = set(names(tables(section(REFERENCE, "Environment variables"))[0]))
    pattern = re.compile(r'environ(?:\.get|\.setdefault)?[\[(]\s*"(\w+)"')
    read = {name for file in PACKAGE.rglob("*.py") for name in pattern.findall(file.read_text())}
    assert set() == read - documented
    ours = {name for text in TEXTS.values() for name in re.findall(r"\bFTLOOP_\w+", text)}
    assert {"FTLOOP_CACHE", "FTLOOP_CHROMIUM", "FTLOOP_RECORDS", "FTLOOP_TEST_CACHE"} == ours


# --- loop file -----------------------------------------------------------------------------------


def loop_keys(model: type[BaseModel] = LoopFile, above: str = "") -> dict[str, Any]:
    """Every dotted key of a loop file, with its field."""
    keys: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        keys[f"{above}{name}"] = field
        for part, between in sections(field.annotation):
            keys |= loop_keys(part, f"{above}{name}.{between}")
    return keys


def sections(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """The sections within a field's type; those of a mapping stand below any name, `*`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    below = "*." if typing.get_origin(annotation) is dict else ""
    for part in typing.get_args(annotation):
        for section_, between in sections(part):
            yield section_, below + between


def test_loop_file_keys() -> None:
    """The table has each key of a loop file, at any depth, and no other."""
    documented = names(tables(section(REFERENCE, "Loop file"))[0])
    assert sorted(loop_keys()) == sorted(documented)


def test_loop_file_defaults() -> None:
    """Where a key's default is a number, text or flag, the table says the same."""
    rows = {
        name: row for row in tables(section(REFERENCE, "Loop file"))[0] for name in names([row])
    }
    shown = {bool: lambda v: str(v).lower(), str: lambda v: f"`{v}`", int: str}
    plain = {
        key: field.default for key, field in loop_keys().items() if type(field.default) in shown
    }
    assert len(plain) > 8
    assert {key: shown[type(v)](v) for key, v in plain.items()} == {k: rows[k][2] for k in plain}


def test_loop_file_keys_that_are_required() -> None:
    """The keys that must be there are those that the table calls required."""
    rows = tables(section(REFERENCE, "Loop file"))[0]
    assert {key for key, field in loop_keys().items() if field.is_required()} == set(
        names([row for row in rows if row[2].startswith("required")])
    )


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_key_that_does_not_exist(page: str) -> None:
    """Each dotted key of a loop file that a page names exists, below lora and training too."""
    from peft import LoraConfig
    from trl import SFTConfig

    known = {f"lora.{field.name}" for field in dataclasses.fields(LoraConfig)}
    known |= {f"training.{field.name}" for field in dataclasses.fields(SFTConfig)} | set(
        loop_keys()
    )
    pattern = re.compile(r"(?:data|scoring|loop|lora|training)\.[\w.]+")
    named = {span for span in ticked(TEXTS[page]) if pattern.fullmatch(span)}
    assert set() == {name for name in named if not name.endswith(".py")} - known


def test_scorers() -> None:
    """The table has each scorer with its own options, and no other."""
    rows = tables(section(REFERENCE, "Scorers"))[0]
    assert {name: set(_OPTIONS.get(name, ())) for name in SCORERS} == {
        ticked(row[0])[0]: set(ticked(row[2])) for row in rows
    }


def test_metrics() -> None:
    """The table has each metric in its order, with the direction in which it is better."""
    rows = tables(section(REFERENCE, "Gates"))[0]
    assert [(m.name, m.better) for m in METRICS.values()] == [(names([r])[0], r[1]) for r in rows]


def test_keys_of_the_gate_regression() -> None:
    """The table has each key of the regression gate with its default, and no other."""
    rows = tables(section(REFERENCE, "The gate regression"))[0]
    assert list(RegressionSection.model_fields) == names(rows)
    said = {names([row])[0]: YAML(typ="safe").load(row[2].strip("`")) for row in rows}
    assert RegressionSection.model_validate({}).model_dump() == said


def test_verdicts() -> None:
    """The table has each verdict, and says of each whether it fails."""
    rows = {
        names([row])[0]: row[2] for row in tables(section(TEXTS["docs/gate.md"], "Verdicts"))[0]
    }
    assert set(typing.get_args(Kind)) == set(rows)
    assert set(FAILING) == {kind for kind, fails in rows.items() if fails == "yes"}
    assert set(STRICT) == {kind for kind, fails in rows.items() if fails == "when asked to"}


def test_operators() -> None:
    """Each operator of a gate is named."""
    assert set(OPERATORS) == {s for s in ticked(section(REFERENCE, "Gates")) if s[0] in "<>"}


# --- settings ------------------------------------------------------------------------------------

SET_BESIDE = ("report_to",)
"""What the table of settings gives a value that the trainer then has."""


def settings_tables() -> tuple[list[list[str]], list[list[str]]]:
    first, second = tables(section(REFERENCE, "Settings"))
    return first, second


def loop_yaml(text: str) -> Any:
    """A value as a loop file has it: YAML 1.2, in which no is a text."""
    return YAML(typ="safe", pure=True).load(text)


def test_default_settings() -> None:
    """What is used where a loop states no lora or training is written as a loop file would."""
    (lora, training, *_), _ = settings_tables()
    assert dict(DEFAULT_LORA) == loop_yaml(ticked(lora[1])[0])
    assert dict(DEFAULT_TRAINING) == loop_yaml(ticked(training[1])[0])


def test_refused_settings() -> None:
    """The settings that are refused, and those that are read by us alone, are all named."""
    from pytest_ftloop.config.schema import REFUSED
    from pytest_ftloop.train.arguments import OWN

    assert {f"training.{name}" for name in REFUSED} == set(names(settings_tables()[1]))
    named = set(ticked(section(REFERENCE, "Settings")))
    assert set() == {f"training.{name}" for name in OWN} - named


def test_settings_that_the_loop_sets(tmp_path: Path) -> None:
    """The settings that the loop sets beside the user's are those the page says, and no other."""
    from trl import SFTConfig

    from pytest_ftloop.core.records import Settings
    from pytest_ftloop.train.arguments import lora_config, sft_config

    text = section(REFERENCE, "Settings")
    rows = {names([row])[0]: row[1].strip("`") for row in settings_tables()[0]}
    said = {name: loop_yaml(rows[f"training.{name}"]) for name in SET_BESIDE}
    for span in ticked(text[text.index("Always") : text.index("Refused")]):
        said |= loop_yaml(span)
    stated = {"use_cpu": True, "bf16": False}
    expected = SFTConfig(output_dir=str(tmp_path), **stated, **said)
    actual = sft_config(Settings({}, dict(stated)), str(tmp_path), lambda _: None)
    assert dataclasses.asdict(expected) == dataclasses.asdict(actual)
    assert rows["lora.task_type"] == lora_config(Settings({}, {}), lambda _: None).task_type


# --- Python --------------------------------------------------------------------------------------


def test_arguments_of_the_fixture() -> None:
    """The table has each argument that ftloop() takes, and no other."""
    known = set(from_python.__kwdefaults__ or {}) | {"name"}
    assert known == set(names(tables(section(REFERENCE, "Python"))[0]))


def test_attributes_of_the_result() -> None:
    """The table has each public attribute of a loop's result, and no other."""
    fields = {field.name for field in dataclasses.fields(LoopResult)}
    public = fields | {name for name in vars(LoopResult) if not name.startswith("_")}
    table = tables(section(REFERENCE, "Python"))[1]
    assert public == {name.partition("(")[0] for name in names(table)}


# --- the command ---------------------------------------------------------------------------------


def subparsers() -> dict[str, argparse.ArgumentParser]:
    actions = cli.parser()._actions
    return dict(next(a.choices for a in actions if isinstance(a, argparse._SubParsersAction)))


def test_commands() -> None:
    """Each command has a section, in order, and there is no other."""
    found = re.findall(r"^### ftloop (\w+)$", REFERENCE, re.MULTILINE)
    assert [command.name for command in cli.COMMANDS] == found


@pytest.mark.parametrize("command", [command.name for command in cli.COMMANDS])
def test_command_options(command: str) -> None:
    """A command's section has each of its options and arguments, and no other option."""
    text = section(REFERENCE, f"ftloop {command}")
    actions = [a for a in subparsers()[command]._actions if a.dest != "help"]
    expected = {name for action in actions for name in action.option_strings}
    assert expected == set(words(names([row for table in tables(text) for row in table])))
    usage = ticked(text)[0]
    taken = [word for a in actions if not a.option_strings for word in str(a.metavar).split()]
    assert [] == [word for word in taken if word.strip("[]") not in usage]


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_command_that_does_not_exist(page: str) -> None:
    """Each `ftloop COMMAND` that a page shows exists, with the options it shows."""
    shown = ticked(TEXTS[page])
    shown += [
        line.removeprefix("$ ") for b in blocks(TEXTS[page], "console") for line in b.split("\n")
    ]
    for line in shown:
        _, *arguments = shlex.split(line, comments=True) or [""]
        if not re.match(r"ftloop [a-z]+( |$)", line):
            continue
        assert arguments[0] in subparsers()
        given = {word for word in arguments if word.startswith("-")}
        assert set() == given - set(subparsers()[arguments[0]]._option_string_actions)


def test_exit_codes() -> None:
    """The table has each exit code of the command, and no other."""
    codes = [cli.HOLDS, cli.FAILED, cli.ERROR, cli.STALE, cli.INTERRUPTED, cli.BROKEN_PIPE]
    assert codes == [int(row[0]) for row in tables(section(REFERENCE, "Exit codes"))[0]]


# --- diagnosis and adjustment --------------------------------------------------------------------


def test_finding_kinds() -> None:
    """The table has each kind of finding with its severity, and each has a source."""
    every = (*curves.RULES, *chain.RULES)
    homes = dict.fromkeys(sys.modules[rule.__module__] for rule in every)
    sources_of = "".join(map(inspect.getsource, homes))
    made = re.findall(r'kind="([\w-]+)",\s*severity="(\w+)"', sources_of)
    rules = {rule.__name__.replace("_", "-") for rule in every}
    (signals,) = tables(section(DIAGNOSIS, "Findings"))
    (sources,) = tables(section(TEXTS["docs/appendix.md"], "Where the thresholds come from"))
    assert rules == {kind for kind, _ in made}
    assert set(made) == {(names([row])[0], row[1].partition(",")[0]) for row in signals}
    assert rules == set(names(sources))


def severities(rule: Callable[..., Any]) -> set[str]:
    """Those that a rule, or what it calls to make its finding, may give."""
    tree = ast.parse(inspect.getsource(sys.modules[rule.__module__]))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found, todo = set(), [rule.__name__]
    for name in todo:
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.keyword) and node.arg == "severity":
                constants = [n for n in ast.walk(node) if isinstance(n, ast.Constant)]
                found |= {n.value for n in constants} & {"error", "warning", "info"}
            called = isinstance(node, ast.Call) and getattr(node.func, "id", "")
            todo += [called] if called in functions and called not in todo else []
    return found


def test_finding_kinds_of_data_and_wiring() -> None:
    """The table has each rule over data and wiring, in order, with every severity it may give."""
    rules = (*wiring.RULES, *diagnose_data.RULES)
    rows = tables(section(DIAGNOSIS, "Data and wiring"))[0]
    assert [rule.__name__.replace("_", "-") for rule in rules] == names(rows)
    homes = dict.fromkeys(sys.modules[rule.__module__] for rule in rules)
    sources = "".join(map(inspect.getsource, homes))
    assert set(names(rows)) == set(re.findall(r'kind="([\w-]+)"', sources))
    said = [set(re.findall(r"\b(error|warning|info)\b", row[1])) for row in rows]
    assert [severities(rule) for rule in rules] == said


def test_finding_kinds_of_examples() -> None:
    """The other table has each kind that is found by looking at the examples."""
    sources = [inspect.getsource(module) for module in (dynamics, slices, confusions, courses)]
    made = re.findall(r'kind="([\w-]+)",\s*severity="(\w+)"', "".join(sources))
    severity = re.findall(r'kind=kind,\s*severity="(\w+)"', sources[-1])
    made += [(kind, *severity) for kind in re.findall(r'_of_courses\(\s*"([\w-]+)"', sources[-1])]
    rows = tables(section(DIAGNOSIS, "Failing examples"))[0]
    assert made == [(names([row])[0], re.split("[,;]", row[1])[0]) for row in rows]


def test_stop_reasons() -> None:
    """The table has each stop reason, as they are asked for, and what the summary calls it."""
    asked = re.findall(r'Decision\(\s*"stop", "(\w+)"', inspect.getsource(decide))
    rows = tables(section(DIAGNOSIS, "Stop reasons"))[0]
    assert asked == [names([row])[0] for row in rows]
    assert dict(_STOPS) == {names([row])[0]: names([row], 2)[0] for row in rows}


def test_bounds() -> None:
    """Each setting that the policy moves is in the table, with its bounds."""
    rows = {row[0]: row[1] for row in tables(section(DIAGNOSIS, "Adjustments"))[1]}
    text = " ".join(itertools.chain(*rows.items()))
    assert set() == set(state.DEFAULTS) - set(ticked(text))
    assert f"{', '.join(map(str, state.DROPOUTS))}" == rows[f"`{state.DROPOUT}`"]
    assert f"{', '.join(map(str, state.DECAYS))}" == rows[f"`{state.DECAY}`"]
    numbers = {
        key: re.findall(r"[\d.]+e-\d|\d+", rows[f"`{key}`"]) for key in (state.RATE, state.RANK)
    }
    assert list(state.RATES) == [float(number) for number in numbers[state.RATE]]
    assert list(state.RANKS) == [int(number) for number in numbers[state.RANK]]
    assert f"up to {state.MOST_EPOCHS};" in rows[f"`{state.EPOCHS}`"]


# --- the improvement log -------------------------------------------------------------------------

OPEN = {"metrics", "final", "base", "facts", "environment"}
"""Keys of a record below which other tables, or the user's own names, go on."""


def record_keys(value: Any, above: str) -> set[str]:
    """The dotted keys of a record, `[]` for a list's items."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {key for item in value for key in record_keys(item, f"{above}[]")}
    closed = re.fullmatch(r"settings\.\w+|data\.\w+|findings\[\]\.evidence", above) or above in OPEN
    if not isinstance(value, dict) or closed:
        return {above}
    return {
        key
        for name, item in value.items()
        for key in record_keys(item, f"{above}.{name}".lstrip("."))
    }


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    """The records of a loop of three iterations, with findings and adjustments."""
    result = Loop(fake_loop(tmp_path), runner=FakeTrainer()).run()
    return [yaml.safe_load(f.read_text()) for f in result.files if f.suffix == ".yaml"]


def test_keys_of_a_record(records: list[dict[str, Any]]) -> None:
    """The table has each key that a record holds, and no other."""
    held = {key for record in records for key in record_keys(record, "")}
    held -= {"adjustments", "findings", "decision.next"}  # empty in some: their items' keys count
    assert held == set(names(tables(section(LOG, "The record"))[0]))


def test_keys_of_a_record_are_in_order(records: list[dict[str, Any]]) -> None:
    """The table's order is that of the file."""
    tops = [re.split(r"[.\[]", name)[0] for name in names(tables(section(LOG, "The record"))[0])]
    assert list(records[0]) == list(dict.fromkeys(tops))


def test_facts_and_environment(records: list[dict[str, Any]], tmp_path: Path) -> None:
    """The tables have each fact and each part of the environment, and no other."""
    from trl import SFTConfig

    from pytest_ftloop.train.lora import environment

    _, facts, parts = tables(section(LOG, "The record"))
    assert set(records[0]["facts"]) == set(names(facts))
    config = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    assert set(environment(config)) == set(names(parts))


def test_columns_of_the_examples() -> None:
    """The table has each column of the examples' CSV, in order."""
    assert list(COLUMNS) == names(tables(section(LOG, "The examples"))[0])


def test_schema_version() -> None:
    """The schema version is the code's."""
    assert f"`schema` is {SCHEMA_VERSION}." in section(LOG, "Schema version")


def test_settings_outside_the_fingerprint() -> None:
    """The settings that can't move a figure are all listed, and no other."""
    line = next(x for x in section(LOG, "The fingerprint").split("\n") if "can't move" in x)
    assert set(NEUTRAL) == set(ticked(line)) - {"training"}


# --- examples and links --------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_loop_files_are_valid(page: str, tmp_path: Path) -> None:
    """Each YAML block is a loop file without a mistake."""
    for text in blocks(TEXTS[page], "yaml"):
        file = tmp_path / "shown.ftloop.yaml"
        file.write_text(text, encoding="utf-8")
        assert "shown" == read_loop(file).name


@pytest.mark.parametrize("page", PAGES)
def test_python_compiles_and_its_names_exist(page: str) -> None:
    """Each Python block is valid, and what it imports exists."""
    import importlib

    for text in blocks(TEXTS[page], "python"):
        tree = ast.parse(text)
        compile(tree, page, "exec")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert [] == [a.name for a in node.names if not hasattr(module, a.name)]


def defined(name: str) -> Callable[..., Any]:
    """The function that a Python block of the reference defines."""
    text = next(text for text in blocks(REFERENCE, "python") if f"def {name}(" in text)
    space: dict[str, Any] = {}
    exec(compile(text, "reference.md", "exec"), space)
    function: Callable[..., Any] = space[name]
    return function


def test_shown_hook_scores() -> None:
    """The hook in the reference takes what the plugin passes, and tells right from wrong."""
    score = defined("pytest_ftloop_score")
    assert True is score(output="Positive.", expected="positive", example={})
    assert False is score(output="negative", expected="positive", example={})


def test_shown_hook_finds() -> None:
    """The hook in the reference finds outputs that are empty, and says nothing of others."""
    diagnose = defined("pytest_ftloop_diagnose")
    rows = [fake_example("e1", output="yes"), fake_example("e2", output="")]
    (found,) = diagnose(evidence=SimpleNamespace(results=rows))
    assert (found,) == asked("conftest.py", lambda: [found])
    assert ("empty-outputs", "e2") == (found.kind, found.evidence["first"])
    assert None is diagnose(evidence=SimpleNamespace(results=rows[:1]))


@pytest.mark.skipif(not LOGGED, reason="the quickstart has no committed log")
def test_shown_function_judges() -> None:
    """The function in the reference judges the quickstart's committed log."""
    assert "sentiment" == defined("judged")(QUICKSTART / "sentiment.ftloop.yaml").loop


@pytest.mark.parametrize("page", PAGES)
def test_shell_commands_exist(page: str) -> None:
    """Each console line is a command that exists: a target, an extra, an option."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for text in blocks(TEXTS[page], "console"):
        for line in text.strip().split("\n"):
            assert line.startswith("$ ")
            command, *arguments = shlex.split(line[2:], comments=True)
            match command:
                case "make":
                    assert set() == set(arguments) - set(targets)
                case "pip":
                    assert arguments in (
                        ["install", "pytest-ftloop[train]"],
                        ["install", "pytest-ftloop"],
                    )
                case "pytest":
                    assert set() == {a for a in arguments if a[0] == "-"} - set(options())
                case "ftloop":
                    assert arguments[0] in subparsers()
                case _:
                    assert (ROOT / command).is_file()


def anchors(text: str) -> set[str]:
    """The anchors that a code host makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    """Each link within the repository leads to a file, and to a heading where it names one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[page])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.is_file(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def test_modules_of_the_package() -> None:
    """The contributing guide has a line for each room of the package, and no other."""
    documented = names(tables(section(TEXTS[".github/CONTRIBUTING.md"], "Where things are"))[0])
    assert {f"{p.parent.name}/" for p in PACKAGE.glob("*/__init__.py")} == set(documented)
    assert {"__init__.py", "__main__.py"} == {p.name for p in PACKAGE.glob("*.py")}


# --- the README's quickstart ---------------------------------------------------------------------


def marked(comment: str) -> str:
    """The block after a comment in the README."""
    found = re.search(
        rf"<!-- {re.escape(comment)} -->\n```\w+\n(.*?)^```$",
        TEXTS["README.md"],
        re.DOTALL | re.MULTILINE,
    )
    assert found, comment
    return found[1]


def test_readme_has_the_loop_file() -> None:
    """The README shows the quickstart's loop file as it is."""
    name = "examples/quickstart/sentiment.ftloop.yaml"
    assert (ROOT / name).read_text(encoding="utf-8").strip() == marked(f"file: {name}").strip()


@pytest.mark.skipif(not LOGGED, reason="the quickstart has no committed log")
def test_readme_has_the_logged_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quickstart's output in the README is that of its committed log, but for `[...]`."""
    monkeypatch.chdir(ROOT)
    loop = read_loop(Path("examples/quickstart/sentiment.ftloop.yaml"))

    def plainly(lines: Iterable[str]) -> list[str]:
        """Without the marks of what was trained then, and the spacing they need."""
        bare = (" ".join(line.lstrip("*+ ").split()) for line in lines)
        return [line for line in bare if line not in {"best", "best + trained now", ""}]

    said = "\n".join(plainly(summary(Loop(loop, Options(replay=True)).run(), width=80)))
    shown = marked("output: quickstart").split("\n")
    first = next(i for i, line in enumerate(shown) if "all hold" in line)
    last = next(i for i, line in enumerate(shown) if line.startswith("to commit"))
    assert last - first > 10
    for part in "\n".join(plainly(shown[first:last])).split("[...]\n"):
        _, found, said = said.partition(part)
        assert found, f"not in the summary, or not in this order: {part}"


@pytest.mark.skipif(not LOGGED, reason="the quickstart has no committed log")
def test_readme_has_the_logged_history() -> None:
    """The failing gate in the README shows the figures of the quickstart's committed log."""
    log = ImprovementLog(QUICKSTART / "improvement_log" / "sentiment").read()
    figures = {i.number: f"{100 * i.metrics['pass_rate[negation]']:.1f}%" for i in log}
    history = re.findall(r"^[ *]{4} (\d) +([\d.]+%)", marked("output: failing gate"), re.MULTILINE)
    shown = {int(number): figure for number, figure in history}
    assert figures == {number: shown.get(number) for number in figures}


@pytest.mark.skipif(not LOGGED, reason="the quickstart has no committed log")
def test_readme_test_passes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's test of the quickstart passes on its committed log."""
    monkeypatch.delenv("CI", raising=False)
    shutil.copytree(QUICKSTART, pytester.path, dirs_exist_ok=True)
    pytester.makepyfile(test_readme=marked("runs: with the quickstart's log"))
    result = pytester.runpytest_inprocess(
        "-W", "ignore::pytest.PytestAssertRewriteWarning", "--ftloop-replay", "test_readme.py"
    )
    result.assert_outcomes(passed=1)


def test_stale_log_is_said_as_shown(tmp_path: Path) -> None:
    """What the README shows of an outdated log is the message of one, but for names."""
    config = fake_loop(tmp_path)
    Loop(config, runner=FakeTrainer()).run()
    changed = fake_loop(tmp_path, rate=3e-4)
    with pytest.raises(FtloopError) as caught:
        Loop(changed, Options(replay=True)).run()
    said = re.sub(r"log of \w+|\d{3}-\w{8}", "_", str(caught.value)).replace(
        f"{config.source}: ", ""
    )
    assert re.sub(r"\s+", " ", said) in re.sub(
        r"\s+", " ", re.sub(r"log of \w+|\d{3}-\w{8}", "_", TEXTS["README.md"])
    )
