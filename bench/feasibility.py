"""`python -m bench.feasibility`: what questions about one VM cost in a cluster of 5,000 nodes and 100,000 VMs.

One process, one thread. A class is all VMs with the same flavour, rules and CPU; classes are drawn by seed among all.
The bars are the ones the project has set itself; a bar that is missed fails the command.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from bench.planner.parts import ZONE
from bench.planner.synthetic import Shape, cluster
from bench.results import publish
from rebalancer.domain.cluster import CSINode, KubeVirt, PersistentVolume, PersistentVolumeClaim
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.pod import Pod, PodSpec, PodVolume
from rebalancer.domain.selectors import NodeSelector, node_selector_term
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import KINDS
from rebalancer.domain.vmi import VMI
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.conflicts import find
from rebalancer.policy.feasibility import feasible_nodes, survey
from rebalancer.policy.rule_book import RuleBook
from rebalancer.policy.target import target_guard, target_pod

SEED = 7
QUICK_MS, MOVE_MS, MEMORY_MB = 5.0, 1.0, 300.0
KUBEVIRT = KubeVirt()
DRIVER = "disks.example"
REACHABLE = NodeSelector(terms=(node_selector_term([(ZONE, "In", ("z0", "z1", "z2"))]),))

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; `bar` in the unit of the value, None for a value without one."""

    what: str
    value: float
    unit: str
    bar: float | None = None

    @property
    def kept(self) -> bool:
        return self.bar is None or self.value <= self.bar

    def __str__(self) -> str:
        bar = "" if self.bar is None else f"{self.bar:g} {self.unit}"
        verdict = "" if self.bar is None else "pass" if self.kept else "FAIL"
        value = f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:.3g}"
        return f"| {self.what} | {value} {self.unit} | {bar} | {verdict} |"


def timed(work: Callable[P, T], *given: P.args, **named: P.kwargs) -> tuple[T, float]:
    """The result, and milliseconds of this thread on a CPU: nothing here waits, but the machine may be shared."""
    start = time.thread_time()
    result = work(*given, **named)
    return result, (time.thread_time() - start) * 1000


def dressed(snapshot: Snapshot) -> Snapshot:
    """The snapshot with pods that carry the rules of their VMs, as KubeVirt's do, and a network disk for each VM."""
    vmis, pods, claims, volumes = {}, {}, {}, {}
    specs: dict[tuple[int, int], PodSpec] = {}
    for number, (key, pod) in enumerate(snapshot.pods.items()):
        vmi = snapshot.vmis[f"{pod.namespace}/{pod.owner[1]}"]
        shared = (id(vmi.spec), id(pod.spec))
        if shared not in specs:
            own = vmi.spec
            specs[shared] = replace(
                pod.spec,
                node_selector=own.node_selector,
                affinity=own.affinity,
                tolerations=own.tolerations,
                spread=own.spread,
            )
        disk = f"disk-{number}"
        volume = PodVolume(name=disk, claim=disk)
        labels = FrozenMap({**pod.labels, "kubevirt.io": "virt-launcher", "kubevirt.io/created-by": vmi.uid})
        vmis[vmi.key] = replace(vmi, spec=replace(vmi.spec, volume_claims=(disk,)))
        pods[key] = replace(pod, spec=replace(specs[shared], volumes=(volume,)), labels=labels)
        claims[f"{vmi.namespace}/{disk}"] = PersistentVolumeClaim(namespace=vmi.namespace, name=disk, volume=disk)
        volumes[disk] = PersistentVolume(name=disk, csi=(DRIVER, disk), node_affinity=REACHABLE)
    csi_nodes = {name: CSINode(name=name, limits=FrozenMap({DRIVER: 128})) for name in snapshot.nodes}
    return replace(
        snapshot,
        pods=FrozenMap(pods),
        vmis=FrozenMap(vmis),
        claims=FrozenMap(claims),
        volumes=FrozenMap(volumes),
        csi_nodes=FrozenMap(csi_nodes),
    )


def classes(snapshot: Snapshot, count: int) -> list[str]:
    """One VM of each class: of all without rules between VMs, and of so many more that are drawn by seed."""
    first: dict[object, str] = {}
    for key, vmi in snapshot.vmis.items():
        first.setdefault(replace(vmi.spec, volume_claims=()), key)
    ruled = [key for key in first.values() if snapshot.vmis[key].labels]
    plain = [key for key in first.values() if not snapshot.vmis[key].labels]
    return plain + random.Random(SEED).sample(ruled, min(len(ruled), max(count - len(plain), 0)))


def ask(state: ClusterState, snapshot: Snapshot, key: str) -> tuple[str, ...]:
    """The feasible nodes of a VM, its target pod rendered first."""
    vmi, source, pod = target(state, snapshot, key)
    return feasible_nodes(state, pod, target_guard(vmi, state.nodes[source.node]))


def target(state: ClusterState, snapshot: Snapshot, key: str) -> tuple[VMI, Pod, Pod]:
    vmi, source = snapshot.vmis[key], state.active_pods[key]
    return vmi, source, target_pod(vmi, source, state.nodes[source.node], KUBEVIRT)


def questions(state: ClusterState, snapshot: Snapshot, keys: list[str]) -> list[Row]:
    """Feasible nodes, all at once and node by node."""
    _, first = timed(ask, state, snapshot, keys[0])
    _, labelled = timed(ask, state, snapshot, keys[-1])
    new = [timed(ask, state, snapshot, key)[1] for key in keys[1:-1]]
    again = [timed(ask, state, snapshot, key)[1] for key in keys]
    by_node = []
    for key in keys[:20]:
        vmi, source, pod = target(state, snapshot, key)
        by_node.append(timed(survey, state, pod, target_guard(vmi, state.nodes[source.node]))[1])
    return [
        Row("feasible nodes of a class, median", statistics.median(again), "ms", QUICK_MS),
        Row("feasible nodes of a class, max", max(again), "ms", QUICK_MS),
        Row("the same, a class that was never asked about, median", statistics.median(new), "ms", QUICK_MS),
        Row("the same, a class that was never asked about, max", max(new), "ms", QUICK_MS),
        Row("the very first question, which counts pods and disks", first, "ms"),
        Row("the first one about a label, which counts all pods by it", labelled, "ms"),
        Row("baseline: every node with its reasons, one by one, median", statistics.median(by_node), "ms"),
    ]


def moves(state: ClusterState, snapshot: Snapshot, keys: list[str], count: int) -> list[Row]:
    """Random VMs to random nodes, every count that was ever asked for kept right."""
    chance = random.Random(SEED)
    chosen = chance.sample(sorted(state.active_pods), count)
    nodes = list(state.nodes)
    landing = [(key, target(state, snapshot, key)[2], chance.choice(nodes)) for key in chosen]
    shared = state.copy()
    shared.move(*landing[0])  # what the copy shares with its original is its own from the first change on
    alone = [timed(shared.move, *one)[1] for one in landing[1:]]
    asked = []
    for key, pod, node in landing[: count // 10]:
        again = chance.choice(keys)
        shared.move(key, replace(pod, uid=f"{pod.uid}:again"), node)
        asked.append(timed(ask, shared, snapshot, again)[1])
    _, copied = timed(state.copy)
    return [
        Row("one move, for all classes, mean", statistics.fmean(alone), "ms", MOVE_MS),
        Row("one move, 99th percentile", statistics.quantiles(alone, n=100)[98], "ms"),
        Row("feasible nodes of a class right after a move, mean", statistics.fmean(asked), "ms", QUICK_MS),
        Row("a copy of the state", copied, "ms"),
    ]


def memory(snapshot: Snapshot, keys: Iterable[str]) -> float:
    """MB that a state holds with every answer to these questions."""
    gc.collect()
    tracemalloc.start()
    state = ClusterState.of(snapshot)
    for key in keys:
        ask(state, snapshot, key)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / 2**20


def measure(nodes: int, asked: int, moved: int) -> tuple[str, list[Row]]:
    """What was measured on, and the table."""
    snapshot = dressed(cluster(Shape.loose(nodes), SEED))
    keys = classes(snapshot, asked)
    state, built = timed(ClusterState.of, snapshot)
    rows = questions(state, snapshot, keys)
    rows += moves(state, snapshot, keys, moved)
    book, read = timed(RuleBook, state, snapshot, KINDS)
    _, conflicts = timed(find, state, snapshot, book)
    rows += [
        Row("memory of a state with all these answers", memory(snapshot, keys), "MB", MEMORY_MB),
        Row("a state built from a snapshot", built, "ms"),
        Row("all rules between VMs read", read, "ms"),
        Row("rules that contradict each other, found", conflicts, "ms"),
    ]
    size = f"{len(snapshot.nodes):,} nodes, {len(snapshot.vmis):,} VMs, {len(book.rules):,} rules between VMs"
    return f"{size}; {len(keys):,} classes asked about, {moved:,} moves; seed {SEED}.", rows


def main() -> int:
    """Measures, prints, publishes. 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.feasibility", description=__doc__)
    parser.add_argument("--nodes", type=int, default=5_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--moves", type=int, default=5_000)
    parser.add_argument("--publish", action=argparse.BooleanOptionalAction, help="write the section of RESULTS.md")
    options = parser.parse_args()
    measured_on, rows = measure(options.nodes, options.classes, options.moves)
    table = ["| what | measured | bar | |", "|---|---:|---:|---|", *map(str, rows)]
    text = f"{PROTOCOL}\n\n{measured_on}\n\n" + "\n".join(table)
    print(text)
    full = options.publish if options.publish is not None else options.nodes >= 5_000
    if full:
        publish("Feasibility", "python -m bench.feasibility", text)
    return int(not all(row.kept for row in rows))


PROTOCOL = """\
CPU time of the one thread for each call, the target pod rendered in it. The pods carry the rules of their VMs, and each
VM has a network disk with a limit per node. Memory is what Python's allocator holds for the state beyond the snapshot,
in a run of its own, since counting it slows everything. The two first questions are asked once in the life of a
snapshot: states that are copied from one another share what they have counted."""


if __name__ == "__main__":
    sys.exit(main())
