"""A small kube-scheduler: our own filters, tested against the real one's verdicts, and the simplest of its scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rebalancer.domain.frozen import EMPTY, FrozenMap
from rebalancer.domain.node import Node
from rebalancer.domain.pod import Pod
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.decode import decode
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.feasibility import Survey, survey
from rebalancer.sim.controller import Controller
from rebalancer.sim.events import Recorder
from rebalancer.sim.objects import Obj, condition, deleting, encode, key_of, phase, stamp, terminal, with_conditions
from rebalancer.sim.store import ADDED, DELETED, Change, Store

NAME = "default-scheduler"
FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS = 1.0, 10.0
FLUSH_SECONDS = 300.0
"""An unschedulable pod is tried again after this long even if nothing seems to have changed."""

SURROUNDINGS = {
    "namespaces": "Namespace",
    "persistentvolumes": "PersistentVolume",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "csinodes": "CSINode",
}


class Scheduler(Controller):
    """Binds pods that name no node, or says in their condition why it cannot. Deterministic: ties go by name."""

    name = "scheduler"

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._recorder = Recorder(store, NAME)
        self._state: ClusterState | None = None
        self._placed: dict[str, Pod] = {}
        self._nodes: dict[str, Node] = {}
        self._attempts: dict[str, int] = {}

    # Following the cluster

    def resync(self) -> None:
        self._state = None
        for item in self.store.items("pods"):
            pod = None if terminal(item) else self._read_pod(item)
            if pod is not None and pod.node:
                self._placed[pod.key] = pod
            self._consider(item)

    def changed(self, change: Change) -> None:
        key = f"{change.namespace}/{change.name}"
        if change.resource == "pods":
            self._pod_changed(key, change)
        elif change.resource == "nodes":
            self._node_changed(change)
        elif change.resource in SURROUNDINGS:
            self._state = None
            self._retry()

    def _pod_changed(self, key: str, change: Change) -> None:
        if change.type == ADDED or (change.type != DELETED and key in self._attempts):
            self._consider(change.object)
        if change.type == DELETED:
            self._attempts.pop(key, None)
        pod = None if change.type == DELETED or terminal(change.object) else self._read_pod(change.object)
        before = self._placed.get(key)
        if pod is not None and not pod.node:
            pod = None
        if pod == before:
            return
        self._place(key, pod, before)
        if before is not None:
            self._retry()

    def _place(self, key: str, pod: Pod | None, before: Pod | None) -> None:
        """Bring the state up to date with one pod; a node that it does not know leaves the state to be built anew."""
        if self._state is not None:
            if before is not None and before.node in self._state.nodes:
                self._state.remove(before)
            if pod is not None and pod.node in self._state.nodes:
                self._state.add(pod)
        if pod is None:
            self._placed.pop(key, None)
        else:
            self._placed[key] = pod

    def _node_changed(self, change: Change) -> None:
        """Heartbeats change nothing that a filter looks at, and must not cost a new picture of the cluster."""
        found = decode("Node", encode(change.object)).value
        node = replace(found, annotations=EMPTY) if isinstance(found, Node) and change.type != DELETED else None
        if node == self._nodes.get(change.name):
            return
        if node is None:
            self._nodes.pop(change.name, None)
        else:
            self._nodes[change.name] = node
        self._state = None
        self._retry()

    @staticmethod
    def _read_pod(item: Obj) -> Pod | None:
        found = decode("Pod", encode(item)).value
        return found if isinstance(found, Pod) else None

    def _cluster(self) -> ClusterState:
        """The cluster as filters see it. Pods are read when they change and not again when a node does."""
        if self._state is None:
            read = {
                name: FrozenMap({found.key: found.value for found in self._read_all(name, kind)})
                for name, kind in SURROUNDINGS.items()
            }
            nodes = {found.key: found.value for found in self._read_all("nodes", "Node")}
            self._nodes = {key: replace(node, annotations=EMPTY) for key, node in nodes.items()}
            self._state = ClusterState.of(
                Snapshot(
                    nodes=FrozenMap(nodes),
                    pods=FrozenMap(self._placed),
                    namespaces=read["namespaces"],
                    volumes=read["persistentvolumes"],
                    claims=read["persistentvolumeclaims"],
                    csi_nodes=read["csinodes"],
                )
            )
        return self._state

    def _read_all(self, resource: str, kind: str) -> list[Any]:
        """Every object of a resource that can be read, decoded."""
        read = (decode(kind, encode(item)) for item in self.store.items(resource))
        return [found for found in read if found.value is not None]

    # Scheduling

    def _consider(self, pod: Obj) -> None:
        spec = pod.get("spec") or {}
        waits = phase(pod) == "Pending" and not spec.get("nodeName") and not deleting(pod)
        if waits and spec.get("schedulerName", NAME) == NAME and not spec.get("schedulingGates"):
            key = key_of(pod)
            if key not in self._attempts:
                self._attempts[key] = 0
                self.enqueue(key)

    def _retry(self) -> None:
        """Something was freed or changed: pods that found no node are tried again, each after its back-off."""
        for key, attempts in self._attempts.items():
            if attempts:
                wait = min(FIRST_BACKOFF_SECONDS * 2 ** (attempts - 1), LAST_BACKOFF_SECONDS)
                self.enqueue(key, after=wait)

    def reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        item = self.store.find("pods", namespace, name)
        if item is None or item["spec"].get("nodeName") or deleting(item):
            self._attempts.pop(key, None)
            return
        pod = self._read_pod(item)
        if pod is None:
            return
        found = survey(self._cluster(), pod)
        if found.feasible:
            self._attempts.pop(key, None)
            self._bind(item, self._best(found, pod))
        else:
            self._attempts[key] = self._attempts.get(key, 0) + 1
            self._refuse(item, found)
            self.enqueue(key, after=FLUSH_SECONDS)

    def _best(self, found: Survey, pod: Pod) -> str:
        """Least allocated, CPU and memory weighing the same (scheduler: NodeResourcesFit's default score)."""
        state = self._cluster()

        def free(name: str) -> float:
            offered, used = state.nodes[name].allocatable, state.requested(name)
            cpu = (offered.cpu_milli - used.cpu_milli - pod.spec.requests.cpu_milli) / max(offered.cpu_milli, 1)
            memory = offered.memory_bytes - used.memory_bytes - pod.spec.requests.memory_bytes
            return round(cpu + memory / max(offered.memory_bytes, 1), 6)

        return min(found.feasible, key=lambda name: (-free(name), name))

    def _bind(self, item: Obj, node: str) -> None:
        meta = item["metadata"]

        def change(pod: Obj) -> None:
            pod["spec"]["nodeName"] = node
            done = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
            done["lastTransitionTime"] = stamp(self.store.now())
            pod["status"]["conditions"] = with_conditions(pod["status"].get("conditions") or (), done)

        self.store.modify("pods", meta["namespace"], meta["name"], change, actor="kube-scheduler")
        self._recorder.record(item, "Normal", "Scheduled", f"Successfully assigned {key_of(item)} to {node}")

    def _refuse(self, item: Obj, found: Survey) -> None:
        total = len(found.rejections)
        hopeless = sum(rejection.unresolvable for rejection in found.rejections.values())
        parts = [
            text
            for number, text in (
                (total - hopeless, f"{total - hopeless} No preemption victims found for incoming pod"),
                (hopeless, f"{hopeless} Preemption is not helpful for scheduling"),
            )
            if number
        ]
        # Two plugins are asked for a way out: DynamicResources, which has nothing to say about VMs, and preemption.
        why = f"0/{total} nodes are available: {', '.join(parts)}."
        message = f"{found.message()} no new claims to deallocate, preemption: {why}"
        if (condition(item, "PodScheduled") or {}).get("message") == message:
            return
        meta = item["metadata"]

        def change(pod: Obj) -> None:
            no = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
                "lastProbeTime": None,
                "lastTransitionTime": stamp(self.store.now()),
            }
            pod["status"]["conditions"] = with_conditions(pod["status"].get("conditions") or (), no)

        self.store.modify("pods", meta["namespace"], meta["name"], change, actor="kube-scheduler")
        self._recorder.record(item, "Warning", "FailedScheduling", message)
