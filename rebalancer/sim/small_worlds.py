"""Clusters of a handful of nodes and VMs, for runs that are repeated thousands of times, and what happens in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rebalancer.sim import admission
from rebalancer.sim.chance import Dice
from rebalancer.sim.check_conduct import MANAGED_BY, MANAGER
from rebalancer.sim.objects import JOB_UID, Obj, labels_of, phase
from rebalancer.sim.plane import Mishaps, NodePlaneParams
from rebalancer.sim.resources import BY_STORAGE, MIGRATIONS, VMIS
from rebalancer.sim.shapes import kubevirt, namespace, node, running, vmi
from rebalancer.sim.store import ADDED, Change
from rebalancer.sim.world import World

LABEL = "kubernetes.io/hostname"
OPTED_OUT = "kubevirt-rebalancer.io/policy"

QUICK = NodePlaneParams(
    pod_start=(0.2, 0.6), pod_stop=(0.2, 0.6), vm_boot=(0.5, 1.0), prepare=(0.2, 0.5), source_exit=(0.3, 2.0)
)
LONG = NodePlaneParams(
    pod_start=(0.2, 0.6), pod_stop=(0.2, 0.6), vm_boot=(0.5, 1.0), prepare=(0.2, 0.5), source_exit=(0.3, 2.0),
    bandwidth_bytes=3.0e8, dirty_bytes=1.0e8,
)  # fmt: skip
"""Transfers of five seconds for each GiB: time for something to come in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something that happens in the cluster: once, `after` seconds from the change that `when` waits for."""

    when: Callable[[Change], bool]
    what: Callable[[World, Change], None]
    after: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A small world. `per_hour` and `cooldown_seconds` are the daemon's, as tight as they can be while the
    work gets done. `hold_seconds`: what is hot has been so for so long. `search_seconds`: 0 takes the first plan.
    """

    about: str
    items: Callable[[int], list[Obj]]
    incidents: tuple[Incident, ...] = ()
    mishaps: Callable[[], Mishaps] = Mishaps
    nodes: NodePlaneParams = QUICK
    replicas: int = 1
    per_hour: int = 4
    hold_seconds: float = 2.0
    search_seconds: float = 0.0
    cooldown_seconds: float = 600.0

    @property
    def calm(self) -> bool:
        """Whether nobody but us does anything in it, and nothing fails."""
        return not self.incidents and self.mishaps is Mishaps


# Clusters


def _nodes(count: int) -> list[Obj]:
    """Each can reserve 7.5 CPU: above 6 it is hot, and up to 5.625 it may be filled."""
    base = [kubevirt(), namespace("bank"), namespace("kubevirt")]
    return base + [node(f"w-{number}", cpu=8, memory_gib=64, zone=f"z{number}") for number in range(count)]


def _vms(dice: Dice, on: str, *sizes: int, memory_gib: tuple[int, ...] = (1, 2, 4)) -> list[Obj]:
    """VMs of so many CPUs on a node, of any of these amounts of memory."""
    items: list[Obj] = []
    for number, vcpus in enumerate(sizes):
        name = f"vm-{on}-{number}"
        items += running(vmi("bank", name, vcpus=vcpus, memory_gib=dice.of("memory", name).choice(memory_gib)), on)
    return items


def _apart(*others: str) -> Obj:
    """Affinity of a VM that must not be where VMs of these apps are."""
    expression = {"key": "app", "operator": "In", "values": list(others)}
    term = {"topologyKey": LABEL, "labelSelector": {"matchExpressions": [expression]}}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


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
        order["spec"]["affinity"] = _apart("db")
        items += running(order, "w-0")
    return items


def circle(seed: int) -> list[Obj]:
    """Each of four VMs has one place where it breaks no rule, and none is free: a takes b's, b a's, d goes beside a, c
    takes d's. Only a may stop over, on w-2, and only while d is there and not yet c."""
    dice = Dice(seed)
    items = _nodes(3)
    hates = {"a": ("x-0",), "b": ("x-1",), "c": ("x-0", "x-1", "d"), "d": ("x-0", "x-2", "b")}
    for name, on, cpu in (
        ("x-0", "w-0", "50m"), ("x-1", "w-1", "50m"), ("x-2", "w-2", "500m"),
        ("a", "w-0", "3"), ("b", "w-1", "3"), ("c", "w-0", "2500m"), ("d", "w-2", "2"),
    ):  # fmt: skip
        memory = dice.of("memory", name).choice((1, 2)) if name in hates else 1
        order = vmi("bank", name, vcpus=3, memory_gib=memory, labels={"app": name})
        order["spec"]["domain"]["resources"]["requests"]["cpu"] = cpu
        if name in hates:
            order["spec"]["affinity"] = _apart(*hates[name])
        items += running(order, on, migratable=name in hates)
    return items


def crowded(seed: int) -> list[Obj]:
    """One node of four is hot, and one move mends that. The VM on w-2 is small."""
    dice = Dice(seed)
    items = _nodes(4) + _vms(dice, "w-0", 2, 2, 2, 1, memory_gib=(2, 3)) + _vms(dice, "w-1", 2)
    return items + _vms(dice, "w-2", 2, memory_gib=(1,)) + _vms(dice, "w-3", 1)


# What happens in them


def _begun(change: Change) -> bool:
    """A migration of ours is made."""
    return change.resource == MIGRATIONS and change.type == ADDED and _ours(change.object)


def _landed(change: Change) -> bool:
    """A migration of ours has succeeded."""
    return change.resource == MIGRATIONS and _ours(change.object) and phase(change.object) == "Succeeded"


def _ours(migration: Obj) -> bool:
    return labels_of(migration).get(MANAGED_BY) == MANAGER


def _drain_source(world: World, change: Change) -> None:
    vm = world.store.get(VMIS, change.namespace, change.object["spec"]["vmiName"])
    world.drain(vm["status"]["nodeName"])


def _opt_out(world: World, change: Change) -> None:
    _ignore(world, change.object["spec"]["vmiName"])


def _opt_out_next(world: World, _: Change) -> None:
    """The one that is moved when the first cannot be."""
    _ignore(world, "vm-w-0-2")


def _ignore(world: World, vm: str) -> None:
    def mark(item: Obj) -> None:
        item["metadata"].setdefault("annotations", {})[OPTED_OUT] = "ignore"

    world.store.modify(VMIS, "bank", vm, mark, actor="user")


def _move_back_in(world: World, _: Change) -> None:
    """A user sends a VM to the node that was hot."""
    _by_hand(world, "vm-w-2-0", "w-0")


def _by_hand(world: World, vm: str, target: str) -> None:
    kind = BY_STORAGE[MIGRATIONS]
    item: Obj = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": f"by-hand-{vm}", "namespace": "bank"},
        "spec": {"vmiName": vm, "addedNodeSelector": {LABEL: target}},
    }
    admission.mutate_migration(item)
    admission.admit_migration(world.store, item, "user")
    world.store.create(MIGRATIONS, item, actor="user")


def _leading(change: Change) -> bool:
    """A daemon has begun to lead."""
    return change.resource == "leases" and change.type == ADDED


def _two_by_hand(world: World, _: Change) -> None:
    """Users move two VMs, which takes all the slots there are for a while."""
    _by_hand(world, "vm-w-1-0", "w-2")
    _by_hand(world, "vm-w-2-0", "w-3")


class FirstOff(Mishaps):
    """The first migration off a node fails in its transfer."""

    def __init__(self, node: str) -> None:
        self._node, self._first = node, ""

    def transfer(self, vmi: Obj) -> str:
        state = vmi["status"]["migrationState"]
        if state.get("sourceNode") != self._node:
            return ""
        self._first = self._first or state["migrationUid"]
        return (
            "operation failed: migration out job: unexpectedly failed" if state["migrationUid"] == self._first else ""
        )


class FirstStuck(Mishaps):
    """The first target pod never starts."""

    def __init__(self) -> None:
        self._first = ""

    def stuck(self, pod: Obj) -> bool:
        job = labels_of(pod).get(JOB_UID, "")
        self._first = self._first or job
        return bool(job) and job == self._first


WORLDS = {
    "hot": Small(about="two of four nodes are hot", items=hot),
    "chain": Small(about="one VM has to make way for another", items=chain),
    "apart": Small(about="two VMs that must be kept apart, and a hot node", items=apart),
    "circle": Small(
        about="VMs that need each other's places: one has to stop over",
        items=circle,
        per_hour=6,
        search_seconds=1.0,
        cooldown_seconds=10.0,
    ),
    "failing": Small(about="the first migration fails in its transfer", items=hot, mishaps=lambda: FirstOff("w-0")),
    "stuck": Small(
        about="the first target pod never starts: the migration passes its deadline",
        items=crowded,
        mishaps=FirstStuck,
    ),
    "drained": Small(
        about="the node that ours leaves is drained meanwhile",
        items=crowded,
        nodes=LONG,
        per_hour=12,
        incidents=(Incident(when=_begun, what=_drain_source, after=3.0),),
    ),
    "stranger": Small(
        about="a user sends a VM to the node that was hot",
        hold_seconds=6.0,
        items=crowded,
        incidents=(Incident(when=_landed, what=_move_back_in),),
    ),
    "opt-out": Small(
        about="a VM is opted out on its way, and another before it begins",
        items=hot,
        nodes=LONG,
        incidents=(
            Incident(when=_begun, what=_opt_out_next, after=1.0),
            Incident(when=_begun, what=_opt_out, after=3.0),
        ),
    ),
    "busy": Small(
        about="users move VMs and leave no slot for a while",
        items=crowded,
        nodes=LONG,
        incidents=(Incident(when=_leading, what=_two_by_hand, after=0.1),),
    ),
    "replicas": Small(about="two daemons, and the leader is in trouble", items=hot, replicas=2),
}
