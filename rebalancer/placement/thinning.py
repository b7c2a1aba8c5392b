"""Groups under anti-affinity that share a node: who of them must leave it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rebalancer.placement.groups import NOWHERE, Exclusion
from rebalancer.placement.problem import Problem


class Thinning(NamedTuple):
    """So many of these items must leave a node; `certain` where that is so in every cure, not only in the cheapest."""

    members: tuple[int, ...]
    quota: int
    certain: bool


def thinnings(rule: Exclusion, problem: Problem, mobile: list[bool]) -> list[tuple[int, Thinning]]:
    """By node, for domains of one node; wider ones are cured item by item."""
    by_node: dict[int, list[tuple[int, bool, bool]]] = {}
    for item, holds, is_matched in rule.members:
        by_node.setdefault(int(problem.home[item]), []).append((item, holds, is_matched))
    width = np.bincount(rule.domain[rule.domain != NOWHERE], minlength=1)
    result: list[tuple[int, Thinning]] = []
    for node, members in by_node.items():
        domain = int(rule.domain[node])
        if domain == NOWHERE or width[domain] != 1:
            continue
        outsiders = (rule.fixed.holders.get(domain, 0), rule.fixed.matched.get(domain, 0))
        if all(holds and is_matched for _, holds, is_matched in members) and outsiders[0] == outsiders[1]:
            leaving = tuple(item for item, _, _ in members if mobile[item])
            alone = len(leaving) == len(members) and not any(outsiders)
            if len(leaving) - alone > 0:
                result.append((node, Thinning(leaving, len(leaving) - alone, True)))
            continue
        side = _cheapest_side(members, outsiders, problem, mobile)
        if side:
            result.append((node, Thinning(side, len(side), False)))
    return result


def _cheapest_side(
    members: list[tuple[int, bool, bool]], outsiders: tuple[int, int], problem: Problem, mobile: list[bool]
) -> tuple[int, ...]:
    """The cheapest set whose leaving ends the conflicts: all holders, all matched, or all but one that is both."""
    holders = {item for item, holds, _ in members if holds}
    matched = {item for item, _, is_matched in members if is_matched}
    choices = [holders] if not outsiders[0] else []
    choices += [matched] if not outsiders[1] else []
    choices += [(holders | matched) - {item} for item in holders & matched] if not any(outsiders) else []
    sides = (tuple(sorted(side)) for side in choices if all(mobile[item] for item in side))
    return min(sides, key=lambda side: (int(problem.cost[list(side)].sum()), side), default=())
