"""One thing that goes wrong at one point of a run: at the n-th write, or the n-th watch event, of one replica.

At a write:
    crash before      the request never arrives; the process dies, and comes back after 2 s under the same name
    crash after       carried out, but the process dies without hearing of it
    response lost     carried out, and the connection is reset
    delayed           carried out, and answered, 4 s late
    duplicated        carried out twice, and the second one's answer is what arrives
    stale snapshot    crash after; to the new process lists and watches show for 10 s what was 12 changes ago
    compaction        every open watch ends at its next event, and no version of before can be resumed from
    leader change     the process is all but cut off for 30 s: requests that are not about the lease take 9.5 s each
    429, reset        not carried out; refused with Retry-After, or the connection is reset
    500               carried out, and answered with an internal error, as when etcd times out
    slow              carried out at once, and answered 12 s late, when nobody listens any more
At an event:
    crash before      the process dies before it hears of it
    crash after       the process dies 0.6 s later, when the cycle that the event caused has begun
    dropped           this event never arrives, and the next time that this watch resumes, it has to list again
    delayed           this event, and so all behind it on its watch, is 12 s late
    duplicated        it arrives twice
    stale snapshot    crash before; then as above
    compaction        the watch ends with 410, and no version of before can be resumed from
    leader change     the process is cut off for 25 s
    429, 500          the watch ends before it, and its next attempt is refused
    reset             the connection breaks in the middle of its line
    slow              all watches of the process are 12 s late

What a fault owes (a restart, another leader, a list, a refusal) is noted when it happens: `injected` is true only then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from rebalancer.kube.decode import KINDS as DECODED
from rebalancer.sim.faults import (
    Entry,
    EventFault,
    Fault,
    Faults,
    Late,
    Refuse,
    Reset,
    Slow,
    Stale,
    Trouble,
    Twice,
    Watch,
)
from rebalancer.sim.store import Change, Store

VICTIM = "replica-0"
"""The replica whose writes and events are counted, and to whom it happens."""

WRITE, EVENT = "write", "event"

CRASH_BEFORE, CRASH_AFTER = "crash before", "crash after"
LOST, REFUSED, ERROR, RESET, SLOW = "response lost", "429", "500", "reset", "slow"
DROPPED, DELAYED, DUPLICATED, EXPIRED = "dropped until relist", "delayed", "duplicated", "compaction"
STALE, LEADER = "stale snapshot", "leader change"

KINDS: Mapping[str, tuple[str, ...]] = {
    WRITE: (CRASH_BEFORE, CRASH_AFTER, LOST, DELAYED, DUPLICATED, STALE, EXPIRED, LEADER, REFUSED, ERROR, RESET, SLOW),
    EVENT: (
        CRASH_BEFORE, CRASH_AFTER, DROPPED, DELAYED, DUPLICATED, STALE, EXPIRED, LEADER, REFUSED, ERROR, RESET, SLOW,
    ),
}  # fmt: skip
"""What can happen at a write and at an event."""

CUT_SECONDS = 25.0
CRAWL_SECONDS = 30.0
"""A leader that is cut off, or all but cut off, is so for longer than its lease lasts."""
CRAWLING_SECONDS = 9.5
"""What a request takes then: less than it may while the lease is fresh, and more than is left of one that is not."""
LATE_SECONDS = 12.0
"""So late are slow answers and delayed events: longer than a whole migration takes here, shorter than a lease."""
LAG_SECONDS = 4.0
"""So late is a request that is delayed: its answer still finds the one who asked."""
AFTER_SECONDS = 0.6
"""A crash after an event comes when the cycle that the event caused has begun."""
STALE_CHANGES = 12
STALE_SECONDS = 10.0
"""A process that meets a stale API server sees for so long what was so many changes ago."""
SETTLE_SECONDS = 1.0
"""Between the end of a fault and a cluster that can be looked over: what was late has arrived."""
WATCHED = frozenset(kind.plural for kind in DECODED.values())


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Point:
    """Where and what: `index` counts the `at`s (WRITE or EVENT) of the fault-free run from 0; `kind` is of KINDS."""

    at: str
    index: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A write or an event of the run without faults. `what` for people, `kinds` what can go wrong there.

    A request that is refused is not carried out, whatever happens to its answer; and before anything has changed there
    is nothing stale to be seen.
    """

    what: str
    kinds: tuple[str, ...]


NEEDS_SUCCESS = (CRASH_AFTER, LOST, STALE, ERROR, SLOW, DUPLICATED)


@dataclass(slots=True, kw_only=True)
class Perturbation(Faults):
    """Counts the victim's writes and events, and does at `point` what it says; None does nothing.

    `crash` is called when the process is to die, `rival` when another is to take over. `over`: the moment, of the
    loop's time, from which on the network is sound again. `dead` are the users of processes that are no more.
    """

    point: Point | None = None
    crash: Callable[[], None] = lambda: None
    rival: Callable[[], None] = lambda: None
    store: Store | None = None
    reached: bool = False
    over: float = 0.0
    dead: set[str] = field(default_factory=set)
    owed: set[str] = field(default_factory=set)
    _writes: list[tuple[Entry, bool]] = field(default_factory=list)
    _events: list[str] = field(default_factory=list)
    _at: Entry | None = None
    _cut_until: float = 0.0
    _crawl_until: float = 0.0
    _late_until: float = 0.0
    _stale_version: int = 0
    _stale_until: float = 0.0
    _changed: frozenset[str] = frozenset()
    _refusing: dict[str, Refuse] = field(default_factory=dict)
    _relist: str = ""
    _watches_before: int = 0

    @property
    def injected(self) -> bool:
        """Whether all of it has happened."""
        return self.reached and not self.owed

    @property
    def active(self) -> bool:
        """Whether something is still wrong, or still to come."""
        waiting = self.point is not None and not self.injected
        return waiting or _now() < max(self.over, self._stale_until) + SETTLE_SECONDS

    def marks(self, at: str) -> tuple[Mark, ...]:
        """What was counted."""
        return tuple(self._write_marks() if at == WRITE else self._event_marks())

    def _write_marks(self) -> Iterator[Mark]:
        for entry, changed in self._writes:
            refused = not 200 <= entry.code < 300
            kinds = (kind for kind in KINDS[WRITE] if not (refused and kind in NEEDS_SUCCESS))
            what = entry.target.resource.plural if entry.target is not None else entry.path
            yield Mark(what=f"{entry.method} {what}", kinds=tuple(kind for kind in kinds if kind != STALE or changed))

    def _event_marks(self) -> Iterator[Mark]:
        return (Mark(what=what, kinds=KINDS[EVENT]) for what in self._events)

    # What the API server asks

    def request(self, entry: Entry) -> Fault | None:
        if entry.user in self.dead:
            return Reset()
        self._notice(entry)
        if entry.user != VICTIM:
            return self._stale(entry)
        if _now() < self._cut_until:
            return Slow(seconds=self._cut_until - _now())
        if _now() < self._crawl_until:
            return self._crawl(entry)
        if entry.verb == "watch" and (refusal := self._refusing.pop(_storage(entry), None)) is not None:
            self._happened("refusal")
            return refusal
        if entry.writes:
            changed = self.point is None and (_plural(entry) in WATCHED or bool(self._recent()))
            self._writes.append((entry, changed))
            if self._here(WRITE, len(self._writes)):
                return self._at_write(entry)
        return None

    def answer(self, entry: Entry) -> Fault | None:
        if entry.user != VICTIM and _plural(entry) == "leases" and entry.writes:
            self._happened("another leader")
        if entry is not self._at or self.point is None:
            return None
        if self.point.kind in (CRASH_AFTER, STALE):
            self._die()
        faults: dict[str, Fault] = {
            CRASH_AFTER: Reset(),
            STALE: Reset(),
            LOST: Reset(),
            ERROR: Refuse(code=500, reason="InternalError"),
            SLOW: Slow(seconds=LATE_SECONDS),
        }
        if self.point.kind in faults:
            self._happened("carried out")
        return faults.get(self.point.kind)

    def event(self, watch: Watch, change: Change) -> EventFault | None:
        user = watch.entry.user
        if user in self.dead:
            return Trouble.CUT
        if user != VICTIM:
            return Late(seconds=self._stale_until - _now()) if _now() < self._stale_until else None
        self._events.append(f"{change.type} {change.resource}")
        if self._here(EVENT, len(self._events)):
            return self._at_event(change)
        if watch.entry.number < self._watches_before:
            return Trouble.CUT
        left = max(self._cut_until, self._crawl_until, self._late_until) - _now()
        return Late(seconds=left) if left > 0.0 else None

    # What happens

    def _here(self, at: str, count: int) -> bool:
        return self.point is not None and self.point.at == at and self.point.index == count - 1

    def _at_write(self, entry: Entry) -> Fault | None:
        assert self.point is not None
        kind, self.reached, self._at = self.point.kind, True, entry
        self._sound_in({SLOW: LATE_SECONDS, DELAYED: LAG_SECONDS}.get(kind, 0.0))
        if kind in NEEDS_SUCCESS and kind != DUPLICATED:
            self.owed.add("carried out")
        if kind == CRASH_BEFORE:
            self._die()
        elif kind == LEADER:
            self._sound_in(CRAWL_SECONDS)
            self._crawl_until = self.over
            self._challenge()
        elif kind == EXPIRED:
            self._watches_before = entry.number
            self._compact("")
        faults: dict[str, Fault] = {
            CRASH_BEFORE: Reset(),
            RESET: Reset(),
            DELAYED: Slow(seconds=LAG_SECONDS),
            LEADER: self._crawl(entry),
            REFUSED: Refuse(code=429, reason="TooManyRequests", retry_after_seconds=3),
            DUPLICATED: Twice(),
        }
        return faults.get(kind)

    def _at_event(self, change: Change) -> EventFault | None:
        assert self.point is not None
        kind, self.reached = self.point.kind, True
        self._sound_in({DELAYED: LATE_SECONDS, SLOW: LATE_SECONDS, LEADER: CUT_SECONDS}.get(kind, 0.0))
        if kind in (CRASH_BEFORE, STALE):
            self._die()
        elif kind == CRASH_AFTER:
            self._sound_in(AFTER_SECONDS)
            self.owed.add("restart")
            asyncio.get_running_loop().call_later(AFTER_SECONDS, self._die)
        elif kind == LEADER:
            self._cut_until = self.over
            self._challenge()
        elif kind == SLOW:
            self._late_until = self.over
        elif kind == DROPPED:
            self._relist = change.resource
            self.owed.add(f"list of {change.resource}")
        elif kind == EXPIRED:
            self._compact(change.resource)
        elif kind == RESET:
            self.owed.add(f"watch of {change.resource}")
        elif kind in (REFUSED, ERROR):
            self.owed.add("refusal")
            self._refusing[change.resource] = (
                Refuse(code=429, reason="TooManyRequests", retry_after_seconds=3)
                if kind == REFUSED
                else Refuse(code=500, reason="InternalError")
            )
        faults: dict[str, EventFault] = {
            CRASH_BEFORE: Trouble.CUT,
            STALE: Trouble.CUT,
            REFUSED: Trouble.CUT,
            ERROR: Trouble.CUT,
            RESET: Trouble.BREAK,
            DROPPED: Trouble.DROP,
            DUPLICATED: Trouble.DUPLICATE,
            EXPIRED: Trouble.EXPIRE,
            DELAYED: Late(seconds=LATE_SECONDS),
            SLOW: Late(seconds=LATE_SECONDS),
            LEADER: Late(seconds=CUT_SECONDS),
        }
        return faults.get(kind)

    def _die(self) -> None:
        assert self.point is not None
        self.dead.add(VICTIM)
        self.owed.add("restart")
        if self.point.kind == STALE and self.store is not None:
            recent = self._recent()
            self._stale_version = recent[0].version - 1
            self._changed = frozenset(change.resource for change in recent)
            self._stale_until = _now() + STALE_SECONDS
            self.owed.add("stale list")
        self._sound_in(0.0)
        self.crash()

    def _recent(self) -> list[Change]:
        """The last changes of what is watched, oldest first."""
        if self.store is None:
            return []
        found = [change for change in self.store.since(self.store.compacted) if change.resource in WATCHED]
        return found[-STALE_CHANGES:]

    def _crawl(self, entry: Entry) -> Fault:
        left = self._crawl_until - _now()
        return Slow(seconds=left if _plural(entry) == "leases" else CRAWLING_SECONDS)

    def _challenge(self) -> None:
        self.owed.add("another leader")
        self.rival()

    def _compact(self, resource: str) -> None:
        assert self.store is not None
        self.store.compact()
        self.owed.add(f"list of {resource}")

    def _sound_in(self, seconds: float) -> None:
        self.over = _now() + seconds

    # What is owed

    def _happened(self, what: str) -> None:
        self.owed.discard(what)

    def _notice(self, entry: Entry) -> None:
        """A request that shows that a fault has had its effect; and the one that has to list again."""
        storage = _storage(entry)
        if entry.user != VICTIM:
            self._happened("restart")
            return
        if entry.verb == "watch":
            self._happened(f"watch of {storage}")
        lists = entry.verb == "list" or "sendInitialEvents" in entry.query
        if lists and storage in WATCHED:
            self._happened(f"list of {storage}")
            self._happened("list of ")
        elif entry.verb == "watch" and storage == self._relist:
            self._relist = ""
            self._refusing[storage] = Refuse(code=410, reason="Expired", message="too old resource version (injected)")

    def _stale(self, entry: Entry) -> Fault | None:
        """What a process that has been restarted gets to see; what it asks of a quorum is true."""
        if _now() >= self._stale_until or entry.verb != "list" or "labelSelector" in entry.query or not self.store:
            return None
        if _storage(entry) in self._changed:
            self._happened("stale list")
        return Stale(changes=self.store.version - self._stale_version)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _plural(entry: Entry) -> str:
    return entry.target.resource.plural if entry.target is not None else ""


def _storage(entry: Entry) -> str:
    return entry.target.resource.storage if entry.target is not None else ""
