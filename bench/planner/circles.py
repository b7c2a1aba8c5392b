"""Seeded clusters in which moves wait for each other: swaps and rings that no direct move can begin.

Every node has 100 CPUs; plans are to end at 75 and may pass through 80. A spare node takes a VM up to 80, so that it
can stop over there, but not stay. Without a spare no order of moves exists at all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.planner import parts
from bench.planner.parts import GIB
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Node
from rebalancer.domain.pod import Affinity, Pod, PodSpec
from rebalancer.domain.resources import Resources
from rebalancer.domain.selectors import NodeSelector, NodeSelectorTerm, Requirement
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI

SLOT = "slot"
SPARE = "spare"


def swaps(pairs: int, seed: int, *, spares: int = 1) -> Snapshot:
    """Pairs of a node at 85 % and one at 65 %: only the exchange of a VM for one that is 10 smaller leaves both at 75.

    Neither fits beside the other, not even for a moment.
    """
    chance = random.Random(f"swaps {pairs} {seed}")
    builder = _Builder()
    for pair in range(pairs):
        large = chance.choice((38, 40, 42))
        for side, total, size in (("a", 85, large), ("b", 65, large - 10)):
            builder.node(f"{side}{pair:02}")
            builder.load(f"{side}{pair:02}", total - size)
            builder.vm(f"{side}{pair:02}", size, memory=chance.choice((4, 16, 64)))
    for number in range(spares):
        builder.node(f"spare{number}")
        builder.load(f"spare{number}", 48)
    return builder.snapshot()


def rings(sizes: Sequence[int], seed: int, *, spares: int = 1, apart: bool = False, halves: bool = False) -> Snapshot:
    """Rings of so many nodes each, whose VMs must all go on to the next node of their ring, which is full until then.

    `apart`: it is not the load that keeps the next node closed, but a group's anti-affinity to the VM that is there.
    `halves`: on every other node there are two VMs of half the size, which must both make way for a whole one, and a
    spare has room for a half only.
    """
    chance = random.Random(f"rings {sizes} {seed} {apart} {halves}")
    builder = _Builder()
    for ring, size in enumerate(sizes):
        names = [f"r{ring}-{number:02}" for number in range(size)]
        chance.shuffle(names)
        for number, name in enumerate(names):
            builder.node(name)
            builder.load(name, 10)
            parts = 2 if halves and number % 2 else 1
            for _ in range(parts):
                cpu = 20 if apart else chance.choice((59, 60, 61)) if not halves else 60 // parts
                onward = names[(number + 1) % size]
                builder.vm(
                    name, cpu, memory=chance.choice((4, 16, 64)), onward=onward, group=f"ring-{ring}" if apart else ""
                )
    for number in range(spares):
        builder.node(f"spare{number}", slot=SPARE)
        builder.load(f"spare{number}", 57 if apart else 48 if halves else 18)
    return builder.snapshot()


@dataclass(slots=True)
class _Builder:
    nodes: list[Node] = field(default_factory=list)
    vms: list[tuple[VMI, Pod]] = field(default_factory=list)
    loads: list[Pod] = field(default_factory=list)

    def node(self, name: str, *, slot: str = "") -> None:
        amounts = Resources(cpu_milli=100_000, memory_bytes=1024 * GIB)
        self.nodes.append(parts.node(name, amounts, {SLOT: slot or name}))

    def load(self, node: str, cpu: int) -> None:
        """A pod that is no VM, and stays."""
        name = f"load-{node}"
        spec = PodSpec(requests=Resources(cpu_milli=cpu * 1000))
        self.loads.append(Pod(namespace="prod", name=name, uid=f"p-{name}", spec=spec, node=node, phase="Running"))

    def vm(self, node: str, cpu: int, *, memory: int = 4, onward: str = "", group: str = "") -> None:
        """A VM; `onward` is the slot it must be in, where a spare would do as well; `group` keeps apart."""
        slots = Requirement(key=SLOT, operator="In", values=(onward, SPARE))
        affinity = Affinity(
            node_required=NodeSelector(terms=(NodeSelectorTerm(match_expressions=(slots,)),)) if onward else None,
            anti_required=parts.apart("group", group) if group else (),
        )
        amounts = Resources(cpu_milli=cpu * 1000, memory_bytes=memory * GIB)
        labels = FrozenMap({"group": group} if group else {})
        wants, runs = parts.spec(amounts, affinity), PodSpec(requests=amounts)
        self.vms.append(parts.vm(f"vm-{len(self.vms):03}", node, wants, runs, labels=labels))

    def snapshot(self) -> Snapshot:
        return parts.snapshot(self.nodes, self.vms, self.loads)
