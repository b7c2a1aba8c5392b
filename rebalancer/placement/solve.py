"""The search as a whole: first plans, bounds, improvement, proof."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.cures import Diagnosis, diagnose
from rebalancer.placement.greedy import greedy
from rebalancer.placement.groups import Ints
from rebalancer.placement.index import Index
from rebalancer.placement.objective import STAGES, Values, values
from rebalancer.placement.polish import polish
from rebalancer.placement.problem import Problem
from rebalancer.placement.stop import Stop

UNCHANGED, FEASIBLE, OPTIMAL = "UNCHANGED", "FEASIBLE", "OPTIMAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageValue:
    """One stage: what was reached, what cannot be undercut, and when (in seconds of the stop's clock) it was done."""

    name: str
    value: int
    bound: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """`at[I]` is where each item goes; `first` and `values` are the objective before and after.

    `moves_bound` and `cost_bound` hold for every plan that cures as much.

    `proven`: violations, overload and cost cannot be lower. `status` is UNCHANGED where nothing is to be gained.
    """

    at: Ints
    first: Values
    values: Values
    stages: tuple[StageValue, ...]
    status: str
    moves: int
    moves_bound: int
    cost_bound: int
    proven: bool

    @property
    def gap(self) -> float:
        """(cost - bound) / cost, 0.0 without moves."""
        cost = self.values.cost
        return max(0.0, (cost - self.cost_bound) / cost) if cost else 0.0


def solve(problem: Problem, stop: Stop, seed: int = 0) -> Solution:
    """A placement that is nowhere worse than staying, and the best that is found until `stop`."""
    index = Index(problem)
    diagnosis = diagnose(index)
    start = Assignment(index)
    first = values(start)
    best, reached = start, first
    for fit in ("worst", "best"):
        plan = greedy(index, diagnosis, fit)
        found = values(plan)
        if found < reached:
            best, reached = plan, found
        if _at_bound(found, diagnosis):
            break
    polish(best)
    return _solution(best, first, diagnosis, stop)


def _at_bound(found: Values, diagnosis: Diagnosis) -> bool:
    return (found.violations, found.over_high, found.over_low) <= diagnosis.floors and found.cost <= diagnosis.cost


def _solution(best: Assignment, first: Values, diagnosis: Diagnosis, stop: Stop) -> Solution:
    found = values(best)
    cured = (found.violations, found.over_high, found.over_low) <= diagnosis.floors
    cost_bound = min(diagnosis.cost, found.cost) if cured else 0
    moves_bound = min(diagnosis.moves, len(best.moved)) if cured else 0
    proven = cured and found.cost <= cost_bound
    bounds = (*diagnosis.floors, cost_bound, None, None)
    stages = tuple(
        StageValue(
            name=name,
            value=getattr(found, name),
            bound=getattr(found, name) if bound is None else bound,
            seconds=stop.elapsed(),
        )
        for name, bound in zip(STAGES, bounds, strict=True)
    )
    status = UNCHANGED if not best.moved else OPTIMAL if proven else FEASIBLE
    return Solution(
        at=best.at.copy(),
        first=first,
        values=found,
        stages=stages,
        status=status,
        moves=len(best.moved),
        moves_bound=moves_bound,
        cost_bound=cost_bound,
        proven=bool(proven) if best.moved else bool(np.array_equal(best.at, best.problem.home) and cured),
    )
