"""What would have to change for the node that comes closest to taking a pod."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rebalancer.domain.node import Node
from rebalancer.domain.pod import Pod
from rebalancer.domain.verdict import Rejection
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.feasibility import Guard, Survey, prepare
from rebalancer.policy.filters import Check
from rebalancer.policy.filters.node import UNSCHEDULABLE_TAINT, tolerates
from rebalancer.policy.filters.resources import amount_text, wanted
from rebalancer.policy.pod_counts import Group
from rebalancer.policy.rule_book import tenant_name
from rebalancer.policy.wording import taint_text

MAX_WITNESSES: Final = 3

EASY, FAIR, HARD, HOPELESS = 1, 3, 8, 40
"""What a change costs people, so that the node that a little room would open comes before one that would need a new
label, and that before one that is too small. Sums are compared, so five taints weigh more than one label."""

CHANGES: Final = {
    "NodePorts": (FAIR, "the host ports were free"),
    "VolumeRestrictions": (HARD, "no other pod used its disks"),
    "NodeVolumeLimits": (FAIR, "the node could hold more volumes"),
    "VolumeBinding": (HARD, "its volumes could be reached from there"),
    "VolumeZone": (HARD, "its volumes were of that zone"),
    "PodTopologySpread": (FAIR, "its topology domain held fewer VMs of the group"),
    "InterPodAffinity": (FAIR, "the VMs there agreed with its affinity rules"),
    "NodeDeclaredFeatures": (HARD, "the node declared the features it needs"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that would have to be otherwise; `would` completes "it would do if ..."."""

    weight: int
    would: str


def nearest(state: ClusterState, pod: Pod, found: Survey, guard: Guard | None = None) -> str:
    """One sentence about the node that needs the fewest and easiest changes; "" where a node fits or none exists.

    `found` is the survey of the same pod with the same guard.
    """
    if found.feasible or not found.rejections:
        return ""
    checks = prepare(state, pod)
    if isinstance(checks, Rejection):
        return f"No node will do while {'; '.join(checks.reasons)}."
    others = [node for node in state.nodes.values() if not _runs_on(state, pod, node)]
    if not others:
        return ""
    changes = {node.name: _changes(state, pod, node, checks, guard) for node in others}
    name = min(changes, key=lambda one: (sum(change.weight for change in changes[one]), one))
    conditions = [change.would for change in changes[name]]
    keepers = _witnesses(state, pod, state.nodes[name])
    if keepers:
        conditions = [f"{_listed(keepers)} left it" if one == _AGREED else one for one in conditions]
    return f"Nearest is {name}: it would do if {' and '.join(conditions)}."


_AGREED: Final = CHANGES["InterPodAffinity"][1]


def _changes(state: ClusterState, pod: Pod, node: Node, checks: list[Check], guard: Guard | None) -> list[Change]:
    position = state.table.positions[node.name]
    found = [*_about_node(pod, node), *_about_room(state, pod, position)]
    for check in checks:
        refusal = check.reject(position)
        if refusal is not None and refusal.plugin in CHANGES:
            weight, would = CHANGES[refusal.plugin]
            found.append(Change(weight=weight, would=would))
    refusal = guard(node) if guard is not None else None
    if refusal is not None and not node.unschedulable:  # a cordon has been named already
        found.append(Change(weight=HARD, would=f'this did not hold of it: "{refusal.reasons[0]}"'))
    return found


def _runs_on(state: ClusterState, pod: Pod, node: Node) -> bool:
    """Whether a pod of the same owner stands there: no change would let a VM migrate to where it is."""
    return bool(pod.owner[2]) and any(other.owner == pod.owner for other in state.pods_on(node.name))


def _about_node(pod: Pod, node: Node) -> Iterator[Change]:
    spec = pod.spec
    if node.unschedulable and not tolerates(spec.tolerations, UNSCHEDULABLE_TAINT):
        yield Change(weight=FAIR, would="it were uncordoned")
    for taint in node.taints:
        if taint.effect not in ("NoSchedule", "NoExecute") or tolerates(spec.tolerations, taint):
            continue
        if not (node.unschedulable and taint.key == UNSCHEDULABLE_TAINT.key):
            yield Change(weight=FAIR, would=f"its taint {taint_text(taint)} were tolerated")
    for key, value in spec.node_selector.items():
        if node.labels.get(key) != value:
            yield Change(weight=HARD, would=f"it had the label {key}={value}")
    required = spec.affinity.node_required
    if required is not None and not required.matches(node.labels, node.name):
        yield Change(weight=HARD, would="it matched the required node affinity")


def _about_room(state: ClusterState, pod: Pod, position: int) -> Iterator[Change]:
    room, node = state.room, state.table.nodes[position]
    if room.pods(position) < 1:
        yield Change(weight=EASY, would="it ran one pod less")
    for name, amount in wanted(pod.spec.requests):
        missing = amount - room.free(name, position)
        if missing > 0 and amount > node.allocatable.get(name):
            yield Change(weight=HOPELESS, would=f"it had {amount_text(name, missing)} more")
        elif missing > 0:
            yield Change(weight=EASY, would=f"{amount_text(name, missing)} more were free there")


def _witnesses(state: ClusterState, pod: Pod, node: Node) -> list[str]:
    """Who in the node's domains keeps the pod away by anti-affinity, theirs or its own; VMs by their own names."""
    counts, labels = state.counts, node.labels

    def together(other: Pod, topology_key: str) -> bool:
        value = labels.get(topology_key)
        return value is not None and state.nodes[other.node].labels.get(topology_key) == value

    found: set[str] = set()
    for term in pod.spec.affinity.anti_required:
        unwanted = counts.incoming(term, pod.namespace)
        if unwanted is not None:
            members = counts.members(Group((unwanted,)))
            found.update(tenant_name(other) for other in members if together(other, term.topology_key))
    for name in state.nodes:
        for other in state.pods_on(name):
            if other.spec.affinity.anti_required and any(together(other, k) for k in counts.keeps_away(other, pod)):
                found.add(tenant_name(other))
    return sorted(found)


def _listed(keys: list[str]) -> str:
    shown = ", ".join(keys[:MAX_WITNESSES])
    return shown if len(keys) <= MAX_WITNESSES else f"{shown} and {len(keys) - MAX_WITNESSES} more"
