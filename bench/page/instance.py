"""A large cluster with a plan, as the page gets it: equal seeds give equal pictures. Nothing here is solved."""

from __future__ import annotations

import random

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Condition, Node
from rebalancer.domain.plan import Bound, Move, Plan, Solver, State, Wave
from rebalancer.domain.pod import Pod, PodSpec
from rebalancer.domain.report import Report, Sentence
from rebalancer.domain.resources import Resources
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import Trigger
from rebalancer.domain.vmi import VMI, VMISpec
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.load import Thresholds, hotspots, node_loads
from rebalancer.present.picture import Picture

GIB = 2**30
NOW = 1_795_212_000.0
SIZES = ((1, 2), (1, 4), (2, 4), (2, 8), (2, 8), (4, 8), (4, 16), (8, 32))
"""(CPUs, GiB); their mean of 3 CPUs fills half a node with twenty VMs."""
CPUS, MEMORY_GIB = 112, 512
READY = FrozenMap({"Ready": Condition(status="True")})
LIVE = FrozenMap({"Ready": Condition(status="True"), "LiveMigratable": Condition(status="True")})


def large(nodes: int = 5_000, vmis_per_node: int = 20, seed: int = 0) -> Picture:
    """A picture in which one node of a hundred is too full, and a plan moves two VMs off each of them."""
    snapshot = _snapshot(nodes, vmis_per_node, random.Random(seed))
    state = ClusterState.of(snapshot, settled=True)
    thresholds = Thresholds()
    before = State(nodes=node_loads(state, thresholds), hotspots=hotspots(state, thresholds))
    plan = _plan(snapshot, before)
    report = Report(
        cycle=1,
        time=NOW,
        mode="dry-run",
        sentence=Sentence(kind="DryRun", text=f"Dry run, nothing is moved: {len(plan.moves)} moves"),
        leader=True,
        synced=True,
        state=before,
        plan=plan,
    )
    return Picture(report=report, snapshot=snapshot, since=NOW)


def _snapshot(nodes: int, vmis_per_node: int, chance: random.Random) -> Snapshot:
    names = [f"worker-{number:04}" for number in range(nodes)]
    specs = [(cpus, gib, *_specs(cpus, gib)) for cpus, gib in SIZES]
    pods, vmis = {}, {}
    for number in range(nodes * vmis_per_node):
        namespace, name, on = f"team-{number % 40:02}", f"vm-{number:06}", names[number % nodes]
        # The nodes at the front get large VMs, so that some are too full.
        _, _, spec, vmi_spec = specs[-1 - number % 3] if number % nodes < nodes // 100 else chance.choice(specs)
        vmi = VMI(
            namespace=namespace, name=name, uid=f"u-{number}", spec=vmi_spec, phase="Running", node=on, conditions=LIVE
        )
        vmis[vmi.key] = vmi
        pod = Pod(
            namespace=namespace,
            name=f"virt-launcher-{name}",
            uid=f"p-{number}",
            spec=spec,
            node=on,
            phase="Running",
            owner=("VirtualMachineInstance", name, vmi.uid),
        )
        pods[pod.key] = pod
    offered = Resources(cpu_milli=CPUS * 1000, memory_bytes=MEMORY_GIB * GIB)
    found = {name: Node(name=name, allocatable=offered, pods=250, conditions=READY) for name in names}
    return Snapshot(nodes=FrozenMap(found), pods=FrozenMap(pods), vmis=FrozenMap(vmis), taken=NOW)


def _specs(cpus: int, gib: int) -> tuple[PodSpec, VMISpec]:
    requests = Resources(cpu_milli=cpus * 1000 + 5, memory_bytes=gib * GIB)
    return PodSpec(requests=requests), VMISpec(cores=cpus, guest_memory_bytes=gib * GIB)


def _plan(snapshot: Snapshot, before: State) -> Plan:
    """Two VMs off each hotspot, onto the emptiest nodes, in waves of ten."""
    empty = sorted(before.nodes, key=lambda name: before.nodes[name].cpu)
    hot = {spot.node for spot in before.hotspots}
    leaving = [vmi for vmi in snapshot.vmis.values() if vmi.node in hot and vmi.spec.cores == 8][: 2 * len(hot)]
    moves = tuple(
        Move(
            vmi=vmi.key,
            uid=vmi.uid,
            source=vmi.node,
            target=empty[number],
            cost=1000,
            reasons=(f"brings {vmi.node} below its threshold",),
            memory_bytes=vmi.spec.guest_memory_bytes,
            seconds=50.0,
        )
        for number, vmi in enumerate(leaving)
    )
    return Plan(
        id="5000x100000",
        created=NOW,
        resource_version="1",
        triggers=tuple(Trigger(hotspot=spot) for spot in before.hotspots),
        waves=tuple(Wave(moves=moves[at : at + 10]) for at in range(0, len(moves), 10)),
        before=before,
        after=State(nodes=before.nodes),
        left=(),
        bound=Bound(moves=len(moves), cost=1000 * len(moves), gap=0.0, proven=True),
        solver=Solver(status="OPTIMAL", seconds=0.0),
    )
