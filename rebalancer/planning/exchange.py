"""Among equal plans the one that is quiet sooner: moves of equal weight exchange targets.

A target takes in one migration after another. Where it is given several long ones while another is given short ones,
waves grow long. Items that weigh the same for the objective, and about which no rule says anything, may exchange their
targets: every stage of the objective stays what it is, to the last integer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.groups import Ints
from rebalancer.placement.index import Index
from rebalancer.planning.pace import Trip, Trips, least_seconds, packed_seconds, ranked

ROUNDS = 50
"""Exchanges at most: each shortens the plan, and a packing of all moves is what one costs to judge."""
PACKED = 30_000
"""Moves that are packed into waves, over all exchanges that are judged: about a quarter of a second."""


def shorter(index: Index, trips: Trips, at: Ints) -> Ints:
    """A placement of equal value whose moves take no longer."""
    state = Assignment(index, at)
    moving = trips.to(at)
    length, least, left = _length(trips, state.at), least_seconds(moving, trips.budgets), PACKED
    for _ in range(ROUNDS):
        for one, other in _exchanges(index, trips.to(state.at)):
            if left < len(moving) or length <= least + 1e-6:
                return state.at
            if not _swap(state, one, other):
                continue
            left -= len(moving)
            swapped = _length(trips, state.at)
            if swapped < length:
                length = swapped
                break
            _swap(state, one, other, force=True)
        else:
            break
    return state.at


def _length(trips: Trips, at: Ints) -> float:
    return packed_seconds(ranked(trips.to(at), trips.budgets), trips.budgets)


def _exchanges(index: Index, trips: Sequence[Trip]) -> Iterator[tuple[int, int]]:
    """Pairs of equal weight: a long one on a target that is busy for long, and a short one on a less busy target."""
    problem = index.problem
    busy: defaultdict[int, float] = defaultdict(float)
    alike: defaultdict[tuple[object, ...], list[Trip]] = defaultdict(list)
    for trip in trips:
        busy[trip.target] += trip.seconds
        if not index.ruled(trip.item):
            weight = tuple(problem.demand[trip.item, : problem.counted].tolist())
            alike[int(problem.klass[trip.item]), int(problem.taste[trip.item]), weight].append(trip)
    for group in alike.values():
        for long in sorted(group, key=lambda trip: (-busy[trip.target], -trip.seconds, trip.item)):
            for short in sorted(group, key=lambda trip: (busy[trip.target], trip.seconds, trip.item)):
                gain = long.seconds - short.seconds
                if gain > 0 and busy[short.target] + gain < busy[long.target]:
                    yield long.item, short.item


def _swap(state: Assignment, one: int, other: int, *, force: bool = False) -> bool:
    """Exchange two items' targets if both fit; whether that was done."""
    first, second = int(state.at[one]), int(state.at[other])
    home = state.problem.home
    if not force and (first == second or first == home[other] or second == home[one]):
        return False
    state.move(one, int(home[one]))
    state.move(other, first)
    state.move(one, second)
    fits = bool((state.load[[first, second]] <= state.problem.ceiling[[first, second]]).all())
    if not fits and not force:
        state.move(one, int(home[one]))
        state.move(other, second)
        state.move(one, first)
    return fits or force
