"""One thing that goes wrong at one point of a run: at the n-th write, or the n-th watch event, of one replica."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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
    Stale,
    Trouble,
    Watch,
)
from rebalancer.sim.store import Change

VICTIM = "replica-0"
"""The replica whose writes and events are counted, and to whom it happens."""

WRITE, EVENT = "write", "event"

CRASH_BEFORE, CRASH_AFTER = "crash before", "crash after"
LOST, REFUSED, ERROR, RESET, SLOW = "response lost", "429", "500", "reset", "slow"
DROPPED, DELAYED, DUPLICATED, EXPIRED = "dropped until relist", "delayed", "duplicated", "compaction"
STALE, LEADER = "stale snapshot", "leader change"

KINDS: Mapping[str, tuple[str, ...]] = {
    WRITE: (CRASH_BEFORE, CRASH_AFTER, LOST, STALE, LEADER, REFUSED, ERROR, RESET, SLOW),
    EVENT: (CRASH_BEFORE, CRASH_AFTER, DROPPED, DELAYED, DUPLICATED, EXPIRED, RESET, STALE, LEADER),
}
"""What can happen at a write and at an event."""

STALL_SECONDS = 25.0
"""A stalled leader is away for longer than its lease lasts."""
LATE_SECONDS = 12.0
"""So late are slow answers and delayed events: longer than a whole migration takes here, shorter than a lease."""
AFTER_SECONDS = 0.6
"""A crash after an event comes when the cycle that the event caused has begun."""
STALE_CHANGES = 25
"""How old, in changes to the cluster, the first lists of a process are that meets a stale API server."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Point:
    """Where and what: `index` counts the `at`s (WRITE or EVENT) of the fault-free run from 0; `kind` is of KINDS."""

    at: str
    index: int
    kind: str


@dataclass(slots=True, kw_only=True)
class Perturbation(Faults):
    """Counts the victim's writes and events, and does at `point` what it says; None does nothing.

    `crash` is called when the process is to die, `rival` when another is to take over. `met`: the point was reached.
    `over`: the moment, of the loop's time, from which on the network is sound again.
    """

    point: Point | None = None
    crash: Callable[[], None] = lambda: None
    rival: Callable[[], None] = lambda: None
    writes: int = 0
    events: int = 0
    met: bool = False
    over: float = 0.0
    dead: set[str] = field(default_factory=set)
    _stalled_until: float = 0.0
    _stale: bool = False
    _relist: str = ""

    @property
    def active(self) -> bool:
        """Whether something is still wrong, or still to come."""
        waiting = self.point is not None and not self.met
        return waiting or bool(self._relist) or asyncio.get_running_loop().time() < self.over

    # What the API server asks

    def request(self, entry: Entry) -> Fault | None:
        if entry.user in self.dead:
            return Reset()
        if entry.user == VICTIM and self._stalled():
            return Hang()
        if self._stale and entry.verb == "list" and entry.user != VICTIM:
            return Stale(changes=STALE_CHANGES)
        if self._expires(entry):
            self._relist = ""
            self._sound_in(0.0)
            return Refuse(code=410, reason="Expired", message="too old resource version (injected)")
        if entry.user != VICTIM or not entry.writes:
            return None
        self.writes += 1
        return self._at_write() if self._here(WRITE, self.writes) else None

    def answer(self, entry: Entry) -> Fault | None:
        point = self.point
        if entry.user != VICTIM or not entry.writes or point is None or not self._here(WRITE, self.writes):
            return None
        if point.kind in (CRASH_AFTER, STALE):
            self._die()
            return Reset()
        return Reset() if point.kind == LOST else None

    def event(self, watch: Watch, change: Change) -> EventFault | None:
        user = watch.entry.user
        if user in self.dead:
            return Trouble.CUT
        if user != VICTIM:
            return None
        self.events += 1
        if self._here(EVENT, self.events):
            self.met = True
            return self._at_event(change)
        return Late(seconds=self._left()) if self._stalled() else None

    # What happens

    def _here(self, at: str, count: int) -> bool:
        return self.point is not None and self.point.at == at and self.point.index == count - 1

    def _at_write(self) -> Fault | None:
        assert self.point is not None
        kind, self.met = self.point.kind, True
        self._sound_in(0.0)
        if kind == CRASH_BEFORE:
            self._die()
        elif kind == LEADER:
            self._stall()
        elif kind == SLOW:
            self._sound_in(LATE_SECONDS)
        faults: dict[str, Fault] = {
            CRASH_BEFORE: Reset(),
            RESET: Reset(),
            LEADER: Hang(),
            SLOW: Slow(seconds=LATE_SECONDS),
            REFUSED: Refuse(code=429, reason="TooManyRequests", retry_after_seconds=3),
            ERROR: Refuse(code=500, reason="InternalError"),
        }
        return faults.get(kind)

    def _at_event(self, change: Change) -> EventFault | None:
        assert self.point is not None
        kind = self.point.kind
        self._sound_in(0.0)
        if kind in (CRASH_BEFORE, STALE):
            self._die()
        elif kind == CRASH_AFTER:
            self._sound_in(AFTER_SECONDS)
            asyncio.get_running_loop().call_later(AFTER_SECONDS, self._die)
        elif kind == LEADER:
            self._stall()
        elif kind == DELAYED:
            self._sound_in(LATE_SECONDS)
        elif kind == DROPPED:
            self._relist = change.resource
        faults: dict[str, EventFault] = {
            CRASH_BEFORE: Trouble.CUT,
            STALE: Trouble.CUT,
            RESET: Trouble.CUT,
            DROPPED: Trouble.DROP,
            DUPLICATED: Trouble.DUPLICATE,
            EXPIRED: Trouble.EXPIRE,
            DELAYED: Late(seconds=LATE_SECONDS),
            LEADER: Late(seconds=STALL_SECONDS),
        }
        return faults.get(kind)

    def _die(self) -> None:
        assert self.point is not None
        self.dead.add(VICTIM)
        self._stale = self.point.kind == STALE
        self._sound_in(0.0)
        self.crash()

    def _stall(self) -> None:
        self._sound_in(STALL_SECONDS)
        self._stalled_until = self.over
        self.rival()

    def _stalled(self) -> bool:
        return self._left() > 0.0

    def _left(self) -> float:
        return self._stalled_until - asyncio.get_running_loop().time()

    def _sound_in(self, seconds: float) -> None:
        self.over = asyncio.get_running_loop().time() + seconds

    def _expires(self, entry: Entry) -> bool:
        """Whether this is the watch that goes on where an event was lost: it has to list again."""
        target, query = entry.target, entry.query
        return (
            bool(self._relist)
            and entry.verb == "watch"
            and target is not None
            and target.resource.storage == self._relist
            and "sendInitialEvents" not in query
        )
