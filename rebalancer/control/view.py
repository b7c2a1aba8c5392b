"""What a cycle sees and judges, and whether the cluster is still the one that a decision was made for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.naming import PREFIX, RECEIVES
from rebalancer.domain.node import Node
from rebalancer.domain.plan import Plan, State
from rebalancer.domain.pod import Pod
from rebalancer.domain.report import Held
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import Trigger
from rebalancer.domain.vmi import VMI
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.changes import Changes
from rebalancer.policy.feasibility import receiver_problem
from rebalancer.policy.load import PolicyParams
from rebalancer.policy.overview import Overview
from rebalancer.policy.triggers import TriggerMemory, triggers


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was made of a snapshot; `receivers` are the nodes that may receive VMs, where there is a reason to act."""

    overview: Overview
    triggers: tuple[Trigger, ...]
    memory: TriggerMemory
    receivers: frozenset[str]


@dataclass(slots=True, kw_only=True)
class View:
    """What a cycle sees: `watched` as the watches have it, `snapshot` with our own writes laid over it.

    `overview` is what is known of the snapshot, from which the next cycle goes on. `version` grows with every change
    that a plan depends on.
    """

    watched: Snapshot = field(default_factory=Snapshot)
    snapshot: Snapshot = field(default_factory=Snapshot)
    overview: Overview | None = None
    version: int = 0
    state: State = field(default_factory=State)
    triggers: tuple[Trigger, ...] = ()
    memory: TriggerMemory = field(default_factory=TriggerMemory)
    receivers: frozenset[str] = frozenset()
    resting: FrozenMap[str, Held] = field(default_factory=FrozenMap)

    def soon_hot(self) -> tuple[str, ...]:
        """Nodes above their threshold that have not been so for the hold time."""
        return tuple(sorted({node for node, resource in self.memory.above if (node, resource) not in self.memory.hot}))

    def take(self, found: Look) -> None:
        """Goes on from what was made of the newest snapshot."""
        changes = found.overview.changes
        if found.overview is not self.overview and (
            self.overview is None or changes is None or not immaterial(changes)
        ):
            self.version += 1
        self.overview, self.triggers, self.memory = found.overview, found.triggers, found.memory
        self.state, self.receivers = found.overview.told(), found.receivers


def look(known: Overview | None, snapshot: Snapshot, policy: PolicyParams, memory: TriggerMemory, now: float) -> Look:
    """The cluster with the migrations in flight landed, and the reasons to act. `now` is monotonic.

    `known` is what is known of the cluster from before, by the same policy: only what has changed is looked at.
    """
    overview = known.advance(snapshot) if known is not None else Overview.of(snapshot, policy)
    overview.told()  # here, and not where it is asked for next, on the event loop
    found, memory = triggers(overview, memory, now)
    nodes = snapshot.nodes.items() if found else ()
    receivers = frozenset(name for name, node in nodes if receiver_problem(node) is None)
    return Look(overview=overview, triggers=found, memory=memory, receivers=receivers)


def decided(
    decide: Callable[..., Plan], view: View, shunned: Collection[str], params: PlanningParams, **named: object
) -> Plan:
    """Planning's answer to what a view shows, without sending anything to the shunned nodes."""
    snapshot = shunning(view.snapshot, shunned)
    overview = view.overview.advance(snapshot) if view.overview is not None else None
    return decide(snapshot, view.triggers, params, overview=overview, **named)


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


def immaterial(changes: Changes) -> bool:
    """Whether a plan made before these changes is still the one to make. A heartbeat, a probe or a status that no rule
    reads makes no difference, so it costs no new plan."""
    same = not changes.rebuilt and all(_node(old) == _node(new) for old, new in changes.nodes.values())
    same = same and all(_pod(old) == _pod(new) for old, new in changes.pods.values())
    return same and all(_vmi(old) == _vmi(new) for old, new in changes.vmis.values())


def _node(node: Node | None) -> object:
    if node is None:
        return None
    return tuple(value for key, value in node.annotations.items() if key.startswith(PREFIX)), receiver_problem(node)


def _pod(pod: Pod | None) -> object:
    return None if pod is None or pod.terminal else (pod.uid, pod.node, pod.spec, pod.labels)


def _vmi(vmi: VMI | None) -> object:
    if vmi is None:
        return None
    return (
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
