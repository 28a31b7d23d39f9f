"""A loop's own modules: found beside its file, and never mistaken for others of their name."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_ftloop.core.errors import ConfigError, Location
from pytest_ftloop.core.functions import load_function
from pytest_ftloop.core.modules import own_modules, source_of

Write = Callable[[str, str | bytes], Path]
WHERE = Location("x.ftloop.yaml", 3)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Each test leaves the import system as it was, but for what it imported from its folders."""
    path, finders, modules = list(sys.path), list(sys.meta_path), dict(sys.modules)
    yield
    assert (path, finders) == (sys.path, sys.meta_path)
    assert modules == {name: sys.modules.get(name) for name in modules}
    for name in [name for name in sys.modules if name.startswith("fl_")]:
        del sys.modules[name]


def call(name: str, folder: Path) -> Any:
    """What the function returns, found for a loop in this folder."""
    return load_function("data function", name, (), folder, WHERE)()


def refused(name: str, folder: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        call(name, folder)
    assert WHERE == caught.value.where
    return caught.value


# two loops

LAYOUTS = {
    # how a loop's code is laid out: the function, and its files, in which WORD is the loop's name
    "module": ("fl_m:f", {"fl_m.py": "def f(): return 'WORD'"}),
    "package": ("fl_p:f", {"fl_p/__init__.py": "def f(): return 'WORD'"}),
    "submodule": ("fl_p.a:f", {"fl_p/__init__.py": "", "fl_p/a.py": "def f(): return 'WORD'"}),
    "import in __init__": (
        "fl_p:f",
        {"fl_p/__init__.py": "from fl_p.a import f", "fl_p/a.py": "def f(): return 'WORD'"},
    ),
    "relative import": (
        "fl_p.a:f",
        {
            "fl_p/__init__.py": "from .b.c import g",
            "fl_p/a.py": "from . import g as f",
            "fl_p/b/__init__.py": "",
            "fl_p/b/c.py": "from ..d import WORDS\ndef g(): return WORDS[0]",
            "fl_p/d.py": "WORDS = ['WORD']",
        },
    ),
    "folder without __init__": (
        "fl_n.a:f",
        {"fl_n/a.py": "from .b import f", "fl_n/b.py": "def f(): return 'WORD'"},
    ),
    "other module imported": (
        "fl_WORD:f",
        {"fl_WORD.py": "from fl_help import f", "fl_help.py": "def f(): return 'WORD'"},
    ),
    "import when called": (
        "fl_m:f",
        {"fl_m.py": "def f():\n from fl_p.a import g\n return g()"}
        | {"fl_p/a.py": "def g():\n import fl_o\n return fl_o.N", "fl_o.py": "N = 'WORD'"},
    ),
    "module beside its package": (
        "fl_p:f",
        {"fl_p/__init__.py": "def f(): return 'WORD'", "fl_p.py": "def f(): return 'neither'"},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_loop_has_its_own(layout: str, write: Write, tmp_path: Path) -> None:
    """Two loops with namesakes run their own code, whichever was imported first."""
    name, files = LAYOUTS[layout]
    functions = {}
    for loop in ("one", "two", "three"):
        for file, text in files.items():
            write(f"{loop}/{file}".replace("WORD", loop), text.replace("WORD", loop))
        function_name = name.replace("WORD", loop)
        functions[loop] = load_function("scorer", function_name, (), tmp_path / loop, None)
        source = source_of(function_name.partition(":")[0], tmp_path / loop)
        assert source
        assert source.is_relative_to(tmp_path / loop)
        assert "neither" not in source.read_text()
    for loop in ("one", "three", "two", "three", "one"):
        assert loop == functions[loop]()


def test_generator(write: Write, tmp_path: Path) -> None:
    """What a generator imports as it goes on is the folder's own while its modules are in use."""
    for loop in ("one", "two"):
        write(f"{loop}/fl_g.py", "def f():\n    import fl_late\n    yield fl_late.N\n")
        write(f"{loop}/fl_late.py", f"N = '{loop}'\n")
    for loop in ("one", "two", "one"):
        with own_modules(tmp_path / loop).in_use():
            assert [loop] == list(call("fl_g:f", tmp_path / loop))


def test_a_module_that_only_another_loop_has(write: Write, tmp_path: Path) -> None:
    """What one loop's folder lacks is not taken from another's, in an import and in a call."""
    write("one/fl_a.py", "import fl_only\ndef f(): return fl_only.__name__\n")
    write("one/fl_only.py", "")
    write("two/fl_b.py", "import fl_only\n")
    write("two/fl_c.py", "def f():\n    import fl_only\n")
    assert "fl_only" == call("fl_a:f", tmp_path / "one")
    assert "no module 'fl_only'" in refused("fl_only:f", tmp_path / "two").message
    assert "No module named 'fl_only'" in refused("fl_b:f", tmp_path / "two").message
    with pytest.raises(ModuleNotFoundError, match="fl_only"):
        call("fl_c:f", tmp_path / "two")
    assert "fl_only" == call("fl_a:f", tmp_path / "one")


def test_modules_are_imported_once(write: Write, tmp_path: Path) -> None:
    """All functions of a loop share its modules, also when another loop ran in between."""
    for loop in ("one", "two"):
        write(f"{loop}/fl_s.py", "CALLS = []\ndef f(): CALLS.append(1); return len(CALLS)\n")
    numbers = [call("fl_s:f", tmp_path / loop) for loop in ("one", "two", "one", "two", "one")]
    assert [1, 1, 2, 2, 3] == numbers


def test_a_module_that_fails(write: Write, tmp_path: Path) -> None:
    """After an import that raises, the other loop's modules are as they were."""
    write("one/fl_f.py", "def f(): return 'one'\n")
    write("two/fl_f.py", "1 / 0\n")
    assert "one" == call("fl_f:f", tmp_path / "one")
    assert "importing fl_f raised ZeroDivisionError" in refused("fl_f:f", tmp_path / "two").message
    assert "one" == call("fl_f:f", tmp_path / "one")


def test_linked_package(write: Write, tmp_path: Path) -> None:
    """A link to a package elsewhere belongs to the folder that it is in."""
    for loop in ("one", "two"):
        write(f"shared/{loop}/__init__.py", f"CALLS = []\ndef f(): CALLS.append('{loop}')\n")
        (tmp_path / loop).mkdir()
        (tmp_path / loop / "fl_l").symlink_to(tmp_path / "shared" / loop)
    for loop in ("one", "two", "one", "two"):
        call("fl_l:f", tmp_path / loop)
    with own_modules(tmp_path / "two").in_use():
        assert ["two", "two"] == importlib.import_module("fl_l").CALLS


# modules that others imported


def test_module_that_a_test_imported(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test's import and the loop's of one file are one module; that of another file is not."""
    for loop in ("one", "two"):
        write(f"{loop}/fl_t.py", f"WORD = '{loop}'\ndef f(): return WORD\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "one")
        mine = importlib.import_module("fl_t")
        mine.WORD = "patched"
        assert "patched" == call("fl_t:f", tmp_path / "one")
        assert "two" == call("fl_t:f", tmp_path / "two")
        assert mine is sys.modules["fl_t"]


def test_module_on_the_path_is_shared(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What sys.path leads to is one module for all loops, also for one in its folder."""
    write("fl_root.py", "CALLS = []\ndef f(): CALLS.append(1); return len(CALLS)\n")
    (tmp_path / "deep").mkdir()
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        assert [1, 2, 3] == [
            call("fl_root:f", folder) for folder in (tmp_path, tmp_path / "deep", tmp_path)
        ]


# names of Python's own and of installed modules


@pytest.mark.parametrize(
    ("module", "place"),
    [
        ("json", "Python's standard library"),
        ("turtle", "Python's standard library"),  # nobody has imported it
        ("yaml", str(yaml.__file__)),
    ],
)
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
def test_taken_name(module: str, place: str, form: str, write: Write, tmp_path: Path) -> None:
    """A module named like an installed one is refused, and never imported in its place."""
    write(form.format(module), "def f(): return 'own'\n")
    error = refused(f"{module}:f", tmp_path)
    assert error.message == (
        f"data function '{module}:f': {module} in {tmp_path} has the name of a module in {place}"
    )
    assert "Rename it." == error.cure
    write("fl_free.py", "def f(): return 'own'\n")
    assert "own" == call("fl_free:f", tmp_path)  # as long as nothing imports the other
    write("fl_user.py", f"x = 1\ndef f():\n    from {module} import y\n")
    error = refused("fl_user:f", tmp_path)
    assert f"{tmp_path / 'fl_user.py'}:3 imports {module}, which is both in" in error.message
    assert f"and in {place}" in error.message


def test_folder_named_like_an_installed_module(write: Write, tmp_path: Path) -> None:
    """A folder of data may have any name: without __init__.py an installed module goes before."""
    write("yaml/a.jsonl", "")
    write("json/a.py", "")
    write("fl_d.py", "import json, yaml\ndef f(): return json, yaml\n")
    assert (json, yaml) == call("fl_d:f", tmp_path)
    assert Path(json.__file__) == source_of("json", tmp_path)


def test_installed_function(tmp_path: Path) -> None:
    """Where the folder has no such module, an installed one serves."""
    assert json.dumps is load_function("scorer", "json:dumps", ("output",), tmp_path, None)
    assert Path(yaml.__file__).parent / "nodes.py" == source_of("yaml.nodes", tmp_path)
    assert source_of("fl_nowhere.a", tmp_path) is None
    assert source_of("yaml.nowhere", tmp_path) is None
    assert source_of("sys", tmp_path) is None
    assert source_of("__main__", tmp_path / "missing") is None
