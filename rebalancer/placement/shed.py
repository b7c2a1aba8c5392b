"""Exact shedding of one node: which items must leave so that it is cured, at the least cost.

Looked at alone, without asking where they go, a node's cheapest cure bounds what any plan pays there from below, and
nearly always is what the best plan does. Items of one flavour are interchangeable, so multisets are enumerated, by
depth-first search with a fractional bound; a node holds tens of items of a few flavours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EXPANSIONS = 20_000
"""Search steps per node; a node that takes more gets the fractional bound, and the sets found so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An item that may leave: what it weighs in the resources that the node has too much of, and its price.

    `cliques` are the numbers of the groups on this node of which all but some must leave.
    """

    item: int
    weight: tuple[int, ...]
    cost: int
    cliques: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheds:
    """`options` are (cost, items), cheapest first; `bound` is below the cost of every way; without a way no options.

    `fewest` is below the number of items of every way: none costs more than the dearest each.
    """

    options: tuple[tuple[int, tuple[int, ...]], ...]
    bound: int
    fewest: int


def sheds(candidates: Sequence[Candidate], need: Sequence[int], quotas: Sequence[int] = (), *, keep: int = 8) -> Sheds:
    """The `keep` cheapest sets that weigh at least `need` and take `quotas[g]` members of each clique g."""
    search = _Search(candidates, tuple(need), tuple(quotas), keep)
    search.run()
    options = tuple(
        (cost, search.items(counts)) for cost, _, counts in sorted(search.found, key=lambda entry: entry[:2])
    )
    bound = options[0][0] if search.exact and options else min([search.root, *(cost for cost, _ in options[:1])])
    dearest = max((candidate.cost for candidate in candidates), default=1)
    return Sheds(options=options, bound=bound, fewest=-(-bound // dearest))


class _Search:
    """Counts per flavour, from the flavour that relieves most per cost down."""

    def __init__(
        self, candidates: Sequence[Candidate], need: tuple[int, ...], quotas: tuple[int, ...], keep: int
    ) -> None:
        members: dict[tuple[tuple[int, ...], int, tuple[int, ...]], list[int]] = {}
        for candidate in candidates:
            members.setdefault((candidate.weight, candidate.cost, candidate.cliques), []).append(candidate.item)
        scale = [max(amount, 1) for amount in need]
        relief = {
            key: sum(min(w, n) / s for w, n, s in zip(key[0], need, scale, strict=True)) / key[1] for key in members
        }
        self.flavours = sorted(members, key=lambda key: (not key[2], -relief[key], key))
        self.members = [sorted(members[key]) for key in self.flavours]
        self.need, self.quotas, self.keep = need, quotas, keep
        self.found: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
        self.worst = -1
        self.exact = True
        self.left = EXPANSIONS
        self._prepare()
        self.root = self._bound(0, need, quotas)

    def _prepare(self) -> None:
        """What the flavours from each position on can still give: in all, and per unit at the best price."""
        kinds = len(self.flavours)
        width = len(self.need)
        self.rest = [[0] * width for _ in range(kinds + 1)]
        self.rest_clique = [[0] * len(self.quotas) for _ in range(kinds + 1)]
        self.price = [[float("inf")] * width for _ in range(kinds + 1)]
        self.clique_price = [[0] * len(self.quotas) for _ in range(kinds + 1)]
        for at in range(kinds - 1, -1, -1):
            weight, cost, cliques = self.flavours[at]
            size = len(self.members[at])
            for r in range(width):
                self.rest[at][r] = self.rest[at + 1][r] + size * weight[r]
                own = cost / weight[r] if weight[r] else float("inf")
                self.price[at][r] = min(self.price[at + 1][r], own)
            for g in range(len(self.quotas)):
                inside = g in cliques
                self.rest_clique[at][g] = self.rest_clique[at + 1][g] + size * inside
                later = self.clique_price[at + 1][g]
                self.clique_price[at][g] = (min(later, cost) if later else cost) if inside else later

    def _bound(self, at: int, need: Sequence[int], quotas: Sequence[int]) -> int:
        """The least that the rest can cost: the dearest single resource or clique, fractionally."""
        bound = 0.0
        for r, amount in enumerate(need):
            if amount > 0:
                if self.rest[at][r] < amount:
                    return 1 << 60
                bound = max(bound, amount * self.price[at][r])
        for g, count in enumerate(quotas):
            if count > 0:
                if self.rest_clique[at][g] < count:
                    return 1 << 60
                bound = max(bound, count * self.clique_price[at][g])
        return int(bound - 1e-6) + 1 if bound > 0 else 0

    def run(self) -> None:
        self._visit(0, self.need, self.quotas, 0, ())

    def _visit(
        self, at: int, need: tuple[int, ...], quotas: tuple[int, ...], cost: int, counts: tuple[int, ...]
    ) -> None:
        if all(amount <= 0 for amount in need) and all(count <= 0 for count in quotas):
            self._record(cost, need, counts)
            return
        if at == len(self.flavours):
            return
        self.left -= 1
        if self.left < 0:
            self.exact = False
            return
        bound = cost + self._bound(at, need, quotas)
        if bound >= 1 << 60 or (0 <= self.worst <= bound):
            return
        weight, price, cliques = self.flavours[at]
        for count in range(self._most(at, need, quotas), -1, -1):
            self._visit(
                at + 1,
                tuple(amount - count * w for amount, w in zip(need, weight, strict=True)),
                tuple(quota - count * (g in cliques) for g, quota in enumerate(quotas)) if cliques else quotas,
                cost + count * price,
                (*counts, count),
            )

    def _most(self, at: int, need: Sequence[int], quotas: Sequence[int]) -> int:
        """How many of a flavour can be of use: one more would be superfluous."""
        weight, _, cliques = self.flavours[at]
        useful = [-(-amount // w) for amount, w in zip(need, weight, strict=True) if amount > 0 and w > 0]
        useful += [quotas[g] for g in cliques if quotas[g] > 0]
        return min(len(self.members[at]), max(useful, default=0))

    def _record(self, cost: int, need: tuple[int, ...], counts: tuple[int, ...]) -> None:
        overshoot = tuple(-amount for amount in need)
        self.found.append((cost, overshoot, counts))
        if len(self.found) > self.keep:
            self.found.sort(key=lambda entry: entry[:2])
            self.found.pop()
        if len(self.found) == self.keep:
            self.worst = max(entry[0] for entry in self.found)

    def items(self, counts: tuple[int, ...]) -> tuple[int, ...]:
        chosen: list[int] = []
        for position, count in enumerate(counts):
            chosen.extend(self.members[position][:count])
        return tuple(chosen)
