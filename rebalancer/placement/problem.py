"""The placement problem, as integer arrays: fully prepared, and knowing nothing of Kubernetes.

Indices: nodes 0..N-1, items (virtual machines) 0..I-1, resources 0..R-1, of which the first C are counted, that is,
have thresholds. Amounts are in any unit, one per resource, as long as all of a resource share it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rebalancer.placement.groups import Attraction, Bools, Exclusion, Ints, Spread


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """What may move where, what holds it, and what is wrong now.

    capacity[N, R]  what the node has; base[N, R] what is taken by things that are no items
    low, high[N, C] thresholds as amounts; hot[N, C] marks the overloads that are to be cured
    scale[N, C]     allocatable, the denominator of overload in permille
    demand[I, R], home[I], cost[I] (1 or more), movable[I]
    resting[I, R]   what the item takes at home, where that differs from the demand that it brings elsewhere
    klass[I]        row of allowed[K, N]: the nodes that would take the item but for load and rules
    judged[I]       whether rules between items that this one breaks count at all
    misplaced[I]    how many rules the item breaks by itself where it is (node affinity, taints) that are to be cured
    taste[I]        row of preference[P, N]: how well each node suits the item; larger is better
    bystanders[B, R + 1]  demand and cost of each kind of movable VM that is no item here; they stay, but bounds of
                    the whole cluster's plans must not forget that they need not
    start[N, R]     the load at the start; ceiling[N, R] the load up to which a node may receive
    """

    capacity: Ints
    base: Ints
    low: Ints
    high: Ints
    hot: Bools
    scale: Ints
    demand: Ints
    home: Ints
    cost: Ints
    movable: Bools
    klass: Ints
    allowed: Bools
    misplaced: Ints
    judged: Bools
    taste: Ints
    preference: Ints
    exclusions: tuple[Exclusion, ...] = ()
    attractions: tuple[Attraction, ...] = ()
    spreads: tuple[Spread, ...] = ()
    bystanders: Ints = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))
    resting: Ints = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    start: Ints = field(init=False)
    ceiling: Ints = field(init=False)

    def __post_init__(self) -> None:
        nodes, resources = self.capacity.shape
        items = len(self.home)
        assert self.base.shape == (nodes, resources)
        assert self.demand.shape == (items, resources)
        assert self.low.shape == self.high.shape == self.hot.shape == self.scale.shape
        assert len(self.cost) == len(self.movable) == len(self.klass) == len(self.misplaced) == items
        assert (self.cost > 0).all(), "staying is better than a move"
        if not self.resting.size:
            object.__setattr__(self, "resting", self.demand)
        assert self.resting.shape == self.demand.shape
        start = self.base.copy()
        np.add.at(start, self.home, self.resting)
        ceiling = self.capacity.copy()
        # Whoever receives anything ends at low or below, hot or not.
        ceiling[:, : self.counted] = np.minimum(ceiling[:, : self.counted], self.low)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "ceiling", ceiling)

    def taken(self, item: int, node: int) -> Ints:
        """[R] what an item takes of a node."""
        amounts: Ints = self.resting[item] if node == self.home[item] else self.demand[item]
        return amounts

    def load(self, at: Ints) -> Ints:
        """load[N, R] of a placement."""
        load = self.base.copy()
        np.add.at(load, at, np.where((at == self.home)[:, None], self.resting, self.demand))
        return load

    @property
    def nodes(self) -> int:
        return int(self.capacity.shape[0])

    @property
    def items(self) -> int:
        return len(self.home)

    @property
    def counted(self) -> int:
        return int(self.low.shape[1])
