"""The first plan: every node's cheapest cure, large items first, into best- or worst-fitting receivers.

What finds no receiver is tried with the node's next cheapest cure, then by ejecting a smaller item from a receiver.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.cures import Cure, Diagnosis
from rebalancer.placement.groups import Bools, Ints
from rebalancer.placement.index import Index
from rebalancer.placement.objective import conflicts

Fit = Literal["best", "worst"]

EJECTIONS = 40
"""Receivers that are looked into for an item to eject: those that lack the least room come first."""


def greedy(index: Index, diagnosis: Diagnosis, fit: Fit) -> Assignment:
    """A valid placement that cures what it can; never worse than the start."""
    state = Assignment(index)
    weight = sizes(index)
    pending = [(item, cure) for cure in diagnosis.cures for item in cure.option(0)]
    pending.sort(key=lambda entry: (-weight[entry[0]], entry[0]))
    stuck: dict[int, Cure] = {}
    for item, cure in pending:
        if not _place(state, item, fit):
            stuck.setdefault(cure.node, cure)
    for node in sorted(stuck):
        _other_cure(state, stuck[node], weight, fit)
    mend(state, fit)
    return state


def sizes(index: Index) -> Ints:
    """size[I] in millionths of a mean node, by the counted resource of which an item takes the larger share."""
    problem = index.problem
    mean = np.maximum(problem.capacity.mean(axis=0), 1)
    counted = problem.counted
    share: Ints = (problem.demand[:, :counted] / mean[:counted] * 1e6).max(axis=1, initial=0).astype(np.int64)
    return share


def choose(state: Assignment, item: int, mask: Bools, fit: Fit) -> int:
    """The receiver among the masked nodes: most preferred, then fullest or emptiest after the move."""
    problem = state.problem
    nodes = np.flatnonzero(mask)
    liking = problem.preference[problem.taste[item], nodes]
    nodes = nodes[liking == liking.max()]
    counted = problem.counted
    after = state.load[nodes, :counted] + problem.demand[item, :counted]
    fill = (after / np.maximum(problem.scale[nodes], 1)).max(axis=1)
    return int(nodes[int(fill.argmax() if fit == "best" else fill.argmin())])


def _place(state: Assignment, item: int, fit: Fit) -> bool:
    mask = state.receivers(item)
    if mask.any():
        state.move(item, choose(state, item, mask, fit))
        return True
    return _eject(state, item, fit)


def _eject(state: Assignment, item: int, fit: Fit) -> bool:
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
                or (problem.demand[other] < lack[at]).any()
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


def _other_cure(state: Assignment, cure: Cure, weight: Ints, fit: Fit) -> None:
    """Try the node's other cures; the first that can be carried out whole wins, else the most complete one."""
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
    if best[:2] < (over, cost):
        for item in first:
            state.move(item, int(state.problem.home[item]))
        for item, node in best[3].items():
            state.move(item, node)


def _restore(state: Assignment, before: set[int], placed: dict[int, int], first: dict[int, int]) -> None:
    for item in placed:
        state.move(item, int(state.problem.home[item]))
    for item, node in first.items():
        state.move(item, node)
    assert state.moved == before


def mend(state: Assignment, fit: Fit) -> None:
    """Cure the conflicts that the nodes' own cures left, each with the cheapest single move that lessens their sum."""
    for _ in range(state.problem.items + 1):
        found = conflicts(state)
        if not found or not _mend_one(state, found, fit):
            return


def _mend_one(state: Assignment, found: dict[int, int], fit: Fit) -> bool:
    """One improving move of an item in conflict, or of one whose move would help it. `found` is weight by item."""
    total = sum(found.values())
    partners = state.index.partners(found)
    order = sorted(partners, key=lambda item: (-found.get(item, 0), int(state.problem.cost[item]), item))
    for item in order:
        if item in state.moved or not state.problem.movable[item]:
            continue
        mask = state.receivers(item)
        for node in _distinct(state, item, mask, fit):
            origin = int(state.at[item])
            state.move(item, node)
            if sum(conflicts(state).values()) < total:
                return True
            state.move(item, origin)
    return False


def _distinct(state: Assignment, item: int, mask: Bools, fit: Fit) -> list[int]:
    """One receiver of each combination of the domains that the item's rules tell apart, and the best of all first."""
    result: list[int] = []
    keys = state.index.domains(item)
    seen: set[tuple[int, ...]] = set()
    while mask.any() and len(result) < EJECTIONS:
        node = choose(state, item, mask, fit)
        mask[node] = False
        key = tuple(int(domain[node]) for domain in keys)
        if key not in seen:
            seen.add(key)
            result.append(node)
    return result
