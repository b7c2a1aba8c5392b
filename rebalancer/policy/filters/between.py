"""InterPodAffinity: who must stand beside whom, who must not, and whom the others keep away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rebalancer.domain.pod import Pod
from rebalancer.domain.verdict import Rejection
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.filters.check import Positions, Prepared
from rebalancer.policy.node_table import NodeTable
from rebalancer.policy.pod_counts import Group, Selection

_NOT_BESIDE = Rejection(
    plugin="InterPodAffinity", reasons=("node(s) didn't match pod affinity rules",), unresolvable=True
)
_NOT_APART = Rejection(plugin="InterPodAffinity", reasons=("node(s) didn't match pod anti-affinity rules",))
_KEPT_AWAY = Rejection(plugin="InterPodAffinity", reasons=("node(s) didn't satisfy existing pods anti-affinity rules",))

Domains = tuple[tuple[str, Mapping[str, int]], ...]
"""(topology key, pods by its values), one entry per term."""


@dataclass(slots=True)
class _Between:
    """`beside`: domains with pods that all affinity terms select, `first` where no such pod stands anywhere and the
    pod itself would be one; `apart`: pods that its anti-affinity terms select; `kept_away`: pods that select it.
    """

    table: NodeTable
    beside: Domains
    first: bool
    apart: Domains
    kept_away: Domains

    def reject(self, position: int) -> Rejection | None:
        labels = self.table.nodes[position].labels
        if not self._is_beside(labels):
            return _NOT_BESIDE
        if any(labels.get(key) in pods for key, pods in self.apart):
            return _NOT_APART
        if any(labels.get(key) in pods for key, pods in self.kept_away):
            return _KEPT_AWAY
        return None

    def narrow(self, positions: Positions) -> Positions:
        for key, pods in self.beside:
            wanted = self.table.in_domains(key, None if self.first else pods)
            positions = positions[wanted[positions]]
        for key, pods in (*self.apart, *self.kept_away):
            if pods:
                positions = positions[~self.table.in_domains(key, pods)[positions]]
        return positions

    def _is_beside(self, labels: Mapping[str, str]) -> bool:
        if self.first:
            return all(key in labels for key, _ in self.beside)
        return all(labels.get(key) in pods for key, pods in self.beside)


def inter_pod_affinity(state: ClusterState, pod: Pod) -> Prepared:
    """InterPodAffinity, with the required anti-affinity of placed pods.

    A placed pod is beside a domain only if it matches all affinity terms. The first pod of a group may go anywhere:
    when no placed pod counts in any of the topologies, and the pod matches its own terms.
    """
    counts, table, affinity = state.counts, state.table, pod.spec.affinity
    kept_away = tuple(counts.keeping_away(pod))
    if not (affinity.pod_required or affinity.anti_required or kept_away):
        return None
    wanted = _selections(state, pod)
    together = Group(wanted) if wanted is not None else Group(())
    beside = tuple(
        (term.topology_key, counts.sums(together, term.topology_key, table.values(term.topology_key)))
        for term in affinity.pod_required
    )
    apart = []
    for term in affinity.anti_required:
        unwanted = counts.incoming(term, pod.namespace)
        if unwanted is not None:
            sums = counts.sums(Group((unwanted,)), term.topology_key, table.values(term.topology_key))
            apart.append((term.topology_key, sums))
    return _Between(
        table=table,
        beside=beside,
        first=bool(beside) and not any(pods for _, pods in beside) and counts.takes_in(together, pod),
        apart=tuple(apart),
        kept_away=kept_away,
    )


def _selections(state: ClusterState, pod: Pod) -> tuple[Selection, ...] | None:
    """What the pod's affinity terms select; None where one of them selects nothing."""
    found = [state.counts.incoming(term, pod.namespace) for term in pod.spec.affinity.pod_required]
    return None if None in found else tuple(selection for selection in found if selection is not None)
