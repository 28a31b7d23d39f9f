"""The pytest11 entry point, with the hooks and the fixture for pytest. Their code is in `entry`."""

from pytest_ftloop.plugin.entry import (
    ftloop,
    pytest_addhooks,
    pytest_addoption,
    pytest_assertrepr_compare,
    pytest_collect_file,
    pytest_configure,
    pytest_ignore_collect,
    pytest_itemcollected,
)

__all__ = [
    "ftloop",
    "pytest_addhooks",
    "pytest_addoption",
    "pytest_assertrepr_compare",
    "pytest_collect_file",
    "pytest_configure",
    "pytest_ignore_collect",
    "pytest_itemcollected",
]
