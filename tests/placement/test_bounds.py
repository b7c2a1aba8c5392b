"""Lower bounds: never above the best plan there is, and sharp where they are meant to be."""

from __future__ import annotations

from hypothesis import assume, given, settings
from placement.worlds import Item, Judge, World, worlds

from rebalancer.placement.cures import diagnose
from rebalancer.placement.index import Index
from rebalancer.placement.prices import price
from rebalancer.placement.shed import Candidate, sheds
from rebalancer.placement.solve import solve
from rebalancer.placement.stop import Stop

NEVER = Stop(1e6)


@given(worlds())
@settings(max_examples=200)
def test_neither_bound_is_above_the_best_plan_that_cures_everything(world: World) -> None:
    problem = world.problem()
    diagnosis = diagnose(Index(problem))
    best = Judge(problem).best(strict=False)
    assume(all(value <= floor for value, floor in zip(best, diagnosis.floors, strict=False)))
    assert diagnosis.cost <= best[3]
    assert price(Index(problem), diagnosis, None, stop=NEVER, work=1.0)[0] <= best[3]


def test_room_has_a_price() -> None:
    """One large item would do, but no node has room for it: two small ones must go, and the bound knows."""
    items = [Item(home=0, cpu=40, cost=1000), *(Item(home=0, cpu=20, cost=1000) for _ in range(3))]
    items += [Item(home=node, cpu=45, cost=1000) for node in (1, 2, 3)]
    problem = World(nodes=4, items=items, high=70, low=70).problem()
    diagnosis = diagnose(Index(problem))
    solution = solve(problem, NEVER)
    assert (diagnosis.cost, solution.values.cost) == (1000, 2000)
    assert price(Index(problem), diagnosis, 2000, stop=NEVER, work=1.0)[0] == 2000


def test_shedding_is_exact() -> None:
    """Of all sets that weigh enough, the cheapest; a superfluous item is in none."""
    candidates = [Candidate(item=i, weight=(w,), cost=c) for i, (w, c) in enumerate([(5, 1004), (3, 1001), (2, 1000)])]
    found = sheds(candidates, [5])
    assert found.options[0] == (1004, (0,))
    assert found.options[1] == (2001, (1, 2))
    assert (found.bound, found.fewest) == (1004, 1)


def test_shedding_heeds_groups_that_must_thin_out() -> None:
    candidates = [Candidate(item=i, weight=(1,), cost=1000, cliques=(0,) if i < 2 else ()) for i in range(4)]
    assert sheds(candidates, [1], [1]).options[0] == (1000, (0,))
    assert sheds(candidates, [3], [2]).options[0][0] == 3000


def test_shedding_that_cannot_be_has_no_options() -> None:
    assert sheds([Candidate(item=0, weight=(1,), cost=1000)], [2]).options == ()
