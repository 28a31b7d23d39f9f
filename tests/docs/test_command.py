"""The reference's commands, their options and exit codes are those of the code."""

from __future__ import annotations

import re
import shlex

import pytest

from pytest_ftloop.cli.command import BROKEN_PIPE, ERROR, FAILED, HOLDS, INTERRUPTED, STALE
from pytest_ftloop.cli.main import COMMANDS
from tests.docs.offered import subparsers
from tests.docs.pages import PAGES, REFERENCE, TEXTS, blocks, names, section, tables, ticked, words


def test_commands() -> None:
    """Each command has a section, in order, and there is no other."""
    found = re.findall(r"^### ftloop (\w+)$", REFERENCE, re.MULTILINE)
    assert [command.name for command in COMMANDS] == found


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
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
    codes = [HOLDS, FAILED, ERROR, STALE, INTERRUPTED, BROKEN_PIPE]
    assert codes == [int(row[0]) for row in tables(section(REFERENCE, "Exit codes"))[0]]
