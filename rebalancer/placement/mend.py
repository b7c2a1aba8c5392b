"""Broken rules that no node can cure by itself: single moves that lessen what the moved item has a part in."""

from __future__ import annotations

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.fits import Fit, choose
from rebalancer.placement.groups import Bools
from rebalancer.placement.objective import conflicts, conflicts_around
from rebalancer.placement.stop import Stop

PASSES = 3
"""Passes over everyone who shares a broken rule; what the first one leaves, others seldom find."""
DOMAINS = 8
"""Receivers that are tried per item, each in other domains of its rules."""


def mend(state: Assignment, fit: Fit, stop: Stop) -> None:
    """Move those in conflict, and those whose move would help them, as long as that lessens the conflicts."""
    for _ in range(PASSES):
        found = conflicts(state)
        if not found:
            return
        partners = state.index.partners(found)
        order = sorted(partners, key=lambda item: (-found.get(item, 0), int(state.problem.cost[item]), item))
        if not sum(not stop.interrupted and _helps(state, item, fit) for item in order):
            return


def _helps(state: Assignment, item: int, fit: Fit) -> bool:
    """Move an item to where fewer rules that it has a part in are broken; whether there is such a place."""
    if item in state.moved or not state.problem.movable[item]:
        return False
    before = conflicts_around(state, item)
    if not before:
        return False
    home = int(state.at[item])
    for node in _distinct(state, item, state.receivers(item), fit):
        state.move(item, node)
        if conflicts_around(state, item) < before:
            return True
        state.move(item, home)
    return False


def _distinct(state: Assignment, item: int, mask: Bools, fit: Fit) -> list[int]:
    """The best receiver of each combination of the wider domains that the item's rules tell apart."""
    wide = [domain for domain in state.index.domains(item) if int(domain.max(initial=0)) + 1 < state.problem.nodes]
    result: list[int] = []
    while mask.any() and len(result) < DOMAINS:
        node = choose(state, item, mask, fit)
        result.append(node)
        if not wide:
            break
        alike = mask.copy()
        for domain in wide:
            alike &= domain == domain[node]
        mask = mask & ~alike
    return result
