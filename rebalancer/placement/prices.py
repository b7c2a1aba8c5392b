"""A bound for tight clusters, and what to aim at: room has a price.

The nodes' own cures bound a plan badly where receivers have little room: large items hardly find a place, and several
small ones, or ejections, must do instead. Good prices of room are found by column generation (Dantzig and Wolfe, 1960):
a linear program mixes the deals that are known so far, its dual values are the next prices, and the nodes' best deals
at these prices bound every plan (Lagrange) and join the program. What it mixes in the end says which items each sick
node had best shed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ortools.linear_solver import pywraplp

from rebalancer.placement.cures import Cure, Diagnosis
from rebalancer.placement.index import Index
from rebalancer.placement.market import Market
from rebalancer.placement.stop import Stop
from rebalancer.placement.worth import Deal, Floats

STEPS = 40
"""Prices that are tried; the bound hardly moves after that."""
CELL = 2e-8
"""Counted work per cell of a table that is looked at."""
NEAR = 1e-4
"""A bound that is so close to the best plan's cost is good enough."""


class _Master:
    """The linear program over known deals: each seller makes one, each kind of room one per node at most."""

    def __init__(self, market: Market) -> None:
        self.solver = solver = pywraplp.Solver.CreateSolver("GLOP")
        goods, infinity = market.goods, solver.infinity()
        self.others = market.others
        self.leaving = [solver.Constraint(-infinity, 0.0) for _ in goods.cost]
        self.arriving = [[solver.Constraint(-infinity, 0.0) for _ in goods.sizes] for _ in range(goods.kinds)]
        self.sellers = [solver.Constraint(1.0, 1.0) for _ in market.nodes]
        self.rooms = [solver.Constraint(-infinity, float(count)) for count in market.how_many.tolist()]
        self.kinds = [int(goods.kind[node]) for node in market.nodes], market.rooms[:, 0].tolist()
        self.bulky = goods.sizes[goods.size].any(axis=1)  # what counts as taking no room can have no price
        self.objective = solver.Objective()
        self.objective.SetMinimization()
        self.known: dict[tuple[bool, int, Deal], pywraplp.Variable] = {}
        self.solved = False
        self._connect(market)

    def _connect(self, market: Market) -> None:
        """Whoever leaves arrives at some kind of node, or nowhere, which is dear."""
        goods, infinity = market.goods, self.solver.infinity()
        dearest, mean = 2.0 * float(goods.cost.max()), max(float(goods.sizes[:, 0].mean()), 1.0)
        for flavour, row in enumerate(self.leaving):
            size = int(goods.size[flavour])
            nowhere = self.solver.NumVar(0.0, infinity, "")
            row.SetCoefficient(nowhere, -1.0)
            self.objective.SetCoefficient(nowhere, dearest * max(1.0, int(goods.sizes[size, 0]) / mean))
            for kind in np.flatnonzero(goods.welcome[flavour]).tolist():
                going = self.solver.NumVar(0.0, infinity, "")
                row.SetCoefficient(going, -1.0)
                self.arriving[kind][size].SetCoefficient(going, 1.0)

    def add(self, sells: bool, number: int, deal: Deal) -> None:
        """A deal of the seller, or of the kind of room, with this number."""
        if (sells, number, deal) in self.known or not (sells or deal.received):
            return
        share = self.solver.NumVar(0.0, self.solver.infinity(), "")
        self.known[sells, number, deal] = share
        (self.sellers if sells else self.rooms)[number].SetCoefficient(share, 1.0)
        self.objective.SetCoefficient(share, float(deal.cost))
        for flavour, count in deal.shed:
            self.leaving[flavour].SetCoefficient(share, float(count))
        kind = self.kinds[0 if sells else 1][number]
        for size, count in deal.received:
            self.arriving[kind][size].SetCoefficient(share, -float(count))

    def solve(self) -> tuple[float, Floats]:
        """(the value of the best mix, the price of each flavour)."""
        self.solver.Solve()
        self.solved = True
        prices = np.array([max(0.0, -row.dual_value()) for row in self.leaving]) * self.bulky
        return self.objective.Value() + self.others, prices

    def favourites(self) -> dict[int, Deal]:
        """The deal of each seller of which the mix holds most, once there is a mix."""
        best: dict[int, tuple[float, Deal]] = {}
        for (sells, number, deal), share in self.known.items() if self.solved else ():
            if sells and share.solution_value() > best.get(number, (0.0, deal))[0]:
                best[number] = share.solution_value(), deal
        return {number: deal for number, (_, deal) in best.items()}


def price(index: Index, diagnosis: Diagnosis, enough: int | None, *, stop: Stop, work: float) -> tuple[int, Diagnosis]:
    """A lower bound on the cost of plans that cure everything, and the diagnosis with the cures to try first.

    `enough` is what a plan costs that cures everything, where one is known: the bound need be no higher. `work` is how
    much counted work it may spend.
    """
    until = stop.spent + work
    market = Market(index, diagnosis)
    if not market.open:
        return 0, diagnosis
    master = _Master(market)
    _first_deals(market, master)
    prices = centre = np.zeros(len(market.goods.cost))
    best, promised = 0.0, np.inf
    for _ in range(STEPS):
        value, sales, receipts = market.deals(prices)
        stop.spend(CELL * market.cells)
        if value > best:
            best, centre = value, prices
        if stop or stop.spent >= until or (enough is not None and best >= enough * (1 - NEAR)) or promised - best < 1:
            break
        for number, deal in enumerate(sales):
            master.add(True, number, deal)
        for number, deal in enumerate(receipts):
            master.add(False, number, deal)
        promised, prices = master.solve()
    best += market.surcharge(centre)
    favourites = master.favourites()
    cures = {market.nodes[number]: deal for number, deal in favourites.items()}
    aimed = [_aimed(index, market, cure, cures[cure.node]) if cure.node in cures else cure for cure in diagnosis.cures]
    return int(np.ceil(best - 1e-6)), replace(diagnosis, cures=tuple(aimed))


def _first_deals(market: Market, master: _Master) -> None:
    """What the cures propose, and receivers that prefer items up to each size, the largest of them."""
    for number, cure in enumerate(market.cures.values()):
        for option in range(max(1, len(cure.sheds.options))):
            flavours = market.goods.of[list(cure.option(option))]
            shed = tuple(
                (int(f), int(count)) for f, count in zip(*np.unique(flavours, return_counts=True), strict=True)
            )
            cost = int(market.goods.cost[flavours].sum())
            master.add(True, number, Deal(cost, shed, ()))
    first = market.goods.sizes[market.goods.size, 0]
    for most in np.unique(first[first > 0]).tolist():
        _, receipts, _ = market.receipts(np.where(first <= most, first**1.01, 0.0))
        for number, deal in enumerate(receipts):
            master.add(False, number, deal)


def _aimed(index: Index, market: Market, cure: Cure, deal: Deal) -> Cure:
    """The cure with the items of a deal as its first option: those who must leave, then those without rules first."""
    thin = {item for group in cure.thinnings for item in group.members}
    wanted = dict(deal.shed)
    chosen = []
    here = [item for item in index.at_home(cure.node) if market.mobile[item]]
    for item in sorted(
        here, key=lambda i: (i not in cure.forced, i not in thin, index.ruled(i), int(index.problem.cost[i]), i)
    ):
        flavour = int(market.goods.of[item])
        if wanted.get(flavour, 0) > 0:
            wanted[flavour] -= 1
            chosen.append(item)
    free = tuple(item for item in chosen if item not in cure.forced)
    cost = int(index.problem.cost[list(free)].sum())
    return replace(cure, sheds=replace(cure.sheds, options=((cost, free), *cure.sheds.options)))
