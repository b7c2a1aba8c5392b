"""Waiting for a cluster that does things in its own time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")
POLL_SECONDS = 0.1


async def until(look: Callable[[], Awaitable[T]], good: Callable[[T], bool], *, seconds: float = 30) -> T:
    """What `look` finds, once it is good; AssertionError with what it found last when that takes too long."""
    found = await look()
    with anyio.move_on_after(seconds):
        while True:
            if good(found):
                return found
            await anyio.sleep(POLL_SECONDS)
            found = await look()
    raise AssertionError(f"not within {seconds:g} s; the last was {found}")
