"""Whether what has been carried out brought what was promised. Pure.

A promise is made of room: once a VM has moved, nothing of it is left on its source, and on its target it takes what was
counted for it. Where both hold, a node that is fuller than promised all the same is so because of others, and then the
promise was kept. Where one does not, moving more would be no better founded: the breaker opens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rebalancer.control.flight import launchers
from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Move, NodeLoad, Plan, State
from rebalancer.domain.resources import CPU, Resources
from rebalancer.domain.snapshot import Snapshot
from rebalancer.policy.target import target_pod

PERCENT = 1.0
"""Of a node's capacity: what is above a promise by less than this is not worth a word."""


GROWN = 1.1
"""A target pod larger than counted on by no more than this part has a newer launcher around the same VM."""

Disappointment = tuple[str, bool]
"""What did not come true, "" where all did, and whether others explain it."""
KEPT: Disappointment = ("", True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A node as it was when something was promised about it: its capacity, and what each pod reserved, by UID."""

    allocatable: Resources
    pods: FrozenMap[str, Resources]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a plan was made on: `nodes` are those that it is to cool, `rooms` what each of its VMs will reserve."""

    nodes: FrozenMap[str, Known] = FrozenMap()
    rooms: FrozenMap[str, Resources] = FrozenMap()


def promise(plan: Plan, snapshot: Snapshot) -> Promise:
    """The promise of a plan that is put into force on `snapshot`."""
    hot = {spot.node for spot in plan.before.hotspots}
    reserved: dict[str, dict[str, Resources]] = {name: {} for name in hot if name in snapshot.nodes}
    for pod in snapshot.pods.values():
        if pod.node in reserved and not pod.terminal:
            reserved[pod.node][pod.uid] = pod.spec.requests
    return Promise(
        nodes=FrozenMap(
            (name, Known(allocatable=snapshot.nodes[name].allocatable, pods=FrozenMap(pods)))
            for name, pods in reserved.items()
        ),
        rooms=FrozenMap((move.vmi, room) for move in plan.moves if (room := _room(move, snapshot)) is not None),
    )


def _room(move: Move, snapshot: Snapshot) -> Resources | None:
    vmi = snapshot.vmis.get(move.vmi)
    pods = [pod for pod in launchers(vmi, snapshot) if pod.node == vmi.node] if vmi is not None else []
    if vmi is None or not pods:
        return None
    target = target_pod(vmi, pods[-1], snapshot.nodes.get(vmi.node), snapshot.kubevirt or KubeVirt())
    return target.spec.requests


def broken(moves: Iterable[Move], promised: Promise, snapshot: Snapshot) -> Disappointment:
    """The first of these moves, all of which have ended well, that did not bring the room that it promised.

    A VM that is larger on its target is others' doing: its owner has changed it, and it shows only now.
    """
    for move in moves:
        vmi = snapshot.vmis.get(move.vmi)
        if vmi is None or vmi.uid != move.uid or vmi.node != move.target:
            continue  # it has ended or moved on since, which is others' doing, too
        for pod in launchers(vmi, snapshot):
            if pod.node == move.source:
                return f"{move.vmi} has left {move.source}, but its pod {pod.name} there has not ended", False
            room = promised.rooms.get(move.vmi)
            if pod.node == move.target and room is not None:
                now = pod.spec.requests
                if now.cpu_milli > GROWN * room.cpu_milli or now.memory_bytes > GROWN * room.memory_bytes:
                    return f"{move.vmi} reserves {_words(now)} on {move.target}, {_words(room)} were counted on", True
    return KEPT


def shortfall(plan: Plan, promised: Promise, state: State, snapshot: Snapshot) -> Disappointment:
    """The first node that a finished plan had promised to cool further than it is.

    `state` is the cluster's as `snapshot` shows it, with all moves landed.
    """
    ours = {vmi.uid for move in plan.moves if (vmi := snapshot.vmis.get(move.vmi)) is not None}
    for spot in plan.before.hotspots:
        name, known, node = spot.node, promised.nodes.get(spot.node), snapshot.nodes.get(spot.node)
        above = _above(name, spot.resource, state.nodes.get(name), plan.after.nodes.get(name))
        if known is None or node is None or not above:
            continue
        if node.allocatable != known.allocatable:
            return f"{above}: its capacity has changed", True
        for pod in snapshot.pods.values():
            before = known.pods.get(pod.uid)
            if pod.node != name or pod.terminal or pod.owner[2] in ours or before == pod.spec.requests:
                continue
            return f"{above}: {pod.key} has {'grown' if before else 'come'} since", True
        return f"{above}, and nothing else has come", False
    return KEPT


def _above(node: str, resource: str, found: NodeLoad | None, wanted: NodeLoad | None) -> str:
    if found is None or wanted is None:
        return ""
    now, then = (found.cpu, wanted.cpu) if resource == CPU else (found.memory, wanted.memory)
    if now <= then + PERCENT:
        return ""
    word = "CPU" if resource == CPU else "memory"
    return f"{node} reserves {now:.0f} % of its {word} where {then:.0f} % were promised"


def _words(room: Resources) -> str:
    return f"{room.cpu_milli / 1000:g} CPU and {room.memory_bytes / 2**30:g} GiB"
