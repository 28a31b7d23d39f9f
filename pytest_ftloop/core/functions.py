"""Find, import and check a user's function, which a loop file names as `module:function`."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.errors import ConfigError, Location, did_you_mean, shown_path
from pytest_ftloop.core.modules import FolderModules, own_modules

if TYPE_CHECKING:
    from types import ModuleType


def load_function(
    role: str,
    name: str,
    parameters: Sequence[str],
    folder: Path | None,
    where: Location | None,
    *,
    by_name: Sequence[str] = (),
) -> Callable[..., object]:
    """The function that `module:function` names. Raises `ConfigError` if it can't be called.

    A function whose parameters are all among `by_name` is given those, in any order. It is called
    as the others are: with a value for each of `parameters`, then for the rest of `by_name`.

    `role` is its purpose in messages (`scorer`), `parameters` are the names of its arguments,
    `where` is the place of the setting. The module is looked for in `folder` first. Imports within
    a call of the function find the modules of `folder`, too, and never those of another loop.
    """
    called = ", ".join(parameters)
    module_name, _, function_name = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), function_name]):
        raise ConfigError(
            f"{role} {name!r}: wanted module:function, such as my_module:my_function",
            where=where,
        )
    modules = own_modules(folder)
    module = _import(f"{role} {name!r}", module_name, modules, folder, where)
    function = getattr(module, function_name, None)
    if function is None:
        offered = [key for key, v in vars(module).items() if callable(v) and key[0] != "_"]
        raise ConfigError(
            f"{role} {name!r}: {module_name} has no function {function_name!r}",
            where=where,
            cure=did_you_mean(function_name, offered) if offered else "It defines no function.",
        )
    if not callable(function):
        raise ConfigError(
            f"{role} {name!r}: wanted a function, found {type(function).__name__}", where=where
        )
    own = _top(module_name) in modules.own
    here = _with_modules(function, modules) if own else function
    if by_name and (names := _parameters(function)) and set(names) <= set(by_name):
        return _by_name(here, names, by_name)
    # Better now than after an hour of training. A builtin may have no signature to check.
    with suppress(ValueError):
        try:
            inspect.signature(function).bind(*parameters)
        except TypeError as error:
            raise ConfigError(
                f"{role} {name!r} can't be called as function({called}): {error}",
                where=where,
                cure=f"Define it as def {function_name}({called}): ...",
            ) from error
    return _of_the_first(here, len(parameters)) if by_name else here


def _by_name(
    function: Callable[..., object], names: Sequence[str], order: Sequence[str]
) -> Callable[..., object]:
    """The function of all values in `order`, which hands on those that it has a name for."""

    @functools.wraps(function, updated=())
    def call(*values: object) -> object:
        given = dict(zip(order, values, strict=True))
        return function(**{name: given[name] for name in names})

    return call


def _of_the_first(function: Callable[..., object], count: int) -> Callable[..., object]:
    """The function, called with the first `count` of its values."""

    @functools.wraps(function, updated=())
    def call(*values: object) -> object:
        return function(*values[:count])

    return call


def _parameters(function: Callable[..., object]) -> list[str]:
    """The names of a function's parameters; none if they can't be given by name, or are unknown."""
    with suppress(ValueError, TypeError):
        found = inspect.signature(function).parameters.values()
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return [p.name for p in found] if all(p.kind in by_name for p in found) else []
    return []


def _with_modules(function: Callable[..., object], modules: FolderModules) -> Callable[..., object]:
    @functools.wraps(function, updated=())
    def call(*arguments: object, **named: object) -> object:
        with modules.in_use():
            return function(*arguments, **named)

    return call


def _import(
    said: str,
    module_name: str,
    modules: FolderModules,
    folder: Path | None,
    where: Location | None,
) -> ModuleType:
    top = _top(module_name)
    if top in modules.taken:
        raise ConfigError(
            f"{said}: {top} in {shown_path(modules.path)} has the name of a module in "
            f"{modules.taken[top]}",
            where=where,
            cure="Rename it.",
        )
    importlib.invalidate_caches()
    try:
        with modules.in_use():
            module = importlib.import_module(module_name)
            ambiguous = modules.ambiguous_import()
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise ConfigError(
                f"{said}: there is no module {missing!r}",
                where=where,
                cure=_where_modules_are(missing, folder),
            ) from error
        raise ConfigError(
            f"{said}: importing {module_name} raised {described(error)}",
            where=where,
            cure=f"It was raised at {raised_at(error)}.",
        ) from error
    if ambiguous:
        place, imported = ambiguous
        raise ConfigError(
            f"{said}: {place} imports {imported}, which is both in {shown_path(modules.path)} "
            f"and in {modules.taken[imported]}",
            where=where,
            cure=f"Rename {imported} in {shown_path(modules.path)}.",
        )
    return module


def _top(module_name: str) -> str:
    return module_name.partition(".")[0]


def _where_modules_are(missing: str, folder: Path | None) -> str:
    parent = missing.rpartition(".")[0]
    if parent:
        paths = list(getattr(sys.modules.get(parent), "__path__", ()))
    else:
        paths = [str(folder)] if folder else []
    prefix = f"{parent}." if parent else ""
    names = [prefix + module.name for module in pkgutil.iter_modules(paths)]
    guess = f" {did_you_mean(missing, names)}" if names else ""
    place = f"Put it in {folder}, or install it." if folder else "Install it."
    return place + guess


def described(error: BaseException) -> str:
    """The type and message of an exception."""
    name, message = type(error).__name__, str(error)
    return f"{name}: {message}" if message else name


def raised_at(error: BaseException, file: str | None = None) -> str:
    """Where an exception was raised: the innermost line in `file`, or else of all."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = ([frame for frame in frames if frame.filename == file] or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"
