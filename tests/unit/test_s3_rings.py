"""Memory for bodies: what is lent, kept for the next one, and let go."""

from __future__ import annotations

import weakref

from distsum.stores.s3_rings import Rings

LARGE = 2 << 20


def test_what_comes_back_is_used_again_while_others_are_out() -> None:
    rings = Rings()
    first, second = rings.lend(LARGE), rings.lend(LARGE)
    assert first.obj is not second.obj
    first[:3] = b"old"
    rings.take_back(first)
    assert rings.lend(LARGE).obj is first.obj
    assert rings.lent == 2


def test_nothing_is_kept_once_all_is_back_nor_of_a_size_that_is_not_wanted_any_more() -> None:
    rings = Rings()
    out = rings.lend(LARGE)
    once = rings.lend(LARGE)
    gone = weakref.ref(once.obj)
    rings.take_back(once)
    del once
    assert gone() is not None
    other = rings.lend(2 * LARGE)
    assert gone() is None
    last = weakref.ref(out.obj)
    rings.take_back(other)
    rings.take_back(out)
    del out, other
    assert last() is None
    assert rings.lent == 0


def test_little_memory_is_not_counted() -> None:
    rings = Rings()
    assert len(rings.lend(1000)) == 1000
    assert rings.lent == 0
