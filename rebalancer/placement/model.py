"""CP-SAT on a reduced model: some items are free to choose among a few nodes each, everything else stands still.

One boolean per free item and node, never per VM and node of the cluster. The stages of the objective are minimised one
after another, each held at what it reached before the next begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from ortools.sat.python import cp_model

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.constraints import Choices, Expr, goal_terms, keep_rules
from rebalancer.placement.groups import Ints
from rebalancer.placement.stop import Stop

RATE = 2.0
"""Counted work per unit of CP-SAT's deterministic time."""
BUILDING = 5e-5
"""What making a model costs per boolean, in counted work."""
STAGES = ("violations", "over_high", "over_low", "cost", "preferred")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """`at[I]` or None where nothing was found in time; values and bounds by stage, as far as the stages were solved.

    Values and bounds are those of the free items and of hot nodes: what cannot change is left out of both.
    """

    at: Ints | None
    values: Mapping[str, int]
    bounds: Mapping[str, int]
    proven: bool


class Model:
    """The reduced model around an incumbent placement.

    `candidates` are the free items with the nodes that each may choose, besides its home and where it is now.
    """

    def __init__(self, state: Assignment, candidates: Mapping[int, Sequence[int]]) -> None:
        self.state, self.problem = state, state.problem
        self.model = cp_model.CpModel()
        options = {
            item: sorted({*nodes, int(state.at[item]), int(self.problem.home[item])})
            for item, nodes in sorted(candidates.items())
        }
        self.choices = Choices(self.model, state, options)
        self._room()
        self._overload = self._overloads()
        keep_rules(self.choices)
        self._symmetries()
        self.terms = self._terms()

    def _room(self) -> None:
        """Whoever receives anything ends within its ceiling; amounts are divided by their greatest common divisor."""
        problem, choices = self.problem, self.choices
        guests = np.zeros_like(problem.capacity)
        there = sorted(self.state.moved - choices.of.keys())
        np.add.at(guests, self.state.at[there], problem.demand[there])
        for node, literals in choices.by_node.items():
            fixed = choices.fixed_load[node]
            for resource in range(problem.capacity.shape[1]):
                asking = [(item, x) for item, x in literals if problem.taken(item, node)[resource] > 0]
                taking = [x for item, x in asking if node != problem.home[item]]
                if not taking and not guests[node, resource]:
                    continue
                room = int(problem.ceiling[node, resource] - fixed[resource])
                amounts = [int(problem.taken(item, node)[resource]) for item, _ in asking]
                if sum(amounts) <= room:
                    continue
                unit = gcd(*amounts)
                load = cp_model.LinearExpr.weighted_sum([x for _, x in asking], [amount // unit for amount in amounts])
                if guests[node, resource] or problem.start[node, resource] <= problem.ceiling[node, resource]:
                    self.model.add(load <= room // unit)
                else:
                    some = self.model.new_bool_var("")
                    for x in taking:
                        self.model.add_implication(x, some)
                    self.model.add(load <= room // unit).only_enforce_if(some)

    def _overloads(self) -> dict[str, list[cp_model.IntVar]]:
        """Permille above high and above low, of each hot load."""
        problem, choices = self.problem, self.choices
        found: dict[str, list[cp_model.IntVar]] = {"over_high": [], "over_low": []}
        for node, resource in np.argwhere(problem.hot).tolist():
            literals = choices.by_node.get(node, [])
            scale = int(problem.scale[node, resource])
            fixed = int(choices.fixed_load[node][resource]) if literals else int(self.state.load[node, resource])
            load = cp_model.LinearExpr.weighted_sum(
                [x for _, x in literals], [int(problem.taken(item, node)[resource]) for item, _ in literals]
            )
            for name, limit in (("over_high", problem.high), ("over_low", problem.low)):
                most = max(0, -(-1000 * (int(problem.start[node, resource]) - int(limit[node, resource])) // scale))
                over = self.model.new_int_var(0, most, "")
                self.model.add(scale * over >= 1000 * (load + fixed - int(limit[node, resource])))
                found[name].append(over)
        return found

    def _symmetries(self) -> None:
        """Of items that differ in nothing, those with the lower number leave first."""
        problem, choices = self.problem, self.choices
        twins: dict[tuple[object, ...], int] = {}
        for item, options in choices.of.items():
            home = int(problem.home[item])
            if self.state.index.ruled(item) or home not in options:
                continue
            row = (problem.klass[item], problem.cost[item], problem.taste[item], problem.misplaced[item])
            size = (*problem.demand[item].tolist(), *problem.resting[item].tolist())
            key = (home, *row, size, tuple(options))
            if key in twins:
                self.model.add_implication(choices.of[twins[key]][home], options[home])
            twins[key] = item

    def _terms(self) -> dict[str, Expr]:
        problem, choices = self.problem, self.choices
        leaving = {item: 1 - options[int(problem.home[item])] for item, options in choices.of.items()}
        lost = []
        for item, options in choices.of.items():
            liking = problem.preference[problem.taste[item]]
            lost += [int(liking[problem.home[item]] - liking[node]) * x for node, x in options.items()]
        return {
            "violations": sum(goal_terms(choices)),
            "over_high": sum(self._overload["over_high"]),
            "over_low": sum(self._overload["over_low"]),
            "cost": sum(int(problem.cost[item]) * gone for item, gone in leaving.items()),
            "preferred": sum(lost),
        }

    def bound_costs(self, least: Mapping[int, int]) -> None:
        """Cuts: what leaves a node costs at least so much, in every solution that is wanted."""
        problem = self.problem
        for node, cost in least.items():
            here = [item for item in self.choices.of if problem.home[item] == node]
            gone = sum(int(problem.cost[item]) * (1 - self.choices.of[item][node]) for item in here)
            if here:
                self.model.add(gone >= cost)

    def limit(self, stage: str, most: int) -> None:
        """Want solutions only in which a stage is at most so much."""
        if not isinstance(self.terms[stage], int):
            self.model.add(self.terms[stage] <= most)

    def solve(self, stages: Sequence[str], work: float, stop: Stop, seed: int) -> Result:
        """Minimise the stages in order, with so much counted work in all, besides making the model."""
        values: dict[str, int] = {}
        bounds: dict[str, int] = {}
        best: Ints | None = None
        proven = True
        stop.spend(BUILDING * sum(len(options) for options in self.choices.of.values()))
        self._hint(self.state.at)
        for stage in stages:
            term = self.terms[stage]
            if isinstance(term, int):
                values[stage] = bounds[stage] = term
                best = self.state.at if best is None else best
                continue
            self.model.minimize(term)
            solver = self._solver(work, stop, seed)
            with stop.ending(solver.stop_search):
                status = solver.solve(self.model)
            done = RATE * solver.response_proto.deterministic_time
            work -= done
            stop.spend(done)
            if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
                return Result(at=best, values=values, bounds=bounds, proven=False)
            values[stage] = round(solver.objective_value)
            bounds[stage] = min(values[stage], int(np.ceil(solver.best_objective_bound - 1e-6)))
            proven = proven and status == cp_model.OPTIMAL
            best = self._read(solver)
            self.model.add(term <= values[stage])
            self._hint(best)
            if work <= 0 or stop:
                return Result(at=best, values=values, bounds=bounds, proven=proven and stage == stages[-1])
        return Result(at=best, values=values, bounds=bounds, proven=proven)

    def _solver(self, work: float, stop: Stop, seed: int) -> cp_model.CpSolver:
        """One worker with the LP in full: at two workers CP-SAT's defaults leave the bound at half."""
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.linearization_level = 2
        solver.parameters.cp_model_presolve = False
        solver.parameters.random_seed = seed
        solver.parameters.max_deterministic_time = max(work / RATE, 1e-3)
        solver.parameters.max_time_in_seconds = max(stop.patience(), 1e-3)
        return solver

    def _hint(self, at: Ints) -> None:
        self.model.clear_hints()  # type: ignore[no-untyped-call]
        for item, options in self.choices.of.items():
            for node, x in options.items():
                self.model.add_hint(x, bool(at[item] == node))

    def _read(self, solver: cp_model.CpSolver) -> Ints:
        at = self.state.at.copy()
        for item, options in self.choices.of.items():
            for node, x in options.items():
                if solver.boolean_value(x):
                    at[item] = node
        return at
