"""Which columns a user's scorer reads, by its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_ftloop.core.columns_read import function_columns, hook_columns


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("def f(output, expected, example):\n    return output == example['gold']", {"gold"}),
        ("def f(output, example):\n    return example.get('a', 1) + example['b']['c']", {"a", "b"}),
        ("def f(output):\n    return output in row['a']", set()),
        ("def f(o, e, x):\n    return x['a'] and e['b']", {"a"}),
        ("def f(o, e, x):\n    def g():\n        return x['a']\n    return g()", {"a"}),
        ("def f(example, o, e):\n    return example['a'] and e['b']", {"b"}),
        ("LIMIT = 3\ndef g(row): ...\ndef f(example): return example['a'] > LIMIT", {"a"}),
        # used in any other way: any column
        ("def f(example): return g(example)", None),
        ("def f(example): return [v for v in example.values()]", None),
        ("def f(example): return example[column]", None),
        ("def f(example): return example.get(column)", None),
        ("def f(example): return 'a' in example", None),
        ("def f(example):\n    row = example\n    return row['a']", None),
        ("def f(example):\n    example['a'] = 1\n    return True", None),
        ("def f(example): return eval(\"example['a']\")", None),
        ("def f(*every): return every[2]['a']", None),
        ("def f(o, e, **more): return more['a']", None),
        ("@decorated\ndef f(output): return True", None),
        ("f = make()", None),
        ("def f(output): ...\nf = wrapped(f)", None),
        ("from other import f", None),
        ("class A:\n    def f(self, output): ...", None),
        ("def f(:", None),
        ("", None),
    ],
)
def test_columns_of_a_function(source: str, wanted: set[str] | None, tmp_path: Path) -> None:
    """Its row's columns where it only looks them up by constant names; else any, which is None."""
    (tmp_path / "scoring_of_columns.py").write_text(source, encoding="utf-8")
    assert wanted == function_columns("scoring_of_columns:f", tmp_path)


def test_columns_of_a_function_without_a_source(tmp_path: Path) -> None:
    """A function that is not written in Python, and one of no module, may read any column."""
    assert function_columns("builtins:max", tmp_path) is None
    assert function_columns("no_such_module_here:f", tmp_path) is None


def test_columns_of_hooks(tmp_path: Path) -> None:
    """Those of each conftest.py that may be asked; any where none is found, as in a plugin."""
    (tmp_path / ".git").mkdir()
    below = tmp_path / "loops"
    below.mkdir()
    hook = "pytest_ftloop_score"
    assert hook_columns(hook, below) is None
    text = f"def {hook}(output, example):\n    return example['%s'] or None\n"
    for folder, column in ((tmp_path, "a"), (below, "b")):
        (folder / "conftest.py").write_text(text % column, encoding="utf-8")
    assert {"a", "b"} == hook_columns(hook, below)
    assert {"a"} == hook_columns(hook, tmp_path)
