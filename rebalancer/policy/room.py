"""What is left on each node: exact per node, and as arrays over all nodes for whoever asks about many."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from rebalancer.domain.resources import CPU, MEMORY, ZERO, Resources
from rebalancer.policy.node_table import NodeTable

_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**63 - 1

Amounts = NDArray[np.int64]


class Room:
    """Requests and numbers of pods per node. Millicores, bytes, or units of an extended resource."""

    def __init__(self, table: NodeTable) -> None:
        self._table = table
        self._requested = [ZERO] * len(table.nodes)
        self._pods = [0] * len(table.nodes)
        self._free: dict[str, Amounts] = {}
        self._free_pods: Amounts | None = None

    def copy(self, table: NodeTable) -> Room:
        """`table`: the same nodes, perhaps in another condition."""
        twin = object.__new__(Room)
        twin._table = table
        twin._requested = list(self._requested)
        twin._pods = list(self._pods)
        twin._free = {name: amounts.copy() for name, amounts in self._free.items()}
        twin._free_pods = None if self._free_pods is None else self._free_pods.copy()
        return twin

    def charge(self, position: int, requests: Resources, pods: int) -> None:
        """Let one more pod (pods=1) use a node, or one less (pods=-1)."""
        before = self._requested[position]
        self._requested[position] = before + requests if pods > 0 else before - requests
        self._pods[position] += pods
        for name, amounts in self._free.items():
            amounts[position] = self._bounded(name, position)
        if self._free_pods is not None:
            self._free_pods[position] -= pods

    def requested(self, position: int) -> Resources:
        return self._requested[position]

    def pods(self, position: int) -> int:
        """How many more pods the node may hold."""
        return self._table.nodes[position].pods - self._pods[position]

    def free(self, name: str, position: int) -> int:
        """Allocatable minus requested; negative where a node is overcommitted."""
        allocatable, requested = self._table.nodes[position].allocatable, self._requested[position]
        if name == CPU:
            return allocatable.cpu_milli - requested.cpu_milli
        if name == MEMORY:
            return allocatable.memory_bytes - requested.memory_bytes
        return allocatable.get(name) - requested.get(name)

    def free_amounts(self, name: str) -> Amounts:
        """`free` of every node. The array is the room's own: read it before the next change, and do not write."""
        found = self._free.get(name)
        if found is None:
            bounded = [self._bounded(name, position) for position in range(len(self._pods))]
            found = self._free[name] = np.array(bounded, dtype=np.int64)
        return found

    def free_pods(self) -> Amounts:
        """`pods` of every node, under the same terms."""
        if self._free_pods is None:
            self._free_pods = np.array([self.pods(p) for p in range(len(self._pods))], dtype=np.int64)
        return self._free_pods

    def _bounded(self, name: str, position: int) -> int:
        return min(max(self.free(name, position), _SMALLEST), _LARGEST)
