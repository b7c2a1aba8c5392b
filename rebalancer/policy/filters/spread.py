"""PodTopologySpread: no domain may hold many more pods of a group than the emptiest one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from rebalancer.domain.pod import Pod, TopologySpreadConstraint
from rebalancer.domain.selectors import LabelSelector, Requirement
from rebalancer.domain.verdict import Rejection
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.filters.check import Positions, Prepared
from rebalancer.policy.filters.node import selected, tolerated
from rebalancer.policy.node_table import NodeTable, Values
from rebalancer.policy.pod_counts import Group, Scope, Selection

_SKEWED = Rejection(plugin="PodTopologySpread", reasons=("node(s) didn't match pod topology spread constraints",))
_NO_LABEL = Rejection(
    plugin="PodTopologySpread",
    reasons=("node(s) didn't match pod topology spread constraints (missing required label)",),
    unresolvable=True,
)


@dataclass(frozen=True, slots=True)
class Skew:
    """One constraint as it stands: pods per eligible domain without zeros, and the most that a domain may hold.

    `most` counts the pod itself where it is of the group, so a domain takes it in while it holds at most `most` pods.
    """

    constraint: TopologySpreadConstraint
    pods: Mapping[str, int]
    most: int


@dataclass(slots=True)
class _Spread:
    table: NodeTable
    skews: tuple[Skew, ...]

    def reject(self, position: int) -> Rejection | None:
        labels = self.table.nodes[position].labels
        for skew in self.skews:
            value = labels.get(skew.constraint.topology_key)
            if value is None:
                return _NO_LABEL
            if skew.pods.get(value, 0) > skew.most:
                return _SKEWED
        return None

    def narrow(self, positions: Positions) -> Positions:
        for skew in self.skews:
            key = skew.constraint.topology_key
            positions = positions[self.table.in_domains(key, None)[positions]]
            full = [value for value, pods in skew.pods.items() if pods > skew.most]
            if skew.most < 0:
                return positions[:0]
            if full:
                positions = positions[~self.table.in_domains(key, full)[positions]]
        return positions


def pod_topology_spread(state: ClusterState, pod: Pod) -> Prepared:
    """PodTopologySpread, for the constraints that must hold."""
    skews = skews_of(state, pod)
    return _Spread(state.table, skews) if skews else None


def skews_of(state: ClusterState, pod: Pod) -> tuple[Skew, ...]:
    """The pod's DoNotSchedule constraints as they stand before it is placed (podtopologyspread: calPreFilterState)."""
    hard = tuple(constraint for constraint in pod.spec.spread if constraint.when_unsatisfiable == "DoNotSchedule")
    keys = tuple(constraint.topology_key for constraint in hard)
    return tuple(_skew(state, pod, constraint, keys) for constraint in hard)


def _skew(state: ClusterState, pod: Pod, constraint: TopologySpreadConstraint, keys: tuple[str, ...]) -> Skew:
    selector = spread_selector(constraint, pod)
    topology, (values, domains) = eligible_values(state.table, pod, constraint, keys)
    pods: Mapping[str, int] = {}
    if selector is not None and selector.requirements:  # an empty selector counts no placed pod at all
        group = Group((Selection(Scope(frozenset((pod.namespace,))), selector),), staying=True)
        pods = state.counts.sums(group, topology, values)
    fewest = 0
    if pods and len(pods) == domains and domains >= constraint.min_domains:
        fewest = min(pods.values())
    itself = 1 if selector is not None and selector.matches(pod.labels) else 0
    return Skew(constraint, pods, constraint.max_skew + fewest - itself)


def spread_selector(constraint: TopologySpreadConstraint, pod: Pod) -> LabelSelector | None:
    """A constraint's selector with matchLabelKeys filled in from the pod's labels; None selects nothing."""
    selector = constraint.selector
    own = {key: pod.labels[key] for key in constraint.match_label_keys if key in pod.labels}
    if selector is None or not own:
        return selector
    added = tuple(Requirement(key=key, operator="In", values=(own[key],)) for key in sorted(own))
    missing = tuple(requirement for requirement in added if requirement not in selector.requirements)
    return replace(selector, requirements=(*selector.requirements, *missing))


def eligible_values(
    table: NodeTable, pod: Pod, constraint: TopologySpreadConstraint, keys: tuple[str, ...]
) -> tuple[object, tuple[Values, int]]:
    """What to call the constraint's topology, its value for each node that counts, and the number of domains.

    A node counts if it carries the keys of all constraints and passes the constraint's inclusion policies.
    """
    spec = pod.spec
    by_affinity = constraint.node_affinity_policy == "Honor"
    by_taints = constraint.node_taints_policy == "Honor"
    question = (
        "spread",
        constraint.topology_key,
        frozenset(keys),
        (spec.node_selector, spec.affinity.node_required) if by_affinity else None,
        spec.tolerations if by_taints else None,
    )

    def answer() -> tuple[Values, int]:
        counts = np.ones(len(table.nodes), dtype=np.bool_)
        for key in keys:
            counts &= table.in_domains(key, None)
        if by_affinity:
            counts &= selected(table, spec)
        if by_taints:
            counts &= tolerated(table, spec.tolerations)
        every = table.values(constraint.topology_key)
        values = tuple(value if here else None for value, here in zip(every, counts.tolist(), strict=True))
        return values, len(set(values) - {None})

    return question, table.remember(question, answer)
