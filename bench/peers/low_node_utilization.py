"""The descheduler's LowNodeUtilization, from its documented behaviour: the pods it would evict now, in its order.

Written from the plugin's documentation (0.36) and held to the evictions that its own tests observe
(tests/bench/test_low_node_utilization.py). A pure function of the cluster's state: what becomes of an evicted pod is
for others to say (default_scheduler.py). Where the documentation leaves the order of equal pods open, a seed decides.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from rebalancer.domain.frozen import EMPTY, FrozenMap
from rebalancer.domain.node import Node, Taint
from rebalancer.domain.pod import Pod, PodAffinityTerm
from rebalancer.domain.resources import CPU, MEMORY, PODS
from rebalancer.policy.cluster_state import VMI_KIND, ClusterState
from rebalancer.policy.filters.node import selected, tolerated, tolerates
from rebalancer.policy.node_table import Mask

BASIC: Final = (CPU, MEMORY, PODS)
METRIC: Final = "MetricResource"
"""The name under which a Prometheus query counts: percent of a capacity of 100."""

Amounts = Mapping[str, float]
"""By resource: millicores, bytes, pods, or units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The plugin's arguments and the policy's limits, under our words. Percent of allocatable.

    A node is underutilized if none of its `thresholds` is exceeded, and overutilized if any of `targets` is. With
    `deviation`, both are distances from the mean of all nodes. `per_source` is the plugin's evictionLimits.node, the
    other limits are the policy's; None is no limit. `node_selector`: other nodes do not exist for it. `seed` orders
    pods of equal priority and quality of service.
    """

    thresholds: FrozenMap[str, float]
    targets: FrozenMap[str, float]
    deviation: bool = False
    number_of_nodes: int = 0
    per_source: int | None = None
    per_node: int | None = None
    per_namespace: int | None = None
    total: int | None = None
    excluded_namespaces: frozenset[str] = frozenset()
    node_selector: FrozenMap[str, str] = EMPTY
    node_fit: bool = True
    seed: int = 0

    @classmethod
    def of_cpu(cls, low: float, high: float, *, deviation: bool = False) -> Params:
        """Thresholds on CPU alone, which is what we count by default."""
        return cls(thresholds=FrozenMap({CPU: low}), targets=FrozenMap({CPU: high}), deviation=deviation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What decides when a pod is evicted: `priority` None goes first; `quality` of 0 is best effort, 2 guaranteed."""

    priority: int | None = 0
    quality: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Usage that was measured instead of requested. `pods` by key; None where the source tells of nodes alone."""

    nodes: Mapping[str, Amounts]
    pods: Mapping[str, Amounts] | None = None


def launchers(pod: Pod) -> Standing | None:
    """Every VM's pod may be evicted, and nothing else; a launcher pod is burstable and has no priority of its own."""
    return Standing() if pod.owner[0] == VMI_KIND and not pod.deleting else None


def evictions(
    state: ClusterState,
    params: Params,
    *,
    standing: Callable[[Pod], Standing | None] = launchers,
    measured: Measured | None = None,
    pending: frozenset[str] = frozenset(),
) -> tuple[Pod, ...]:
    """The pods of `state` that one cycle evicts, in order.

    `standing` gives None for pods that may not be evicted, or whose eviction would be refused. `pending` are the UIDs
    of pods whose eviction was granted earlier and is still being carried out in the background, as KubeVirt does by
    migrating: they count for the limits, and when one of them is chosen again its load counts as on its way, but it is
    not told again.
    """
    chosen = state.table.labelled(params.node_selector)
    nodes = [node for node, here in zip(state.table.nodes, chosen.tolist(), strict=True) if here and _ready(node)]
    cycle = _Cycle(state, params, standing, measured, pending, nodes)
    return tuple(cycle.run())


@dataclass(slots=True)
class _Source:
    """A node that is too full, as the cycle goes on: what is used, and how much is at most."""

    name: str
    used: dict[str, float]
    most: Amounts

    def above(self) -> bool:
        return any(self.used[name] > self.most[name] for name in self.used)


@dataclass(slots=True)
class _Limits:
    """How many may still be evicted."""

    params: Params
    nodes: Counter[str] = field(default_factory=Counter)
    namespaces: Counter[str] = field(default_factory=Counter)

    def count(self, pod: Pod) -> None:
        self.nodes[pod.node] += 1
        self.namespaces[pod.namespace] += 1

    def all_used(self) -> bool:
        return _reached(self.params.total, self.nodes.total())

    def node_used(self, pod: Pod) -> bool:
        return _reached(self.params.per_node, self.nodes[pod.node])

    def namespace_used(self, pod: Pod) -> bool:
        return _reached(self.params.per_namespace, self.namespaces[pod.namespace])


class _Cycle:
    """One run of the plugin."""

    def __init__(  # noqa: PLR0913, PLR0917 - what `evictions` was told
        self,
        state: ClusterState,
        params: Params,
        standing: Callable[[Pod], Standing | None],
        measured: Measured | None,
        pending: frozenset[str],
        nodes: list[Node],
    ) -> None:
        self.state, self.params, self.standing, self.measured = state, params, standing, measured
        self.pending, self.nodes = pending, nodes
        counted = tuple(params.thresholds)
        self.resources = counted if METRIC in counted else tuple(dict.fromkeys((*counted, *BASIC)))
        self.usage = {node.name: self._usage(node.name) for node in nodes}
        self.limits = _Limits(params)
        self.fit = _Fit(state, nodes)

    def run(self) -> Iterator[Pod]:
        if any(name not in amounts for amounts in self.usage.values() for name in self.resources):
            return  # a resource that nobody measures ends the cycle
        percent = {node.name: self._percent(node) for node in self.nodes}
        low, high = self._bounds(percent)
        under = [node for node in self.nodes if not node.unschedulable and not _exceeds(percent[node.name], low)]
        names = {node.name for node in under}
        over = [node for node in self.nodes if node.name not in names and _exceeds(percent[node.name], high)]
        if not over or not under or len(under) <= self.params.number_of_nodes or len(under) == len(self.nodes):
            return
        room = {
            name: sum(_most(node, high, name) - self.usage[node.name][name] for node in under)
            for name in self.resources
        }
        for pod in (pod for node in self.nodes for pod in self.state.pods_on(node.name) if self.pending):
            if pod.uid in self.pending:
                self.limits.count(pod)
        taints = {node.taints for node in under}
        over.sort(key=lambda node: -sum(self.usage[node.name].values()))
        for node in over:
            most = {name: _most(node, high, name) for name in self.resources}
            yield from self._from(_Source(node.name, self.usage[node.name], most), room, taints)
            if self.limits.all_used():
                return

    def _from(self, source: _Source, room: dict[str, float], taints: Iterable[tuple[Taint, ...]]) -> Iterator[Pod]:
        """Evict from one node until it is no longer too full, or the underutilized ones have no room left."""
        taken = 0
        for pod in self._in_order(source.name):
            if not source.above() or any(amount <= 0 for amount in room.values()):
                return
            if _reached(self.params.per_source, taken):
                return
            if pod.namespace in self.params.excluded_namespaces:
                continue
            if not any(all(tolerates(pod.spec.tolerations, taint) for taint in those) for those in taints):
                continue
            if self.params.node_fit and not self.fit.anywhere(pod):
                continue
            known = pod.uid in self.pending
            if not known and (self.limits.all_used() or self.limits.node_used(pod)):
                return
            if not known and self.limits.namespace_used(pod):
                continue
            amounts = self._amounts(pod)
            if not known:
                self.limits.count(pod)
                yield pod
            taken += 1
            if amounts is None:
                if self.params.per_source is None:
                    return  # how much it frees is unknown, so one must do
                continue
            for name in room:
                amount = 1 if name == PODS else amounts[name]
                source.used[name] -= amount
                room[name] -= amount

    def _in_order(self, node: str) -> list[Pod]:
        """A node's pods that may be evicted: by priority, then by quality of service, then by chance."""
        ranked = []
        for pod in self.state.pods_on(node):
            standing = self.standing(pod)
            if standing is not None:
                given = standing.priority is not None
                luck = zlib.crc32(f"{self.params.seed} {pod.uid}".encode())
                ranked.append(((given, standing.priority or 0, standing.quality, luck, pod.key), pod))
        return [pod for _, pod in sorted(ranked, key=lambda item: item[0])]

    def _usage(self, node: str) -> dict[str, float]:
        if self.measured is not None:
            return dict(self.measured.nodes[node])
        requested, count = self.state.requested(node), len(self.state.pods_on(node))
        return {name: count if name == PODS else requested.get(name) for name in self.resources}

    def _amounts(self, pod: Pod) -> Amounts | None:
        """What evicting a pod frees; None where nobody can tell."""
        if self.measured is not None:
            return None if self.measured.pods is None else self.measured.pods[pod.key]
        return {name: pod.spec.requests.get(name) for name in self.resources}

    def _percent(self, node: Node) -> dict[str, float]:
        """Of allocatable; resources that the node knows nothing of are left out."""
        used = self.usage[node.name]
        offered = {name: _capacity(node, name) for name in self.params.thresholds}
        return {
            name: used[name] / amount * 100 if amount else 0.0 for name, amount in offered.items() if amount is not None
        }

    def _bounds(self, percent: Mapping[str, Mapping[str, float]]) -> tuple[Amounts, Amounts]:
        """The two thresholds of this cycle."""
        thresholds, targets = self.params.thresholds, self.params.targets
        if not self.params.deviation:
            return thresholds, targets
        means = {}
        for name in thresholds:
            known = [loads[name] for loads in percent.values() if name in loads]
            if known:
                means[name] = sum(known) / len(known)
        low = {name: min(100.0, max(0.0, mean - thresholds[name])) for name, mean in means.items()}
        return low, {name: min(100.0, max(0.0, mean + targets[name])) for name, mean in means.items()}


class _Fit:
    """nodeFit: whether a pod would fit anywhere else, by some of what the scheduler asks.

    Asked are cordons, node selectors and required node affinity, taints, requests, and the pod's own required
    anti-affinity, which is taken for one of hosts whatever its topology key. Nothing of what was evicted before is
    taken into account.
    """

    def __init__(self, state: ClusterState, nodes: Iterable[Node]) -> None:
        self.state = state
        chosen = {node.name for node in nodes if not node.unschedulable}
        self.open: Mask = np.array([name in chosen for name in state.table.names], dtype=np.bool_)

    def anywhere(self, pod: Pod) -> bool:
        table, spec, room = self.state.table, pod.spec, self.state.room
        found = self.open & selected(table, spec) & tolerated(table, spec.tolerations)
        for name in (CPU, MEMORY, *(name for name, _ in spec.requests.scalars)):
            found &= room.free_amounts(name) >= spec.requests.get(name)
        found &= room.free_pods() > 0
        found[table.positions[pod.node]] = False
        if not spec.affinity.anti_required:
            return bool(found.any())
        return any(not self._kept_apart(pod, table.names[position]) for position in np.flatnonzero(found).tolist())

    def _kept_apart(self, pod: Pod, node: str) -> bool:
        labels = self.state.nodes[node].labels
        terms = [term for term in pod.spec.affinity.anti_required if term.topology_key in labels]
        return any(_matches(term, pod, other) for other in self.state.pods_on(node) for term in terms)


def _matches(term: PodAffinityTerm, pod: Pod, other: Pod) -> bool:
    namespaces = term.namespaces or (pod.namespace,)
    if other.name == pod.name or other.namespace not in namespaces or term.selector is None:
        return False
    return term.selector.matches(other.labels)


def _ready(node: Node) -> bool:
    condition = node.conditions.get("Ready")
    return condition is None or condition.status == "True"


def _capacity(node: Node, resource: str) -> int | None:
    """Allocatable; None where the node knows nothing of a resource."""
    if resource == METRIC:
        return 100
    if resource == PODS:
        return node.pods
    known = resource in (CPU, MEMORY) or resource in dict(node.allocatable.scalars)
    return node.allocatable.get(resource) if known else None


def _most(node: Node, targets: Amounts, resource: str) -> int:
    """The most of a resource that a node is to have in use, rounded down; all of it where there is no target."""
    capacity = _capacity(node, resource) or 0
    return int(targets[resource] * 0.01 * capacity) if resource in targets else capacity


def _exceeds(percent: Amounts, bounds: Amounts) -> bool:
    """Whether any bound is exceeded; a resource that the node does not have is not in use."""
    return any(percent.get(name, 0.0) > bound for name, bound in bounds.items())


def _reached(limit: int | None, count: int) -> bool:
    return limit is not None and count >= limit
