"""The search against every placement there is: on tiny problems its value is the optimum, and it knows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from placement.worlds import Item, Judge, World, worlds

from rebalancer.placement.solve import OPTIMAL, UNCHANGED, Solution, solve
from rebalancer.placement.stop import Stop


def solved(world: World, seconds: float = 5.0) -> Solution:
    return solve(world.problem(), Stop(seconds))


def stages(solution: Solution) -> tuple[int, int, int, int]:
    reached = solution.values
    return reached.violations, reached.over_high, reached.over_low, reached.cost


@pytest.mark.slow
@given(worlds())
@settings(max_examples=300)
def test_the_value_is_that_of_the_best_placement_of_all(world: World) -> None:
    problem = world.problem()
    judge = Judge(problem)
    solution = solve(problem, Stop(5.0))
    at = solution.at.tolist()
    assert stages(solution) == judge.stages(at)
    assert judge.allows(at, strict=False)
    assert judge.best(strict=False) <= stages(solution) <= judge.best(strict=True)


@given(worlds())
@settings(max_examples=100)
def test_bounds_are_below_every_placement_that_cures_as_much(world: World) -> None:
    problem = world.problem()
    judge = Judge(problem)
    solution = solve(problem, Stop(5.0))
    best = judge.best(strict=True)
    for stage, value in zip(solution.stages, best, strict=False):
        if stages(solution)[:3] == best[:3]:
            assert stage.bound <= value
    assert solution.cost_bound <= solution.values.cost
    assert solution.moves_bound <= solution.moves
    if solution.proven:
        assert stages(solution) <= best


@given(worlds())
@settings(max_examples=100)
def test_without_time_the_plan_is_valid_and_no_worse_than_none(world: World) -> None:
    problem = world.problem()
    judge = Judge(problem)
    solution = solve(problem, Stop(0.0))
    assert judge.allows(solution.at.tolist(), strict=False)
    assert stages(solution) <= judge.stages(problem.home.tolist())


@given(worlds())
@settings(max_examples=30)
def test_the_same_problem_has_the_same_plan(world: World) -> None:
    first = solved(world)
    for _ in range(3):
        again = solved(world)
        assert again.at.tolist() == first.at.tolist()
        assert (again.values, again.status) == (first.values, first.status)


def test_one_large_item_goes_rather_than_three_small_ones() -> None:
    items = [Item(home=0, cpu=10), Item(home=0, cpu=10), Item(home=0, cpu=10), Item(home=0, cpu=60)]
    solution = solved(World(nodes=2, items=items))
    assert solution.moves == 1
    assert solution.status == OPTIMAL


def test_of_equal_moves_the_cheapest_is_made() -> None:
    items = [Item(home=0, cpu=50, cost=1008), Item(home=0, cpu=50, cost=1002)]
    assert solved(World(nodes=2, items=items)).at.tolist() == [0, 1]


def test_of_equal_plans_the_more_even_one_wins() -> None:
    items = [Item(home=0, cpu=50), Item(home=0, cpu=40), Item(home=1, cpu=30)]
    assert solved(World(nodes=3, items=items)).at.tolist()[:2] in ([2, 0], [0, 2])


def test_of_equal_plans_the_preferred_one_wins_before_the_more_even_one() -> None:
    items = [Item(home=0, cpu=50), Item(home=0, cpu=40), Item(home=1, cpu=30)]
    liked = np.array([[0, 1, 0]], dtype=np.int64)
    solution = solve(World(nodes=3, items=items).problem(preference=liked), Stop(5.0))
    assert 1 in solution.at.tolist()[:2]
    assert solution.values.preferred == -1


def test_nobody_moves_for_preference_or_evenness_alone() -> None:
    items = [Item(home=0, cpu=40), Item(home=0, cpu=40), Item(home=1, cpu=75), Item(home=1, cpu=10)]
    liked = np.array([[0, 0, 9]], dtype=np.int64)
    assert solve(World(nodes=3, items=items).problem(preference=liked), Stop(5.0)).at[:2].tolist() == [0, 0]


def test_both_resources_are_brought_down_by_one_move_where_one_will_do() -> None:
    items = [Item(home=0, cpu=30, memory=5), Item(home=0, cpu=30, memory=60), Item(home=0, cpu=30, memory=5)]
    solution = solved(World(nodes=2, items=items, memory_limit=60))
    assert solution.at.tolist() == [0, 1, 0]
    assert solution.status == OPTIMAL


def test_a_swap_cures_what_no_single_move_can() -> None:
    """Node 0 must lose 10, but only the large item's exchange for the small one leaves both within the threshold."""
    items = [Item(home=0, cpu=60), Item(home=0, cpu=30), Item(home=1, cpu=45), Item(home=1, cpu=20)]
    solution = solved(World(nodes=2, items=items))
    assert solution.values.over_low == 0
    assert solution.moves == 2
    assert solution.status == OPTIMAL


def test_an_item_is_ejected_where_nothing_else_makes_room() -> None:
    items = [
        Item(home=0, cpu=50, only=[1]),
        Item(home=0, cpu=45, movable=False),
        Item(home=1, cpu=40),
        Item(home=2, cpu=30),
    ]
    solution = solved(World(nodes=3, items=items))
    assert solution.at.tolist() == [1, 0, 2, 2]
    assert solution.status == OPTIMAL


def test_what_cannot_be_cured_does_not_keep_the_rest_from_being_cured() -> None:
    items = [
        Item(home=0, cpu=90, movable=False),
        Item(home=1, cpu=50),
        Item(home=1, cpu=45),
    ]
    solution = solved(World(nodes=3, items=items))
    assert solution.moves == 1
    assert (solution.values.over_high, solution.proven) == (100, True)


def test_nothing_to_gain_is_said() -> None:
    solution = solved(World(nodes=2, items=[Item(home=0, cpu=30)]))
    assert (solution.status, solution.moves, solution.proven, solution.gap) == (UNCHANGED, 0, True, 0.0)


def test_bounds_stand_for_whoever_leaves_as_much_uncured() -> None:
    """Nothing fits anywhere: the floor is out of reach, and still nothing is claimed that could be undercut."""
    items = [Item(home=0, cpu=50), Item(home=0, cpu=50)]
    solution = solved(World(nodes=2, items=items, base={1: 79}))
    assert (solution.moves, solution.cost_bound, solution.proven) == (0, 0, True)
