"""A bound for tight clusters: room has a price.

The nodes' own cures bound a plan badly where receivers have little room: large items hardly find a place, and several
small ones, or ejections, must do instead. Here every flavour of item has a price that whoever sheds one pays on top of
the move, and that whoever receives one earns. For any prices, the nodes' best deals, each looked at alone, add up to a
lower bound (Lagrange); good prices are found by cutting planes. Receivers are asked exactly, as knapsacks over two
resources; rules and classes are left out, and a receiver may eject any flavour any number of times. All that only
lowers the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray
from ortools.linear_solver import pywraplp

from rebalancer.placement.cures import Cure, Diagnosis, mobile_items
from rebalancer.placement.groups import Ints
from rebalancer.placement.index import Index
from rebalancer.placement.stop import Stop

Floats = NDArray[np.float64]

STEPS = 40
"""Prices that are tried; the bound hardly moves after that."""
NEAR = 1e-4
"""A bound that is so close to the best plan's cost is good enough."""
CELLS = 4_000
"""The largest table of room; finer units than fit it are rounded, in the direction that lowers the bound."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flavours:
    """Sizes in units of room, as they enter (rounded down) and as they leave (rounded up), and the cost of a move."""

    enters: Ints
    leaves: Ints
    cost: Ints


def price_bound(index: Index, diagnosis: Diagnosis, reached: int, stop: Stop) -> int:
    """A lower bound on the cost of every plan that brings all hot nodes to low; `reached` is the best plan's cost.

    Kelley's method: each prices that were tried cap what any prices can give, linearly; the next ones are the best
    under all caps, not too far from the best so far (GLOP).
    """
    market = _Market(index, diagnosis)
    if not market.open:
        return 0
    centre = np.zeros(len(market.flavours.cost))
    reach = np.maximum(30.0, 20.0 * market.flavours.enters[:, 0])
    best, surplus = market.deals(centre)
    caps = [(best, surplus, centre)]
    for _ in range(STEPS):
        if stop or best >= reached * (1 - NEAR):
            break
        promised, prices = _highest(caps, np.maximum(0.0, centre - reach), centre + reach)
        inside = bool((np.abs(prices - centre) < reach * (1 - 1e-6)).all())
        if promised - best < 1 and inside:
            break
        prices = market.tamed(prices)
        value, surplus = market.deals(prices)
        caps.append((value, surplus, prices))
        reach = reach * (1.5 if value - best > 0.5 * (promised - best) else 0.9)
        if value > best:
            best, centre = value, prices
    return int(np.ceil(min(best, reached) - 1e-6))


def _highest(caps: list[tuple[float, Floats, Floats]], lowest: Floats, most: Floats) -> tuple[float, Floats]:
    """The highest value under all caps, and prices in their box that have it."""
    solver = pywraplp.Solver.CreateSolver("GLOP")
    value = solver.NumVar(-solver.infinity(), solver.infinity(), "")
    prices = [solver.NumVar(float(low), float(high), "") for low, high in zip(lowest, most, strict=True)]
    for height, slope, at in caps:
        cap = solver.Constraint(-solver.infinity(), float(height - (slope * at).sum()))
        cap.SetCoefficient(value, 1.0)
        for price, factor in zip(prices, slope.tolist(), strict=True):
            cap.SetCoefficient(price, -factor)
    solver.Maximize(value)
    solver.Solve()
    return value.solution_value(), np.array([price.solution_value() for price in prices])


class _Market:
    """All nodes with their room in units, and the hot ones with what they must shed."""

    def __init__(self, index: Index, diagnosis: Diagnosis) -> None:
        problem = self.problem = index.problem
        mobile = np.array(mobile_items(problem), dtype=bool)
        rows = np.concatenate([problem.demand[mobile, :2], problem.bystanders[:, :2]])
        costs = np.concatenate([problem.cost[mobile], problem.bystanders[:, -1]])
        self.open = len(rows) > 0 and bool((rows[:, 0] > 0).all())
        if not self.open:
            return
        sizes, inverse = np.unique(rows, axis=0, return_inverse=True)
        cost = np.full(len(sizes), np.iinfo(np.int64).max)
        np.minimum.at(cost, inverse.ravel(), costs)
        self.unit = np.array([max(1, gcd(*(int(size) for size in sizes[:, r]))) for r in (0, 1)], dtype=np.int64)
        hot = set(np.flatnonzero(problem.hot[:, 0]).tolist())
        free = np.maximum(problem.ceiling[:, :2] - problem.start[:, :2], 0)
        self._set_grid(sizes, free)
        self.flavours = Flavours(enters=sizes // self.unit, leaves=-(-sizes // self.unit), cost=cost)
        number = {tuple(size): f for f, size in enumerate(sizes.tolist())}
        spare = problem.ceiling[:, :2] - problem.start[:, :2]
        self.sellers: list[tuple[int, int, Ints]] = []
        self.others = 0
        selling = np.zeros(problem.nodes, dtype=bool)
        for cure in diagnosis.cures:
            items = [item for item in index.at_home(cure.node) if mobile[item]]
            have = np.bincount([number[tuple(problem.demand[i, :2].tolist())] for i in items], minlength=len(sizes))
            need = int(problem.start[cure.node, 0] - problem.low[cure.node, 0])
            if cure.node in hot and not cure.forced and need <= int((have * sizes[:, 0]).sum()):
                room = int(min(-(-free[cure.node, 1] // self.unit[1]), self.top[1]))
                whole = need // int(self.unit[0]) if self.coarse[0] else -(-need // int(self.unit[0]))
                self.sellers.append((whole, room, have))
                selling[cure.node] = True  # its room is part of its deal
            else:
                self.others += cure.bound
                spare[cure.node] += self._made_room(cure, items, bool(problem.hot[cure.node].any()))
        spare = np.maximum(spare[~selling], 0)
        rooms = np.where(self.coarse, -(-spare // self.unit), spare // self.unit)
        rooms[:, 1] = np.minimum(rooms[:, 1], self.top[1])
        self.rooms, self.how_many = np.unique(rooms, axis=0, return_counts=True)

    def _made_room(self, cure: Cure, items: list[int], hot: bool) -> Ints:
        """The most room that a node's cure makes: of a hot one all its items', else that of the largest it may take."""
        sizes = self.problem.demand[items, :2]
        most = max((len(chosen) for _, chosen in cure.sheds.options), default=0) + len(cure.forced)
        if hot or most >= len(items):
            made: Ints = sizes.sum(axis=0)
        else:
            made = np.sort(sizes, axis=0)[::-1][:most].sum(axis=0)
        return made

    def _set_grid(self, sizes: Ints, free: Ints) -> None:
        """`top` is the last cell of the table; coarser units where it would be too large."""
        finest = self.unit
        while True:
            largest = -(-sizes.max(axis=0) // self.unit)
            roomiest = -(-int(free[:, 0].max(initial=0)) // int(self.unit[0]))
            first = min(roomiest, 3 * int(largest[0])) + 2 * int(largest[0])
            # More of the second resource than the items that fit by the first can use is of no use.
            useful = first * int(self.unit[0]) * float((sizes[:, 1] / sizes[:, 0]).max())
            self.top = np.array([first, int(useful / int(self.unit[1])) + 1], dtype=np.int64)
            if (self.top[0] + 1) * (self.top[1] + 1) <= CELLS:
                self.coarse = self.unit != finest
                return
            self.unit = self.unit * (np.array([1, 2]) if self.top[1] > self.top[0] else np.array([2, 1]))

    def tamed(self, prices: Floats) -> Floats:
        """Prices at which ejecting never pays per unit of room: only then is what is beyond the table bounded."""
        size = np.maximum(self.flavours.enters[:, 0], 1)
        for _ in range(20):
            earns, pays = self._per_unit(prices)
            if pays >= earns:
                return prices
            prices = np.minimum(prices, pays * size)
        return np.zeros_like(prices)

    def _per_unit(self, prices: Floats) -> tuple[float, float]:
        """The most that a unit of room can earn, and the least that making one by shedding costs."""
        size = np.maximum(self.flavours.enters[:, 0], 1)
        earns = float((prices / size).max(initial=0))
        return earns, float(((self.flavours.cost + prices) / self.flavours.leaves[:, 0]).min(initial=np.inf))

    def deals(self, prices: Floats) -> tuple[float, Floats]:
        """(the sum of all nodes' best deals, by flavour how many more are shed than received in them)."""
        worth, taken = self._receive(prices)
        at = (np.minimum(self.rooms[:, 0], self.top[0]), self.rooms[:, 1])
        earned = self._beyond(self.rooms[:, 0], worth[at], prices)
        value = self.others - float((earned * self.how_many).sum())
        surplus = -(taken[at] * self.how_many[:, None]).sum(axis=0).astype(np.float64)
        for seller in self.sellers:
            best, counts = self._shed(seller, prices, worth, taken)
            value += best
            surplus += counts
        return value, surplus

    def _receive(self, prices: Floats) -> tuple[Floats, Ints]:
        """worth[room0, room1] of the best deal of a node with so much room, and its receipts less its ejections."""
        shape = (int(self.top[0]) + 1, int(self.top[1]) + 1)
        worth, taken = np.zeros(shape), np.zeros((*shape, len(prices)), dtype=np.int64)
        for flavour in np.argsort(-prices / np.maximum(self.flavours.enters[:, 0], 1)).tolist():
            if prices[flavour] <= 0:
                continue
            first, second = (int(size) for size in self.flavours.enters[flavour])
            while (first or second) and first < shape[0] and second < shape[1]:
                gain = worth[: shape[0] - first, : shape[1] - second] + prices[flavour]
                better = gain > worth[first:, second:] + 1e-9
                if not better.any():
                    break
                worth[first:, second:][better] = gain[better]
                source = taken[: shape[0] - first, : shape[1] - second][better].copy()
                source[:, flavour] += 1
                taken[first:, second:][better] = source
        rows, columns = np.indices(shape)
        for _ in range(3):
            changed = False
            for flavour in range(len(prices)):
                first, second = (int(size) for size in self.flavours.leaves[flavour])
                at = (np.minimum(rows + first, shape[0] - 1), np.minimum(columns + second, shape[1] - 1))
                earned = self._beyond(rows + first, worth[at], prices)
                gain = earned - (self.flavours.cost[flavour] + prices[flavour])
                better = gain > worth + 1e-9
                if better.any():
                    changed = True
                    worth = np.where(better, gain, worth)
                    counts = taken[at].copy()
                    counts[..., flavour] -= 1
                    taken[better] = counts[better]
            if not changed:
                break
        return worth, taken

    def _beyond(self, rows: Ints, worth: Floats, prices: Floats) -> Floats:
        """What room is worth beyond the table: no more than its best price per unit (prices are tamed)."""
        beyond: Floats = np.where(rows > int(self.top[0]), np.maximum(worth, self._per_unit(prices)[0] * rows), worth)
        return beyond

    def _shed(self, seller: tuple[int, int, Ints], prices: Floats, worth: Floats, taken: Ints) -> tuple[float, Floats]:
        """The best deal of a hot node: what leaves, less what it then has room to receive."""
        need, room, have = seller
        spare = min(2 * int(self.flavours.leaves[:, 0].max()), int(self.top[0]))
        cost = np.full((need + spare + 1, int(self.top[1]) + 1), np.inf)
        cost[0, room] = 0.0
        layers: list[tuple[int, Floats, Floats]] = []
        for flavour in np.flatnonzero(have).tolist():
            first, second = (int(size) for size in self.flavours.leaves[flavour])
            price = float(self.flavours.cost[flavour] + prices[flavour])
            for _ in range(min(int(have[flavour]), -(-(need + spare) // max(first, 1)))):
                shifted = _shift(cost, first, second) + price
                layers.append((flavour, cost, shifted))
                cost = np.minimum(cost, shifted)
        deal = cost[need:, :] - worth[: spare + 1, :]
        # The last row stands for whoever sheds even more: paying `pays` per unit for it, and earning `earns` at most.
        earns, pays = self._per_unit(prices)
        last = cost[-1, :]
        finite = np.isfinite(last)
        deal[-1, finite] = last[finite] - earns * np.maximum(0.0, last[finite] / pays - need)
        best, column = (int(at) for at in np.unravel_index(int(deal.argmin()), deal.shape))
        counts = -taken[best, column].astype(np.float64)
        self._trace(layers, need + best, column, counts)
        return float(deal[best, column]), counts

    def _trace(self, layers: list[tuple[int, Floats, Floats]], row: int, column: int, counts: Floats) -> None:
        """Count what left on the way to a cell; cells at an end may have been reached from several, any will do."""
        for flavour, before, shifted in reversed(layers):
            if shifted[row, column] < before[row, column]:
                counts[flavour] += 1
                first, second = (int(size) for size in self.flavours.leaves[flavour])
                rows = range(max(0, row - first), row + 1) if row == before.shape[0] - 1 else (row - first,)
                columns = (
                    range(max(0, column - second), column + 1) if column == before.shape[1] - 1 else (column - second,)
                )
                row, column = min(((r, c) for r in rows for c in columns), key=lambda cell: before[cell])


def _shift(table: Floats, first: int, second: int) -> Floats:
    """The table moved by so many rows and columns; what would fall over the ends is kept in the last ones."""
    shape = table.shape
    moved = np.full(shape, np.inf)
    moved[first:, second:] = table[: shape[0] - first, : shape[1] - second]
    moved[first:, -1] = np.minimum(moved[first:, -1], table[: shape[0] - first, shape[1] - second - 1 :].min(axis=1))
    last = table[shape[0] - first - 1 :, :].min(axis=0)
    moved[-1, second:] = np.minimum(moved[-1, second:], last[: shape[1] - second])
    moved[-1, -1] = min(moved[-1, -1], float(last[shape[1] - second - 1 :].min()))
    return moved
