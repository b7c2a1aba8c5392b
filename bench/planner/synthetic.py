"""Seeded synthetic clusters, as snapshots: nodes of 84 CPUs and 256 GiB, nine flavours of VM, rules, faults.

Every node is filled up to a load of its own, drawn around the mean. Loose clusters have room everywhere; in tight ones
nearly all nodes are close under the threshold, and what must leave a hot node hardly finds a place.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from functools import cache

from bench.planner import parts
from bench.planner.parts import GIB, ZONE
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Node, Taint
from rebalancer.domain.pod import NO_AFFINITY, Affinity, Pod, PodAffinityTerm, PodSpec, Toleration
from rebalancer.domain.pod import TopologySpreadConstraint as Spread
from rebalancer.domain.resources import Resources
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, VMISpec

FLAVOURS = ((1, 2), (2, 4), (2, 8), (4, 8), (4, 16), (8, 16), (8, 32), (16, 32), (2, 16))
"""(CPUs, GiB)"""
SHARES = (27, 24, 12, 14, 7, 7, 3, 2, 4)
"""How often each flavour occurs, in percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a cluster is made of. Shares are of VMs, or of nodes for `tainted` and `gold`.

    `spread` is the standard deviation of the nodes' loads; `crowded` nodes are filled to between 84 and 98 %; `plain`
    leaves out rules, faults and differences of nodes. Nodes have `cpu` cores and `memory` GiB.
    """

    nodes: int
    mean: float
    spread: float
    crowded: float = 0.0
    plain: bool = False
    grouped: float = 0.10
    broken: float = 0.01
    immovable: float = 0.05
    picky: float = 0.03
    gold: float = 0.20
    tainted: float = 0.02
    large: float = 0.10
    cpu: int = field(default=84, repr=False)
    memory: int = field(default=256, repr=False)

    @classmethod
    def loose(cls, nodes: int, *, plain: bool = False) -> Shape:
        return cls(nodes=nodes, mean=0.67, spread=0.086, plain=plain)

    @classmethod
    def tight(cls, nodes: int, *, plain: bool = False) -> Shape:
        return cls(nodes=nodes, mean=0.78, spread=0.015, crowded=0.065, plain=plain)


def cluster(shape: Shape, seed: int) -> Snapshot:
    """A cluster of this shape; equal seeds give equal clusters."""
    return _Builder(shape, random.Random(f"{shape} {seed}")).snapshot()


class _Builder:
    def __init__(self, shape: Shape, chance: random.Random) -> None:
        self.shape, self.chance = shape, chance
        self.nodes: dict[str, Node] = {}
        self.drafts: list[tuple[str, int]] = []  # node, flavour
        self.by_node: dict[str, list[int]] = {}

    def snapshot(self) -> Snapshot:
        for number in range(self.shape.nodes):
            self._node(f"n{number:05}")
        groups = {} if self.shape.plain else self._groups()
        vms = (self._vm(number, *draft, groups.get(number, "")) for number, draft in enumerate(self.drafts))
        return parts.snapshot(self.nodes.values(), vms)

    def _node(self, name: str) -> None:
        shape, chance = self.shape, self.chance
        labels = {ZONE: f"z{len(self.nodes) % 3}"}
        cpu, memory = shape.cpu, shape.memory
        taints: tuple[Taint, ...] = ()
        if not shape.plain:
            if chance.random() < shape.gold:
                labels["tier"] = "gold"
            if chance.random() < shape.large:
                cpu, memory = 2 * shape.cpu, 2 * shape.memory
            if chance.random() < shape.tainted:
                taints = (Taint(key="reserved", value="gpu", effect="NoSchedule"),)
        self.nodes[name] = parts.node(name, _amounts(cpu, memory), labels, taints)
        self.by_node[name] = []
        wanted = cpu * min(0.985, max(0.2, chance.gauss(shape.mean, shape.spread)))
        if chance.random() < shape.crowded:
            wanted = cpu * chance.uniform(0.84, 0.98)
        used, filled = 0, 0
        while True:
            flavour = chance.choices(range(len(FLAVOURS)), SHARES)[0]
            if used + FLAVOURS[flavour][0] > wanted + 0.5 or filled + FLAVOURS[flavour][1] > 0.95 * memory:
                return
            used, filled = used + FLAVOURS[flavour][0], filled + FLAVOURS[flavour][1]
            self.by_node[name].append(len(self.drafts))
            self.drafts.append((name, flavour))

    def _groups(self) -> dict[int, str]:
        """VM → rule: "apart-..." (hosts), "zones-..." (spread by zone), "beside-..." (affinity by zone), by VM."""
        shape, chance = self.shape, self.chance
        free = list(range(len(self.drafts)))
        chance.shuffle(free)
        left = int(shape.grouped * len(free))
        found: dict[int, str] = {}
        number = 0
        while left > 0 and len(free) > 6:
            kind = chance.choices(("apart", "zones", "beside"), (80, 15, 5))[0]
            members = self._members(kind, free, chance.randint(3, 5))
            if kind == "apart" and chance.random() < shape.broken:
                here = [other for other in self.by_node[self.drafts[members[0]][0]] if other not in found]
                members = [*members[1:], members[0], *[o for o in here if o not in members][:1]]
            found.update(dict.fromkeys(members, f"{kind}-{number}"))
            left -= len(members)
            number += 1
        return found

    def _members(self, kind: str, free: list[int], size: int) -> list[int]:
        """VMs that keep the rule of their kind where they are."""
        members: list[int] = []
        zones: list[str] = []
        skipped = []
        while len(members) < size and free:
            number = free.pop()
            node = self.drafts[number][0]
            zone = self.nodes[node].labels[ZONE]
            if kind == "apart":
                fits = all(self.drafts[other][0] != node for other in members)
            elif kind == "zones":
                fits = zones.count(zone) <= min(zones.count(z) for z in ("z0", "z1", "z2"))
            else:
                fits = zone == self.nodes[self.drafts[members[0]][0]].labels[ZONE] if members else True
            if fits:
                members.append(number)
                zones.append(zone)
            else:
                skipped.append(number)
        free.extend(reversed(skipped))
        return members

    def _vm(self, number: int, node: str, flavour: int, group: str) -> tuple[VMI, Pod]:
        shape, chance = self.shape, self.chance
        picky = not shape.plain and "tier" in self.nodes[node].labels and chance.random() < shape.picky / shape.gold
        tolerant = bool(self.nodes[node].taints)
        pinned = not shape.plain and chance.random() < shape.immovable
        labels = FrozenMap({"app": group} if group else {})
        wants, runs = _specs(flavour, picky, tolerant, group)
        return parts.vm(f"vm-{number:06}", node, wants, runs, number=number, labels=labels, movable=not pinned)


@cache
def _specs(flavour: int, picky: bool, tolerant: bool, group: str) -> tuple[VMISpec, PodSpec]:
    """Equal specs are one object, as after decoding."""
    affinity, spread = _rule(group)
    amounts = _amounts(*FLAVOURS[flavour])
    wants = replace(
        parts.spec(amounts, affinity),
        cores=FLAVOURS[flavour][0],
        node_selector=FrozenMap({"tier": "gold"} if picky else {}),
        spread=spread,
        tolerations=(Toleration(key="reserved", operator="Exists"),) if tolerant else (),
    )
    return wants, PodSpec(requests=amounts)


def _amounts(cpu: int, memory: int) -> Resources:
    return Resources(cpu_milli=cpu * 1000, memory_bytes=memory * GIB)


def _rule(group: str) -> tuple[Affinity, tuple[Spread, ...]]:
    """What the name of a group says."""
    if group.startswith("apart"):
        return Affinity(anti_required=parts.apart("app", group)), ()
    if group.startswith("beside"):
        beside = PodAffinityTerm(selector=parts.selector("app", group), topology_key=ZONE)
        return Affinity(pod_required=(beside,)), ()
    if group.startswith("zones"):
        return NO_AFFINITY, (Spread(max_skew=1, topology_key=ZONE, selector=parts.selector("app", group)),)
    return NO_AFFINITY, ()
