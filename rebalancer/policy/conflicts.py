"""Rules that no plan can keep: found before planning, named with those who are in each other's way, and left alone.

A conflict is between the rules and how the cluster is built (labels, taints, sizes, groups). Where VMs happen to be,
and which nodes are cordoned or full today, is none: that passes, and a survey tells it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from typing import Final

import numpy as np

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.pod import Pod, TopologySpreadConstraint
from rebalancer.domain.resources import Resources
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import KINDS
from rebalancer.domain.vmi import VMI
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.filters.node import tolerates
from rebalancer.policy.filters.resources import amount_text, wanted
from rebalancer.policy.filters.spread import eligible_values
from rebalancer.policy.node_table import Values
from rebalancer.policy.rule_book import Apart, Beside, Rule, RuleBook, Spread, tenant_name
from rebalancer.policy.rules import is_judged, is_rule
from rebalancer.policy.target import target_requests
from rebalancer.policy.wording import labels_text, names_text, node_selector_text

NO_NODE: Final = "NoNodeMatches"
TOO_BIG: Final = "TooBig"
TO_NOBODY: Final = "AffinityToNobody"
AGAINST_ITSELF: Final = "AffinityAgainstAntiAffinity"
TOO_FEW_DOMAINS: Final = "TooFewDomains"
SPREAD: Final = "SpreadCannotHold"
MAX_WITNESSES: Final = 20
MAX_SENTENCES: Final = 20


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """The nodes that a VM's own rules allow it. VMs of equal rules share one, so that it may be told by identity."""

    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Rules that cannot all hold. `vmis` are all that suffer, `witnesses` some in their way; both sorted keys."""

    kind: str
    vmis: tuple[str, ...]
    rule: str
    witnesses: tuple[str, ...] = ()
    message: str = ""


def sentences(conflicts: Collection[Conflict]) -> tuple[str, ...]:
    """A warning for each conflict; beyond a number that people read, how many more there are."""
    told = [conflict.message for conflict, _ in zip(conflicts, range(MAX_SENTENCES), strict=False)]
    if len(conflicts) > len(told):
        told.append(f"{len(conflicts) - len(told)} more conflicts between rules")
    return tuple(told)


def find(state: ClusterState, snapshot: Snapshot, book: RuleBook | None = None) -> tuple[Conflict, ...]:
    """All conflicts, by kind and rule. `book` is one made before of the same snapshot, for all kinds."""
    book = book or RuleBook(state, snapshot, KINDS)
    judged = _Judge(state, snapshot, book)
    found = [*judged.alone(), *judged.between()]
    return tuple(sorted(found, key=lambda conflict: (conflict.kind, conflict.rule, conflict.vmis)))


class _Judge:
    """One search, with what it has worked out already."""

    def __init__(self, state: ClusterState, snapshot: Snapshot, book: RuleBook) -> None:
        self._state = state
        self._book = book
        self._kubevirt = snapshot.kubevirt or KubeVirt()
        self._vmis = {key: snapshot.vmis[key] for key in state.active_pods if is_judged(snapshot.vmis.get(key))}
        self._apart: dict[str, list[Apart]] = {}
        self._known_shares: dict[tuple[Rule, Rule], tuple[int, int]] = {}
        for rule in book.rules:
            if isinstance(rule, Apart):
                for key in rule.holders:
                    self._apart.setdefault(key, []).append(rule)

    # -- A VM and the nodes

    def alone(self) -> Iterator[Conflict]:
        """Selectors that no node meets, and VMs too big for every node that they may use."""
        lost: dict[str, list[str]] = {}
        for key, vmi in self._vmis.items():
            reach = self._reach(vmi)
            if not reach.positions:
                lost.setdefault(_node_rules(vmi), []).append(key)
            else:
                requests = target_requests(vmi, self._state.active_pods[key], self._kubevirt)
                if not self._fits_any(reach, requests):
                    yield self._too_big(key, reach, requests)
        for rule, keys in lost.items():
            message = f"no node meets {rule}, which {_named(keys)} must have"
            yield Conflict(kind=NO_NODE, vmis=_all(keys), rule=rule, message=message)

    def _reach(self, vmi: VMI) -> Reach:
        spec, table = vmi.spec, self._state.table

        def answer() -> Reach:
            found = table.labelled(spec.node_selector)
            if spec.affinity.node_required is not None:
                found &= table.selected(spec.affinity.node_required)
            found &= table.by_taints(lambda taints: all(tolerates(spec.tolerations, t) for t in taints if is_rule(t)))
            return Reach(tuple(np.flatnonzero(found).tolist()))

        question = ("reach", spec.node_selector, spec.affinity.node_required, spec.tolerations)
        return table.remember(question, answer)

    def _met(self, topology: Hashable, values: Values, reaches: Iterable[Reach]) -> frozenset[str | None]:
        """The domains that any of several reaches meet, None for nodes without one. `topology` tells the values."""

        def of(reach: Reach) -> frozenset[str | None]:
            question = ("domains", topology, reach)
            return self._state.table.remember(question, lambda: frozenset(values[p] for p in reach.positions))

        first, *others = (of(reach) for reach in set(reaches))
        return first.union(*others) if others else first

    def _fits_any(self, reach: Reach, requests: Resources) -> bool:
        nodes = self._state.table.nodes

        def answer() -> bool:
            amounts = wanted(requests)
            return any(
                all(amount <= nodes[p].allocatable.get(name) for name, amount in amounts) for p in reach.positions
            )

        return self._state.table.remember(("fits", reach, requests), answer)

    def _too_big(self, key: str, reach: Reach, requests: Resources) -> Conflict:
        nodes = self._state.table.nodes
        amounts = wanted(requests)
        closest = min(reach.positions, key=lambda p: sum(a > nodes[p].allocatable.get(n) for n, a in amounts))
        node = nodes[closest]
        short = [
            f"{amount_text(name, amount)} where {node.name} has {amount_text(name, node.allocatable.get(name))}"
            for name, amount in amounts
            if amount > node.allocatable.get(name)
        ]
        message = f"{key} is too big for every node it may use: it asks for {' and '.join(short)}"
        return Conflict(kind=TOO_BIG, vmis=(key,), rule="requests", message=message)

    # -- VMs among themselves

    def between(self) -> Iterator[Conflict]:
        """Rules between pods that contradict each other or the number of domains."""
        for rule in self._book.rules:
            holders = [key for key in rule.holders if key in self._vmis]
            if not holders:
                continue
            if isinstance(rule, Apart):
                yield from self._too_few_domains(rule, holders)
            elif isinstance(rule, Beside):
                yield from self._beside(rule, holders)
            elif isinstance(rule, Spread):
                yield from self._spread(rule, holders)

    def _too_few_domains(self, rule: Apart, holders: list[str]) -> Iterator[Conflict]:
        """Each holder that the rule selects needs a domain of its own, and all who do not carry it one more."""
        pods, counts = self._state.active_pods, self._state.counts
        selected = [key for key in holders if counts.takes_in(rule.group, pods[key])]
        if len(selected) < 2:
            return
        values = self._state.table.values(rule.topology_key)
        domains = self._met(rule.topology_key, values, (self._reach(self._vmis[key]) for key in selected))
        if not domains or None in domains:
            return  # pods on nodes without the topology key are apart from everybody
        others = len(counts.members(rule.group)) > len(selected)
        if len(selected) + others > len(domains):
            more = " besides others that it selects" if others else ""
            message = (
                f"{_named(selected)} must be apart{more}, "
                f"but only {_domains(len(domains), rule.topology_key)} can take them"
            )
            yield Conflict(kind=TOO_FEW_DOMAINS, vmis=_all(selected), rule=rule.text, message=message)

    def _beside(self, rule: Beside, holders: list[str]) -> Iterator[Conflict]:
        """Mates that do not exist, and mates that the VMs must be apart from."""
        counts, pods = self._state.counts, self._state.active_pods
        members = {mate.uid: mate for mate in sorted(counts.members(rule.group), key=lambda mate: mate.key)}
        lonely = []
        against: dict[str, list[str]] = {}
        for key in holders:
            pod = pods[key]
            if len(members) > (pod.uid in members):
                apart = self._kept_apart(rule, key, pod, members)
                if apart is not None:
                    against.setdefault(apart.text, []).append(key)
            elif not counts.takes_in(rule.group, pod):
                lonely.append(key)
        if lonely:
            message = f"{_named(lonely)} {'has' if len(lonely) == 1 else 'have'} nobody to stand beside: {rule.text}"
            yield Conflict(kind=TO_NOBODY, vmis=_all(lonely), rule=rule.text, message=message)
        for text, keys in against.items():
            mates = {tenant_name(mate) for mate in members.values()}
            mates -= set(keys) if len(keys) == 1 else set()
            who = "each other" if mates == set(keys) else names_text(_few(mates), len(mates))
            message = f"{_named(keys)} must stand beside {who} and apart from them: {text}"
            yield Conflict(kind=AGAINST_ITSELF, vmis=_all(keys), rule=rule.text, witnesses=_few(mates), message=message)

    def _kept_apart(self, rule: Beside, key: str, pod: Pod, members: Mapping[str, Pod]) -> Apart | None:
        """A rule by which the VM and all others of the group exclude each other wherever they would be together."""
        itself = pod.uid in members
        others = len(members) - itself
        for apart in self._apart.get(key, ()):
            unwanted, _ = self._shares(apart, rule, members)
            unwanted -= itself and self._state.counts.takes_in(apart.group, pod)
            if unwanted == others and self._covers(apart, rule):
                return apart
        mate = next(mate for uid, mate in members.items() if uid != pod.uid)
        for apart in self._apart.get(tenant_name(mate), ()):
            if not self._state.counts.takes_in(apart.group, pod):
                continue
            _, shy = self._shares(apart, rule, members)
            if shy - (itself and apart in self._apart.get(key, ())) == others and self._covers(apart, rule):
                return apart
        return None

    def _shares(self, apart: Apart, rule: Beside, members: Mapping[str, Pod]) -> tuple[int, int]:
        """How many of a group an anti-affinity rule selects, and how many of it carry that rule."""
        known = self._known_shares.get((apart, rule))
        if known is None:
            selected = sum(self._state.counts.takes_in(apart.group, mate) for mate in members.values())
            holders = set(apart.holders)
            known = selected, sum(tenant_name(mate) in holders for mate in members.values())
            self._known_shares[apart, rule] = known
        return known

    def _covers(self, apart: Rule, beside: Rule) -> bool:
        """Whether two pods in one domain of `beside` are always in one domain of `apart`."""
        table = self._state.table

        def answer() -> bool:
            known: dict[str, str | None] = {}
            for here, there in zip(table.values(beside.topology_key), table.values(apart.topology_key), strict=True):
                if here is not None and (there is None or known.setdefault(here, there) != there):
                    return False
            return bool(known)

        return table.remember(("covers", beside.topology_key, apart.topology_key), answer)

    def _spread(self, rule: Spread, holders: list[str]) -> Iterator[Conflict]:
        """No domain at all, or domains that stay empty and so cap the others at the maximal skew."""
        first = rule.targets[holders[0]]
        constraint = next((c for c in first.spec.spread if self._is(c, rule)), None)
        if constraint is None:
            return
        keys = tuple(c.topology_key for c in first.spec.spread if c.when_unsatisfiable == "DoNotSchedule")
        topology, (values, counted) = eligible_values(self._state.table, first, constraint, keys)
        usable = self._met(topology, values, (self._reach(self._vmis[key]) for key in holders)) - {None}
        members = len(self._state.counts.members(rule.group))
        if not usable:
            message = f"{_named(holders)} must spread by {rule.topology_key}, which none of their nodes carries"
        elif members <= rule.max_skew * len(usable):
            return
        elif counted < constraint.min_domains:
            message = (
                f"{members} pods cannot spread over {_domains(len(usable), rule.topology_key)} with a skew of at most "
                f"{rule.max_skew} while at least {constraint.min_domains} domains are asked for"
            )
        elif self._stays_empty(rule, values, usable):
            message = (
                f"{members} pods cannot spread over {_domains(len(usable), rule.topology_key)} with a skew of at most "
                f"{rule.max_skew} while another domain counts that none of them may enter"
            )
        else:
            return
        yield Conflict(kind=SPREAD, vmis=_all(holders), rule=rule.text, message=message)

    def _stays_empty(self, rule: Spread, values: Values, usable: frozenset[str | None]) -> bool:
        """Whether a domain counts that holds nobody of the group and that nobody of the group may enter."""
        taken = {values[self._state.table.positions[pod.node]] for pod in self._state.counts.members(rule.group)}
        return bool(frozenset(values) - {None} - usable - taken)

    @staticmethod
    def _is(constraint: TopologySpreadConstraint, rule: Spread) -> bool:
        same = (constraint.topology_key, constraint.max_skew) == (rule.topology_key, rule.max_skew)
        return same and constraint.when_unsatisfiable == "DoNotSchedule"


def _node_rules(vmi: VMI) -> str:
    """All that a VM asks of its node, in words."""
    spec = vmi.spec
    parts = [f"node selector {labels_text(spec.node_selector)}"] if spec.node_selector else []
    if spec.affinity.node_required is not None:
        parts.append(f"node affinity {node_selector_text(spec.affinity.node_required)}")
    return " and ".join(parts) or "its tolerations"


def _domains(number: int, topology_key: str) -> str:
    return f"{number} domain{'' if number == 1 else 's'} of {topology_key}"


def _all(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(keys))


def _few(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(nsmallest(MAX_WITNESSES, keys))


def _named(keys: list[str]) -> str:
    return names_text(_few(keys), len(keys))
