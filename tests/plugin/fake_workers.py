"""A pytest plugin for the folders of pytester: the fake runner, with fake workers beside it."""

from __future__ import annotations

from functools import partial

import pytest

from pytest_ftloop.loop.loop import Loop
from tests.fake_worker import executor
from tests.plugin.fake_runner import patch

pytest_plugins = ["tests.plugin.fake_runner"]


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.has_plugin("ftloop-session"):
        patch.setattr("pytest_ftloop.plugin.session.Loop", partial(Loop, executor=executor))
