"""A KubeVirt cluster in a process: objects, controllers and nodes, ready to be served over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rebalancer.sim import admission
from rebalancer.sim.api import ApiParams, ApiServer, Authorize
from rebalancer.sim.chance import Dice
from rebalancer.sim.errors import ApiError
from rebalancer.sim.evacuation import EvacuationController
from rebalancer.sim.faults import Faults
from rebalancer.sim.kubeapi import LocalKube
from rebalancer.sim.migration_controller import MigrationController
from rebalancer.sim.node_controller import NodeController
from rebalancer.sim.nodeplane import NodePlane
from rebalancer.sim.objects import HEARTBEAT, TERMINAL, Obj, decode, owner_uid, phase, stamp, with_conditions
from rebalancer.sim.plane import Mishaps, NodePlaneParams
from rebalancer.sim.resources import BY_KIND, VMIS
from rebalancer.sim.scheduler import Scheduler
from rebalancer.sim.store import HISTORY, Change, Store
from rebalancer.sim.vmi_controller import VmiController
from rebalancer.sim.workload_updater import OUTDATED, PENDING_CPUS, WorkloadUpdater

EPOCH = 1_795_212_000.0
"""2026-11-20T22:00:00Z, when time begins in every simulated cluster: an hour after our recording was made."""

EVENT_SECONDS, EVENT_SWEEP_SECONDS = 3600.0, 600.0
LAUNCHER = "virt-launcher"
NAMESPACES = ("default", "kubevirt", "kubevirt-rebalancer")
"""Namespaces that every cluster has in which we are installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldParams:
    """How a world is made. `epoch` is the wall time, in seconds since 1970, at loop time zero.

    `history`: changes that are remembered for watches that resume.
    """

    seed: int = 0
    epoch: float = EPOCH
    nodes: NodePlaneParams = field(default_factory=NodePlaneParams)
    api: ApiParams = field(default_factory=ApiParams)
    history: int = HISTORY


class LoopClock:
    """Wall and monotonic time from the running event loop: the clock of everything in a simulated cluster."""

    def __init__(self, epoch: float = EPOCH) -> None:
        self._epoch = epoch

    def now(self) -> float:
        """Seconds since 1970."""
        return self._epoch + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class World:
    """The cluster. An async context manager: controllers and nodes work inside the `async with` block."""

    def __init__(
        self,
        items: Iterable[Obj],
        params: WorldParams | None = None,
        *,
        mishaps: Mishaps | None = None,
        faults: Faults | None = None,
        authorize: Authorize | None = None,
    ) -> None:
        self.params = params or WorldParams()
        self.clock = LoopClock(self.params.epoch)
        self.dice = Dice(self.params.seed)
        self.store = Store(self.clock.now, self.dice, self.params.history)
        self.digest = hashlib.sha256()
        self.api = ApiServer(self.store, dice=self.dice, faults=faults, authorize=authorize, params=self.params.api)
        self.nodes = NodePlane(
            LocalKube(self.store, "nodes"),
            now=self.clock.now,
            dice=self.dice,
            params=self.params.nodes,
            mishaps=mishaps,
        )
        self._lifecycle = NodeController(self.store, lambda node: node not in self.nodes.lost)
        self._items = list(items)
        self._tasks: list[asyncio.Task[None]] = []
        self._unsubscribe: Callable[[], None] = lambda: None

    @classmethod
    def from_dump(cls, path: Path, params: WorldParams | None = None, **more: Any) -> World:
        """A world that begins as a recorded cluster: a v1 List as `kubectl get ... -o json` prints it, gz or not."""
        return cls(read_list(path), params, **more)

    # Life

    async def __aenter__(self) -> World:
        for item in self._items:
            kind = BY_KIND.get((item.get("apiVersion", ""), item.get("kind", "")))
            if kind is not None:
                self.store.load(kind.storage, self._fresh(item))
        for name in NAMESPACES:
            if self.store.find("namespaces", "", name) is None:
                labels = {"kubernetes.io/metadata.name": name}
                self.store.create("namespaces", {"metadata": {"name": name, "labels": labels}}, actor="user")
        self._unsubscribe = self.store.subscribe(self._note)
        parts = (
            Scheduler(self.store),
            VmiController(self.store),
            MigrationController(self.store),
            EvacuationController(self.store),
            WorkloadUpdater(self.store, self.dice),
            self._lifecycle,
        )
        self._tasks = [asyncio.create_task(part.run(), name=part.name) for part in parts]
        self._tasks.append(asyncio.create_task(self.nodes.run(), name="nodes"))
        self._tasks.append(asyncio.create_task(self._forget_events(), name="event-ttl"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.api.stop()
        for task in self._tasks:
            task.cancel()
        failures = [
            failure
            for failure in await asyncio.gather(*self._tasks, return_exceptions=True)
            if isinstance(failure, Exception)
        ]
        self._unsubscribe()
        if failures:
            raise failures[0]

    def _fresh(self, item: Obj) -> Obj:
        """A recorded node has just sent a heartbeat; the recording's own is hours old."""
        notes = item["metadata"].get("annotations") or {}
        if item.get("kind") != "Node" or HEARTBEAT not in notes:
            return item
        meta = item["metadata"] | {"annotations": notes | {HEARTBEAT: stamp(self.clock.now())}}
        return item | {"metadata": meta}

    async def _forget_events(self) -> None:
        """The API server keeps Events for an hour (kube-apiserver: --event-ttl)."""
        while True:
            await asyncio.sleep(EVENT_SWEEP_SECONDS)
            oldest = stamp(self.clock.now() - EVENT_SECONDS)
            for event in self.store.items("events"):
                if event["metadata"]["creationTimestamp"] < oldest:
                    meta = event["metadata"]
                    self.store.delete("events", meta["namespace"], meta["name"], actor="etcd")

    def check(self) -> None:
        """Raises what killed a part of the cluster, if anything did."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                failure = task.exception()
                if failure is not None:
                    raise failure

    def _note(self, change: Change) -> None:
        self.digest.update(change.line())

    # What people and life itself do

    def start_vm(self, vmi: Obj) -> Obj:
        """Create a VMI, as its VirtualMachine's controller would."""
        admission.mutate_vmi(vmi, self.clock.now())
        return self.store.create(VMIS, vmi, actor="user")

    def stop_vm(self, namespace: str, name: str) -> None:
        """Delete a VMI; its pod and its migrations follow."""
        self.store.delete(VMIS, namespace, name, actor="user")

    def resize_vm(self, namespace: str, name: str, vcpus: int) -> None:
        """Give a running VM other CPUs: they are plugged in when it has migrated into a pod with room for them."""
        moment = stamp(self.clock.now())
        pending = {"type": PENDING_CPUS, "status": "True", "lastProbeTime": moment, "lastTransitionTime": moment}

        def change(vmi: Obj) -> None:
            domain = vmi["spec"]["domain"]
            domain["cpu"] = domain["cpu"] | {"cores": vcpus}
            domain["resources"]["requests"]["cpu"] = str(vcpus)
            vmi["status"]["conditions"] = with_conditions(vmi["status"].get("conditions") or (), pending)

        self.store.modify(VMIS, namespace, name, change, actor="user")

    def announce(self, version: str, phase: str) -> None:
        """What the KubeVirt resource says of itself while it is upgraded."""
        for cr in self.store.items("kubevirts"):

            def change(item: Obj) -> None:
                item["status"] |= {"phase": phase, "observedKubeVirtVersion": version}

            meta = cr["metadata"]
            self.store.modify("kubevirts", meta["namespace"], meta["name"], change, actor="virt-operator")

    def outdate(self) -> None:
        """After an upgrade every launcher that runs is one of the old version."""
        for vmi in self.store.items(VMIS):

            def change(item: Obj) -> None:
                item["metadata"].setdefault("labels", {})[OUTDATED] = ""

            self.store.modify(
                VMIS, vmi["metadata"]["namespace"], vmi["metadata"]["name"], change, actor="virt-controller"
            )

    def cordon(self, node: str, *, on: bool = True) -> None:
        """Set or clear spec.unschedulable, as kubectl cordon does."""

        def change(item: Obj) -> None:
            spec = item.setdefault("spec", {})
            if on:
                spec["unschedulable"] = True
            else:
                spec.pop("unschedulable", None)

        self.store.modify("nodes", "", node, change, actor="user")

    def lose(self, node: str) -> None:
        """The node dies: from now on nothing happens on it, and the cluster finds out in its own time."""
        self.nodes.lose(node)
        self._lifecycle.notice(node)

    def regain(self, node: str) -> None:
        """The node is back."""
        self.nodes.regain(node)
        self._lifecycle.enqueue(node)

    def drain(self, node: str) -> list[str]:
        """Cordon and ask for the eviction of every launcher pod, once; the answers' texts."""
        self.cordon(node)
        return [self.evict(pod) for pod in self.launchers(node)]

    def evict(self, pod: Obj) -> str:
        """Ask for the eviction of one pod; the refusal's text, or "" where the pod was deleted."""
        meta = pod["metadata"]
        try:
            admission.admit_eviction(self.store, pod, {})
        except ApiError as refusal:
            return refusal.message
        self.store.delete("pods", meta["namespace"], meta["name"], actor="user")
        return ""

    # Looking

    def launchers(self, node: str = "") -> list[Obj]:
        """The launcher pods that have not ended, of one node or of all."""
        return [
            pod
            for pod in (self.store.where("pods", "node", node) if node else self.store.items("pods"))
            if (pod["metadata"].get("labels") or {}).get("kubevirt.io") == LAUNCHER
            and phase(pod) not in TERMINAL
            and owner_uid(pod)
        ]

    def place_of(self, namespace: str, name: str) -> str:
        """The node a VMI runs on."""
        return str((self.store.get(VMIS, namespace, name).get("status") or {}).get("nodeName", ""))

    def places(self) -> dict[str, str]:
        """namespace/name of every VMI to its node."""
        return {
            f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}": str(
                (vmi.get("status") or {}).get("nodeName", "")
            )
            for vmi in self.store.items(VMIS)
        }


def read_list(path: Path) -> list[Obj]:
    """The items of a v1 List in a file, gz or not."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    items: list[Obj] = decode(raw)["items"]
    return items
