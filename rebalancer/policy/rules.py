"""Which required rules running VMs break where they are.

Every rule of a VMI's spec is judged as kube-scheduler would, were the VM to be placed where it is, with its own pod
left out. What only says where new pods may go, or what KubeVirt adds, is no rule of the VM and never broken: a cordon,
the taints that the node controller sets by a node's condition, KubeVirt's node labels, the KubeVirt CR's selectors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from rebalancer.domain.node import Node, Taint
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import KINDS, NODE_AFFINITY, TAINTS, Violation
from rebalancer.domain.vmi import VMI
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.filters.node import tolerates
from rebalancer.policy.rule_book import RuleBook
from rebalancer.policy.wording import labels_text, node_selector_text, taint_text

PASSING_TAINTS: Final = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "kubevirt.io/drain")
"""Taints that speak of a passing state of the node (not ready, under pressure, cordoned), and KubeVirt's own drain."""


def violations(
    state: ClusterState, snapshot: Snapshot, kinds: Collection[str] = KINDS, book: RuleBook | None = None
) -> tuple[Violation, ...]:
    """The violations of the given kinds, by VMI, kind and rule; each (vmi, rule) at most once.

    The sum of their degrees is the first stage of the objective. VMs that are not running, or on their way out, are
    not judged, though others are judged by them. `book` is one made before of the same snapshot, for these kinds at
    least. Rules between pods see the other pods where `state` has them, best a settled one.
    """
    book = book or RuleBook(state, snapshot, kinds)
    found = [one for ones in vm_violations(state, snapshot, state.active_pods, kinds).values() for one in ones]
    found += [violation for rule in book.rules for violation in rule.breaches(state)]
    return in_order(found, snapshot, kinds)


def in_order(found: Iterable[Violation], snapshot: Snapshot, kinds: Collection[str] = KINDS) -> tuple[Violation, ...]:
    """Those of the given kinds and of VMs that are judged, by VMI, kind and rule."""
    running = [one for one in found if one.kind in kinds and is_judged(snapshot.vmis.get(one.vmi))]
    return tuple(sorted(running, key=lambda v: (v.vmi, KINDS.index(v.kind), v.rule, v.degree, v.message)))


def is_judged(vmi: VMI | None) -> bool:
    """Whether a VM's rules can be broken at all: it runs, and is to go on running."""
    return vmi is not None and vmi.phase == "Running" and not vmi.deleting


def node_violations(vmi: VMI, node: Node, kinds: Collection[str] = KINDS) -> Iterator[Violation]:
    """The rules between a VM and the node that it would be on: node selector, node affinity, taints. Degree 1 each."""
    spec = vmi.spec
    if NODE_AFFINITY in kinds:
        labels = node.labels
        if spec.node_selector and not all(labels.get(key) == value for key, value in spec.node_selector.items()):
            yield _node_violation(NODE_AFFINITY, f"node selector {labels_text(spec.node_selector)}", vmi, node)
        required = spec.affinity.node_required
        if required is not None and not required.matches(labels, node.name):
            yield _node_violation(NODE_AFFINITY, f"node affinity {node_selector_text(required)}", vmi, node)
    if TAINTS in kinds:
        for taint in node.taints:
            if is_rule(taint) and not tolerates(spec.tolerations, taint):
                yield _node_violation(TAINTS, f"taint {taint_text(taint)}", vmi, node)


def is_rule(taint: Taint) -> bool:
    """Whether somebody has set a taint to keep VMs away for good."""
    return taint.effect in ("NoSchedule", "NoExecute") and not taint.key.startswith(PASSING_TAINTS)


def _node_violation(kind: str, rule: str, vmi: VMI, node: Node) -> Violation:
    breaks = "does not tolerate the" if kind == TAINTS else "is outside its"
    return Violation(
        kind=kind, rule=rule, vmi=vmi.key, node=node.name, message=f"{vmi.key} on {node.name} {breaks} {rule}"
    )


def vm_violations(
    state: ClusterState, snapshot: Snapshot, keys: Iterable[str], kinds: Collection[str] = KINDS
) -> dict[str, tuple[Violation, ...]]:
    """Node rules of these VMs, by VM, of those who break any. Most have no such rule and stand on a node without
    taints: these cost one look."""
    tainted = {name for name, node in state.nodes.items() if any(is_rule(taint) for taint in node.taints)}
    found = {}
    for key in keys:
        pod = state.active_pods.get(key)
        if pod is None:
            continue
        vmi = snapshot.vmis[key]
        spec = vmi.spec
        if pod.node in tainted or spec.node_selector or spec.affinity.node_required is not None:
            broken = tuple(node_violations(vmi, state.nodes[pod.node], kinds))
            if broken:
                found[key] = broken
    return found
