"""How late the event loop runs: what blocks it delays the renewal of the lease, and everything else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio


class LagMeter:
    """`run` until cancelled. `longest_seconds` is how late a timer was at worst within the last minute."""

    def __init__(
        self, monotonic: Callable[[], float], *, every_seconds: float = 0.25, kept_seconds: float = 60.0
    ) -> None:
        self._monotonic = monotonic
        self._every = every_seconds
        # One value per second is enough to forget by, whatever the pace of the timer.
        self._seconds: deque[tuple[float, float]] = deque(maxlen=int(kept_seconds) + 1)
        self._kept = kept_seconds

    @property
    def longest_seconds(self) -> float:
        now = self._monotonic()
        return max((lag for at, lag in self._seconds if now - at <= self._kept), default=0.0)

    async def run(self) -> None:
        """Sets a timer again and again."""
        while True:
            due = self._monotonic() + self._every
            await anyio.sleep(self._every)
            now = self._monotonic()
            lag = max(0.0, now - due)
            if self._seconds and now - self._seconds[-1][0] < 1.0:
                at, before = self._seconds[-1]
                self._seconds[-1] = (at, max(before, lag))
            else:
                self._seconds.append((now, lag))
