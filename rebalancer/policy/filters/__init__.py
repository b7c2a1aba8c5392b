"""kube-scheduler 1.36's filters of the default profile, one function per plugin, in its order.

DynamicResources and scheduling gates cannot be judged from outside: `movable` lets such VMs stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rebalancer.domain.pod import Pod
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.filters.between import inter_pod_affinity
from rebalancer.policy.filters.check import Check, Positions, Prepared
from rebalancer.policy.filters.node import node_alone, node_declared_features
from rebalancer.policy.filters.resources import fit, ports
from rebalancer.policy.filters.spread import pod_topology_spread
from rebalancer.policy.filters.volumes import node_volume_limits, volume_binding, volume_restrictions, volume_zone

PLUGINS: Final[tuple[Callable[[ClusterState, Pod], Prepared], ...]] = (
    node_alone,  # NodeUnschedulable, NodeName, TaintToleration, NodeAffinity
    ports,  # NodePorts
    fit,  # NodeResourcesFit
    volume_restrictions,
    node_volume_limits,
    volume_binding,
    volume_zone,
    pod_topology_spread,
    inter_pod_affinity,
    node_declared_features,
)

__all__ = ["PLUGINS", "Check", "Positions", "Prepared"]
