"""Nodes, as the scheduler and KubeVirt see them."""

from __future__ import annotations

from dataclasses import dataclass, field

from rebalancer.domain.frozen import EMPTY, FrozenMap, Labels
from rebalancer.domain.resources import Resources

HOSTNAME = "kubernetes.io/hostname"
"""The label that a directed migration selects; its value may differ from the node's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """A node's refusal of pods that do not tolerate it; `effect` as in the API (NoSchedule, ...)."""

    key: str
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition of any object; `since` is the last transition, in seconds since 1970, 0 where unknown."""

    status: str
    reason: str = ""
    message: str = ""
    since: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node.

    `annotations` holds only those that we or KubeVirt read. `pods` is the allocatable number of pods.
    `capacity_known` is false where allocatable could not be read: such a node receives nothing.
    `heartbeat` is when virt-handler last renewed its annotation, in seconds since 1970: None where it never did, 0
    where it cannot be read. It changes all the time and is no part of what nodes are compared by; `silent` is, which
    says that it is much older than most nodes'.
    """

    name: str
    uid: str = ""
    labels: Labels = EMPTY
    annotations: FrozenMap[str, str] = EMPTY
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    allocatable: Resources = Resources()
    pods: int = 0
    conditions: FrozenMap[str, Condition] = FrozenMap()
    declared_features: tuple[str, ...] = ()
    created: float = 0.0
    deleting: bool = False
    capacity_known: bool = True
    silent: bool = False
    heartbeat: float | None = field(default=None, compare=False)
