"""What a run did, by its own reading of the API: the checkers' picture of the cluster, and nothing of the planner's."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import anyio
from controlplane.kubeclient import KubeClient, Object

from rebalancer.sim.check_picture import broken_rules, loads, take
from rebalancer.sim.check_reading import amount, full_name, labels
from rebalancer.sim.resources import BY_STORAGE, MIGRATIONS, VMIS

WATCHED = ("nodes", "namespaces", "pods", VMIS, MIGRATIONS)
FINAL = ("Succeeded", "Failed")
THRESHOLD = 0.8
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """A VM that arrived somewhere; `share` of the node's CPU is then reserved, moves in flight counted as landed."""

    vm: str
    target: str
    share: float


@dataclass(slots=True, kw_only=True)
class Flight:
    """A migration; times in seconds, 0.0 where that has not come."""

    asked: float
    began: float = 0.0
    ended: float = 0.0
    phase: str = ""


@dataclass(slots=True)
class Judge:
    """Follows the cluster from run() on."""

    client: KubeClient
    landings: list[Landing] = field(default_factory=list)
    flights: dict[str, Flight] = field(default_factory=dict)
    _items: dict[str, dict[str, Object]] = field(default_factory=lambda: {name: {} for name in WATCHED})

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled; ready once everything is read."""
        async with anyio.create_task_group() as tasks:
            for resource in WATCHED:
                await tasks.start(self._follow, resource)
            task_status.started()

    async def _follow(self, resource: str, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        path = BY_STORAGE[resource].path()
        whole = await self.client.get(path)
        self._items[resource] = {full_name(item): item for item in whole["items"]}
        version = whole["metadata"]["resourceVersion"]
        task_status.started()
        async for kind, item in self.client.watch(path, resourceVersion=version):
            self._hear(resource, kind, item)

    def _hear(self, resource: str, kind: str, item: Object) -> None:
        name, known = full_name(item), self._items[resource]
        before = known.get(name)
        if kind == "DELETED":
            known.pop(name, None)
            return
        known[name] = item
        if resource == MIGRATIONS:
            self._flies(item)
        elif resource == VMIS and before is not None:
            target = item["status"].get("nodeName", "")
            if target and before["status"].get("nodeName", target) != target:
                self.landings.append(Landing(vm=name, target=target, share=self.shares()[target]))

    def _flies(self, item: Object) -> None:
        now, phase = time.monotonic(), (item.get("status") or {}).get("phase") or ""
        flight = self.flights.setdefault(item["metadata"]["uid"], Flight(asked=now))
        if phase not in ("", "Pending") and not flight.began:
            flight.began = now
        if phase in FINAL and not flight.ended:
            flight.ended = now
        flight.phase = phase

    # Judging

    def shares(self) -> dict[str, float]:
        """The share of each worker's CPU that is reserved."""
        picture = take(lambda resource: list(self._items[resource].values()))
        return {
            name: float(used / amount(picture.nodes[name]["status"]["allocatable"]["cpu"]))
            for name, used in loads(picture, "cpu").items()
            if CONTROL_PLANE not in labels(picture.nodes[name])
        }

    def hotspots(self) -> list[str]:
        """Workers above the threshold."""
        return sorted(name for name, share in self.shares().items() if share > THRESHOLD)

    def violations(self) -> list[str]:
        """Every required rule that a VM breaks, as a sentence."""
        return sorted(broken_rules(take(lambda resource: list(self._items[resource].values()))).values())

    def moved_again(self) -> int:
        """VMs that moved more than once."""
        return sum(times > 1 for times in Counter(landing.vm for landing in self.landings).values())

    def ended_hot(self) -> int:
        """Moves whose target was above its threshold with them."""
        return sum(landing.share > THRESHOLD for landing in self.landings)

    def busy(self) -> bool:
        """Whether a migration is under way, or KubeVirt is asked for one that it may make."""
        return any(not flight.ended for flight in self.flights.values())

    def last(self) -> float:
        """When something last began or ended, on time.monotonic()'s scale; 0.0 where nothing has."""
        moments = [moment for flight in self.flights.values() for moment in (flight.asked, flight.ended)]
        return max(moments, default=0.0)

    def durations(self) -> list[float]:
        """Seconds that successful migrations took once KubeVirt had a slot for them."""
        return [flight.ended - flight.began for flight in self.flights.values() if flight.phase == "Succeeded"]
