"""What we have started within a day, remembered beside the VMIMs, which do not stay.

KubeVirt deletes a VM's VMIMs with the VM, and ours are deleted when they give way; a migration that began has cost what
it cost all the same. This memory is the process's own: a new leader, or we after a restart, begins with the VMIMs that
exist, as they are all that the API can tell, and remembers those from then on. Times are measured on the monotonic
clock, so that a wall clock that jumps ahead makes no migration older than it is.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from rebalancer.control.clock import Clock
from rebalancer.domain.vmi import Migration
from rebalancer.policy.budget import DAY, Start

REMEMBERED = 20_000
"""Starts; a day of more than 800 an hour would be cut short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    vmi: str
    uid: str
    begun: float


class Ledger:
    """Starts by the VMIM's UID, in the order in which we learned of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def note(self, migration: Migration, uid: str, begun: float | None = None) -> None:
        """Remembers a VMIM of ours, of the VMI with this UID; known ones are left as they are.

        `begun` (monotonic) by default as the VMIM tells, whose clock may be ahead of ours.
        """
        if not migration.uid or migration.uid in self._entries:
            return
        if begun is None:
            begun = self._clock.monotonic() - max(self._clock.now() - migration.created, 0.0)
        self._entries[migration.uid] = _Entry(vmi=migration.vmi_key, uid=uid, begun=begun)
        if len(self._entries) > REMEMBERED:
            self._entries.popitem(last=False)

    def starts(self) -> tuple[Start, ...]:
        """All within a day, by the wall clock as it is now."""
        monotonic, now = self._clock.monotonic(), self._clock.now()
        for uid in [uid for uid, entry in self._entries.items() if monotonic - entry.begun >= DAY]:
            del self._entries[uid]
        return tuple(
            Start(migration=uid, vmi=entry.vmi, uid=entry.uid, begun=now - (monotonic - entry.begun))
            for uid, entry in self._entries.items()
        )
