"""The required rules between pods that VMs live under, and how badly each is broken in a given state.

A rule is shared by all who hold it, so judging costs time in holders and in those whom they select, not in VMs. Where
the pods are is asked of a ClusterState each time: one book serves all states of a plan.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from heapq import nsmallest

from rebalancer.domain.pod import Pod
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import POD_AFFINITY, POD_ANTI_AFFINITY, TOPOLOGY_SPREAD, Violation
from rebalancer.policy.cluster_state import VMI_KIND, ClusterState, Step
from rebalancer.policy.filters.spread import eligible_values, skews_of, spread_selector
from rebalancer.policy.pod_counts import Directory, Group
from rebalancer.policy.rule_reading import Clause, Reader
from rebalancer.policy.wording import names_text

MAX_WITNESSES = 20
"""Witnesses that a violation names; its degree counts all."""

Tenants = dict[str, Pod]
"""Who is somewhere, by `tenant`."""


@dataclass(slots=True, eq=False)
class Rule:
    """One required rule between pods. Once its book is made it does not change.

    `holders` are the VMs that carry it (keys), `fixed` the pods that do and are no VM, both sorted by key. `number` is
    what it is called in its book and those that come of it.
    """

    number: int
    clause: Clause
    text: str
    holders: list[str] = field(default_factory=list)
    fixed: list[Pod] = field(default_factory=list)

    @property
    def group(self) -> Group:
        """Whom the rule selects."""
        return self.clause.group

    @property
    def topology_key(self) -> str:
        return self.clause.topology_key

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
                here, who = found.setdefault(value, {}), tenant(pod)
                if who not in here or here[who].key < pod.key:  # the same whatever the order of pods
                    here[who] = pod
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
                yield from self._conflicts(state, value, holders, others)

    def _conflicts(self, state: ClusterState, value: str, holders: Tenants, others: Tenants) -> Iterator[Violation]:
        both = {**holders, **others}
        names = {identity: tenant_name(pod) for identity, pod in both.items()}
        for identity, pod in both.items():
            runs = state.active_pods.get(names[identity]) if pod.owner[0] == VMI_KIND else None
            if runs is None or tenant(runs) != identity:
                continue  # no VM, or the pod of one that has gone, though another may have its name
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

    targets: dict[str, Pod] = field(default_factory=dict)

    @property
    def max_skew(self) -> int:
        return self.clause.max_skew

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
    """All rules between pods of the given kinds, found by who holds them and by whom they select.

    A book is made once and does not change: `advance` makes the next one and shares with it what stays as it is.
    """

    def __init__(self, state: ClusterState, snapshot: Snapshot, kinds: Collection[str]) -> None:
        self._kinds = frozenset(kinds)
        self._numbers: dict[Clause, int] = {}
        self._rules: dict[int, Rule] = {}
        self._held: dict[str, tuple[int, ...]] = {}
        self._carried: dict[str, tuple[int, ...]] = {}
        self._directory: Directory[int] = Directory()
        self._next = 0
        self._own: set[int] = set()
        self._ordered: tuple[Rule, ...] | None = None
        reader = Reader(state, snapshot, self._kinds)
        for key in state.active_pods:
            spec = snapshot.vmis[key].spec
            if spec.spread or spec.affinity.anti_required or spec.affinity.pod_required:  # few VMs have any
                self._read_vm(key, reader)
        if POD_ANTI_AFFINITY in self._kinds:
            bearers = (p for name in state.nodes for p in state.pods_on(name) if p.spec.affinity.anti_required)
            for pod in sorted(bearers, key=lambda one: one.key):
                self._read_pod(pod, reader)
        self._own.clear()

    def advance(self, before: Snapshot, after: Snapshot, step: Step) -> tuple[RuleBook, frozenset[int]]:
        """The book of a snapshot, where this is that of the one before it, and the numbers of all rules that may be
        broken otherwise than before: those that are not there any more among them."""
        twin, state = self._twin(), step.state
        reader = Reader(state, after, self._kinds)
        touched: set[int] = set()
        for key in sorted(step.vms):
            if (held := twin._held.get(key)) is not None:
                touched.update(held)
            touched.update(twin._read_vm(key, reader))
        others = (pod for pair in step.vms.values() if pair[0] is not pair[1] for pod in pair if pod is not None)
        for pod in (*step.left, *step.came, *others):
            touched.update(twin._selecting(pod, state))
        if POD_ANTI_AFFINITY in self._kinds:
            pods = {pod.key: None for pod in step.left} | {pod.key: pod for pod in step.came}
            for key in step.vms:
                # Whether a pod speaks for itself depends on whether its VMI is known.
                for vmi in (before.vmis.get(key), after.vmis.get(key)):
                    launchers = state.launchers.get(vmi.uid, ()) if vmi is not None else ()
                    pods |= {pod.key: pod if state.holds(pod) else None for pod in launchers}
            for key, one in sorted(pods.items()):
                touched.update(twin._carried.get(key, ()))
                touched.update(twin._read_pod(one, reader) if one is not None else twin._let_go(key))
        for number in touched:
            twin._drop_if_empty(number)
        twin._own.clear()
        return twin, frozenset(touched)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules, by who holds them first; the same whatever books this one has come of."""
        if self._ordered is None:
            self._ordered = tuple(sorted(self._rules.values(), key=self._place))
        return self._ordered

    def rule(self, number: int) -> Rule | None:
        """The rule of a number, None where there is none any more."""
        return self._rules.get(number)

    def __len__(self) -> int:
        return len(self._rules)

    def touching(self, key: str, pods: Collection[Pod], state: ClusterState) -> set[Rule]:
        """The rules that a VM holds, or that select one of the given pods of it: its move changes no others."""
        found = set(self._held.get(key, ()))
        for pod in pods:
            found.update(self._selecting(pod, state))
        return {self._rules[number] for number in found}

    def _selecting(self, pod: Pod, state: ClusterState) -> Iterator[int]:
        for number in self._directory.candidates(pod.labels):
            if state.counts.takes_in(self._rules[number].group, pod):
                yield number

    def _place(self, rule: Rule) -> tuple[int, str, int]:
        if rule.holders:
            return 0, rule.holders[0], self._held[rule.holders[0]].index(rule.number)
        return 1, rule.fixed[0].key, self._carried[rule.fixed[0].key].index(rule.number)

    # -- Only while a book is made

    def _twin(self) -> RuleBook:
        twin = object.__new__(RuleBook)
        twin._kinds, twin._next = self._kinds, self._next
        twin._numbers, twin._rules = dict(self._numbers), dict(self._rules)
        twin._held, twin._carried = dict(self._held), dict(self._carried)
        twin._directory = self._directory.copy()
        twin._own, twin._ordered = set(), None
        return twin

    def _read_vm(self, key: str, reader: Reader) -> tuple[int, ...]:
        """Takes down the rules that a VM lives under, instead of those from before."""
        clauses, target = reader.of_vm(key)
        if not clauses and key not in self._held:
            return ()
        for number in self._held.pop(key, ()):
            rule = self._mine(number)
            del rule.holders[bisect_left(rule.holders, key)]
            if isinstance(rule, Spread):
                del rule.targets[key]
        numbers = tuple(self._number(clause) for clause in clauses)
        for number in numbers:
            rule = self._mine(number)
            insort(rule.holders, key)
            if isinstance(rule, Spread):
                assert target is not None
                rule.targets[key] = target
        if numbers:
            self._held[key] = numbers
        return numbers

    def _read_pod(self, pod: Pod, reader: Reader) -> tuple[int, ...]:
        """Takes down the rules that a pod carries for itself, instead of those from before."""
        self._let_go(pod.key)
        numbers = tuple(self._number(clause) for clause in reader.of_pod(pod))
        for number in numbers:
            insort(self._mine(number).fixed, pod, key=lambda one: one.key)
        if numbers:
            self._carried[pod.key] = numbers
        return numbers

    def _let_go(self, pod: str) -> tuple[int, ...]:
        for number in (carried := self._carried.pop(pod, ())):
            fixed = self._mine(number).fixed
            del fixed[bisect_left(fixed, pod, key=lambda one: one.key)]
        return carried

    def _number(self, clause: Clause) -> int:
        number = self._numbers.get(clause)
        if number is None:
            number = self._numbers[clause] = self._next
            self._next += 1
            self._rules[number] = KINDS_OF_RULES[clause.kind](number, clause, clause.text())
            self._own.add(number)
            if clause.group.selections:
                self._directory.add(clause.group.selections[0].selector, number)
        return number

    def _mine(self, number: int) -> Rule:
        """The rule, to be changed while this book is made: its own, no other book's."""
        if number not in self._own:
            rule = self._rules[number]
            twin = replace(rule, holders=list(rule.holders), fixed=list(rule.fixed))
            if isinstance(twin, Spread):
                twin.targets = dict(twin.targets)
            self._rules[number] = twin
            self._own.add(number)
        return self._rules[number]

    def _drop_if_empty(self, number: int) -> None:
        rule = self._rules.get(number)
        if rule is None or rule.holders or rule.fixed:
            return
        del self._rules[number], self._numbers[rule.clause]
        if rule.group.selections:
            self._directory.discard(rule.group.selections[0].selector, number)


KINDS_OF_RULES: dict[str, type[Rule]] = {POD_ANTI_AFFINITY: Apart, POD_AFFINITY: Beside, TOPOLOGY_SPREAD: Spread}


def tenant(pod: Pod) -> str:
    """Who a pod stands for: both pods of a migrating VM are the VM, so it never conflicts with itself."""
    return pod.owner[2] if pod.owner[0] == VMI_KIND else pod.uid


def tenant_name(pod: Pod) -> str:
    """The key of the VMI that a pod runs, or the pod's own."""
    return f"{pod.namespace}/{pod.owner[1]}" if pod.owner[0] == VMI_KIND else pod.key


def _witnesses(names: Iterable[str]) -> tuple[str, ...]:
    """The first few, by name."""
    return tuple(nsmallest(MAX_WITNESSES, names))
