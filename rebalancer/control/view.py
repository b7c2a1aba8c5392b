"""What a cycle sees and judges, and whether the cluster is still the one that a decision was made for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.naming import PREFIX, RECEIVES
from rebalancer.domain.plan import State
from rebalancer.domain.report import Held
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import Trigger
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.load import PolicyParams, state_of
from rebalancer.policy.triggers import TriggerMemory, find


@dataclass(slots=True, kw_only=True)
class View:
    """What a cycle sees: `watched` as the watches have it, `snapshot` with our own writes laid over it."""

    watched: Snapshot = field(default_factory=Snapshot)
    snapshot: Snapshot = field(default_factory=Snapshot)
    state: State = field(default_factory=State)
    triggers: tuple[Trigger, ...] = ()
    memory: TriggerMemory = field(default_factory=TriggerMemory)
    resting: FrozenMap[str, Held] = field(default_factory=FrozenMap)

    def soon_hot(self) -> tuple[str, ...]:
        """Nodes above their threshold that have not been so for the hold time."""
        return tuple(sorted({node for node, resource in self.memory.above if (node, resource) not in self.memory.hot}))


def look(
    snapshot: Snapshot, policy: PolicyParams, memory: TriggerMemory, now: float
) -> tuple[State, tuple[Trigger, ...], TriggerMemory]:
    """The state of the cluster with the migrations in flight landed, and the reasons to act. `now` is monotonic."""
    settled = ClusterState.of(snapshot, settled=True)
    triggers, memory = find(snapshot, policy, memory, now, state=settled)
    return state_of(settled, snapshot, policy), triggers, memory


def shunning(snapshot: Snapshot, nodes: Collection[str]) -> Snapshot:
    """The snapshot for planning: nodes to which migrations have failed lately are marked to receive nothing."""
    if not nodes:
        return snapshot
    marked = {
        name: replace(node, annotations=FrozenMap({**node.annotations, RECEIVES: "later"}))
        for name, node in snapshot.nodes.items()
        if name in nodes
    }
    return replace(snapshot, nodes=FrozenMap({**snapshot.nodes, **marked}))


def identities(triggers: tuple[Trigger, ...]) -> frozenset[tuple[str, str, str]]:
    """Which triggers there are, whatever their percentages say."""
    return frozenset(
        ("hotspot", found.hotspot.node, found.hotspot.resource)
        if found.hotspot is not None
        else ("violation", found.violation.vmi, found.violation.rule)
        if found.violation is not None
        else ("", "", found.message)
        for found in triggers
    )


def material(snapshot: Snapshot) -> object:
    """Everything that a plan depends on, to be compared with ==. A heartbeat, a probe or a status that no rule reads
    makes no difference, so it costs no new plan."""
    nodes = tuple(
        (
            node.name,
            node.labels,
            tuple(value for key, value in node.annotations.items() if key.startswith(PREFIX)),
            node.unschedulable,
            node.taints,
            node.allocatable,
            node.pods,
            node.conditions["Ready"].status if "Ready" in node.conditions else "",
        )
        for node in snapshot.nodes.values()
    )
    pods = tuple((pod.uid, pod.node, pod.spec, pod.labels) for pod in snapshot.pods.values() if not pod.terminal)
    vmis = tuple(
        (
            vmi.uid,
            vmi.node,
            vmi.phase,
            vmi.deleting,
            vmi.spec,
            vmi.labels,
            vmi.annotations,
            vmi.evacuation_node,
            vmi.migration_state.in_flight,
            vmi.conditions["LiveMigratable"].status if "LiveMigratable" in vmi.conditions else "",
        )
        for vmi in snapshot.vmis.values()
    )
    return nodes, pods, vmis, snapshot.namespaces, snapshot.volumes, snapshot.claims, snapshot.kubevirt
