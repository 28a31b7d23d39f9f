"""Which objects the garbage collector passes over while a log is read."""

from __future__ import annotations

import contextlib
import gc

import pytest

from pytest_ftloop.core.collector import SEARCHED_AFTER, importing, imports_kept, reading


def test_what_one_loop_has_read_is_not_searched_for_the_next() -> None:
    """A block within another one adds what is there to what is spared; the outer gives all back."""
    imported: list[object] = []
    with imports_kept():
        assert not is_searched(imported)
        read: list[object] = []
        assert is_searched(read)
        with imports_kept():
            assert not is_searched(read)
        assert not is_searched(read)
        assert not is_searched(imported)
    assert is_searched(imported)
    assert is_searched(read)


def test_searches_are_rare_while_logs_are_read() -> None:
    """Afterwards they are as often as the user had them, also if reading fails."""
    was = gc.get_threshold()
    try:
        for threshold, meanwhile in ((700, SEARCHED_AFTER), (0, 0), (10**6, 10**6)):
            gc.set_threshold(threshold, *was[1:])
            with contextlib.suppress(ValueError), reading():
                assert (meanwhile, *was[1:]) == gc.get_threshold()
                raise ValueError
            assert (threshold, *was[1:]) == gc.get_threshold()
    finally:
        gc.set_threshold(*was)


def is_searched(one: object) -> bool:
    return any(other is one for other in gc.get_objects())


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_searched_while_modules_are_imported(enabled: bool) -> None:
    """Afterwards the collector is as the user had it, also where a module fails."""
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with contextlib.suppress(ImportError), importing():
            assert not gc.isenabled()
            raise ImportError
        assert enabled == gc.isenabled()
    finally:
        (gc.enable if was else gc.disable)()
