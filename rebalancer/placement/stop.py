"""When to stop searching: a deadline on a clock that the caller brings, or a word from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Stop:
    """`seconds` from now on the caller's clock; without a clock only `cancel` and deterministic limits end a search.

    The result of a search must not hang on how fast the machine is. Limits are therefore counted in deterministic work
    first, sized so that it takes about `seconds`; the clock only cuts what takes much longer.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] | None = None) -> None:
        self.seconds = seconds
        self._clock = clock or (lambda: 0.0)
        self._started = self._clock()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End the search as soon as possible; safe from any thread."""
        self._cancelled.set()

    def elapsed(self) -> float:
        return self._clock() - self._started

    def left(self) -> float:
        return 0.0 if self._cancelled.is_set() else max(0.0, self.seconds - self.elapsed())

    def __bool__(self) -> bool:
        """Whether it is time."""
        return self.left() <= 0
