"""Rules between items, as counts by domain: what they count, and how badly an item breaks them where it is."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exclusion:
    """Pod anti-affinity: no holder shares a domain with another matched item.

    `domain[N]` numbers each node's domain; `holders` carry the term, `matched` are what its selector finds (an item
    is often both). `fixed_holders[D]` and `fixed_matched[D]` count what is no item. `goal`: its conflicts are to be
    cured, and not only kept from growing.
    """

    domain: Ints
    holders: Ints
    matched: Ints
    fixed_holders: Ints
    fixed_matched: Ints
    goal: bool = True

    def degrees(self, at: Ints, matched: Ints) -> Ints:
        """degree[H]: how many others, of the `matched[D]` counted by domain, each holder shares its domain with."""
        domains = self.domain[at[self.holders]]
        own = np.isin(self.holders, self.matched)
        degrees: Ints = np.where(domains == NOWHERE, 0, np.append(matched, 0)[domains] - own)
        return degrees


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attraction:
    """Pod affinity: each holder shares its domain with another matched item; `fixed_matched[D]` are no items.

    A holder that matches itself is content anywhere as long as nothing else in the cluster matches.
    """

    domain: Ints
    holders: Ints
    matched: Ints
    fixed_matched: Ints
    goal: bool = True

    def degrees(self, at: Ints, matched: Ints) -> Ints:
        """degree[H]: 1 where a holder has no mate among the `matched[D]` counted by domain."""
        domains = self.domain[at[self.holders]]
        inside = domains != NOWHERE
        own = np.isin(self.holders, self.matched)
        alone = np.append(matched, 0)[domains] - (own & inside) <= 0
        first = own & inside & (int(self.fixed_matched.sum()) + len(self.matched) == 1)
        return (alone & ~first).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spread:
    """Topology spread: in a holder's domain are at most `max_skew` more matched items than in the emptiest domain.

    `eligible[D]` are the domains that count for the minimum; it is 0 where there are fewer than `min_domains`.
    """

    domain: Ints
    holders: Ints
    matched: Ints
    fixed_matched: Ints
    eligible: Bools
    max_skew: int
    min_domains: int = 1
    goal: bool = True

    def minimum(self, counts: Ints) -> int:
        """The count of the emptiest eligible domain (kube-scheduler's global minimum)."""
        eligible = counts[self.eligible]
        return int(eligible.min()) if 0 < self.min_domains <= len(eligible) else 0

    def minimum_with_one_more(self, counts: Ints) -> Ints:
        """minimum[D] once one more is in each domain: it rises where that domain alone held it."""
        minimum = self.minimum(counts)
        after = np.full(len(counts), minimum)
        emptiest = np.flatnonzero(self.eligible & (counts == minimum))
        if len(emptiest) == 1 and int(self.eligible.sum()) >= self.min_domains:
            after[emptiest[0]] += 1
        return after

    def excess(self, counts: Ints) -> Ints:
        """excess[D + 1] of each domain's skew above the maximum; the last entry stands for NOWHERE."""
        return np.append(np.maximum(counts - self.minimum(counts) - self.max_skew, 0), 0)

    def degrees(self, at: Ints, matched: Ints) -> Ints:
        """degree[H]: how far the skew of each holder's domain is above the maximum."""
        return self.excess(matched)[self.domain[at[self.holders]]]
