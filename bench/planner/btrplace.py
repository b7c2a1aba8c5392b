"""BtrPlace's TDSC'13 instances as snapshots: 5,000 nodes, load that rises (li), nodes to empty (nr).

CPU is in hundredths of a core. A recording has no spread and among rules of its own files here, so they are rebuilt
from it: a client's VMs stay among the 250 nodes of the edge that they are all on, and VMs of a client that have one
template stay on different nodes, as far as they are when the recording begins. In nr, the nodes to be emptied are
recorded as off already and their VMs as waiting: these are put back, in their order, so that there is what to empty.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.planner import parts
from bench.planner.parts import MIB
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Node, Taint
from rebalancer.domain.pod import NO_AFFINITY, Affinity, Pod, PodAffinityTerm, PodSpec
from rebalancer.domain.resources import Resources
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, VMISpec

EDGE = "edge"
EDGE_NODES = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What of an instance's file counts: amounts by node and VM, who is where, who must leave, who is who."""

    capacity: dict[int, tuple[int, int]]
    demand: dict[int, tuple[int, int]]
    at: dict[int, int]
    emptied: frozenset[int]
    client: dict[int, str]
    template: dict[int, str]


def read(path: Path) -> Recording:
    """A gzipped instance."""
    with gzip.open(path) as file:
        content: dict[str, Any] = json.load(file)
    model = content["model"]
    views = {view.get("rcId") or view["id"] + view["type"]: view for view in model["views"]}
    cpu, memory, names = views["uCpu"], views["memory"], views["nsvm"]["map"]
    mapping = model["mapping"]
    at = {vm: int(node) for node, on in mapping["onlineNodes"].items() for vm in on["runningVMs"]}
    lost = sorted(mapping["offlineNodes"])
    waiting = sorted(mapping["readyVMs"])
    at |= {vm: lost[number * len(lost) // len(waiting)] for number, vm in enumerate(waiting)}
    wanted = {vm: cpu["vms"][str(vm)] for vm in at}
    for constraint in content["constraints"]:
        if constraint["id"] == "preserve" and constraint["vm"] in at:
            wanted[constraint["vm"]] = max(wanted[constraint["vm"]], constraint["amount"])
    attributes = model["attributes"]["vms"]
    return Recording(
        capacity={int(node): (cpu["nodes"][node], memory["nodes"][node]) for node in sorted(cpu["nodes"], key=int)},
        demand={vm: (wanted[vm], memory["vms"][str(vm)]) for vm in sorted(at)},
        at=at,
        emptied=frozenset(lost),
        client={number: name.split(".")[1] for name, number in names.items() if number in at},
        template={vm: attributes[str(vm)]["template"] for vm in at},
    )


def cluster(recording: Recording, *, rules: bool) -> Snapshot:
    """The recording as a cluster; nodes to be emptied carry a taint that nobody tolerates.

    Where nodes are emptied, only spread rules are made: an edge is emptied whole, and Kubernetes cannot move a group
    that must stay together, one VM after the other, to where none of it is yet.
    """
    nodes = (_node(node, amounts, recording) for node, amounts in recording.capacity.items())
    tiers = _tiers(recording) if rules else {}
    return parts.snapshot(nodes, (_vm(vm, recording, tiers.get(vm, "")) for vm in recording.at))


def name(node: int) -> str:
    return f"n{node:05}"


def _node(node: int, amounts: tuple[int, int], recording: Recording) -> Node:
    taints = (Taint(key="offline", effect="NoSchedule"),) if node in recording.emptied else ()
    return parts.node(name(node), _amounts(*amounts), {EDGE: str(node // EDGE_NODES)}, taints)


def _amounts(cpu: int, memory: int) -> Resources:
    return Resources(cpu_milli=cpu * 10, memory_bytes=memory * MIB)


def _tiers(recording: Recording) -> dict[int, str]:
    """VM → group that stays on different nodes: of one client and template, cut where a node comes twice."""
    found: dict[int, str] = {}
    used: dict[str, set[int]] = {}
    for vm in sorted(recording.at):
        stem = f"{recording.client[vm]}-{recording.template[vm]}"
        number = 0
        while recording.at[vm] in used.setdefault(f"{stem}-{number}", set()):
            number += 1
        used[f"{stem}-{number}"].add(recording.at[vm])
        found[vm] = f"{stem}-{number}"
    return found


@cache
def _affinity(client: str, tier: str, together: bool) -> Affinity:
    beside = PodAffinityTerm(selector=parts.selector("client", client), topology_key=EDGE)
    return Affinity(pod_required=(beside,) if together else (), anti_required=parts.apart("tier", tier))


@cache
def _specs(amounts: Resources, affinity: Affinity) -> tuple[VMISpec, PodSpec]:
    """Equal specs are one object, as after decoding."""
    return parts.spec(amounts, affinity), PodSpec(requests=amounts, affinity=affinity)


def _vm(vm: int, recording: Recording, tier: str) -> tuple[VMI, Pod]:
    client = recording.client[vm]
    affinity = _affinity(client, tier, not recording.emptied) if tier else NO_AFFINITY
    labels = FrozenMap({"client": client, "tier": tier})
    wants, runs = _specs(_amounts(*recording.demand[vm]), affinity)
    return parts.vm(f"vm-{vm:05}", name(recording.at[vm]), wants, runs, number=vm, labels=labels)
