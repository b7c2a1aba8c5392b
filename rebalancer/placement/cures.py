"""What is wrong at the start, node by node: how much must be shed, who must go, and which groups must thin out.

The cheapest cures of the nodes, added up, are a lower bound on the cost of every plan that cures as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.groups import Bools, Exclusion, Ints
from rebalancer.placement.index import Index
from rebalancer.placement.objective import overload
from rebalancer.placement.problem import Problem
from rebalancer.placement.shed import Candidate, Sheds, sheds
from rebalancer.placement.thinning import Thinning, thinnings


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure:
    """One node's cures: `forced` items leave in all of them; `sheds` are the ways to choose the others.

    `thinnings` are the groups of which so many leave in all of them.
    """

    node: int
    forced: tuple[int, ...]
    forced_cost: int
    sheds: Sheds
    thinnings: tuple[Thinning, ...] = ()

    @property
    def bound(self) -> int:
        """The least that this node costs in any plan that cures it."""
        return self.forced_cost + self.sheds.bound

    def option(self, number: int) -> tuple[int, ...]:
        """The items of the cure with this number, forced ones included; without options the forced ones alone."""
        options = self.sheds.options
        return self.forced + (options[number][1] if number < len(options) else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Surcharge:
    """What a rule over wider domains adds at least to the moves and the cost of the nodes' cures."""

    moves: int
    cost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """`floors` are violations and overload above high and low that no plan can undercut.

    `moves` and `cost` bound every plan that comes down to the floors. `wide` are the items of each broken rule that no
    node cures by itself.
    """

    cures: tuple[Cure, ...]
    floors: tuple[int, int, int]
    moves: int
    cost: int
    wide: tuple[tuple[int, ...], ...] = ()


def diagnose(index: Index, keep: int = 8) -> Diagnosis:
    """The cures of every node that is hot, or holds items that break a rule by themselves or among each other."""
    clinic = _Clinic(index, keep)
    cures = {node: clinic.cure(node) for node in clinic.sick()}
    surcharges = clinic.surcharges(cures)
    return Diagnosis(
        cures=tuple(cures.values()),
        floors=_floors(clinic.start, clinic.mobile),
        moves=sum(len(cure.forced) + cure.sheds.fewest for cure in cures.values())
        + sum(surcharge.moves for surcharge in surcharges),
        cost=sum(cure.bound for cure in cures.values()) + sum(surcharge.cost for surcharge in surcharges),
        wide=tuple(clinic.wide),
    )


def relaxed_cost(index: Index, violations: int, permille: int) -> int:
    """A bound on the cost of every plan that misses the floors by so many violations and so much overload.

    Whichever node and rule they fall on: every node may be left that much fuller, and each violation that is left
    saves at most the dearest move. Rules over wider domains are left out.
    """
    clinic = _Clinic(index, 1, spared=permille)
    dearest = int(index.problem.cost[index.problem.movable].max(initial=0))
    return max(0, sum(clinic.cure(node).bound for node in clinic.sick()) - violations * dearest)


def _floors(start: Assignment, mobile: list[bool]) -> tuple[int, int, int]:
    """What is left if everyone who can leave a hot node does, and only those who must stay still break rules.

    Nodes above high that are not to be cured are left as they are.
    """
    problem = start.problem
    stays: Bools = np.logical_not(np.array(mobile, dtype=bool))
    least = start.load.copy()
    on_hot: Bools = np.asarray(problem.hot.any(axis=1))[problem.home]
    leaving = np.flatnonzero(~stays & on_hot)
    np.subtract.at(least, problem.home[leaving], problem.resting[leaving])
    over_high, over_low = overload(problem, least)
    violations = int(problem.misplaced[stays].sum())
    for number in start.index.sick_exclusions:
        violations += _stuck_together(problem.exclusions[number], problem, stays)
    return violations, over_high, over_low


def _stuck_together(rule: Exclusion, problem: Problem, stays: Bools) -> int:
    """The conflicts of an anti-affinity among items that must stay and what is no item."""
    left = replace(rule, holders=rule.holders[stays[rule.holders]], matched=rule.matched[stays[rule.matched]])
    degrees = left.degrees(problem.home, left.counts(problem.home))
    return sum(degree for item, degree in degrees if problem.judged[item])


def mobile_items(problem: Problem) -> Bools:
    """[I]: movable, and some other node that its class allows could hold it if that node were empty of items."""
    spare = np.minimum(problem.capacity, problem.ceiling) - problem.base
    order = np.lexsort((np.arange(problem.nodes), -spare[:, 0]))
    result = np.zeros(problem.items, dtype=bool)
    for row in np.unique(problem.klass[problem.movable]).tolist():
        items = np.flatnonzero(problem.movable & (problem.klass == row))
        # Nearly all fit one of the two emptiest; whoever does not is tried on all nodes.
        nodes = order[problem.allowed[row, order]]
        for node in nodes[:2].tolist():
            fitting = _holds(spare[node], problem.demand[items]) & (problem.home[items] != node)
            result[items[fitting]] = True
        for item in items[~result[items]].tolist():
            result[item] = (_holds(spare[nodes], problem.demand[item]) & (nodes != problem.home[item])).any()
    return result


def _holds(spare: Ints, demand: Ints) -> Bools:
    """Whether there is as much to spare as is asked for, of whatever is asked for."""
    enough: Bools = np.asarray(((spare >= demand) | (demand <= 0)).all(axis=-1))
    return enough


def _excess(start: Assignment, node: int) -> Ints:
    """[C] how much must leave a hot node to bring it to low; nothing of what is not hot."""
    problem = start.problem
    over = start.load[node, : problem.counted] - problem.low[node]
    excess: Ints = np.where(problem.hot[node], np.maximum(over, 0), 0)
    return excess


class _Clinic:
    """What is known of all nodes before any is cured; `spared` permille of overload need not be cured on any."""

    def __init__(self, index: Index, keep: int, spared: int = 0) -> None:
        self.index, self.problem, self.keep = index, index.problem, keep
        self.spared = index.problem.scale * spared // 1000
        self.start = Assignment(index)
        self.mobile: list[bool] = mobile_items(self.problem).tolist()
        self.forced = {item for item in np.flatnonzero(self.problem.misplaced > 0).tolist() if self.mobile[item]}
        self.groups: dict[int, list[Thinning]] = {}
        self.wide: list[tuple[int, ...]] = []
        for number in index.sick_exclusions:
            rule = self.problem.exclusions[number]
            found = thinnings(rule, self.problem, self.mobile)
            for node, thinning in found:
                self.groups.setdefault(node, []).append(thinning)
            if not found and self._curable(rule):
                self.wide.append(tuple(item for item, _, _ in rule.members))
        for number in index.sick_attractions:
            attraction = self.problem.attractions[number]
            self.wide.append((*attraction.holders.tolist(), *attraction.matched.tolist()))
        for number in index.sick_spreads:
            spread = self.problem.spreads[number]
            self.wide.append((*spread.holders.tolist(), *spread.matched.tolist()))

    def _curable(self, rule: Exclusion) -> bool:
        """Whether there are conflicts that are not only between those who must stay."""
        problem = self.problem
        degrees = rule.degrees(problem.home, rule.counts(problem.home))
        broken = sum(degree for item, degree in degrees if problem.judged[item])
        stays: Bools = np.logical_not(np.array(self.mobile, dtype=bool))
        return broken > _stuck_together(rule, problem, stays)

    def sick(self) -> list[int]:
        problem = self.problem
        hot = np.flatnonzero(problem.hot.any(axis=1)).tolist()
        return sorted({*hot, *self.groups, *(int(problem.home[item]) for item in self.forced)})

    def surcharges(self, cures: dict[int, Cure]) -> list[Surcharge]:
        """What rules over wider domains cost at least on top: one of their items moves that no node's cure asks for.

        An item at home on a sick node may be part of its cure: then it costs as much as the cure gets dearer by it.
        Rules that share items or sick nodes could be cured by one move and are counted once.
        """
        found: list[Surcharge] = []
        seen: set[int] = set()
        seen_nodes: set[int] = set()
        for members in self.wide:
            movable = sorted({item for item in members if self.mobile[item]})
            nodes = {int(self.problem.home[item]) for item in movable} & cures.keys()
            if not movable or seen & set(movable) or seen_nodes & nodes:
                continue
            seen |= set(movable)
            seen_nodes |= nodes
            cost = min(self._extra(item, cures) for item in movable)
            found.append(Surcharge(moves=int(not nodes), cost=cost))
        return found

    def _extra(self, item: int, cures: dict[int, Cure]) -> int:
        cure = cures.get(int(self.problem.home[item]))
        if cure is None:
            return int(self.problem.cost[item])
        return 0 if item in cure.forced else max(0, self.cure(cure.node, also=item).bound - cure.bound)

    def cure(self, node: int, also: int = -1) -> Cure:
        """The cheapest cures of one node, as far as it can be cured; the item `also` leaves in all of them."""
        problem = self.problem
        items = [item for item in self.index.at_home(node) if self.mobile[item]]
        leaving = tuple(item for item in items if item in self.forced or item == also)
        free = [item for item in items if item not in leaving]
        groups = self.groups.get(node, [])
        need = _excess(self.start, node) - problem.resting[list(leaving), : problem.counted].sum(axis=0)
        most = problem.resting[free, : problem.counted].sum(axis=0)
        # What is spared is spared of what can be cured at all: that is what floors count, and are missed by.
        wanted = np.minimum(need, most) - self.spared[node]
        short = [int(r) for r in np.flatnonzero(wanted > 0)]
        quotas = [group.quota - len(set(group.members) & set(leaving)) for group in groups]
        candidates = [
            Candidate(
                item=item,
                weight=tuple(int(problem.resting[item, r]) for r in short),
                cost=int(problem.cost[item]),
                cliques=tuple(number for number, group in enumerate(groups) if item in group.members),
            )
            for item in free
        ]
        amounts = [int(wanted[r]) for r in short]
        found = sheds(candidates, amounts, quotas, keep=self.keep)
        if not all(group.certain for group in groups):
            sure = sheds(candidates, amounts, [q * g.certain for q, g in zip(quotas, groups, strict=True)], keep=1)
            found = replace(found, bound=sure.bound, fewest=sure.fewest)
        return Cure(
            node=node,
            forced=leaving,
            forced_cost=int(problem.cost[list(leaving)].sum()),
            sheds=found,
            thinnings=tuple(group for group in groups if group.certain),
        )
