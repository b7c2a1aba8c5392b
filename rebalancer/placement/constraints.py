"""The rules between items as constraints of CP-SAT, one function per family; the broken ones as terms to minimise.

As in Assignment, whoever moves lands without conflict, next to a mate, within the skew; so what is broken can only stay
broken between those who stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from ortools.sat.python import cp_model

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.groups import NOWHERE, Attraction, Exclusion, Ints, Spread

Literal = cp_model.IntVar
Expr = cp_model.LinearExpr | int


class Choices:
    """Where each free item goes: of[item][node] is one boolean, exactly one per item.

    `by_node` are the (item, boolean) of a node; `fixed_load[node]` is the load of what is not free there.
    """

    def __init__(self, model: cp_model.CpModel, state: Assignment, options: Mapping[int, Sequence[int]]) -> None:
        self.model, self.state = model, state
        self.of: dict[int, dict[int, Literal]] = {}
        self.by_node: dict[int, list[tuple[int, Literal]]] = {}
        for item, nodes in options.items():
            self.of[item] = {node: model.new_bool_var("") for node in nodes}
            model.add_exactly_one(self.of[item].values())
            for node, x in self.of[item].items():
                self.by_node.setdefault(node, []).append((item, x))
        self.fixed_load = {node: state.load[node].copy() for node in self.by_node}
        for item in options:
            here = int(state.at[item])
            self.fixed_load[here] -= state.problem.taken(item, here)

    def stays(self, item: int) -> Literal | bool:
        """Whether an item is at home."""
        home = int(self.state.problem.home[item])
        if item in self.of:
            return self.of[item][home]
        return bool(self.state.at[item] == home)

    def arrivals(self, item: int, domain: Ints) -> list[tuple[int, Literal]]:
        """(domain, boolean) of each way in which a free item may move."""
        home = int(self.state.problem.home[item])
        return [(int(domain[node]), x) for node, x in self.of[item].items() if node != home]

    def within(self, item: int, domain: Ints, number: int) -> list[Literal]:
        """The booleans of a free item's nodes in one domain, its home's included."""
        return [x for node, x in self.of[item].items() if domain[node] == number]


def keep_rules(choices: Choices) -> None:
    """All rules that a free item has a part in."""
    index, problem = choices.state.index, choices.state.problem
    for number in sorted({role.rule for item in choices.of for role in index.exclusion_roles.get(item, ())}):
        _keep_apart(choices, problem.exclusions[number])
    for number in sorted({role.rule for item in choices.of for role in index.attraction_roles.get(item, ())}):
        _keep_beside(choices, problem.attractions[number])
    for number in sorted({role.rule for item in choices.of for role in index.spread_roles.get(item, ())}):
        _keep_spread(choices, problem.spreads[number])


def _keep_apart(choices: Choices, rule: Exclusion) -> None:
    """Nobody arrives where a foe is, or comes to be."""
    state, model = choices.state, choices.model
    numbers = rule.counts(state.at)
    part = {item: (holds, is_matched) for item, holds, is_matched in rule.members}
    free = [item for item in part if item in choices.of]
    for item in free:
        numbers.add(int(rule.domain[state.at[item]]), *part[item], -1)
    arriving: dict[int, list[tuple[int, Literal]]] = {}
    staying: dict[int, list[tuple[int, Literal]]] = {}
    for item in free:
        home = int(state.problem.home[item])
        staying.setdefault(int(rule.domain[home]), []).append((item, choices.of[item][home]))
        for domain, x in choices.arrivals(item, rule.domain):
            holds, is_matched = part[item]
            if domain == NOWHERE:
                continue
            own_home = holds and is_matched and domain == rule.domain[home]
            foes_there = (holds and numbers.matched.get(domain, 0)) or (is_matched and numbers.holders.get(domain, 0))
            if own_home or foes_there:
                model.add(x == 0)
            else:
                arriving.setdefault(domain, []).append((item, x))
    for domain, arrivals in arriving.items():
        stayers = staying.get(domain, [])
        if all(all(part[item]) for item, _ in (*arrivals, *stayers)):
            model.add_at_most_one(x for _, x in arrivals)
            for _, stay in stayers:
                model.add_at_most_one(stay, *(x for _, x in arrivals))
            continue
        pairs = [*combinations(arrivals, 2), *((a, s) for a in arrivals for s in stayers)]
        for (one, x), (other, y) in pairs:
            foes = (part[one][0] and part[other][1]) or (part[one][1] and part[other][0])
            if one != other and foes:
                model.add_at_most_one(x, y)


def _keep_beside(choices: Choices, rule: Attraction) -> None:
    """Who arrives finds a mate, and who had one keeps one."""
    state, model = choices.state, choices.model
    home_of = state.problem.home
    matched = set(rule.matched.tolist())
    fixed = rule.counts(state.at)
    free = [item for item in rule.matched.tolist() if item in choices.of]
    for item in free:
        if rule.domain[state.at[item]] != NOWHERE:
            fixed[rule.domain[state.at[item]]] -= 1
    lonely = dict(zip(rule.holders.tolist(), rule.degrees(home_of, rule.counts(home_of)).tolist(), strict=True))
    first = len(rule.matched) + int(rule.fixed_matched.sum()) == 1

    holders = set(rule.holders.tolist())

    def mates(item: int, domain: int, *, waiting: bool = False) -> Expr:
        """Others in a domain; `waiting` leaves out those who would need a mate there before they could come."""
        count = int(fixed[domain]) - (
            item in matched and item not in choices.of and rule.domain[state.at[item]] == domain
        )
        others = [other for other in free if other != item]
        return count + sum(
            x
            for other in others
            for node, x in choices.of[other].items()
            if rule.domain[node] == domain
            and not (waiting and other in holders and rule.domain[home_of[other]] != domain)
        )

    for domain in np.flatnonzero((rule.fixed_holders > 0) & (rule.counts(home_of) >= 2)).tolist():
        if fixed[domain] < 2:
            model.add(mates(-1, domain) >= 2)
    for holder in rule.holders.tolist():
        home = int(rule.domain[home_of[holder]])
        content = home != NOWHERE and not lonely[holder] and not (first and holder in matched)
        for domain, x in choices.arrivals(holder, rule.domain) if holder in choices.of else ():
            own = holder in matched and domain == home
            if domain == NOWHERE:
                model.add(x == 0)
            elif content or not own:
                model.add(mates(holder, domain, waiting=not own) >= 1).only_enforce_if(x)
        if content:
            stays = choices.stays(holder)
            if isinstance(stays, bool):
                here = int(rule.domain[state.at[holder]])
                model.add(mates(holder, here) >= 1)
            else:
                model.add(mates(holder, home) >= 1).only_enforce_if(stays)


def _counts(choices: Choices, rule: Spread) -> tuple[dict[int, Expr], Literal]:
    """Matched items by domain, and a variable that is at most the global minimum."""
    state = choices.state
    fixed = rule.counts(state.at)
    terms: dict[int, list[Literal]] = {}
    for item in rule.matched.tolist():
        if item in choices.of:
            here = int(rule.counting[state.at[item]])
            if here != NOWHERE:
                fixed[here] -= 1
            for node, x in choices.of[item].items():
                if rule.counting[node] != NOWHERE:
                    terms.setdefault(int(rule.counting[node]), []).append(x)
    counts = {domain: int(fixed[domain]) + sum(terms.get(domain, ())) for domain in range(len(fixed))}
    return counts, _minimum(choices, rule, counts)


def _minimum(choices: Choices, rule: Spread, counts: Mapping[int, Expr]) -> Literal:
    """A variable that is at most the global minimum of the counts."""
    enough = int(rule.eligible.sum()) >= max(rule.min_domains, 1)
    most = len(rule.matched) + int(rule.fixed_matched.sum()) if enough else 0
    minimum = choices.model.new_int_var(0, most, "")
    for domain, count in counts.items():
        if rule.eligible[domain]:
            choices.model.add(minimum <= count)
    return minimum


def _keep_spread(choices: Choices, rule: Spread) -> None:
    """Who arrives is within the skew, its source still counted; nobody who stays gets further above it."""
    state, model = choices.state, choices.model
    home_of = state.problem.home
    counts, minimum = _counts(choices, rule)
    matched = set(rule.matched.tolist())
    first = dict(zip(rule.holders.tolist(), rule.degrees(home_of, rule.counts(home_of)).tolist(), strict=True))
    excess = rule.excess(rule.counts(home_of)).tolist()
    for domain in np.flatnonzero(rule.fixed_holders).tolist():
        model.add(counts[domain] - minimum <= rule.max_skew + excess[domain])
    for holder in rule.holders.tolist():
        home, source = int(rule.domain[home_of[holder]]), int(rule.counting[home_of[holder]])
        if holder in choices.of:
            landing = minimum
            if first[holder] and source != NOWHERE:  # its source alone may be what the emptiest domain has
                landing = _minimum(choices, rule, {**counts, source: counts[source] + int(holder in matched)})
            for node, x in choices.of[holder].items():
                domain = int(rule.domain[node])
                if node == home_of[holder]:
                    continue
                if domain == NOWHERE:
                    model.add(x == 0)
                    continue
                uncounted = holder in matched and rule.counting[node] == NOWHERE
                itself = uncounted or (holder in matched and domain == source)
                model.add(counts[domain] + int(itself) - landing <= rule.max_skew).only_enforce_if(x)
                if landing is not minimum:
                    settled = counts[domain] + int(uncounted) - minimum
                    model.add(settled <= rule.max_skew + first[holder]).only_enforce_if(x)
        stays = choices.stays(holder)
        here = home if not isinstance(stays, bool) else int(rule.domain[state.at[holder]])
        if here == NOWHERE:
            continue
        itself = holder in matched and rule.counting[home_of[holder]] == NOWHERE
        kept = model.add(counts[here] + int(itself) - minimum <= rule.max_skew + first[holder])
        if not isinstance(stays, bool):
            kept.only_enforce_if(stays)


def goal_terms(choices: Choices) -> list[Expr]:
    """The degrees of what is broken and to be cured, as terms; what no free item can change is left out."""
    index, problem = choices.state.index, choices.state.problem
    terms: list[Expr] = [
        int(problem.misplaced[item]) * options[int(problem.home[item])]
        for item, options in choices.of.items()
        if problem.misplaced[item]
    ]
    for number in index.sick_exclusions:
        terms += _clashes(choices, problem.exclusions[number])
    for number in index.sick_attractions:
        terms += _lonely(choices, problem.attractions[number])
    for number in index.sick_spreads:
        terms += _skewed(choices, problem.spreads[number])
    return terms


def _clashes(choices: Choices, rule: Exclusion) -> list[Expr]:
    """For each pair of foes that share a domain at first: both are still at home."""
    problem, model = choices.state.problem, choices.model
    judged = problem.judged
    terms: list[Expr] = []
    together: dict[int, list[tuple[int, bool, bool]]] = {}
    for member in rule.members:
        domain = int(rule.domain[problem.home[member[0]]])
        if domain != NOWHERE:
            together.setdefault(domain, []).append(member)
            item, holds, is_matched = member
            fixed = rule.fixed.either if holds and is_matched else rule.fixed.matched if holds else rule.fixed.holders
            foes = fixed.get(domain, 0)
            if item in choices.of and judged[item] and foes:
                terms.append(foes * choices.of[item][int(problem.home[item])])
    for members in together.values():
        for (one, holds, is_matched), (other, holds_too, matched_too) in combinations(members, 2):
            if not ((holds and matched_too) or (is_matched and holds_too)):
                continue
            pair = (choices.stays(one), choices.stays(other))
            literals = [stays for stays in pair if not isinstance(stays, bool)]
            weight = int(judged[one]) + int(judged[other])
            if not literals or not weight or any(stays is False for stays in pair):
                continue
            both_stay = literals[0]
            if len(literals) == 2:
                both_stay = model.new_bool_var("")
                model.add(both_stay >= literals[0] + literals[1] - 1)
            terms.append(weight * both_stay)
    return terms


def _lonely(choices: Choices, rule: Attraction) -> list[Expr]:
    """For each holder without a mate at first: it is still in that domain, and no mate has come."""
    state, model = choices.state, choices.model
    home_of = state.problem.home
    matched = set(rule.matched.tolist())
    free = [item for item in rule.matched.tolist() if item in choices.of]
    fixed = rule.counts(state.at)
    for item in free:
        if rule.domain[state.at[item]] != NOWHERE:
            fixed[rule.domain[state.at[item]]] -= 1
    terms: list[Expr] = []
    degrees = rule.degrees(home_of, rule.counts(home_of)).tolist()
    for holder, degree in zip(rule.holders.tolist(), degrees, strict=True):
        stays = choices.stays(holder)
        if not degree or stays is False or not state.problem.judged[holder]:
            continue
        domain = int(rule.domain[home_of[holder]])
        if domain == NOWHERE:
            terms += [] if isinstance(stays, bool) else [stays]
            continue
        comers = [x for other in free if other != holder for x in choices.within(other, rule.domain, domain)]
        come = int(fixed[domain]) - (holder in matched and holder not in choices.of)
        here = sum(choices.within(holder, rule.domain, domain)) if holder in choices.of else 1
        if come > 0 or (holder not in choices.of and not comers):
            continue
        alone = model.new_bool_var("")
        model.add(alone + sum(comers) >= here)
        terms.append(alone)
    return terms


def _skewed(choices: Choices, rule: Spread) -> list[Expr]:
    """For each holder above the skew at first: how far it still is, if it stays."""
    state, model = choices.state, choices.model
    home_of = state.problem.home
    if not any(item in choices.of for item in (*rule.holders.tolist(), *rule.matched.tolist())):
        return []
    counts, minimum = _counts(choices, rule)
    matched = set(rule.matched.tolist())
    terms: list[Expr] = []
    for holder, degree in zip(rule.holders.tolist(), rule.degrees(home_of, rule.counts(home_of)).tolist(), strict=True):
        stays = choices.stays(holder)
        if not degree or stays is False or not state.problem.judged[holder]:
            continue
        domain = int(rule.domain[home_of[holder]])
        if domain == NOWHERE:
            terms += [] if stays is True else [stays]
            continue
        itself = holder in matched and rule.counting[home_of[holder]] == NOWHERE
        excess = model.new_int_var(0, degree, "")
        kept = model.add(excess >= counts[domain] + int(itself) - minimum - rule.max_skew)
        if stays is not True:
            kept.only_enforce_if(stays)
        terms.append(excess)
    return terms
