"""Which columns of a row a user's scorer reads, by its source: nothing is imported or called.

A column that the scorer reads is part of what scores an example, so that a change of it makes the
log out of date; a change of one that it does not read is none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from pytest_ftloop.core.bounds import read_bytes
from pytest_ftloop.core.definitions import SourceFile, parsed
from pytest_ftloop.core.modules import source_of
from pytest_ftloop.core.sources import hook_files

ROW, PLACE = "example", 2
"""The parameter of a scorer that takes the row, and its place if they are not taken by name."""

BY_NAME = frozenset({"output", "expected", ROW, "prompt"})
"""The parameters that a scorer may take by name, in any order."""

_DYNAMIC = frozenset({"locals", "vars", "eval", "exec"})
"""With one of these a function can read a parameter without its name."""


def function_columns(name: str, folder: Path) -> frozenset[str] | None:
    """The columns that the scorer `module:function` reads; None for any, if that can't be told."""
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in module.split(".")):
        return frozenset()  # loading it is an error that says so
    file = source_of(module, folder)
    if file is None or file.suffix != ".py":
        return None
    return _columns([parsed(read_bytes(file))], function)


def hook_columns(hook: str, folder: Path) -> frozenset[str] | None:
    """The columns that a scoring hook of a folder's loops reads; None for any."""
    return _columns(list(hook_files(hook, folder)), hook)


def _columns(sources: Iterable[SourceFile], function: str) -> frozenset[str] | None:
    found = [_of_function(source, function) for source in sources]
    known = [columns for columns in found if columns is not None]
    return frozenset().union(*known) if found and len(known) == len(found) else None


def _of_function(source: SourceFile, name: str) -> frozenset[str] | None:
    """The columns that a plain function at the top of a file reads of its row."""
    function = source.plain_function(name)
    if function is None:
        return None
    arguments = function.args
    plain = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    every = [*plain, *(a.arg for a in arguments.kwonlyargs)]
    if arguments.vararg or arguments.kwarg:
        return None
    row = ROW if BY_NAME.issuperset(every) else (*plain, "", "", "")[PLACE]
    return _constant_keys(function, row) if row in every else frozenset()


def _constant_keys(function: ast.AST, row: str) -> frozenset[str] | None:
    """The keys in `row["key"]` and `row.get("key")`; None if the row is used in any other way."""
    keys: set[str] = set()
    plain: set[int] = set()
    uses: list[ast.Name] = []
    for node in ast.walk(function):
        key: ast.AST | None = None
        value: ast.AST | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            value, key = node.value, node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr == "get":
                value, key = node.func.value, node.args[0]
        elif isinstance(node, ast.Name):
            if node.id in _DYNAMIC:
                return None
            uses += [node] if node.id == row else []
        if isinstance(value, ast.Name) and value.id == row and isinstance(key, ast.Constant):
            keys.add(str(key.value))
            plain.add(id(value))
    return frozenset(keys) if all(id(use) in plain for use in uses) else None
