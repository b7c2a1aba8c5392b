"""When to stop searching: after so much counted work, or at a word from another thread.

The result of a search must not hang on how fast or busy the machine is. So work is counted, in units of about a second
of one core, and the limit is one of counted work; the clock is a safety net far beyond, for a machine that hardly gets
anywhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 5.0
"""The clock cuts what takes so many times the limit, but"""
GRACE = 30.0
"""not before so many seconds: then a machine is not busy but stuck."""


class Stop:
    """A limit of `seconds` of counted work; `clock` is the caller's, without one there is no safety net.

    0 seconds leave time for a first plan, and none for search.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] | None = None) -> None:
        self.seconds = seconds
        self.spent = 0.0
        self._clock = clock or (lambda: 0.0)
        self._started = self._clock()
        self._cancelled = threading.Event()
        self._running: Callable[[], None] | None = None

    def cancel(self) -> None:
        """End the search as soon as possible; safe from any thread."""
        self._cancelled.set()
        if (end := self._running) is not None:
            end()

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """While this lasts, `cancel` calls `end`, too: for what does not ask."""
        self._running = end
        try:
            if self._cancelled.is_set():
                end()
            yield
        finally:
            self._running = None

    def spend(self, work: float) -> None:
        """Count work that was done."""
        self.spent += work

    def elapsed(self) -> float:
        """Seconds on the caller's clock."""
        return self._clock() - self._started

    @property
    def interrupted(self) -> bool:
        """Whether not counted work but a word or the clock ends the search; then another run may find another plan."""
        return self._cancelled.is_set() or self.patience() <= 0

    def patience(self) -> float:
        """Seconds until the clock cuts."""
        return max(GRACE, PATIENCE * self.seconds) - self.elapsed()

    def left(self) -> float:
        """Counted work until the limit."""
        return 0.0 if self.interrupted else max(0.0, self.seconds - self.spent)

    def __bool__(self) -> bool:
        """Whether it is time."""
        return self.left() <= 0
