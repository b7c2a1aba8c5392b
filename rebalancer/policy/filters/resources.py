"""NodeResourcesFit and NodePorts: what pods take away from each other on one node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rebalancer.domain.pod import HostPort, Pod
from rebalancer.domain.resources import CPU, EPHEMERAL_STORAGE, MEMORY, Resources
from rebalancer.domain.verdict import Rejection
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.filters.check import OneByOne, Positions, Prepared

ANY_ADDRESS: Final = "0.0.0.0"
MIB: Final = 2**20

_PORTS = Rejection(
    plugin="NodePorts", reasons=("node(s) didn't have free ports for the requested pod ports",), unresolvable=False
)


@dataclass(slots=True)
class _Fit:
    """Every resource the pod asks for is free, and there is room for one more pod (noderesources: fitsRequest)."""

    state: ClusterState
    wanted: tuple[tuple[str, int], ...]

    def reject(self, position: int) -> Rejection | None:
        room = self.state.room
        short = [("Too many pods", False)] if room.pods(position) < 1 else []
        for name, amount in self.wanted:
            if amount > room.free(name, position):
                short.append((f"Insufficient {name}", amount > self.state.table.nodes[position].allocatable.get(name)))
        if not short:
            return None
        return Rejection(
            plugin="NodeResourcesFit",
            reasons=tuple(reason for reason, _ in short),
            unresolvable=any(never for _, never in short),
        )

    def narrow(self, positions: Positions) -> Positions:
        room = self.state.room
        fits = room.free_pods()[positions] >= 1
        for name, amount in self.wanted:
            fits &= room.free_amounts(name)[positions] >= amount
        return positions[fits]


def fit(state: ClusterState, pod: Pod) -> Prepared:
    """NodeResourcesFit. Amounts of zero are not asked for."""
    return _Fit(state, wanted(pod.spec.requests))


def wanted(requests: Resources) -> tuple[tuple[str, int], ...]:
    """What is asked for, by resource name and without zeros, in kube-scheduler's order."""
    amounts = (
        (CPU, requests.cpu_milli),
        (MEMORY, requests.memory_bytes),
        (EPHEMERAL_STORAGE, requests.storage_bytes),
        *requests.scalars,
    )
    return tuple((name, amount) for name, amount in amounts if amount > 0)


def amount_text(name: str, amount: int) -> str:
    """An amount of a resource for people: "1500m CPU", "512 MiB of memory", "2 example.com/gpu"."""
    if name == CPU:
        return f"{amount}m CPU"
    if name in (MEMORY, EPHEMERAL_STORAGE):
        return f"{-(-amount // MIB)} MiB of {name}"
    return f"{amount} {name}"


@dataclass(slots=True)
class _FreePorts(OneByOne):
    """No pod of the node uses a host port that the pod asks for."""

    state: ClusterState
    ports: tuple[HostPort, ...]

    def reject(self, position: int) -> Rejection | None:
        for pod in self.state.special_pods(self.state.table.names[position]):
            if any(_clash(port, used) for port in self.ports for used in pod.spec.host_ports):
                return _PORTS
        return None


def ports(state: ClusterState, pod: Pod) -> Prepared:
    """NodePorts."""
    return _FreePorts(state, pod.spec.host_ports) if pod.spec.host_ports else None


def _clash(one: HostPort, other: HostPort) -> bool:
    """Same protocol and port on the same address, or on any address (scheduler: HostPortInfo.CheckConflict)."""
    if one.port <= 0 or one.port != other.port or (one.protocol or "TCP") != (other.protocol or "TCP"):
        return False
    addresses = {one.ip or ANY_ADDRESS, other.ip or ANY_ADDRESS}
    return ANY_ADDRESS in addresses or len(addresses) == 1
