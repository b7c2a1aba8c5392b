"""One judge for all: arithmetic on an instance's numbers, in its own words; nothing of our policy or planner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.peers.numbers import Integers, Numbers

Step = tuple[int, int]
"""A VM and the node it moves to."""
Waves = Sequence[Sequence[Step]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of an answer. `hot` and `broken` are what is left, `made_hot` and `newly_broken` what is new of it.

    `broken` counts VMs on nodes that their own rules refuse, and members of groups beyond what their domains may hold.
    `unfit`: waves after whose start some node holds more than it has room for, or a group more members in a domain
    than it may and had, while those who leave are still there; or that send a VM where it cannot go.
    """

    moves: int
    hot: int
    broken: int
    made_hot: int
    newly_broken: int
    waves: int
    unfit: int


def judge(numbers: Numbers, waves: Waves) -> Verdict:
    """Carry out the waves, whether they fit or not, and look."""
    at = numbers.home.copy()
    unfit = 0
    for wave in waves:
        unfit += bool(_unfit(numbers, at, wave))
        for vm, node in wave:
            at[vm] = node
    before, after = _hot(numbers, numbers.home), _hot(numbers, at)
    broken_before, broken_after = broken(numbers, numbers.home), broken(numbers, at)
    return Verdict(
        moves=sum(len(wave) for wave in waves),
        hot=len(after),
        broken=sum(broken_after.values()),
        made_hot=len(after - before),
        newly_broken=sum(max(0, count - broken_before.get(rule, 0)) for rule, count in broken_after.items()),
        waves=len(waves),
        unfit=unfit,
    )


def broken(numbers: Numbers, at: Integers) -> dict[str, int]:
    """Rules that are broken, and by how much."""
    found = {f"own rules of {numbers.vms[vm]}": 1 for vm in np.flatnonzero(~numbers.lawful[numbers.kind, at]).tolist()}
    for group in numbers.groups:
        counts = dict.fromkeys(group.domains, 0)
        for vm in group.members:
            counts[group.domains[at[vm]]] += 1
        excess = sum(max(0, count - group.most, group.least - count) for count in counts.values())
        if excess:
            found[group.name] = excess
    return found


def in_chunks(steps: Iterable[Step], most: int) -> list[list[Step]]:
    """Steps as waves of so many, in their order."""
    every = list(steps)
    return [every[start : start + most] for start in range(0, len(every), most)]


def _hot(numbers: Numbers, at: Integers) -> set[int]:
    cpu = np.zeros(len(numbers.nodes), dtype=np.int64)
    np.add.at(cpu, at, numbers.size[:, 0])
    return set(np.flatnonzero(cpu > numbers.limit).tolist())


def _unfit(numbers: Numbers, at: Integers, wave: Sequence[Step]) -> bool:
    """Whether a wave cannot be carried out as it stands, with both sides of every move reserved."""
    if len({vm for vm, _ in wave}) < len(wave):
        return True
    targets = np.array([node for _, node in wave], dtype=np.int64)
    movers = np.array([vm for vm, _ in wave], dtype=np.int64)
    if (targets == at[movers]).any() or not numbers.movable[movers].all():
        return True
    if not numbers.open[numbers.kind[movers], targets].all():
        return True
    for resource in (0, 1):
        held = np.zeros(len(numbers.nodes), dtype=np.int64)
        np.add.at(held, at, numbers.size[:, resource])
        arriving = np.zeros_like(held)
        np.add.at(arriving, targets, numbers.size[movers, resource])
        if ((arriving > 0) & (held + arriving > numbers.room[:, resource])).any():
            return True
    count = np.bincount(at, minlength=len(numbers.nodes)) + np.bincount(targets, minlength=len(numbers.nodes))
    return bool((count[targets] > numbers.slots[targets]).any()) or _crowded(numbers, at, dict(wave))


def _crowded(numbers: Numbers, at: Integers, wave: dict[int, int]) -> bool:
    """Whether a mover arrives in a domain that holds as many of its group as it may, those who leave included.

    Its own old place does not count against it: the scheduler does not keep a VM apart from its own source pod's zone.
    """
    for group in numbers.groups:
        movers = [vm for vm in group.members if vm in wave]
        for mover in movers:
            domain = group.domains[wave[mover]]
            others = sum(
                group.domains[at[vm]] == domain or (vm in wave and group.domains[wave[vm]] == domain)
                for vm in group.members
                if vm != mover
            )
            if others + 1 > group.most:
                return True
    return False
