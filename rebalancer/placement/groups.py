"""Rules between items, as counts by domain: what they count, and how badly an item breaks them where it is."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """Pod anti-affinity, in both directions: no holder shares a domain with another matched item.

    `domain[N]` numbers each node's domain; `holders` carry the term, `matched` are what its selector finds (an item
    is often both). `fixed_holders[D]`, `fixed_matched[D]` and `fixed_either[D]` count what is no item. `goal`: its
    conflicts are to be cured, and not only kept from growing. `members` are holders and matched items, each once.
    """

    domain: Ints
    holders: Ints
    matched: Ints
    fixed_holders: Ints
    fixed_matched: Ints
    fixed_either: Ints
    goal: bool = True
    members: Ints = field(init=False)
    holds: Bools = field(init=False)
    is_matched: Bools = field(init=False)

    def __post_init__(self) -> None:
        members = np.union1d(self.holders, self.matched).astype(np.int64)
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "holds", np.isin(members, self.holders))
        object.__setattr__(self, "is_matched", np.isin(members, self.matched))

    def counts(self, at: Ints) -> tuple[Ints, Ints, Ints]:
        """counts[D] of holders, of matched items, and of those that are either."""
        return (
            tally(self.domain, self.holders, at, self.fixed_holders),
            tally(self.domain, self.matched, at, self.fixed_matched),
            tally(self.domain, self.members, at, self.fixed_either),
        )

    def degrees(self, at: Ints, counts: tuple[Ints, Ints, Ints]) -> Ints:
        """degree[M]: how many others each member conflicts with; one that is holder and matched, with either kind."""
        domains = self.domain[at[self.members]]
        holders, matched, either = (np.append(count, 0)[domains] for count in counts)
        foes = np.where(self.holds, np.where(self.is_matched, either - 1, matched), holders)
        degrees: Ints = np.where(domains == NOWHERE, 0, foes)
        return degrees

    def broken(self, at: Ints) -> bool:
        """Whether anyone breaks the rule in a placement."""
        return bool(self.degrees(at, self.counts(at)).any())


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

    Items are counted on the nodes that `counted[N]` marks only, but judged everywhere. `eligible[D]` are the domains
    of counted nodes: they make the minimum, which is 0 where they are fewer than `min_domains`.
    """

    domain: Ints
    counted: Bools
    holders: Ints
    matched: Ints
    fixed_matched: Ints
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
