"""The source code behind a user's function or hook: its own text and the local modules it imports.

It is found by reading files, without importing them and without pytest: `ftloop gate` and pytest
find the same. A module is local if its file is beside the importing code (in the folder that its
own import starts from), in a folder above that in the repository, in `src/` there, or in a folder
of pytest's `pythonpath`. Installed packages and the standard library do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import abspath, relpath
from pathlib import Path

from pytest_ftloop.core.bounds import read_bytes
from pytest_ftloop.core.definitions import SourceFile, importing, parsed
from pytest_ftloop.core.files import real
from pytest_ftloop.core.modules import source_of

CONFTEST = "conftest.py"

_PYTHONPATH = re.compile(r"^pythonpath\s*=\s*(\[[^\]]*\]|.*(?:\n[ \t]+\S.*)*)", re.MULTILINE)
"""pytest's setting `pythonpath`: a list in TOML, words in an ini file."""

INI_FILES = (
    "pytest.toml",
    ".pytest.toml",
    "pytest.ini",
    ".pytest.ini",
    "pyproject.toml",
    "tox.ini",
    "setup.cfg",
)
"""The files in which pytest looks for its settings."""

_PLUGIN = re.compile(r"""(?:^|[\s"'=\[,])-p(?:["',]*\s*)["']?([A-Za-z_][\w.]*)""")
"""A plugin that pytest's setting `addopts` loads: `-p name`, in one word or two."""

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def function_source(module: str, folder: Path) -> str | None:
    """A hash of the source of a user's module; None if it has no source file.

    Without local imports it is the hash of the module's own text.
    """
    file = source_of(module, folder)
    if file is None:
        return None
    own = parsed(read_bytes(file))
    if _is_installed(file):
        return _hash([own.text], {})
    parts = module.split(".")
    root = file.parents[len(parts) - (file.name != "__init__.py")]
    imports = _Imports({file: None})
    imports.add((root, package) for package in _files(root, parts))
    imports.follow(file, root, own.importing)
    return _hash([own.text], imports.texts)


def hook_source(hook: str, folder: Path) -> str | None:
    """A hash of the source that implements a hook for the loops in a folder; None if nothing does.

    That is the nearest conftest.py that defines the hook, from the folder upwards to the root of
    the repository; of it, the part that the hook depends on. If its answer may be None, pytest asks
    the next one, which then counts too. Local plugins of pytest's `addopts` are asked last.
    """
    texts: list[bytes] = []
    imports = _Imports()
    is_decided = False
    start = Path(abspath(folder))  # noqa: PTH100 - resolve() would follow links, pytest does not
    for file in (place / CONFTEST for place in _above(start)):
        for implementing, root, source in _implementations(file, hook):
            # One with a decorator may be called before the nearest.
            if is_decided and not source.is_decorated(hook):
                continue
            text, statements = source.part_of(hook)
            texts.append(text)
            imports.follow(implementing, root, importing(statements))
            is_decided = is_decided or source.always_answers(hook)
    # pytest asks the plugins of its settings last: they are there before any conftest.py.
    for root, file in _plugins_of_settings(start):
        source = parsed(_content(file))
        if source.defines(hook) and not (is_decided and not source.is_decorated(hook)):
            text, statements = source.part_of(hook)
            texts.append(text)
            imports.follow(file, root, importing(statements))
    return _hash(texts, imports.texts) if texts else None


def hook_files(hook: str, folder: Path) -> Iterator[SourceFile]:
    """Every local file that may implement a hook for the loops in a folder."""
    start = Path(abspath(folder))  # noqa: PTH100 - as in hook_source
    for file in (place / CONFTEST for place in _above(start)):
        yield from (source for _, _, source in _implementations(file, hook))
    for _, file in _plugins_of_settings(start):
        if (source := parsed(_content(file))).defines(hook):
            yield source


@dataclass(frozen=True)
class _Imports:
    """The local modules that code imports, each with its text; None for one counted elsewhere."""

    found: dict[Path, tuple[str, bytes] | None] = field(default_factory=dict)

    @property
    def texts(self) -> dict[str, bytes]:
        """The texts by the modules' paths from the folders that their imports start from."""
        return dict(sorted(entry for entry in self.found.values() if entry is not None))

    def follow(self, file: Path, root: Path, nodes: Sequence[ast.AST]) -> None:
        """Add what these parts of a file import, directly or not."""
        self.add(_imported(file, root, nodes))

    def add(self, modules: Iterable[tuple[Path, Path]]) -> None:
        """Add modules, each by the root that it was found from and its file, and their imports."""
        waiting = list(modules)
        while waiting:
            root, file = waiting.pop()
            if file not in self.found:
                source = parsed(_content(file))
                name = Path(relpath(file, root)).as_posix()
                self.found[file] = (name, source.text) if source.does_something else None
                waiting += _imported(file, root, source.importing)


def _implementations(conftest: Path, hook: str) -> Iterator[tuple[Path, Path, SourceFile]]:
    """The files by which a conftest.py implements a hook, each with the root of its imports.

    Plugins that it names come first, since pytest registers them later and so asks them first.
    """
    text = _content(conftest) if conftest.is_file() else b""
    # Most conftest.py files have nothing to do with the hook, and are not parsed.
    if not any(word in text for word in (hook.encode(), b"pytest_plugins", b"import *")):
        return
    source, root = parsed(text), _root_of(conftest)
    for statement in source.statements:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and _binds(
            statement, "pytest_plugins"
        ):
            for node in ast.walk(statement):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    parts = node.value.split(".")
                    for place, file in _found_from(root, parts):
                        plugin = parsed(_content(file))
                        if plugin.defines(hook):
                            yield file, place, plugin
    stars = [s for s in source.statements if isinstance(s, ast.ImportFrom) and _has_star(s)]
    is_starred = any(
        parsed(_content(file)).defines(hook) for _, file in _imported(conftest, root, stars)
    )
    is_unparsed = source.tree is None and hook.encode() in text
    if source.defines(hook) or is_starred or is_unparsed:
        yield conftest, root, source


def _plugins_of_settings(folder: Path) -> Iterator[tuple[Path, Path]]:
    """The local modules that pytest's settings load as plugins: each one's root, and its file."""
    for place in _above(folder):
        for name in INI_FILES:
            text = _content(place / name).decode(errors="replace")
            for plugin in _PLUGIN.findall(text) if "addopts" in text else ():
                yield from _found_from(place, plugin.split("."))


def _imported(file: Path, root: Path, nodes: Sequence[ast.AST]) -> Iterator[tuple[Path, Path]]:
    """The local modules that parts of a file import: each one's root, and its file."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _found_from(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            for alias in node.names:
                wanted = [*parts, *([] if alias.name == "*" else [alias.name])]
                if node.level:
                    package = file.parents[min(node.level, len(file.parents)) - 1]
                    own = [found for found in [package / "__init__.py"] if found.is_file()]
                    yield from ((root, found) for found in [*own, *_files(package, wanted)])
                else:
                    yield from _found_from(root, wanted)
        elif isinstance(node, ast.Call) and node.args:
            named = node.args[0]
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield from _found_from(root, named.value.split("."))


def _found_from(root: Path, parts: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """The files that an absolute import runs, from the nearest folder that has any of them."""
    if parts[0] in sys.stdlib_module_names:
        return
    for place in _places(root):
        if files := _files(place, parts):
            yield from ((place, file) for file in files)
            return


def _places(root: Path) -> Iterator[Path]:
    """Where a module of the repository may be, for code whose imports start from `root`."""
    above = _above(root)
    yield from (place for folder in above for place in (folder, folder / "src"))
    for folder in above:  # pytest's own setting is read only for what is in none of these
        for name in INI_FILES:
            text = _content(folder / name).decode(errors="replace")
            for stated in _PYTHONPATH.findall(text):
                yield from (folder / part for part in re.findall(r"[^\s\[\],\"']+", stated))


def _files(root: Path, parts: Sequence[str]) -> list[Path]:
    """The files of the packages and of the module that importing `parts` from `root` runs."""
    files = []
    for length in range(1, len(parts) + 1):
        path = root.joinpath(*parts[:length])
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                files.append(file)
                break
    return files


def _above(folder: Path) -> Sequence[Path]:
    """A folder and those above it, up to the root of its repository."""
    places = []
    for place in (folder, *folder.parents):
        places.append(place)
        if (place / ".git").exists():
            break
    return places


def _root_of(file: Path) -> Path:
    """The folder that a file's absolute imports start from: the first that is no package."""
    return next(place for place in file.parents if not (place / "__init__.py").is_file())


def _is_installed(file: Path) -> bool:
    stdlib = real(Path(sysconfig.get_path("stdlib")))
    return bool(_INSTALLED & set(file.parts)) or stdlib in real(file).parents


def _content(file: Path) -> bytes:
    try:
        return read_bytes(file)
    except OSError:  # a module that can't be read can't be imported either
        return b""


def _binds(statement: ast.Assign | ast.AnnAssign, name: str) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def _has_star(statement: ast.ImportFrom) -> bool:
    return any(alias.name == "*" for alias in statement.names)


def _hash(texts: Sequence[bytes], imports: Mapping[str, bytes]) -> str:
    """A hash of texts in this order, and of imported modules; of a lone text, that of the text."""
    if len(texts) == 1 and not imports:
        return hashlib.sha256(texts[0]).hexdigest()
    digests = [hashlib.sha256(text).hexdigest() for text in texts]
    imported = [(name, hashlib.sha256(text).hexdigest()) for name, text in imports.items()]
    return hashlib.sha256(json.dumps([digests, imported]).encode()).hexdigest()
