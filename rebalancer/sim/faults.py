"""What can go wrong between a client and the API server, and when: consulted at every request and watch event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from rebalancer.sim.resources import Target
from rebalancer.sim.store import Change


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request in the log. `body` is what a write carried; `finished` is 0.0 while it runs, code 0 = no answer."""

    number: int
    method: str
    path: str
    query: dict[str, str]
    user: str
    user_agent: str
    verb: str
    target: Target | None
    started: float
    finished: float = 0.0
    code: int = 0
    body: Any = None
    fault: str = ""

    @property
    def writes(self) -> bool:
        """True for a request that may change the cluster; a server-side dry run does not."""
        return self.method in ("POST", "PUT", "PATCH", "DELETE") and "dryRun" not in self.query

    def sentence(self) -> str:
        return f"{self.started:.3f} {self.user or self.user_agent} {self.method} {self.path} -> {self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Answer with an error instead. `html` is the page of a proxy, not a Status."""

    code: int
    reason: str = ""
    message: str = "injected"
    retry_after_seconds: int = 0
    html: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Drop the connection without an answer. After the request was carried out this is the lost response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """Never answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """Wait, then go on."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """Serve a get or list from a picture that many changes old."""

    changes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    """Send only the first bytes of the answer, then drop the connection."""

    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Twice:
    """Carry the request out twice, as a proxy does that believes the first one lost; the second one's answer leaves."""


Fault = Refuse | Reset | Hang | Slow | Stale | Truncate | Twice


class Trouble(Enum):
    """What can happen to one event on its way to one watcher."""

    DROP = "dropped until relist"
    DUPLICATE = "sent twice"
    EXPIRE = "410 in mid-stream"
    CUT = "the watch ends before it"
    BREAK = "connection lost in the middle of its line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """The event, and so all behind it, arrives later: within one watch nothing overtakes."""

    seconds: float


EventFault = Trouble | Late


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Which watch an event is for: the request that opened it, and the events sent on it so far."""

    entry: Entry
    sent: int


class Faults:
    """No faults. Override what should go wrong; every method may return None."""

    def request(self, entry: Entry) -> Fault | None:
        """Before the request is carried out."""
        return None

    def answer(self, entry: Entry) -> Fault | None:
        """After it was carried out, before the answer leaves."""
        return None

    def event(self, watch: Watch, change: Change) -> EventFault | None:
        """Before one event is written to one watch."""
        return None


@dataclass(slots=True, kw_only=True)
class Rule:
    """A fault for the requests that match: after letting `skip` of them pass, `times` times. `after` = the answer."""

    fault: Fault
    matches: Callable[[Entry], bool]
    skip: int = 0
    times: int = 1
    after: bool = False
    hits: int = field(default=0, init=False)


@dataclass(slots=True, kw_only=True)
class EventRule:
    """A fault for the watch events that match, likewise."""

    fault: EventFault
    matches: Callable[[Watch, Change], bool]
    skip: int = 0
    times: int = 1
    hits: int = field(default=0, init=False)


def _due(rule: Rule | EventRule) -> bool:
    rule.hits += 1
    return rule.skip < rule.hits <= rule.skip + rule.times


class Script(Faults):
    """Faults by rules; the first rule that is due wins."""

    def __init__(self, rules: Sequence[Rule] = (), events: Sequence[EventRule] = ()) -> None:
        self.rules = list(rules)
        self.events = list(events)

    def _find(self, entry: Entry, after: bool) -> Fault | None:
        for rule in self.rules:
            if rule.after == after and rule.matches(entry) and _due(rule):
                return rule.fault
        return None

    def request(self, entry: Entry) -> Fault | None:
        return self._find(entry, after=False)

    def answer(self, entry: Entry) -> Fault | None:
        return self._find(entry, after=True)

    def event(self, watch: Watch, change: Change) -> EventFault | None:
        for rule in self.events:
            if rule.matches(watch, change) and _due(rule):
                return rule.fault
        return None
