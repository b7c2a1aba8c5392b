"""The search as a whole: first plans, bounds, improvement, proof."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.cures import diagnose, relaxed_cost
from rebalancer.placement.fits import Fit
from rebalancer.placement.greedy import greedy
from rebalancer.placement.groups import Ints
from rebalancer.placement.index import Index
from rebalancer.placement.lns import improve
from rebalancer.placement.model import STAGES as MODEL_STAGES
from rebalancer.placement.model import Model, Result
from rebalancer.placement.objective import Values, least_tastes, values
from rebalancer.placement.polish import polish
from rebalancer.placement.prices import NEAR, price
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
    `first_seconds`: when the first plan was there, on the stop's clock. `interrupted`: a word or the clock has ended
    the search, and not proof or its limit of counted work; another run may find another plan.
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
    first_seconds: float = 0.0
    interrupted: bool = False

    @property
    def gap(self) -> float:
        """(cost - bound) / cost, 0.0 without moves."""
        cost = self.values.cost
        return max(0.0, (cost - self.cost_bound) / cost) if cost else 0.0


FITS: tuple[Fit, ...] = ("worst", "best")
"""The portfolio of first plans; the emptiest receivers first, as they even out the load."""
CURES = ("violations", "over_high", "over_low")

PRICING, SEARCH = 0.2, 0.3
"""The parts of the limit that may be spent on prices, and on each of whole models and neighbourhoods."""
WHOLE = 6_000
"""Booleans up to which a problem is solved as one model, with every item free to go wherever its class allows."""


def solve(problem: Problem, stop: Stop, seed: int = 0) -> Solution:
    """A placement that is nowhere worse than staying, and the best that is found until `stop`."""
    return _Search(problem, stop, seed).run()


class _Search:
    """First plans, then whatever closes the gap between the best of them and the bounds."""

    def __init__(self, problem: Problem, stop: Stop, seed: int) -> None:
        self.problem, self.stop, self.seed = problem, stop, seed
        self.index = Index(problem)
        self.diagnosis = diagnose(self.index)
        self.best = Assignment(self.index)
        self.first = self.reached = values(self.best)
        self.floors = self.diagnosis.floors
        self.priced = 0
        self.learned: int | None = None
        self.least = least_tastes(problem)
        self.first_seconds = 0.0

    def run(self) -> Solution:
        for fit in FITS:
            self.offer(greedy(self.index, self.diagnosis, fit, self.stop))
            self.first_seconds = self.first_seconds or self.stop.elapsed()
            if self.proven() or self.stop.interrupted:
                break
        for step in (self._price, self._whole, self._improve):
            if not self.proven() and not self.stop:
                step()
        polished = Assignment(self.index, self.best.at)
        polish(polished, self.stop)
        self.offer(polished)
        return self._solution()

    def offer(self, plan: Assignment) -> None:
        """Take a plan if it is better than the best one."""
        found = values(plan)
        if found < self.reached:
            self.best, self.reached = plan, found

    def _cures(self) -> tuple[int, int, int]:
        return self.reached.violations, self.reached.over_high, self.reached.over_low

    def cured(self) -> bool:
        """Whether violations and overload are down to what no plan can undercut."""
        return all(value <= floor for value, floor in zip(self._cures(), self.floors, strict=True))

    def proven(self) -> bool:
        """Whether violations, overload and cost cannot be lower."""
        return self.cured() and self.reached.cost <= self.bound()

    def bound(self) -> int:
        """The best bound on the cost of plans that cure as much as the best one."""
        nodes = (self.diagnosis.cost, self.priced) if self._at_first_floors() else ()
        return max(0, self.learned or 0, *nodes)

    def _at_first_floors(self) -> bool:
        """Whether that is even what the nodes looked at one by one come down to."""
        return all(value <= floor for value, floor in zip(self._cures(), self.diagnosis.floors, strict=True))

    def _price(self) -> None:
        """The bound that knows what room costs, where the nodes' own cures say too little, and plans that aim at it."""
        work = PRICING * self.stop.seconds
        enough = self.reached.cost if self._at_first_floors() else None
        self.priced, aimed = price(self.index, self.diagnosis, enough, stop=self.stop, work=work)
        for fit in FITS:
            if not self.proven():
                self.offer(greedy(self.index, aimed, fit, self.stop))

    def _improve(self) -> None:
        """Neighbourhoods, until the cost is so near to the bound that the search may rest."""
        enough = int(self.bound() * (1 + NEAR))
        work = SEARCH * self.stop.seconds
        self.offer(improve(self.best, self.diagnosis, enough, stop=self.stop, work=work, seed=self.seed))

    def _whole(self) -> None:
        """Small problems at once, with proof."""
        problem = self.problem
        nodes = {row: np.flatnonzero(mask).tolist() for row, mask in enumerate(problem.allowed)}
        free = {item: nodes[int(problem.klass[item])] for item in np.flatnonzero(problem.movable).tolist()}
        if sum(len(options) for options in free.values()) > WHOLE:
            return
        result = Model(self.best, free).solve(MODEL_STAGES, SEARCH * self.stop.seconds, self.stop, self.seed)
        if result.at is None:
            return
        self.offer(Assignment(self.index, result.at))
        if all(
            getattr(self.reached, stage) == getattr(values(Assignment(self.index, result.at)), stage)
            for stage in result.values
        ):
            self._learn(result)

    def _learn(self, result: Result) -> None:
        """The bounds of a model of the whole problem, whose plan is the best one: what it left out is constant."""
        slack = {stage: result.values[stage] - result.bounds[stage] for stage in result.values}
        cure = [
            max(f, getattr(self.reached, s) - slack.get(s, 1 << 60)) for f, s in zip(self.floors, CURES, strict=True)
        ]
        self.floors = (cure[0], cure[1], cure[2])
        if "cost" in slack and self.cured():
            self.learned = self.reached.cost - slack["cost"]

    def _solution(self) -> Solution:
        reached = self.reached
        if self.learned is None and not self._at_first_floors():
            floors = self.diagnosis.floors
            missed = (reached.violations - floors[0], reached.over_low - floors[2])
            self.learned = relaxed_cost(self.index, max(0, missed[0]), max(0, missed[1]))
        cost_bound = min(self.bound(), reached.cost)
        most = int(self.problem.cost[self.problem.movable].max(initial=1))
        moves_bound = -(-cost_bound // most)
        if self._at_first_floors():
            moves_bound = max(moves_bound, self.diagnosis.moves)
        proven = self.proven()
        bounds = (*(min(f, getattr(reached, s)) for f, s in zip(self.floors, CURES, strict=True)), cost_bound)
        stages = tuple(
            StageValue(name=name, value=getattr(reached, name), bound=bound, seconds=self.stop.elapsed())
            for name, bound in zip((*CURES, "cost"), bounds, strict=True)
        )
        stages += tuple(
            StageValue(name=name, value=getattr(reached, name), bound=self.least[name], seconds=self.stop.elapsed())
            for name in ("preferred", "evenness")
        )
        status = UNCHANGED if not self.best.moved else OPTIMAL if proven else FEASIBLE
        return Solution(
            at=self.best.at.copy(),
            first=self.first,
            values=reached,
            stages=stages,
            status=status,
            moves=len(self.best.moved),
            moves_bound=min(moves_bound, len(self.best.moved)),
            cost_bound=cost_bound,
            proven=proven,
            first_seconds=self.first_seconds,
            interrupted=self.stop.interrupted,
        )
