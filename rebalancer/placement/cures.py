"""What is wrong at the start, node by node: how much must be shed, who must go, and which groups must thin out.

The cheapest cures of the nodes, added up, are a lower bound on the cost of every plan that cures as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.groups import NOWHERE, Bools, Exclusion, Ints
from rebalancer.placement.index import Index
from rebalancer.placement.objective import overload
from rebalancer.placement.problem import Problem
from rebalancer.placement.shed import Candidate, Sheds, sheds


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure:
    """One node's cures: `forced` items leave in all of them; `sheds` are the ways to choose the others."""

    node: int
    forced: tuple[int, ...]
    sheds: Sheds

    def option(self, number: int) -> tuple[int, ...]:
        """The items of the cure with this number, forced ones included; without options the forced ones alone."""
        options = self.sheds.options
        return self.forced + (options[number][1] if number < len(options) else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """`floors` are violations and overload above high and low that no plan can undercut.

    `moves` and `cost` bound every plan that comes down to the floors.
    """

    cures: tuple[Cure, ...]
    floors: tuple[int, int, int]
    moves: int
    cost: int


def diagnose(index: Index, keep: int = 8) -> Diagnosis:
    """The cures of every node that is hot, or holds items that break a rule by themselves or among each other."""
    problem = index.problem
    mobile = mobile_items(problem)
    forced = {item for item in np.flatnonzero(problem.misplaced > 0).tolist() if mobile[item]}
    quotas: dict[int, list[Thinning]] = {}
    for number in index.sick_exclusions:
        for node, thinning in _thinnings(problem.exclusions[number], problem, mobile):
            quotas.setdefault(node, []).append(thinning)
    sick = {*np.flatnonzero(problem.hot.any(axis=1)).tolist(), *quotas, *(int(problem.home[item]) for item in forced)}
    start = Assignment(index)
    leavers = [(mobile[item], item in forced) for item in range(problem.items)]
    cures = tuple(_cure(start, node, quotas.get(node, []), leavers, keep) for node in sorted(sick))
    return Diagnosis(
        cures=cures,
        floors=_floors(start, mobile),
        moves=sum(len(cure.forced) + cure.sheds.fewest for cure in cures),
        cost=sum(int(problem.cost[list(cure.forced)].sum()) + cure.sheds.bound for cure in cures),
    )


def _floors(start: Assignment, mobile: list[bool]) -> tuple[int, int, int]:
    """What is left if everyone who can leave a hot node does, and only those who must stay still break rules.

    Nodes above high that are not to be cured are left as they are.
    """
    problem = start.problem
    stays: Bools = np.logical_not(np.array(mobile, dtype=bool))
    least = start.load.copy()
    on_hot: Bools = np.asarray(problem.hot.any(axis=1))[problem.home]
    leaving = np.flatnonzero(~stays & on_hot)
    np.subtract.at(least, problem.home[leaving], problem.demand[leaving])
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


def mobile_items(problem: Problem) -> list[bool]:
    """[I]: movable, and some other node that its class allows could hold it if that node were empty of items."""
    roomy: dict[tuple[int, tuple[int, ...]], int] = {}
    result: list[bool] = []
    spare = np.minimum(problem.capacity, problem.ceiling) - problem.base
    for item in range(problem.items):
        if not problem.movable[item]:
            result.append(False)
            continue
        row, weight = int(problem.klass[item]), tuple(problem.demand[item].tolist())
        key = (row, weight)
        if key not in roomy:
            wanted = problem.demand[item] > 0
            fits = (spare[:, wanted] >= problem.demand[item][wanted]).all(axis=1)
            nodes = np.flatnonzero(fits & problem.allowed[row])
            roomy[key] = -1 if len(nodes) == 0 else int(nodes[0]) if len(nodes) == 1 else problem.nodes
        only = roomy[key]
        result.append(only not in (-1, int(problem.home[item])))
    return result


class Thinning(NamedTuple):
    """So many of these items must leave a node; `certain` where that is so in every cure, not only in the cheapest."""

    members: tuple[int, ...]
    quota: int
    certain: bool


def _thinnings(rule: Exclusion, problem: Problem, mobile: list[bool]) -> list[tuple[int, Thinning]]:
    """By node, for domains of one node; wider ones are cured item by item."""
    by_node: dict[int, list[tuple[int, bool, bool]]] = {}
    for item, holds, is_matched in rule.members:
        by_node.setdefault(int(problem.home[item]), []).append((item, holds, is_matched))
    width = np.bincount(rule.domain[rule.domain != NOWHERE], minlength=1)
    result: list[tuple[int, Thinning]] = []
    for node, members in by_node.items():
        domain = int(rule.domain[node])
        if domain == NOWHERE or width[domain] != 1:
            continue
        outsiders = (rule.fixed.holders.get(domain, 0), rule.fixed.matched.get(domain, 0))
        if all(holds and is_matched for _, holds, is_matched in members) and outsiders[0] == outsiders[1]:
            leaving = tuple(item for item, _, _ in members if mobile[item])
            alone = len(leaving) == len(members) and not any(outsiders)
            if len(leaving) - alone > 0:
                result.append((node, Thinning(leaving, len(leaving) - alone, True)))
            continue
        side = _cheapest_side(members, outsiders, problem, mobile)
        if side:
            result.append((node, Thinning(side, len(side), False)))
    return result


def _cheapest_side(
    members: list[tuple[int, bool, bool]], outsiders: tuple[int, int], problem: Problem, mobile: list[bool]
) -> tuple[int, ...]:
    """The cheapest set whose leaving ends the conflicts: all holders, all matched, or all but one that is both."""
    holders = {item for item, holds, _ in members if holds}
    matched = {item for item, _, is_matched in members if is_matched}
    choices = [holders] if not outsiders[0] else []
    choices += [matched] if not outsiders[1] else []
    choices += [(holders | matched) - {item} for item in holders & matched] if not any(outsiders) else []
    sides = (tuple(sorted(side)) for side in choices if all(mobile[item] for item in side))
    return min(sides, key=lambda side: (int(problem.cost[list(side)].sum()), side), default=())


def _cure(
    start: Assignment,
    node: int,
    groups: list[Thinning],
    leavers: list[tuple[bool, bool]],
    keep: int,
) -> Cure:
    """The cheapest cures of one node, as far as it can be cured; `leavers[I]` are (can leave, must leave)."""
    problem, index = start.problem, start.index
    leaving = tuple(item for item in index.at_home(node) if leavers[item] == (True, True))
    free = [item for item in index.at_home(node) if leavers[item] == (True, False)]
    need = _excess(start, node) - problem.demand[list(leaving), : problem.counted].sum(axis=0)
    most = problem.demand[free, : problem.counted].sum(axis=0) if free else np.zeros(problem.counted, dtype=np.int64)
    short = [int(r) for r in np.flatnonzero(np.minimum(need, most) > 0)]
    quotas = [group.quota - len(set(group.members) & set(leaving)) for group in groups]
    member_of: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        for item in group.members:
            member_of.setdefault(item, []).append(number)
    candidates = [
        Candidate(
            item=item,
            weight=tuple(int(problem.demand[item, r]) for r in short),
            cost=int(problem.cost[item]),
            cliques=tuple(member_of.get(item, ())),
        )
        for item in free
    ]
    amounts = [int(min(need[r], most[r])) for r in short]
    found = sheds(candidates, amounts, quotas, keep=keep)
    if not all(group.certain for group in groups):
        sure = sheds(candidates, amounts, [q * g.certain for q, g in zip(quotas, groups, strict=True)], keep=1)
        found = replace(found, bound=sure.bound, fewest=sure.fewest)
    return Cure(node=node, forced=leaving, sheds=found)


def _excess(start: Assignment, node: int) -> Ints:
    """[C] how much must leave a hot node to bring it to low; nothing of what is not hot."""
    problem = start.problem
    over = start.load[node, : problem.counted] - problem.low[node]
    excess: Ints = np.where(problem.hot[node], np.maximum(over, 0), 0)
    return excess
