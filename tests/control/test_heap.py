"""The garbage collector while the daemon runs: it looks at what is young, and once at what has stayed."""

from __future__ import annotations

import gc
import weakref

from rebalancer.control.heap import DUE, YOUNG, Heap


class Knot:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


def grow_old() -> None:
    """Everything there is now has outlived the young ones."""
    for _ in range(DUE):
        gc.collect(1)


def test_what_nobody_refers_to_is_freed_between_cycles_and_what_stays_is_seen_once() -> None:
    before = gc.get_threshold()
    with Heap() as heap:
        assert gc.get_threshold()[:2] == YOUNG
        heap.tidy(settled=False)
        frozen = gc.get_freeze_count()
        heap.tidy(settled=True)
        assert gc.get_freeze_count() > frozen
        knot = Knot()
        gone, stays = weakref.ref(knot), [Knot()]
        grow_old()
        del knot
        assert gone() is not None
        heap.tidy(settled=True)
        assert gone() is None
        assert not any(found is stays for found in gc.get_objects())  # those that are frozen are not listed
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_outside_of_a_run_it_changes_nothing() -> None:
    frozen, limits = gc.get_freeze_count(), gc.get_threshold()
    Heap().tidy(settled=True)
    assert (gc.get_freeze_count(), gc.get_threshold()) == (frozen, limits)
