"""Event loops whose clock is ours: one that jumps to the next timer, and one that runs faster than the wall.

In virtual time nothing ever waits. When no socket is ready the clock is set to the next timer, so a day of a quiet
cluster costs what its events cost. HTTP over a UNIX socket inside one process stays deterministic: the kernel hands
bytes over at once, and sockets that are ready together are served in the order in which they were registered.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

THREAD_PATIENCE_SECONDS = 60.0
"""How long the loop waits, really, for a thread before it calls the silence a deadlock."""


class DeadlockError(RuntimeError):
    """Nothing is ready, no timer is set and no thread is at work: virtual time would wait for ever."""


class _VirtualSelector(selectors.DefaultSelector):
    """Polls the real selector; where that has nothing, moves the clock instead of waiting."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.now = start
        self.threads = 0
        self._turn: dict[int, int] = {}
        self._turns = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        self._turns += 1
        self._turn[key.fd] = self._turns
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self._turn.pop(key.fd, None)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout != 0:
            if self.threads:
                # A thread is at work on our behalf: the clock stands still until it reports back.
                ready = super().select(THREAD_PATIENCE_SECONDS)
                if not ready:
                    raise DeadlockError(f"a thread has not come back for {THREAD_PATIENCE_SECONDS:.0f} s")
            elif timeout is None:
                raise DeadlockError("nothing is ready and no timer is set")
            else:
                self.now += max(timeout, 0.0)
        if len(ready) > 1:
            ready.sort(key=lambda pair: self._turn.get(pair[0].fd, 0))
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. `time()` starts at `start` and moves only when there is nothing left to do."""

    def __init__(self, start: float = 0.0) -> None:
        self._virtual = _VirtualSelector(start)
        super().__init__(self._virtual)
        self._clock_resolution = 1e-6  # a timer that rounding left a hair in the future is due

    def time(self) -> float:
        return self._virtual.now

    def real_time(self) -> float:
        """Seconds of the machine's own monotonic clock, for measuring how fast virtual time ran."""
        return super().time()

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self._virtual.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, *timeout: float | None) -> None:
        """`timeout` came with Python 3.12."""
        self._virtual.threads += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._virtual.threads -= 1

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self._virtual.threads -= 1


class _ScaledSelector(selectors.DefaultSelector):
    def __init__(self, speed: float) -> None:
        super().__init__()
        self._speed = speed

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout if timeout is None else timeout / self._speed)


class ScaledLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock runs `speed` times faster than the wall's; sockets and people stay real."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._zero = super().time()  # the machine's monotonic clock, readable before the loop is set up
        super().__init__(_ScaledSelector(speed))
        if speed <= 0:
            self.close()
            raise ValueError(f"speed must be positive, not {speed}")

    def time(self) -> float:
        return (super().time() - self._zero) * self.speed


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]], seed: int = 0, start: float = 0.0) -> T:
    """Run a coroutine function to its end in virtual time and return what it returns.

    Python's shared random generator is seeded for the length of the run, for libraries that jitter with it.
    """
    before = random.getstate()
    random.seed(seed)
    try:
        with asyncio.Runner(loop_factory=lambda: VirtualLoop(start)) as runner:
            return runner.run(main())
    finally:
        random.setstate(before)
