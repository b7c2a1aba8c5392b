"""Clusters out of nothing: nodes, running VMs and their pods, by shape and seed."""

from __future__ import annotations

from dataclasses import dataclass

from rebalancer.sim import launcher
from rebalancer.sim.chance import Dice
from rebalancer.sim.kubelet import running_status
from rebalancer.sim.objects import HEARTBEAT, NODE_NAME, SCHEDULABLE, Obj, stamp

SIZES = ((1, 4), (2, 4), (2, 8), (4, 8), (4, 16), (8, 16))
"""(vCPU, GiB) of the VMs that people order; each vCPU is reserved in full, as in our recording."""

SIDECAR_MILLI = 5
"""What the launcher's log sidecar reserves beside the VM."""

BORN = 1_795_200_000.0
"""Creation time of everything in a generated cluster, hours before simulated time begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A cluster of equal workers. `fill` is the share of their CPU that VMs reserve, on the first `packed` workers.

    `packed` 0 spreads them over all. VMs are of SIZES, as many as fit; `most` caps their number.
    """

    workers: int = 12
    control_planes: int = 3
    cpu: int = 64
    memory_gib: int = 512
    zones: int = 3
    fill: float = 0.6
    packed: int = 0
    most: int = 1_000_000
    namespaces: tuple[str, ...] = ("bank", "shop", "ci")


def node(name: str, *, cpu: int, memory_gib: int, zone: str, worker: bool = True) -> Obj:
    """A node as KubeVirt's node-labeller and heartbeat leave it."""
    role = "worker" if worker else "control-plane"
    capacity = {
        "cpu": str(cpu),
        "memory": f"{memory_gib}Gi",
        "ephemeral-storage": "500Gi",
        "pods": "250",
        "devices.kubevirt.io/kvm": "1k",
        "devices.kubevirt.io/tun": "1k",
        "devices.kubevirt.io/vhost-net": "1k",
    }
    conditions = [
        {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"},
        {"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": Dice().uid("node", name),
            "creationTimestamp": stamp(BORN),
            "labels": {
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/os": "linux",
                "kubernetes.io/hostname": name,
                "topology.kubernetes.io/zone": zone,
                f"node-role.kubernetes.io/{role}": "",
                SCHEDULABLE: "true" if worker else "false",
                "kubevirt.io/cpumanager": "true",
                "cpu-vendor.node.kubevirt.io/Intel": "true",
                "cpu-model.node.kubevirt.io/Skylake-Server": "true",
                "cpu-model-migration.node.kubevirt.io/Skylake-Server": "true",
                "host-model-cpu.node.kubevirt.io/Skylake-Server": "true",
                "machine-type.node.kubevirt.io/q35": "true",
            },
            "annotations": {HEARTBEAT: stamp(BORN)},
        },
        "spec": {}
        if worker
        else {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]},
        "status": {
            "capacity": capacity,
            "allocatable": capacity | {"cpu": f"{cpu * 1000 - 500}m"},
            "conditions": [
                entry | {"lastHeartbeatTime": stamp(BORN), "lastTransitionTime": stamp(BORN)} for entry in conditions
            ],
        },
    }


def vmi(namespace: str, name: str, *, vcpus: int, memory_gib: int, labels: dict[str, str] | None = None) -> Obj:
    """A VMI as a user orders it, not yet created."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {"app": name}},
        "spec": {
            "architecture": "amd64",
            "evictionStrategy": "LiveMigrate",
            "terminationGracePeriodSeconds": 180,
            "domain": {
                "cpu": {"cores": vcpus, "sockets": 1, "threads": 1, "model": "host-model"},
                "devices": {},
                "machine": {"type": "q35"},
                "memory": {"guest": f"{memory_gib}Gi"},
                "resources": {"requests": {"cpu": str(vcpus), "memory": f"{memory_gib}Gi"}},
            },
        },
    }


def running(order: Obj, on: str, *, migratable: bool = True) -> tuple[Obj, Obj]:
    """A VMI that runs on a node, and its launcher pod: what an order becomes once everything has gone well."""
    meta = order["metadata"]
    uid = Dice().uid("vmi", meta["namespace"], meta["name"])
    moment = stamp(BORN)
    conditions: list[Obj] = [
        {"type": "Ready", "status": "True", "lastProbeTime": moment, "lastTransitionTime": moment},
        {"type": "LiveMigratable", "status": "True"},
    ]
    if not migratable:
        message = "cannot migrate VMI: PVC data is not shared"
        conditions[1] = {
            "type": "LiveMigratable", "status": "False", "reason": "DisksNotLiveMigratable", "message": message,
        }  # fmt: skip
    placed = order | {
        "metadata": meta
        | {"uid": uid, "creationTimestamp": moment, "labels": meta["labels"] | {NODE_NAME: on}, "generation": 1}
    }
    pod = launcher.render(placed, None)
    pod_uid = Dice().uid("launcher", meta["namespace"], meta["name"])
    name = pod["metadata"].pop("generateName") + Dice().suffix("launcher", meta["namespace"], meta["name"])
    pod["metadata"] |= {"name": name, "uid": pod_uid, "creationTimestamp": moment}
    pod["spec"]["nodeName"] = on
    pod["status"] = running_status(pod, BORN)
    placed["status"] = {
        "phase": "Running",
        "nodeName": on,
        "activePods": {pod_uid: on},
        "conditions": conditions,
        "machine": {"type": "q35"},
        "migrationMethod": "LiveMigration",
        "migrationTransport": "Unix",
        "selinuxContext": "none",
    }
    return placed, pod


def kubevirt() -> Obj:
    """The KubeVirt CR with its defaults."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {
            "name": "kubevirt",
            "namespace": "kubevirt",
            "uid": Dice().uid("kubevirt"),
            "creationTimestamp": stamp(BORN),
        },
        "spec": {"configuration": {}},
        "status": {"phase": "Deployed", "observedKubeVirtVersion": "v1.9.0"},
    }


def namespace(name: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "uid": Dice().uid("namespace", name),
            "creationTimestamp": stamp(BORN),
            "labels": {"kubernetes.io/metadata.name": name},
        },
        "status": {"phase": "Active"},
    }


def build(shape: Shape, seed: int = 0) -> list[Obj]:
    """All objects of a cluster of that shape."""
    dice = Dice(seed)
    workers = [f"w-{number:02}" for number in range(shape.workers)]
    items = [kubevirt(), *(namespace(name) for name in (*shape.namespaces, "kubevirt"))]
    for number, name in enumerate(workers):
        zone = f"z{number % shape.zones}"
        items.append(node(name, cpu=shape.cpu, memory_gib=shape.memory_gib, zone=zone))
    for number in range(shape.control_planes):
        items.append(node(f"cp-{number}", cpu=16, memory_gib=64, zone=f"z{number % shape.zones}", worker=False))
    room = dict.fromkeys(workers[: shape.packed or shape.workers], int((shape.cpu * 1000 - 500) * shape.fill))
    for number in range(shape.most):
        place = max(room, key=lambda name: (room[name], name))
        fitting = [size for size in SIZES if size[0] * 1000 + SIDECAR_MILLI <= room[place]]
        if not fitting:
            break
        vcpus, gib = dice.of("size", number).choice(fitting)
        space = shape.namespaces[number % len(shape.namespaces)]
        items += running(vmi(space, f"vm-{number:03}", vcpus=vcpus, memory_gib=gib), place)
        room[place] -= vcpus * 1000 + SIDECAR_MILLI
    return items
