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
    `streak`: failures in a row, over all VMs, that open the breaker: five of five are no accident of single VMs.
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
    """Open until `until` (monotonic) because `failures` migrations in a row failed, the last with `message`."""

    failures: int
    until: float
    message: str


class Backoff:
    """What failed lately, on monotonic time. In memory only: after a restart a cautious first try is fine."""

    def __init__(self, monotonic: Callable[[], float], params: BackoffParams = BACKOFF_DEFAULTS) -> None:
        self._monotonic = monotonic
        self._params = params
        self._vmis: dict[str, Wait] = {}
        self._nodes: dict[str, Wait] = {}
        self._streak = 0
        self._breaker: Breaker | None = None

    def failed(self, vmi: str, target: str, message: str) -> None:
        """Notes that moving `vmi` to `target` failed."""
        now, params = self._monotonic(), self._params
        self.refused(vmi, message)
        last = self._nodes.get(target)
        self._nodes[target] = _longer(last, now, params.node_seconds, params.node_cap_seconds, message)
        self._streak += 1
        if self._streak >= params.streak:
            self._breaker = Breaker(failures=self._streak, until=now + params.pause_seconds, message=message)

    def refused(self, vmi: str, message: str) -> None:
        """Notes that a move could not even begin: the VM waits, the target and the streak have no part in it."""
        now, params = self._monotonic(), self._params
        self._vmis[vmi] = _longer(self._vmis.get(vmi), now, params.vm_seconds, params.vm_cap_seconds, message)

    def succeeded(self, vmi: str, target: str) -> None:
        """A success ends the streak and clears both."""
        self._vmis.pop(vmi, None)
        self._nodes.pop(target, None)
        self._streak = 0

    def vmis(self) -> Mapping[str, Wait]:
        """VMs that must wait still."""
        return self._current(self._vmis, self._params.vm_cap_seconds)

    def nodes(self) -> Mapping[str, Wait]:
        """Nodes that should receive nothing yet."""
        return self._current(self._nodes, self._params.node_cap_seconds)

    def breaker(self) -> Breaker | None:
        """The open breaker, or None. Once its time is over one success closes it for good."""
        if self._breaker is not None and self._monotonic() >= self._breaker.until:
            self._breaker = None
        return self._breaker

    def _current(self, waits: dict[str, Wait], cap: float) -> Mapping[str, Wait]:
        now = self._monotonic()
        for name in [name for name, wait in waits.items() if now >= wait.until + cap]:
            del waits[name]
        return {name: wait for name, wait in waits.items() if now < wait.until}


def _longer(last: Wait | None, now: float, first: float, cap: float, message: str) -> Wait:
    failures = (last.failures if last else 0) + 1
    seconds = min(first * 2.0 ** min(failures - 1, 32), cap)
    return Wait(failures=failures, until=now + seconds, message=message)
