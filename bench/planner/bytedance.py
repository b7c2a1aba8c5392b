"""ByteDance's two clusters as snapshots: real machines and VMs; NUMA is left out, machines count as a whole.

They have no rules and no overload by themselves, so thresholds are set where the fullest machines are above them.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from bench.planner.synthetic import LABELS, PINNED, READY, RUNNING
from rebalancer.domain.cluster import KubeVirt, Namespace
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import HOSTNAME, Node
from rebalancer.domain.pod import Pod, PodSpec
from rebalancer.domain.resources import Resources
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, VMISpec

MIB = 2**20


def clusters(path: Path) -> list[Snapshot]:
    """The clusters of the file, in its order."""
    with gzip.open(path) as file:
        content: dict[str, Any] = json.load(file)
    return [_cluster(cluster) for cluster in content["cluster_list"]]


def _cluster(content: dict[str, Any]) -> Snapshot:
    nodes = {host["node_id"]: _node(host) for host in content["host_info"]}
    vmis, pods = {}, {}
    for instance in content["vm_instance"]:
        vmi, pod = _vm(instance)
        vmis[vmi.key], pods[pod.key] = vmi, pod
    return Snapshot(
        nodes=FrozenMap(sorted(nodes.items())),
        pods=FrozenMap(sorted(pods.items())),
        vmis=FrozenMap(sorted(vmis.items())),
        namespaces=FrozenMap({"prod": Namespace(name="prod")}),
        kubevirt=KubeVirt(version="v1.9.0", phase="Deployed"),
        resource_version="1",
        taken=1_800_000_000.0,
    )


def _node(host: dict[str, Any]) -> Node:
    name = host["node_id"].replace("_", "-")
    return Node(
        name=host["node_id"],
        uid=name,
        labels=FrozenMap({**LABELS, HOSTNAME: name, "rack": str(host["rack_id"])}),
        allocatable=Resources(cpu_milli=int(host["node_cpu"]) * 1000, memory_bytes=int(host["node_mem_mb"]) * MIB),
        pods=250,
        conditions=READY,
    )


def _vm(instance: dict[str, Any]) -> tuple[VMI, Pod]:
    cpu = int(sum(part["cpu"] for part in instance["numa"]) * 1000)
    memory = int(sum(part["mem_mb"] for part in instance["numa"])) * MIB
    name = instance["instance_id"].replace("_", "-")
    vmi = VMI(
        namespace="prod",
        name=name,
        uid=name,
        spec=VMISpec(cpu_model="host-model", machine_type="q35", cpu_requests_milli=cpu, guest_memory_bytes=memory),
        phase="Running",
        node=instance["host_id"],
        conditions=RUNNING if instance["allow_migration"] else PINNED,
        eviction_strategy="LiveMigrate",
        machine_type="q35",
    )
    pod = Pod(
        namespace="prod",
        name=f"virt-launcher-{name}",
        uid=f"p-{name}",
        spec=PodSpec(requests=Resources(cpu_milli=cpu, memory_bytes=memory)),
        node=instance["host_id"],
        phase="Running",
        owner=("VirtualMachineInstance", name, vmi.uid),
    )
    return vmi, pod
