"""Verdicts: a "no" is a value with a witness."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why one node cannot take one pod: kube-scheduler's plugin name and its own messages, in its order.

    `plugin` is a kube-scheduler plugin name, or "KubeVirt" for target rules that the scheduler does not know.
    `unresolvable` is kube-scheduler's UnschedulableAndUnresolvable: evicting other pods would not help.
    """

    plugin: str
    reasons: tuple[str, ...]
    unresolvable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A required rule that a running VM breaks where it is.

    `kind` is one of KINDS; `rule` names it in words that never change: (vmi, rule) is its identity.
    `degree` says how badly (conflicting pods, skew above the maximum, else 1): a plan may lower it, never raise it.
    `witnesses` are the keys of the VMIs or pods that it is broken with, sorted.
    """

    kind: str
    rule: str
    vmi: str
    node: str
    degree: int = 1
    witnesses: tuple[str, ...] = ()
    message: str = ""


NODE_AFFINITY = "NodeAffinity"
POD_AFFINITY = "PodAffinity"
POD_ANTI_AFFINITY = "PodAntiAffinity"
TOPOLOGY_SPREAD = "TopologySpread"
TAINTS = "Taints"
KINDS = (NODE_AFFINITY, POD_AFFINITY, POD_ANTI_AFFINITY, TOPOLOGY_SPREAD, TAINTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hotspot:
    """A node whose requests of a resource are above its threshold. Percentages of allocatable."""

    node: str
    resource: str
    percent: float
    high: float
    low: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """Why now: exactly one of a hotspot and a violation."""

    hotspot: Hotspot | None = None
    violation: Violation | None = None
    message: str = ""
