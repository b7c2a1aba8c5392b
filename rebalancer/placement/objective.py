"""The stages of the objective, in order, as plain sums over a placement: what the solver's values must equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.groups import Bools, Ints
from rebalancer.placement.problem import Problem

STAGES = ("violations", "over_high", "over_low", "cost", "preferred", "evenness")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Values:
    """Lexicographic, smaller is better; compared field by field in this order."""

    violations: int
    over_high: int
    over_low: int
    cost: int
    preferred: int
    evenness: int


def values(state: Assignment) -> Values:
    """All stages of a placement."""
    problem = state.problem
    over_high, over_low = overload(problem, state.load)
    moved = sorted(state.moved)
    return Values(
        violations=sum(conflicts(state).values()),
        over_high=over_high,
        over_low=over_low,
        cost=int(problem.cost[moved].sum()),
        preferred=preferred(state),
        evenness=evenness(problem, state.load),
    )


def overload(problem: Problem, load: Ints) -> tuple[int, int]:
    """Permille of the scale above high on any node, and above low on hot ones, each rounded up by node and resource."""
    counted = load[:, : problem.counted]
    scale = np.maximum(problem.scale, 1)
    high = -(-1000 * np.maximum(counted - problem.high, 0) // scale)
    low = -(-1000 * np.maximum(counted - problem.low, 0) // scale)
    return int(high[problem.scale > 0].sum()), int(low[problem.hot].sum())


def preferred(state: Assignment) -> int:
    """What moved items lose in preference by their moves."""
    problem = state.problem
    moved = sorted(state.moved)
    rows = problem.taste[moved]
    return int((problem.preference[rows, problem.home[moved]] - problem.preference[rows, state.at[moved]]).sum())


def least_tastes(problem: Problem) -> dict[str, int]:
    """Bounds on the last two stages, the tie-breaks: everyone at its favourite node, and load spread like water.

    The sum of squares of q - 1 (rounding down costs less than one percent a node) is least for q in proportion to the
    scale, by Cauchy and Schwarz.
    """
    best = problem.preference.max(axis=1)[problem.taste]
    here = problem.preference[problem.taste, problem.home]
    even = 0
    for resource in range(problem.counted):
        scale = [int(amount) for amount in problem.scale[:, resource]]
        known = [number for number, amount in enumerate(scale) if amount > 0]
        total = 100 * sum(int(problem.start[number, resource]) for number in known)
        squares = sum(scale[number] ** 2 for number in known)
        if squares:
            even += max(0, total - sum(scale)) ** 2 // squares
    return {"preferred": -int((best - here)[problem.movable].clip(min=0).sum()), "evenness": even}


def evenness(problem: Problem, load: Ints) -> int:
    """Sum over nodes and counted resources of the squared load in percent of the scale."""
    known = problem.scale > 0
    percent = 100 * load[:, : problem.counted] // np.maximum(problem.scale, 1)
    return int((percent[known] ** 2).sum())


def conflicts(state: Assignment) -> dict[int, int]:
    """Weight of the broken rules that are to be cured, by the item that breaks them; contents are never 0."""
    found: dict[int, int] = {}
    problem, index = state.problem, state.index
    for item in index.misplaced:
        if state.at[item] == problem.home[item]:
            found[item] = int(problem.misplaced[item])
    for number in index.sick_exclusions:
        for item, degree in problem.exclusions[number].degrees(state.at, state.excluded[number]):
            if problem.judged[item]:
                found[item] = found.get(item, 0) + degree
    for number in index.sick_attractions:
        attraction = problem.attractions[number]
        _add(found, problem.judged, attraction.holders, attraction.degrees(state.at, state.attracted[number]))
    for number in index.sick_spreads:
        spread = problem.spreads[number]
        _add(found, problem.judged, spread.holders, spread.degrees(state.at, state.spread[number]))
    return found


def conflicts_around(state: Assignment, item: int) -> int:
    """The part of `conflicts` that a move of one item can change: that of the rules it has a part in."""
    problem, index = state.problem, state.index
    total = int(problem.misplaced[item]) if state.at[item] == problem.home[item] else 0
    for role in index.exclusion_roles.get(item, ()):
        if role.rule in index.sick_exclusions:
            degrees = problem.exclusions[role.rule].degrees(state.at, state.excluded[role.rule])
            total += sum(degree for member, degree in degrees if problem.judged[member])
    for role in index.attraction_roles.get(item, ()):
        if role.rule in index.sick_attractions:
            attraction = problem.attractions[role.rule]
            lonely = attraction.degrees(state.at, state.attracted[role.rule])
            total += int((lonely * problem.judged[attraction.holders]).sum())
    for role in index.spread_roles.get(item, ()):
        if role.rule in index.sick_spreads:
            spread = problem.spreads[role.rule]
            skewed = spread.degrees(state.at, state.spread[role.rule])
            total += int((skewed * problem.judged[spread.holders]).sum())
    return total


def _add(found: dict[int, int], judged: Bools, items: Ints, degrees: Ints) -> None:
    for at in np.flatnonzero(degrees * judged[items]).tolist():
        item = int(items[at])
        found[item] = found.get(item, 0) + int(degrees[at])
