"""Tight clusters in little: valid plans of proven quality, whatever interrupts the search or hurries it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from placement.worlds import Item, Judge, World, crowded

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.index import Index
from rebalancer.placement.model import Model
from rebalancer.placement.solve import Solution, solve
from rebalancer.placement.stop import GRACE, Stop


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that is so much later at every look."""
    now = [0.0]

    def clock() -> float:
        now[0] += seconds
        return now[0]

    return clock


def told(solution: Solution) -> tuple[object, ...]:
    return solution.at.tolist(), solution.values, solution.cost_bound, solution.status, solution.interrupted


def test_whoever_made_way_does_not_come_back_once_others_have_the_room() -> None:
    items = [Item(home=0, cpu=40), Item(home=2, cpu=40), Item(home=2, cpu=45)]
    state = Assignment(Index(World(nodes=3, items=items, base={0: 30}).problem()))
    state.move(0, 1)
    state.move(1, 0)
    result = Model(state, {0: [0, 1]}).solve(("cost",), 1.0, Stop(1.0), 0)
    assert result.at is not None
    assert result.at.tolist() == [1, 0, 2]


@pytest.mark.parametrize("seed", range(3))
def test_plans_of_tight_clusters_are_valid_cure_all_and_know_their_bound(seed: int) -> None:
    problem = crowded(120, seed)
    solution = solve(problem, Stop(2.0))
    assert Judge(problem).allows(solution.at.tolist(), strict=False)
    assert solution.values < solution.first
    assert (solution.values.violations, solution.values.over_high, solution.values.over_low) == (0, 0, 0)
    assert solution.gap <= 0.03
    assert solution.first_seconds == 0.0


@pytest.mark.parametrize("seed", range(2))
def test_no_clock_has_a_say_in_a_plan(seed: int) -> None:
    """However fast or slow the machine is; and another search in between leaves no trace."""
    problem = crowded(60, seed)
    first = told(solve(problem, Stop(1.0)))
    assert told(solve(problem, Stop(1.0, ticking(1e-9)))) == first
    solve(crowded(40, seed), Stop(0.5))
    assert told(solve(problem, Stop(1.0, ticking(1e-3)))) == first
    assert told(solve(problem, Stop(1.0, time.perf_counter))) == first


@pytest.mark.parametrize("look", [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144])
def test_interrupted_at_any_moment_the_plan_is_valid_and_no_worse_than_none(look: int) -> None:
    """The clock jumps past all patience at one of the search's looks."""
    problem = crowded(40, 2)
    solution = solve(problem, Stop(1.0, ticking(2 * GRACE / look)))
    assert Judge(problem).allows(solution.at.tolist(), strict=False)
    assert solution.values <= solution.first
    assert solution.interrupted


def test_more_time_is_never_worse() -> None:
    problem = crowded(60, 2)
    found = [solve(problem, Stop(seconds)).values for seconds in (0.0, 0.1, 1.0)]
    assert found == sorted(found, reverse=True)


def test_a_word_ends_a_search_at_once() -> None:
    """The limit is hours of work; the word comes while the search is at it."""
    problem, stop = crowded(40, 2), Stop(1e6, time.perf_counter)
    found: list[Solution] = []
    search = threading.Thread(target=lambda: found.append(solve(problem, stop)))
    search.start()
    while not stop.spent:
        time.sleep(0.01)
    stop.cancel()
    search.join(timeout=10)
    assert found
    assert found[0].interrupted
    assert Judge(problem).allows(found[0].at.tolist(), strict=False)


def test_the_first_plan_takes_no_tenth_of_the_limit() -> None:
    solution = solve(crowded(300, 1), Stop(10.0, time.perf_counter))
    assert 0 < solution.first_seconds < 1.0
