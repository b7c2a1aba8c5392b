"""Small problems in a few words, random ones for Hypothesis, and a judge that tries every placement."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rebalancer.placement.groups import NOWHERE, Attraction, Exclusion, Spread
from rebalancer.placement.problem import Problem


@dataclass(kw_only=True)
class Item:
    """An item on node `home` with so much CPU and memory; `only` are the nodes that would take it.

    Elsewhere it takes `more` CPU.
    """

    home: int
    cpu: int
    memory: int = 1
    cost: int = 1000
    movable: bool = True
    only: Sequence[int] | None = None
    misplaced: int = 0
    more: int = 0


@dataclass(kw_only=True)
class World:
    """Nodes of equal size, items, and groups of items by kind of rule: (members, domain of each node).

    Where there is a `memory_limit`, memory is counted, too.
    """

    nodes: int
    items: list[Item]
    cpu: int = 100
    memory: int = 100
    high: int = 80
    low: int = 80
    memory_limit: int = 0
    base: dict[int, int] = field(default_factory=dict)
    apart: list[tuple[list[int], list[int]]] = field(default_factory=list)
    holders: list[tuple[list[int], list[int], list[int]]] = field(default_factory=list)
    beside: list[tuple[list[int], list[int], list[int]]] = field(default_factory=list)
    spread: list[tuple[list[int], list[int], list[int], int]] = field(default_factory=list)

    def problem(self, **changes: Any) -> Problem:
        count = len(self.items)
        capacity = np.tile(np.array([self.cpu, self.memory], dtype=np.int64), (self.nodes, 1))
        base = np.zeros((self.nodes, 2), dtype=np.int64)
        for node, amount in self.base.items():
            base[node, 0] = amount
        resting = numbers([[item.cpu, item.memory] for item in self.items]).reshape(count, 2)
        demand = resting + numbers([[item.more, 0] for item in self.items]).reshape(count, 2)
        home = numbers([item.home for item in self.items])
        start = base.copy()
        np.add.at(start, home, resting)
        counted = 2 if self.memory_limit else 1
        high = np.tile(numbers([self.high, self.memory_limit])[:counted], (self.nodes, 1))
        low = np.tile(numbers([self.low, self.memory_limit])[:counted], (self.nodes, 1))
        allowed = np.zeros((max(count, 1), self.nodes), dtype=bool)
        for number, item in enumerate(self.items):
            allowed[number, list(range(self.nodes)) if item.only is None else list(item.only)] = True
        fields: dict[str, Any] = {
            "capacity": capacity,
            "base": base,
            "low": low,
            "high": high,
            "hot": start[:, :counted] > high,
            "scale": capacity[:, :counted].copy(),
            "demand": demand,
            "resting": resting,
            "home": home,
            "cost": numbers([item.cost for item in self.items]),
            "movable": np.array([item.movable for item in self.items], dtype=bool),
            "klass": np.arange(count),
            "allowed": allowed,
            "misplaced": numbers([item.misplaced for item in self.items]),
            "judged": np.ones(count, dtype=bool),
            "taste": np.zeros(count, dtype=np.int64),
            "preference": np.zeros((1, self.nodes), dtype=np.int64),
            "exclusions": (
                *(exclusion(members, members, domain) for members, domain in self.apart),
                *(exclusion(*group) for group in self.holders),
            ),
            "attractions": tuple(attraction(*group) for group in self.beside),
            "spreads": tuple(spreading(*group) for group in self.spread),
        }
        return Problem(**{**fields, **changes})


def numbers(values: Sequence[Any]) -> Any:
    return np.array(values, dtype=np.int64)


def zeros(domain: Sequence[int]) -> Any:
    return np.zeros(max([0, *domain]) + 1, dtype=np.int64)


def exclusion(holders: Sequence[int], matched: Sequence[int], domain: Sequence[int]) -> Exclusion:
    return Exclusion(domain=numbers(domain), holders=numbers(sorted(holders)), matched=numbers(sorted(matched)))


def attraction(holders: Sequence[int], matched: Sequence[int], domain: Sequence[int]) -> Attraction:
    return Attraction(
        domain=numbers(domain),
        holders=numbers(sorted(holders)),
        matched=numbers(sorted(matched)),
        fixed_matched=zeros(domain),
        fixed_holders=zeros(domain),
    )


def spreading(holders: Sequence[int], matched: Sequence[int], domain: Sequence[int], max_skew: int) -> Spread:
    return Spread(
        domain=numbers(domain),
        counted=numbers(domain) != NOWHERE,
        holders=numbers(sorted(holders)),
        matched=numbers(sorted(matched)),
        fixed_matched=zeros(domain),
        fixed_holders=zeros(domain),
        max_skew=max_skew,
    )


Stages = tuple[int, int, int, int]
"""violations, over_high, over_low, cost"""


class Judge:
    """What a placement is worth, and whether it may be, in words of its own and one item after another.

    Whether a move may be made hangs on what has moved before. `strict` allows what may be done in any sensible order,
    else what may be in the end: the best that can be carried out lies between the two.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def allows(self, at: Sequence[int], *, strict: bool) -> bool:
        problem = self.problem
        load = self._load(at)
        for item, node in enumerate(at):
            if node == problem.home[item]:
                continue
            if not problem.movable[item] or not problem.allowed[problem.klass[item], node]:
                return False
            wanted = problem.demand[item] > 0
            ceiling = problem.capacity[node].copy()
            ceiling[: problem.counted] = np.minimum(ceiling[: problem.counted], problem.low[node])
            if (load[node] > ceiling)[wanted].any():
                return False
        return self._lands_well(at, strict) and all(
            new <= old for new, old in zip(self._degrees(at), self._degrees(problem.home.tolist()), strict=True)
        )

    def _lands_well(self, at: Sequence[int], strict: bool) -> bool:
        problem = self.problem
        for rule in problem.exclusions:
            for one, other in product(rule.holders.tolist(), rule.matched.tolist()):
                moved = at[one] != problem.home[one] or at[other] != problem.home[other]
                if one != other and moved and self._together(rule.domain, at[one], at[other]):
                    return False
            for item in set(rule.holders.tolist()) & set(rule.matched.tolist()):
                home = problem.home[item]
                if at[item] != home and self._together(rule.domain, at[item], home):
                    return False
        for attraction_ in problem.attractions:
            for holder in attraction_.holders.tolist():
                if at[holder] == problem.home[holder]:
                    continue
                matched = attraction_.matched.tolist()
                holders = attraction_.holders.tolist()
                mates = [
                    at[m]
                    for m in matched
                    if m != holder
                    and not (strict and m in holders and not self._together(attraction_.domain, at[m], problem.home[m]))
                ]
                mates += [int(problem.home[holder])] * (holder in matched)
                if not any(self._together(attraction_.domain, at[holder], node) for node in mates):
                    return False
        for spread_ in problem.spreads:
            for holder in spread_.holders.tolist():
                if at[holder] != problem.home[holder] and not self._within_skew(spread_, holder, at, strict):
                    return False
        return True

    def _within_skew(self, rule: Spread, holder: int, at: Sequence[int], strict: bool) -> bool:
        domain = int(rule.domain[at[holder]])
        if domain == NOWHERE:
            return False
        counts = self._counts(rule, at)
        matched = holder in rule.matched.tolist()
        source = strict and matched and int(rule.domain[self.problem.home[holder]]) == domain
        fewest = min(counts[d] for d in set(rule.domain.tolist()) - {NOWHERE})
        broken_before = 0 if strict else self._skew(rule, self.problem.home.tolist(), holder)
        return bool(counts[domain] + source - fewest <= rule.max_skew + broken_before)

    def _skew(self, rule: Spread, at: Sequence[int], holder: int) -> int:
        """How far a holder's domain is above the maximum: as much is tolerated of what was broken so before."""
        counts, domain = self._counts(rule, at), int(rule.domain[at[holder]])
        fewest = min(counts[d] for d in counts if d != NOWHERE)
        return 1 if domain == NOWHERE else max(0, counts[domain] - fewest - rule.max_skew)

    def _counts(self, rule: Spread, at: Sequence[int]) -> dict[int, int]:
        return {d: sum(rule.domain[at[i]] == d for i in rule.matched.tolist()) for d in set(rule.domain.tolist())}

    def _together(self, domain: Any, one: int, other: int) -> bool:
        return bool(domain[one] == domain[other] != NOWHERE)

    def _degrees(self, at: Sequence[int]) -> list[int]:
        problem = self.problem
        found = [int(problem.misplaced[i]) * (at[i] == problem.home[i]) for i in range(len(at))]
        for rule in problem.exclusions:
            holders, matched = set(rule.holders.tolist()), set(rule.matched.tolist())
            for item in sorted(holders | matched):
                foes = (matched if item in holders else set()) | (holders if item in matched else set())
                found.append(sum(self._together(rule.domain, at[item], at[f]) for f in foes - {item}))
        for attraction_ in problem.attractions:
            matched = set(attraction_.matched.tolist())
            for holder in attraction_.holders.tolist():
                others = matched - {holder}
                content = any(self._together(attraction_.domain, at[holder], at[o]) for o in others)
                first = not others and holder in matched and attraction_.domain[at[holder]] != NOWHERE
                found.append(0 if content or first else 1)
        for spread_ in problem.spreads:
            found += [self._skew(spread_, at, holder) for holder in spread_.holders.tolist()]
        return found

    def _load(self, at: Sequence[int]) -> Any:
        problem = self.problem
        load = problem.base.copy()
        for item, node in enumerate(at):
            load[node] += problem.resting[item] if node == problem.home[item] else problem.demand[item]
        return load

    def stages(self, at: Sequence[int]) -> Stages:
        problem = self.problem
        load = self._load(at)
        over = {"high": 0, "low": 0}
        for node in range(problem.nodes):
            for resource in range(problem.counted):
                scale = int(problem.scale[node, resource])
                for name, limit, counts in (
                    ("high", problem.high, scale > 0),
                    ("low", problem.low, bool(problem.hot[node, resource])),
                ):
                    excess = int(load[node, resource] - limit[node, resource])
                    if counts and excess > 0:
                        over[name] += -(-1000 * excess // scale)
        moved = [item for item, node in enumerate(at) if node != problem.home[item]]
        return sum(self._degrees(at)), over["high"], over["low"], sum(int(problem.cost[item]) for item in moved)

    def best(self, *, strict: bool) -> Stages:
        """The best stages of all placements."""
        return min(self.stages(at) for at in self.placements(strict=strict))

    def placements(self, *, strict: bool) -> Iterator[tuple[int, ...]]:
        """All placements that are allowed."""
        return (at for at in self._all() if self.allows(at, strict=strict))

    def _all(self) -> Iterator[tuple[int, ...]]:
        problem = self.problem
        return product(
            *(
                sorted({int(problem.home[i]), *np.flatnonzero(problem.allowed[problem.klass[i]]).tolist()})
                if problem.movable[i]
                else [int(problem.home[i])]
                for i in range(problem.items)
            )
        )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to four nodes in two zones and six items, with whatever rules and faults."""
    nodes = draw(st.integers(2, 4))
    count = draw(st.integers(1, 6 if nodes < 4 else 5))
    items = [
        Item(
            home=draw(st.integers(0, nodes - 1)),
            cpu=draw(st.sampled_from([5, 10, 20, 30, 45])),
            memory=draw(st.sampled_from([1, 10, 40])),
            cost=draw(st.sampled_from([1001, 1002, 1008])),
            movable=draw(st.integers(0, 5)) > 0,
            only=draw(st.one_of(st.none(), st.lists(st.integers(0, nodes - 1), max_size=2, unique=True))),
            misplaced=draw(st.sampled_from([0, 0, 0, 1])),
            more=draw(st.sampled_from([0, 0, 0, 15])),
        )
        for _ in range(count)
    ]
    hosts, zones = list(range(nodes)), [node % 2 for node in range(nodes)]
    zones[-1] = draw(st.sampled_from([zones[-1], NOWHERE])) if nodes > 2 else zones[-1]
    some = st.lists(st.integers(0, count - 1), min_size=1, max_size=4, unique=True)
    topology = st.sampled_from([hosts, zones])
    return World(
        nodes=nodes,
        items=items,
        high=draw(st.sampled_from([60, 80])),
        low=draw(st.sampled_from([50, 60])),
        memory_limit=draw(st.sampled_from([0, 0, 50])),
        base={node: draw(st.sampled_from([0, 20, 50, 90])) for node in range(nodes)},
        apart=draw(st.lists(st.tuples(some, topology), max_size=1)),
        holders=draw(st.lists(st.tuples(some, some, topology), max_size=1)),
        beside=draw(st.lists(st.tuples(some, some, topology), max_size=1)),
        spread=draw(st.lists(st.tuples(some, some, st.just(zones), st.integers(1, 2)), max_size=1)),
    )


def crowded(nodes: int, seed: int, *, mean: float = 0.77) -> Problem:
    """A tight cluster in little: powers of two on nodes with hardly any room, three classes, groups kept apart."""
    chance = random.Random(seed)
    items: list[Item] = []
    for node in range(nodes):
        full = chance.uniform(0.84, 0.96) if chance.random() < 0.1 else chance.gauss(mean, 0.02)
        left = int(64 * full)
        while left > 0:
            cpu = min(chance.choice([1, 2, 4, 8, 16]), 1 << (left.bit_length() - 1))
            items.append(Item(home=node, cpu=cpu, memory=2 * cpu, cost=1000 + 2 * cpu, movable=chance.random() > 0.05))
            left -= cpu
    members = chance.sample(range(len(items)), len(items) // 10)
    apart = [(sorted(members[at : at + 3]), list(range(nodes))) for at in range(0, len(members), 3)]
    count = len(items)
    allowed = np.ones((3, nodes), dtype=bool)
    allowed[1, chance.sample(range(nodes), nodes // 2)] = False
    allowed[0, chance.sample(range(nodes), nodes // 20)] = False
    klass = numbers([chance.choice([0, 0, 0, 1, 2]) for _ in range(count)])
    world = World(nodes=nodes, items=items, cpu=64, memory=256, high=51, low=51, apart=apart)
    return world.problem(klass=klass, allowed=allowed)
