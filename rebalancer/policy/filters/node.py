"""Filters about a node alone: NodeUnschedulable, NodeName, TaintToleration, NodeAffinity, NodeDeclaredFeatures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from rebalancer.domain.node import Node, Taint
from rebalancer.domain.pod import Pod, PodSpec, Toleration
from rebalancer.domain.verdict import Rejection
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.filters.check import Positions, Prepared
from rebalancer.policy.node_table import Mask, NodeTable

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


def untolerated(tolerations: Iterable[Toleration], taints: Iterable[Taint]) -> Taint | None:
    """The first NoSchedule or NoExecute taint of a node that no toleration covers."""
    for taint in taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint):
            return taint
    return None


def tolerated(table: NodeTable, tolerations: Iterable[Toleration]) -> Mask:
    """Which nodes have no such taint."""
    return table.by_taints(lambda taints: untolerated(tolerations, taints) is None)


def selected(table: NodeTable, spec: PodSpec) -> Mask:
    """On which nodes node selector and required node affinity hold (nodeaffinity.RequiredNodeAffinity)."""
    found = table.labelled(spec.node_selector)
    required = spec.affinity.node_required
    return found if required is None else found & table.selected(required)


def _selects(spec: PodSpec, node: Node) -> bool:
    """The same of one node."""
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


class _Alone:
    """A verdict on each node by itself: who passes is known of all of them, why not is asked of one when needed."""

    def __init__(self, table: NodeTable, verdict: Callable[[Node], Rejection | None], passing: Mask) -> None:
        # The nodes, not the table, which remembers this: no circles that only the garbage collector could break.
        self._nodes, self._verdict, self._passing = table.nodes, verdict, passing
        self._said: dict[int, Rejection | None] = {}

    def reject(self, position: int) -> Rejection | None:
        if position not in self._said:
            self._said[position] = self._verdict(self._nodes[position])
        return self._said[position]

    def narrow(self, positions: Positions) -> Positions:
        return positions[self._passing[positions]]


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
        if node.taints and untolerated(spec.tolerations, node.taints) is not None:
            return _TAINTED
        return None if _selects(spec, node) else _NOT_SELECTED

    def passing() -> Mask:
        table = state.table
        found = selected(table, spec) & tolerated(table, spec.tolerations)
        if not tolerates(spec.tolerations, UNSCHEDULABLE_TAINT):
            found &= table.remember(("open",), lambda: _open(table))
        if pod.node:
            found &= np.array([name == pod.node for name in table.names], dtype=np.bool_)
        return found

    question = ("node", pod.node, spec.tolerations, spec.node_selector, spec.affinity.node_required)
    return state.table.remember(question, lambda: _Alone(state.table, verdict, passing()))


def _open(table: NodeTable) -> Mask:
    return np.array([not node.unschedulable for node in table.nodes], dtype=np.bool_)


def node_declared_features(state: ClusterState, pod: Pod) -> Prepared:
    """NodeDeclaredFeatures: the node declares every feature that the pod's spec needs."""
    needed = frozenset(pod.spec.required_features)
    if not needed:
        return None

    def verdict(node: Node) -> Rejection | None:
        return None if needed.issubset(node.declared_features) else _NO_FEATURES

    def answer() -> _Alone:
        passing = np.array([verdict(node) is None for node in state.table.nodes], dtype=np.bool_)
        return _Alone(state.table, verdict, passing)

    return state.table.remember(("features", needed), answer)
