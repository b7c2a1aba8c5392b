"""Problems that make no sense, or leave nothing to choose: each has a defined answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from placement.worlds import Item, Judge, World

from rebalancer.placement.solve import OPTIMAL, UNCHANGED, solve
from rebalancer.placement.stop import Stop


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Where everybody ends, the overload above high that is left in permille, and the status."""

    at: list[int]
    over_high: int = 0
    status: str = UNCHANGED


FULL = [Item(home=0, cpu=50), Item(home=0, cpu=40)]


@pytest.mark.parametrize("seconds", [0.0, 5.0])
@pytest.mark.parametrize(
    ("world", "answer"),
    [
        pytest.param(World(nodes=1, items=[]), Answer(at=[]), id="no item"),
        pytest.param(World(nodes=2, items=[], base={0: 90}), Answer(at=[], over_high=100), id="hot without items"),
        pytest.param(World(nodes=1, items=FULL), Answer(at=[0, 0], over_high=100), id="one node"),
        pytest.param(World(nodes=3, items=FULL, base={1: 79, 2: 79}), Answer(at=[0, 0], over_high=100), id="no room"),
        pytest.param(
            World(nodes=2, items=[Item(home=0, cpu=90, only=[])]), Answer(at=[0], over_high=100), id="no receiver"
        ),
        pytest.param(
            World(nodes=2, items=[Item(home=0, cpu=90, movable=False)]), Answer(at=[0], over_high=100), id="immovable"
        ),
        pytest.param(
            World(nodes=2, items=[*FULL, Item(home=1, cpu=85)]), Answer(at=[0, 0, 1], over_high=150), id="all hot"
        ),
        pytest.param(
            World(nodes=2, items=[Item(home=0, cpu=50), Item(home=0, cpu=60)]),
            Answer(at=[1, 0], status=OPTIMAL),
            id="more asked for than there is",
        ),
        pytest.param(World(nodes=2, items=FULL, high=120, low=120), Answer(at=[0, 0]), id="high above all there is"),
        pytest.param(
            World(nodes=2, items=[Item(home=0, cpu=0, memory=0), *FULL]),
            Answer(at=[0, 0, 1], status=OPTIMAL),
            id="an item that takes nothing",
        ),
    ],
)
def test_what_makes_no_sense_has_an_answer(world: World, answer: Answer, seconds: float) -> None:
    problem = world.problem()
    solution = solve(problem, Stop(seconds))
    assert solution.at.tolist() == answer.at
    assert (solution.values.over_high, solution.status) == (answer.over_high, answer.status)
    assert Judge(problem).allows(solution.at.tolist(), strict=False)
    assert solution.proven or not seconds


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_nodes_of_no_capacity_are_neither_hot_nor_receivers(seconds: float) -> None:
    """A node whose allocatable nobody could read."""
    world = World(nodes=3, items=[*FULL, Item(home=1, cpu=10)])
    problem = world.problem()
    nothing = {name: getattr(problem, name).copy() for name in ("capacity", "low", "high", "scale")}
    for amounts in nothing.values():
        amounts[1] = 0
    solution = solve(world.problem(**nothing), Stop(seconds))
    assert 1 not in solution.at.tolist()[:2]
    assert (solution.moves, solution.at[2], solution.values.over_high) == (1, 1, 0)


def test_a_low_above_high_is_taken_as_it_is_and_no_node_lifted_above_high() -> None:
    """Settings refuse it; should it come all the same, whoever receives still ends at low at most."""
    problem = World(nodes=2, items=FULL, high=60, low=80).problem()
    solution = solve(problem, Stop(5.0))
    assert Judge(problem).allows(solution.at.tolist(), strict=False)
    assert solution.values <= solution.first


def test_moves_that_cost_nothing_are_no_problem_to_be_posed() -> None:
    """Staying would not be better than moving."""
    with pytest.raises(AssertionError):
        World(nodes=2, items=[Item(home=0, cpu=50, cost=0)]).problem()


def test_capacities_beyond_all_bounds_do_not_overflow() -> None:
    huge = World(nodes=2, items=[Item(home=0, cpu=2**50), Item(home=0, cpu=2**50)], cpu=2**51, high=2**50, low=2**50)
    problem = huge.problem()
    solution = solve(problem, Stop(5.0))
    assert sorted(solution.at.tolist()) == [0, 1]
    assert np.all(problem.load(solution.at) >= 0)
