"""Filters about a node alone: NodeUnschedulable, NodeName, TaintToleration, NodeAffinity, NodeDeclaredFeatures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from rebalancer.domain.node import Node, Taint
from rebalancer.domain.pod import Pod, PodSpec, Toleration
from rebalancer.domain.verdict import Rejection
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.filters.check import Positions, Prepared
from rebalancer.policy.node_table import NodeTable

UNSCHEDULABLE_TAINT: Final = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
NODE_NAME_FIELD: Final = "metadata.name"

_UNSCHEDULABLE = Rejection(plugin="NodeUnschedulable", reasons=("node(s) were unschedulable",), unresolvable=True)
_NODE_NAME = Rejection(plugin="NodeName", reasons=("node(s) didn't match the requested node name",), unresolvable=True)
_TAINTED = Rejection(plugin="TaintToleration", reasons=("node(s) had untolerated taint(s)",), unresolvable=True)
_NOT_SELECTED = Rejection(
    plugin="NodeAffinity", reasons=("node(s) didn't match Pod's node affinity/selector",), unresolvable=True
)
_NOT_NAMED = Rejection(
    plugin="NodeAffinity", reasons=("node(s) didn't satisfy plugin(s) [NodeAffinity]",), unresolvable=True
)
_CONFLICT = Rejection(plugin="NodeAffinity", reasons=("pod affinity terms conflict",), unresolvable=True)
_NO_FEATURES = Rejection(
    plugin="NodeDeclaredFeatures", reasons=("node(s) didn't match Pod's required features",), unresolvable=True
)


def tolerates(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    """Whether any toleration covers a taint (api/core/v1: ToleratesTaint; Lt and Gt are off by default in 1.36)."""
    return any(
        toleration.effect in ("", taint.effect)
        and toleration.key in ("", taint.key)
        and (
            toleration.operator == "Exists"
            or (toleration.operator in ("", "Equal") and toleration.value == taint.value)
        )
        for toleration in tolerations
    )


def untolerated(tolerations: Iterable[Toleration], node: Node) -> Taint | None:
    """The first NoSchedule or NoExecute taint of a node that no toleration covers."""
    for taint in node.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint):
            return taint
    return None


def selected(spec: PodSpec, node: Node) -> bool:
    """Whether node selector and required node affinity hold (nodeaffinity.RequiredNodeAffinity)."""
    labels = node.labels
    for key, value in spec.node_selector.items():
        if labels.get(key) != value:
            return False
    required = spec.affinity.node_required
    return required is None or required.matches(labels, node.name)


def named_nodes(spec: PodSpec) -> frozenset[str] | None:
    """The only nodes that required node affinity names; None where it leaves any node (NodeAffinity.PreFilter)."""
    required = spec.affinity.node_required
    if required is None or not required.terms:
        return None
    names: set[str] = set()
    for term in required.terms:
        chosen: set[str] | None = None
        for field in term.match_fields:
            if field.key == NODE_NAME_FIELD and field.operator == "In":
                chosen = set(field.values) if chosen is None else chosen.intersection(field.values)
        if chosen is None:
            return None
        names |= chosen
    return frozenset(names)


@dataclass(slots=True)
class _Remembered:
    """Verdicts that stand for all nodes already."""

    verdicts: tuple[Rejection | None, ...]
    passing: Positions

    def reject(self, position: int) -> Rejection | None:
        return self.verdicts[position]

    def narrow(self, positions: Positions) -> Positions:
        if len(positions) == len(self.verdicts):
            return self.passing
        return np.intersect1d(positions, self.passing, assume_unique=True)


def node_alone(state: ClusterState, pod: Pod) -> Prepared:
    """NodeUnschedulable, NodeName, TaintToleration and NodeAffinity, which follow each other in the default profile.

    Pods with equal tolerations, selectors and node affinity share the answer.
    """
    spec = pod.spec
    names = named_nodes(spec)
    if names is not None and not names:
        return _CONFLICT

    def verdict(node: Node) -> Rejection | None:
        if names is not None and node.name not in names:
            return _NOT_NAMED
        if node.unschedulable and not tolerates(spec.tolerations, UNSCHEDULABLE_TAINT):
            return _UNSCHEDULABLE
        if pod.node and pod.node != node.name:
            return _NODE_NAME
        if node.taints and untolerated(spec.tolerations, node) is not None:
            return _TAINTED
        return None if selected(spec, node) else _NOT_SELECTED

    question = ("node", pod.node, spec.tolerations, spec.node_selector, spec.affinity.node_required)
    return state.table.remember(question, lambda: _ask(state.table, verdict))


def node_declared_features(state: ClusterState, pod: Pod) -> Prepared:
    """NodeDeclaredFeatures: the node declares every feature that the pod's spec needs."""
    needed = frozenset(pod.spec.required_features)
    if not needed:
        return None

    def verdict(node: Node) -> Rejection | None:
        return None if needed.issubset(node.declared_features) else _NO_FEATURES

    return state.table.remember(("features", needed), lambda: _ask(state.table, verdict))


def _ask(table: NodeTable, verdict: Callable[[Node], Rejection | None]) -> _Remembered:
    verdicts: tuple[Rejection | None, ...] = tuple(verdict(node) for node in table.nodes)
    passing = np.array([p for p, rejection in enumerate(verdicts) if rejection is None], dtype=np.intp)
    return _Remembered(verdicts, passing)
