"""Bounds for plans that cure less than the best placement does, because no order of moves leads there."""

from __future__ import annotations

import numpy as np

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.cures import diagnose, relaxed_cost
from rebalancer.placement.index import Index
from rebalancer.placement.model import Model
from rebalancer.placement.objective import Values, values
from rebalancer.placement.problem import Problem
from rebalancer.placement.solve import WHOLE
from rebalancer.placement.stop import Stop

WORK = 0.5
"""Deterministic time for one stage of a small problem's model, about seconds."""


def cost_bound(problem: Problem, cured: Values, stop: Stop, seed: int = 0) -> int:
    """A lower bound on the cost of every placement with as few violations and as little overload as `cured`.

    Small problems are asked as a whole, so the bound is nearly always what such placements do cost, in whatever order;
    not where no time is given for any search.
    """
    index = Index(problem)
    floors = diagnose(index, keep=1).floors
    found = relaxed_cost(index, max(0, cured.violations - floors[0]), max(0, cured.over_low - floors[2]))
    return max(found, _asked_whole(index, cured, stop, seed)) if stop.seconds else found


def _asked_whole(index: Index, cured: Values, stop: Stop, seed: int) -> int:
    problem = index.problem
    nodes = {row: np.flatnonzero(mask).tolist() for row, mask in enumerate(problem.allowed)}
    free = {item: nodes[int(problem.klass[item])] for item in np.flatnonzero(problem.movable).tolist()}
    if not free or sum(len(options) for options in free.values()) > WHOLE:
        return 0
    start = Assignment(index)
    least = Model(start, free).solve(("violations",), WORK, stop, seed)
    if least.at is None:
        return 0
    # The model leaves out violations that nothing can change. They are at least so many, so the limit is not too tight.
    constant = values(Assignment(index, least.at)).violations - least.values["violations"]
    model = Model(start, free)
    model.limit("violations", cured.violations - constant)
    model.limit("over_low", cured.over_low)
    return model.solve(("cost",), WORK, stop, seed).bounds.get("cost", 0)
