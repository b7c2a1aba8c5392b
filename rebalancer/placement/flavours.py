"""Kinds of items and of nodes for the price of room: sizes in whole units, and who may use which room.

Whatever is simplified here is simplified in the direction that lowers the bound: sizes are rounded down where an item
arrives and up where it leaves, and items of rare classes are welcome everywhere.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import reduce
from math import gcd

import numpy as np

from rebalancer.placement.groups import Bools, Ints
from rebalancer.placement.problem import Problem

CELLS = 4_000
"""The largest table of room."""
COLUMNS = 16
"""As coarse as the second resource becomes before the first one does; it seldom is what is short."""
ROWS = 8
"""Classes that are told apart."""
KINDS = 12
"""Kinds of nodes that are told apart; each costs a table."""
EVERYWHERE = -1
"""The row of items that count as welcome everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Tables of room: `unit[2]` of the first two resources, `top[2]` the last cell; `coarse[2]` where it is rounded.

    The last cell is an empty node's room: no more can be made by ejecting.
    """

    unit: Ints
    top: Ints
    coarse: Bools

    @classmethod
    def of(cls, sizes: Ints, empty: Ints) -> Grid:
        """As fine as can be for items of these sizes[S, 2], where the largest node has `empty[2]`."""
        finest = np.array([max(1, reduce(gcd, sizes[:, r].tolist())) for r in (0, 1)], dtype=np.int64)
        unit = finest.copy()
        while True:
            top = np.maximum(-(-empty // unit), 0)
            if (top[0] + 1) * (top[1] + 1) <= CELLS:
                return cls(unit=unit, top=top, coarse=unit != finest)
            unit = unit * (np.array([1, 2]) if top[1] > COLUMNS else np.array([2, 1]))

    def rooms(self, amounts: Ints) -> Ints:
        """amounts[.., 2] in units, negative ones too: rounded down where that loses nothing, else up."""
        units: Ints = np.where(self.coarse, -(-amounts // self.unit), amounts // self.unit)
        return units


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flavours:
    """Items that are alike, by number; those from `ejectable` on stand for whatever may make way on any node.

    `size[F]` is the row of sizes[Z, 2] that they take where they arrive, `leaves[F, 2]` what they free, in units;
    `cost[F]` is that of the cheapest move; `welcome[F, K]` says which kinds of nodes take a flavour; `of[I]` is the
    flavour of each item that is for sale, else -1; `kind[N]` that of each node.
    """

    sizes: Ints
    size: Ints
    leaves: Ints
    cost: Ints
    welcome: Bools
    ejectable: int
    of: Ints
    kind: Ints

    @property
    def kinds(self) -> int:
        return int(self.welcome.shape[1])


def flavours(problem: Problem, grid: Grid, mobile: Bools, for_sale: Bools) -> Flavours:
    """What the items at [I] that are for sale count as, and what all that are mobile count as where they make way."""
    kept, kind, columns = _kinds(problem, problem.klass[for_sale])
    rows = np.where(np.isin(problem.klass, kept), problem.klass, EVERYWHERE)
    sold = np.column_stack([rows, problem.demand[:, :2] // grid.unit, -(-problem.resting[:, :2] // grid.unit)])
    way = np.concatenate(
        [
            np.column_stack([problem.demand[mobile, :2], problem.resting[mobile, :2], problem.cost[mobile]]),
            problem.bystanders[:, [0, 1, 0, 1, -1]],
        ]
    )
    ejected = np.column_stack([way[:, :2] // grid.unit, -(-way[:, 2:4] // grid.unit)])
    first, cost, of = _alike(sold[for_sale], problem.cost[for_sale])
    second, more, _ = _alike(ejected, way[:, 4])
    welcome = [columns[kept.index(row)] if row != EVERYWHERE else columns[-1] for row in first[:, 0].tolist()]
    sizes, size = np.unique(np.concatenate([first[:, 1:3], second[:, :2]]), axis=0, return_inverse=True)
    number = np.full(problem.items, -1, dtype=np.int64)
    number[for_sale] = of
    return Flavours(
        sizes=sizes,
        size=size.ravel(),
        leaves=np.concatenate([first[:, 3:], second[:, 2:]]),
        cost=np.concatenate([cost, more]),
        welcome=np.concatenate([np.array(welcome), np.ones((len(second), columns.shape[1]), dtype=bool)]),
        ejectable=len(first),
        of=number,
        kind=kind,
    )


def _alike(rows: Ints, cost: Ints) -> tuple[Ints, Ints, Ints]:
    """(different rows, the least cost of each, which of them each row is)."""
    different, which = np.unique(rows, axis=0, return_inverse=True)
    least = np.full(len(different), np.iinfo(np.int64).max)
    np.minimum.at(least, which.ravel(), cost)
    return different, least, which.ravel()


def _kinds(problem: Problem, klass: Ints) -> tuple[list[int], Ints, Bools]:
    """(classes that are told apart, kind[N], columns[R + 1, K]: the kinds that each takes; the last row takes all)."""
    common = [row for row, _ in sorted(Counter(klass.tolist()).items(), key=lambda entry: (-entry[1], entry[0]))]
    for count in range(min(ROWS, len(common)), -1, -1):
        kept = sorted(common[:count])
        allowed = np.concatenate([problem.allowed[kept], np.ones((1, problem.nodes), dtype=bool)])
        columns, kind = np.unique(allowed, axis=1, return_inverse=True)
        if columns.shape[1] <= KINDS:
            break
    return kept, kind.ravel().astype(np.int64), columns
