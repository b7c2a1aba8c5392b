"""Rules between items, as counts by domain: what they count, and how badly an item breaks them where it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NOWHERE = -1
"""The domain of a node that lacks a rule's topology key, or that the rule does not count."""


def tally(domain: Ints, members: Ints, at: Ints, fixed: Ints) -> Ints:
    """counts[D]: how many members are in each domain, on top of what is fixed there."""
    domains = domain[at[members]]
    return fixed + np.bincount(domains[domains != NOWHERE], minlength=len(fixed)).astype(np.int64)


Counts = dict[int, int]
"""Members by domain, without zeros: a cluster has many rules of few members over thousands of nodes."""


class Numbers(NamedTuple):
    """What an anti-affinity counts by domain: holders, matched items, and those that are either."""

    holders: Counts
    matched: Counts
    either: Counts

    def add(self, domain: int, holds: bool, is_matched: bool, by: int) -> None:
        """Let one more member (or, by -1, one less) be in a domain."""
        if domain != NOWHERE:
            for counts, concerned in ((self.holders, holds), (self.matched, is_matched), (self.either, True)):
                if concerned:
                    counts[domain] = counts.get(domain, 0) + by


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exclusion:
    """Pod anti-affinity, in both directions: no holder shares a domain with another matched item.

    `domain[N]` numbers each node's domain; `holders` carry the term, `matched` are what its selector finds (an item
    is often both). `fixed` counts what is no item. `goal`: its conflicts are to be cured, and not only kept from
    growing. `members` are (item, holds, is matched), by item.
    """

    domain: Ints
    holders: Ints
    matched: Ints
    fixed: Numbers = field(default_factory=lambda: Numbers({}, {}, {}))
    goal: bool = True
    members: tuple[tuple[int, bool, bool], ...] = field(init=False)

    def __post_init__(self) -> None:
        holders, matched = set(self.holders.tolist()), set(self.matched.tolist())
        members = tuple((item, item in holders, item in matched) for item in sorted(holders | matched))
        object.__setattr__(self, "members", members)

    def counts(self, at: Ints) -> Numbers:
        """Who is where, with what is no item."""
        numbers = Numbers(*(dict(counts) for counts in self.fixed))
        for item, holds, is_matched in self.members:
            numbers.add(int(self.domain[at[item]]), holds, is_matched, 1)
        return numbers

    def degrees(self, at: Ints, numbers: Numbers) -> list[tuple[int, int]]:
        """(item, how many others it conflicts with) of every member that conflicts with any."""
        found = []
        for item, holds, is_matched in self.members:
            domain = int(self.domain[at[item]])
            if holds:
                foes = numbers.either.get(domain, 0) - 1 if is_matched else numbers.matched.get(domain, 0)
            else:
                foes = numbers.holders.get(domain, 0)
            if domain != NOWHERE and foes:
                found.append((item, foes))
        return found

    def broken(self, at: Ints) -> bool:
        """Whether anyone breaks the rule in a placement."""
        return bool(self.degrees(at, self.counts(at)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attraction:
    """Pod affinity: each holder shares its domain with another matched item.

    `fixed_matched[D]` and `fixed_holders[D]` count what is no item, by domain. A holder that matches itself is content
    anywhere as long as nothing else in the cluster matches.
    """

    domain: Ints
    holders: Ints
    matched: Ints
    fixed_matched: Ints
    fixed_holders: Ints
    goal: bool = True

    def counts(self, at: Ints) -> Ints:
        """counts[D] of matched items."""
        return tally(self.domain, self.matched, at, self.fixed_matched)

    def degrees(self, at: Ints, matched: Ints) -> Ints:
        """degree[H]: 1 where a holder has no mate among the `matched[D]` counted by domain."""
        domains = self.domain[at[self.holders]]
        inside = domains != NOWHERE
        own = np.isin(self.holders, self.matched)
        alone = np.append(matched, 0)[domains] - (own & inside) <= 0
        first = own & inside & (int(self.fixed_matched.sum()) + len(self.matched) == 1)
        lonely: Ints = (alone & ~first).astype(np.int64)
        return lonely

    def broken(self, at: Ints) -> bool:
        """Whether anyone breaks the rule in a placement."""
        return bool(self.degrees(at, self.counts(at)).any())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spread:
    """Topology spread: in a holder's domain are at most `max_skew` more matched items than in the emptiest domain.

    `fixed_matched[D]` and `fixed_holders[D]` count what is no item, by domain. Items are counted on the nodes that
    `counted[N]` marks only, but judged everywhere. `eligible[D]` are the domains
    of counted nodes: they make the minimum, which is 0 where they are fewer than `min_domains`.
    """

    domain: Ints
    counted: Bools
    holders: Ints
    matched: Ints
    fixed_matched: Ints
    fixed_holders: Ints
    max_skew: int
    min_domains: int = 1
    goal: bool = True
    counting: Ints = field(init=False)
    eligible: Bools = field(init=False)
    own: Bools = field(init=False)

    def __post_init__(self) -> None:
        counting = np.where(self.counted, self.domain, NOWHERE)
        present = counting[counting != NOWHERE]
        object.__setattr__(self, "counting", counting)
        object.__setattr__(self, "eligible", np.bincount(present, minlength=len(self.fixed_matched)) > 0)
        object.__setattr__(self, "own", np.isin(self.holders, self.matched))

    def counts(self, at: Ints) -> Ints:
        """counts[D] of matched items on counted nodes."""
        return tally(self.counting, self.matched, at, self.fixed_matched)

    def minimum(self, counts: Ints) -> int:
        """The count of the emptiest eligible domain (kube-scheduler's global minimum)."""
        eligible = counts[self.eligible]
        return int(eligible.min()) if 0 < max(self.min_domains, 1) <= len(eligible) else 0

    def minimum_with_one_more(self, counts: Ints) -> Ints:
        """minimum[D] once one more is in each domain: it rises where that domain alone held it."""
        minimum = self.minimum(counts)
        after = np.full(len(counts), minimum)
        emptiest = np.flatnonzero(self.eligible & (counts == minimum))
        if len(emptiest) == 1 and int(self.eligible.sum()) >= self.min_domains:
            after[emptiest[0]] += 1
        return after

    def excess(self, counts: Ints) -> Ints:
        """excess[D] of each domain's skew above the maximum."""
        over: Ints = np.maximum(counts - self.minimum(counts) - self.max_skew, 0)
        return over

    def degrees(self, at: Ints, counts: Ints) -> Ints:
        """degree[H]: how far the skew of each holder's domain is above the maximum; 1 without a domain."""
        nodes = at[self.holders]
        domains = self.domain[nodes]
        uncounted = self.own & ~self.counted[nodes]
        skew = np.append(counts, 0)[domains] + uncounted - self.minimum(counts)
        return np.where(domains == NOWHERE, 1, np.maximum(skew - self.max_skew, 0))

    def broken(self, at: Ints) -> bool:
        """Whether anyone breaks the rule in a placement."""
        return bool(self.degrees(at, self.counts(at)).any())
