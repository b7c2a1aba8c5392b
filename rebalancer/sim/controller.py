"""A work queue with delays and priorities, and the loop around it: what every controller of the cluster is made of."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from rebalancer.sim.store import Change, Store

LATENCY_SECONDS = 0.1
"""From a change to the reconciliation that it causes; in a real cluster informers take about as long."""


class Controller:
    """Reconciles objects by key. Subclasses say which changes concern which keys, and what to do about a key.

    A reconciliation is one synchronous step on the store, so controllers never see half of each other's writes.
    """

    name = "controller"

    def __init__(self, store: Store) -> None:
        self.store = store
        self._heap: list[tuple[float, int, int, str]] = []
        self._due: dict[str, float] = {}
        self._turn = 0
        self._wake = asyncio.Event()

    def start(self) -> Callable[[], None]:
        """Look at everything that is there and hear of every change; returns how to stop hearing."""
        self.resync()
        return self.store.subscribe(self.changed)

    def resync(self) -> None:
        """Enqueue every key that there is."""

    def changed(self, change: Change) -> None:
        """Enqueue the keys that a change concerns."""
        raise NotImplementedError

    def reconcile(self, key: str) -> None:
        """Bring one object closer to what it should be."""
        raise NotImplementedError

    def enqueue(self, key: str, after: float = LATENCY_SECONDS, priority: int = 0) -> None:
        """Reconcile a key after some seconds; an earlier moment that is set already stays."""
        moment = asyncio.get_running_loop().time() + after
        if key in self._due and self._due[key] <= moment:
            return
        self._due[key] = moment
        self._turn += 1
        heapq.heappush(self._heap, (moment, -priority, self._turn, key))
        self._wake.set()

    async def run(self) -> None:
        """Work for ever."""
        loop = asyncio.get_running_loop()
        stop = self.start()
        try:
            while True:
                self._wake.clear()
                while self._heap and self._heap[0][0] <= loop.time() + 1e-6:
                    moment, _, _, key = heapq.heappop(self._heap)
                    if self._due.get(key) == moment:
                        del self._due[key]
                        self.reconcile(key)
                timer = loop.call_at(self._heap[0][0], self._wake.set) if self._heap else None
                await self._wake.wait()
                if timer is not None:
                    timer.cancel()
        finally:
            stop()
