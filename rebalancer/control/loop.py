"""When cycles run: after changes, debounced, and at an interval; and the one place where any exception ends up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from rebalancer.control.clock import Clock
from rebalancer.control.cycle import Cycle
from rebalancer.domain.report import Report
from rebalancer.kube.cache import Cache

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopParams:
    """`interval_seconds`: a cycle at least this often, for what only time changes: hold times, deadlines, cooldowns.

    `debounce_seconds`: pause after a change, so that a burst of events is one cycle; no shorter than `rest` times what
    the last cycle took, so that a large busy cluster leaves us a share of a core only.
    `failure_seconds`, `failure_cap_seconds`: pause after a cycle that raised, doubling.
    `silent_seconds`: without a cycle for so long we are not alive (a search and its margin fit into it).
    """

    interval_seconds: float = 15.0
    debounce_seconds: float = 1.0
    rest: float = 3.0
    failure_seconds: float = 2.0
    failure_cap_seconds: float = 120.0
    silent_seconds: float = 300.0

    def __post_init__(self) -> None:
        if not 0 <= self.debounce_seconds <= self.interval_seconds or self.interval_seconds <= 0:
            raise ValueError("interval_seconds must be above 0 and at least debounce_seconds")


LOOP_DEFAULTS = LoopParams()


class Loop:
    """Runs cycles until cancelled. `failures` counts those that raised."""

    def __init__(
        self, cycle: Cycle, cache: Cache, clock: Clock, params: LoopParams, on_report: Callable[[Report], None]
    ) -> None:
        self._cycle = cycle
        self._cache = cache
        self._clock = clock
        self.params = params
        self._on_report = on_report
        self._streak = 0
        self._beat = clock.monotonic()
        self.failures = 0

    def alive(self) -> bool:
        """Whether cycles still come round: the liveness probe, which says nothing about the API server."""
        return self._clock.monotonic() - self._beat < self.params.silent_seconds

    async def run(self) -> None:
        """Cycles for ever."""
        while True:
            news = self._cache.news
            self._beat = begun = self._clock.monotonic()
            report, pause = await self._once()
            self._on_report(report)
            took = self._clock.monotonic() - begun
            await anyio.sleep(max(pause, self.params.debounce_seconds, self.params.rest * took))
            if not self._cycle.more:
                with anyio.move_on_after(self.params.interval_seconds):
                    await self._cache.wait(news)

    async def _once(self) -> tuple[Report, float]:
        """One cycle's report, and how long to pause at least."""
        try:
            report = await self._cycle.step()
        except Exception as error:  # the edge: whatever went wrong becomes a report and is tried again
            LOG.exception("the cycle failed")
            self.failures += 1
            self._streak += 1
            pause = min(self.params.failure_seconds * 2.0 ** min(self._streak - 1, 16), self.params.failure_cap_seconds)
            return self._cycle.failed(error), pause
        self._streak = 0
        return report, 0.0
