"""Clusters of a handful of nodes and VMs, for runs that are repeated thousands of times."""

from __future__ import annotations

from rebalancer.sim.chance import Dice
from rebalancer.sim.objects import Obj
from rebalancer.sim.shapes import kubevirt, namespace, node, running, vmi

LABEL = "kubernetes.io/hostname"


def _nodes(count: int) -> list[Obj]:
    """Each can reserve 7.5 CPU: above 6 it is hot, and up to 5.625 it may be filled."""
    base = [kubevirt(), namespace("bank"), namespace("kubevirt")]
    return base + [node(f"w-{number}", cpu=8, memory_gib=64, zone=f"z{number}") for number in range(count)]


def _vms(dice: Dice, on: str, *sizes: int, migratable: bool = True) -> list[Obj]:
    """VMs of so many CPUs on a node, of any memory."""
    items: list[Obj] = []
    for number, vcpus in enumerate(sizes):
        name = f"vm-{on}-{number}"
        memory = dice.of("memory", name).choice((1, 2, 4))
        items += running(vmi("bank", name, vcpus=vcpus, memory_gib=memory), on, migratable=migratable)
    return items


def hot(seed: int) -> list[Obj]:
    """Two of four nodes are hot, and a move off each mends that."""
    dice = Dice(seed)
    more = 2 if dice.happens(0.5, "third") else 1
    items = _nodes(4) + _vms(dice, "w-0", 2, 2, 2, 1) + _vms(dice, "w-1", 2, 2, more, 1)
    return items + _vms(dice, "w-2", 1) + _vms(dice, "w-3", 1)


def chain(seed: int) -> list[Obj]:
    """The large VM of the hot node has room on w-1 only, once a VM there has made way for it."""
    dice = Dice(seed)
    pinned = vmi("bank", "pinned", vcpus=2, memory_gib=2)
    items = _nodes(3) + list(running(pinned, "w-0", migratable=False)) + _vms(dice, "w-0", 4)
    return items + _vms(dice, "w-1", 2, 1) + _vms(dice, "w-2", 2)


def apart(seed: int) -> list[Obj]:
    """Two VMs that must be kept apart are together, and another node is hot."""
    dice = Dice(seed)
    items = _nodes(4) + _vms(dice, "w-1", 2, 2, 2) + _vms(dice, "w-2", 1) + _vms(dice, "w-3", 1)
    for name in ("db-0", "db-1"):
        order = vmi("bank", name, vcpus=1, memory_gib=2, labels={"app": "db"})
        term = {"topologyKey": LABEL, "labelSelector": {"matchLabels": {"app": "db"}}}
        order["spec"]["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        items += running(order, "w-0")
    return items


WORLDS = {"hot": hot, "chain": chain, "apart": apart}
