"""The first plan: every node's cheapest cure, large items first, into best- or worst-fitting receivers.

What finds no receiver is tried with the node's next cheapest cure, then by ejecting a smaller item from a receiver.
"""

from __future__ import annotations

import numpy as np

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.cures import Cure, Diagnosis
from rebalancer.placement.fits import Fit, choose, sizes
from rebalancer.placement.groups import Ints
from rebalancer.placement.index import Index
from rebalancer.placement.mend import mend
from rebalancer.placement.stop import Stop

EJECTIONS = 40
"""Receivers that are looked into for an item to eject: those that lack the least room come first."""


FRUITLESS = 60
"""Items in a row for which nothing can make room, or nodes that no other cure helps, after which no more are tried."""


def greedy(index: Index, diagnosis: Diagnosis, fit: Fit, stop: Stop) -> Assignment:
    """A valid placement that cures what it can; an interrupted one cures less."""
    state = Assignment(index)
    weight = sizes(index)
    pending = [(item, cure) for cure in diagnosis.cures for item in cure.option(0)]
    pending.sort(key=lambda entry: (-weight[entry[0]], entry[0]))
    stuck: dict[int, Cure] = {}
    failures = 0
    for item, cure in pending:
        if stop.interrupted:
            return state
        mask = state.receivers(item)
        if mask.any():
            state.move(item, choose(state, item, mask, fit))
        elif failures < FRUITLESS and _eject(state, item):
            failures = 0
        else:
            failures += 1
            stuck.setdefault(cure.node, cure)
    failures = 0
    for node in sorted(stuck):
        if stop.interrupted:
            return state
        # Where somebody has arrived already, nobody may return for a trial.
        if failures < FRUITLESS and not any(state.at[item] == node for item in state.moved):
            failures = 0 if _other_cure(state, stuck[node], weight, fit) else failures + 1
    mend(state, fit, stop)
    return state


def _eject(state: Assignment, item: int) -> bool:
    """Make room on a receiver by moving a smaller item, that has not moved yet, on from there."""
    problem = state.problem
    nodes = np.flatnonzero(state.receivers_by_rule(item))
    lack = np.maximum(state.load[nodes] + problem.demand[item] - problem.ceiling[nodes], 0)
    share = (lack / np.maximum(problem.capacity[nodes], 1)).max(axis=1, initial=0)
    tried: set[tuple[int, tuple[int, ...]]] = set()
    best: tuple[int, int, int, int] | None = None
    for at in np.lexsort((nodes, share))[:EJECTIONS].tolist():
        node = int(nodes[at])
        for other in state.index.at_home(node):
            small = other not in state.moved and bool(problem.movable[other])
            if (
                not small
                or problem.cost[other] >= (best[0] if best else 1 << 60)
                or (problem.resting[other] < lack[at]).any()
            ):
                continue
            key = (int(problem.klass[other]), tuple(problem.demand[other].tolist()))
            if key in tried:
                continue
            mask = state.receivers(other)
            mask[[node, int(problem.home[item])]] = False
            if mask.any():
                best = (int(problem.cost[other]), other, node, choose(state, other, mask, "best"))
            elif not state.index.ruled(other):
                tried.add(key)
    if best is None:
        return False
    _, other, node, onward = best
    origin = int(state.at[other])
    state.move(other, onward)
    if state.receivers(item)[node]:
        state.move(item, node)
        return True
    state.move(other, origin)
    return False


def _other_cure(state: Assignment, cure: Cure, weight: Ints, fit: Fit) -> bool:
    """Try the node's other cures; the most complete and then cheapest one wins. Whether it is not the first."""
    counted = state.problem.counted
    first = {item: int(state.at[item]) for item in cure.option(0)}
    outcomes: list[tuple[int, int, int, dict[int, int]]] = []
    for number in range(1, max(2, len(cure.sheds.options))):
        before = set(state.moved)
        for item, node in first.items():
            if node != state.problem.home[item]:
                state.move(item, int(state.problem.home[item]))
        placed = {}
        for item in sorted(cure.option(number), key=lambda item: (-weight[item], item)):
            mask = state.receivers(item)
            if mask.any():
                state.move(item, choose(state, item, mask, fit))
                placed[item] = int(state.at[item])
        over = int(np.maximum(state.load[cure.node, :counted] - state.problem.low[cure.node], 0).sum())
        cost = int(state.problem.cost[list(placed)].sum())
        outcomes.append((over, cost, number, placed))
        _restore(state, before, placed, first)
    over = int(np.maximum(state.load[cure.node, :counted] - state.problem.low[cure.node], 0).sum())
    cost = int(state.problem.cost[[item for item, node in first.items() if node != state.problem.home[item]]].sum())
    best = min(outcomes, key=lambda outcome: outcome[:3])
    if best[:2] >= (over, cost):
        return False
    for item in first:
        state.move(item, int(state.problem.home[item]))
    for item, node in best[3].items():
        state.move(item, node)
    return True


def _restore(state: Assignment, before: set[int], placed: dict[int, int], first: dict[int, int]) -> None:
    for item in placed:
        state.move(item, int(state.problem.home[item]))
    for item, node in first.items():
        state.move(item, node)
    assert state.moved == before
