"""What VMs and pods say in their specs about other pods, as clauses that all who say the same share.

Clauses are read from the VMIs' specs, never from running pods, whose own rules may be older. Pods that are no VM of the
snapshot have the rules that stand in their specs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.pod import Pod, PodAffinityTerm
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import POD_AFFINITY, POD_ANTI_AFFINITY, TOPOLOGY_SPREAD
from rebalancer.domain.vmi import VMI
from rebalancer.policy.cluster_state import VMI_KIND, ClusterState
from rebalancer.policy.filters.spread import spread_selector
from rebalancer.policy.pod_counts import Group, Scope, Selection
from rebalancer.policy.target import target_pod
from rebalancer.policy.wording import group_text


@dataclass(frozen=True, slots=True)
class Clause:
    """One required rule, whoever holds it: its kind, whom it selects, by which topology, and for spreads the skew."""

    kind: str
    group: Group
    topology_key: str
    max_skew: int = 0

    def text(self) -> str:
        """The clause in words, which are a violation's identity."""
        group, by = group_text(self.group), self.topology_key
        if self.kind == TOPOLOGY_SPREAD:
            return f"topology spread of {group} by {by}, skew at most {self.max_skew}"
        return f"pod {'anti-affinity' if self.kind == POD_ANTI_AFFINITY else 'affinity'} to {group} by {by}"


class Reader:
    """Reads the clauses of the given kinds in one state of one snapshot."""

    def __init__(self, state: ClusterState, snapshot: Snapshot, kinds: Collection[str]) -> None:
        self._state = state
        self._snapshot = snapshot
        self._kubevirt = snapshot.kubevirt or KubeVirt()
        self._apart = POD_ANTI_AFFINITY in kinds
        self._beside = POD_AFFINITY in kinds
        self._spreading = TOPOLOGY_SPREAD in kinds
        self._shared: dict[tuple[int, str], tuple[Clause, ...]] = {}

    def of_vm(self, key: str) -> tuple[tuple[Clause, ...], Pod | None]:
        """The clauses that a VM lives under, each once, and its next pod where some of them are spreads.

        None for a VM that is not there or does not run.
        """
        vmi, pod = self._snapshot.vmis.get(key), self._state.active_pods.get(key)
        if vmi is None or pod is None:
            return (), None
        affinity = vmi.spec.affinity
        found: tuple[Clause, ...] = ()
        if (self._apart and affinity.anti_required) or (self._beside and affinity.pod_required):
            found = self._between(vmi, pod)
        if not (self._spreading and vmi.spec.spread):
            return found, None
        target = target_pod(vmi, pod, self._state.nodes[pod.node], self._kubevirt)
        return (*found, *dict.fromkeys(self._spreads(target))), target

    def of_pod(self, pod: Pod) -> tuple[Clause, ...]:
        """The clauses that a placed pod carries for itself, each once; none where they are read from its VMI."""
        terms = pod.spec.affinity.anti_required
        if not (self._apart and terms) or self._runs_known_vm(pod):
            return ()
        found = (self._anti_affinity(term, pod.namespace) for term in terms)
        return tuple(dict.fromkeys(clause for clause in found if clause is not None))

    def _runs_known_vm(self, pod: Pod) -> bool:
        if pod.owner[0] != VMI_KIND:
            return False
        vmi = self._snapshot.vmis.get(f"{pod.namespace}/{pod.owner[1]}")
        return vmi is not None and vmi.uid == pod.owner[2]

    def _between(self, vmi: VMI, pod: Pod) -> tuple[Clause, ...]:
        affinity = vmi.spec.affinity
        terms = (*affinity.anti_required, *affinity.pod_required)
        if any(term.match_label_keys or term.mismatch_label_keys for term in terms):
            # The API server completes such selectors from the pod's own labels, so they are no longer shared.
            affinity = target_pod(vmi, pod, self._state.nodes[pod.node], self._kubevirt).spec.affinity
            own = affinity.anti_required[: len(vmi.spec.affinity.anti_required)]  # KubeVirt's own come last
            return self._clauses(own, affinity.pod_required, vmi.namespace)
        shared = (id(affinity), vmi.namespace)  # equal specs are one object, and the snapshot keeps them alive
        if shared not in self._shared:
            self._shared[shared] = self._clauses(affinity.anti_required, affinity.pod_required, vmi.namespace)
        return self._shared[shared]

    def _clauses(
        self, apart: tuple[PodAffinityTerm, ...], beside: tuple[PodAffinityTerm, ...], namespace: str
    ) -> tuple[Clause, ...]:
        found: list[Clause | None] = []
        if self._apart:
            found += [self._anti_affinity(term, namespace) for term in apart]
        if self._beside and beside:
            selections = [self._state.counts.incoming(term, namespace) for term in beside]
            # A term that selects nothing leaves nobody whom all terms select.
            group = Group(()) if None in selections else Group(tuple(s for s in selections if s is not None))
            found += [Clause(POD_AFFINITY, group, term.topology_key) for term in beside]
        return tuple(dict.fromkeys(clause for clause in found if clause is not None))

    def _anti_affinity(self, term: PodAffinityTerm, namespace: str) -> Clause | None:
        selection = self._state.counts.incoming(term, namespace)
        return Clause(POD_ANTI_AFFINITY, Group((selection,)), term.topology_key) if selection is not None else None

    def _spreads(self, target: Pod) -> Iterator[Clause]:
        for constraint in target.spec.spread:
            selector = spread_selector(constraint, target)
            if constraint.when_unsatisfiable != "DoNotSchedule" or selector is None:
                continue
            group = Group((Selection(Scope(frozenset((target.namespace,))), selector),), staying=True)
            yield Clause(TOPOLOGY_SPREAD, group, constraint.topology_key, constraint.max_skew)
