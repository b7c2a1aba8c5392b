"""Where long computations run: in a thread beside the event loop, or inline where time is virtual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import anyio.to_thread

T = TypeVar("T")


class Offload(Protocol):
    """Runs a pure function and returns what it returns."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


async def in_thread(work: Callable[[], T], /) -> T:
    """In a worker thread, so that the lease is renewed while the solver thinks.

    A cancelled caller does not wait: the thread's result is thrown away, it touches nothing that is shared.
    """
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


async def inline(work: Callable[[], T], /) -> T:
    """On the event loop itself: in virtual time a computation takes no time, and runs stay deterministic."""
    return work()
