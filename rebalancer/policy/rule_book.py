"""The required rules between pods that VMs live under, and how badly each is broken in a given state.

Rules are read from the VMIs' specs, never from running pods, whose own rules may be older. Pods that are no VM of the
snapshot have the rules that stand in their specs. A rule is shared by all who hold it, so judging costs time in holders
and in those whom they select, not in VMs. Where the pods are is asked of a ClusterState each time: one book serves
all states of a plan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import nsmallest

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.pod import Pod, PodAffinityTerm
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import POD_AFFINITY, POD_ANTI_AFFINITY, TOPOLOGY_SPREAD, Violation
from rebalancer.domain.vmi import VMI
from rebalancer.policy.cluster_state import VMI_KIND, ClusterState
from rebalancer.policy.filters.spread import eligible_values, skews_of, spread_selector
from rebalancer.policy.pod_counts import Directory, Group, Scope, Selection
from rebalancer.policy.target import target_pod
from rebalancer.policy.wording import group_text, names_text

MAX_WITNESSES = 20
"""Witnesses that a violation names; its degree counts all."""

Tenants = dict[str, Pod]
"""Who is somewhere, by `tenant`."""


@dataclass(slots=True, eq=False)
class Rule:
    """One required rule between pods.

    `holders` are the VMs that carry it (keys), `fixed` the pods that do and are no VM; `group` is whom it selects.
    """

    text: str
    group: Group
    topology_key: str
    holders: list[str] = field(default_factory=list)
    fixed: list[Pod] = field(default_factory=list)

    def breaches(self, state: ClusterState) -> Iterator[Violation]:
        """A violation for each VM that breaks the rule where it is."""
        raise NotImplementedError

    def _holders(self, state: ClusterState) -> Iterator[tuple[str, Pod]]:
        for key in self.holders:
            pod = state.active_pods.get(key)
            if pod is not None:
                yield key, pod

    def _by_domain(self, state: ClusterState, pods: Iterable[Pod]) -> dict[str, Tenants]:
        """Who is in each domain. Pods on nodes without the topology key are left out."""
        found: dict[str, Tenants] = {}
        for pod in pods:
            value = state.nodes[pod.node].labels.get(self.topology_key)
            if value is not None:
                found.setdefault(value, {})[tenant(pod)] = pod
        return found


@dataclass(slots=True, eq=False)
class Apart(Rule):
    """Pod anti-affinity, in both directions: holders must not share a domain with those selected, nor they with them.

    The degree is the number of others that a VM conflicts with under this rule, so a broken pair of VMs counts twice,
    once for either, whichever of them carries the rule; a pair of a VM and another pod counts once.
    """

    def breaches(self, state: ClusterState) -> Iterator[Violation]:
        holding = self._by_domain(state, [*(pod for _, pod in self._holders(state)), *self.fixed])
        selected = self._by_domain(state, state.counts.members(self.group)) if holding else {}
        for value, holders in holding.items():
            others = selected.get(value)
            if others and not (len(others) == 1 and others.keys() == holders.keys()):
                yield from self._conflicts(value, holders, others)

    def _conflicts(self, value: str, holders: Tenants, others: Tenants) -> Iterator[Violation]:
        both = {**holders, **others}
        names = {identity: tenant_name(pod) for identity, pod in both.items()}
        for identity, pod in both.items():
            if pod.owner[0] != VMI_KIND:
                continue
            foes: Tenants = {}
            if identity in others:
                foes = holders
            if identity in holders:
                foes = both if identity in others else others
            degree = len(foes) - (identity in foes)
            if not degree:
                continue
            witnesses = _witnesses(names[other] for other in foes if other != identity)
            shared = f"{self.topology_key}={value} with {names_text(witnesses, degree)}"
            yield Violation(
                kind=POD_ANTI_AFFINITY,
                rule=self.text,
                vmi=names[identity],
                node=pod.node,
                degree=degree,
                witnesses=witnesses,
                message=f"{names[identity]} on {pod.node} shares {shared}, against {self.text}",
            )


@dataclass(slots=True, eq=False)
class Beside(Rule):
    """One term of pod affinity: in each holder's domain stands another pod that all of its terms select.

    The first of a group is content anywhere: where no such pod stands in the cluster and it would be one itself.
    """

    def breaches(self, state: ClusterState) -> Iterator[Violation]:
        mates = self._by_domain(state, state.counts.members(self.group))
        everyone: set[str] = set().union(*mates.values()) if mates else set()
        for key, pod in self._holders(state):
            value = state.nodes[pod.node].labels.get(self.topology_key)
            identity = tenant(pod)
            if value is not None:
                here = mates.get(value, {})
                if len(here) > (identity in here):
                    continue
                if everyone <= {identity} and state.counts.takes_in(self.group, pod):
                    continue
            place = f"{self.topology_key}={value}" if value is not None else f"no {self.topology_key} at all"
            yield Violation(
                kind=POD_AFFINITY,
                rule=self.text,
                vmi=key,
                node=pod.node,
                message=f"{key} on {pod.node} is alone in {place}, against {self.text}",
            )


@dataclass(slots=True, eq=False)
class Spread(Rule):
    """Topology spread, DoNotSchedule: a holder's domain has at most `max_skew` more pods than the emptiest one.

    The degree is by how much the skew of the VM's domain is above that, for every holder in the domain; 1 where the
    node lacks the topology key. `targets` are the holders' next pods, which say which nodes count.
    """

    max_skew: int = 1
    targets: dict[str, Pod] = field(default_factory=dict)

    def breaches(self, state: ClusterState) -> Iterator[Violation]:
        members: dict[str, Tenants] | None = None
        for key, pod in self._holders(state):
            value = state.nodes[pod.node].labels.get(self.topology_key)
            degree = 1 if value is None else self._excess(state, pod, self.targets[key], value)
            if degree <= 0:
                continue
            if members is None:
                members = self._by_domain(state, state.counts.members(self.group))
            others = {who: other for who, other in members.get(value or "", {}).items() if who != tenant(pod)}
            witnesses = _witnesses(tenant_name(other) for other in others.values())
            place = f"{self.topology_key}={value} with {len(others)} others, {degree} too many"
            if value is None:
                place = f"no {self.topology_key}"
            yield Violation(
                kind=TOPOLOGY_SPREAD,
                rule=self.text,
                vmi=key,
                node=pod.node,
                degree=degree,
                witnesses=witnesses,
                message=f"{key} on {pod.node} is in {place}, against {self.text}",
            )

    def _excess(self, state: ClusterState, pod: Pod, target: Pod, value: str) -> int:
        """The skew of the pod's domain above the maximum, as kube-scheduler would see it without the pod itself."""
        position = state.table.positions[pod.node]
        hard = tuple(c for c in target.spec.spread if c.when_unsatisfiable == "DoNotSchedule")
        keys = tuple(constraint.topology_key for constraint in hard)
        for skew in skews_of(state, target):
            selector = spread_selector(skew.constraint, target)
            if skew.constraint.topology_key != self.topology_key or selector is None:
                continue
            if skew.constraint.max_skew != self.max_skew or selector != self.group.selections[0].selector:
                continue
            _, (values, _) = eligible_values(state.table, target, skew.constraint, keys)
            # The pod's own domain may be the emptiest without it, but then it is not overfull: the minimum may stand.
            itself = values[position] is not None and state.counts.takes_in(self.group, pod)
            return skew.pods.get(value, 0) - itself - skew.most
        return 0


class RuleBook:
    """All rules between pods of the given kinds, found by who holds them and by whom they select."""

    def __init__(self, state: ClusterState, snapshot: Snapshot, kinds: Collection[str]) -> None:
        self.rules: list[Rule] = []
        self._kinds = frozenset(kinds)
        self._known: dict[object, Rule] = {}
        self._held: dict[str, list[Rule]] = {}
        self._directory: Directory[Rule] = Directory()
        self._shared: dict[tuple[int, str], tuple[Rule, ...]] = {}
        self._read_vmis(state, snapshot)
        if POD_ANTI_AFFINITY in self._kinds:
            self._read_pods(state, snapshot)

    def touching(self, key: str, pods: Collection[Pod], state: ClusterState) -> set[Rule]:
        """The rules that a VM holds, or that select one of the given pods of it: its move changes no others."""
        found = set(self._held.get(key, ()))
        for pod in pods:
            found.update(r for r in self._directory.candidates(pod.labels) if state.counts.takes_in(r.group, pod))
        return found

    def _read_vmis(self, state: ClusterState, snapshot: Snapshot) -> None:
        kubevirt = snapshot.kubevirt or KubeVirt()
        between = POD_ANTI_AFFINITY in self._kinds or POD_AFFINITY in self._kinds
        spreading = TOPOLOGY_SPREAD in self._kinds
        for key, pod in state.active_pods.items():
            vmi = snapshot.vmis[key]
            affinity = vmi.spec.affinity
            if between and (affinity.anti_required or affinity.pod_required):
                for rule in self._between(state, vmi, pod, kubevirt):
                    self._hold(rule, key)
            if spreading and vmi.spec.spread:
                target = target_pod(vmi, pod, state.nodes[pod.node], kubevirt)
                for rule in self._spreads(target):
                    rule.targets[key] = target
                    self._hold(rule, key)

    def _read_pods(self, state: ClusterState, snapshot: Snapshot) -> None:
        for name in state.nodes:
            for pod in state.pods_on(name):
                terms = pod.spec.affinity.anti_required
                for term in terms if terms and not _runs_known_vmi(pod, snapshot) else ():
                    rule = self._apart(state, term, pod.namespace)
                    if rule is not None:
                        rule.fixed.append(pod)

    def _between(self, state: ClusterState, vmi: VMI, pod: Pod, kubevirt: KubeVirt) -> tuple[Rule, ...]:
        affinity = vmi.spec.affinity
        terms = (*affinity.anti_required, *affinity.pod_required)
        if any(term.match_label_keys or term.mismatch_label_keys for term in terms):
            # The API server completes such selectors from the pod's own labels, so they are no longer shared.
            affinity = target_pod(vmi, pod, state.nodes[pod.node], kubevirt).spec.affinity
            own = affinity.anti_required[: len(vmi.spec.affinity.anti_required)]  # KubeVirt's own come last
            return self._rules(state, own, affinity.pod_required, vmi.namespace)
        shared = (id(affinity), vmi.namespace)  # equal specs are one object, and the snapshot keeps them alive
        if shared not in self._shared:
            self._shared[shared] = self._rules(state, affinity.anti_required, affinity.pod_required, vmi.namespace)
        return self._shared[shared]

    def _rules(
        self,
        state: ClusterState,
        apart: tuple[PodAffinityTerm, ...],
        beside: tuple[PodAffinityTerm, ...],
        namespace: str,
    ) -> tuple[Rule, ...]:
        found: list[Rule | None] = []
        if POD_ANTI_AFFINITY in self._kinds:
            found += [self._apart(state, term, namespace) for term in apart]
        if POD_AFFINITY in self._kinds and beside:
            selections = [state.counts.incoming(term, namespace) for term in beside]
            # A term that selects nothing leaves nobody whom all terms select.
            group = Group(()) if None in selections else Group(tuple(s for s in selections if s is not None))
            found += [self._beside(group, term.topology_key) for term in beside]
        return tuple(dict.fromkeys(rule for rule in found if rule is not None))

    def _apart(self, state: ClusterState, term: PodAffinityTerm, namespace: str) -> Rule | None:
        selection = state.counts.incoming(term, namespace)
        if selection is None:
            return None
        group = Group((selection,))
        question = (POD_ANTI_AFFINITY, group, term.topology_key)
        if question not in self._known:
            text = f"pod anti-affinity to {group_text(group)} by {term.topology_key}"
            self._add(question, Apart(text, group, term.topology_key))
        return self._known[question]

    def _beside(self, group: Group, topology_key: str) -> Rule:
        question = (POD_AFFINITY, group, topology_key)
        if question not in self._known:
            text = f"pod affinity to {group_text(group)} by {topology_key}"
            self._add(question, Beside(text, group, topology_key))
        return self._known[question]

    def _spreads(self, target: Pod) -> Iterator[Spread]:
        for constraint in target.spec.spread:
            selector = spread_selector(constraint, target)
            if constraint.when_unsatisfiable != "DoNotSchedule" or selector is None:
                continue
            key, most = constraint.topology_key, constraint.max_skew
            group = Group((Selection(Scope(frozenset((target.namespace,))), selector),), staying=True)
            question = (TOPOLOGY_SPREAD, group, key, most)
            if question not in self._known:
                text = f"topology spread of {group_text(group)} by {key}, skew at most {most}"
                self._add(question, Spread(text, group, key, max_skew=most))
            rule = self._known[question]
            assert isinstance(rule, Spread)
            yield rule

    def _add(self, question: object, rule: Rule) -> None:
        self._known[question] = rule
        self.rules.append(rule)
        if rule.group.selections:
            self._directory.add(rule.group.selections[0].selector, rule)

    def _hold(self, rule: Rule, key: str) -> None:
        rule.holders.append(key)
        self._held.setdefault(key, []).append(rule)


def tenant(pod: Pod) -> str:
    """Who a pod stands for: both pods of a migrating VM are the VM, so it never conflicts with itself."""
    return pod.owner[2] if pod.owner[0] == VMI_KIND else pod.uid


def tenant_name(pod: Pod) -> str:
    """The key of the VMI that a pod runs, or the pod's own."""
    return f"{pod.namespace}/{pod.owner[1]}" if pod.owner[0] == VMI_KIND else pod.key


def _runs_known_vmi(pod: Pod, snapshot: Snapshot) -> bool:
    """Whether a pod's rules are read from its VMI."""
    if pod.owner[0] != VMI_KIND:
        return False
    vmi = snapshot.vmis.get(tenant_name(pod))
    return vmi is not None and vmi.uid == pod.owner[2]


def _witnesses(names: Iterable[str]) -> tuple[str, ...]:
    """The first few, by name."""
    return tuple(nsmallest(MAX_WITNESSES, names))
