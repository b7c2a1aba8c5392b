"""The last stages, without moving anyone else: moved items go where it suits them better, or evens out the load."""

from __future__ import annotations

import numpy as np

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.groups import Bools, Ints
from rebalancer.placement.stop import Stop

ROUNDS = 3
"""Passes over the moved items; later ones hardly find anything."""


def polish(state: Assignment, stop: Stop) -> None:
    """Change targets of moved items, one at a time, as long as preference or else evenness gains by it.

    Who moves stays as it is, so violations, overload and cost do, too.
    """
    for _ in range(ROUNDS):
        if not sum(not stop.interrupted and _better_target(state, item) for item in sorted(state.moved)):
            return


def _better_target(state: Assignment, item: int) -> bool:
    problem = state.problem
    here = int(state.at[item])
    mask = state.receivers(item)
    mask &= ~problem.hot.any(axis=1)
    for kept in _settled(state, item):
        mask &= kept == kept[here]
    liking = problem.preference[problem.taste[item]]
    nodes = np.flatnonzero(mask & (liking >= liking[here]))
    if not len(nodes):
        return False
    demand = problem.demand[item, : problem.counted]
    gain = _squares(state, nodes, demand) - _squares(state, nodes, 0 * demand)
    leave = _squares(state, np.array([here]), 0 * demand) - _squares(state, np.array([here]), -demand)
    best = int(np.lexsort((nodes, gain, -liking[nodes]))[0])
    if liking[nodes[best]] == liking[here] and gain[best] >= leave[0]:
        return False
    state.move(item, int(nodes[best]))
    return True


def _settled(state: Assignment, item: int) -> list[Ints]:
    """[N] each, what the cure of a rule may hang on: the domain that the item is in, and whether it counts there."""
    problem, index = state.problem, state.index
    return [
        *(problem.attractions[role.rule].domain for role in index.attraction_roles.get(item, ())),
        *(problem.spreads[role.rule].domain for role in index.spread_roles.get(item, ())),
        *(problem.spreads[role.rule].counting for role in index.spread_roles.get(item, ())),
    ]


def _squares(state: Assignment, nodes: Ints, more: Ints) -> Ints:
    """[len(nodes)]: what each node would add to the evenness with so much more on it."""
    problem = state.problem
    scale = problem.scale[nodes]
    known: Bools = scale > 0
    percent = 100 * (state.load[nodes, : problem.counted] + more) // np.maximum(scale, 1)
    squares: Ints = np.where(known, percent**2, 0).sum(axis=1)
    return squares
