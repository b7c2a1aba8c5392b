"""Seeded clusters in which moves wait for each other: swaps and rings that no direct move can begin.

Every node has 100 CPUs; plans are to end at 75 and may pass through 80. A spare node takes a VM up to 80, so that it
can stop over there, but not stay. Without a spare no order of moves exists at all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.planner.synthetic import GIB, LABELS, READY, RUNNING
from rebalancer.domain.cluster import KubeVirt, Namespace
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import HOSTNAME, Node
from rebalancer.domain.pod import Affinity, Pod, PodAffinityTerm, PodSpec
from rebalancer.domain.resources import Resources
from rebalancer.domain.selectors import LabelSelector, NodeSelector, NodeSelectorTerm, Requirement
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, VMISpec

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
    nodes: dict[str, Node] = field(default_factory=dict)
    vmis: dict[str, VMI] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)

    def node(self, name: str, *, slot: str = "") -> None:
        self.nodes[name] = Node(
            name=name,
            uid=name,
            labels=FrozenMap({**LABELS, HOSTNAME: name, SLOT: slot or name}),
            allocatable=Resources(cpu_milli=100_000, memory_bytes=1024 * GIB),
            pods=250,
            conditions=READY,
        )

    def load(self, node: str, cpu: int) -> None:
        """A pod that is no VM, and stays."""
        name = f"load-{node}"
        spec = PodSpec(requests=Resources(cpu_milli=cpu * 1000))
        self.pods[f"prod/{name}"] = Pod(
            namespace="prod", name=name, uid=f"p-{name}", spec=spec, node=node, phase="Running"
        )

    def vm(self, node: str, cpu: int, *, memory: int = 4, onward: str = "", group: str = "") -> None:
        """A VM; `onward` is the slot it must be in, where a spare would do as well; `group` keeps apart."""
        name = f"vm-{len(self.vmis):03}"
        slots = Requirement(key=SLOT, operator="In", values=(onward, SPARE))
        mates = LabelSelector(requirements=(Requirement(key="group", operator="In", values=(group,)),))
        affinity = Affinity(
            node_required=NodeSelector(terms=(NodeSelectorTerm(match_expressions=(slots,)),)) if onward else None,
            anti_required=(PodAffinityTerm(selector=mates, topology_key=HOSTNAME),) if group else (),
        )
        labels = FrozenMap({"group": group} if group else {})
        vmi = VMI(
            namespace="prod",
            name=name,
            uid=f"u-{name}",
            labels=labels,
            spec=VMISpec(
                affinity=affinity,
                cpu_model="host-model",
                machine_type="q35",
                cpu_requests_milli=cpu * 1000,
                guest_memory_bytes=memory * GIB,
            ),
            phase="Running",
            node=node,
            conditions=RUNNING,
            eviction_strategy="LiveMigrate",
            machine_type="q35",
        )
        self.vmis[vmi.key] = vmi
        self.pods[f"prod/virt-launcher-{name}"] = Pod(
            namespace="prod",
            name=f"virt-launcher-{name}",
            uid=f"p-{name}",
            labels=labels,
            spec=PodSpec(requests=Resources(cpu_milli=cpu * 1000, memory_bytes=memory * GIB)),
            node=node,
            phase="Running",
            owner=("VirtualMachineInstance", name, vmi.uid),
        )

    def snapshot(self) -> Snapshot:
        return Snapshot(
            nodes=FrozenMap(sorted(self.nodes.items())),
            pods=FrozenMap(sorted(self.pods.items())),
            vmis=FrozenMap(sorted(self.vmis.items())),
            namespaces=FrozenMap({"prod": Namespace(name="prod")}),
            kubevirt=KubeVirt(version="v1.9.0", phase="Deployed"),
            resource_version="1",
            taken=1_800_000_000.0,
        )
