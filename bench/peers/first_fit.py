"""First fit, decreasing: the greedy that most balancers are.

VMs that break a rule go to the first node that takes them; then every node above the threshold, the fullest first,
gives its VMs away, the largest first, until it is not above it any more. "Takes" is: under the threshold afterwards,
with room in memory, and no rule broken.
"""

from __future__ import annotations

import numpy as np

from bench.peers.judge import Step
from bench.peers.numbers import Group, Integers, Numbers, loads


def first_fit(numbers: Numbers) -> list[Step]:
    """The moves in the order in which they are found."""
    return _Greedy(numbers).run()


class _Greedy:
    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.at: Integers = numbers.home.copy()
        held = loads(numbers, self.at)
        self.cpu, self.memory, self.count = held["cpu"], held["memory"], held["vms"]
        self.groups: dict[int, list[Group]] = {}
        for group in numbers.groups:
            for vm in group.members:
                self.groups.setdefault(vm, []).append(group)
        self.steps: list[Step] = []
        self.moved: set[int] = set()

    def run(self) -> list[Step]:
        numbers = self.numbers
        for vm in np.flatnonzero(~numbers.lawful[numbers.kind, self.at]).tolist():
            self._away(vm)
        for group in numbers.groups:
            for vm in group.members:
                if self._crowd(group, vm) > group.most:
                    self._away(vm)
        hot = np.flatnonzero(self.cpu > numbers.limit).tolist()
        for node in sorted(hot, key=lambda n: numbers.limit[n] - self.cpu[n]):
            here = np.flatnonzero(self.at == node).tolist()
            for vm in sorted(here, key=lambda v: (-int(numbers.size[v, 0]), v)):
                if self.cpu[node] <= numbers.limit[node]:
                    break
                self._away(vm)
        return self.steps

    def _crowd(self, group: Group, vm: int) -> int:
        """How many of a VM's group are in its domain, itself included."""
        return sum(group.domains[self.at[other]] == group.domains[self.at[vm]] for other in group.members)

    def _away(self, vm: int) -> None:
        """Move a VM to the first node that takes it, if one does."""
        numbers, size = self.numbers, self.numbers.size[vm]
        takes = numbers.may_go(vm)
        takes &= self.cpu + size[0] <= numbers.limit
        takes &= self.memory + size[1] <= numbers.room[:, 1]
        takes &= self.count < numbers.slots
        takes[self.at[vm]] = False
        for node in np.flatnonzero(takes).tolist():
            if vm not in self.moved and all(self._admits(group, vm, node) for group in self.groups.get(vm, ())):
                source = self.at[vm]
                for held, amount in ((self.cpu, size[0]), (self.memory, size[1]), (self.count, 1)):
                    held[source] -= amount
                    held[node] += amount
                self.at[vm] = node
                self.moved.add(vm)
                self.steps.append((vm, node))
                return

    def _admits(self, group: Group, vm: int, node: int) -> bool:
        """Whether a group's counts allow one more there and one less where the VM is."""
        source, target = group.domains[self.at[vm]], group.domains[node]
        if source == target:
            return True
        domains = [group.domains[self.at[other]] for other in group.members]
        return domains.count(target) < group.most and domains.count(source) > group.least
