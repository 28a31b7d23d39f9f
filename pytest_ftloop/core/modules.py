"""The modules in a loop's folder, kept apart from modules of the same name elsewhere.

Python keeps an imported module by its name. Two loops that each have a `rows.py` or a package
`rows/` beside their loop file would share the one that is imported first. While
`own_modules(folder).in_use()` lasts, an import finds the folder's own modules first, and modules
that other folders have under these names are set aside.

A module with the name of an installed one, or of one of Python's own, can't be kept apart: code of
others may need that one at any time. It is never imported from the folder, and code that would
have to choose between the two is refused.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from pytest_ftloop.core.bounds import read_bytes
from pytest_ftloop.core.errors import Location
from pytest_ftloop.core.files import real

_loaded: dict[Path, dict[str, ModuleType]] = {}
"""The top-level modules that were imported from each folder, by name."""

_displaced: dict[Path, dict[str, ModuleType]] = {}
"""The modules of each folder that are not in `sys.modules`, where others have their names."""


@dataclass(frozen=True)
class FolderModules:
    """The names of the top-level modules in a folder; also the finder that imports them.

    Modules in `own` are imported from the folder. Those in `taken` are not, since an installed
    module has the name; the value is the place of that one.
    """

    path: Path
    own: frozenset[str]
    taken: Mapping[str, str]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let imports find the folder's own modules.

        Afterwards they stay in `sys.modules`, unless the names belong to modules of others.
        """
        aside = _pop(self._names_of_others())
        for name, module in _displaced.pop(self.path, {}).items():
            sys.modules.setdefault(name, module)
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)
            found = {name: sys.modules[name] for name in self.own if name in sys.modules}
            _loaded.setdefault(self.path, {}).update(found)
            if aside:
                _displaced[self.path] = _pop(_top(name) for name in aside)
                sys.modules.update(aside)

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,  # noqa: ARG002 - a finder is called with it
    ) -> ModuleSpec | None:
        """The spec of an own module, as the import system asks for it."""
        return _spec_in(self.path, name) if path is None and name in self.own else None

    def ambiguous_import(self) -> tuple[Location, str] | None:
        """The first place where an own module imports a `taken` name, with that name, or None."""
        if not self.taken:
            return None
        modules = {name: m for name, m in sys.modules.items() if _top(name) in self.own}
        for file in filter(None, (getattr(m, "__file__", None) for m in modules.values())):
            for line, name in _imports(Path(file)):
                if name in self.taken:
                    return Location(file, line), name
        return None

    def _names_of_others(self) -> set[str]:
        """The own names under which other modules are imported, and the names of other loops'.

        Modules that are on `sys.path` as well may be used by any loop, and are left out.
        """
        mine = _loaded.get(self.path, {})
        present = {name: sys.modules[name] for name in self.own if name in sys.modules}
        names = {
            name
            for name, module in present.items()
            if mine.get(name) is not module and not _is_in(self.path, module)
        }
        for path, modules in _loaded.items():
            if path != self.path:
                names |= {
                    name
                    for name, module in modules.items()
                    if name not in self.own
                    and sys.modules.get(name) is module
                    and not _is_on_path(name, module)
                }
        return names


def own_modules(folder: Path | None) -> FolderModules:
    """The modules that can be imported from a loop's folder."""
    own, taken = set(), {}
    path = real(folder) if folder else Path()
    entries = path.iterdir() if folder and path.is_dir() else ()
    for name in {entry.name.partition(".")[0] for entry in entries}:
        if not name.isidentifier() or name.startswith("__"):
            continue
        spec = _spec_in(path, name)
        other = _place_of_installed(name)
        if spec and spec.origin:
            if other:
                taken[name] = other
            else:
                own.add(name)
        elif spec and not other and not _has_file(PathFinder.find_spec(name)):
            own.add(name)  # a folder without __init__.py, to which Python prefers any other module
    return FolderModules(path, frozenset(own), taken)


def source_of(module: str, folder: Path) -> Path | None:
    """The file of a module in the folder, or else of an installed one, without importing it."""
    top, *rest = module.split(".")
    with own_modules(folder).in_use():
        try:
            spec = find_spec(top)
        except ValueError:  # a module without a spec: __main__, say
            return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.has_location else None
    for place in spec.submodule_search_locations or ():
        path = Path(place, *rest)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
    return None


def _spec_in(folder: Path, name: str) -> ModuleSpec | None:
    spec = PathFinder.find_spec(name, [str(folder)])
    if spec is None or spec.origin:
        return spec
    # A folder without __init__.py, which Python would extend by namesakes on sys.path.
    alone = ModuleSpec(name, None, is_package=True)
    alone.submodule_search_locations = [str(folder / name)]
    return alone


def _place_of_installed(name: str) -> str | None:
    """The place of a standard or installed module of this name; None if there is none."""
    if name in sys.stdlib_module_names:
        return "Python's standard library"
    folders = [p for p in sys.path if Path(p).name in {"site-packages", "dist-packages"}]
    spec = PathFinder.find_spec(name, folders)
    return spec.origin if spec else None


def _has_file(spec: ModuleSpec | None) -> bool:
    return spec is not None and spec.origin is not None


def _is_in(folder: Path, module: ModuleType) -> bool:
    """Whether a top-level module, with all of its parts, is directly in the folder."""
    places = [*getattr(module, "__path__", ())] or [getattr(module, "__file__", None) or "/"]
    return all(real(Path(place).parent) == folder for place in places)


def _is_on_path(name: str, module: ModuleType) -> bool:
    spec = PathFinder.find_spec(name)
    return spec is not None and spec.origin is not None and spec.origin == module.__file__


def _pop(tops: Iterable[str]) -> dict[str, ModuleType]:
    """Remove these top-level modules and their submodules from `sys.modules`."""
    names = set(tops)
    found = [name for name in sys.modules if _top(name) in names] if names else []
    return {name: sys.modules.pop(name) for name in found}


def _top(name: str) -> str:
    return name.partition(".")[0]


def _imports(file: Path) -> Iterator[tuple[int, str]]:
    """The line and name of each top-level module that a source file imports."""
    try:
        tree = ast.parse(read_bytes(file))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # no source file
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, _top(alias.name)) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, _top(node.module or "")
