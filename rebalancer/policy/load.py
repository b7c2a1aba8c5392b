"""How full nodes are, and from where on that is too full: thresholds, limits, loads, hotspots.

Load is reservation: the effective requests of the pods that hold room on a node, over its allocatable.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.naming import PREFIX
from rebalancer.domain.node import Node
from rebalancer.domain.plan import NodeLoad, State
from rebalancer.domain.resources import CPU, MEMORY
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import KINDS, Hotspot
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.rules import violations

Level = Literal["high", "low"]

COUNTABLE = (CPU, MEMORY)
PARTS = 100_000
"""Percentages are kept as integers of a thousandth of a percent, so that a limit never hangs on a rounding error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Percent of allocatable. Above `high` a node is a hotspot; a plan brings it to `low`, and lifts none above `low`.

    80 and 75: a node keeps room for one more large VM or a failed neighbour's share, and the five percent between
    keep one VM that starts and stops from causing a migration each time. high = low switches that hysteresis off.
    Memory is reserved in full as a rule and rarely overcommitted, so it may be fuller; it counts only when it is
    listed in `resources`. Raises ValueError with the field, its value and what is allowed.
    """

    cpu_high: float = 80.0
    cpu_low: float = 75.0
    memory_high: float = 90.0
    memory_low: float = 85.0
    resources: tuple[str, ...] = (CPU,)

    def __post_init__(self) -> None:
        for resource in COUNTABLE:
            for level in ("high", "low"):
                value = self.percent(resource, level)
                if not 0 < value <= 100:  # NaN is refused here, too
                    raise ValueError(f"{resource}_{level} = {value:g}: must be above 0 and at most 100 (percent)")
            high, low = self.percent(resource, "high"), self.percent(resource, "low")
            if high < low:
                raise ValueError(f"{resource}_high = {high:g}: must be at least {resource}_low = {low:g}")
        unknown = [name for name in self.resources if name not in COUNTABLE]
        if unknown or not self.resources or len(set(self.resources)) != len(self.resources):
            raise ValueError(f"resources = {','.join(self.resources)}: must be one or both of {', '.join(COUNTABLE)}")

    def percent(self, resource: str, level: Level) -> float:
        """The threshold of one resource."""
        if resource == CPU:
            return self.cpu_high if level == "high" else self.cpu_low
        return self.memory_high if level == "high" else self.memory_low


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyParams:
    """What is wrong with a cluster, and what mending it costs.

    `kinds` are the kinds of rules that are a reason to move; the others still limit where VMs may go.
    `hold_seconds`: how long a node must stay above `high` before it counts. A minute outlasts the second pod of a
    migration and the start of a VM that is moved away again by hand.
    `move_cost` and `gib_cost`: a migration costs the first, plus the second per GiB of guest memory, rounded up. At
    1000 to 1 the number of moves counts first, and memory chooses among plans of as many moves.
    """

    thresholds: Thresholds = Thresholds()
    kinds: tuple[str, ...] = KINDS
    hold_seconds: float = 60.0
    move_cost: int = 1000
    gib_cost: int = 1

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"kinds = {','.join(unknown)}: must be of {', '.join(KINDS)}")
        if not 0 <= self.hold_seconds < math.inf:
            raise ValueError(f"hold_seconds = {self.hold_seconds:g}: must be 0 or more")
        if self.move_cost < 1 or self.gib_cost < 0:
            raise ValueError(f"move_cost = {self.move_cost}, gib_cost = {self.gib_cost}: must be at least 1 and 0")


def node_thresholds(node: Node, defaults: Thresholds) -> tuple[Thresholds, tuple[str, ...]]:
    """The thresholds of one node, and a sentence for each annotation that is not heeded.

    A node overrides them by the annotations cpu-high, cpu-low, memory-high and memory-low, under our prefix.
    Where only `high` is given, `low` keeps its distance from it (but stays above 0); where both are given and do not
    fit together, neither is heeded.
    """
    if not node.annotations:
        return defaults, ()
    chosen: dict[str, float] = {}
    warnings: list[str] = []
    for resource in COUNTABLE:
        given = {}
        for level in ("high", "low"):
            key = f"{PREFIX}{resource}-{level}"
            text = node.annotations.get(key)
            if text is not None and (value := _percent(text)) is None:
                warnings.append(f'node {node.name}: {key}="{text[:40]}" is not a percentage above 0 and up to 100')
            elif text is not None and value is not None:
                given[level] = value
        high, low = defaults.percent(resource, "high"), defaults.percent(resource, "low")
        if "high" in given and "low" not in given:
            shifted = given["high"] - (high - low)
            given["low"] = shifted if shifted > 0 else given["high"]
        if given.get("high", high) < given.get("low", low):
            warnings.append(
                f"node {node.name}: {resource}-high {given.get('high', high):g} is below "
                f"{resource}-low {given['low']:g}; the defaults {high:g} and {low:g} hold"
            )
            continue
        chosen |= {f"{resource}_{level}": value for level, value in given.items()}
    if not chosen:
        return defaults, tuple(warnings)
    values = {f"{r}_{level}": defaults.percent(r, level) for r in COUNTABLE for level in ("high", "low")}
    return Thresholds(**{**values, **chosen}, resources=defaults.resources), tuple(warnings)


def threshold_warnings(snapshot: Snapshot, thresholds: Thresholds) -> tuple[str, ...]:
    """A sentence for each threshold annotation in the cluster that cannot be heeded."""
    return tuple(text for node in snapshot.nodes.values() for text in node_thresholds(node, thresholds)[1])


def limit(node: Node, resource: str, level: Level, thresholds: Thresholds) -> int:
    """The most that may be requested on a node without being above a threshold: millicores or bytes, rounded down."""
    own, _ = node_thresholds(node, thresholds)
    return node.allocatable.get(resource) * round(own.percent(resource, level) * PARTS / 100) // PARTS


def judged(node: Node, resource: str) -> bool:
    """Whether a load can be told at all: a node whose capacity is unknown or 0 has none, and is never a hotspot."""
    return node.capacity_known and node.allocatable.get(resource) > 0


def permille(amount: int, capacity: int) -> int:
    """An amount in thousandths of a capacity, rounded up: the unit in which CPU and memory are compared."""
    return -(-1000 * amount // capacity)


def overloaded(state: ClusterState, thresholds: Thresholds) -> frozenset[tuple[str, str]]:
    """(node, resource) wherever a counted resource is above `high`, on nodes with and without VMs."""
    return frozenset(load for node in state.nodes.values() for load in overloads(state, node, thresholds))


def overloads(state: ClusterState, node: Node, thresholds: Thresholds) -> Iterator[tuple[str, str]]:
    """The same of one node."""
    requested = state.requested(node.name)
    for resource in thresholds.resources:
        if judged(node, resource) and requested.get(resource) > limit(node, resource, "high", thresholds):
            yield node.name, resource


def node_loads(state: ClusterState, thresholds: Thresholds) -> FrozenMap[str, NodeLoad]:
    """Every node's load, by name. CPU and memory are both told, whichever of them counts."""
    vmis = Counter(pod.node for pod in state.active_pods.values())
    return FrozenMap((name, node_load(state, node, thresholds, vmis[name])) for name, node in state.nodes.items())


def hotspots(state: ClusterState, thresholds: Thresholds) -> tuple[Hotspot, ...]:
    """The nodes that are too full, by name. A node without VMs is none: nothing that we move could help it.

    A node whose VMs all have to stay is one nevertheless: somebody should know.
    """
    hosting = {pod.node for pod in state.active_pods.values()}
    return tuple(
        hotspot(state, name, resource, thresholds)
        for name, resource in sorted(overloaded(state, thresholds))
        if name in hosting
    )


def hotspot(state: ClusterState, name: str, resource: str, thresholds: Thresholds) -> Hotspot:
    """One node and resource in the words of a Hotspot, whether it is above the threshold or not."""
    node = state.nodes[name]
    own, _ = node_thresholds(node, thresholds)
    return Hotspot(
        node=name,
        resource=resource,
        percent=_percentage(state, node, resource),
        high=own.percent(resource, "high"),
        low=own.percent(resource, "low"),
    )


def state_of(state: ClusterState, snapshot: Snapshot, params: PolicyParams) -> State:
    """The cluster in the terms that plans are about: loads, hotspots, and violations of the kinds that count."""
    return State(
        nodes=node_loads(state, params.thresholds),
        hotspots=hotspots(state, params.thresholds),
        violations=violations(state, snapshot, params.kinds),
    )


def counted(state: ClusterState, thresholds: Thresholds) -> Iterator[tuple[Node, str, int]]:
    """(node, resource, requested) for every load that counts."""
    for name, node in state.nodes.items():
        requested = state.requested(name)
        for resource in thresholds.resources:
            if judged(node, resource):
                yield node, resource, requested.get(resource)


def node_load(state: ClusterState, node: Node, thresholds: Thresholds, vmis: int) -> NodeLoad:
    """One node's load; so many VMs run on it."""
    own, _ = node_thresholds(node, thresholds)
    return NodeLoad(
        cpu=_percentage(state, node, CPU),
        memory=_percentage(state, node, MEMORY),
        cpu_high=own.cpu_high,
        memory_high=own.memory_high,
        vmis=vmis,
    )


def _percentage(state: ClusterState, node: Node, resource: str) -> float:
    """0.0 where no load can be told."""
    if not judged(node, resource):
        return 0.0
    return 100 * state.requested(node.name).get(resource) / node.allocatable.get(resource)


def _percent(text: str) -> float | None:
    """A percentage as people write it ("70", "72.5", "70%"), or None."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        return None
    return value if 0 < value <= 100 else None
