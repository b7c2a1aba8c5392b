"""What never changes while one problem is solved: who has a part in which rule, and what is broken at the start."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from rebalancer.placement.groups import Attraction, Exclusion, Ints, Spread
from rebalancer.placement.problem import Problem


class Role(NamedTuple):
    """An item's part in one rule: the rule's number among its kind, and whether it holds or is matched by it."""

    rule: int
    holds: bool
    matched: bool


class Index:
    """Look-ups into one Problem.

    `sick_exclusions`, `sick_attractions`, `sick_spreads` number the rules that are goals and broken at the start, and
    `misplaced` the items that break a rule by themselves: nothing else can ever be broken, so nothing else is counted.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        home = problem.home
        self.exclusion_roles = _roles(problem.exclusions)
        self.attraction_roles = _roles(problem.attractions)
        self.spread_roles = _roles(problem.spreads)
        self.sick_exclusions = _sick(problem.exclusions, home)
        self.sick_attractions = _sick(problem.attractions, home)
        self.sick_spreads = _sick(problem.spreads, home)
        self.misplaced = np.flatnonzero(problem.misplaced > 0).tolist()
        self._order = np.argsort(home, kind="stable")
        self._bounds = np.searchsorted(home[self._order], np.arange(problem.nodes + 1))

    def at_home(self, node: int) -> list[int]:
        """The items that start on a node, in their order."""
        found: list[int] = self._order[self._bounds[node] : self._bounds[node + 1]].tolist()
        return found

    def ruled(self, item: int) -> bool:
        """Whether any rule between items concerns the item."""
        return item in self.exclusion_roles or item in self.attraction_roles or item in self.spread_roles

    def fellows(self, item: int) -> set[int]:
        """The items that any rule sets in relation to this one, itself among them if there is a rule."""
        problem = self.problem
        found = {m for role in self.exclusion_roles.get(item, ()) for m, _, _ in problem.exclusions[role.rule].members}
        for rules, roles in ((problem.attractions, self.attraction_roles), (problem.spreads, self.spread_roles)):
            for role in roles.get(item, ()):
                found |= {*rules[role.rule].holders.tolist(), *rules[role.rule].matched.tolist()}
        return found

    def domains(self, item: int) -> list[Ints]:
        """domain[N] of each rule that concerns the item."""
        problem = self.problem
        return [
            *(problem.exclusions[role.rule].domain for role in self.exclusion_roles.get(item, ())),
            *(problem.attractions[role.rule].domain for role in self.attraction_roles.get(item, ())),
            *(problem.spreads[role.rule].domain for role in self.spread_roles.get(item, ())),
        ]

    def partners(self, items: Iterable[int]) -> set[int]:
        """These items and all that share one of the broken rules with them."""
        result = set(items)
        problem = self.problem
        sick: list[Exclusion | Attraction | Spread] = [
            *(problem.exclusions[number] for number in self.sick_exclusions),
            *(problem.attractions[number] for number in self.sick_attractions),
            *(problem.spreads[number] for number in self.sick_spreads),
        ]
        for rule in sick:
            holders = set(rule.holders.tolist())
            if not result.isdisjoint(holders):
                result |= holders | set(rule.matched.tolist())
        return result


def _roles(rules: Iterable[Exclusion | Attraction | Spread]) -> dict[int, list[Role]]:
    result: dict[int, list[Role]] = {}
    for number, rule in enumerate(rules):
        holders, matched = set(rule.holders.tolist()), set(rule.matched.tolist())
        for item in sorted(holders | matched):
            result.setdefault(item, []).append(Role(number, item in holders, item in matched))
    return result


def _sick(rules: Iterable[Exclusion | Attraction | Spread], home: Ints) -> dict[int, None]:
    """Numbers in order, for a quick look whether one is among them."""
    return dict.fromkeys(number for number, rule in enumerate(rules) if rule.goal and rule.broken(home))
