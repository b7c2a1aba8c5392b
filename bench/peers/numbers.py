"""An instance as plain numbers: what the peers are given, and what all are judged by.

Read from the snapshot in words of our own: nothing of the planner's problem is used. Rules between VMs become counts:
of the members of a group, at most so many in one domain (a host, a zone), and at least so many. That says required
anti-affinity within a group and spread over zones exactly. A group that has to be together in a zone, and is, has its
members bound to that zone. An instance with any other rule cannot be given to the peers: NotSayableError says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.node import HOSTNAME
from rebalancer.domain.pod import Pod, PodAffinityTerm, TopologySpreadConstraint
from rebalancer.domain.resources import CPU, MEMORY
from rebalancer.domain.selectors import LabelSelector
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.filters.node import selected, tolerated
from rebalancer.policy.load import Thresholds, limit
from rebalancer.policy.movable import why_immovable
from rebalancer.policy.node_table import Mask
from rebalancer.policy.target import target_guard, target_pod

Integers = NDArray[np.int64]
RESOURCES = (CPU, MEMORY)


class NotSayableError(Exception):
    """A rule of the instance that cannot be said in the peers' terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """VMs (by number) of which each domain has to hold from `least` to `most`. `domains`: node → domain."""

    name: str
    members: tuple[int, ...]
    domains: tuple[int, ...]
    most: int
    least: int = 0

    @property
    def by_host(self) -> bool:
        return len(set(self.domains)) == len(self.domains)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Nodes and VMs by number.

    `home`: VM → node. `size`: VM → millicores, bytes. `room`: node → millicores and bytes for VMs, `slots` how many of
    them, `limit` the millicores above which it is hot. `kind`: VM → row of `lawful` and `open`, which say of each node
    whether the VM's own rules admit it, and whether it could go there as far as that node alone is concerned.
    """

    nodes: tuple[str, ...]
    vms: tuple[str, ...]
    home: Integers
    size: Integers
    room: Integers
    slots: Integers
    limit: Integers
    kind: Integers
    lawful: NDArray[np.bool_]
    open: NDArray[np.bool_]
    movable: NDArray[np.bool_]
    groups: tuple[Group, ...]

    def may_go(self, vm: int) -> Mask:
        """The nodes that a VM could move to as far as each of them alone is concerned."""
        found = self.open[self.kind[vm]].copy()
        found[self.home[vm]] = False
        return found if self.movable[vm] else np.zeros_like(found)


def numbers(snapshot: Snapshot, thresholds: Thresholds) -> Numbers:
    """The instance of a snapshot in which no migration is under way."""
    state = ClusterState.of(snapshot)
    names = state.table.names
    vms = tuple(key for key in snapshot.vmis if key in state.active_pods)
    pods = [state.active_pods[key] for key in vms]
    home = np.array([state.table.positions[pod.node] for pod in pods], dtype=np.int64)
    size = np.array([[pod.spec.requests.get(name) for name in RESOURCES] for pod in pods], dtype=np.int64)
    taken, count = np.zeros((len(names), 2), dtype=np.int64), np.zeros(len(names), dtype=np.int64)
    np.add.at(taken, home, size)
    np.add.at(count, home, 1)
    free = np.stack([state.room.free_amounts(name) for name in RESOURCES], axis=1)
    requested = np.array([state.requested(name).cpu_milli for name in names], dtype=np.int64)
    most = np.array([limit(node, CPU, "high", thresholds) for node in state.table.nodes], dtype=np.int64)
    kinds = _Kinds(snapshot, state)
    kind = np.array([kinds.of(snapshot.vmis[key], pod) for key, pod in zip(vms, pods, strict=True)], dtype=np.int64)
    return Numbers(
        nodes=names,
        vms=vms,
        home=home,
        size=size,
        room=free + taken,
        slots=state.room.free_pods() + count,
        limit=most - (requested - taken[:, 0]),
        kind=kind,
        lawful=np.array(kinds.lawful),
        open=np.array(kinds.open),
        movable=np.array([why_immovable(snapshot.vmis[key], snapshot, state) is None for key in vms], dtype=np.bool_),
        groups=_groups(snapshot, state, vms),
    )


class _Kinds:
    """VMs that the nodes treat alike."""

    def __init__(self, snapshot: Snapshot, state: ClusterState) -> None:
        self.snapshot, self.state = snapshot, state
        self.lawful: list[Mask] = []
        self.open: list[Mask] = []
        self._known: dict[object, int] = {}

    def of(self, vmi: VMI, pod: Pod) -> int:
        table = self.state.table
        source = self.snapshot.nodes[pod.node]
        spec = target_pod(vmi, pod, source, self.snapshot.kubevirt or KubeVirt()).spec
        zones = tuple(term.topology_key for term in vmi.spec.affinity.pod_required)
        bound = tuple((key, source.labels.get(key, "")) for key in zones)
        key = (spec.node_selector, spec.affinity.node_required, spec.tolerations, bound)
        if key not in self._known:
            self._known[key] = len(self.lawful)
            own = table.labelled(vmi.spec.node_selector)
            if vmi.spec.affinity.node_required is not None:
                own &= table.selected(vmi.spec.affinity.node_required)
            tolerates = tolerated(table, spec.tolerations)
            together = table.labelled(dict(bound))
            self.lawful.append(own & tolerates & together)
            # The VM's own node is out for its own sake; no kind is asked of it.
            guard = target_guard(vmi, source).passing(table)
            guard[table.positions[pod.node]] = True
            cordoned = np.array([node.unschedulable for node in table.nodes], dtype=np.bool_)
            self.open.append(selected(table, spec) & tolerates & together & guard & ~cordoned)
        return self._known[key]


def _groups(snapshot: Snapshot, state: ClusterState, vms: tuple[str, ...]) -> tuple[Group, ...]:
    """All rules between VMs, as counts."""
    holders: dict[tuple[str, object], list[int]] = {}
    for number, key in enumerate(vms):
        vmi = snapshot.vmis[key]
        affinity = vmi.spec.affinity
        required = [rule for rule in vmi.spec.spread if rule.when_unsatisfiable == "DoNotSchedule"]
        for rule in (*affinity.anti_required, *affinity.pod_required, *required):
            holders.setdefault((vmi.namespace, rule), []).append(number)
    matching = _Matching(snapshot, vms)
    together = {rule for key in vms for rule in snapshot.vmis[key].spec.affinity.pod_required}
    found = []
    for (namespace, rule), members in holders.items():
        assert isinstance(rule, PodAffinityTerm | TopologySpreadConstraint)
        elsewhere = isinstance(rule, PodAffinityTerm) and (rule.namespaces or rule.namespace_selector is not None)
        if matching.of(namespace, rule.selector) != members or elsewhere:
            raise NotSayableError(f"a rule of {vms[members[0]]} concerns others than those who have it")
        domains = _domains(state, rule.topology_key)
        if rule in together:
            if len({domains[state.table.positions[state.active_pods[vms[m]].node]] for m in members}) > 1:
                raise NotSayableError(f"the group of {vms[members[0]]} is to be together and is not")
            continue
        most, least = 1, 0
        if isinstance(rule, TopologySpreadConstraint):
            count = len(set(domains))
            if rule.max_skew != 1:
                raise NotSayableError(f"a spread of {vms[members[0]]} may be skewed by more than 1")
            most, least = -(-len(members) // count), len(members) // count
        name = f"{rule.topology_key} {members[0]}"
        found.append(Group(name=name, members=tuple(members), domains=domains, most=most, least=least))
    return tuple(found)


class _Matching:
    """The VMs that a selector means, found by one of its labels."""

    def __init__(self, snapshot: Snapshot, vms: tuple[str, ...]) -> None:
        self.snapshot, self.vms = snapshot, vms
        self.by_label: dict[tuple[str, str, str], list[int]] = {}
        for number, key in enumerate(vms):
            vmi = snapshot.vmis[key]
            for label, value in vmi.labels.items():
                self.by_label.setdefault((vmi.namespace, label, value), []).append(number)

    def of(self, namespace: str, selector: LabelSelector | None) -> list[int]:
        if selector is None:
            return []
        exact = [one for one in selector.requirements if one.operator == "In" and len(one.values) == 1]
        if not exact:
            raise NotSayableError("a selector without an exact label")
        near = self.by_label.get((namespace, exact[0].key, exact[0].values[0]), [])
        return [number for number in near if selector.matches(self.snapshot.vmis[self.vms[number]].labels)]


def _domains(state: ClusterState, key: str) -> tuple[int, ...]:
    """Node → number of its domain. A node without the label is a domain of its own."""
    return state.table.remember(("peers", key), lambda: _numbered(state, key))


def _numbered(state: ClusterState, key: str) -> tuple[int, ...]:
    if key == HOSTNAME:
        return tuple(range(len(state.table.names)))
    known: dict[str, int] = {}
    return tuple(
        known.setdefault(value if value is not None else f"no label on {name}", len(known))
        for name, value in zip(state.table.names, state.table.values(key), strict=True)
    )


def loads(numbers: Numbers, at: Integers) -> Mapping[str, Integers]:
    """What every node holds when the VMs are where `at` says: millicores, bytes, VMs."""
    found = {name: np.zeros(len(numbers.nodes), dtype=np.int64) for name in ("cpu", "memory", "vms")}
    np.add.at(found["cpu"], at, numbers.size[:, 0])
    np.add.at(found["memory"], at, numbers.size[:, 1])
    np.add.at(found["vms"], at, 1)
    return found
