"""The market of room: at given prices, every node's best deal, looked at alone.

Whoever sheds an item pays the price of its flavour on top of the move, and whoever receives it earns the price. Added
up, the nodes' best deals are a lower bound on the cost of every plan that cures all (Lagrange). What sick nodes must
shed is asked exactly over the first resource: how much, and who of those that break rules. All other rules are left
out, which only lowers the bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from rebalancer.placement.cures import Cure, Diagnosis, mobile_items
from rebalancer.placement.flavours import Grid, flavours
from rebalancer.placement.groups import Bools, Ints
from rebalancer.placement.index import Index
from rebalancer.placement.worth import EPSILON, Deal, Floats, Worth

VARIANTS = 16
"""Ways to choose who must leave a node that are told apart; rules beyond that are left out, which lowers the bound."""
TOGETHER = 400
"""Sellers that are looked at together, for memory's sake."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sellers:
    """Ways of the sick nodes to be cured, several of one seller each.

    `room[V]` of the first resource in units, once those have left who must leave, negative where more must; `must[V]`
    where it must not end so. `have[V, F]` is who else may leave, `gone[V, F]` who left, `cost[V]` what that cost;
    `of[V]` is the seller, `kind[V]` its kind of node.
    """

    room: Ints
    must: Bools
    have: Ints
    gone: Ints
    cost: Ints
    of: Ints
    kind: Ints


class Market:
    """All nodes with their room in units; sick ones sell as well.

    `nodes` are the sellers'; `others` is what cures cost that are not for sale: of nodes that are hot by another
    resource, or cannot be cured.
    """

    def __init__(self, index: Index, diagnosis: Diagnosis) -> None:
        problem = self.problem = index.problem
        self.index, self.wide = index, diagnosis.wide
        self.mobile = mobile_items(problem)
        self.cures = {cure.node: cure for cure in diagnosis.cures if self._sells(cure)}
        self.nodes = list(self.cures)
        sizes = np.concatenate(
            [problem.demand[self.mobile, :2], problem.resting[self.mobile, :2], problem.bystanders[:, :2]]
        )
        self.open = bool(self.cures) and problem.demand.shape[1] > 1
        if not self.open:
            return
        spare = problem.ceiling[:, :2] - problem.start[:, :2]
        self.grid = Grid.of(sizes, problem.ceiling[:, :2].max(axis=0))
        selling = np.zeros(problem.nodes, dtype=bool)
        selling[self.nodes] = True
        self.goods = flavours(problem, self.grid, self.mobile, self.mobile & selling[problem.home])
        self.units = self.grid.rooms(spare)
        self.sellers = self._sellers([(cure, ()) for cure in self.cures.values()])
        self.others = 0
        for cure in diagnosis.cures:
            if cure.node not in self.cures:
                self.others += cure.bound
                leaving = [item for item in index.at_home(cure.node) if self.mobile[item]]
                spare[cure.node] += problem.resting[leaving, :2].sum(axis=0)
        # Where there is less than none, something may be ejected: that counts as none.
        rooms = np.clip(self.grid.rooms(spare), 0, self.grid.top)
        told = np.column_stack([self.goods.kind, rooms])[~selling]
        self.rooms, self.how_many = np.unique(told, axis=0, return_counts=True)

    @property
    def cells(self) -> int:
        """Cells of tables that one look at all deals takes."""
        rooms = self.goods.kinds * int((self.grid.top + 1).prod()) * (len(self.goods.cost) + len(self.goods.sizes))
        sizes, have = self.goods.leaves[: self.goods.ejectable, 0], self.sellers.have
        return rooms + len(have) * int((have * sizes).sum(axis=1).max(initial=0)) * int(have.max(axis=0).sum())

    def _sells(self, cure: Cure) -> bool:
        """Whether a node can be cured, and is hot by nothing but the first resource."""
        problem, node = self.problem, cure.node
        mine = [item for item in self.index.at_home(node) if self.mobile[item]]
        need = int(problem.start[node, 0] - problem.low[node, 0])
        return not problem.hot[node, 1:].any() and (
            not problem.hot[node, 0] or need <= int(problem.resting[mine, 0].sum())
        )

    def _sellers(self, cures: Iterable[tuple[Cure, tuple[int, ...]]]) -> Sellers:
        """The ways of these cures, each with some items that leave in any case."""
        goods = self.goods
        ways = [(n, cure, leaving) for n, (cure, also) in enumerate(cures) for leaving in self._leaving(cure, also)]
        nodes = [cure.node for _, cure, _ in ways]
        here = {node: goods.of[self.index.at_home(node)] for node in set(nodes)}
        all_here: Ints = np.array(
            [np.bincount(here[node][here[node] >= 0], minlength=goods.ejectable) for node in nodes]
        )
        gone: Ints = np.array(
            [np.bincount(goods.of[list(leaving)], minlength=goods.ejectable) for _, _, leaving in ways]
        )
        return Sellers(
            room=self.units[nodes, 0] + (gone * goods.leaves[: goods.ejectable, 0]).sum(axis=1),
            must=self.problem.hot[nodes, 0],
            have=all_here - gone,
            gone=gone,
            cost=(gone * goods.cost[: goods.ejectable]).sum(axis=1),
            of=np.array([number for number, _, _ in ways]),
            kind=goods.kind[nodes],
        )

    def _leaving(self, cure: Cure, also: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The different sets of items of which one must leave, as far as they can be told by flavour."""
        sure = {*cure.forced, *also}
        ways: list[list[tuple[int, ...]]] = []
        count = 1
        for group in cure.thinnings:
            quota = group.quota - len(sure.intersection(group.members))
            rest = [item for item in group.members if item not in sure]
            told: dict[object, tuple[int, ...]] = {}
            for chosen in combinations(rest, max(quota, 0)) if len(rest) <= VARIANTS else ():
                told.setdefault(tuple(sorted(Counter(self.goods.of[list(chosen)].tolist()).items())), chosen)
            if told and count * len(told) <= VARIANTS:
                count *= len(told)
                ways.append(list(told.values()))
        sets = (sure.union(*chosen) for chosen in product(*ways))
        return [tuple(sorted(leaving)) for leaving in sets]

    def receipts(self, prices: Floats) -> tuple[float, list[Deal], list[Worth]]:
        """(what all rooms are worth, the best deal of each kind of room, the tables)."""
        worth = [Worth(self.goods, kind, self.grid, prices) for kind in range(self.goods.kinds)]
        value, found = 0.0, []
        for row, count in zip(self.rooms, self.how_many.tolist(), strict=True):
            value += count * float(worth[row[0]].of(row[1:]))
            found.append(worth[row[0]].deal(row[1:]))
        return value, found, worth

    def deals(self, prices: Floats) -> tuple[float, list[Deal], list[Deal]]:
        """(the sum of all nodes' best deals, those of the sellers, those of each kind of room)."""
        earned, receipts, worth = self.receipts(prices)
        paid, sales = self._sales(self.sellers, prices, worth)
        return self.others + float(paid.sum()) - earned, sales, receipts

    def _sales(self, sellers: Sellers, prices: Floats, worth: list[Worth]) -> tuple[Floats, list[Deal]]:
        """The best deal of each seller, and its value."""
        values, deals = [], []
        for start in range(0, len(sellers.room), TOGETHER):
            part = slice(start, start + TOGETHER)
            some = Sellers(**{name: getattr(sellers, name)[part] for name in Sellers.__slots__})
            value, made = self._shed(some, prices, worth)
            values.append(value)
            deals += made
        value = np.concatenate(values)
        order = np.lexsort((value, sellers.of))
        best = order[np.unique(sellers.of[order], return_index=True)[1]]
        return value[best], [deals[variant] for variant in best.tolist()]

    def _shed(self, sellers: Sellers, prices: Floats, worth: list[Worth]) -> tuple[Floats, list[Deal]]:
        """[V]: what each sheds, less what it then has room to receive; a knapsack over all that it has."""
        goods, count = self.goods, self.goods.ejectable
        sizes, own = goods.leaves[:count, 0], goods.cost[:count] + prices[:count]
        width = int((sellers.have * sizes).sum(axis=1).max()) + 1
        cost = np.full((len(sellers.room), width), np.inf)
        cost[:, 0] = sellers.cost + sellers.gone @ prices[:count]
        layers: list[tuple[int, Bools]] = []
        for flavour, size in enumerate(sizes.tolist()):
            for copy in range(int(sellers.have[:, flavour].max())):
                shifted = np.full_like(cost, np.inf)
                shifted[:, size:] = cost[:, : width - size] + own[flavour]
                better = (shifted < cost - EPSILON) & (sellers.have[:, [flavour]] > copy)
                layers.append((flavour, better))
                cost = np.where(better, shifted, cost)
        left = sellers.room[:, None] + np.arange(width)
        room = np.stack([left, np.full_like(left, self.grid.top[1])], axis=-1)
        for kind in np.unique(sellers.kind).tolist():
            mine = sellers.kind == kind
            cost[mine] -= np.where(left[mine] >= 0, worth[kind].of(room[mine]), 0.0)
        cost[sellers.must[:, None] & (left < 0)] = np.inf
        rows, at = np.arange(len(cost)), cost.argmin(axis=1)
        value, ends = cost[rows, at], room[rows, at]
        shed = sellers.gone.copy()
        for flavour, better in reversed(layers):
            hit = better[rows, at]
            shed[hit, flavour] += 1
            at = at - hit * sizes[flavour]
        return value, [self._sale(sellers, variant, shed[variant], ends[variant], worth) for variant in rows.tolist()]

    def _sale(self, sellers: Sellers, variant: int, shed: Ints, room: Ints, worth: list[Worth]) -> Deal:
        goods = self.goods
        then = worth[int(sellers.kind[variant])].deal(room) if room[0] >= 0 else Deal(0, (), ())
        cost = int((shed * goods.cost[: goods.ejectable]).sum()) + then.cost
        sold = tuple((flavour, int(shed[flavour])) for flavour in np.flatnonzero(shed).tolist())
        return Deal(cost, (*sold, *then.shed), then.received)

    def surcharge(self, prices: Floats) -> float:
        """What rules over wider domains cost on top at these prices: at least one of a rule's items moves.

        It costs as much as it makes its node's best deal dearer that the item leaves. Rules that share items or nodes
        could be cured by one move and are counted once.
        """
        _, _, worth = self.receipts(prices)
        paid, _ = self._sales(self.sellers, prices, worth)
        usual = dict(zip(self.nodes, paid.tolist(), strict=True))
        total, seen = 0.0, set[int]()
        for members in self.wide:
            movable = sorted({item for item in members if self.mobile[item]})
            nodes = {int(self.problem.home[item]) for item in movable}
            if movable and not seen & nodes:
                seen |= nodes
                total += max(0.0, min(self._extra(item, usual, prices, worth) for item in movable))
        return total

    def _extra(self, item: int, usual: dict[int, float], prices: Floats, worth: list[Worth]) -> float:
        problem, goods, node = self.problem, self.goods, int(self.problem.home[item])
        if node in self.cures:
            value, _ = self._sales(self._sellers([(self.cures[node], (item,))]), prices, worth)
            return float(value[0]) - usual[node]
        if problem.hot[node].any():
            return 0.0
        table = worth[int(goods.kind[node])]
        leaves = -(-problem.resting[item, :2] // self.grid.unit)
        gain = float(table.of(self.units[node] + leaves)) - float(table.of(self.units[node]))
        return int(problem.cost[item]) - gain
