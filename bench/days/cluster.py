"""The cluster of the month as it stands on its first day: as unequal as years of starting and stopping leave it."""

from __future__ import annotations

from bench.days.agenda import APART, GOLD, SPREAD, STUCK, Agenda, Vm, node_name
from rebalancer.sim.chance import Dice
from rebalancer.sim.objects import Obj
from rebalancer.sim.plane import FailingShare
from rebalancer.sim.shapes import SIDECAR_MILLI, kubevirt, namespace, node, running, vmi

CPUS, GIB = 80, 352
GOLD_LABEL = "pool"
HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
NEW_NODES = 0.05
"""Share of the nodes that have just been added and are empty."""


def zone(number: int) -> str:
    return f"z{number % 3}"


def gold(number: int) -> bool:
    return number % 5 == 0


def order(vm: Vm) -> Obj:
    """The VMI of a VM."""
    labels = {"app": vm.group or vm.name}
    found = vmi(vm.namespace, vm.name, vcpus=vm.vcpus, memory_gib=vm.gib, labels=labels)
    spec = found["spec"]
    spec["evictionStrategy"] = "LiveMigrateIfPossible"
    selector = {"matchLabels": labels}
    if vm.kind == APART:
        term = {"topologyKey": HOSTNAME, "labelSelector": selector}
        spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    elif vm.kind == SPREAD:
        rule = {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}
        spec["topologySpreadConstraints"] = [rule]
    elif vm.kind == GOLD:
        spec["nodeSelector"] = {GOLD_LABEL: "gold"}
    return found


def build(agenda: Agenda) -> list[Obj]:
    """Nodes, and every VM that runs at the beginning where it runs."""
    count, dice = agenda.params.nodes, Dice(f"cluster {agenda.seed}")
    names = [node_name(number) for number in range(count)]
    items = [kubevirt(), *(namespace(name) for name in ("kubevirt", *sorted({vm.namespace for vm in agenda.vms})))]
    for number, name in enumerate(names):
        made = node(name, cpu=CPUS, memory_gib=GIB, zone=zone(number))
        if gold(number):
            made["metadata"]["labels"][GOLD_LABEL] = "gold"
        items.append(made)
    old = count - max(1, round(count * NEW_NODES))
    cpu, memory = dict.fromkeys(range(old), 0), dict.fromkeys(range(old), 0)
    groups: dict[str, list[int]] = {}
    for vm in sorted((vm for vm in agenda.vms if not vm.office), key=lambda vm: -vm.gib):
        there = groups.setdefault(vm.group or vm.key, [])
        suited = [
            number
            for number in range(old)
            if (vm.kind != GOLD or gold(number))
            and number not in there
            and (vm.kind != SPREAD or zone(number) == zone(len(there)))
            and cpu[number] + vm.vcpus * 1000 + SIDECAR_MILLI < CPUS * 960
            and memory[number] + vm.gib + 1 < GIB - 8
        ]
        picked = dice.of("place", vm.key).sample(suited, min(2, len(suited)))
        place = min(picked, key=lambda number: cpu[number] / CPUS / 1000 + memory[number] / GIB)
        there.append(place)
        cpu[place] += vm.vcpus * 1000 + SIDECAR_MILLI
        memory[place] += vm.gib + 1
        items += running(order(vm), names[place], migratable=vm.kind != STUCK)
    return items


class Mishaps(FailingShare):
    """Three migrations of a hundred fail, whoever makes them; some VMs cannot migrate at all."""

    def __init__(self, agenda: Agenda) -> None:
        super().__init__(Dice(f"mishaps {agenda.seed}"), transfers=0.02, pods=0.0)
        self._luck = Dice(f"mishaps {agenda.seed}")
        self._stuck = {vm.key for vm in (*agenda.vms, *agenda.born) if vm.kind == STUCK}

    def pod(self, pod: Obj) -> str:
        """Target pods alone are refused: a VM that is started always starts."""
        meta = pod["metadata"]
        target = "kubevirt.io/migrationJobUID" in meta["labels"]
        refused = target and self._luck.happens(0.01, "target", meta["uid"])
        return "UnexpectedAdmissionError" if refused else ""

    def immovable(self, vmi: Obj) -> tuple[str, str] | None:
        key = f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}"
        stuck = key in self._stuck
        return ("DisksNotLiveMigratable", "cannot migrate VMI: PVC data is not shared") if stuck else None
