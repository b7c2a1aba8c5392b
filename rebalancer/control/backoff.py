"""Leaving alone what has just failed: per VM, per target node, and everything after a streak of failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffParams:
    """Waits double with every failure in a row, up to the cap, and are forgotten a cap after they ended.

    `vm_seconds`, `vm_cap_seconds`: a VM whose migration failed. Five minutes outlast the target pod that KubeVirt may
    leave behind (its launcher gives up after 240 to 360 s) and during which the VM cannot migrate again.
    `node_seconds`, `node_cap_seconds`: a node that a migration to has failed; shorter, it is one of many suspects.
    `streak`: failures and rejections in a row, over all VMs, that open the breaker: five of five are no accident of
    single VMs.
    `pause_seconds`: how long the breaker stays open. Then one more failure opens it again.
    """

    vm_seconds: float = 300.0
    vm_cap_seconds: float = 6 * 3600.0
    node_seconds: float = 120.0
    node_cap_seconds: float = 3600.0
    streak: int = 5
    pause_seconds: float = 1800.0

    def __post_init__(self) -> None:
        if not (0 < self.vm_seconds <= self.vm_cap_seconds and 0 < self.node_seconds <= self.node_cap_seconds):
            raise ValueError("back-offs must be above 0 and at most their caps")
        if self.streak < 1 or self.pause_seconds <= 0:
            raise ValueError("streak must be at least 1 and pause_seconds above 0")


BACKOFF_DEFAULTS = BackoffParams()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """`failures` in a row, the last with `message`; over at `until` (monotonic)."""

    failures: int
    until: float
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Open from `since` until `until` (both monotonic): `failures` migrations in a row failed, the last with `message`.

    Without `failures` a plan did not bring what it had promised, as `message` says.
    """

    failures: int
    since: float
    until: float
    message: str


class Backoff:
    """What failed lately, on monotonic time. In memory; a new leader fills it from the migrations that exist.

    `ago_seconds` is how long ago something happened. Tell what happened in its order.
    """

    def __init__(self, monotonic: Callable[[], float], params: BackoffParams = BACKOFF_DEFAULTS) -> None:
        self._monotonic = monotonic
        self.params = params
        self._vmis: dict[str, Wait] = {}
        self._nodes: dict[str, Wait] = {}
        self._streak = 0
        self._breaker: Breaker | None = None

    def failed(self, vmi: str, target: str, message: str, ago_seconds: float = 0.0) -> None:
        """Notes that moving `vmi` to `target` failed."""
        then, params = self._monotonic() - ago_seconds, self.params
        self.refused(vmi, message, ago_seconds)
        self._nodes[target] = _longer(
            self._nodes.get(target), then, params.node_seconds, params.node_cap_seconds, message
        )
        self._count(message, then)

    def rejected(self, vmi: str, message: str) -> None:
        """Notes that the API server will not have a move: a matter of this VM, unless it will not have any."""
        self.refused(vmi, message)
        self._count(message, self._monotonic())

    def _count(self, message: str, then: float) -> None:
        self._streak += 1
        if self._streak >= self.params.streak:
            until = then + self.params.pause_seconds
            self._breaker = Breaker(failures=self._streak, since=then, until=until, message=message)

    def refused(self, vmi: str, message: str, ago_seconds: float = 0.0) -> None:
        """Notes that a move could not even begin: the VM waits, the target and the streak have no part in it."""
        then, params = self._monotonic() - ago_seconds, self.params
        self._vmis[vmi] = _longer(self._vmis.get(vmi), then, params.vm_seconds, params.vm_cap_seconds, message)

    def succeeded(self, vmi: str, target: str) -> None:
        """A success ends the streak and clears both."""
        self._vmis.pop(vmi, None)
        self._nodes.pop(target, None)
        self._streak = 0

    def disappointed(self, message: str) -> None:
        """Notes that a plan was carried out and did not bring what it promised: the next may not, either."""
        now = self._monotonic()
        self._breaker = Breaker(failures=0, since=now, until=now + self.params.pause_seconds, message=message)

    def vmis(self) -> Mapping[str, Wait]:
        """VMs that must wait still."""
        return self._current(self._vmis, self.params.vm_cap_seconds)

    def nodes(self) -> Mapping[str, Wait]:
        """Nodes that should receive nothing yet."""
        return self._current(self._nodes, self.params.node_cap_seconds)

    def breaker(self, forgiven: float = float("-inf")) -> Breaker | None:
        """The open breaker, or None. Once its time is over one success closes it for good.

        `forgiven` (monotonic): somebody has said that what opened it up to then is mended, and its streak with it.
        """
        if self._breaker is not None and self._breaker.since <= forgiven:
            self._breaker, self._streak = None, 0
        if self._breaker is not None and self._monotonic() >= self._breaker.until:
            self._breaker = None
        return self._breaker

    def _current(self, waits: dict[str, Wait], cap: float) -> Mapping[str, Wait]:
        now = self._monotonic()
        for name in [name for name, wait in waits.items() if now >= wait.until + cap]:
            del waits[name]
        return {name: wait for name, wait in waits.items() if now < wait.until}


def _longer(last: Wait | None, then: float, first: float, cap: float, message: str) -> Wait:
    """The wait after one more failure; one that was forgotten by then does not count."""
    failures = (last.failures if last and then < last.until + cap else 0) + 1
    seconds = min(first * 2.0 ** min(failures - 1, 32), cap)
    return Wait(failures=failures, until=then + seconds, message=message)
