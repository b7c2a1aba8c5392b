"""How we behave towards others and towards VMs: who gives way, how long a VM rests, how long a migration may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from rebalancer.sim.check_reading import Obj, amount, full_name, labels
from rebalancer.sim.store import DELETED, Change, Store

MANAGED_BY, MANAGER = "app.kubernetes.io/managed-by", "kubevirt-rebalancer"
POLICY = "kubevirt-rebalancer.io/policy"
VMIS, MIGRATIONS = "virtualmachineinstances", "virtualmachineinstancemigrations"
ENDED = ("Succeeded", "Failed")
GIB = 2**30


class Terms(Protocol):
    """What of the bounds matters here; see Bounds."""

    @property
    def cooldown_seconds(self) -> float: ...
    @property
    def deadline_seconds(self) -> float: ...
    @property
    def deadline_seconds_per_gib(self) -> float: ...
    @property
    def blink_seconds(self) -> float: ...
    @property
    def glance_seconds(self) -> float: ...


@dataclass(slots=True, kw_only=True)
class _Trip:
    """A migration that has not ended. `until` is when it passes its deadline."""

    vmi: str
    since: float
    until: float


@dataclass(slots=True, kw_only=True)
class _Vm:
    """What is known of a VM. `not_ours`: why it is not ours to move, and since when; `ended`: its migrations that have
    ended and are there to be seen, and when they did; `node` where it is, since `arrived`."""

    not_ours: str = ""
    since: float = 0.0
    node: str = ""
    arrived: float = float("-inf")
    ended: dict[str, float] = field(default_factory=dict)


def is_ours(migration: Obj) -> bool:
    return labels(migration).get(MANAGED_BY) == MANAGER


def vmi_of(migration: Obj) -> str:
    """namespace/name of the VM that a migration moves."""
    return f"{migration['metadata']['namespace']}/{migration['spec'].get('vmiName')}"


class Conduct:
    """Hears of every change, and of our migrations when they are made."""

    def __init__(self, store: Store, bounds: Terms, say: Callable[[int, str, str], None]) -> None:
        self._store = store
        self._bounds = bounds
        self._say = say
        self._vms: dict[str, _Vm] = {}
        self._ours: dict[str, _Trip] = {}

    def change(self, change: Change) -> None:
        """The cluster has changed."""
        if change.resource == VMIS:
            self._vm_changed(change)
        elif change.resource == MIGRATIONS:
            self._migration_changed(change)

    def _vm(self, name: str) -> _Vm:
        return self._vms.setdefault(name, _Vm())

    def _vm_changed(self, change: Change) -> None:
        name = f"{change.namespace}/{change.name}"
        if change.type == DELETED:
            self._vms.pop(name, None)
            return
        self._look(self._vm(name), change.object, change.time)

    def meet(self, vmi: Obj) -> None:
        """A VM that was there from the beginning."""
        self._look(self._vm(full_name(vmi)), vmi, float("-inf"))

    def _look(self, vm: _Vm, vmi: Obj, moment: float) -> None:
        status, notes = vmi.get("status") or {}, vmi["metadata"].get("annotations") or {}
        why = ""
        if notes.get(POLICY) == "ignore":
            why = "has been opted out"
        elif status.get("evacuationNodeName") and status["evacuationNodeName"] == status.get("nodeName"):
            why = f"is being evacuated from {status['nodeName']}"
        if why != vm.not_ours:
            vm.not_ours, vm.since = why, moment
        if status.get("nodeName", "") != vm.node:
            vm.node, vm.arrived = status.get("nodeName", ""), moment

    def _migration_changed(self, change: Change) -> None:
        name, vm = f"{change.namespace}/{change.name}", self._vm(vmi_of(change.object))
        if change.type == DELETED:
            vm.ended.pop(name, None)
        elif (change.object.get("status") or {}).get("phase") in ENDED:
            vm.ended.setdefault(name, change.time)
        elif not change.object["metadata"].get("deletionTimestamp"):
            return
        trip = self._ours.pop(name, None)
        if trip is not None:
            self._judge(name, trip, vm)

    def created(self, migration: Obj, target: str) -> None:
        """A migration of ours has just been made."""
        name, about = vmi_of(migration), full_name(migration)
        vm, now, bounds = self._vm(name), self._store.now(), self._bounds
        if vm.not_ours and now - vm.since > bounds.glance_seconds:
            self._say(9, about, f"{name} {vm.not_ours}, {now - vm.since:.0f} s before it was made")
        ended = max(vm.ended.values(), default=float("-inf"))
        # The API's times are whole seconds: nobody can keep to a finer one.
        if bounds.blink_seconds < now - ended < bounds.cooldown_seconds - 1.0:
            self._say(5, about, f"{name} has migrated {now - ended:.0f} s ago and should rest")
        if target == vm.node and now - vm.arrived > bounds.glance_seconds:
            self._say(3, about, f"{name} is on {target} already")
        found = self._store.find(VMIS, *name.split("/", 1))
        guest = ((found or {}).get("spec") or {}).get("domain", {}).get("memory", {}).get("guest")
        limit = bounds.deadline_seconds + bounds.deadline_seconds_per_gib * float(amount(guest) / GIB)
        self._ours[full_name(migration)] = _Trip(vmi=name, since=now, until=now + limit)

    def _judge(self, about: str, trip: _Trip, vm: _Vm) -> None:
        """A migration of ours has ended, or is being withdrawn: was it in time?"""
        now, blink = self._store.now(), self._bounds.blink_seconds
        if now > trip.until + blink:
            self._say(4, about, f"it was given up {now - trip.until:.0f} s after its deadline")
        since = max(vm.since, trip.since)
        if vm.not_ours and now - since > blink:
            self._say(9, about, f"{trip.vmi} {vm.not_ours}, and ours went on for {now - since:.0f} s")
