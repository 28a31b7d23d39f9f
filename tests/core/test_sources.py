"""The source behind a scorer or hook: what changes it, and what does not; nothing is imported."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pytest_ftloop.core.sources import function_files, function_source, hook_source

Write = Callable[[str, str | bytes], Path]
Files = Mapping[str, str]

HOOK = "pytest_ftloop_score"
SCORE = f"def {HOOK}(output, expected, example):\n    return output == expected\n"
LAX = SCORE.replace("output == expected", "True")


def written(write: Write, files: Files) -> None:
    for name, text in files.items():
        write(name, text)


# the module of a function

IMPORTS = {
    # how scorer.py comes to code of helper.py (or of another file)
    "import": ("import helper", "helper.py"),
    "import as": ("import helper as h", "helper.py"),
    "from": ("from helper import same", "helper.py"),
    "star": ("from helper import *", "helper.py"),
    "when called": ("def f(o, e, x):\n    import helper", "helper.py"),
    "if there": ("try:\n    import helper\nexcept ImportError:\n    pass", "helper.py"),
    "package": ("import pack", "pack/__init__.py"),
    "submodule": ("import pack.deep", "pack/deep.py"),
    "submodule's package": ("import pack.deep", "pack/__init__.py"),
    "from package": ("from pack import deep", "pack/deep.py"),
    "folder without __init__": ("import space.deep", "space/deep.py"),
    "by name": ("import importlib\nh = importlib.import_module('helper')", "helper.py"),
    "over another": ("import between", "helper.py"),
    "over a relative import": ("import pack.relative", "pack/sub/deepest.py"),
    "over a parent's name": ("import pack.upwards", "pack/deep.py"),
    "from the repository's root": ("from common.norm import same", "../common/norm.py"),
    "from src": ("import installed_in_place", "../src/installed_in_place/__init__.py"),
}

AROUND = {
    "helper.py": "def same(a, b): return a == b\n",
    "between.py": "import helper\n",
    "pack/__init__.py": "X = 1\n",
    "pack/deep.py": "Y = 2\n",
    "pack/relative.py": "from .sub import deepest\n",
    "pack/upwards.py": "from . import deep\n",
    "pack/sub/__init__.py": "from .. import deep\n",
    "pack/sub/deepest.py": "Z = 3\n",
    "space/deep.py": "Y = 2\n",
    "../common/norm.py": "def same(a, b): return a == b\n",
    "../src/installed_in_place/__init__.py": "X = 1\n",
    "unused.py": "1\n",
}


@pytest.mark.parametrize("how", IMPORTS)
def test_local_modules_count(how: str, write: Write, tmp_path: Path) -> None:
    """A change of a module that a scorer imports, over any number of others, changes its source."""
    statement, changed = IMPORTS[how]
    (tmp_path / ".git").mkdir()
    scorer = f"{statement}\ndef passes(output, expected, example): return True\n"
    written(write, {f"loop/{name}": text for name, text in AROUND.items()})
    write("loop/scorer.py", scorer)
    folder = tmp_path / "loop"
    before = function_source("scorer", folder)
    assert before != hashlib.sha256(scorer.encode()).hexdigest()
    write("loop/unused.py", "2\n")
    write("helper.py", "of another folder\n")
    for name in AROUND:  # line ends are no change
        file = folder / name
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert before == function_source("scorer", folder)
    write(f"loop/{changed}", f"{AROUND[changed]}CHANGED = 1\n")
    assert before != function_source("scorer", folder)


@pytest.mark.parametrize("how", IMPORTS)
def test_files_of_a_function(how: str, write: Write, tmp_path: Path) -> None:
    """They are its module and the local ones that it imports, and give the same source elsewhere.

    There is nothing else in that place.
    """
    statement, changed = IMPORTS[how]
    (tmp_path / ".git").mkdir()
    written(write, {f"loop/{name}": text for name, text in AROUND.items()})
    write("loop/scorer.py", f"{statement}\ndef passes(output, expected, example): return True\n")
    files = function_files("scorer", tmp_path / "loop")
    root = tmp_path.resolve()
    names = {Path(os.path.normpath(file)).relative_to(root).as_posix() for file in files}
    assert {"loop/scorer.py", os.path.normpath(f"loop/{changed}")} <= names
    assert "loop/unused.py" not in names
    (tmp_path / "there/.git").mkdir(parents=True)
    written(write, {f"there/{name}": (tmp_path / name).read_text() for name in names})
    sources = [function_source("scorer", tmp_path / at / "loop") for at in ("", "there")]
    assert sources[0] == sources[1]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pytest.ini", "[pytest]\npythonpath = other lib/deep\n"),
        ("tox.ini", "[pytest]\npythonpath =\n    other\n    lib/deep\naddopts = -q\n"),
        ("pyproject.toml", "[tool.pytest.ini_options]\npythonpath = [\n  'lib/deep',\n]\n"),
        ("pyproject.toml", "[tool.pytest]\npythonpath = ['other', \"lib/deep\"]\n"),
    ],
)
def test_python_path_of_pytest(file: str, text: str, write: Write, tmp_path: Path) -> None:
    """A module in a folder that pytest's configuration names is local too."""
    (tmp_path / ".git").mkdir()
    write("lib/deep/helper.py", "X = 1\n")
    write("loop/scorer.py", "import helper\n")
    alone = function_source("scorer", tmp_path / "loop")
    write(file, text)
    before = function_source("scorer", tmp_path / "loop")
    write("lib/deep/helper.py", "X = 2\n")
    assert 3 == len({alone, before, function_source("scorer", tmp_path / "loop")})


@pytest.mark.parametrize("imports", ["import json, re", "import yaml", "import nowhere", ""])
def test_without_local_imports(imports: str, write: Write, tmp_path: Path) -> None:
    """Then the hash is that of the module alone, as in logs so far."""
    text = f"{imports}\ndef passes(output, expected, example): return True\n"
    write("scorer.py", text.replace("\n", "\r\n"))
    write("json.py", "never imported")
    assert hashlib.sha256(text.encode()).hexdigest() == function_source("scorer", tmp_path)


def test_module_in_a_package(write: Write, tmp_path: Path) -> None:
    """The packages that it is in run too, if there is something in them."""
    write("pack/__init__.py", '"""A package."""\n# nothing else\n')
    write("pack/scorer.py", "from .circle import f\n")
    write("pack/circle.py", "import pack.scorer\n")
    before = function_source("pack.scorer", tmp_path)
    write("pack/__init__.py", "import json\njson.loads = None\n")
    assert before != function_source("pack.scorer", tmp_path)


# the hook

CONFTESTS: Mapping[str, Files] = {
    "nearest": {"a/b/conftest.py": SCORE},
    "above": {"a/conftest.py": SCORE, "a/b/conftest.py": "import pytest\n"},
    "at the root": {"conftest.py": SCORE},
    "with a helper": {"conftest.py": f"import helper\n{SCORE}    and helper.x\n", "helper.py": "1"},
    "imported": {"conftest.py": f"from mine import {HOOK}\n", "mine.py": SCORE},
    "star": {"conftest.py": "from mine import *\n", "mine.py": SCORE},
    "assigned": {"conftest.py": f"import mine\n{HOOK} = mine.{HOOK}\n", "mine.py": SCORE},
    "plugin": {"conftest.py": "pytest_plugins = ['plugins.mine']\n", "plugins/mine.py": SCORE},
    "class": {
        "conftest.py": "class P:\n" + SCORE.replace("def", " def").replace("  ret", "   ret")
    },
    "addopts": {"pytest.ini": "[pytest]\naddopts = -q -p mine\n", "mine.py": SCORE},
    "addopts, one word": {"a/tox.ini": "[pytest]\naddopts = -pmine\n", "mine.py": SCORE},
    "addopts in TOML": {
        "pyproject.toml": "[tool.pytest]\naddopts = ['-p', 'plugins.mine']\n",
        "plugins/mine.py": SCORE,
    },
    "in an if": {"conftest.py": "if True:\n" + SCORE.replace("def", " def")},
}


@pytest.mark.parametrize("case", CONFTESTS)
def test_hook_is_found(case: str, write: Write, tmp_path: Path) -> None:
    """A hook has a source wherever a conftest.py may have it from; a lax one has another."""
    (tmp_path / ".git").mkdir()
    write("a/b/x.ftloop.yaml", "")
    assert hook_source(HOOK, tmp_path / "a/b") is None
    written(write, CONFTESTS[case])
    before = hook_source(HOOK, tmp_path / "a/b")
    assert before
    written(write, {n: t.replace("output == expected", "True") for n, t in CONFTESTS[case].items()})
    assert hook_source(HOOK, tmp_path / "a/b") not in {None, before}


def test_nothing_above_the_repository(write: Write, tmp_path: Path) -> None:
    """A conftest.py outside of the repository does not count: a checkout elsewhere has none."""
    written(write, {"conftest.py": SCORE, "repo/x.ftloop.yaml": ""})
    (tmp_path / "repo/.git").write_text("gitdir: of a worktree")
    assert hook_source(HOOK, tmp_path / "repo") is None


@pytest.mark.parametrize(
    ("nearest", "counts"),
    [
        (SCORE, False),
        (SCORE.replace("    return", "    if output:\n        return"), True),
        (SCORE.replace("output == expected", "True if output else None"), True),
        (SCORE.replace("    return", "    if not output:\n        return\n    return"), True),
        (
            f"def {HOOK}(output):\n    if output:\n        return 1\n    else:\n        return 0\n",
            False,
        ),
    ],
    ids=["decides", "falls off its end", "None", "bare return", "both branches"],
)
def test_the_next_hook(nearest: str, counts: bool, write: Write, tmp_path: Path) -> None:
    """The hook above counts where the nearest may leave the decision to it."""
    (tmp_path / ".git").mkdir()
    written(write, {"conftest.py": SCORE, "a/conftest.py": nearest})
    before = hook_source(HOOK, tmp_path / "a")
    write("conftest.py", LAX)
    assert counts == (before != hook_source(HOOK, tmp_path / "a"))


def test_a_hook_that_is_called_first(write: Write, tmp_path: Path) -> None:
    """With a decorator (tryfirst, wrapper) the one above may decide: it counts."""
    (tmp_path / ".git").mkdir()
    first = "import pytest\n@pytest.hookimpl(tryfirst=True)\n"
    written(write, {"conftest.py": first + SCORE, "a/conftest.py": SCORE})
    before = hook_source(HOOK, tmp_path / "a")
    write("conftest.py", first + LAX)
    assert before != hook_source(HOOK, tmp_path / "a")


PARTS = f"""\
import json
import helper
import registered
from fixtures import database
LIMIT = 0.5
WORDS = []
WORDS.append("a")
OTHER = 1

@pytest.fixture
def fixture():
    return OTHER, LIMIT, json

def pytest_configure(config):
    global LIMIT
    LIMIT = 0.6

def folded(text):
    return helper.norm(text.strip()) in WORDS

def unused():
    return folded

{SCORE}    and folded(output) > LIMIT
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("output == expected", "True", True),
        ("text.strip()", "text.lower()", True),
        ("LIMIT = 0.5", "LIMIT = 0.1", True),
        ("    LIMIT = 0.6", "    LIMIT = 0.1", True),
        ('append("a")', 'append("b")', True),
        ("import registered", "import registered as r", True),
        ("OTHER = 1", "OTHER = 2", False),
        ("return OTHER, LIMIT, json", "return LIMIT, json", False),
        ("return folded\n", "return None\n", False),
        ("import json\n", "import json, yaml\n", False),
        ("from fixtures import database", "from fixtures import nothing", False),
        ("\n\n", "\n\n\n# a comment\n", False),
    ],
)
def test_only_what_the_hook_depends_on(
    old: str, new: str, counts: bool, write: Write, tmp_path: Path
) -> None:
    """A conftest.py has much beside the hook: only what may change its answer counts."""
    text = PARTS.replace(
        "    return output == expected\n    and", "    return output == expected and"
    )
    written(write, {"conftest.py": text, "helper.py": "def norm(t): return t\n"})
    before = hook_source(HOOK, tmp_path)
    write("conftest.py", text.replace(old, new))
    assert old in text
    assert counts == (before != hook_source(HOOK, tmp_path))
    write("conftest.py", text)
    assert before == hook_source(HOOK, tmp_path)
    write("helper.py", "def norm(t): return 1\n")
    assert before != hook_source(HOOK, tmp_path)


@pytest.mark.parametrize("text", [f"{SCORE}globals()['x'] = 1\n", f"{SCORE}def broken(:\n"])
def test_a_file_that_can_not_be_divided(text: str, write: Write, tmp_path: Path) -> None:
    """Of code that uses names unseen, or that can't be parsed, all counts."""
    write("conftest.py", text)
    before = hook_source(HOOK, tmp_path)
    assert before
    write("conftest.py", f"{text}OTHER = 2\n")
    assert before != hook_source(HOOK, tmp_path)
