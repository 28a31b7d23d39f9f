"""Which objects the garbage collector passes over while a log is read."""

from __future__ import annotations

import gc

from pytest_ftloop.core.collector import imports_kept


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


def is_searched(one: object) -> bool:
    return any(other is one for other in gc.get_objects())
