"""Large neighbourhood search: where a plan pays more than the bound, a few nodes are solved anew as one small model.

Debts tell where: items that moved from nodes whose own cures would not have moved them, and hot nodes that are still
too full. A neighbourhood is such a node, what has moved to or from it, and some receivers, emptiest and random ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.cures import Diagnosis
from rebalancer.placement.model import STAGES, Model
from rebalancer.placement.objective import Values, conflicts, values
from rebalancer.placement.stop import Stop

RECEIVERS = 8
"""Receivers per flavour of a neighbourhood: more add choices that are all alike."""
BOOLEANS = 2_500
"""The largest model of one neighbourhood; a few tenths of a second."""
WORK = 0.6
"""Counted work per neighbourhood."""
FRUITLESS = 3
"""Rounds over all debts without any gain after which the search gives up."""


def improve(  # noqa: PLR0913  # what to improve until when, and what that may take
    state: Assignment, diagnosis: Diagnosis, enough: int, *, stop: Stop, work: float, seed: int = 0
) -> Assignment:
    """The best placement found by repairing debts, one neighbourhood after another, until it costs `enough` or less.

    `work` is how much counted work it may spend.
    """
    until = stop.spent + work
    chance = random.Random(seed)
    best, reached = state, values(state)
    fruitless = 0
    while fruitless < FRUITLESS and stop.spent < until and not stop:
        gained = False
        debts = list(_debts(best, diagnosis))
        if not debts:
            break
        for node in debts:
            if stop.spent >= until or stop or (_cure(reached) <= diagnosis.floors and reached.cost <= enough):
                return best
            free = _neighbourhood(best, node, chance, wide=fruitless)
            if not free:
                continue
            result = Model(best, free).solve(_stages(reached, diagnosis), min(WORK, until - stop.spent), stop, seed)
            if result.at is None:
                continue
            plan = Assignment(best.index, result.at)
            found = values(plan)
            if found < reached:
                gained = gained or found.cost < reached.cost or _cure(found) < _cure(reached)
                best, reached = plan, found
        fruitless = 0 if gained else fruitless + 1
    return best


def _cure(found: Values) -> tuple[int, int, int]:
    return found.violations, found.over_high, found.over_low


def _stages(reached: Values, diagnosis: Diagnosis) -> tuple[str, ...]:
    """The stages that can still gain; those that are down to their floor need no search, but hold."""
    return STAGES if _cure(reached) > diagnosis.floors else ("violations", "over_high", "over_low", "cost")


def _debts(state: Assignment, diagnosis: Diagnosis) -> Iterator[int]:
    """Nodes by how much more their items cost than their cheapest cure would, hot ones that are not cured first."""
    problem = state.problem
    paid = np.zeros(problem.nodes, dtype=np.int64)
    moved = sorted(state.moved)
    np.add.at(paid, problem.home[moved], problem.cost[moved])
    for cure in diagnosis.cures:
        paid[cure.node] -= cure.bound
    above = problem.hot & (state.load[:, : problem.counted] > problem.low)
    over = set(np.flatnonzero(above.any(axis=1)).tolist())
    broken = {int(state.at[item]) for item in conflicts(state)}
    order = sorted(
        range(problem.nodes), key=lambda node: (not (node in over or node in broken), -int(paid[node]), node)
    )
    for node in order:
        if not (node in over or node in broken or paid[node] > 0):
            return
        yield node


def _neighbourhood(state: Assignment, node: int, chance: random.Random, wide: int) -> dict[int, list[int]]:
    """Free items with the nodes that each may choose."""
    problem, index = state.problem, state.index
    hub = [item for item in index.at_home(node) if problem.movable[item]]
    guests = [item for item in sorted(state.moved) if state.at[item] == node or problem.home[item] == node]
    partners = [item for item in sorted(index.partners([*hub, *guests]) - {*hub, *guests}) if problem.movable[item]]
    items = [*dict.fromkeys([*hub, *guests, *partners[:40]])]
    receivers = {node, *(int(state.at[item]) for item in items), *(int(problem.home[item]) for item in guests)}
    flavours = {(int(problem.klass[item]), tuple(problem.demand[item].tolist())): item for item in items}
    for item in flavours.values():
        able = np.flatnonzero(state.receivers_by_rule(item))
        fits = able[state.fits(item)[able]]
        room = (problem.ceiling - state.load)[:, 0]
        tightest = fits[np.lexsort((fits, room[fits]))][:RECEIVERS]
        emptiest = able[np.lexsort((able, -room[able]))][:RECEIVERS]
        drawn = chance.sample(able.tolist(), min(len(able), RECEIVERS * (1 + wide)))
        receivers.update(tightest.tolist(), emptiest.tolist(), drawn)
    chosen = sorted(receivers)
    others = [item for item in sorted(state.moved) if int(state.at[item]) in receivers]
    ejected = [
        item
        for other in (chance.sample(chosen, min(len(chosen), 2 + 2 * wide)))
        for item in index.at_home(other)
        if problem.movable[item]
    ]
    free: dict[int, list[int]] = {}
    size = 0
    for item in dict.fromkeys([*items, *others, *ejected]):
        if not problem.movable[item]:
            continue
        options = [n for n in chosen if problem.allowed[problem.klass[item], n]]
        size += len(options) + 2
        if size > BOOLEANS:
            break
        free[item] = options
    return free
