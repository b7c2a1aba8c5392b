"""The fault matrix: whatever goes wrong, and wherever, promises are kept and the work gets done all the same."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from rebalancer.sim.matrix import Matrix, cases, hunt, main, parse, reference, run_matrix, spread
from rebalancer.sim.perturb import EVENT, KINDS, LEADER, WRITE, Point
from rebalancer.sim.planted import PLANTED
from rebalancer.sim.small_worlds import WORLDS
from rebalancer.sim.trial import Case, play

POINTS = int(os.environ.get("FAULT_POINTS", "5000"))
"""So many points of the matrix are tried here; `make faults` tries all."""

MIGRATIONS = {"circle": 5, "failing": 3, "opt-out": 3, "drained": 1, "busy": 1}
"""How many of ours it takes to mend a world; two where nothing is said."""


@pytest.mark.parametrize("world", WORLDS)
def test_without_faults_each_world_is_mended(world: str) -> None:
    clean = reference(world, 0)
    assert (clean.wrong, clean.left, clean.migrations) == ((), (), MIGRATIONS.get(world, 2))
    assert len(clean.marks[WRITE]) >= clean.migrations
    assert len(clean.marks[EVENT]) > 0
    assert play(Case(world=world, seed=0)).marks == clean.marks, "a run repeats itself"


@pytest.mark.slow
def test_whatever_goes_wrong_wherever() -> None:
    """Points of the matrix, of every world and of every kind of fault."""
    chosen = spread(cases(), POINTS)
    assert len(chosen) == POINTS
    assert {case.world for case in chosen} == set(WORLDS)
    assert {(point.at, point.kind) for case in chosen if (point := case.point)} == {
        (at, kind) for at, kinds in KINDS.items() for kind in kinds
    }
    matrix = run_matrix(chosen)
    print(matrix.text())
    assert matrix.failures == (), matrix.text()


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTED)
def test_what_is_planted_in_the_daemon_is_found(plant: str) -> None:
    """A check of the checkers: a daemon with one small mistake in it does not pass the matrix."""
    found = hunt(plant)
    assert found.found is not None, found.line()
    assert f"--planted '{plant}'" in found.found.case.command()
    print(found.line())


def test_a_fault_that_never_happens_is_a_failure_and_says_how_to_run_it_again() -> None:
    case = Case(world="hot", seed=0, point=Point(at=WRITE, index=9999, kind=LEADER))
    matrix = run_matrix([case], processes=1)
    (result,) = matrix.failures
    assert "the fault did not happen, its point was not reached" in result.wrong
    assert "| leader change | 1 | 0 | 1 |" in matrix.text()
    assert "FAILED python -m rebalancer.sim.matrix --only 'hot 0 write 9999 leader change'" in matrix.text()
    assert parse("hot 0 write 9999 leader change") == case
    assert main(["--only", "hot 0 write 9999 leader change"]) == 1


@pytest.mark.parametrize("text", ["nowhere 0", "hot 0 write 3 dropped until relist", "hot 0 event 1 response lost"])
def test_what_is_no_point_is_refused(text: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--only", text])
    assert stopped.value.code == 2


def test_points_are_spread_over_worlds_places_and_kinds_and_never_twice() -> None:
    points = [
        Case(world=world, seed=0, point=Point(at=at, index=index, kind=kind))
        for world in WORLDS
        for at, kinds in KINDS.items()
        for kind in kinds
        for index in range(20)
    ]
    some = spread(points, 480)
    assert len(set(some)) == len(some) == 480
    assert set(Counter(case.world for case in some).values()) <= {42, 43, 44, 45}
    assert spread(points, 10_000) == points


def test_an_empty_matrix_has_a_table_too() -> None:
    assert "| all 0 points | 0 | 0 | 0 |" in Matrix(results=(), seconds=0.0).text()
