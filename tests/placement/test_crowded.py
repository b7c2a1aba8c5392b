"""Tight clusters in little: valid plans of proven quality, whatever interrupts the search or hurries it."""

from __future__ import annotations

import pytest
from placement.worlds import Judge, crowded

from rebalancer.placement.solve import solve
from rebalancer.placement.stop import Stop


@pytest.mark.parametrize("seed", range(4))
def test_nobody_ends_where_there_is_no_room(seed: int) -> None:
    """Whoever made way must not come back once others have taken the room."""
    problem = crowded(120, seed)
    solution = solve(problem, Stop(2.0))
    assert Judge(problem).allows(solution.at.tolist(), strict=False)
    assert (solution.values.over_high, solution.values.over_low) <= (solution.first.over_high, 0)
