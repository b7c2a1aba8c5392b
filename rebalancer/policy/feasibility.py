"""Which nodes could take a pod, and in kube-scheduler's words why the others could not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.naming import RECEIVES
from rebalancer.domain.node import HOSTNAME, Node
from rebalancer.domain.pod import Pod
from rebalancer.domain.selectors import is_label_value
from rebalancer.domain.verdict import Rejection
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.filters import PLUGINS, Check
from rebalancer.policy.node_table import Mask, NodeTable

KUBEVIRT: Final = "KubeVirt"
"""The plugin of rejections that the scheduler does not know of."""


class Guard(Protocol):
    """What else speaks against a node, asked after all of the scheduler's filters have passed it."""

    def __call__(self, node: Node, /) -> Rejection | None:
        """Why not this one, None where nothing speaks against it."""
        ...

    def passing(self, table: NodeTable) -> Mask:
        """Whether it lets each node pass."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All nodes' verdicts on one pod. `blocked` is a rejection that PreFilter gave for every node at once."""

    feasible: tuple[str, ...]
    rejections: FrozenMap[str, Rejection] = FrozenMap()
    blocked: Rejection | None = None

    def message(self) -> str:
        """Why no node fits, as kube-scheduler's FitError says it (before what preemption adds); "" where one fits."""
        if self.feasible:
            return ""
        if not self.rejections:
            return "no nodes available to schedule pods"
        return f"0/{len(self.rejections)} nodes are available: {self.counted()}."

    def counted(self) -> str:
        """The reasons of all rejections with their numbers of nodes, in the order of FitError."""
        if self.blocked is not None:
            return ", ".join(self.blocked.reasons)
        numbers = Counter(reason for rejection in self.rejections.values() for reason in rejection.reasons)
        return ", ".join(sorted(f"{number} {reason}" for reason, number in numbers.items()))


def rejection(state: ClusterState, pod: Pod, node: str) -> Rejection | None:
    """The first of kube-scheduler's plugins that refuses a pod on a node, in its own order; None where none does."""
    prepared = prepare(state, pod)
    if isinstance(prepared, Rejection):
        return prepared
    return _first(prepared, state.table.positions[node])


def survey(state: ClusterState, pod: Pod, guard: Guard | None = None) -> Survey:
    """The verdict of every node, in the order of the state's nodes."""
    prepared = prepare(state, pod)
    if isinstance(prepared, Rejection):
        return Survey(feasible=(), rejections=FrozenMap(dict.fromkeys(state.nodes, prepared)), blocked=prepared)
    feasible = []
    rejections = {}
    for position, node in enumerate(state.table.nodes):
        refusal = _first(prepared, position) or (guard(node) if guard is not None else None)
        if refusal is None:
            feasible.append(node.name)
        else:
            rejections[node.name] = refusal
    return Survey(feasible=tuple(feasible), rejections=FrozenMap(rejections))


def feasible_nodes(state: ClusterState, pod: Pod, guard: Guard | None = None) -> tuple[str, ...]:
    """`survey(...).feasible` without the reasons, for thousands of nodes."""
    prepared = prepare(state, pod)
    if isinstance(prepared, Rejection):
        return ()
    positions = np.arange(len(state.table.nodes), dtype=np.intp)
    for check in prepared:
        positions = check.narrow(positions)
    if guard is not None:
        positions = positions[guard.passing(state.table)[positions]]
    names = state.table.names
    return tuple(names[p] for p in positions.tolist())


def receiver_problem(node: Node) -> str | None:
    """Why we send nothing to a node, although the scheduler might accept it; None where nothing speaks against it."""
    if node.deleting:
        return "node(s) were being deleted"
    if not node.capacity_known:
        return "node(s) had an unreadable capacity"
    if node.unschedulable:
        return "node(s) were cordoned"
    if node.silent:
        return "node(s) had no recent heartbeat of virt-handler"
    receives = node.annotations.get(RECEIVES)
    if receives == "no":
        return f"node(s) were annotated {RECEIVES}=no"
    if receives == "later":
        return "node(s) failed to take a VM lately"
    ready = node.conditions.get("Ready")
    if ready is None or ready.status != "True":
        return "node(s) were not ready"
    for kind in PRESSURES:
        condition = node.conditions.get(kind)
        if condition is not None and condition.status == "True":
            return f"node(s) had {kind}"
    hostname = node.labels.get(HOSTNAME, "")
    if not hostname or not is_label_value(hostname):
        return f"node(s) had no label {HOSTNAME} by which to send a VM there"
    return None


PRESSURES: Final = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")


def receiver_guard(node: Node) -> Rejection | None:
    """`receiver_problem` as a guard of surveys."""
    problem = receiver_problem(node)
    return None if problem is None else Rejection(plugin=KUBEVIRT, reasons=(problem,), unresolvable=True)


def prepare(state: ClusterState, pod: Pod) -> list[Check] | Rejection:
    """Every plugin's PreFilter: what is left to ask the nodes, or the first rejection for all of them."""
    checks = []
    for plugin in PLUGINS:
        prepared = plugin(state, pod)
        if isinstance(prepared, Rejection):
            return prepared
        if prepared is not None:
            checks.append(prepared)
    return checks


def _first(checks: list[Check], position: int) -> Rejection | None:
    for check in checks:
        refusal = check.reject(position)
        if refusal is not None:
            return refusal
    return None
