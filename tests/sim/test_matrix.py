"""The fault matrix: whatever goes wrong, and wherever, promises are kept and the work gets done all the same."""

from __future__ import annotations

import os

import pytest

from rebalancer.sim.matrix import Case, Matrix, cases, judge, main, play, reference, run_matrix, spread
from rebalancer.sim.perturb import EVENT, KINDS, LEADER, WRITE, Point
from rebalancer.sim.small_worlds import WORLDS

POINTS = int(os.environ.get("FAULT_POINTS", "500"))
"""So many points of the matrix are tried here; `make faults` tries all."""


@pytest.mark.parametrize("world", WORLDS)
def test_without_faults_each_world_is_mended_by_two_moves(world: str) -> None:
    clean = reference(world, 0)
    assert (clean.wrong, clean.left, clean.migrations) == ((), (), 2)
    assert clean.writes >= clean.migrations
    assert clean.events > 0
    assert play(Case(world=world, seed=0)).events == clean.events, "a run repeats itself"


EVERYTHING = [(at, kind) for at, kinds in KINDS.items() for kind in kinds]


@pytest.mark.parametrize(("at", "kind"), EVERYTHING)
def test_whatever_goes_wrong_in_mid_wave(at: str, kind: str) -> None:
    """At a write and at an event in the middle of the work."""
    clean = reference("chain", 1)
    index = {WRITE: clean.writes, EVENT: clean.events}[at] // 2
    result = judge(Case(world="chain", seed=1, point=Point(at=at, index=index, kind=kind)))
    assert result.wrong == (), result.case.command()


@pytest.mark.slow
def test_whatever_goes_wrong_wherever() -> None:
    """Points of the matrix, evenly spread over worlds, seeds, places and kinds."""
    chosen = spread(cases(), POINTS)
    assert len(chosen) == POINTS
    matrix = run_matrix(chosen)
    print(matrix.text())
    assert matrix.failures == (), matrix.text()


def test_a_point_that_is_never_reached_is_a_failure_and_says_how_to_run_it_again() -> None:
    case = Case(world="hot", seed=0, point=Point(at=WRITE, index=9999, kind=LEADER))
    matrix = run_matrix([case], processes=1)
    assert [result.wrong for result in matrix.failures] == [("the point was never reached",)]
    assert "| leader change | 1 | 0 | 1 |" in matrix.text()
    assert "FAILED python -m rebalancer.sim.matrix hot 0 write 9999 'leader change'" in matrix.text()
    assert main(["hot", "0", "write", "9999", "leader change"]) == 1


def test_points_are_spread_evenly_and_never_twice() -> None:
    points = [
        Case(world=world, seed=0, point=Point(at=WRITE, index=index, kind=LEADER))
        for world in WORLDS
        for index in range(100)
    ]
    some = spread(points, 30)
    assert len(set(some)) == 30
    assert {case.world for case in some} == set(WORLDS)
    assert spread(points, 1000) == points


def test_an_empty_matrix_has_a_table_too() -> None:
    assert "| all 0 points | 0 | 0 | 0 |" in Matrix(results=(), seconds=0.0).text()
