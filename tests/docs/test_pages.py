"""Examples, commands and links of every page work."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.loop_config import read_loop_file as read_loop
from pytest_ftloop.diagnose.custom import findings_of_hook
from tests.docs.offered import options, subparsers
from tests.docs.pages import (
    LOGGED,
    PAGES,
    QUICKSTART,
    REFERENCE,
    ROOT,
    TEXTS,
    blocks,
    prose,
    ticked,
)
from tests.fakes import fake_example

if TYPE_CHECKING:
    from collections.abc import Callable


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
    """The hook in the reference reports empty outputs, and no others."""
    diagnose = defined("pytest_ftloop_diagnose")
    rows = [fake_example("e1", output="yes"), fake_example("e2", output="")]
    (found,) = diagnose(evidence=SimpleNamespace(results=rows))
    assert (found,) == findings_of_hook("conftest.py", lambda: [found])
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
                    # The index has no package of this name: a reference to the repository.
                    at = "git+https://github.com/OWNER/pytest-ftloop@COMMIT"
                    assert arguments in (
                        ["install", f"pytest-ftloop[train] @ {at}"],
                        ["install", f"pytest-ftloop @ {at}"],
                    )
                case "pytest":
                    assert set() == {a for a in arguments if a[0] == "-"} - set(options())
                case "ftloop":
                    assert arguments[0] in subparsers()
                case _:
                    assert (ROOT / command).is_file()


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_file_that_does_not_exist(page: str) -> None:
    """Each path below the repository that a page names, also in a command, exists."""
    folders = "benchmarks|docs|examples|pytest_ftloop|tests"
    paths = re.findall(rf"(?<![\w./])(?:{folders})/[\w./-]*\w", "\n".join(ticked(TEXTS[page])))
    assert [] == [path for path in paths if not (ROOT / path).exists()]


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
