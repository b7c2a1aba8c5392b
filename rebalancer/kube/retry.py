"""Time and chance as they are given to us, and how long to wait before asking again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """`monotonic` measures, `now` (seconds since 1970) is only ever written for people, `random` is in [0, 1)."""

    monotonic: Callable[[], float]
    now: Callable[[], float]
    random: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryParams:
    """client-go's reflector backoff (tools/cache/reflector.go): doubling, jitter, reset after 2 healthy minutes."""

    first_seconds: float = 0.8
    cap_seconds: float = 30.0
    jitter: float = 1.0
    healthy_seconds: float = 120.0


RETRY_DEFAULTS = RetryParams()


class Retry:
    """One caller's streak of failures. `hurried`: its waiting has been cut short, until a new one begins.

    Once is enough: two who fail by turns would else wake each other for ever.
    """

    def __init__(self, around: Surroundings, params: RetryParams = RETRY_DEFAULTS) -> None:
        self._around = around
        self._params = params
        self._streak = 0
        self._last = 0.0
        self.hurried = False

    def delay(self, at_least_seconds: float = 0.0) -> float:
        """Notes a failure and gives the seconds to wait; `at_least_seconds` is the server's Retry-After."""
        now = self._around.monotonic()
        if now - self._last > self._params.healthy_seconds:
            self._streak, self.hurried = 0, False
        self._last = now
        base = min(self._params.first_seconds * 2.0 ** min(self._streak, 16), self._params.cap_seconds)
        self._streak += 1
        return max(base * (1.0 + self._params.jitter * self._around.random()), at_least_seconds)


class Comeback:
    """The API server answers again: whoever still waits for that hears of it from the first one who notices.

    After an outage streaks are long, and each would else be waited out on its own, for up to a minute.
    """

    def __init__(self) -> None:
        self._bell = anyio.Event()

    def tell(self) -> None:
        """Wakes whoever waits."""
        self._bell.set()
        self._bell = anyio.Event()

    async def wait(self, seconds: float) -> bool:
        """Until somebody tells of it, or for so long. Whether somebody did."""
        with anyio.move_on_after(seconds):
            await self._bell.wait()
            return True
        return False
