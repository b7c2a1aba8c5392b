"""Where kube-scheduler would put a pod: the filters of policy.feasibility, and the two scores that tell nodes apart.

Scored are NodeResourcesFit (least allocated) and NodeResourcesBalancedAllocation, whole points of a hundred each, with
its default weights. Left out are scores that our instances have no use for (images, preferred affinity, tolerations of
PreferNoSchedule), and that large clusters score a sample of their nodes only. Among the best nodes the real one takes
any; here a seed and the pod's UID decide.
"""

from __future__ import annotations

import zlib

import numpy as np

from rebalancer.domain.pod import Pod
from rebalancer.domain.resources import CPU, MEMORY
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.feasibility import Guard, feasible_nodes


def choose(state: ClusterState, pod: Pod, *, guard: Guard | None = None, seed: int = 0) -> str | None:
    """The node for a pod that is not bound yet; None where none is feasible. `guard` speaks against further nodes."""
    names = feasible_nodes(state, pod, guard)
    if not names:
        return None
    positions = np.array([state.table.positions[name] for name in names], dtype=np.intp)
    nodes = [state.table.nodes[position] for position in positions.tolist()]
    shares = []
    points = np.zeros(len(names), dtype=np.int64)
    for resource in (CPU, MEMORY):
        capacity = np.array([max(node.allocatable.get(resource), 1) for node in nodes], dtype=np.int64)
        free = state.room.free_amounts(resource)[positions] - pod.spec.requests.get(resource)
        points += np.clip(free, 0, None) * 100 // capacity
        shares.append(np.minimum(1 - free / capacity, 1.0))
    balanced = ((1 - np.abs(shares[0] - shares[1]) / 2) * 100).astype(np.int64)
    points = points // 2 + balanced
    best = np.flatnonzero(points == points.max()).tolist()
    return names[best[zlib.crc32(f"{seed} {pod.uid}".encode()) % len(best)]]
