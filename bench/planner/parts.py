"""What every instance is made of: nodes that take VMs, running VMs with their pods, and the snapshot around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rebalancer.domain.cluster import KubeVirt, Namespace
from rebalancer.domain.frozen import EMPTY, FrozenMap, Labels
from rebalancer.domain.node import HOSTNAME, Condition, Node, Taint
from rebalancer.domain.pod import NO_AFFINITY, Affinity, Pod, PodAffinityTerm, PodSpec
from rebalancer.domain.resources import Resources
from rebalancer.domain.selectors import LabelSelector, Requirement
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, VMISpec

MIB, GIB = 2**20, 2**30
ZONE = "topology.kubernetes.io/zone"
READY = FrozenMap({"Ready": Condition(status="True")})
RUNNING = FrozenMap({"Ready": Condition(status="True"), "LiveMigratable": Condition(status="True")})
PINNED = FrozenMap(
    {"Ready": Condition(status="True"), "LiveMigratable": Condition(status="False", reason="DisksNotLiveMigratable")}
)
LABELS = {
    "kubernetes.io/arch": "amd64",
    "kubevirt.io/schedulable": "true",
    "machine-type.node.kubevirt.io/q35": "true",
    "host-model-cpu.node.kubevirt.io/Skylake-Server": "true",
    "cpu-model-migration.node.kubevirt.io/Skylake-Server": "true",
    "cpu-vendor.node.kubevirt.io/Intel": "true",
}


def node(name: str, amounts: Resources, labels: Mapping[str, str] = {}, taints: tuple[Taint, ...] = ()) -> Node:
    """A node that KubeVirt may use; its hostname is its name as a label may have it."""
    hostname = name.replace("_", "-")
    return Node(
        name=name,
        uid=hostname,
        labels=FrozenMap({**LABELS, HOSTNAME: hostname, **labels}),
        taints=taints,
        allocatable=amounts,
        pods=250,
        conditions=READY,
    )


def spec(amounts: Resources, affinity: Affinity = NO_AFFINITY) -> VMISpec:
    """What a VM of this size asks for."""
    return VMISpec(
        affinity=affinity,
        cpu_model="host-model",
        machine_type="q35",
        cpu_requests_milli=amounts.cpu_milli,
        guest_memory_bytes=amounts.memory_bytes,
    )


def vm(  # noqa: PLR0913 - what differs from VM to VM
    name: str,
    on: str,
    wants: VMISpec,
    runs: PodSpec,
    *,
    number: int | None = None,
    labels: Labels = EMPTY,
    movable: bool = True,
) -> tuple[VMI, Pod]:
    """A VM of namespace prod that runs on a node, and the pod that it runs in; their UIDs tell its number or name."""
    identity = f"-{name}" if number is None else number
    vmi = VMI(
        namespace="prod",
        name=name,
        uid=f"u{identity}",
        labels=labels,
        spec=wants,
        phase="Running",
        node=on,
        conditions=RUNNING if movable else PINNED,
        eviction_strategy="LiveMigrate",
        machine_type="q35",
    )
    pod = Pod(
        namespace="prod",
        name=f"virt-launcher-{name}",
        uid=f"p{identity}",
        labels=labels,
        spec=runs,
        node=on,
        phase="Running",
        owner=("VirtualMachineInstance", name, vmi.uid),
    )
    return vmi, pod


def snapshot(nodes: Iterable[Node], vms: Iterable[tuple[VMI, Pod]], others: Iterable[Pod] = ()) -> Snapshot:
    """A cluster of these; `others` are pods of no VM."""
    pairs = list(vms)
    pods = [*(pod for _, pod in pairs), *others]
    return Snapshot(
        nodes=FrozenMap(sorted((one.name, one) for one in nodes)),
        pods=FrozenMap(sorted((pod.key, pod) for pod in pods)),
        vmis=FrozenMap(sorted((vmi.key, vmi) for vmi, _ in pairs)),
        namespaces=FrozenMap({"prod": Namespace(name="prod")}),
        kubevirt=KubeVirt(version="v1.9.0", phase="Deployed"),
        resource_version="1",
        taken=1_800_000_000.0,
    )


def selector(key: str, *values: str) -> LabelSelector:
    """Whoever has the label with one of these values."""
    return LabelSelector(requirements=(Requirement(key=key, operator="In", values=values),))


def apart(key: str, value: str) -> tuple[PodAffinityTerm, ...]:
    """Never on one node with whoever has this label."""
    return (PodAffinityTerm(selector=selector(key, value), topology_key=HOSTNAME),)
