"""A placement under construction: where every item is, what that leaves on nodes and domains, and where it may go.

A moved item always lands where kube-scheduler would take it: without conflict, next to a mate, within the skew, its
source still counted. So a conflict can only remain between items that both stay, and "not worse" needs no pairs.
"""

from __future__ import annotations

import numpy as np

from rebalancer.placement.groups import NOWHERE, Attraction, Bools, Ints
from rebalancer.placement.index import Index, Role


class Assignment:
    """Mutable. `at[I]` is where each item is; `load[N, R]` and the counters by domain follow every move.

    `reference[I]` is the placement than which no skew may become worse.
    """

    def __init__(self, index: Index, at: Ints | None = None) -> None:
        problem = index.problem
        self.index, self.problem = index, problem
        self.at = problem.home.copy() if at is None else at.copy()
        self.reference = problem.home
        self.load = problem.load(self.at)
        self.excluded = [rule.counts(self.at) for rule in problem.exclusions]
        self.attracted = [rule.counts(self.at) for rule in problem.attractions]
        self.spread = [rule.counts(self.at) for rule in problem.spreads]
        self.moved: set[int] = set(np.flatnonzero(self.at != problem.home).tolist())

    def move(self, item: int, node: int) -> None:
        """Put an item on a node; whether that is allowed is the caller's question."""
        problem, origin = self.problem, int(self.at[item])
        if origin == node:
            return
        self.load[origin] -= problem.taken(item, origin)
        self.load[node] += problem.taken(item, node)
        for role in self.index.exclusion_roles.get(item, ()):
            domain = problem.exclusions[role.rule].domain
            numbers = self.excluded[role.rule]
            numbers.add(int(domain[origin]), role.holds, role.matched, -1)
            numbers.add(int(domain[node]), role.holds, role.matched, 1)
        for role in self.index.attraction_roles.get(item, ()):
            if role.matched:
                _shift(self.attracted[role.rule], problem.attractions[role.rule].domain, origin, node)
        for role in self.index.spread_roles.get(item, ()):
            if role.matched:
                _shift(self.spread[role.rule], problem.spreads[role.rule].counting, origin, node)
        self.at[item] = node
        if node == problem.home[item]:
            self.moved.discard(item)
        else:
            self.moved.add(item)

    def receivers(self, item: int) -> Bools:
        """mask[N] of the nodes that would take the item now, its present one and its home left out."""
        mask = self.receivers_by_rule(item)
        return mask & self.fits(item)

    def fits(self, item: int) -> Bools:
        """mask[N] of the nodes with room for the item; its own present node counts it as gone."""
        needed = self.load + self.problem.demand[item]
        needed[self.at[item]] -= self.problem.taken(item, int(self.at[item]))
        wanted = self.problem.demand[item] > 0
        room: Bools = (needed[:, wanted] <= self.problem.ceiling[:, wanted]).all(axis=1)
        return room

    def receivers_by_rule(self, item: int) -> Bools:
        """mask[N] of the nodes that class and rules allow, whatever their load."""
        problem = self.problem
        mask: Bools = problem.allowed[problem.klass[item]].copy()
        mask[self.at[item]] = False
        mask[problem.home[item]] = False
        for role in self.index.exclusion_roles.get(item, ()):
            mask &= self._unexcluded(item, role)
        for role in self.index.attraction_roles.get(item, ()):
            mask &= self._attracted(item, role)
        for role in self.index.spread_roles.get(item, ()):
            mask &= self._evenly(item, role)
        return mask

    def _unexcluded(self, item: int, role: Role) -> Bools:
        rule = self.problem.exclusions[role.rule]
        here = int(rule.domain[self.at[item]])
        home = int(rule.domain[self.problem.home[item]])
        numbers = self.excluded[role.rule]
        blocked = np.zeros(int(rule.domain.max(initial=0)) + 2, dtype=bool)
        if role.holds:
            foes = numbers.matched
            blocked[[d for d, count in foes.items() if count > (role.matched and d == here)]] = True
        if role.matched:
            foes = numbers.holders
            blocked[[d for d, count in foes.items() if count > (role.holds and d == here)]] = True
        if role.holds and role.matched and home != NOWHERE:
            blocked[home] = True  # the source is still there while the target is placed
        free: Bools = ~blocked[rule.domain]  # NOWHERE (-1) reads the last entry, which never blocks
        return free

    def _attracted(self, item: int, role: Role) -> Bools:
        problem = self.problem
        rule = problem.attractions[role.rule]
        counts = self.attracted[role.rule]
        here, home = int(rule.domain[self.at[item]]), int(rule.domain[problem.home[item]])
        mask: Bools = np.ones(problem.nodes, dtype=bool)
        if role.holds:
            mated = np.zeros(len(counts) + 1, dtype=bool)
            mated[:-1] = counts - _one(len(counts), here, role.matched) > 0
            if role.matched and home != NOWHERE:
                mated[home] = True
            mask = mated[rule.domain]
        if role.matched and here != NOWHERE and self._leaves_someone(item, rule, counts, here):
            mask = mask & (rule.domain == here)
        return mask

    def _leaves_someone(self, item: int, rule: Attraction, counts: Ints, here: int) -> bool:
        """Whether a holder that has a mate in domain `here` would have none once the item is gone."""
        if rule.fixed_holders[here] and counts[here] == 2:  # the item, and one who may be the only mate of another
            return True
        matched = set(rule.matched.tolist())
        for holder in rule.holders.tolist():
            if holder != item and rule.domain[self.at[holder]] == here:
                mates = int(counts[here]) - (holder in matched)
                if mates == 1:
                    return True
        return False

    def _evenly(self, item: int, role: Role) -> Bools:
        """Skew with the source still counted where it is holder; nobody's settled skew above what it first was."""
        problem = self.problem
        rule = problem.spreads[role.rule]
        counts = self.spread[role.rule]
        here, home = int(rule.counting[self.at[item]]), int(rule.counting[problem.home[item]])
        settled = counts - _one(len(counts), here, role.matched)
        tolerated, own = self._tolerated(item, role)
        worst = int((settled - tolerated).max(initial=-(2**40)))
        fewest = rule.minimum(settled)
        after = rule.minimum_with_one_more(settled) if role.matched else np.full(len(counts), fewest)
        joins = worst <= after + rule.max_skew
        if role.matched:
            joins &= settled + 1 - tolerated <= after + rule.max_skew
        # Where the item is not counted it only leaves; the node's domain may even be one that counts.
        leaves = np.full(len(counts), worst <= fewest + rule.max_skew)
        if role.holds:
            landing = settled + _one(len(counts), home, role.matched)
            lands = landing + int(role.matched) - rule.minimum(landing) <= rule.max_skew
            joins &= lands & (settled + int(role.matched) - after <= rule.max_skew + own)
            leaves &= lands & (settled + int(role.matched) - fewest <= rule.max_skew + own)
        outside = not role.holds and worst <= fewest + rule.max_skew
        mask: Bools = np.where(
            rule.counted, np.append(joins, outside)[rule.domain], np.append(leaves, outside)[rule.domain]
        )
        return mask

    def _tolerated(self, item: int, role: Role) -> tuple[Ints, int]:
        """excess[D] that the other holders in each domain had at first (the least of them), and the item's own."""
        rule = self.problem.spreads[role.rule]
        first = rule.degrees(self.reference, rule.counts(self.reference))
        excess = rule.excess(rule.counts(self.reference))
        tolerated = np.where(rule.fixed_holders > 0, excess, np.iinfo(np.int64).max // 4)
        domains = rule.domain[self.at[rule.holders]]
        others = (rule.holders != item) & (domains != NOWHERE)
        # Who is not counted where it is, adds itself to the count that it is judged by.
        uncounted = rule.own & ~rule.counted[self.at[rule.holders]]
        np.minimum.at(tolerated, domains[others], (first - uncounted)[others])
        return tolerated, int(first[rule.holders == item].sum())


def _one(length: int, position: int, present: bool) -> Ints:
    one = np.zeros(length, dtype=np.int64)
    if present and position != NOWHERE:
        one[position] = 1
    return one


def _shift(counts: Ints, domain: Ints, origin: int, node: int) -> None:
    if domain[origin] != NOWHERE:
        counts[domain[origin]] -= 1
    if domain[node] != NOWHERE:
        counts[domain[node]] += 1
