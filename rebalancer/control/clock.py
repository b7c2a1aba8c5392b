"""The clock. The only importer of time: everything else is given one, so that a day can pass in a second."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks, never mixed: wall time names moments to people and the API, monotonic time measures."""

    def now(self) -> float:
        """Seconds since 1970. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment. Never jumps; the event loop's own timers run on it."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
