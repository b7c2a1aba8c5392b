"""Moves that wait for each other: every plan runs, wave by wave, or is not begun."""

from __future__ import annotations

import pytest
from builders import cluster, node, vmi
from planning.plans import planned

from bench.planner.circles import rings, swaps
from rebalancer.domain.plan import Plan
from rebalancer.domain.snapshot import Snapshot


def hops(plan: Plan) -> int:
    return sum(move.hop for move in plan.moves)


def cured(plan: Plan) -> bool:
    return not plan.after.hotspots and not plan.after.violations and not plan.left


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pairs", [1, 2, 7])
def test_a_swap_without_room_begins_on_a_third_node(pairs: int, seed: int) -> None:
    plan = planned(swaps(pairs, seed))
    assert cured(plan)
    assert 1 <= hops(plan) <= pairs
    assert len(plan.moves) == 2 * pairs + hops(plan)


@pytest.mark.parametrize("apart", [False, True], ids=["by load", "by anti-affinity"])
@pytest.mark.parametrize("size", range(3, 11))
def test_a_ring_of_any_size_is_opened_by_one_stop(size: int, apart: bool) -> None:
    plan = planned(rings([size], size, apart=apart))
    assert cured(plan)
    assert (len(plan.moves), hops(plan)) == (size + 1, 1)
    assert plan.moves[0].hop
    assert "stops over on the way to" in plan.moves[0].reasons[0]


@pytest.mark.parametrize("size", [4, 6, 10])
def test_two_make_way_together_for_one_that_needs_the_room_of_both(size: int) -> None:
    plan = planned(rings([size], size, spares=2, halves=True))
    assert cured(plan)
    assert hops(plan) == 2


@pytest.mark.parametrize("apart", [False, True], ids=["by load", "by anti-affinity"])
def test_several_rings_are_opened_one_after_another(apart: bool) -> None:
    plan = planned(rings([3, 4, 5, 10], 1, apart=apart))
    assert cured(plan)
    assert hops(plan) == 4


def test_rings_that_have_stops_of_their_own_turn_at_the_same_time() -> None:
    alone = planned(rings([5], 1))
    together = planned(rings([5] * 4, 1, spares=4))
    assert cured(together)
    assert len(together.waves) <= len(alone.waves) + 2


@pytest.mark.parametrize(
    "snapshot", [swaps(2, 1, spares=0), rings([2], 1, spares=0), rings([10], 1, spares=0)], ids=["swaps", "two", "ten"]
)
def test_a_circle_without_a_way_out_is_reported_and_not_begun(snapshot: Snapshot) -> None:
    plan = planned(snapshot)
    assert plan.is_noop()
    assert plan.warnings
    assert all("no safe order of moves brings it there" in warning for warning in plan.warnings)
    assert len(plan.left) == len(plan.triggers)
    assert plan.solver.status == "REPAIRED"


def test_what_is_beside_a_circle_without_a_way_out_is_cured() -> None:
    ring = rings([4], 1, spares=0)
    plan = planned(
        cluster(
            *(*ring.nodes.values(), *ring.vmis.values(), *ring.pods.values()),
            *(node("hot", cpu=10), node("cool", cpu=10)),
            *(vmi("large", on="hot", cpu=5), vmi("small", on="hot", cpu=4)),
        )
    )
    assert [move.source for move in plan.moves] == ["hot"]
    assert (plan.after.hotspots, len(plan.after.violations)) == ((), 4)
    assert plan.bound.proven
