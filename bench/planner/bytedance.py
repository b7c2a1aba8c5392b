"""ByteDance's two clusters as snapshots: real machines and VMs; NUMA is left out, machines count as a whole.

They have no rules and no overload by themselves, so thresholds are set where the fullest machines are above them.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from bench.planner import parts
from bench.planner.parts import MIB
from rebalancer.domain.node import Node
from rebalancer.domain.pod import Pod, PodSpec
from rebalancer.domain.resources import Resources
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI


def clusters(path: Path) -> list[Snapshot]:
    """The clusters of the file, in its order."""
    with gzip.open(path) as file:
        content: dict[str, Any] = json.load(file)
    return [_cluster(cluster) for cluster in content["cluster_list"]]


def _cluster(content: dict[str, Any]) -> Snapshot:
    return parts.snapshot(map(_node, content["host_info"]), map(_vm, content["vm_instance"]))


def _node(host: dict[str, Any]) -> Node:
    amounts = Resources(cpu_milli=int(host["node_cpu"]) * 1000, memory_bytes=int(host["node_mem_mb"]) * MIB)
    return parts.node(host["node_id"], amounts, {"rack": str(host["rack_id"])})


def _vm(instance: dict[str, Any]) -> tuple[VMI, Pod]:
    amounts = Resources(
        cpu_milli=int(sum(part["cpu"] for part in instance["numa"]) * 1000),
        memory_bytes=int(sum(part["mem_mb"] for part in instance["numa"])) * MIB,
    )
    return parts.vm(
        instance["instance_id"].replace("_", "-"),
        instance["host_id"],
        parts.spec(amounts),
        PodSpec(requests=amounts),
        movable=bool(instance["allow_migration"]),
    )
