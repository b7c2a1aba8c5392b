"""What room is worth: a node's best receipts at given prices, as a knapsack over two resources.

A node may also make room by ejecting whatever it likes, any number of times: that it must have it is left out, which
makes room worth more and bounds lower.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rebalancer.placement.flavours import Flavours, Grid
from rebalancer.placement.groups import Ints

Floats = NDArray[np.float64]

EPSILON = 1e-9


class Deal(NamedTuple):
    """What one node does: (flavour, how many) that leave at this cost, and (size, how many) that arrive."""

    cost: int
    shed: tuple[tuple[int, int], ...]
    received: tuple[tuple[int, int], ...]


class Worth:
    """table[room0, room1] on one kind of node, in units of the grid, and the deals behind it."""

    def __init__(self, goods: Flavours, kind: int, grid: Grid, prices: Floats) -> None:
        self.goods = goods
        self.shape = (int(grid.top[0]) + 1, int(grid.top[1]) + 1)
        self.table = np.zeros(self.shape)
        self.received = np.full(self.shape, -1, dtype=np.int64)
        self.ejected = np.full(self.shape, -1, dtype=np.int64)
        welcome = goods.welcome[:, kind]
        dearest = np.zeros(len(goods.sizes))
        np.maximum.at(dearest, goods.size[welcome], prices[welcome])
        for size in np.flatnonzero(dearest > EPSILON).tolist():
            self._receive(size, float(dearest[size]))
        self._eject(prices)

    def _receive(self, size: int, price: float) -> None:
        """One more size of the unbounded knapsack."""
        first, second = (int(amount) for amount in self.goods.sizes[size])
        assert first or second, "any number of what takes no room fits"
        table, width = self.table, self.shape[1] - second
        for row in range(first, self.shape[0]) if width > 0 else ():
            # Without a first dimension the row builds on itself, from left to right.
            for part in [slice(0, width)] if first else [slice(at, at + 1) for at in range(width)]:
                gain = table[row - first, part] + price
                there = slice(part.start + second, part.stop + second)
                better = gain > table[row, there] + EPSILON
                if better.any():
                    table[row, there][better] = gain[better]
                    self.received[row, there][better] = size

    def _eject(self, prices: Floats) -> None:
        """What is worth more once something has made way; an empty node has nothing to eject."""
        goods = self.goods
        rows, columns = np.indices(self.shape)
        changed = True
        while changed:
            changed = False
            for flavour in range(goods.ejectable, len(prices)):
                row = np.minimum(rows + int(goods.leaves[flavour, 0]), self.shape[0] - 1)
                column = np.minimum(columns + int(goods.leaves[flavour, 1]), self.shape[1] - 1)
                gain = self.table[row, column] - (goods.cost[flavour] + prices[flavour])
                better = gain > self.table + EPSILON
                if better.any():
                    changed = True
                    self.table[better] = gain[better]
                    self.ejected[better] = flavour

    def of(self, rooms: Ints) -> Floats:
        """[..] of rooms[.., 2] in units; more than an empty node's is worth no more."""
        at = np.clip(rooms, 0, np.array(self.shape) - 1)
        worth: Floats = self.table[at[..., 0], at[..., 1]]
        return worth

    def deal(self, room: Ints) -> Deal:
        """The deal by which a room is worth so much."""
        row, column = (int(at) for at in np.clip(room, 0, np.array(self.shape) - 1))
        shed: dict[int, int] = {}
        received: dict[int, int] = {}
        while (flavour := int(self.ejected[row, column])) >= 0:
            shed[flavour] = shed.get(flavour, 0) + 1
            row = min(row + int(self.goods.leaves[flavour, 0]), self.shape[0] - 1)
            column = min(column + int(self.goods.leaves[flavour, 1]), self.shape[1] - 1)
        while (size := int(self.received[row, column])) >= 0:
            received[size] = received.get(size, 0) + 1
            row, column = row - int(self.goods.sizes[size, 0]), column - int(self.goods.sizes[size, 1])
        cost = sum(int(self.goods.cost[flavour]) * count for flavour, count in shed.items())
        return Deal(cost, tuple(sorted(shed.items())), tuple(sorted(received.items())))
