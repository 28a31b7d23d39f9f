"""The part of a source file that decides what a function does: its text, read without importing.

A conftest.py holds fixtures beside a hook. Editing a fixture must not make a log out of date, and
editing a helper of the hook must. So a function counts with every statement of the file that it may
depend on: those that define the names it uses, directly or not, and those that may change them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

_DYNAMIC = frozenset({"globals", "exec", "eval"})
"""With one of these a file can use a name without writing it, so all of the file counts."""

_MUTATORS = frozenset(
    {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "reverse"}
    | {"setdefault", "sort", "update"}
)
"""Methods that change a list, set or dict."""

_IMPORTERS = frozenset({"import_module", "__import__", "importorskip"})
"""Functions that import the module whose name they are given."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class SourceFile:
    """The text of a Python file, with LF as its line end. Without `tree` it can't be parsed."""

    text: bytes
    tree: ast.Module | None

    @property
    def statements(self) -> Sequence[ast.stmt]:
        """The statements at the top of the file."""
        return self.tree.body if self.tree else ()

    @property
    def does_something(self) -> bool:
        """Whether there is a statement besides comments and docstrings."""
        if self.tree is None:
            return bool(self.text.strip())
        return any(
            not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
            for s in self.statements
        )

    def defines(self, name: str) -> bool:
        """Whether the file defines a name: at its top, or as a method of a class."""
        return any(name in _bound(statement) for statement in self.statements) or any(
            isinstance(node, Function) and node.name == name for node in self._nodes
        )

    def always_answers(self, name: str) -> bool:
        """Whether a plain function of this name is sure to return something but None."""
        function = self.plain_function(name)
        if function is None:
            return False
        returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
        return _returns(function.body) and not any(map(_none, returned))

    def plain_function(self, name: str) -> ast.FunctionDef | None:
        """The function of this name, if it is at the top, without decorators, and bound once."""
        found = [s for s in self.statements if name in _bound(s)]
        if len(found) != 1 or not isinstance(found[0], ast.FunctionDef):
            return None
        return None if found[0].decorator_list else found[0]

    def is_decorated(self, name: str) -> bool:
        """Whether a function of this name has a decorator."""
        return any(
            isinstance(node, Function) and node.name == name and node.decorator_list
            for node in self._nodes
        )

    def part_of(self, name: str) -> tuple[bytes, Sequence[ast.stmt]]:
        """The text that a top-level name depends on, and its statements.

        All of the file, if that can't be told.
        """
        names = {node.id for node in self._nodes if isinstance(node, ast.Name)}
        if names & _DYNAMIC or not any(name in _bound(s) for s in self.statements):
            return self.text, self.statements
        wanted, part = {name}, set[int]()
        bound = set().union(*map(_bound, self.statements))
        grew = True
        while grew:
            grew = False
            for number, statement in enumerate(self.statements):
                if number not in part and self._counts(statement, wanted):
                    part.add(number)
                    wanted |= _mentioned(statement) & bound
                    grew = True
        chosen = [self.statements[number] for number in sorted(part)]
        lines = self.text.split(b"\n")
        texts = [b"\n".join(lines[_first_line(s) - 1 : s.end_lineno]) for s in chosen]
        return b"\n".join(texts), chosen

    def _counts(self, statement: ast.stmt, wanted: set[str]) -> bool:
        """Whether a statement may determine one of the wanted names."""
        if isinstance(statement, ast.ImportFrom) and any(a.name == "*" for a in statement.names):
            return True
        if isinstance(statement, ast.Import) and not (_bound(statement) & self._mentioned_names):
            return True  # imported for what the import does
        return bool(_bound(statement) & wanted or _changed(statement) & wanted)

    @cached_property
    def importing(self) -> Sequence[ast.AST]:
        """The parts of the file that import."""
        return importing(self.statements)

    @cached_property
    def _nodes(self) -> Sequence[ast.AST]:
        return tuple(ast.walk(self.tree)) if self.tree else ()

    @cached_property
    def _mentioned_names(self) -> frozenset[str]:
        return frozenset(node.id for node in self._nodes if isinstance(node, ast.Name))


@lru_cache(maxsize=512)
def parsed(content: bytes) -> SourceFile:
    """A file's content, parsed once: the loops of a repository share much of what they import."""
    text = content.replace(b"\r\n", b"\n")
    try:
        return SourceFile(text, ast.parse(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return SourceFile(text, None)


def importing(statements: Sequence[ast.stmt]) -> Sequence[ast.AST]:
    """The parts of statements that import: import statements, and calls such as import_module."""
    return tuple(
        node
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Call) and _called(node) in _IMPORTERS)
    )


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _first_line(statement: ast.stmt) -> int:
    decorators: Sequence[ast.expr] = getattr(statement, "decorator_list", ())
    return min([statement.lineno, *(d.lineno for d in decorators)])


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement binds."""
    if isinstance(statement, Function | ast.ClassDef):
        return {statement.name}
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(a.asname or a.name).partition(".")[0] for a in node.names}
    return names


def _mentioned(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _changed(statement: ast.stmt) -> set[str]:
    """The names of objects that a statement may change, in a function too."""
    names: set[str | None] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Global):
            names |= set(node.names)
        elif isinstance(node, ast.Attribute | ast.Subscript):
            is_called = isinstance(node, ast.Attribute) and node.attr in _MUTATORS
            if is_called or not isinstance(node.ctx, ast.Load):
                names.add(_root(node))
        elif isinstance(node, ast.Call):
            names |= {arg.id for arg in node.args if isinstance(arg, ast.Name)}
    return {name for name in names if name}


def _root(node: ast.expr) -> str | None:
    """The name that an expression such as `a.b[0].c` begins with."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _returns(body: Sequence[ast.stmt]) -> bool:
    """Whether these statements are sure to return or raise."""
    last = body[-1]
    if isinstance(last, ast.If):
        return bool(last.orelse) and _returns(last.body) and _returns(last.orelse)
    if isinstance(last, ast.With):
        return _returns(last.body)
    return isinstance(last, ast.Return | ast.Raise)


def _none(value: ast.expr | None) -> bool:
    """Whether a returned value may be None, as far as it is written out."""
    nodes: Iterator[ast.AST] = iter(()) if value is None else ast.walk(value)
    return value is None or any(isinstance(n, ast.Constant) and n.value is None for n in nodes)
