"""The working picture of a cluster: what stands where, kept up to date pod by pod."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rebalancer.domain.cluster import CSINode, Namespace, PersistentVolume, PersistentVolumeClaim
from rebalancer.domain.node import Node
from rebalancer.domain.pod import Pod
from rebalancer.domain.resources import Resources
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import Migration
from rebalancer.policy.changes import Changes
from rebalancer.policy.node_table import NodeTable
from rebalancer.policy.pod_counts import PodCounts
from rebalancer.policy.room import Room
from rebalancer.policy.tenancy import MIGRATION_JOB, VMI_KIND, Tenancy, active_pod

__all__ = ["MIGRATION_JOB", "VMI_KIND", "ClusterState", "Step", "settled_pods"]

ONE_POD: Final = "ReadWriteOncePod"
UNLIMITED: Final = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From one state to the next: `state`, the pods that have `left` a node and those that `came`, and for each VM
    that may have changed its active pods before and after, by its key. A pod of which anything changes leaves and
    comes."""

    state: ClusterState
    left: tuple[Pod, ...]
    came: tuple[Pod, ...]
    vms: Mapping[str, tuple[Pod | None, Pod | None]]


class ClusterState:
    """Nodes, the pods that hold room on them, and the counts that kube-scheduler's filters ask for.

    Holds what kube-scheduler's snapshot holds: pods that are bound to a known node and have not ended. Changing one
    pod costs time in the number of groups that select it, not in the number of pods. `copy` shares everything that
    neither side has changed since. Nodes, namespaces and volumes never change, and neither does what the snapshot
    said about VMIs. `advance` makes the state of a later snapshot.
    """

    def __init__(
        self,
        *,
        nodes: Mapping[str, Node],
        namespaces: Mapping[str, Namespace],
        volumes: Mapping[str, PersistentVolume],
        claims: Mapping[str, PersistentVolumeClaim],
        csi_nodes: Mapping[str, CSINode],
    ) -> None:
        self.nodes = nodes
        self.namespaces = namespaces
        self.volumes = volumes
        self.claims = claims
        self.csi_nodes = csi_nodes
        self.table = NodeTable(nodes)
        self._tenancy = Tenancy.of(Snapshot(), settled=False)
        self._active: dict[str, Pod] = {}
        self._pods: dict[str, dict[str, Pod]] = {name: {} for name in nodes}
        self.counts = PodCounts(self.table, namespaces, self._pods)
        self.room = Room(self.table)
        # Nodes whose dict of pods this state alone holds; any other dict is copied before it is changed.
        self._owned: set[str] = set(nodes)
        # Pods with host ports or disks are few: filters that ask for them walk these instead of every pod.
        self._special: dict[str, tuple[Pod, ...]] = {}
        self._claim_users: dict[str, int] = {}
        self._attached: dict[str, Mapping[str, frozenset[str]]] = {}
        self._slots: dict[str, NDArray[np.int64]] = {}

    @classmethod
    def of(cls, snapshot: Snapshot, *, settled: bool = False) -> ClusterState:
        """The state of a snapshot.

        settled=False: every pod that is bound and has not ended counts, the targets and the sources of migrations in
        flight alike. settled=True: those migrations have landed, so only the pod that will be left of each VMI counts.
        A migration whose target pod is not bound yet has not decided where it lands and leaves its VMI where it is.
        """
        state = cls(
            nodes=snapshot.nodes,
            namespaces=snapshot.namespaces,
            volumes=snapshot.volumes,
            claims=snapshot.claims,
            csi_nodes=snapshot.csi_nodes,
        )
        state._tenancy = Tenancy.of(snapshot, settled=settled)
        state._active = state._tenancy.active
        gone = state._tenancy.gone
        for key, pod in snapshot.pods.items():
            if pod.node in state._pods and not pod.terminal and key not in gone:
                state.add(pod)
        return state

    def advance(self, before: Snapshot, after: Snapshot, changes: Changes) -> Step | None:
        """The state of `after`, where this is that of `before`, just as it was made: nothing was moved in it since.

        Costs time in the number of changes. None where only a new start helps (`Changes.rebuilt`, or VMIs of one UID).
        This state stays as it is.
        """
        advanced = None if changes.rebuilt else self._tenancy.advance(after, changes)
        if advanced is None:
            return None
        tenancy, touched = advanced
        table = self.table.seeing(tuple(after.nodes.values())) if changes.nodes else self.table
        state = self._on(after.nodes if changes.nodes else self.nodes, table, tenancy, tenancy.active)
        gone_before, gone = self._tenancy.gone, state._tenancy.gone
        left, came = [], []
        for key in sorted({*changes.pods, *(gone_before ^ gone)}):
            old, new = before.pods.get(key), after.pods.get(key)
            if old is not None and self._counts(old) and key not in gone_before:
                left.append(old)
            if new is not None and self._counts(new) and key not in gone:
                came.append(new)
        for pod in left:
            state.remove(pod)
        for pod in came:
            state.add(pod)
        vms = {key: (self._active.get(key), state._active.get(key)) for key in touched}
        return Step(state=state, left=tuple(left), came=tuple(came), vms=vms)

    def unsettled(self, snapshot: Snapshot) -> ClusterState:
        """Of the settled state of a snapshot, just as it was made: ClusterState.of(snapshot)."""
        state = self.copy()
        tenancy = state._tenancy
        for key in sorted(tenancy.gone):
            state.add(snapshot.pods[key])
        for key in tenancy.unclear:
            pods = [pod for pod in self.launchers.get(snapshot.vmis[key].uid, ()) if pod.node in self._pods]
            active = active_pod(snapshot.vmis[key], pods)
            if active is not None:
                state._active[key] = active
            else:
                state._active.pop(key, None)
        return state

    @property
    def active_pods(self) -> Mapping[str, Pod]:
        """The running launcher pod of each VMI, by the VMI's key; VMIs without one are absent."""
        return self._active

    @property
    def launchers(self) -> Mapping[str, tuple[Pod, ...]]:
        """Each VMI's pods that have not ended, bound or not, by the VMI's UID."""
        return self._tenancy.launchers

    @property
    def in_flight(self) -> Mapping[str, Migration]:
        """The unfinished migrations, by the VMI's key."""
        return self._tenancy.in_flight

    def pods_on(self, node: str) -> Collection[Pod]:
        """The pods that hold room on a node; those of an unknown node are none."""
        pods = self._pods.get(node)
        return pods.values() if pods is not None else ()

    def holds(self, pod: Pod) -> bool:
        """Whether this pod is on the node that it names."""
        return pod.node in self._pods and self._pods[pod.node].get(pod.uid) == pod

    def requested(self, node: str) -> Resources:
        """The sum of the effective requests of `pods_on`."""
        return self.room.requested(self.table.positions[node])

    def add(self, pod: Pod) -> None:
        """Place a pod on the node that it names, which must be known. No other pod may have its UID."""
        assert pod.uid not in self._pods[pod.node], f"pod {pod.key} is on {pod.node} already"
        self._mine(pod.node)[pod.uid] = pod
        self.room.charge(self.table.positions[pod.node], pod.spec.requests, 1)
        if pod.spec.host_ports or pod.spec.volumes:
            self._count_special(pod, 1)
        self.counts.add(pod)

    def remove(self, pod: Pod) -> None:
        """Take a pod away from the node that it names. It must be there."""
        known = self._mine(pod.node).pop(pod.uid)
        self.room.charge(self.table.positions[pod.node], known.spec.requests, -1)
        if known.spec.host_ports or known.spec.volumes:
            self._count_special(known, -1)
        self.counts.remove(known)

    def move(self, vmi_key: str, target_pod: Pod, node: str) -> None:
        """Let a VMI run as `target_pod` on `node` instead of as its active pod: the move after it has settled."""
        self.remove(self._active[vmi_key])
        landed = target_pod.on(node)
        self.add(landed)
        self._active[vmi_key] = landed

    def copy(self) -> ClusterState:
        """An independent state that is equal to this one."""
        return self._on(self.nodes, self.table, self._tenancy, dict(self._active))

    def detached(self) -> ClusterState:
        """A copy that keeps to itself what it will work out, so that it ends with it: for whoever asks a lot."""
        return self._on(self.nodes, self.table.seeing(self.table.nodes), self._tenancy, dict(self._active))

    def _on(
        self, nodes: Mapping[str, Node], table: NodeTable, tenancy: Tenancy, active: dict[str, Pod]
    ) -> ClusterState:
        """A copy with these nodes, the same but for conditions and annotations."""
        twin = object.__new__(ClusterState)
        twin.nodes, twin.table = nodes, table
        twin.namespaces, twin.volumes = self.namespaces, self.volumes
        twin.claims, twin.csi_nodes = self.claims, self.csi_nodes
        twin._tenancy, twin._active = tenancy, active
        twin._pods = dict(self._pods)
        twin.counts = self.counts.copy(twin._pods, table)
        twin.room = self.room.copy(table)
        twin._owned, self._owned = set(), set()
        twin._special = dict(self._special)
        twin._claim_users = dict(self._claim_users)
        twin._attached = dict(self._attached)
        twin._slots = {driver: slots.copy() for driver, slots in self._slots.items()}
        return twin

    def special_pods(self, node: str) -> tuple[Pod, ...]:
        """The pods of a node that use host ports or volumes."""
        return self._special.get(node, ())

    def claim_users(self, namespace: str, claim: str) -> int:
        """How many placed pods use a claim that only one may (scheduler: StorageInfos.IsPVCUsedByPods)."""
        return self._claim_users.get(f"{namespace}/{claim}", 0)

    def attached_volumes(self, node: str) -> Mapping[str, frozenset[str]]:
        """CSI driver to the handles of its volumes that a node's pods use; worked out once per change of the node."""
        found = self._attached.get(node)
        if found is None:
            handles: dict[str, set[str]] = {}
            for pod in self.special_pods(node):
                for driver, handle in self.csi_volumes(pod):
                    handles.setdefault(driver, set()).add(handle)
            found = {driver: frozenset(names) for driver, names in handles.items()}
            self._attached[node] = found
        return found

    def free_slots(self, driver: str) -> NDArray[np.int64]:
        """How many more volumes of a CSI driver each node may hold; without a limit a great many.

        The array is the state's own: read it before the next change, and do not write.
        """
        found = self._slots.get(driver)
        if found is None:
            slots = [self._slots_on(name, driver) for name in self.table.names]
            found = self._slots[driver] = np.array(slots, dtype=np.int64)
        return found

    def _slots_on(self, node: str, driver: str) -> int:
        known = self.csi_nodes.get(node)
        limit = known.limits.get(driver) if known is not None else None
        return UNLIMITED if limit is None else limit - len(self.attached_volumes(node).get(driver, ()))

    def csi_volumes(self, pod: Pod) -> Iterable[tuple[str, str]]:
        """(driver, handle) of each CSI volume that a pod reaches through a claim that is bound."""
        for volume in pod.spec.volumes:
            claim = self.claims.get(f"{pod.namespace}/{volume.claim}") if volume.claim else None
            bound = self.volumes.get(claim.volume) if claim is not None else None
            if bound is not None and all(bound.csi):
                yield bound.csi

    def _counts(self, pod: Pod) -> bool:
        return pod.node in self._pods and not pod.terminal

    def _mine(self, node: str) -> dict[str, Pod]:
        if node not in self._owned:
            self._pods[node] = dict(self._pods[node])
            self._owned.add(node)
        return self._pods[node]

    def _count_special(self, pod: Pod, sign: int) -> None:
        others = tuple(other for other in self.special_pods(pod.node) if other.uid != pod.uid)
        self._special[pod.node] = (*others, pod) if sign > 0 else others
        self._attached.pop(pod.node, None)
        for driver, slots in self._slots.items():
            slots[self.table.positions[pod.node]] = self._slots_on(pod.node, driver)
        for volume in pod.spec.volumes:
            key = f"{pod.namespace}/{volume.claim}"
            if volume.claim and key in self.claims and ONE_POD in self.claims[key].access_modes:
                self._claim_users[key] = self._claim_users.get(key, 0) + sign


def settled_pods(snapshot: Snapshot) -> Mapping[str, Pod]:
    """ClusterState.of(snapshot, settled=True).active_pods, for those who need nothing else of it."""
    return Tenancy.of(snapshot, settled=True).active
