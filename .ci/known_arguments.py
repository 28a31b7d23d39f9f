"""Write pytest_ftloop/config/known_arguments.py from the installed peft, trl and transformers."""

from __future__ import annotations

import subprocess
import sys
import types
import typing
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Union

from pytest_ftloop.config.arguments import hints_of

FILE = Path(__file__).parents[1] / "pytest_ftloop" / "config" / "known_arguments.py"

HEAD = '''\
"""The arguments of peft's LoraConfig and trl's SFTConfig with their types, as plain types.

Written by `python .ci/known_arguments.py` from the versions below; a test compares the two.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

VERSIONS = {versions}
"""The versions that the arguments are of."""
'''


def text() -> str:
    """The text of the file, before it is formatted."""
    from peft import LoraConfig
    from trl import SFTConfig

    versions = {name: version(name) for name in ("peft", "transformers", "trl")}
    blocks = [HEAD.format(versions=repr(versions).replace("'", '"'))]
    for name, config in (("Lora", LoraConfig), ("Training", SFTConfig)):
        lines = [f"class {name}(TypedDict, total=False):"]
        lines += [f'    """The arguments of {config.__name__}."""', ""]
        lines += [f"    {key}: {plain(hint)}" for key, hint in hints_of(config).items()]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def plain(hint: Any) -> str:
    """A type as it is written."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        # `typing` gives equal unions in the order in which it met the first of them.
        return " | ".join(sorted((plain(part) for part in parts), key=lambda t: (t == "None", t)))
    if origin is Literal:
        return f"Literal[{', '.join(repr(part) for part in parts)}]"
    if hint is type(None):
        return "None"
    if hint is dict:
        return "dict[str, Any]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(plain(part) for part in parts)}]"
    return "Any" if hint is Any else hint.__name__


def formatted() -> str:
    """The text of the file as ruff formats it."""
    ruff = Path(sys.executable).with_name("ruff")
    done = subprocess.run(
        [ruff, "format", "--stdin-filename", FILE, "-"],
        input=text(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    FILE.write_text(formatted(), encoding="utf-8")
