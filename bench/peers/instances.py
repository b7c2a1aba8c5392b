"""What all are compared on: hand-made cases of a few VMs, our recording, seeded clusters with so many faults."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from bench.planner import parts, synthetic
from bench.planner.parts import GIB, ZONE
from bench.planner.synthetic import FLAVOURS, SHARES, Shape
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.pod import NO_AFFINITY, Affinity, Pod, PodSpec
from rebalancer.domain.resources import Resources
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, VMISpec
from rebalancer.kube.dump import read_dump

DUMP = Path(__file__).resolve().parents[2] / "tests" / "data" / "kubevirt-12x130.json.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A cluster by name. `large` ones are measured only when asked for; `seconds` is how long others may search."""

    name: str
    read: Callable[[], Snapshot]
    seconds: float = 60.0
    large: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A VM to be: its node by number, cores, GiB, and the group whose members stay apart."""

    node: int
    cpu: int
    memory: int
    group: str = ""


def instances(*, large: bool) -> Iterator[Instance]:
    """From small to large."""
    yield Instance(name="one large or three small", read=one_large_or_three_small)
    yield Instance(name="chain", read=chain)
    yield Instance(name="recorded 12x130", read=partial(read_dump, DUMP))
    yield Instance(name="100 nodes, 6 hot", read=partial(faulty, 100, 6, 0))
    yield Instance(name="tight 100", read=partial(synthetic.cluster, Shape.tight(100), 1))
    yield Instance(name="1,000 nodes, 68 hot, 20 pairs", read=partial(faulty, 1_000, 68, 20))
    if large:
        name = "5,000 nodes, 336 hot, 106 pairs"
        yield Instance(name=name, read=partial(faulty, 5_000, 336, 106), seconds=300.0, large=True)


def one_large_or_three_small() -> Snapshot:
    """Three CPUs too much: three VMs of one CPU would do, and so would one of four."""
    sizes = ((0, 1), (0, 1), (0, 1), (0, 4), (0, 4), (1, 4), (2, 4), (3, 4))
    return made(4, 10, [Machine(node=node, cpu=cpu, memory=1) for node, cpu in sizes])


def chain() -> Snapshot:
    """No VM of the hot node fits anywhere under the threshold before another one has made room for it."""
    sizes = ((0, 5), (0, 4), (1, 4), (1, 3), (2, 5))
    return made(3, 10, [Machine(node=node, cpu=cpu, memory=1) for node, cpu in sizes])


def faulty(nodes: int, hot: int, pairs: int, *, seed: int = 1) -> Snapshot:
    """Nodes of 64 CPUs and 13 VMs or so: exactly `hot` of them above 80 %, and `pairs` of VMs that must be apart.

    A tenth of the VMs is in groups of three to five that stay on different hosts.
    """
    chance = random.Random(f"{nodes} {hot} {pairs} {seed}")
    chosen = set(chance.sample(range(nodes), hot))
    machines: list[Machine] = []
    for node in range(nodes):
        least, most = (0.84, 0.98) if node in chosen else (0.30, 0.80)
        wanted = 64 * (
            chance.uniform(least, most) if node in chosen else min(most, max(least, chance.gauss(0.62, 0.09)))
        )
        while True:
            flavour = chance.choices(FLAVOURS, SHARES)[0]
            here = [machine for machine in machines[-64:] if machine.node == node]
            used, filled = sum(one.cpu for one in here), sum(one.memory for one in here)
            if used + flavour[0] > wanted or filled + flavour[1] > 240:
                break
            machines.append(Machine(node=node, cpu=flavour[0], memory=flavour[1]))
        while node in chosen and used <= 0.8 * 64:
            machines.append(Machine(node=node, cpu=1, memory=2))
            used += 1
    return made(nodes, 64, _grouped(machines, pairs, chance))


def _grouped(machines: list[Machine], pairs: int, chance: random.Random) -> list[Machine]:
    """The same machines, a tenth of them in groups, of which `pairs` have two members on one node."""
    free = list(range(len(machines)))
    chance.shuffle(free)
    on: dict[int, list[int]] = {}
    for number, machine in enumerate(machines):
        on.setdefault(machine.node, []).append(number)
    groups: dict[int, str] = {}
    while free and len(groups) < len(machines) // 10:
        members: list[int] = []
        size = chance.randint(3, 5)
        while len(members) < size and free:
            number = free.pop()
            if number not in groups and all(machines[number].node != machines[m].node for m in members):
                members.append(number)
        if pairs:
            beside = [m for m in on[machines[members[0]].node] if m not in groups and m not in members]
            if not beside:
                continue
            members.append(beside[0])
            pairs -= 1
        groups.update(dict.fromkeys(members, f"group-{min(members)}"))
    return [
        Machine(node=machine.node, cpu=machine.cpu, memory=machine.memory, group=groups.get(number, ""))
        for number, machine in enumerate(machines)
    ]


def made(nodes: int, cpu: int, machines: Sequence[Machine]) -> Snapshot:
    """A snapshot of equal nodes with these VMs."""
    size = Resources(cpu_milli=cpu * 1000, memory_bytes=256 * GIB)
    hosts = (parts.node(f"n{number:05}", size, {ZONE: f"z{number % 3}"}) for number in range(nodes))
    return parts.snapshot(hosts, (_vm(number, machine) for number, machine in enumerate(machines)))


def _vm(number: int, machine: Machine) -> tuple[VMI, Pod]:
    labels = FrozenMap({"app": machine.group} if machine.group else {})
    wants, runs = _specs(machine.cpu, machine.memory, machine.group)
    return parts.vm(f"vm-{number:06}", f"n{machine.node:05}", wants, runs, number=number, labels=labels)


@cache
def _specs(cpu: int, memory: int, group: str) -> tuple[VMISpec, PodSpec]:
    """Equal specs are one object, as after decoding."""
    amounts = Resources(cpu_milli=cpu * 1000, memory_bytes=memory * GIB)
    affinity = Affinity(anti_required=parts.apart("app", group)) if group else NO_AFFINITY
    return replace(parts.spec(amounts, affinity), cores=cpu), PodSpec(requests=amounts, affinity=affinity)
