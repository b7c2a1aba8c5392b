"""Rules between pods, from the rule book's words to counts by domain."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rebalancer.domain.pod import Pod
from rebalancer.domain.verdict import POD_AFFINITY, POD_ANTI_AFFINITY, TOPOLOGY_SPREAD
from rebalancer.placement.groups import NOWHERE, Attraction, Bools, Exclusion, Ints, Numbers, Spread
from rebalancer.policy import rule_book
from rebalancer.policy.filters.spread import eligible_values

if TYPE_CHECKING:
    from rebalancer.planning.build import Picture


Alike = tuple[list[str], Bools, int]
"""Holders of a spread rule, the nodes that count for them, and their min_domains."""


class Between:
    """The rules that concern at least one item, seen from the settled state."""

    def __init__(self, picture: Picture, keys: Sequence[str], nodes: Sequence[str]) -> None:
        self._state = picture.settled
        self._rules = picture.book.rules
        self._position = {name: number for number, name in enumerate(nodes)}
        self._item = {picture.settled.active_pods[key].uid: number for number, key in enumerate(keys)}
        self._pod_of = {key: picture.settled.active_pods[key] for key in keys}
        self._nodes = nodes
        self._goals = {(violation.kind, violation.rule) for violation in picture.broken}
        self._domains: dict[str, tuple[Ints, int]] = {}
        self._counted: dict[object, Bools] = {}

    def exclusions(self) -> tuple[Exclusion, ...]:
        """Anti-affinity."""
        found = []
        for rule in self._rules:
            if not isinstance(rule, rule_book.Apart):
                continue
            holders = [*self._held(rule.holders), *rule.fixed]
            matched = list(self._state.counts.members(rule.group))
            held, selected = self._items(holders), self._items(matched)
            if not (held or selected):
                continue
            domain, _ = self._domain(rule.topology_key)
            found.append(
                Exclusion(
                    domain=domain,
                    holders=_array(held),
                    matched=_array(selected),
                    fixed=self._numbers(holders, matched, domain),
                    goal=(POD_ANTI_AFFINITY, rule.text) in self._goals,
                )
            )
        return tuple(found)

    def attractions(self) -> tuple[Attraction, ...]:
        """Affinity."""
        found = []
        for rule in self._rules:
            if not isinstance(rule, rule_book.Beside):
                continue
            matched = list(self._state.counts.members(rule.group))
            held, selected = self._items(self._held(rule.holders)), self._items(matched)
            if not (held or selected):
                continue
            domain, size = self._domain(rule.topology_key)
            found.append(
                Attraction(
                    domain=domain,
                    holders=_array(held),
                    matched=_array(selected),
                    fixed_matched=self._fixed(matched, domain, size),
                    fixed_holders=self._fixed(self._held(rule.holders), domain, size),
                    goal=(POD_AFFINITY, rule.text) in self._goals,
                )
            )
        return tuple(found)

    def spreads(self) -> tuple[Spread, ...]:
        """Topology spread: one rule for holders that count the same nodes."""
        found = []
        for rule in self._rules:
            if not isinstance(rule, rule_book.Spread):
                continue
            matched = list(self._state.counts.members(rule.group))
            selected = self._items(matched)
            domain, size = self._domain(rule.topology_key)
            for holders, counted, min_domains in self._alike(rule):
                held = self._items(self._held(holders))
                if not (held or selected):
                    continue
                found.append(
                    Spread(
                        domain=domain,
                        counted=counted,
                        holders=_array(held),
                        matched=_array(selected),
                        fixed_matched=self._fixed(matched, np.where(counted, domain, NOWHERE), size),
                        fixed_holders=self._fixed(self._held(holders), domain, size),
                        max_skew=rule.max_skew,
                        min_domains=min_domains,
                        goal=(TOPOLOGY_SPREAD, rule.text) in self._goals,
                    )
                )
        return tuple(found)

    def _alike(self, rule: rule_book.Spread) -> list[Alike]:
        """(holders, counted[N], min_domains) of a rule's holders, grouped by the nodes that count for them."""
        groups: dict[object, Alike] = {}
        for key in rule.holders:
            target = rule.targets[key]
            hard = [c for c in target.spec.spread if c.when_unsatisfiable == "DoNotSchedule"]
            keys = tuple(constraint.topology_key for constraint in hard)
            for constraint in hard:
                if constraint.topology_key != rule.topology_key or constraint.max_skew != rule.max_skew:
                    continue
                question, (values, _) = eligible_values(self._state.table, target, constraint, keys)
                if question not in self._counted:
                    self._counted[question] = np.array([value is not None for value in values], dtype=bool)
                counted = self._counted[question]
                group = groups.setdefault((question, constraint.min_domains), ([], counted, constraint.min_domains))
                if key not in group[0][-1:]:
                    group[0].append(key)
        return list(groups.values())

    def _held(self, keys: Collection[str]) -> list[Pod]:
        active = self._state.active_pods
        return [active[key] for key in keys if key in active]

    def _items(self, pods: Collection[Pod]) -> list[int]:
        return sorted({self._item[pod.uid] for pod in pods if pod.uid in self._item})

    def _numbers(self, holders: Collection[Pod], matched: Collection[Pod], domain: Ints) -> Numbers:
        """Those pods that are no items, by domain."""
        numbers = Numbers({}, {}, {})
        held, selected = {pod.uid for pod in holders}, {pod.uid for pod in matched}
        for uid, pod in {pod.uid: pod for pod in (*holders, *matched)}.items():
            if uid not in self._item:
                numbers.add(int(domain[self._position[pod.node]]), uid in held, uid in selected, 1)
        return numbers

    def _fixed(self, pods: Collection[Pod], domain: Ints, size: int) -> Ints:
        """counts[D] of those pods that are no items."""
        at = [domain[self._position[pod.node]] for pod in pods if pod.uid not in self._item]
        return np.bincount([number for number in at if number != NOWHERE], minlength=size).astype(np.int64)

    def _domain(self, key: str) -> tuple[Ints, int]:
        """domain[N] of a topology key, and how many there are."""
        if key not in self._domains:
            numbers: dict[str, int] = {}
            codes = [
                NOWHERE if value is None else numbers.setdefault(value, len(numbers))
                for value in self._state.table.values(key)
            ]
            self._domains[key] = (np.array(codes, dtype=np.int64), max(len(numbers), 1))
        return self._domains[key]


def _array(items: list[int]) -> Ints:
    return np.array(items, dtype=np.int64)
