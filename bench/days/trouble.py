"""Random faults between a contestant and the API server, by seed: three requests of a hundred, and outages."""

from __future__ import annotations

from collections.abc import Callable

from bench.days.agenda import DAY, HOUR
from rebalancer.sim.chance import Dice
from rebalancer.sim.faults import (
    Entry,
    EventFault,
    Fault,
    Faults,
    Hang,
    Late,
    Refuse,
    Reset,
    Slow,
    Trouble,
    Truncate,
    Watch,
)
from rebalancer.sim.store import Change

BEFORE = (
    (0.005, Refuse(code=500, reason="InternalError")),
    (0.003, Refuse(code=503, reason="ServiceUnavailable", html=True)),
    (0.005, Refuse(code=429, reason="TooManyRequests", retry_after_seconds=3)),
    (0.005, Reset()),
    (0.005, Slow(seconds=6.0)),
    (0.001, Hang()),
)
AFTER = ((0.004, Reset()), (0.002, Truncate(length=40)))
EVENTS: tuple[tuple[float, EventFault], ...] = (
    (0.0005, Trouble.DUPLICATE),
    (0.0005, Trouble.CUT),
    (0.00005, Trouble.EXPIRE),
    (0.0005, Late(seconds=8.0)),
)
OUTAGES_PER_DAY = 0.3
OUTAGE_SECONDS = (60.0, 900.0)


class Troubles(Faults):
    """`count` of faults, by name."""

    def __init__(self, seed: int, days: int, elapsed: Callable[[], float]) -> None:
        self._dice = Dice(f"trouble {seed}")
        self._elapsed = elapsed
        self._outages = [
            (begun, begun + self._dice.between(*OUTAGE_SECONDS, "length", day))
            for day in range(1, days)
            if self._dice.happens(OUTAGES_PER_DAY, "outage", day)
            for begun in [day * DAY + self._dice.between(0, 24 * HOUR, "begin", day)]
        ]
        self._events = 0
        self.count = 0

    def _out(self) -> bool:
        now = self._elapsed()
        return any(begun <= now < end for begun, end in self._outages)

    def request(self, entry: Entry) -> Fault | None:
        """Before it is carried out."""
        if self._out():
            return self._counted(Reset())
        return self._counted(_pick(BEFORE, self._dice.fraction("request", entry.number)))

    def answer(self, entry: Entry) -> Fault | None:
        """After it."""
        return self._counted(_pick(AFTER, self._dice.fraction("answer", entry.number)))

    def event(self, watch: Watch, change: Change) -> EventFault | None:
        """On a watch."""
        if self._out():
            return Trouble.CUT
        self._events += 1
        point = self._dice.fraction("event", self._events)
        for share, fault in EVENTS:
            point -= share
            if point < 0:
                self.count += 1
                return fault
        return None

    def _counted(self, fault: Fault | None) -> Fault | None:
        self.count += fault is not None
        return fault


def _pick(table: tuple[tuple[float, Fault], ...], point: float) -> Fault | None:
    for share, fault in table:
        point -= share
        if point < 0:
            return fault
    return None
